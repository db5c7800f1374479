"""How fast the page is on an index of 50,000 seconds: `python -m tests.benchmarks.page [--work DIR] [--readme FILE]`.

Measured: from the start of `visxp ui` to a usable page, from a click on a result to the first frame at the moment's
second, and queries by indexed moments through the page's own API. The seconds are random vectors of invented videos;
one rendered video is real, so that something plays. Times depend on the machine and on what else runs on it, so the
load and the processor time of the server are printed beside them. With `--work` an interrupted set-up goes on where it
ended; what could not be measured is said in the JSON, and the exit code is then 1.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.webui_process import CHROMIUM, QUIET, start, stop
from visxp_search.api import open_index
from visxp_search.demo.archive import render_archive
from visxp_search.store import DONE, SecondPoint, Store, VideoRecord, make_payload

REAL = "evening-rain-then-drums.mp4"
VIDEO_SECONDS = 200
N_STARTS = 3
N_CLICKS = 6
N_QUERIES = 20
MARKS = ("<!-- page figures -->", "<!-- end of page figures -->")
"""The figures stand between these in the README."""
PLAYED = """() => {
  window.vxClicked = null; window.vxPlayed = null;
  document.addEventListener('click', () => { window.vxClicked ||= performance.now(); }, { capture: true, once: true });
  document.addEventListener('loadedmetadata', (event) => {
    const player = event.target;
    if (player.id !== 'vx-player') return;
    const wanted = Number(player.dataset.seek) - Number(player.dataset.origin || 0);
    const look = (now, frame) => {
      if (Math.abs(frame.mediaTime - wanted) < 0.3) window.vxPlayed ||= performance.now() - window.vxClicked;
      else player.requestVideoFrameCallback(look);
    };
    player.requestVideoFrameCallback(look);
  }, { capture: true, once: true });
}"""
"""Times a click until a frame of the moment's second is shown, in the page itself."""


def main() -> int:
    """Measure and print JSON; exit code 1 if something could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=50_000, help="of the index (default 50,000)")
    parser.add_argument("--work", type=Path, help="folder of the index, kept, completed and used again")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for each step (default 600)")
    parser.add_argument("--readme", type=Path, help="write the figures into this file, between its marks")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        complete_index(work, n_seconds=options.seconds)
        measured = {"seconds": options.seconds, "load_at_the_start": round(os.getloadavg()[0], 1)}
        failed = measure(work, measured, patience=options.patience)
    print(json.dumps(measured, indent=1))
    if options.readme and not failed:
        write_figures(options.readme, measured)
    return 1 if failed else 0


def measure(work: Path, measured: dict[str, Any], *, patience: float) -> bool:
    """Add what can be measured to `measured`, and what cannot as words; whether there is any of the latter."""
    from playwright.sync_api import Error, sync_playwright

    failed: dict[str, str] = {}

    def attempt(name: str, part: Callable[[], dict[str, Any]]) -> None:
        print(f"measuring {name}", file=sys.stderr)
        try:
            measured.update(part())
        except (Error, AssertionError, TimeoutError) as exc:
            failed[name] = str(exc).splitlines()[0]

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET, timeout=1000 * patience)
        attempt("the start", lambda: open_page(work, browser, patience))
        with running(work, patience) as (url, pid):
            attempt("clicks", lambda: click_moments(url, pid, browser, patience))
            attempt("queries", lambda: ask(url, pid, patience))
        browser.close()
    if failed:
        measured["failed"] = failed
    return bool(failed)


def complete_index(work: Path, *, n_seconds: int) -> None:
    """An index of one real video and enough invented ones; what is there already stays."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "archive" / REAL).exists():
        render_archive(work / "archive", only=[REAL])
    with open_index(work / "index", create=True) as index:
        index.add([work / "archive"], workers=1)
        n_videos = n_seconds // VIDEO_SECONDS
        known = {record.video_id for record in index.store.videos(brief=True) if record.status == DONE}
        for number in range(n_videos):
            video_id = f"{number:032x}"
            if video_id not in known:
                invent_video(index.store, video_id, np.random.default_rng(number))
            if number % 25 == 0:
                print(f"index: {number} of {n_videos} videos", file=sys.stderr)


def invent_video(store: Store, video_id: str, generator: np.random.Generator) -> None:
    """Store `VIDEO_SECONDS` random seconds that wander, as neighbouring seconds are alike; the ledger comes last."""
    vectors = {}
    for name, length in store.info.dims.items():
        steps = generator.standard_normal((VIDEO_SECONDS, length)) * 0.3
        steps[0] = generator.standard_normal(length)
        walk = np.cumsum(steps, axis=0)
        vectors[name] = (walk / np.linalg.norm(walk, axis=1, keepdims=True)).astype(np.float32)
    checkpoint = store.info.checkpoint
    store.upsert_seconds(
        [
            SecondPoint(
                video_id,
                second,
                {name: rows[second] for name, rows in vectors.items()},
                make_payload(video_id=video_id, second=second, has_audio=True, flags=(), checkpoint=checkpoint),
            )
            for second in range(VIDEO_SECONDS)
        ]
    )
    record = VideoRecord(
        video_id,
        (f"/invented/{video_id}.mp4",),
        status=DONE,
        duration_seconds=VIDEO_SECONDS,
        seconds_expected=VIDEO_SECONDS,
        seconds_done=VIDEO_SECONDS,
        checkpoint=checkpoint,
    )
    store.upsert_videos([record])


@contextmanager
def running(work: Path, patience: float) -> Iterator[tuple[str, int]]:
    """The address and process id of `visxp ui`."""
    process, url, _ = start(work, patience=patience)
    try:
        yield url, process.pid
    finally:
        stop(process, patience=patience)


@contextmanager
def opened(url: str, browser: Any, patience: float) -> Iterator[Any]:
    """The page in a window of its own, with its form."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(1000 * patience)
    page.goto(url)
    page.wait_for_selector("#vx-find")
    yield page
    context.close()


def open_page(work: Path, browser: Any, patience: float) -> dict[str, Any]:
    """Start the page a few times, each until its form is there in a browser."""
    usable, cpu = [], []
    for _ in range(N_STARTS):
        begun = time.perf_counter()
        with running(work, patience) as (url, pid), opened(url, browser, patience):
            usable.append(time.perf_counter() - begun)
            cpu.append(cpu_seconds(pid))
    return {
        "usable_page_s": {"first": round(usable[0], 2), "median": round(statistics.median(usable), 2)},
        "server_cpu_until_usable_s": round(statistics.median(cpu), 2),
    }


def click_moments(url: str, pid: int, browser: Any, patience: float) -> dict[str, Any]:
    """Search with a span of the real video, and click the first result several times."""
    with opened(url, browser, patience) as page:
        page.click("#vx-kind label:has-text('Archive')")
        page.click("#vx-video input")
        page.wait_for_selector("#vx-video [role=option]")
        page.fill("#vx-video input", REAL)
        page.press("#vx-video input", "Enter")
        page.wait_for_selector(".vx-strip")
        page.click("#vx-find")
        page.wait_for_selector(f".vx-card:has-text('{REAL}')")
        clicks, cpu = [], cpu_seconds(pid)
        for _ in range(N_CLICKS):
            page.evaluate(PLAYED)
            page.click(f".vx-card:has-text('{REAL}') >> nth=0")
            page.wait_for_function("window.vxPlayed !== null")
            clicks.append(float(page.evaluate("window.vxPlayed")))
            page.click("[data-act=close]")
            page.wait_for_selector("#vx-player", state="detached")
        spent = 1000 * (cpu_seconds(pid) - cpu) / N_CLICKS
    return {
        "click_to_first_frame_ms": {"first": round(clicks[0]), "median": round(statistics.median(clicks[1:]))},
        "server_cpu_a_click_ms": round(spent),
    }


def ask(url: str, pid: int, patience: float) -> dict[str, Any]:
    """Queries of six seconds, one after the other, through the page's API; the first one is not counted."""
    from gradio_client import Client

    client = Client(url, verbose=False, httpx_kwargs={"timeout": patience})
    videos = client.predict("", api_name="/videos")
    client.predict(videos[0]["video_id"], 3, 9, api_name="/search_moment")
    walls, inside, cpu = [], [], cpu_seconds(pid)
    for number in range(N_QUERIES):
        video = videos[number * 7 % len(videos)]["video_id"]
        begun = time.perf_counter()
        found = client.predict(video, 3, 9, api_name="/search_moment")
        walls.append(1000 * (time.perf_counter() - begun))
        inside.append(float(found["took_ms"]))
    return {
        "query_ms": {"median": round(statistics.median(inside)), "slowest": round(max(inside))},
        "query_through_the_api_ms": round(statistics.median(walls)),
        "server_cpu_a_query_ms": round(1000 * (cpu_seconds(pid) - cpu) / N_QUERIES),
    }


def write_figures(readme: Path, measured: dict[str, Any]) -> None:
    """Replace what stands between `MARKS` by a table of the figures.

    Raises:
        ValueError: If the file has no such marks.
    """
    text = readme.read_text(encoding="utf-8")
    before, first, rest = text.partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not first or not last:
        raise ValueError(f"{readme} has no {MARKS[0]} and {MARKS[1]} to write between")
    readme.write_text(f"{before}{first}\n{figures_table(measured)}{last}{after}", encoding="utf-8")


def figures_table(measured: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    usable, click, query = (measured[key] for key in ("usable_page_s", "click_to_first_frame_ms", "query_ms"))
    rows = [
        (
            "`visxp ui` until the page can be used",
            f"{usable['median']:.1f} s (the first time {usable['first']:.1f} s)",
            f"{measured['server_cpu_until_usable_s']:.1f} s of processor time; the encoders load afterwards",
        ),
        (
            "a click on a moment until its first frame",
            f"{click['median']} ms (the first time {click['first']} ms)",
            f"{measured['server_cpu_a_click_ms']} ms of processor time of the server, curve and spectrogram included",
        ),
        (
            "a query of 6 s",
            f"{query['median']} ms, at most {query['slowest']} ms",
            f"{measured['query_through_the_api_ms']} ms through the API, "
            f"{measured['server_cpu_a_query_ms']} ms of processor time",
        ),
    ]
    what = f"the page on {measured['seconds']:,} seconds, load {measured['load_at_the_start']} before"
    lines = [f"| {' | '.join(row)} |\n" for row in ((what, "measured", "beside"), ("---", "---", "---"), *rows)]
    return "".join(lines)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
