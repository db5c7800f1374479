"""The page in a real Chromium, against `visxp ui` in its own process, on a small archive that is rendered here.

The encoders are untrained, so a query is a copy of something indexed: whatever the weights, that is what it must find.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.webui_process import CHROMIUM, QUIET, start, stop
from visxp_search.api import open_index
from visxp_search.cluster_fit import FitOptions, fit_clusters
from visxp_search.decode import probe
from visxp_search.demo.archive import render_archive, render_moment
from visxp_search.render import write_audio, write_video
from webui.endpoints import EXAMPLES
from webui.wording import printable

pytestmark = pytest.mark.browser

FILES = ("bell-tower-morning.mp4", "evening-rain-then-drums.mp4", "rain-recording.m4a")
OLD = os.fsdecode(b"it's \"old\" <img src=x onerror=document.title='run'> \xf0\x9f\x8e\xac \xd7\x90\xd7\x91 \xff.avi")
"""A name as strangers and old disks give it: markup, quotes, a picture, another direction, a byte of no text."""
WAIT_MS = 60_000


@dataclass(frozen=True)
class Site:
    """A running page.

    Attributes:
        url: its address, with a slash at the end.
        folder: holds `archive`, `more`, `index` and the queries.
        log: what it wrote to stderr.
    """

    url: str
    folder: Path
    log: Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An indexed archive, a checkpoint, queries and a folder to add."""
    import torch

    from visxp_search.checkpoint import Architecture, Networks, save_checkpoint
    from visxp_search.encoders import VisualConfig

    made = tmp_path_factory.mktemp("site")
    torch.manual_seed(3)
    # Untrained, early stages say too much: sounds recorded anew, and clusters below branches, are what is tested here.
    networks = Networks(Architecture(visual=VisualConfig(grid=0)))
    save_checkpoint(made / "checkpoint", networks, provenance={}, card="untrained")
    render_archive(made / "archive", only=FILES)
    render_archive(made / "more", only=["robin-in-spring.mp4"])
    # A format that no browser plays.
    frames, waveform = render_moment("clock", 7, variation=0, sample_rate_hz=44_100)
    tape = made / "archive" / "tape.avi"
    write_video(tape, frames=frames, frames_per_second=25, waveform=waveform, codec="mpeg4", audio_codec="mp2")
    tape.rename(made / "archive" / OLD)
    # The drums of the evening begin at second 8 of their video; a lone second 1 of the query is second 9 there.
    frames, waveform = render_moment("drums", 8, variation=2, sample_rate_hz=44_100)
    write_video(made / "drums.mp4", frames=frames, frames_per_second=25, waveform=waveform)
    frames, waveform = render_moment("clock", 5, variation=2, sample_rate_hz=44_100)
    write_video(made / "clock.mp4", frames=frames, frames_per_second=25, waveform=waveform)
    long = [np.full((36, 64, 3), (shade, 90, 255 - shade), dtype=np.uint8) for shade in range(120)]
    noise = np.random.default_rng(0).normal(0, 0.1, 120 * 24_000).astype(np.float32)
    write_video(made / "long.mp4", frames=long, frames_per_second=1, waveform=noise, sample_rate_hz=24_000)
    _, rain = render_moment("rain", 10, variation=2, sample_rate_hz=44_100)
    write_audio(made / "rain.wav", waveform=rain, sample_rate_hz=44_100)
    Image.fromarray(np.full((60, 80, 3), (90, 120, 60), dtype=np.uint8)).save(made / "still.png")
    (made / "empty.mp4").write_bytes(b"")
    with (made / "huge.mp4").open("wb") as huge:
        huge.truncate(500_400_000)  # takes no room on the disk
    (made / "page.mp4").write_text("<html><script>document.title='run'</script></html>")
    (made / "page.html").write_text("<html><script>document.title='run'</script></html>")
    with open_index(made / "index", model=made / "checkpoint", create=True) as index:
        report = index.add([made / "archive"], workers=1)
        fit_clusters(index.store, FitOptions(n_clusters=8), progress=lambda what, done, total: None)
    assert not report.failures
    (made / "second").mkdir()
    shutil.copytree(made / "index", made / "second" / "index")
    (made / "second" / "checkpoint").symlink_to(made / "checkpoint")
    return made


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    """The page of that archive."""
    process, url, log = start(folder, "--root", str(folder / "more"))
    yield Site(url, folder, log)
    stop(process)
    assert process.returncode in (0, 130), log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    """What starts browsers; one at a time may exist."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    """Chromium."""
    launched = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
    yield launched
    launched.close()


@pytest.fixture
def page(site: Site, browser: Any) -> Iterator[Any]:
    """The page opened afresh; afterwards nothing has been asked of another machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(WAIT_MS)
    asked: list[str] = []
    problems: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(site.url)
    opened.wait_for_selector("#vx-find")
    yield opened
    context.close()
    assert [url for url in asked if not url.startswith((site.url, "blob:", "data:"))] == []
    assert problems == []


def search_clip(page: Any, path: Path) -> None:
    """Upload a clip and search."""
    page.set_input_files("#vx-clip input[type=file]", path)
    page.wait_for_selector("#vx-clip video")
    page.click("#vx-find")
    page.wait_for_selector(".vx-card")


def export(page: Any, label: str) -> Path:
    """Choose a format of the basket, export, and wait for the file."""
    page.click("#vx-format input")
    page.get_by_role("option", name=re.compile(re.escape(label))).click()
    with page.expect_download() as download:
        page.click("#vx-export")
    return Path(download.value.path())


def play(page: Any, what: str) -> dict[str, float]:
    """Click a moment; the second at which playing began, the second it should be, and how long that took."""
    page.evaluate(
        "() => { const begun = performance.now(); window.played = null;"
        " document.addEventListener('playing', (event) => { const p = event.target;"
        " if (p.id !== 'vx-player' || window.played) return; window.played ="
        " { at: (p.played.length ? p.played.start(0) : p.currentTime) + Number(p.dataset.origin),"
        " wanted: Number(p.dataset.seek),"
        " ms: performance.now() - begun };"
        " p.pause(); }, true); }"
    )
    page.click(what)
    page.wait_for_function("window.played !== null")
    return dict(page.evaluate("window.played"))


def test_a_clip_finds_its_moment_and_plays_it(page: Any, site: Site) -> None:
    """An uploaded clip finds the same scene first, and clicking plays the video from that second."""
    search_clip(page, site.folder / "drums.mp4")
    assert "evening-rain-then-drums.mp4" in page.inner_text(".vx-card >> nth=0")
    place = play(page, ".vx-card >> nth=0")
    assert 7 <= place["wanted"] <= 9
    assert abs(place["at"] - place["wanted"]) < 0.3, place
    assert page.locator(".vx-timeline .vx-line").count() >= 2
    page.evaluate("document.getElementById('vx-player').play()")
    page.wait_for_function(
        "() => { const player = document.getElementById('vx-player'), query = document.getElementById('vx-asked');"
        " const ahead = player.currentTime - query.currentTime - Number(player.dataset.queryOffset);"
        " return query.muted && !query.paused && Math.abs(ahead) < 0.3; }"
    )
    page.uncheck("#vx-step")
    page.wait_for_function("document.getElementById('vx-asked').paused")


def test_a_sound_finds_its_recording(page: Any, site: Site) -> None:
    """An uploaded sound finds the recording of it, and plays it at the right second."""
    page.click("#vx-kind label:has-text('Sound')")
    page.set_input_files("#vx-sound input[type=file]", site.folder / "rain.wav")
    page.wait_for_selector("#vx-sound button[aria-label='Play']")
    page.click("#vx-find")
    page.wait_for_selector(".vx-card")
    assert "rain-recording.m4a" in page.inner_text(".vx-card >> nth=0")
    place = play(page, ".vx-card >> nth=0")
    assert abs(place["at"] - place["wanted"]) < 0.3


def test_the_microphone_can_ask(site: Site, playwright: Any) -> None:
    """What the microphone hears is recorded in the page and found."""
    microphone = [
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
        f"--use-file-for-fake-audio-capture={site.folder / 'rain.wav'}",
    ]
    launched = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET + microphone)
    page = launched.new_context(permissions=["microphone"]).new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(site.url)
    page.click("#vx-kind label:has-text('Sound')")
    page.click("#vx-sound button[aria-label='Record audio']")
    page.click("#vx-sound .record-button")
    page.wait_for_timeout(4000)
    page.click("#vx-sound .stop-button")
    page.wait_for_selector("#vx-sound button[aria-label='Play']")
    page.click("#vx-find")
    page.wait_for_selector(".vx-card")
    assert "rain" in page.inner_text(".vx-card >> nth=0")
    launched.close()


def test_a_span_of_the_archive_can_ask(page: Any) -> None:
    """A video is chosen, a span is dragged on its pictures, and the search finds that span again."""
    page.click("#vx-kind label:has-text('Archive')")
    page.click("#vx-video input")
    page.get_by_role("option", name="evening-rain-then-drums.mp4").click()
    strip = page.wait_for_selector(".vx-strip")
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 10.2 / 16, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 12.8 / 16, middle, steps=5)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#vx-from textarea, #vx-from input').value === '0:10'")
    assert page.input_value("#vx-to textarea, #vx-to input") == "0:13"
    page.click("#vx-find")
    page.wait_for_selector(".vx-card")
    assert "evening-rain-then-drums.mp4" in page.inner_text(".vx-card >> nth=0")


def test_the_archive_offers_something_to_begin_with(page: Any) -> None:
    """Before anything is asked each video has a tile with a picture, which plays and can be asked with."""
    page.wait_for_selector(".vx-tiles .vx-example")
    assert page.locator(".vx-tiles .vx-example").count() == len(FILES) + 1
    page.wait_for_function("[...document.querySelectorAll('.vx-tiles img')].every((image) => image.naturalWidth > 0)")
    place = play(page, ".vx-tiles .vx-example:has-text('bell-tower')")
    assert abs(place["at"] - place["wanted"]) < 0.3, place
    page.click("#vx-watch [data-act=more]")
    page.wait_for_selector(".vx-card >> nth=0 >> text=bell-tower-morning.mp4")


@pytest.mark.parametrize(
    ("name", "words"), [("empty.mp4", "0 bytes"), ("page.mp4", "cannot be read"), ("still.png", "Invalid file type")]
)
def test_wrong_uploads_are_answered_in_words(page: Any, site: Site, name: str, words: str) -> None:
    """A wrong file gives a message without folders of the server, and the page lives on."""
    page.set_input_files("#vx-clip input[type=file]", site.folder / name)
    page.wait_for_timeout(1500)
    page.click("#vx-find")
    # Gradio's own player may complain first, in a message beside ours.
    message = page.wait_for_selector(f".toast-body:has-text('{words}')").inner_text()
    assert str(site.folder) not in page.content() and "/tmp" not in message
    page.reload()
    search_clip(page, site.folder / "drums.mp4")


def test_an_upload_that_is_too_large_is_not_sent(page: Any, site: Site) -> None:
    """A file above the limit is refused in words with both sizes before it is sent, and the page lives on."""
    page.set_input_files("#vx-clip input[type=file]", site.folder / "huge.mp4")
    words = page.wait_for_selector("#vx-say").inner_text()
    assert "501 MB" in words and "500 MB" in words
    search_clip(page, site.folder / "drums.mp4")


def test_more_hide_basket_and_download(page: Any, site: Site) -> None:
    """Moments are collected, noted and downloaded; a hidden video is gone; more like a moment searches again."""
    search_clip(page, site.folder / "drums.mp4")
    page.click(".vx-card >> nth=0 >> [data-act=collect]")
    page.wait_for_selector(".vx-card >> nth=0 >> text=In basket")
    page.get_by_role("tab", name="Basket").click()
    page.fill(".vx-note-field", "the best drums")
    document = json.loads(export(page, "Results for visxp export").read_text())
    assert document["moments"][0]["note"] == "the best drums"
    assert document["moments"][0]["path"] == "evening-rain-then-drums.mp4"
    assert "the best drums" in export(page, "Table for spreadsheets").read_text()
    edl = export(page, "Edit list").read_text()
    assert "* FROM CLIP NAME:  evening-rain-then-drums.mp4" in edl and "THE BEST DRUMS" in edl
    assert str(site.folder) not in edl
    reel = probe(export(page, "One reel of all"))
    moment = document["moments"][0]
    assert abs(reel.duration_seconds - (moment["end"] - moment["start"])) < 0.3
    page.reload()
    page.get_by_role("tab", name="Basket").click()
    page.wait_for_selector(".vx-row")
    page.get_by_role("tab", name="Find").click()
    search_clip(page, site.folder / "drums.mp4")
    page.click(".vx-card >> nth=0 >> [data-act=hide]")
    page.wait_for_selector("text=1 video hidden")
    assert "evening-rain-then-drums" not in page.inner_text("#vx-results .vx-cards")
    page.click(".vx-card >> nth=0 >> [data-act=more]")
    page.wait_for_selector("text=more like")


def begin_long_search(page: Any, site: Site) -> None:
    """Ask with the longest clip that the page takes, and wait until it says how far it is."""
    page.set_input_files("#vx-clip input[type=file]", site.folder / "long.mp4")
    page.wait_for_selector("#vx-clip video")
    page.click("#vx-find")
    page.wait_for_selector("#vx-search .vx-progress")


def test_a_running_search_can_be_ended(page: Any, site: Site) -> None:
    """A long search says how far it is; Cancel ends it, the results before stay, and the next search is answered."""
    page.click("#vx-kind label:has-text('Sound')")
    page.set_input_files("#vx-sound input[type=file]", site.folder / "rain.wav")
    page.wait_for_selector("#vx-sound button[aria-label='Play']")
    page.click("#vx-find")
    page.wait_for_selector(".vx-card")
    page.click("#vx-kind label:has-text('Clip')")
    begin_long_search(page, site)
    below = page.locator("#vx-by").bounding_box()
    page.click("#vx-search [data-act=stop]")
    page.wait_for_selector("#vx-search >> text=Cancelled")
    assert page.locator("#vx-by").bounding_box() == below
    assert "rain.wav" in page.inner_text(".vx-asked") and page.locator(".vx-card").count()
    page.click(".vx-card >> nth=0 >> [data-act=more]")
    page.wait_for_selector(".vx-asked >> text=more like")
    page.wait_for_selector("#vx-search .vx-hint", state="detached")


def test_leaving_ends_a_running_search(page: Any, site: Site) -> None:
    """Who reloads the page while a search runs finds a page that works, and does not wait for the search before."""
    begin_long_search(page, site)
    page.reload()
    page.wait_for_selector("#vx-find")
    assert page.locator("#vx-search .vx-job").count() == 0
    search_clip(page, site.folder / "drums.mp4")
    assert "evening-rain-then-drums.mp4" in page.inner_text(".vx-card >> nth=0")


def test_rounds_refine_a_search(page: Any, site: Site) -> None:
    """'Not this' adds an example that stands above the results and can be taken away; 'Back' undoes a step."""
    search_clip(page, site.folder / "drums.mp4")
    page.click(".vx-card >> nth=1 >> [data-act=unlike]")
    page.wait_for_selector(".vx-chip.vx-minus >> text=not like")
    page.click(".vx-chip [data-act=drop]")
    page.wait_for_selector(".vx-chip.vx-minus", state="detached")
    page.click("[data-act=back]")
    page.wait_for_selector(".vx-chip.vx-minus >> text=not like")
    page.click("[data-act=back]")
    page.wait_for_selector(".vx-card")
    page.click(".vx-card >> nth=0")
    page.click("#vx-watch [data-act=also]")
    page.wait_for_selector(".vx-chip.vx-plus >> text=also like")


def test_filters_narrow_what_is_found(page: Any, site: Site) -> None:
    """A word of the name leaves only such files; one that no file has gives the reason in words."""
    page.click("#vx-where button")
    page.fill("#vx-files textarea, #vx-files input", "bell")
    page.click("#vx-more button")
    page.check("#vx-weak input")
    search_clip(page, site.folder / "drums.mp4")
    names = page.locator(".vx-card h3").all_inner_texts()
    assert names and set(names) == {"bell-tower-morning.mp4"}
    page.fill("#vx-files textarea, #vx-files input", "nothing-of-this-name")
    page.click("#vx-find")
    page.wait_for_selector("#vx-results >> text=take filters")


def test_what_browsers_cannot_play_is_shown_as_a_copy(page: Any, site: Site) -> None:
    """A moment of an AVI file plays from its second, by a small copy; of a file that is gone it is said why not."""
    page.click("#vx-where button")
    page.fill("#vx-files textarea, #vx-files input", "*.avi")
    search_clip(page, site.folder / "clock.mp4")
    place = play(page, ".vx-card >> nth=0")
    assert abs(place["at"] - place["wanted"]) < 0.3, place
    assert "/media/proxy/" in page.get_attribute("#vx-player", "src")
    assert "a small copy" in page.inner_text("#vx-watch")
    assert page.inner_text(".vx-card h3 >> nth=0") == printable(OLD) and page.title() == "VisXP search"
    page.get_by_role("tab", name="Manage").click()
    page.wait_for_selector(".vx-table tr:has-text('onerror=')")
    page.type("#vx-filter textarea, #vx-filter input", "rain-r", delay=30)  # two names hold all but the last letter
    page.wait_for_function("document.querySelectorAll('.vx-table tbody tr').length === 1")
    (site.folder / "archive" / FILES[2]).rename(site.folder / "away.m4a")
    try:
        page.click(".vx-table .vx-name")
        page.wait_for_selector("#vx-watch .vx-unplayable:has-text('moved or changed')")
    finally:
        (site.folder / "away.m4a").rename(site.folder / "archive" / FILES[2])


def test_the_tree_is_descended_to_a_moment(page: Any) -> None:
    """Two levels down the tree a representative plays from its second, with the strip of clusters below it."""
    page.get_by_role("tab", name="Browse").click()
    page.click(".vx-cluster:has-text('clusters') >> nth=0 >> [data-act=open]")
    page.wait_for_selector(".vx-trail")
    page.click(".vx-cluster >> nth=0 >> [data-act=open]")
    page.wait_for_function("document.querySelectorAll('.vx-trail button').length === 2")
    place = play(page, ".vx-shelf .vx-example >> nth=0")
    assert abs(place["at"] - place["wanted"]) < 0.3, place
    page.click(".vx-legend-keys [data-act=cluster] >> nth=0")
    page.wait_for_selector(".vx-detail [data-act=split]")


def test_the_map_shows_plays_and_opens(page: Any) -> None:
    """Pointing at a circle shows its picture, the wheel enlarges, dragging moves, a click plays, two clicks open."""
    page.get_by_role("tab", name="Browse").click()
    page.click("[data-act=view][data-value=map]")
    page.wait_for_selector(".vx-map svg .vx-leaf")
    page.hover(".vx-leaf circle >> nth=0", force=True)
    page.wait_for_function("[...document.querySelectorAll('.vx-tip img')].some((image) => image.naturalWidth > 0)")
    box = page.locator(".vx-map").bounding_box()
    before = page.get_attribute(".vx-rim", "r")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"document.querySelector('.vx-rim').getAttribute('r') !== '{before}'")
    page.click("[data-zoom='0']")
    place = page.get_attribute(".vx-leaf >> nth=0", "transform")
    page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 2 + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 90, box["y"] + box["height"] / 2 + 10, steps=4)
    page.mouse.up()
    assert page.get_attribute(".vx-leaf >> nth=0", "transform") != place
    page.click("[data-zoom='0']")
    page.focus(".vx-map")
    page.keyboard.press("ArrowLeft")
    assert page.locator(".vx-meant").count() == 1
    page.keyboard.press("Enter")
    page.wait_for_selector("#vx-player")
    page.click("[data-act=close]")
    page.wait_for_selector("#vx-player", state="detached")
    page.click(".vx-leaf circle >> nth=0", force=True)
    page.wait_for_selector("#vx-player")
    page.click("[data-act=close]")
    page.dblclick(".vx-leaf circle >> nth=0", force=True)
    page.wait_for_selector(".vx-detail")


def test_a_cluster_is_asked_with_and_looked_into(page: Any) -> None:
    """A cluster searches by its typical seconds, and becomes a filter that the search form shows."""
    page.get_by_role("tab", name="Browse").click()
    page.click("[data-act=view][data-value=list]")
    page.wait_for_selector("[data-change=sort]")
    page.select_option("[data-change=sort]", "same-sound")
    page.wait_for_selector("option[value=same-sound][selected]", state="attached")
    page.click(".vx-cluster >> nth=0 >> [data-act=open]")
    page.click("[data-act=ask]")
    page.wait_for_selector(".vx-card")
    page.get_by_role("tab", name="Browse").click()
    page.click("[data-act=within]")
    page.wait_for_selector("#vx-nodes .token")


@contextmanager
def listed_clusters(folder: Path, browser: Any) -> Iterator[Any]:
    """A page of its own process, with the list of clusters open."""
    process, url, _ = start(folder)
    try:
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(url)
        page.get_by_role("tab", name="Browse").click()
        page.click("[data-act=view][data-value=list]")
        page.wait_for_selector("[data-change=sort]")
        yield page
        page.close()
    finally:
        stop(process)


def test_names_hold_after_a_restart(folder: Path, browser: Any) -> None:
    """A cluster that is renamed in the page has its name after a restart, on the map and on its branch's card too."""
    with listed_clusters(folder / "second", browser) as page:
        page.click(".vx-cluster >> nth=0 >> [data-act=open]")
        page.fill("[data-change=rename]", "my own name")
        page.press("[data-change=rename]", "Enter")
        page.wait_for_selector("h2:has-text('my own name')")
    with listed_clusters(folder / "second", browser) as page:
        page.wait_for_selector("h3:has-text('my own name')")
        page.click("[data-act=view][data-value=map]")
        page.wait_for_selector(".vx-map-names text:has-text('my own name')", state="attached")
        page.click("[data-act=view][data-value=tree]")
        page.wait_for_selector(".vx-cluster .vx-hint:has-text('my own name')")


def step_to(page: Any, what: str, *, key: str = "Tab") -> None:
    """Press a key until something is focused, which must be seen.

    Args:
        page: the page.
        what: JavaScript about `at`, what is focused.
        key: `Tab` or `Shift+Tab`.
    """
    for _ in range(200):
        page.keyboard.press(key)
        if page.evaluate(f"(() => {{ const at = document.activeElement; return {what}; }})()"):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    raise AssertionError(f"{what} is not reached with {key}")


def test_the_keyboard_is_enough(page: Any, site: Site) -> None:
    """Without a mouse: Find, a result, the player, the basket, an export; what is focused can be seen all the way."""
    page.set_input_files("#vx-clip input[type=file]", site.folder / "drums.mp4")
    page.wait_for_selector("#vx-clip video")
    step_to(page, "at.id === 'vx-find'")
    page.keyboard.press("Enter")
    page.wait_for_selector(".vx-card")
    step_to(page, "at.matches('.vx-card')")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.value") == "1"
    page.keyboard.press("b")
    page.wait_for_selector(".vx-card >> nth=1 >> text=In basket")
    page.keyboard.press("Enter")
    page.wait_for_selector("#vx-player")
    page.keyboard.press("Escape")
    page.wait_for_selector("#vx-player", state="detached")
    step_to(page, "at.role === 'tab' && at.innerText.includes('Basket')", key="Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".vx-row")
    step_to(page, "at.matches('.vx-note-field')")
    page.keyboard.type("by keyboard")
    step_to(page, "at.id === 'vx-export'")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert "BY KEYBOARD" in Path(download.value.path()).read_text().upper()


def test_two_visitors_do_not_meet(site: Site, browser: Any) -> None:
    """Two browsers search at once and each keeps its own results."""
    pages = []
    for _ in range(2):
        opened = browser.new_context().new_page()
        opened.set_default_timeout(WAIT_MS)
        opened.goto(site.url)
        opened.wait_for_selector("#vx-find")
        pages.append(opened)
    pages[0].set_input_files("#vx-clip input[type=file]", site.folder / "drums.mp4")
    pages[1].click("#vx-kind label:has-text('Sound')")
    pages[1].set_input_files("#vx-sound input[type=file]", site.folder / "rain.wav")
    pages[0].wait_for_selector("#vx-clip video")
    pages[1].wait_for_selector("#vx-sound button[aria-label='Play']")
    for opened in pages:
        opened.click("#vx-find")
    for opened, title in zip(pages, ("drums.mp4", "rain.wav"), strict=True):
        opened.wait_for_selector(".vx-card")
        assert title in opened.inner_text(".vx-asked")
        opened.context.close()


READING = {"/search_clip", "/search_sound", "/search_still", "/search_moment", "/facts", "/videos", "/video"}
READING |= {"/clusters", "/cluster", "/export_moments"}
EDITING = {"/name_cluster", "/merge_clusters", "/split_cluster", "/move_cluster", "/hide_cluster"}


def endpoints(url: str, **headers: str) -> set[str]:
    """The names that programs can call."""
    status, body = fetch(f"{url}gradio_api/info", headers=headers)
    assert status == 200
    return set(json.loads(body)["named_endpoints"])


def fetch(url: str, *, headers: dict[str, str] | None = None, data: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of one request."""
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def test_strangers_are_refused(site: Site) -> None:
    """Foreign hosts and origins, traversal and /proc get nothing, with no word about folders."""
    assert fetch(site.url, headers={"Host": "evil.example"})[0] == 421
    body = json.dumps({"data": []}).encode()
    kind = {"Content-Type": "application/json"}
    assert (
        fetch(f"{site.url}gradio_api/run/facts", headers=kind | {"Origin": "http://evil.example"}, data=body)[0] == 403
    )
    assert fetch(f"{site.url}gradio_api/upload", headers={"Origin": "null"}, data=b"x")[0] == 403
    for path in (
        "gradio_api/file=/proc/self/environ",
        "gradio_api/file=/etc/passwd",
        f"gradio_api/file={site.folder}/archive/{FILES[0]}",
        f"gradio_api/file={site.folder}/index/index.json",
        "media/video/..%2f..%2f..%2fetc%2fpasswd",
        "media/video/%2Fproc%2Fself%2Fenviron",
        "gradio_api/proxy=http://127.0.0.1:1/",
        "static/../../../../etc/passwd",
        "assets/..%2f..%2f..%2fetc%2fpasswd",
    ):
        status, answer = fetch(site.url + path)
        assert status in (400, 403, 404), (path, status)
        assert str(site.folder).encode() not in answer and b"root:" not in answer


def upload(site: Site, path: Path) -> str:
    """Upload a file as the page does; the name it is known by."""
    border = b"frontier"
    head = f'Content-Disposition: form-data; name="files"; filename="{path.name}"\r\nContent-Type: text/html\r\n\r\n'
    data = b"--" + border + b"\r\n" + head.encode() + path.read_bytes() + b"\r\n--" + border + b"--\r\n"
    status, answer = fetch(
        f"{site.url}gradio_api/upload", headers={"Content-Type": "multipart/form-data; boundary=frontier"}, data=data
    )
    assert status == 200, answer
    return str(json.loads(answer)[0])


def test_an_uploaded_page_does_not_run(site: Site, browser: Any) -> None:
    """An HTML file that someone uploads is never shown as a page of ours."""
    address = f"{site.url}gradio_api/file={upload(site, site.folder / 'page.html')}"
    request = urllib.request.Request(address)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment")


def test_the_documented_examples_run(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of the Help tab, as they stand there, against this page."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    files = {
        name: site.folder / file
        for name, file in (("clip", "drums.mp4"), ("sound", "rain.wav"), ("still", "still.png"))
    }
    exec(EXAMPLES.format(url=site.url, **files), {})
    assert "evening-rain-then-drums.mp4" in capsys.readouterr().out
    assert endpoints(site.url) == READING | EDITING


def test_thirty_queries_at_once(site: Site) -> None:
    """Thirty programs ask at once; each gets its answer."""
    from gradio_client import Client

    page = Client(site.url, verbose=False, httpx_kwargs={"timeout": 120})
    videos = page.predict("", api_name="/videos")

    def ask(number: int) -> int:
        video = videos[number % len(videos)]
        found = page.predict(video["video_id"], number % 4, number % 4 + 2, by="audio", api_name="/search_moment")
        return len(found["moments"])

    with ThreadPoolExecutor(30) as pool:
        assert all(n > 0 for n in pool.map(ask, range(30)))


def test_adding_beside_searching(page: Any, site: Site) -> None:
    """A folder is added in the page with progress; searching goes on, the new video is found, and can be removed."""
    page.get_by_role("tab", name="Manage").click()
    page.wait_for_selector(".vx-table tr:has-text('bell-tower-morning.mp4')")
    page.click("#vx-folder input")
    page.get_by_role("option", name="more", exact=True).click()
    page.click("#vx-add")
    page.get_by_role("tab", name="Find").click()
    search_clip(page, site.folder / "drums.mp4")
    page.get_by_role("tab", name="Manage").click()
    page.wait_for_selector("#vx-job >> text=1 files indexed")
    page.wait_for_selector(f"#vx-status .vx-count:has-text('in {len(FILES) + 2} videos')")
    page.get_by_role("tab", name="Find").click()
    page.get_by_role("tab", name="Manage").click()
    row = page.locator(".vx-table tr", has_text="robin-in-spring.mp4")
    row.locator("[data-act=confirm]").click()
    page.locator(".vx-table .vx-danger").click()
    row.wait_for(state="detached")
    assert (site.folder / "more" / "robin-in-spring.mp4").exists()


def test_a_second_process_is_told_who_holds_the_index(site: Site) -> None:
    """`visxp index ls` beside the page says that the index is in use, by whom, and what is possible."""
    done = subprocess.run(
        [sys.executable, "-m", "visxp_search.cli", "index", "ls", "--index", str(site.folder / "index")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3 and "in use" in done.stderr and "Qdrant server" in done.stderr


def test_login_and_read_only(folder: Path, site: Site, tmp_path: Path) -> None:
    """With --auth nothing is shown without the password; with --read-only there is nothing to change.

    Nor can a file of the server be asked with as if it had been uploaded.
    """
    shutil.copytree(folder / "checkpoint", tmp_path / "checkpoint")
    with open_index(tmp_path / "index", model=tmp_path / "checkpoint", create=True):
        pass
    process, url, log = start(tmp_path, "--auth", "anna:secret", "--read-only")
    try:
        assert fetch(url)[0] == 401 and fetch(url + "gradio_api/info")[0] == 401
        status, body = fetch(url, headers={"Authorization": "Basic YW5uYTpzZWNyZXQ="})
        assert status == 200 and b"vx-find" in body and b'"vx-add"' not in body
        signed = {"Authorization": "Basic YW5uYTpzZWNyZXQ="}
        assert endpoints(url, **signed) == READING
        events = {
            event
            for call in json.loads(fetch(url + "config", headers=signed)[1])["dependencies"]
            for _, event in call["targets"]
        }
        assert not events & {"rename", "merge", "split", "move", "leave", "retry", "again", "confirm", "remove"}
        still = {"path": str(site.folder / "still.png"), "meta": {"_type": "gradio.FileData"}}
        call = json.dumps({"data": [still, 5, 3, "", None, False]}).encode()
        kind = {"Content-Type": "application/json"}
        status, body = fetch(f"{url}gradio_api/run/search_still", headers=signed | kind, data=call)
        assert status == 500 and json.loads(body) == {"error": None}
        assert "was not uploaded" in log.read_text()
    finally:
        stop(process)
