"""What the page does, without a browser and without Gradio."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.webui_site import BLUE, GREEN, RED, make_archive, record_named, tone, write_colours
from visxp_search.errors import DecodeError, UsageError
from visxp_search.render import write_audio
from visxp_search.search import Query, Results, find_moments
from visxp_search.store import Store, VideoRecord
from webui import asking, finding, videos, watching, wording
from webui.adding import Adder, JobView, Roots
from webui.archive import BROKEN, READY, Archive, NotReadyError
from webui.asking import CLIP, INDEXED, SOUND, STILL, Form, Uploads
from webui.beside import UPLOAD, find_upload
from webui.clusters import Clusters
from webui.endpoints import make_endpoints
from webui.finding import Found
from webui.narrow import Narrow
from webui.videos import display_name
from webui.views import results_view, status_view
from webui.views_manage import facts_view, job_view, videos_view
from webui.views_watch import watch_view


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive that no test changes."""
    made = make_archive(tmp_path_factory.mktemp("archive"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive that tests may change."""
    made = make_archive(tmp_path_factory.mktemp("spare"))
    yield made
    made.close()


def clusters_of(archive: Archive) -> Clusters:
    """Its clusters, with nothing being added."""
    return Clusters(archive, Adder(archive))


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    """An empty upload folder."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    return Uploads(folder, max_bytes=2_000_000, max_seconds=60)


def test_a_clip_finds_the_moment_of_its_colour(archive: Archive, uploads: Uploads) -> None:
    """A green clip finds the green seconds, and the names of videos are file names."""
    clip = write_colours(uploads.folder / "green.mp4", [GREEN, GREEN])
    found = finding.find(archive, clusters_of(archive), Form(CLIP, str(clip), by="visual"), uploads)
    best = found.moments[0]
    assert (found.names[best.video_id], best.start, best.end) == ("cool.mp4", 1, 3)


def test_a_still_finds_its_colour(archive: Archive, uploads: Uploads) -> None:
    """A red picture finds a red second first."""
    path = uploads.folder / "red.png"
    Image.fromarray(np.full((40, 40, 3), RED, dtype=np.uint8)).save(path)
    found = finding.find(archive, clusters_of(archive), Form(STILL, str(path)), uploads)
    assert found.moments[0].score > 0.99


def test_a_sound_can_ask(archive: Archive, uploads: Uploads) -> None:
    """A sound file is compared by sound alone."""
    path = uploads.folder / "tone.wav"
    write_audio(path, waveform=tone(300, 2), sample_rate_hz=24_000)
    found = finding.find(archive, clusters_of(archive), Form(SOUND, str(path)), uploads)
    assert found.moments and all(moment.visual is None for moment in found.moments)


def test_a_span_of_the_archive_finds_itself_and_its_like(archive: Archive, uploads: Uploads) -> None:
    """Asking with indexed seconds needs no file and finds them again with score 1."""
    record = record_named(archive, "warm.mp4")
    found = finding.find(
        archive, clusters_of(archive), Form(INDEXED, None, record.video_id, "3", "5", by="visual"), uploads
    )
    assert found.moments[0].score == pytest.approx(1, abs=1e-3)
    assert {found.names[moment.video_id] for moment in found.moments} == {"warm.mp4", "cool.mp4"}


def test_hidden_videos_stay_hidden_until_shown_again(archive: Archive, uploads: Uploads) -> None:
    """Hiding leaves a video out of the same search, and showing all brings it back."""
    record = record_named(archive, "warm.mp4")
    found = finding.find(
        archive, clusters_of(archive), Form(INDEXED, None, record.video_id, "0", "1", by="visual"), uploads
    )
    hidden = finding.hide_video(archive, clusters_of(archive), found, record.video_id)
    assert record.video_id not in {moment.video_id for moment in hidden.moments}
    assert "1 video hidden" in results_view(hidden, ())
    assert record.video_id in {
        moment.video_id for moment in finding.unhide_all(archive, clusters_of(archive), hidden).moments
    }


def ask(archive: Archive, second: int, **changes: Any) -> Found:
    """A search by picture with one second of warm.mp4, weak matches too."""
    record = record_named(archive, "warm.mp4")
    form = Form(INDEXED, None, record.video_id, str(second), str(second + 1), by="visual", weak=True, **changes)
    return finding.find(archive, clusters_of(archive), form, Uploads(Path("/nowhere")))


def test_rounds_add_examples_and_can_be_taken_back(archive: Archive) -> None:
    """'Not like' lowers what resembles the example, chips say so, and taking it away or going back undoes it."""
    clusters, cool = clusters_of(archive), record_named(archive, "cool.mp4")
    found = ask(archive, 0, per_video=9)
    rank = [(m.video_id, m.start) for m in found.moments].index((cool.video_id, 3.0))
    refined = finding.add_round(archive, clusters, found, cool.video_id, 3, 4, wanted=False)
    ranks = [(m.video_id, m.start) for m in refined.moments]
    assert (cool.video_id, 3.0) not in ranks or ranks.index((cool.video_id, 3.0)) > rank
    html = results_view(refined, ())
    assert "not like" in html and "cool.mp4, 0:03" in html and 'data-act="back"' in html
    both = finding.add_round(archive, clusters, refined, cool.video_id, 1, 3, wanted=True)
    assert [(r.start, r.wanted) for r in both.rounds] == [(3, False), (1, True)]
    assert "also like" in results_view(both, ()) and both.query.against
    dropped = finding.drop_round(archive, clusters, both, "0")
    assert [(r.start, r.wanted) for r in dropped.rounds] == [(1, True)]
    assert finding.go_back(both).rounds == refined.rounds
    assert finding.go_back(finding.go_back(refined)).moments == found.moments


def test_not_like_never_ends_in_an_empty_page(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where "not like" leaves nothing that stands out, the nearest is shown and said so, or a way on is offered."""
    clusters, cool = clusters_of(archive), record_named(archive, "cool.mp4")
    found = replace(ask(archive, 0), form=Form(INDEXED, by="visual"))

    def strict(store: Store, query: Query, *, max_chance: float | None, **options: Any) -> Results:
        results = find_moments(store, query, max_chance=max_chance, **options)
        return results if max_chance is not None else replace(results, moments=(), reason="nothing like this here")

    monkeypatch.setattr(finding, "find_moments", strict)
    unlike = finding.add_round(archive, clusters, found, cool.video_id, 0, 1, wanted=False)
    html = results_view(unlike, ())
    assert unlike.moments and unlike.remainder and "Nothing stands out any more" in html
    assert "even what chance would give" in html and "vx-card" in html
    instead = finding.hide_instead(archive, clusters, unlike)
    assert instead.hidden == (cool.video_id,) and instead.rounds == () and not instead.remainder
    nothing = replace(unlike, results=replace(unlike.results, moments=(), reason="nothing like this here"))
    html = results_view(nothing, ())
    assert 'data-act="instead"' in html and 'data-act="back"' in html and 'data-act="weak"' not in html


def test_more_begins_anew_and_can_be_gone_back_from(archive: Archive) -> None:
    """'More' asks with the moment itself; going back shows the search that it came from."""
    found = ask(archive, 0)
    cool = record_named(archive, "cool.mp4")
    more = finding.more_like(archive, clusters_of(archive), found.form, cool.video_id, 1, 3, found=found)
    assert more.title.startswith("more like cool.mp4") and more.rounds == ()
    assert (more.moments[0].video_id, more.moments[0].start) == (cool.video_id, 1)
    assert finding.go_back(more).title == found.title
    hidden = finding.hide_video(archive, clusters_of(archive), found, cool.video_id)
    more = finding.more_like(archive, clusters_of(archive), found.form, cool.video_id, 1, 3, found=hidden)
    assert more.hidden == (cool.video_id,) and cool.video_id not in {moment.video_id for moment in more.moments}


def test_the_page_says_why_nothing_was_found(archive: Archive) -> None:
    """Filters that leave nothing, and cut-offs, are said in the words of the page, with something to try."""
    nothing = ask(archive, 0, narrow=Narrow(files="no-such-tape"))
    empty = replace(nothing, results=replace(nothing.results, n_seconds=0), form=replace(nothing.form, narrow=Narrow()))
    assert "Nothing is indexed yet" in results_view(empty, ())
    html = results_view(nothing, ())
    assert not nothing.moments and "nothing like this here" in html.lower() and "take filters" in html
    words = "nothing like this here: the nearest moment is one of which 3 are expected by chance in this archive, and "
    words += "the cut-off is 1; --max-chance raises it"
    weak = replace(nothing, results=replace(nothing.results, reason=words), form=replace(nothing.form, weak=False))
    assert "--max-chance" not in results_view(weak, ()) and 'data-act="weak"' in results_view(weak, ())


def test_the_end_of_the_list_says_what_was_left_out(archive: Archive) -> None:
    """Below the last moment stands why there are no more."""
    assert "The best 1 are shown" in results_view(ask(archive, 0, top=1), ())
    assert "even what chance would give" in results_view(ask(archive, 0), ())


def test_filters_narrow_a_search(archive: Archive) -> None:
    """Names, videos and times of the filter hold for all that is found."""
    cool = record_named(archive, "cool.mp4")
    for narrow in (Narrow(files="cool"), Narrow(videos=(cool.video_id,)), Narrow(files="*ol.mp4", before="9")):
        found = ask(archive, 0, narrow=narrow)
        assert {moment.video_id for moment in found.moments} == {cool.video_id}
    late = ask(archive, 0, narrow=Narrow(after="3"))
    assert late.moments and all(moment.start >= 3 for moment in late.moments)
    assert "filters allow" in results_view(late, ())


def test_watching_shows_the_curve_of_the_whole_short_video(archive: Archive, uploads: Uploads) -> None:
    """The curve covers every second around the moment and is highest in it."""
    record = record_named(archive, "warm.mp4")
    found = finding.find(
        archive, clusters_of(archive), Form(INDEXED, None, record.video_id, "3", "5", by="visual"), uploads
    )
    number = next(n for n, m in enumerate(found.moments) if m.video_id == record.video_id and m.start == 3)
    watched = watching.watch(archive, clusters_of(archive), found, number, uploads)
    assert watched.curve is not None and watched.curve.seconds.tolist() == [0, 1, 2, 3, 4]
    assert watched.curve.score[3:].min() > watched.curve.score[:3].max()
    html = watch_view(watched)
    assert f"/media/video/{record.video_id}" in html and 'data-seek="3"' in html


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": None}, "choose or record"),
        ({"start": "abc"}, "not understood"),
        ({"start": "2", "end": "1"}, "before it begins"),
        ({"start": "99"}, "only 2.0 s long"),
        ({"top": 0}, "between 1 and"),
        ({"by": "smell"}, "unknown"),
        ({"audio_weight": 3.0}, "between 0 and 1"),
        ({"kind": "thought"}, "cannot ask with"),
        ({"kind": STILL}, "is a video, not a picture"),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(
    archive: Archive, uploads: Uploads, changes: dict[str, object], words: str
) -> None:
    """Every value that a browser may send is refused with a reason, never a traceback."""
    clip = write_colours(uploads.folder / "red.mp4", [RED, RED])
    values = {"kind": CLIP, "file": str(clip)} | changes
    with pytest.raises(UsageError, match=words):
        finding.find(archive, clusters_of(archive), Form(**values), uploads)  # type: ignore[arg-type]


def test_bad_uploads_are_refused(archive: Archive, uploads: Uploads, tmp_path: Path) -> None:
    """Empty, oversized, foreign, linked and non-media files are refused, and none of the words holds a folder."""
    folder = uploads.folder
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "large.mp4").write_bytes(b"x" * 2_000_001)
    (folder / "page.mp4").write_text("<html><script>alert(1)</script></html>")
    outside = write_colours(tmp_path / "outside.mp4", [RED])
    (folder / "link.mp4").symlink_to(outside)
    cases = {
        folder / "empty.mp4": "0 bytes",
        folder / "large.mp4": "takes up to 2 MB",
        folder / "page.mp4": "cannot be read",
        outside: "only uploaded files",
        folder / "link.mp4": "only uploaded files",
        folder / ".." / "outside.mp4": "only uploaded files",
        folder / "gone.mp4": "upload it again",
        Path("/proc/self/environ"): "only uploaded files",
    }
    for path, words in cases.items():
        with pytest.raises((UsageError, DecodeError), match=words) as caught:
            finding.find(archive, clusters_of(archive), Form(CLIP, str(path)), uploads)
        assert str(tmp_path) not in wording.hide_folders(str(caught.value))


def test_long_uploads_are_refused(archive: Archive, uploads: Uploads) -> None:
    """A file beyond the duration limit is refused before anything is decoded."""
    path = uploads.folder / "long.wav"
    write_audio(path, waveform=np.zeros(8_000 * 70, dtype=np.float32), sample_rate_hz=8_000)
    with pytest.raises(UsageError, match="takes up to 1"):
        finding.find(archive, clusters_of(archive), Form(SOUND, str(path)), uploads)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("/srv/tapes/1998/a.mp4: cannot be read", "a.mp4: cannot be read"),
        ("index /home/anna/x.index is in use (pid 3)", "index x.index is in use (pid 3)"),
        ("12 of 13 and/or 50 % [a / b]", "12 of 13 and/or 50 % [a / b]"),
        ("/srv/my tapes (old)/a b.mp4: 0 bytes", "a b.mp4: 0 bytes"),
        ("'/srv/our tapes/x y/c.mp4' is gone", "'c.mp4' is gone"),
        ("/srv/\udcff\n\u202egpj.4pm", "\ufffd\ufffd\ufffdgpj.4pm"),
    ],
)
def test_messages_lose_their_folders(text: str, hidden: str) -> None:
    """No folder of the server reaches a browser; other words stay."""
    assert wording.hide_folders(text) == hidden


def test_names_cannot_become_html(archive: Archive, uploads: Uploads, tmp_path: Path) -> None:
    """A file name made of tags, handlers and template marks is shown as it is written."""
    nasty = "<img src=x onerror=alert(1)>${alert(2)}{{x}}\"'.mp4"
    record = record_named(archive, "warm.mp4")
    found = finding.find(archive, clusters_of(archive), Form(INDEXED, None, record.video_id, "0", "1"), uploads)
    html = results_view(replace(found, names=dict.fromkeys(found.names, nasty), title=nasty), ())
    html += videos_view([replace(record, paths=(str(tmp_path / nasty),), error=nasty)], 0, read_only=False)
    assert "<img src=x" not in html and "&lt;img src=x" in html


def test_an_index_that_is_replaced_while_the_page_runs_is_said(tmp_path: Path) -> None:
    """When the index's folder is gone, or another lies in its place, the page says so and that it shows the old."""
    archive = make_archive(tmp_path / "site")
    assert archive.readiness.state == READY
    (tmp_path / "site" / "index").rename(tmp_path / "away")
    assert "is gone" in archive.readiness.words and archive.store.count() == 9
    (tmp_path / "site" / "index").mkdir()
    (tmp_path / "site" / "index" / "index.json").write_text("{}")
    readiness = archive.readiness
    assert readiness.state == BROKEN and "replaced" in readiness.words
    assert "replaced" in status_view(readiness.words, None, state=readiness.state)
    (tmp_path / "site" / "index" / "index.json").unlink()
    (tmp_path / "site" / "index").rmdir()
    (tmp_path / "away").rename(tmp_path / "site" / "index")
    assert archive.readiness.state == READY
    archive.close()


def test_names_that_are_no_text_are_sent_as_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, line breaks and signs that turn the direction are shown as replacement signs."""
    record = VideoRecord("v", (str(tmp_path / os.fsdecode(b"old\xff\ntape\xe2\x80\xaegpj.mp4")),), error="bad \udcff")
    for shown in (display_name(record), videos_view([record], 0, read_only=False)):
        assert "old\ufffd\ufffdtape\ufffdgpj.mp4" in shown
        shown.encode()
    (tmp_path / os.fsdecode(b"shelf\xff")).mkdir()
    (tmp_path / "shelf").mkdir()
    assert Roots([tmp_path]).listing() == [tmp_path.name, f"{tmp_path.name}/shelf"]


def test_pages_stop_at_both_ends(archive: Archive, uploads: Uploads) -> None:
    """Turning beyond the first or last page stays there."""
    record = record_named(archive, "warm.mp4")
    found = finding.find(
        archive, clusters_of(archive), Form(INDEXED, None, record.video_id, "0", "1", top=96, per_video=9), uploads
    )
    assert finding.turn_page(found, -1).page == 0
    assert finding.turn_page(found, 5).page == found.n_pages - 1


@pytest.mark.parametrize(
    ("picked", "span"),
    [
        ({"start": 1, "end": 3}, (1, 3)),
        ({"start": 4, "end": 99}, (4, 5)),
        ({"start": -5, "end": -1}, (0, 1)),
        ({"step": 1}, (2, 4)),
        ({"step": -1, "end_only": True}, (1, 2)),
    ],
)
def test_spans_on_the_timeline(archive: Archive, picked: dict[str, object], span: tuple[int, int]) -> None:
    """Dragging and arrow keys give a span of at least a second inside the video."""
    assert asking.picked_span(record_named(archive, "warm.mp4"), "0:01", "0:03", picked) == span


def test_endpoints_speak_of_names_and_ids(archive: Archive, uploads: Uploads) -> None:
    """What programs get has ids and file names, and no folder of the server."""
    clip = write_colours(uploads.folder / "blue.mp4", [BLUE])
    endpoints = make_endpoints(archive, clusters_of(archive), uploads)
    answer = endpoints["search_clip"]({"path": str(clip)}, by="visual")
    assert answer["moments"][0]["name"] in ("warm.mp4", "cool.mp4")
    texts = [str(answer), str(endpoints["facts"]()), str(endpoints["videos"]("")), str(endpoints["video"]("warm.mp4"))]
    assert not any(str(clip.parent.parent.parent) in text for text in texts)
    with pytest.raises(UsageError, match="only uploaded"):
        endpoints["search_clip"]({"path": "/etc/hostname"})


def test_removing_waits_for_adding(spare: Archive) -> None:
    """A video is removed from the index, not from the disk, and not while videos are being added."""
    archive = spare
    record, adder = record_named(archive, "warm.mp4"), Adder(archive)
    adder._thread = object()  # type: ignore[assignment]
    with pytest.raises(UsageError, match="being added"):
        videos.remove_video(archive, adder, record.video_id)
    adder._thread = None
    videos.remove_video(archive, adder, record.video_id)
    assert archive.store.video(record.video_id) is None and Path(record.paths[0]).exists()
    assert "1 complete" in facts_view(archive.facts(fresh=True))


def test_roots_hold_what_is_added_inside(tmp_path: Path) -> None:
    """Only what lies below a root, after resolving links, can be added; hidden folders and links are not offered."""
    (tmp_path / "tapes" / "1998").mkdir(parents=True)
    (tmp_path / "tapes" / ".hidden").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "tapes" / "out").symlink_to(tmp_path / "secret")
    roots = Roots([tmp_path / "tapes"])
    assert roots.listing() == ["tapes", "tapes/1998"]
    assert roots.resolve("tapes/1998") == (tmp_path / "tapes" / "1998").resolve()
    for text in ("tapes/out", "tapes/../secret", "secret", "/etc", "tapes//etc/../../secret", "tapes/nothing", ""):
        with pytest.raises(UsageError):
            roots.resolve(text)


def test_loading_encoders_do_not_keep_the_page_waiting(archive: Archive) -> None:
    """Before the encoders are there the page can say so; when they fail it says that, without details."""
    waiting = Archive(archive.store, lambda: archive.index)
    assert waiting.readiness.state == "loading" and waiting.facts() is not None
    assert "loading" in status_view(waiting.readiness.words, None, state="loading")

    def fail() -> Any:
        raise UsageError("no checkpoint at /secret/place")

    broken = Archive(archive.store, fail)
    broken.start()
    assert broken.wait(5).state == "broken" and "/secret" not in broken.readiness.words
    with pytest.raises(NotReadyError):
        _ = broken.index


@pytest.mark.parametrize(
    ("seconds", "expected", "words"),
    [
        (7_312 * 3600, 10_004 * 3600, "indexed 7,312 of 10,004 h in 40 videos"),
        (5400, 7200, "indexed 1.5 of 2.0 h in 40 videos"),
        (59, 60, "indexed 59 of 60 s in 40 videos"),
    ],
)
def test_the_top_says_how_much_is_indexed(archive: Archive, seconds: int, expected: int, words: str) -> None:
    """How much of what is known is indexed, in hours or seconds, and what is being added."""
    facts = archive.facts()
    assert facts is not None
    facts = replace(facts, seconds=seconds, seconds_expected=expected, videos={"done": 39, "pending": 1})
    shown = status_view("", facts, state=READY, job=JobView(running="tapes", n_files=9, n_finished=2))
    assert words in shown and "adding tapes, 2 of 9 files" in shown


def test_adding_reports_what_failed(archive: Archive, tmp_path: Path) -> None:
    """A folder is added in the background; the page shows counts and failures, without folders of the server."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"no video")

    class FakeIndex:
        def add(self, paths: list[Path], *, workers: int, progress: Any) -> Any:
            progress.found(folder / "broken.mp4", 8)
            progress.failed(folder / "broken.mp4", f"{folder}/broken.mp4: cannot be read")
            progress.finished(folder / "broken.mp4")
            from indexer.report import AddReport

            return AddReport(failures=[(folder / "broken.mp4", "cannot be read")])

    adder = Adder(loaded := Archive(archive.store, FakeIndex))  # type: ignore[arg-type]
    loaded._index = FakeIndex()  # type: ignore[assignment]
    loaded._done.set()
    adder.enqueue("more", [folder])
    thread = adder._thread
    if thread is not None:
        thread.join(10)
    view = adder.view()
    assert view.words.startswith("more: 0 files indexed") and view.n_finished == 1
    assert "broken.mp4: cannot be read" in job_view(view) and str(tmp_path) not in job_view(view)


def test_what_answers_does_not_import_the_page_or_the_encoders() -> None:
    """What answers starts without Gradio, torch or Qdrant, so the page is up before the encoders are."""
    script = (
        "import sys, webui.asking, webui.finding, webui.watching, webui.views, webui.views_manage, webui.views_browse;"
        "import webui.endpoints, webui.guard, webui.media, webui.exporting;"
        "print([name for name in ('gradio', 'torch', 'qdrant_client', 'qdrant_edge', 'indexer', 'training') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gradio_is_imported_without_writing_stubs(tmp_path: Path) -> None:
    """A component that is made within `quick_import` works and gets no `.pyi` beside it; nothing else is changed."""
    (tmp_path / "mine.py").write_text(
        "import gradio as gr\nclass Mine(gr.HTML):\n    EVENTS = ['click']\nassert callable(Mine().click)\n"
    )
    script = (
        "import gc, sys; from webui.starting import OWNER, WRITER, quick_import; before = list(sys.meta_path)\n"
        "with quick_import(): import mine\n"
        "assert gc.isenabled() and sys.meta_path == before\n"
        "assert hasattr(sys.modules[OWNER], WRITER), 'this Gradio writes no stubs: drop webui/starting.py'"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"PYTHONPATH": paths, "GRADIO_ANALYTICS_ENABLED": "False"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert not list(tmp_path.glob("*.pyi"))


def upload_as_gradio_does(uploads: Uploads, path: Path) -> Path:
    """Where an uploaded file lies: in a folder named by a hash."""
    folder = uploads.folder / hashlib.sha256(path.read_bytes()).hexdigest()
    folder.mkdir()
    return path.rename(folder / path.name)


def test_the_query_is_shown_beside_the_moment(archive: Archive, uploads: Uploads) -> None:
    """An uploaded clip, an indexed span and a still are shown beside a moment, in step where that means something."""
    clusters = clusters_of(archive)
    clip = upload_as_gradio_does(uploads, write_colours(uploads.folder / "green.mp4", [BLUE, GREEN, GREEN]))
    found = finding.find(archive, clusters, Form(CLIP, str(clip), "", "1", "3", by="visual"), uploads)
    watched = watching.watch(archive, clusters, found, 0, uploads)
    assert watched.asked is not None and (watched.asked.start, watched.asked.end) == (1, 3)
    media_id = watched.asked.record.video_id
    assert media_id == f"{UPLOAD}{clip.parent.name}" and str(uploads.folder) not in watch_view(watched)
    html = watch_view(watched)
    assert f'src="/media/video/{media_id}" data-seek="1"' in html and "plays in step" in html
    assert f"/media/sound/{media_id}/1-3.jpg" in html and 'data-query-offset="0"' in html
    more = finding.more_like(archive, clusters, found.form, found.moments[0].video_id, 1, 3, found=found)
    asked = watching.watch(archive, clusters, more, 0, uploads).asked
    assert asked is not None and asked.record.video_id == found.moments[0].video_id
    picture = uploads.folder / "red.png"
    Image.fromarray(np.full((40, 40, 3), RED, dtype=np.uint8)).save(picture)
    still = upload_as_gradio_does(uploads, picture)
    found = finding.find(archive, clusters, Form(STILL, str(still)), uploads)
    html = watch_view(watching.watch(archive, clusters, found, 0, uploads))
    assert f"/media/still/{UPLOAD}{still.parent.name}/0.jpg" in html and "plays in step" not in html
    still.unlink()
    assert watching.watch(archive, clusters, found, 0, uploads).asked is None


@pytest.mark.parametrize("name", ["", "..", "0" * 64, "../" + "0" * 61, "exports", "%2e%2e", "0" * 63 + "\n"])
def test_only_uploads_are_served_as_uploads(uploads: Uploads, name: str) -> None:
    """An id that names no upload, or leads elsewhere, finds nothing; nor does one whose file is no media."""
    (uploads.folder / "exports").mkdir()
    (uploads.folder / "exports" / "secret.txt").write_text("secret")
    assert find_upload(uploads, f"{UPLOAD}{name}") is None
    text = uploads.folder / "a.mp4"
    text.write_text("no media")
    assert find_upload(uploads, f"{UPLOAD}{upload_as_gradio_does(uploads, text).parent.name}") is None
