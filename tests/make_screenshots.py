"""Screenshots of every tab, light and dark, on the demo's archive: `python -m tests.make_screenshots OUT`.

The archive is rendered, indexed and clustered in a temporary folder, or in the one that `--work` names, which is used
again. The two pictures of the README are written smaller, as `docs/find.png` and `docs/map.png`.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from tests.webui_process import CHROMIUM, QUIET, start, stop
from visxp_search.api import open_index
from visxp_search.cluster_edit import name
from visxp_search.cluster_fit import FitOptions, fit_clusters
from visxp_search.cluster_store import require_clustering
from visxp_search.demo.run import render_demo

SIZES = {"desk": (1280, 800), "tablet": (820, 1180)}
THEMES = ("light", "dark")
WAIT_MS = 90_000
N_CLUSTERS = 14
IN_README = {"find-watch": "find", "browse-map": "map"}
MAX_README_BYTES = 150_000


def main() -> int:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--work", type=Path, help="folder of the demo's archive and index, kept")
    parser.add_argument("--docs", type=Path, help="folder for the two pictures of the README")
    parser.add_argument("--quick", action="store_true", help="only at 1280x800 and in the light theme")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        if not (work / "index" / "clusters.json").exists():
            make_archive(work)
        process, url, _ = start(work, "--root", str(work / "archive"))
        try:
            for file in look(url, work, options.out, quick=options.quick):
                print(file)
        finally:
            stop(process)
    for shown, kept in IN_README.items() if options.docs else ():
        options.docs.mkdir(exist_ok=True)
        shrink(options.out / f"{shown}-desk-light.png", options.docs / f"{kept}.png")
    return 0


def make_archive(work: Path) -> None:
    """The demo's archive with an index, clusters with a few names, and one file that cannot be read."""
    work.mkdir(parents=True, exist_ok=True)
    render_demo(work, progress=lambda what, done, total: None)
    (work / "archive" / "broken-tape.mp4").write_bytes(b"not a video at all")
    with open_index(work / "index", create=True) as index:
        index.add([work / "archive"], workers=1)
        fit_clusters(index.store, FitOptions(n_clusters=N_CLUSTERS), progress=lambda what, done, total: None)
        clustering = require_clustering(index.store)
        names = {record.video_id: Path(record.paths[0]).stem for record in index.videos()}
        for cluster in clustering.book.clusters():
            name_by_file(index.store, cluster, names)


def name_by_file(store: Any, cluster: int, names: dict[str, str]) -> None:
    """Name a cluster after the file that most of its seconds come from."""
    from visxp_search.store import Filter

    files = [names[point.video_id] for point in store.seconds(Filter(clusters=(cluster,)))]
    if files:
        most = max(sorted(set(files)), key=files.count)
        name(store, require_clustering(store), f"c{cluster}", most.replace("-", " "))


def look(url: str, work: Path, out: Path, *, quick: bool) -> Iterator[Path]:
    """Every scene in every size and theme; quick: in one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        for size, (width, height) in list(SIZES.items())[: 1 if quick else None]:
            for theme in THEMES[: 1 if quick else None]:
                with opened(browser, f"{url}?__theme={theme}", width=width, height=height) as page:
                    for scene, play in SCENES.items():
                        play(page, work)
                        settle(page)
                        file = out / f"{scene}-{size}-{theme}.png"
                        page.screenshot(path=file)
                        yield file
        browser.close()


@contextmanager
def opened(browser: Any, url: str, *, width: int, height: int) -> Iterator[Any]:
    """A fresh page; what goes wrong in it is an error."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#vx-find")
    yield page
    context.close()
    if problems:
        sys.exit(f"the page reported errors: {problems}")


def settle(page: Any) -> None:
    """Wait for all pictures in view, and for playing to stand still."""
    page.evaluate("document.querySelectorAll('video, audio').forEach((player) => player.pause())")
    page.wait_for_function(
        "[...document.images].every((image) => image.complete || !image.offsetParent"
        " || image.getBoundingClientRect().top > innerHeight)"
        " && [...document.querySelectorAll('video')].every((player) => player.readyState > 1 && !player.seeking)"
    )
    page.wait_for_timeout(800)


def tab(page: Any, title: str) -> None:
    """Open a tab from its top."""
    page.get_by_role("tab", name=title, exact=True).click()
    page.evaluate("window.scrollTo(0, 0)")


def find_empty(page: Any, work: Path) -> None:
    """Find, before anything was asked."""
    page.wait_for_function("!document.querySelector('.vx-loading')")


def find_moments(page: Any, work: Path) -> None:
    """Find, after a clip was asked with."""
    page.set_input_files("#vx-clip input[type=file]", work / "queries" / "query-rain.mp4")
    page.wait_for_selector("#vx-clip video")
    page.click("#vx-find")
    page.wait_for_selector(".vx-card")


def find_watch(page: Any, work: Path) -> None:
    """A moment plays beside the results."""
    page.click(".vx-card >> nth=0")
    page.wait_for_function(
        "document.querySelector('#vx-player') && document.querySelector('#vx-player').currentTime > 2"
    )
    page.evaluate("window.scrollTo(0, 0)")


def find_rounds(page: Any, work: Path) -> None:
    """A round of feedback, and filters."""
    page.click("[data-act=close]")
    for number in (0, 2):
        page.click(f".vx-card >> nth={number} >> [data-act=collect]")
        page.wait_for_selector(f".vx-card >> nth={number} >> text=In basket")
    page.click(".vx-card >> nth=1 >> [data-act=unlike]")
    page.wait_for_selector(".vx-minus")
    if page.locator("[data-act=weak]").count():  # offered where "not like" did not leave over the nearest alone
        page.click("[data-act=weak]")
    page.wait_for_selector(".vx-card")
    page.evaluate("window.scrollTo(0, 0)")


def browse_tree(page: Any, work: Path) -> None:
    """The tree's first level."""
    tab(page, "Browse")
    page.wait_for_selector(".vx-cluster")


def browse_cluster(page: Any, work: Path) -> None:
    """One cluster with what stands for it."""
    page.click("[data-value=list]")
    page.wait_for_selector("[data-change=sort]")
    page.click(".vx-cluster >> nth=0 >> [data-act=open]")
    page.wait_for_selector(".vx-detail")


def browse_list(page: Any, work: Path) -> None:
    """All clusters, those that sound the same and look different first."""
    page.click("[data-value=list]")
    page.wait_for_selector("[data-change=sort]")
    page.select_option("[data-change=sort]", "same-sound")
    page.wait_for_selector("option[value=same-sound][selected]", state="attached")


def browse_map(page: Any, work: Path) -> None:
    """The map, with one circle pointed at."""
    page.click("[data-value=map]")
    page.wait_for_selector(".vx-map svg image")
    page.evaluate("window.scrollTo(0, 0)")
    page.hover(".vx-leaf >> nth=4", force=True)
    page.wait_for_timeout(2500)


def basket(page: Any, work: Path) -> None:
    """Collected moments."""
    tab(page, "Basket")
    page.wait_for_selector(".vx-row")
    page.fill(".vx-note-field >> nth=0", "opening of the film")
    page.press(".vx-note-field >> nth=0", "Tab")
    page.wait_for_timeout(1000)


def manage(page: Any, work: Path) -> None:
    """What is indexed, and what failed."""
    tab(page, "Manage")
    page.wait_for_selector(".vx-table tr")


def about(page: Any, work: Path) -> None:
    """Help."""
    tab(page, "Help")


SCENES: dict[str, Callable[[Any, Path], None]] = {
    "find-empty": find_empty,
    "find": find_moments,
    "find-watch": find_watch,
    "find-rounds": find_rounds,
    "browse-tree": browse_tree,
    "browse-cluster": browse_cluster,
    "browse-list": browse_list,
    "browse-map": browse_map,
    "basket": basket,
    "manage": manage,
    "help": about,
}


def shrink(source: Path, target: Path) -> None:
    """A PNG of few colours, small enough for the repository.

    Raises:
        ValueError: If it does not get small enough.
    """
    picture = Image.open(source).convert("RGB")
    picture = picture.resize((960, round(960 * picture.height / picture.width)), Image.Resampling.LANCZOS)
    for colours in (256, 128, 64):
        picture.quantize(colours, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size < MAX_README_BYTES:
            return
    raise ValueError(f"{target} has {target.stat().st_size} bytes; expected fewer than {MAX_README_BYTES}")


if __name__ == "__main__":
    sys.exit(main())
