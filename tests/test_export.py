"""Results leave the tool, and what left can be opened again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import opentimelineio as otio
import pytest

from tests.export_media import read_frames, read_number, read_sound, write_numbered
from visxp_search.cli import main
from visxp_search.decode import read_timing
from visxp_search.export.cuts import find_timecode_rate, read_source, write_timecode
from visxp_search.export.files import unique_names
from visxp_search.export.run import FORMATS

NTSC_30 = Fraction(30000, 1001)
COUNTINGS = {
    "24": (Fraction(24), "10:00:00:00"),
    "25": (Fraction(25), "10:00:00:00"),
    "29.97df": (NTSC_30, "10:00:00;00"),
    "29.97": (NTSC_30, "10:00:00:00"),
    "50": (Fraction(50), "10:00:00:00"),
    "23.976": (Fraction(24000, 1001), "10:00:00:00"),
    "25 without timecode": (Fraction(25), ""),
}
"""Ways to count frames: rate and start timecode."""
EPOCHS = {"24": 864_000, "25": 900_000, "29.97df": 1_078_920, "29.97": 1_080_000, "50": 1_800_000, "23.976": 864_000}
"""Frame number of 10:00:00:00; drop-frame leaves out 2 numbers in 54 of 60 minutes: 36,000 x 30 - 540 x 2."""


def moment(path: Path, start: float, end: float, **more: Any) -> dict[str, Any]:
    """One moment as `visxp search --json` prints it."""
    scores = {"score": 0.8123, "percentile": 99.71, "visual": 0.8, "audio": None, "coverage": 1.0, "offset": 0.0}
    return {"video_id": "ab" * 16, "path": str(path), "start": start, "end": end, **scores, "seconds": [], **more}


def write_results(folder: Path, *moments: dict[str, Any]) -> Path:
    """A document of these moments."""
    query = {"kind": "clip", "by": "both", "mode": "similar", "seconds": 2, "path": "/archive/query film.mp4"}
    path = folder / "results.json"
    indexed = {"videos": 1, "seconds": 9, "complete": True}
    path.write_text(json.dumps({"query": query, "moments": moments, "indexed": indexed, "took_ms": 3}))
    return path


def export(results: Path, to: str, out: Path, *more: str) -> int:
    """Run the command."""
    return main(["export", str(results), "--to", to, "--out", str(out), *more])


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A numbered video of 8 seconds for each way to count frames."""
    folder = tmp_path_factory.mktemp("numbered")
    return {
        name: write_numbered(folder / f"v{name}.mov", rate=rate, n_frames=round(8 * rate), timecode=timecode)
        for name, (rate, timecode) in COUNTINGS.items()
    }


SPANS = [(0.0, 1.0), (1.0, 4.0), (2.5, 3.25), (6.0, 8.0)]


@pytest.mark.parametrize("counting", COUNTINGS)
def test_timing_is_what_was_written(numbered: dict[str, Path], counting: str) -> None:
    """A file's exact rate and start timecode are read back."""
    rate, timecode = COUNTINGS[counting]
    timing = read_timing(numbered[counting])
    assert (timing.rate, timing.start_timecode) == (rate, timecode)


@pytest.mark.parametrize("counting", COUNTINGS)
@pytest.mark.parametrize("to", ["otio", "edl"])
def test_time_lines_keep_every_in_and_out_point(
    numbered: dict[str, Path], tmp_path: Path, counting: str, to: str
) -> None:
    """Opened again, in and out points lie within one frame of the moment, on the source's own timecode."""
    path, (rate, _) = numbered[counting], COUNTINGS[counting]
    results = write_results(tmp_path, *(moment(path, *span) for span in SPANS))
    out = tmp_path / f"hits.{to}"
    assert export(results, to, out) == 0
    timeline = otio.adapters.read_from_file(str(out), **({"rate": float(rate)} if to == "edl" else {}))
    pictures = timeline.video_tracks()[0]
    clips = list(pictures.find_clips())
    assert len(clips) == len(SPANS)
    record = 0.0
    epoch = EPOCHS.get(counting, 0)
    for clip, (start, end) in zip(clips, SPANS, strict=True):
        source = clip.trimmed_range()
        assert source.start_time.rate == pytest.approx(float(rate), abs=1e-3)
        assert abs(source.start_time.value - epoch - start * rate) <= 1
        assert abs(source.end_time_exclusive().value - epoch - end * rate) <= 1
        placed = clip.range_in_parent()
        assert abs(placed.start_time.value - record * rate) <= 1 * len(SPANS)
        assert placed.duration == source.duration
        record += end - start
        assert path.as_uri() in (clip.media_reference.target_url or "")
    if to == "otio":
        assert clips[0].media_reference.available_range.duration.value == round(8 * rate)
        assert clips[0].metadata["visxp"]["score"] == pytest.approx(0.8123)
        assert [clip.name for clip in timeline.audio_tracks()[0].find_clips()] == [path.name] * len(SPANS)


def test_edl_says_how_it_counts(numbered: dict[str, Path], tmp_path: Path) -> None:
    """Drop-frame lists say so and write semicolons; timecodes are those printed by the tape."""
    results = write_results(tmp_path, moment(numbered["29.97df"], 1, 4))
    assert export(results, "edl", tmp_path / "a.edl") == 0
    text = (tmp_path / "a.edl").read_text()
    assert "FCM: DROP FRAME" in text and "10:00:01;00 10:00:04;00 00:00:00;00 00:00:03;00" in text
    results = write_results(tmp_path, moment(numbered["29.97"], 1, 4))
    assert export(results, "edl", tmp_path / "b.edl") == 0
    text = (tmp_path / "b.edl").read_text()
    assert "FCM: NON-DROP FRAME" in text and "10:00:01:00 10:00:04:00 00:00:00:00 00:00:03:00" in text


def test_each_way_of_counting_has_its_own_edl(numbered: dict[str, Path], tmp_path: Path) -> None:
    """Moments of mixed rates become one list a rate, the most frequent one under the name asked for."""
    results = write_results(
        tmp_path,
        moment(numbered["29.97df"], 1, 2),
        moment(numbered["25"], 1, 2),
        moment(numbered["25 without timecode"], 1, 2),
        moment(numbered["29.97"], 1, 2),
    )
    assert export(results, "edl", tmp_path / "hits.edl") == 0
    assert sorted(path.name for path in tmp_path.glob("*.edl")) == ["hits.29.97.edl", "hits.29.97df.edl", "hits.edl"]
    reels = re.findall(r"^00\d +(\S+) ", (tmp_path / "hits.edl").read_text(), re.MULTILINE)
    assert len(set(reels)) == 2


def test_drop_frame_numbers_follow_smpte() -> None:
    """Minutes drop two numbers but each tenth does not."""
    wanted = {1799: "00:00:59;29", 1800: "00:01:00;02", 17981: "00:09:59;29", 17982: "00:10:00;00"}
    assert {n: write_timecode(n, rate=NTSC_30, is_drop=True) for n in wanted} == wanted


def test_rates_are_snapped_to_what_was_meant() -> None:
    """Rates as containers round them count as NTSC; others have no timecode."""
    assert find_timecode_rate(Fraction(2997, 100)) == NTSC_30
    assert find_timecode_rate(Fraction(2398, 100)) == Fraction(24000, 1001)
    assert find_timecode_rate(Fraction(24)) == 24
    assert find_timecode_rate(Fraction(15)) is None


def test_rates_without_timecode_go_to_otio_but_not_to_edl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At 12 frames per second the EDL says why not, and OTIO counts in that rate."""
    path = write_numbered(tmp_path / "slow.mp4", rate=12, n_frames=48)
    results = write_results(tmp_path, moment(path, 1, 3))
    assert export(results, "edl", tmp_path / "hits.edl") == 3
    assert "timecode cannot count 12 frames per second; choose --to otio" in capsys.readouterr().err
    assert export(results, "otio", tmp_path / "hits.otio") == 0
    clip = next(iter(otio.adapters.read_from_file(str(tmp_path / "hits.otio")).find_clips()))
    assert (clip.source_range.start_time.value, clip.source_range.duration.value) == (12, 24)


def test_senseless_rates_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rate beyond all cameras is a clear failure of that moment."""
    path = write_numbered(tmp_path / "fast.mkv", rate=1000, n_frames=1000, hz=None)
    assert export(write_results(tmp_path, moment(path, 0, 1)), "otio", tmp_path / "hits.otio") == 3
    assert "1000 frames per second; allowed are rates up to 300" in capsys.readouterr().err


def test_missing_videos_are_reported_and_the_rest_exported(
    numbered: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One vanished file costs its own moments, exit code 1; if all have vanished nothing is written, exit code 3."""
    gone = moment(tmp_path / "gone.mp4", 1, 2)
    results = write_results(tmp_path, gone, moment(numbered["25"], 1, 2), moment(numbered["25"], 60, 62))
    assert export(results, "otio", tmp_path / "some.otio", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert [failure["rank"] for failure in report["failures"]] == [1, 3]
    assert "No such file" in report["failures"][0]["reason"] and "has no second 60" in report["failures"][1]["reason"]
    assert export(write_results(tmp_path, gone), "otio", tmp_path / "none.otio") == 3
    assert "none of 1 moments can be exported" in capsys.readouterr().err
    assert not (tmp_path / "none.otio").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[]", "has no list of moments"),
        ('{"moments": []}', "the search found nothing"),
        ('{"moments": [{"path": "a", "start": 1}]}', r"moments\[0\].end is None"),
        ('{"moments": [{"path": "a", "start": 3, "end": 3}]}', "runs from 3.0 to 3.0"),
        ('{"moments": [{"path": "a", "start": NaN, "end": 3}]}', r"moments\[0\].start is nan"),
        ('{"moments": [{"path": "", "start": 1, "end": 3}]}', r"moments\[0\].path is ''"),
    ],
)
@pytest.mark.parametrize("to", FORMATS)
def test_what_is_no_result_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str, to: str
) -> None:
    """Anything that a search did not print is one clear line, exit code 2, in every format."""
    results = tmp_path / "results.json"
    results.write_text(text)
    assert export(results, to, tmp_path / "out.mp4") == 2
    err = capsys.readouterr().err
    assert re.search(message, err) and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that even root cannot write to")
@pytest.mark.parametrize("to", ["otio", "edl", "csv", "clips"])
def test_places_that_cannot_be_written_are_refused(
    numbered: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    """Where nothing can be written one line says so."""
    results = write_results(tmp_path, moment(numbered["24"], 1, 2))
    assert export(results, to, Path("/proc/visxp-hits")) == 2
    assert "give another place" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["otio", "edl", "csv", "json", "webvtt", "webannotation", "clips", "reel"])
def test_files_are_not_replaced_unasked(
    numbered: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    """A second export to the same place is refused and changes nothing, unless --overwrite is given."""
    results = write_results(tmp_path, moment(numbered["24"], 1, 2))
    out = tmp_path / ("clips" if to == "clips" else "out.mp4")
    assert export(results, to, out) == 0
    files = list(out.iterdir()) if out.is_dir() else [out]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert export(results, to, out) == 2
    assert "exists already; give another --out, or replace it with --overwrite" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert export(results, to, out, "--overwrite") == 0
    assert not list(tmp_path.glob("**/.*"))


@pytest.mark.parametrize("name", ["24", "25", "50"])
def test_fcpxml_opens_again(numbered: dict[str, Path], tmp_path: Path, name: str) -> None:
    """OpenTimelineIO reads every in and out point of FCPXML within one frame, counted from the start timecode."""
    path, rate = numbered[name], Fraction(name)
    results = write_results(tmp_path, *(moment(path, start, end) for start, end in SPANS))
    assert export(results, "fcpxml", tmp_path / "hits.fcpxml") == 0
    timeline = otio.adapters.read_from_file(str(tmp_path / "hits.fcpxml"), adapter_name="fcpx_xml")
    clips = [clip for track in timeline.video_tracks() for clip in track.find_clips()]
    assert len(clips) == len(SPANS)
    for clip, (start, end) in zip(clips, SPANS, strict=True):
        source = clip.trimmed_range()
        assert source.start_time.rate == pytest.approx(float(rate))
        assert abs(source.start_time.value - 36_000 * rate - start * rate) <= 1
        assert abs(source.end_time_exclusive().value - 36_000 * rate - end * rate) <= 1
        assert clip.media_reference.target_url == path.as_uri()


def test_fcpxml_of_ntsc_counts_in_real_seconds(
    numbered: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A frame of 29.97 lasts 1001/30000 s and all times are whole frames; beside other rates OTIO is asked for."""
    results = write_results(tmp_path, *(moment(numbered["29.97"], start, end) for start, end in SPANS))
    assert export(results, "fcpxml", tmp_path / "hits.fcpxml") == 0
    root = ElementTree.parse(tmp_path / "hits.fcpxml").getroot()
    times = {key: [Fraction(e.get(key, "0s").rstrip("s")) for e in root.iter("clip")] for key in ("start", "duration")}
    formats = [element.get("frameDuration") for element in root.iter("format")]
    assert formats == ["1001/30000s"] * len(formats) and formats
    frames = [time * 30_000 / 1001 for values in times.values() for time in values]
    assert all(frame.denominator == 1 for frame in frames)
    for start, end in SPANS:
        assert any(abs(float(t) - end + start) <= 1.1 / 30 for t in times["duration"])
        assert any(abs(float(t) - 1_080_000 * 1001 / 30_000 - start) <= 1.1 / 30 for t in times["start"])
    mixed = write_results(tmp_path, moment(numbered["29.97"], 1, 2), moment(numbered["25"], 1, 2))
    assert export(mixed, "fcpxml", tmp_path / "mixed.fcpxml") == 2
    assert "FCPXML adapter cannot write this" in capsys.readouterr().err


VTT_TIME = r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"


def parse_webvtt(text: str) -> list[tuple[float, float, str]]:
    """The cues of a WebVTT file, by the grammar of the specification (section 4.1)."""
    head, *blocks = text.removesuffix("\n").split("\n\n")
    assert re.fullmatch(r"WEBVTT([ \t][^\n]*)?", head) and "-->" not in head
    cues = []
    for block in blocks:
        identifier, times, *payload = block.split("\n")
        assert "-->" not in identifier and payload and all(payload) and "-->" not in "\n".join(payload)
        assert not re.search(r"&(?!amp;|lt;|gt;)|<", "\n".join(payload))
        match = re.fullmatch(f"{VTT_TIME} --> {VTT_TIME}", times)
        assert match
        numbers = [int(group) for group in match.groups()]
        start, end = (h * 3600 + m * 60 + s + ms / 1000 for h, m, s, ms in (numbers[:4], numbers[4:]))
        assert start < end
        cues.append((start, end, "\n".join(payload)))
    assert [cue[0] for cue in cues] == sorted(cue[0] for cue in cues)
    return cues


def test_webvtt_parses(tmp_path: Path) -> None:
    """Cues come in the order of time, with names escaped, and need no media."""
    nasty = tmp_path / "a --> b & <c>\n\nd.mp4"
    results = write_results(
        tmp_path, moment(nasty, 3661.5, 3663), moment(nasty, 2, 3), moment(tmp_path / "z.mp4", 1, 9)
    )
    assert export(results, "webvtt", tmp_path / "hits.vtt") == 0
    cues = parse_webvtt((tmp_path / "hits.vtt").read_text())
    assert [cue[:2] for cue in cues] == [(1, 9), (2, 3), (3661.5, 3663)]
    assert cues[1][2].startswith("a -&gt; b &amp; &lt;c&gt; d.mp4\nhit 2, score 0.81")
    assert export(results, "webvtt", tmp_path / "tracks") == 0
    files = sorted(path.name for path in (tmp_path / "tracks").iterdir())
    assert files == ["a_--_b_c_d.vtt", "z.vtt"]
    assert [len(parse_webvtt((tmp_path / "tracks" / name).read_text())) for name in files] == [2, 1]


def test_web_annotations_have_what_the_model_requires(tmp_path: Path) -> None:
    """Collection, page, annotations, bodies and targets carry the keys that the Web Annotation model requires."""
    path = tmp_path / "Ünder ground #1.mp4"
    results = write_results(tmp_path, moment(path, 12, 18.25), moment(path, 1, 2))
    assert export(results, "webannotation", tmp_path / "hits.jsonld") == 0
    collection = json.loads((tmp_path / "hits.jsonld").read_text())
    assert collection["@context"][0] == "http://www.w3.org/ns/anno.jsonld"
    assert (collection["type"], collection["total"]) == ("AnnotationCollection", 2)
    page = collection["first"]
    assert (page["type"], page["partOf"]) == ("AnnotationPage", collection["id"])
    ids = [collection["id"], page["id"], *(item["id"] for item in page["items"])]
    assert len(set(ids)) == 4 and all(re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", value) for value in ids)
    known = set(collection["@context"][1])
    for item, value in zip(page["items"], ["t=12,18.25", "t=1,2"], strict=True):
        assert item["type"] == "Annotation" and item["motivation"] == "identifying"
        datetime.strptime(item["created"], "%Y-%m-%dT%H:%M:%SZ")
        assert item["body"]["type"] == "TextualBody" and item["body"]["value"]
        assert item["target"]["source"] == path.as_uri() and "#" not in item["target"]["source"]
        selector = item["target"]["selector"]
        assert (selector["type"], selector["value"]) == ("FragmentSelector", value)
        assert selector["conformsTo"] == "http://www.w3.org/TR/media-frags/"
        assert set(item) - known == {"id", "type", "motivation", "created", "body", "target"}


def test_tables_hold_every_moment(tmp_path: Path) -> None:
    """CSV and JSON give back what was found, absent values empty."""
    import csv

    results = write_results(tmp_path, moment(tmp_path / 'a, "b".mp4', 1.5, 3), moment(tmp_path / "c.mp4", 61, 70))
    assert export(results, "csv", tmp_path / "hits.csv") == 0
    with (tmp_path / "hits.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["path"], float(row["start"]), float(row["end"])) for row in rows] == [
        (str(tmp_path / 'a, "b".mp4'), 1.5, 3),
        (str(tmp_path / "c.mp4"), 61, 70),
    ]
    assert rows[1]["from"] == "1:01" and rows[1]["audio"] == "" and rows[1]["score"] == "0.8123"
    assert export(results, "json", tmp_path / "hits.out.json") == 0
    document = json.loads((tmp_path / "hits.out.json").read_text())
    assert document["moments"][1]["fragment"] == f"{(tmp_path / 'c.mp4').as_uri()}#t=61,70"


def test_notes_of_a_person_are_handed_on(tmp_path: Path) -> None:
    """A `note` beside a moment stands in tables, subtitles and annotations; without one nothing is added."""
    noted, bare = moment(tmp_path / "a.mp4", 1, 2, note="the <bell>"), moment(tmp_path / "b.mp4", 3, 4)
    results = write_results(tmp_path, noted, bare)
    assert export(results, "csv", tmp_path / "hits.csv") == 0
    assert (tmp_path / "hits.csv").read_text().splitlines()[1].endswith(",the <bell>")
    assert export(results, "webvtt", tmp_path / "hits.vtt") == 0
    assert "the &lt;bell&gt;" in (tmp_path / "hits.vtt").read_text()
    assert export(results, "webannotation", tmp_path / "hits.jsonld") == 0
    first, second = json.loads((tmp_path / "hits.jsonld").read_text())["first"]["items"]
    assert [body["purpose"] for body in first["body"]] == ["describing", "commenting"]
    assert second["body"]["purpose"] == "describing"


def test_results_come_through_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads the document from stdin."""
    results = write_results(tmp_path, moment(tmp_path / "a.mp4", 1, 2))
    with results.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert main(["export", "-", "--to", "csv", "--out", str(tmp_path / "hits.csv")]) == 0


def uncovered(frame: np.ndarray[Any, Any], *, width: int, height: int) -> int:
    """The number in a picture that was scaled into the middle of a frame of a reel."""
    scale = min(frame.shape[1] / width, frame.shape[0] / height)
    shown_width, shown_height = round(width * scale), round(height * scale)
    left, top = (frame.shape[1] - shown_width) // 2, (frame.shape[0] - shown_height) // 2
    return read_number(frame[top : top + shown_height, left : left + shown_width])


@pytest.mark.parametrize("counting", ["29.97df", "25", "50"])
def test_clips_are_frame_exact(numbered: dict[str, Path], tmp_path: Path, counting: str) -> None:
    """Each clip holds exactly the frames of its moment, at its rate, with its sound, under a sensible name."""
    rate = COUNTINGS[counting][0]
    spans = [(1.0, 3.0), (6.5, 7.0)]
    results = write_results(tmp_path, *(moment(numbered[counting], *span) for span in spans))
    assert export(results, "clips", tmp_path / "clips") == 0
    names = sorted(path.name for path in (tmp_path / "clips").iterdir())
    assert names == [f"01_v{counting}_0-01.mp4", f"02_v{counting}_0-06.5.mp4"]
    for name, (start, end) in zip(names, spans, strict=True):
        path = tmp_path / "clips" / name
        frames = [read_number(frame) for frame in read_frames(path)]
        assert frames == list(range(round(start * rate), round(end * rate)))
        assert read_timing(path).rate == rate
        sound = read_sound(path)
        assert sound.shape[1] == pytest.approx(len(frames) / rate * 48_000, abs=2048)
        assert 0.2 < np.sqrt(np.mean(sound[:, 2048:-2048] ** 2)) < 0.5


def test_name_and_timecode_are_burnt_in(numbered: dict[str, Path], tmp_path: Path) -> None:
    """The lower left corner of a frame shows writing, and other writing a frame later; the rest is the source's."""
    results = write_results(tmp_path, moment(numbered["25"], 1, 2))
    assert export(results, "clips", tmp_path / "clips") == 0
    first, second, *_ = read_frames(next((tmp_path / "clips").iterdir()))
    corner = (slice(60, 96), slice(0, 150))
    assert first[corner].max() > 180 and first[corner].min() < 60  # white on dark; the source is grey there
    assert np.abs(first[corner].astype(int) - second[corner]).max() > 60
    assert np.abs(first[30:60, 150:].astype(int) - 90).max() < 12


def test_the_reel_is_the_sum_of_its_parts(
    numbered: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parts of mixed sizes, rates, with and without sound follow each other to the frame, in picture and in sound."""
    silent = write_numbered(tmp_path / "silent.mp4", rate=50, n_frames=200, width=160, height=160, hz=None)
    late = write_numbered(tmp_path / "late.mov", rate=24, n_frames=96, sound_late_seconds=2.0)
    parts: list[tuple[Path, float, float, Fraction | int, tuple[int, int]]] = [
        (numbered["25"], 1.0, 3.0, 25, (192, 96)),
        (silent, 0.5, 2.5, 50, (160, 160)),
        (late, 1.0, 3.0, 24, (192, 96)),
        (numbered["29.97df"], 2.0, 3.5, NTSC_30, (192, 96)),
        (numbered["25"], 4.0, 7.0, 25, (192, 96)),
    ]
    results = write_results(tmp_path, *(moment(path, start, end) for path, start, end, _, _ in parts))
    out = tmp_path / "reel.mp4"
    assert export(results, "reel", out) == 0, capsys.readouterr().err
    timing = read_timing(out)
    assert (timing.rate, timing.width, timing.height) == (Fraction(25), 192, 160)
    wanted_seconds = sum(end - start for _, start, end, _, _ in parts)
    assert abs(timing.duration_seconds - wanted_seconds) <= len(parts) / 25
    frames = list(read_frames(out))
    sound = read_sound(out)
    index = 0
    for path, start, end, rate, (width, height) in parts:
        n_frames = round((end - start) * 25)
        for offset in (0, n_frames // 2, n_frames - 1):
            number = uncovered(frames[index + offset], width=width, height=height)
            assert abs(number / rate - (start + (offset + 0.5) / 25)) <= 1 / rate + 0.5 / 25, (
                path.name,
                offset,
                number,
            )
        second = sound[:, round((index / 25 + 0.2) * 48_000) : round((index / 25 + 0.8) * 48_000)]
        is_loud = np.sqrt(np.mean(second**2)) > 0.1
        assert is_loud == (path not in (silent, late)), path.name
        index += n_frames
    assert index == len(frames)
    begins = round((2 + 2 + 1.2) * 48_000)  # the late sound begins in the middle of the third part
    assert np.sqrt(np.mean(sound[:, begins : begins + 20_000] ** 2)) > 0.1


def test_sound_alone_becomes_a_clip_too(tmp_path: Path) -> None:
    """A moment of a sound file is a film of its sound, with name and time on black."""
    from visxp_search.render import write_audio

    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(5 * 44_100) / 44_100)
    write_audio(tmp_path / "bell.wav", waveform=tone.astype(np.float32), sample_rate_hz=44_100)
    results = write_results(tmp_path, moment(tmp_path / "bell.wav", 1, 3))
    assert export(results, "clips", tmp_path / "clips") == 0
    clip = tmp_path / "clips" / "01_bell_0-01.mp4"
    assert read_timing(clip).duration_seconds == pytest.approx(2, abs=0.04)
    assert np.sqrt(np.mean(read_sound(clip)[:, 4096:-4096] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_a_truncated_video_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames that are not there are told, and the clip keeps its length."""
    path = write_numbered(tmp_path / "cut.mkv", n_frames=200, hz=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    results = write_results(tmp_path, moment(path, 3, 7))
    assert export(results, "clips", tmp_path / "clips") == 1
    assert re.search(r"frames are not there, from 00:00:0\d:\d\d on", capsys.readouterr().err)
    assert len(list(read_frames(tmp_path / "clips" / "01_cut_0-03.mp4"))) == 100


def test_anamorphic_pictures_get_their_shape(tmp_path: Path) -> None:
    """Pixels that are not square are stretched to what is meant to be seen."""
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 144, 116, "yuv420p"
        video.codec_context.sample_aspect_ratio = Fraction(16, 11)
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((116, 144, 3), 90, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    timing = read_source(path).timing
    assert (timing.width, timing.height) == (round(144 * 16 / 11), 116)


def test_ctrl_c_leaves_no_half_file(tmp_path: Path) -> None:
    """An interrupted reel leaves nothing behind, and exits with 130."""
    path = write_numbered(tmp_path / "long.mp4", n_frames=250, width=640, height=360, hz=None)
    results = write_results(tmp_path, *(moment(path, 0, 10) for _ in range(200)))
    command = [sys.executable, "-m", "visxp_search.cli", "export", str(results), "--to", "reel"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "reel.mp4")], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".reel*.partial.mp4")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to us and to our ffmpeg
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mp4", "results.json"]


def test_names_are_sensible_and_differ() -> None:
    """Names lose what file systems dislike, and never fall together, not even where case does not count."""
    assert unique_names(["a/b: c", "A_B_C", "", "..", "x" * 200]) == ["a_b_c", "A_B_C-2", "video", "video-2", "x" * 80]
