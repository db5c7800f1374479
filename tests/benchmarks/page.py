"""How fast the page is on an index of 50,000 seconds: `python -m tests.benchmarks.page [--work FOLDER]`.

Measured: from the start of `visxp ui` to a usable page, from a click on a result to its first playing frame, and
queries by indexed moments through the page's own API. The seconds are random vectors of invented videos; one rendered
video is real, so that something plays. Times depend on the machine and on what else runs on it, so the processor time
of the server is printed beside them.
"""

import argparse
import json
import os
import statistics
import sys
import time
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
N_QUERIES = 20
PLAYED = """() => {
  const begun = performance.now();
  window.played = null;
  document.addEventListener('playing', () => { window.played ||= performance.now() - begun; }, true);
}"""


def main() -> int:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=50_000, help="of the index")
    parser.add_argument("--work", type=Path, help="folder of the index, kept and used again")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        if not (work / "index" / "index.json").exists():
            make_index(work, n_seconds=options.seconds)
        begun = time.perf_counter()
        process, url, _ = start(work)
        listening = time.perf_counter() - begun
        try:
            measured = {"seconds": options.seconds, "listening_s": round(listening, 2)}
            measured |= look(url, begun, process.pid)
            measured |= ask(url, process.pid)
        finally:
            stop(process)
    print(json.dumps(measured, indent=1))
    return 0


def make_index(work: Path, *, n_seconds: int) -> None:
    """An index of one real video and enough invented ones."""
    work.mkdir(parents=True, exist_ok=True)
    render_archive(work / "archive", only=[REAL])
    generator = np.random.default_rng(0)
    with open_index(work / "index", create=True) as index:
        index.add([work / "archive"], workers=1)
        checkpoint = index.store.info.checkpoint
        for number in range(n_seconds // VIDEO_SECONDS):
            invent_video(index.store, f"{number:032x}", checkpoint, generator)


def invent_video(store: Store, video_id: str, checkpoint: str, generator: np.random.Generator) -> None:
    """Store `VIDEO_SECONDS` random seconds that wander, as neighbouring seconds are alike."""
    vectors = {}
    for name, length in store.info.dims.items():
        steps = generator.standard_normal((VIDEO_SECONDS, length)) * 0.3
        steps[0] = generator.standard_normal(length)
        walk = np.cumsum(steps, axis=0)
        vectors[name] = (walk / np.linalg.norm(walk, axis=1, keepdims=True)).astype(np.float32)
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


def look(url: str, begun: float, pid: int) -> dict[str, Any]:
    """Open the page, search with the real video, click the first result several times."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector("#vx-find")
        usable, cpu = time.perf_counter() - begun, cpu_seconds(pid)
        page.click("#vx-kind label:has-text('Archive')")
        page.fill("#vx-video input", REAL)
        page.press("#vx-video input", "Enter")
        page.wait_for_selector(".vx-strip")
        page.click("#vx-find")
        page.wait_for_selector(".vx-card")
        clicks = []
        for _ in range(5):
            page.evaluate(PLAYED)
            page.click(".vx-card >> nth=0")
            page.wait_for_function("window.played !== null")
            clicks.append(float(page.evaluate("window.played")))
            page.click("[data-act=close]")
            page.wait_for_selector("#vx-player", state="detached")
        browser.close()
    return {
        "usable_page_s": round(usable, 2),
        "server_cpu_until_usable_s": round(cpu, 2),
        "click_to_playing_ms": {"first": round(clicks[0]), "median": round(statistics.median(clicks))},
    }


def ask(url: str, pid: int) -> dict[str, Any]:
    """Queries of six seconds, one after the other, through the page's API."""
    from gradio_client import Client

    client = Client(url, verbose=False)
    videos = client.predict("", api_name="/videos")
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


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
