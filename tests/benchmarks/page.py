"""The page on an index of 50,000 seconds: its start, clicks, queries and memory.

Measured: from the start of `visxp ui` to a usable page, from a click on a result to its first playing frame, queries by
indexed moments through the page's own API, and the server's memory after all that. The seconds are random vectors of
invented videos; one rendered video is real, so that something plays. Without Chromium only the server is measured.
"""

import os
import sys
import time
from pathlib import Path

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
N_QUERIES = 20
PLAYED = """() => {
  const begun = performance.now();
  window.played = null;
  document.addEventListener('playing', () => { window.played ||= performance.now() - begun; }, true);
}"""


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """Start it, look at it, ask it."""
    n_seconds = 2 * VIDEO_SECONDS if quick else SECONDS
    if not (work / "index" / "index.json").exists():
        make_index(work, n_seconds=n_seconds)
    begun = time.perf_counter()
    process, url, _ = start(work)
    rows = [row("page", "listening", [time.perf_counter() - begun], unit="s")]
    try:
        if Path(CHROMIUM).exists():
            rows += look(url, begun, process.pid)
        else:
            print(f"page: {CHROMIUM} is missing, so no page is looked at", file=sys.stderr)
        rows += ask(url, process.pid)
        rows.append(row("page", "memory of the server", [tree_mb(process.pid)], unit="MB"))
    finally:
        stop(process)
    return rows


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


def look(url: str, begun: float, pid: int) -> list[Row]:
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
    return [
        row("page", "usable page", [usable], unit="s"),
        row("page", "processor time of the server until then", [cpu], unit="s"),
        row("page", "click to playing, first", clicks[:1], unit="ms"),
        row("page", "click to playing, again", clicks[1:], unit="ms"),
    ]


def ask(url: str, pid: int) -> list[Row]:
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
