"""Writing media, and the demo's archive that is made with it; read back with PyAV itself, not with our decoder."""

from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from visxp_search.clips import SILENT_MAX_PEAK, is_black
from visxp_search.demo.archive import (
    BLANK,
    PROGRAMME,
    DemoTruth,
    describe_archive,
    render_archive,
    render_moment,
    render_queries,
)
from visxp_search.demo.canvas import FRAMES_PER_SECOND
from visxp_search.demo.cues import KICK, compose_drums
from visxp_search.demo.indoors import draw_drums
from visxp_search.demo.kinds import KINDS
from visxp_search.errors import UsageError
from visxp_search.render import degrade_frames, degrade_waveform, write_audio, write_image, write_video

Frame = npt.NDArray[np.uint8]
Waveform = npt.NDArray[np.float32]

EVENT_SECONDS = 3.0
SOME_FILES = {
    "piano-without-sound.mp4",
    "clock-after-a-black-start.mp4",
    "evening-rain-then-drums.mp4",
    "rain-recording.m4a",
}
"""The files of the archive that have something special; all of them take too long for a quick test."""


def read_frames(path: Path) -> tuple[list[float], list[Frame]]:
    """Times in seconds and (H, W, 3) pictures of a file."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        pictures = [np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8) for frame in frames]
        return [float(frame.time or 0) for frame in frames], pictures


def read_waveform(path: Path) -> tuple[int, Waveform]:
    """Sample rate in Hz and the (n,) waveform of a file, its first sample at the file's start."""
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].codec_context.sample_rate
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
        pieces, first = [], None
        for frame in container.decode(audio=0):
            if first is None:
                # MP3 counts the encoder's padding: its sound, and so the container, starts a little after 0.
                first = float(frame.time or 0) - (container.start_time or 0) / 1e6
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    waveform = np.concatenate(pieces).astype(np.float32)
    shift = round((first or 0.0) * rate)
    return rate, np.pad(waveform, (max(0, shift), 0))[max(0, -shift) :]


def make_flash(n_frames: int = 100) -> list[Frame]:
    """Grey pictures, white for a tenth of a second from `EVENT_SECONDS` on."""
    frames = [np.full((90, 160, 3), 40, dtype=np.uint8) for _ in range(n_frames)]
    start = round(EVENT_SECONDS * FRAMES_PER_SECOND)
    for k in range(start, start + 3):
        frames[k][:] = 255
    return frames


def make_click(sample_rate_hz: int, duration_seconds: float = 4.0) -> Waveform:
    """Silence with a short tone from `EVENT_SECONDS` on."""
    time = np.arange(round(duration_seconds * sample_rate_hz)) / sample_rate_hz
    tone = 0.7 * np.sin(2 * np.pi * 1000 * time)
    return np.where((time >= EVENT_SECONDS) & (time < EVENT_SECONDS + 0.1), tone, 0).astype(np.float32)


@pytest.fixture(scope="module")
def some_files(tmp_path_factory: pytest.TempPathFactory) -> DemoTruth:
    """The special files of the archive, rendered once."""
    return render_archive(tmp_path_factory.mktemp("demo"), only=SOME_FILES)


@pytest.mark.parametrize(
    ("suffix", "codec", "audio_codec", "sample_rate_hz"),
    [
        (".mp4", "libx264", "aac", 44_100),
        (".mp4", "libx264", "aac", 24_000),
        (".mkv", "libx264", "libopus", 48_000),
        (".mov", "mpeg4", "pcm_s16le", 24_000),
    ],
)
def test_sound_and_picture_stay_in_sync(
    tmp_path: Path, suffix: str, codec: str, audio_codec: str, sample_rate_hz: int
) -> None:
    """A flash and a click at second 3 come out at second 3, both within a frame, at the right rate and duration."""
    path = tmp_path / f"sync{suffix}"
    click = make_click(sample_rate_hz)
    write_video(
        path, frames=make_flash(), waveform=click, sample_rate_hz=sample_rate_hz, codec=codec, audio_codec=audio_codec
    )
    times, frames = read_frames(path)
    assert len(frames) == 100
    assert np.allclose(np.diff(times), 1 / FRAMES_PER_SECOND, atol=2e-3)
    flash_seconds = times[[frame.mean() > 150 for frame in frames].index(True)] - times[0]
    rate, waveform = read_waveform(path)
    assert rate == sample_rate_hz
    assert len(waveform) / rate == pytest.approx(4.0, abs=0.06)  # codecs fill their last block
    click_seconds = float(np.argmax(np.abs(waveform) > 0.2)) / rate
    assert flash_seconds == pytest.approx(EVENT_SECONDS, abs=1e-3)
    assert click_seconds == pytest.approx(EVENT_SECONDS, abs=1 / FRAMES_PER_SECOND)


@pytest.mark.parametrize("frames_per_second", [10, 50, Fraction(30_000, 1001)])
def test_frame_rate_is_kept(tmp_path: Path, frames_per_second: int | Fraction) -> None:
    """A file has the frame rate it was written with, broken ones included, and lasts as long as its frames."""
    path = tmp_path / "rate.mp4"
    write_video(path, frames=make_flash(), frames_per_second=frames_per_second)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == frames_per_second
        assert stream.duration is not None and stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(100 / float(frames_per_second), abs=1e-3)
        assert not container.streams.audio


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a", ".mp3", ".ogg"])
def test_sound_files_start_on_time(tmp_path: Path, suffix: str) -> None:
    """A click at second 3 of a sound file comes out at second 3, however the codec pads its start."""
    path = tmp_path / f"click{suffix}"
    write_audio(path, waveform=make_click(24_000), sample_rate_hz=24_000)
    rate, waveform = read_waveform(path)
    assert float(np.argmax(np.abs(waveform) > 0.2)) / rate == pytest.approx(EVENT_SECONDS, abs=0.01)


def test_images_come_back_as_written(tmp_path: Path) -> None:
    """A PNG holds exactly the pixels that were written."""
    frame = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    write_image(tmp_path / "picture.png", frame=frame)
    with Image.open(tmp_path / "picture.png") as image:
        assert np.array_equal(np.asarray(image), frame)


def test_same_input_gives_same_bytes(tmp_path: Path) -> None:
    """Writing the same media twice gives the same file."""
    for name in ("first.mp4", "second.mp4"):
        write_video(tmp_path / name, frames=make_flash(), waveform=make_click(44_100))
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "second.mp4").read_bytes()


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """When frames stop with an error the file of that name stays as it was and nothing half-written remains."""
    path = tmp_path / "video.mp4"
    write_video(path, frames=make_flash())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="all must have one size"):
        write_video(path, frames=[*make_flash(), np.zeros((8, 8, 3), dtype=np.uint8)])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["video.mp4"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "at least one"),
        ([np.zeros((3, 8, 8), dtype=np.uint8)], r"expected uint8 \(H, W, 3\)"),
        ([np.zeros((8, 8, 3), dtype=np.float32)], r"expected uint8 \(H, W, 3\)"),
        ([np.zeros((9, 8, 3), dtype=np.uint8)], "even width and height"),
    ],
)
def test_wrong_frames_are_refused(tmp_path: Path, frames: list[Frame], message: str) -> None:
    """Frames of a wrong number, shape, type or size are a ValueError that says what was expected."""
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "bad.mp4", frames=frames)


def test_unknown_codecs_and_suffixes_are_usage_errors(tmp_path: Path) -> None:
    """What FFmpeg or Pillow does not know is a UsageError, and no file appears."""
    with pytest.raises(UsageError, match="check container, codec"):
        write_video(tmp_path / "bad.mp4", frames=make_flash(), codec="no_such_codec")
    with pytest.raises(UsageError, match="not a video codec"):
        write_video(tmp_path / "bad.mp4", frames=make_flash(), codec="aac")
    with pytest.raises(UsageError, match=r"'\.xyz' unknown"):
        write_audio(tmp_path / "bad.xyz", waveform=make_click(24_000), sample_rate_hz=24_000)
    with pytest.raises(UsageError, match=r"'\.xyz' unknown"):
        write_image(tmp_path / "bad.xyz", frame=make_flash(75 + 3)[0])
    assert not list(tmp_path.iterdir())


def test_degraded_copies_are_alike_but_not_equal() -> None:
    """A degraded copy has the original's shape, is not the original, and still correlates with it."""
    frames, waveform = render_moment("bird", 1, variation=0, sample_rate_hz=24_000)
    frame = next(frames)
    copy = next(degrade_frames([frame], seed=1))
    assert copy.shape == frame.shape and not np.array_equal(copy, frame)
    assert np.corrcoef(copy.ravel(), frame.ravel())[0, 1] > 0.7
    quiet = degrade_waveform(waveform, seed=1)
    assert np.abs(quiet).mean() < np.abs(waveform).mean()
    assert np.corrcoef(quiet, waveform)[0, 1] > 0.9


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_moments_are_the_same_every_time(kind: str) -> None:
    """Rendering a moment twice gives the same pictures and the same sound; another variation gives others."""
    first, again, other = (render_moment(kind, 1, variation=k, sample_rate_hz=24_000) for k in (0, 0, 1))
    frames, frames_again, frames_other = (np.stack(list(made[0])) for made in (first, again, other))
    assert np.array_equal(frames, frames_again) and not np.array_equal(frames, frames_other)
    assert np.array_equal(first[1], again[1]) and not np.array_equal(first[1], other[1])
    assert frames.shape == (25, 180, 320, 3) and first[1].shape == (24_000,)
    assert np.abs(first[1]).max() <= 1


def test_kinds_can_be_told_apart() -> None:
    """By colours in a coarse grid, and by the mean spectrum's shape, each query is nearest to its own kind."""

    def see(kind: str, variation: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        frames, waveform = render_moment(kind, 3, variation=variation, sample_rate_hz=24_000)
        picture = next(islice(frames, 12, None)).astype(np.float32)  # the middle of second 0
        grid = picture.reshape(6, 30, 8, 40, 3).mean(axis=(1, 3))  # (180, 320, 3) -> (6, 8, 3)
        power = np.abs(np.fft.rfft(waveform.reshape(-1, 1200))) ** 2
        bands = np.log(np.add.reduceat(power, np.geomspace(2, 500, 24).astype(int), axis=1) + 1e-9)
        features = np.concatenate([bands.mean(axis=0) - bands.mean(), bands.std(axis=0)])
        return grid.ravel(), features.astype(np.float32)

    archive = {(kind, v): see(kind, v) for kind, made in KINDS.items() for v in range(len(made.variations) - 1)}
    for kind, made in KINDS.items():
        query = see(kind, len(made.variations) - 1)
        for modality in (0, 1):
            nearest = min(archive, key=lambda at: float(np.linalg.norm(archive[at][modality] - query[modality])))
            assert nearest[0] == kind, f"{kind} is nearest to {nearest} by {('picture', 'sound')[modality]}"


def test_drums_flash_when_they_sound() -> None:
    """At each kick the bass drum's skin lights up in the picture and the sound gets louder at the same time."""
    look, voice = KINDS["drums"].variations[0]
    cues = compose_drums(6, voice=voice, rng=np.random.default_rng(0))
    kicks = [cue.time_seconds for cue in cues if cue.note == KICK]
    waveform = KINDS["drums"].play(
        cues, n_samples=6 * 24_000, sample_rate_hz=24_000, voice=voice, rng=np.random.default_rng(0)
    )
    scene = draw_drums(look, cues=cues, rng=np.random.default_rng(0))
    skin = (slice(268, 288), slice(384, 398))  # rows and columns of the canvas, two pixels a unit
    for kick in kicks:
        before, after = (np.asarray(scene(kick + offset).image)[skin].mean() for offset in (-0.01, 0.01))
        assert after > before + 5
        start = round(kick * 24_000)
        assert np.abs(waveform[start : start + 720]).max() > 2 * np.abs(waveform[max(0, start - 720) : start]).max()


def test_truth_covers_every_file() -> None:
    """Spans follow each other without gaps from 0 to the duration; each kind is in at least two files."""
    truth = describe_archive(Path("demo"))
    assert len({file.path for file in truth.files}) == len(truth.files)
    for file in truth.files:
        edges = [span.start_seconds for span in file.spans] + [file.duration_seconds]
        assert edges[0] == 0
        assert [span.stop_seconds for span in file.spans] == edges[1:]
        assert all(span.stop_seconds > span.start_seconds for span in file.spans)
        assert 10 <= file.duration_seconds <= 20
        assert {span.kind for span in file.spans} <= {*KINDS, BLANK}
    for kind in KINDS:
        assert len({file.path for file, _ in truth.find_spans(kind)}) >= 2, kind


def test_files_are_as_the_truth_says(some_files: DemoTruth) -> None:
    """Files have the tracks and the duration that the truth gives them, and no other files appear."""
    assert {file.path.name for file in some_files.files} == SOME_FILES
    for file in some_files.files:
        with av.open(str(file.path)) as container:
            assert bool(container.streams.video) == file.has_video
            assert bool(container.streams.audio) == file.has_audio
            assert container.duration is not None
            assert container.duration / 1e6 == pytest.approx(file.duration_seconds, abs=0.05)
    assert (
        {file.has_video for file in some_files.files} == {file.has_audio for file in some_files.files} == {True, False}
    )
    assert {entry.name for entry in some_files.files[0].path.parent.iterdir()} == SOME_FILES


def test_blank_seconds_are_black_and_silent(some_files: DemoTruth) -> None:
    """Every second of a blank span is black and silent, and no second beside it is."""
    ((file, blank),) = some_files.find_spans(BLANK)
    _, frames = read_frames(file.path)
    rate, waveform = read_waveform(file.path)
    for second in range(int(file.duration_seconds)):
        is_blank = blank.start_seconds <= second < blank.stop_seconds
        middle = frames[round((second + 0.5) * FRAMES_PER_SECOND)].transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)
        peak = float(np.abs(waveform[second * rate : (second + 1) * rate]).max())
        assert is_black(middle) == is_blank
        assert (peak <= SILENT_MAX_PEAK) == is_blank


def test_kinds_change_where_the_truth_says(some_files: DemoTruth) -> None:
    """Where one kind follows another the picture changes abruptly, and nowhere else in that file."""
    (file,) = (file for file in some_files.files if file.path.name == "evening-rain-then-drums.mp4")
    times, frames = read_frames(file.path)
    steps = [np.abs(a.astype(np.int16) - b).mean() for a, b in pairwise(frames)]
    assert times[int(np.argmax(steps)) + 1] == pytest.approx(file.spans[1].start_seconds)
    assert sorted(steps)[-2] < 0.5 * max(steps)


def test_unknown_file_is_refused(tmp_path: Path) -> None:
    """Asking for a file that the archive does not have names those it has."""
    with pytest.raises(ValueError, match="bell-tower-dusk"):
        render_archive(tmp_path, only={"nothing.mp4"})


def test_queries_show_what_the_archive_does_not(tmp_path: Path) -> None:
    """A query is a clip and its sound alone, of a kind in the archive, in a variation that no file of it holds."""
    queries = render_queries(tmp_path, only={"clock"})
    assert [(query.kind, query.path.suffix) for query in queries] == [("clock", ".mp4"), ("clock", ".wav")]
    assert {span.kind for file in describe_archive(tmp_path).files for span in file.spans} >= set(KINDS)
    used = {(part.kind, part.variation) for plan in PROGRAMME for part in plan.parts}
    assert not used & {(kind, len(made.variations) - 1) for kind, made in KINDS.items()}
    rate, waveform = read_waveform(queries[1].path)
    assert len(waveform) == rate * queries[1].duration_seconds
    times, frames = read_frames(queries[0].path)
    assert len(frames) == len(times) == queries[0].duration_seconds * FRAMES_PER_SECOND


@pytest.mark.slow
def test_whole_archive_and_queries(tmp_path: Path) -> None:
    """All files and queries are rendered, progress counts to the end, and every query's kind is in the archive."""
    calls: list[tuple[int, int]] = []
    truth = render_archive(tmp_path / "archive", on_progress=lambda done, total: calls.append((done, total)))
    assert truth == describe_archive(tmp_path / "archive")
    assert calls == [(k + 1, len(truth.files)) for k in range(len(truth.files))]
    queries = render_queries(tmp_path / "queries")
    assert {query.kind for query in queries} == set(KINDS)
    for path in [file.path for file in truth.files] + [query.path for query in queries]:
        assert path.stat().st_size > 10_000
    for query in queries:
        assert truth.find_spans(query.kind)
        with av.open(str(query.path)) as container:
            assert container.duration is not None
            assert container.duration / 1e6 == pytest.approx(query.duration_seconds, abs=0.05)
