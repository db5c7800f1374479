"""Exports of the basket: every format, progress, cancelling, and what the files call the videos."""

import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.webui_site import make_archive, record_named
from visxp_search.decode import probe
from visxp_search.errors import UsageError
from webui.archive import Archive
from webui.basket import Collected
from webui.exporting import FORMATS, MAX_KEPT, Export, Exports
from webui.views_manage import export_view


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive that no test changes, at a frame rate that timecode counts."""
    made = make_archive(tmp_path_factory.mktemp("archive"), frames_per_second=25)
    yield made
    made.close()


@pytest.fixture
def exports(archive: Archive, tmp_path: Path) -> Exports:
    """An empty folder of exports."""
    texts = {"csv": lambda basket: f"{len(basket)} rows", "json": lambda basket: json.dumps(len(basket))}
    return Exports(tmp_path / "exports", find=archive.store.video, texts=texts)


def basket_of(archive: Archive) -> list[Collected]:
    """Two moments of two videos, one with a note."""
    warm, cool = record_named(archive, "warm.mp4"), record_named(archive, "cool.mp4")
    return [
        Collected(cool.video_id, 1, 3, 0.8, "the <green> one"),
        Collected(warm.video_id, 0, 2),
    ]


def finish(export: Export) -> Export:
    """Wait for its end."""
    assert export.ended.wait(60)
    return export


@pytest.mark.parametrize("to", ["edl", "otio", "csv", "json", "webvtt", "webannotation"])
def test_every_text_format_is_written_without_folders(
    archive: Archive, exports: Exports, tmp_path: Path, to: str
) -> None:
    """Each format gives one file to save, which names the videos and no folder of the server."""
    export = finish(exports.start(basket_of(archive), to))
    assert export.words == "" and export.path is not None and not export.failures
    if export.path.suffix == ".zip":
        with zipfile.ZipFile(export.path) as packed:
            text = "".join(packed.read(name).decode() for name in packed.namelist())
    else:
        text = export.path.read_text()
    folder = Path(record_named(archive, "warm.mp4").paths[0]).parent
    assert str(folder) not in text and str(tmp_path) not in text
    if to not in ("csv", "json"):
        assert "warm" in text.lower() and "green" in text.lower()
    assert exports.find(export.token) is export and f"/media/export/{export.token}" in export_view(export)


def test_the_reel_is_cut_with_progress(archive: Archive, exports: Exports) -> None:
    """The reel is as long as its moments and its progress ends where it should."""
    export = finish(exports.start(basket_of(archive), "reel"))
    assert export.words == "" and export.path is not None
    assert probe(export.path).duration_seconds == pytest.approx(4, abs=0.3)
    assert export.done == export.total > 0


def test_a_cancelled_export_leaves_nothing(
    archive: Archive, exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling ends the cutting at the next frame; nothing is kept, and the next one may begin."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(results: Any, *, to: str, out: Path, progress: Any) -> None:
        begun.set()
        go_on.wait(30)
        progress("cut reel", 1, 100)

    monkeypatch.setattr("visxp_search.export.run.export_results", slow)
    export = exports.start(basket_of(archive), "reel")
    assert begun.wait(30)
    assert "%" in export_view(export) or "waiting" in export_view(export)
    exports.cancel(export.token)
    go_on.set()
    assert finish(export).words.startswith("Cancelled") and export.path is None
    assert not list((tmp_path / "exports").iterdir()) and "Cancelled" in export_view(export)
    assert exports._cutting.acquire(timeout=1)


def test_what_cannot_be_exported_is_said(archive: Archive, exports: Exports) -> None:
    """Moments of videos that are gone are listed; if none is left, or too much is to be cut, that is said."""
    gone = Collected("f" * 32, 0, 1)
    export = finish(exports.start([*basket_of(archive), gone], "edl"))
    assert export.path is not None and export.failures[0][1] == "its video is no longer in the index"
    assert "1 moment is not in it" in export_view(export)
    export = finish(exports.start([gone], "edl"))
    assert export.path is None and "none of 1 moments" in export.words
    with pytest.raises(UsageError, match="minutes long"):
        exports.start([Collected("a", 0, 9000)], "reel")
    with pytest.raises(UsageError, match="no format"):
        exports.start([gone], "exe")
    with pytest.raises(UsageError, match="empty"):
        exports.start([], "edl")


def test_old_exports_are_forgotten(archive: Archive, exports: Exports, tmp_path: Path) -> None:
    """No more than `MAX_KEPT` finished exports stay on the disk."""
    made = [finish(exports.start(basket_of(archive), "csv")) for _ in range(MAX_KEPT + 3)]
    assert exports.find(made[0].token) is None and exports.find(made[-1].token) is made[-1]
    assert len(list((tmp_path / "exports").iterdir())) <= MAX_KEPT + 1


def test_every_format_of_the_command_is_offered() -> None:
    """The page offers what `visxp export` writes."""
    from visxp_search.export.run import FORMATS as COMMAND_FORMATS

    assert set(FORMATS) == set(COMMAND_FORMATS)
