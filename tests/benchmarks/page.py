"""The page on an index of 50,000 seconds: its start, clicks, queries and memory.

Measured: from the start of `visxp ui` to a usable page, from a click on a result to the first frame at the moment's
second, queries by indexed moments through the page's own API, and the server's memory after all that. The seconds are
random vectors of invented videos; one rendered video is real, so that something plays. Without Chromium only the server
is measured. An interrupted set-up goes on where it ended.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.memory import tree_mb
from tests.benchmarks.race import Row, row
from tests.webui_process import CHROMIUM, QUIET, start, stop
from visxp_search.api import open_index
from visxp_search.demo.archive import render_archive
from visxp_search.store import DONE, SecondPoint, Store, VideoRecord, make_payload

SECONDS = 50_000
REAL = "evening-rain-then-drums.mp4"
VIDEO_SECONDS = 200
N_STARTS = 3
N_CLICKS = 6
N_QUERIES = 20
PATIENCE_SECONDS = 600.0
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
  }, { capture: true });
}"""
"""Times a click until a frame of the moment's second is shown, in the page itself."""


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """Start it, look at it, ask it."""
    complete_index(work, n_seconds=2 * VIDEO_SECONDS if quick else SECONDS)
    rows = []
    if Path(CHROMIUM).exists():
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET, timeout=1000 * PATIENCE_SECONDS)
            rows += open_page(work, browser)
            with running(work) as (url, _):
                rows += click_moments(url, browser)
            browser.close()
    else:
        print(f"page: {CHROMIUM} is missing, so no page is looked at", file=sys.stderr)
    with running(work) as (url, pid):
        rows += ask(url, pid)
        rows.append(row("page", "memory of the server", [tree_mb(pid)], unit="MB"))
    return rows


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
def running(work: Path) -> Iterator[tuple[str, int]]:
    """The address and process id of `visxp ui`."""
    process, url, _ = start(work, patience=PATIENCE_SECONDS)
    try:
        yield url, process.pid
    finally:
        stop(process, patience=PATIENCE_SECONDS)


@contextmanager
def opened(url: str, browser: Any) -> Iterator[Any]:
    """The page in a window of its own, with its form."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE_SECONDS)
    page.goto(url)
    page.wait_for_selector("#vx-find")
    yield page
    context.close()


def open_page(work: Path, browser: Any) -> list[Row]:
    """Start the page a few times, each until its form is there in a browser."""
    usable, cpu = [], []
    for _ in range(N_STARTS):
        begun = time.perf_counter()
        with running(work) as (url, pid), opened(url, browser):
            usable.append(time.perf_counter() - begun)
            cpu.append(cpu_seconds(pid))
    return [
        row("page", "usable page", usable, unit="s"),
        row("page", "processor time of the server until then", cpu, unit="s"),
    ]


def click_moments(url: str, browser: Any) -> list[Row]:
    """Search with a span of the real video, and click the first result several times."""
    with opened(url, browser) as page:
        page.click("#vx-kind label:has-text('Archive')")
        page.click("#vx-video input")
        page.wait_for_selector("#vx-video [role=option]")
        page.fill("#vx-video input", REAL)
        page.press("#vx-video input", "Enter")
        page.wait_for_selector(".vx-strip")
        page.click("#vx-find")
        page.wait_for_selector(f".vx-card:has-text('{REAL}')")
        clicks = []
        for _ in range(N_CLICKS):
            page.evaluate(PLAYED)
            page.click(f".vx-card:has-text('{REAL}') >> nth=0")
            page.wait_for_function("window.vxPlayed !== null")
            clicks.append(float(page.evaluate("window.vxPlayed")))
            page.click("[data-act=close]")
            page.wait_for_selector("#vx-player", state="detached")
    return [
        row("page", "click to the moment's first frame, first", clicks[:1], unit="ms"),
        row("page", "click to the moment's first frame, again", clicks[1:], unit="ms"),
    ]


def ask(url: str, pid: int) -> list[Row]:
    """Queries of six seconds, one after the other, through the page's API; the first one is not counted."""
    from gradio_client import Client

    client = Client(url, verbose=False, httpx_kwargs={"timeout": PATIENCE_SECONDS})
    videos = client.predict("", api_name="/videos")
    client.predict(videos[0]["video_id"], 3, 9, api_name="/search_moment")
    walls, inside, cpu = [], [], cpu_seconds(pid)
    for number in range(N_QUERIES):
        video = videos[number * 7 % len(videos)]["video_id"]
        begun = time.perf_counter()
        found = client.predict(video, 3, 9, api_name="/search_moment")
        walls.append(1000 * (time.perf_counter() - begun))
        inside.append(float(found["took_ms"]))
    per_query = 1000 * (cpu_seconds(pid) - cpu) / N_QUERIES
    return [
        row("page", "query of 6 s", inside, unit="ms"),
        row("page", "query of 6 s, through the page's API", walls, unit="ms"),
        row("page", "query of 6 s, processor time of the server", [per_query], unit="ms"),
    ]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
