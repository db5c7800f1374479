"""Tests of reading media: both methods give the same bits, the right frame and the right sound, for awkward files."""

import ctypes
import logging
import os
import struct
import threading
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from av.stream import Disposition
from av.video.stream import VideoStream

from tests.media import (
    SAMPLE_RATE_HZ,
    Pictures,
    Sound,
    add_pictures,
    add_sound,
    constant_rate,
    draw_index,
    loudest_frequency,
    make_babble,
    make_click,
    make_tones,
    read_index,
    tone_of,
    truncate,
    write_media,
)
from visxp_search.clips import BLACK, NO_AUDIO, NO_VIDEO, SILENT, STATIC, Clip
from visxp_search.decode import (
    ClipReader,
    DecodeLimits,
    MediaInfo,
    decode_clips,
    decode_image,
    decode_waveform,
    probe,
)
from visxp_search.decode_file import read_packets
from visxp_search.errors import DecodeError

FRAME_SIZE = 64
SHARED_MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"
LONG_GOP = "keyint=250:bframes=5:b-pyramid=normal:b-adapt=0:scenecut=0"
OPEN_GOP = "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-pyramid=normal:b-adapt=0:scenecut=0"
NTSC = Fraction(30000, 1001)
REAL_X264 = {"preset": "veryfast"}


def read(path: Path, **options: Any) -> list[Clip]:
    """All clips of a file; the options are those of `open_clips`."""
    return list(open_clips(path, **options))


def open_clips(
    path: Path,
    *,
    method: str = "two_pass",
    start: int = 0,
    stop: int | None = None,
    per_second: int = 1,
    threads: int = 1,
) -> ClipReader:
    """A reader of a file with the sizes of these tests."""
    return decode_clips(
        path,
        frame_size=FRAME_SIZE,
        sample_rate_hz=SAMPLE_RATE_HZ,
        start_second=start,
        stop_second=stop,
        per_second=per_second,
        method=method,  # type: ignore[arg-type]
        threads=threads,
    )


def same(one: npt.NDArray[np.generic] | None, other: npt.NDArray[np.generic] | None) -> bool:
    """Whether both are None or the same bits."""
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and np.array_equal(one, other)


def assert_same_clips(some: list[Clip], others: list[Clip]) -> None:
    """Fail unless two lists of clips agree bit for bit."""
    assert [clip.second for clip in some] == [clip.second for clip in others]
    for one, other in zip(some, others, strict=True):
        assert same(one.frame, other.frame), f"frames of second {one.second} differ"
        assert same(one.waveform, other.waveform), f"waveforms of second {one.second} differ"
        assert one.flags == other.flags


def indices(clips: list[Clip]) -> list[int | None]:
    """The frame indices that came out."""
    return [None if clip.frame is None else read_index(clip.frame) for clip in clips]


def nearest_frames(times: Sequence[Fraction | float], *, end: float, n_seconds: int) -> list[int | None]:
    """What the docstring of `frame_plan` says, written down once more without regard to speed."""
    chosen: list[int | None] = []
    for second in range(n_seconds):
        inside = [i for i, time in enumerate(times) if second <= time < second + 1]
        before = [i for i, time in enumerate(times) if time < second]
        if inside:
            chosen.append(min(inside, key=lambda i: (abs(Fraction(times[i]) - second - Fraction(1, 2)), i)))
        elif before and (before[-1] + 1 < len(times) or end > second):
            chosen.append(before[-1])
        else:
            chosen.append(None)
    return chosen


@dataclass(frozen=True)
class Case:
    """An awkward file, the frame of each of its seconds, and whether pass 2 gets them without falling back."""

    name: str
    pictures: Pictures
    frames: list[int | None]
    sound: Sound | None = None
    options: dict[str, str] | None = None
    plan_holds: bool = True


def tones(n_seconds: float, *, codec: str = "aac", rate_hz: int = SAMPLE_RATE_HZ, format: str = "fltp") -> Sound:
    """Sound with a tone for every second."""
    return Sound([(0, make_tones(n_seconds, rate_hz=rate_hz))], codec=codec, rate_hz=rate_hz, format=format)


def constant(
    n_frames: int, rate: Fraction | int, *, codec: str = "libx264", params: str = "", **options: str
) -> Pictures:
    """Pictures at a constant rate."""
    return Pictures(constant_rate(n_frames, rate), rate=rate, codec=codec, params=params, options=options)


VFR = [0, 0.2, 0.9, 1.1, 3.7, 3.8, 6.5]
MIDDLES_OF_25 = [12, 37, 62, 87]
HEVC = constant(75, 25, codec="libx265", params="keyint=12:min-keyint=12:bframes=3:open-gop=1", preset="ultrafast")
VP9 = constant(75, 25, codec="libvpx-vp9", deadline="realtime", **{"cpu-used": "8"})
MPEG2 = constant(100, 25, codec="mpeg2video", bf="2", g="12", b="800k")
INTRA_REFRESH = constant(100, 25, params="intra-refresh=1:keyint=20:bframes=0", **REAL_X264)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
CASES = [
    Case("25 fps.mp4", constant(100, 25), [*MIDDLES_OF_25], tones(4)),
    Case("50 fps.mkv", constant(100, 50, params="keyint=20"), [25, 75]),
    Case("29.97 fps.mp4", constant(100, NTSC, params=LONG_GOP), [15, 45, 75]),
    Case("1 fps.mp4", constant(5, 1), [0, 1, 2, 3, 4]),
    Case("0.1 fps.mkv", constant(3, Fraction(1, 10)), [*[0] * 10, *[1] * 10, *[2] * 10]),
    Case("0.1 fps.mp4", constant(2, Fraction(1, 10)), [*[0] * 10, *[1] * 10]),
    Case("vfr.mkv", Pictures(VFR), nearest_frames(VFR, end=6.54, n_seconds=7)),
    Case("vfr.mp4", Pictures(VFR), nearest_frames(VFR, end=6.54, n_seconds=7)),
    Case("late pictures.mp4", Pictures(constant_rate(45, 25, start=2.2)), [None, None, 7, 32], tones(4)),
    Case("pictures end early.mkv", constant(55, 25), [12, 37, 54, None], tones(4)),
    Case("hidden by an edit list.mp4", Pictures(constant_rate(100, 25, start=-1)), [37, 62, 87]),
    Case("open gop.mp4", constant(100, 25, params=OPEN_GOP, **REAL_X264), [*MIDDLES_OF_25], tones(4)),
    Case("open gop.ts", constant(100, 25, params=OPEN_GOP, **REAL_X264), [*MIDDLES_OF_25]),
    Case("long gop.mp4", constant(150, 25, params=LONG_GOP, **REAL_X264), [*MIDDLES_OF_25, 112, 137], tones(6)),
    Case("intra refresh.mp4", INTRA_REFRESH, [*MIDDLES_OF_25], plan_holds=False),
    Case("fragments.mp4", constant(100, 25, params="keyint=25"), [*MIDDLES_OF_25], None, FRAGMENTS),
    Case("hevc.mp4", HEVC, [12, 37, 62]),
    Case("vp9.webm", VP9, [12, 37, 62], tones(3, codec="libopus", rate_hz=48_000, format="flt")),
    Case("mpeg4.mp4", constant(100, 25, codec="mpeg4", bf="2", g="50", b="800k"), [*MIDDLES_OF_25], tones(4)),
    Case("mpeg2.ts", MPEG2, [*MIDDLES_OF_25], tones(4, codec="mp2", format="s16")),
    Case("mjpeg.avi", constant(100, 25, codec="mjpeg"), [*MIDDLES_OF_25], tones(4, codec="pcm_s16le", format="s16")),
    Case("one frame.mp4", constant(1, 25), [0]),
    Case("one frame.mkv", constant(1, 25), [0]),
    Case("turned 90.mp4", Pictures(constant_rate(25, 25), rotation=90), [12]),
    Case("turned 180.mp4", Pictures(constant_rate(25, 25), rotation=180), [12]),
    Case("turned 270.mp4", Pictures(constant_rate(25, 25), rotation=270), [12]),
    Case("mirrored.mp4", Pictures(constant_rate(25, 25), mirrored=True), [12]),
    Case("turned and mirrored.mp4", Pictures(constant_rate(25, 25), rotation=90, mirrored=True), [12]),
    Case("second of half kept.mp4", constant(39, 25), [12, 37]),
    Case("second of half dropped.mp4", constant(37, 25), [12]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_awkward_file(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both methods and several threads give the same bits, the known frame and the known tone, from any second on."""
    monkeypatch.setattr("visxp_search.frame_plan.RUN_FRAMES", 1)
    path = write_media(tmp_path / case.name, case.pictures, case.sound, options=case.options)
    with caplog.at_level(logging.INFO, logger="visxp_search"):
        reader = open_clips(path)
        clips = list(reader)
    assert ("every frame is decoded" not in caplog.text) == case.plan_holds
    assert_same_clips(clips, read(path, method="sequential"))
    assert_same_clips(clips, read(path, threads=3))
    assert indices(clips) == case.frames
    assert reader.complaint == ""
    assert reader.info.n_seconds == len(clips)
    middle = len(clips) // 2
    assert_same_clips(read(path, start=middle), clips[middle:])
    assert_same_clips(read(path, start=middle, stop=middle + 1), clips[middle : middle + 1])
    finer = read(path, per_second=4)
    assert_same_clips(finer, read(path, method="sequential", per_second=4))
    assert_same_clips(finer[1::4][: len(clips)], clips)
    for clip in clips:
        assert (NO_VIDEO in clip.flags) == (clip.frame is None)
        if case.sound is None:
            assert clip.waveform is None and NO_AUDIO in clip.flags
        else:
            assert clip.waveform is not None
            assert abs(loudest_frequency(clip.waveform) - tone_of(clip.second)) < 5


def test_reading_in_threads_can_be_ended_early(tmp_path: Path) -> None:
    """A reader with threads that is closed after a few seconds leaves no thread and no open file behind."""
    path = write_media(tmp_path / "long.mp4", constant(40 * 25, 25), options={"x264-params": "keyint=25"})
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with open_clips(path, threads=2) as reader:
        assert [next(reader).second for _ in range(3)] == [0, 1, 2]
        assert threading.active_count() == before[0] + 2
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


@pytest.mark.parametrize("method", ["two_pass", "sequential"])
def test_clips_that_begin_between_seconds(method: str, tmp_path: Path) -> None:
    """Of four clips a second each has the frame of its own middle and the sound that it covers."""
    path = write_media(tmp_path / "v.mp4", Pictures(constant_rate(80, 20)), tones(4))
    clips = read(path, method=method, per_second=4)
    begins = [part / 4 for part in range(-1, 14)]  # the middles of all of them lie in (0, 4)
    assert indices(clips) == [round(20 * (begin + 0.5)) for begin in begins]
    whole = decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ)
    for begin, clip in zip(begins, clips, strict=True):
        first = round(begin * SAMPLE_RATE_HZ)
        expected = np.pad(whole, SAMPLE_RATE_HZ)[first + SAMPLE_RATE_HZ : first + 2 * SAMPLE_RATE_HZ]
        np.testing.assert_array_equal(clip.waveform, expected)
    inside = read(path, method=method, start=2, stop=3, per_second=4)
    assert indices(inside) == indices(clips)[8:11]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED_MEDIA.is_dir(), reason=f"needs the media in {SHARED_MEDIA}")
@pytest.mark.slow
def test_shared_media() -> None:
    """Both methods agree on ordinary files, which are whole."""
    for path in sorted(SHARED_MEDIA.glob("*.*")):
        reader = open_clips(path, stop=40)
        clips = list(reader)
        assert len(clips) == min(40, reader.info.n_seconds) and reader.complaint == ""
        assert_same_clips(clips, read(path, method="sequential", stop=40))


def test_probe_says_what_a_video_is(tmp_path: Path) -> None:
    """Kind, duration, size after rotation, rate and codecs come from the file."""
    path = write_media(tmp_path / "v.mp4", Pictures(constant_rate(100, 25), rotation=90), tones(4))
    info = probe(path)
    assert info == MediaInfo(
        kind="video",
        container="mov,mp4,m4a,3gp,3g2,mj2",
        duration_seconds=4.0,
        n_seconds=4,
        width=96,
        height=128,
        frames_per_second=25.0,
        video_codec="h264",
        audio_codec="aac",
    )
    assert info.has_video and info.has_audio


def test_frames_have_the_colours_of_the_file(tmp_path: Path) -> None:
    """Red stays red: channels are RGB in that order, first axis."""
    picture = np.zeros((96, 128, 3), dtype=np.uint8)
    picture[..., 0] = 200
    PIL.Image.fromarray(picture).save(tmp_path / "red.png")
    frame = decode_image(tmp_path / "red.png", frame_size=8)
    assert frame.shape == (3, 8, 8) and frame.flags.c_contiguous
    assert frame.reshape(3, -1).mean(axis=1).tolist() == [200, 0, 0]


@pytest.mark.parametrize("size", [(2, 2), (16, 4096), (4096, 16)])
def test_extreme_shapes_are_resized(size: tuple[int, int], tmp_path: Path) -> None:
    """Any shape becomes a square, its mean brightness kept."""
    PIL.Image.new("RGB", size, (90, 90, 90)).save(tmp_path / "x.png")
    frame = decode_image(tmp_path / "x.png", frame_size=32)
    assert frame.shape == (3, 32, 32) and np.abs(frame.astype(int) - 90).max() <= 1


# Sound


def click_times(path: Path) -> list[float]:
    """Times of loud samples in a file, one for each click."""
    waveform = decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ)
    loud = np.flatnonzero(np.abs(waveform) > 0.2)
    starts = loud[np.diff(loud, prepend=-10_000) > 1000]
    return [round(float(start) / SAMPLE_RATE_HZ, 3) for start in starts]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([(0, make_click(4, [0.5, 2.25, 3.75]))], id="from the beginning"),
        pytest.param([(1.5, make_click(2.5, [0.25, 0.75, 2]))], id="late start"),
        pytest.param([(0, make_click(1, [0.5])), (2.2, make_click(1.8, [0.05, 1.55]))], id="gap"),
    ],
)
@pytest.mark.parametrize(("name", "codec", "format"), [("s.mkv", "pcm_s16le", "s16"), ("s.mp4", "aac", "fltp")])
def test_sound_is_placed_by_its_time_stamps(
    name: str, codec: str, format: str, pieces: list[tuple[float, npt.NDArray[np.float32]]], tmp_path: Path
) -> None:
    """Clicks come out when they were put in, whatever starts late or is missing before them."""
    expected = [start + time for start, samples in pieces for time in np.flatnonzero(samples)[::24] / SAMPLE_RATE_HZ]
    path = write_media(tmp_path / name, constant(100, 25), Sound(pieces, codec=codec, format=format))
    assert np.allclose(click_times(path), expected, atol=0.003)


def test_gap_in_sound_is_silence_or_no_audio(tmp_path: Path) -> None:
    """A second with some samples is padded with zeros, one without any has no waveform."""
    sound = Sound([(0, make_tones(1.5)), (3, make_tones(1, first_second=3))], codec="pcm_s16le", format="s16")
    clips = read(write_media(tmp_path / "gap.mkv", constant(100, 25), sound))
    assert [clip.waveform is None for clip in clips] == [False, False, True, False]
    half = clips[1].waveform
    assert half is not None and half.shape == (SAMPLE_RATE_HZ,)
    assert np.abs(half[:11_000]).max() > 0.2 and np.all(half[13_000:] == 0)
    assert clips[2].flags == (NO_AUDIO,)


def test_waveform_is_what_the_clips_have(tmp_path: Path) -> None:
    """`decode_waveform` cuts the same samples out of the same time line, and stops where the sound does."""
    path = write_media(tmp_path / "s.wav", None, tones(3.25, codec="pcm_s16le", format="s16"))
    whole = decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ)
    assert len(whole) == round(3.25 * SAMPLE_RATE_HZ) and whole.dtype == np.float32
    clips = read(path)
    assert same(
        np.concatenate([clip.waveform for clip in clips if clip.waveform is not None]), whole[: 3 * SAMPLE_RATE_HZ]
    )
    part = decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ, start_seconds=0.75, stop_seconds=2.5)
    assert same(part, whole[18_000:60_000])
    assert len(decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ, start_seconds=9)) == 0


@pytest.mark.parametrize(("name", "codec"), [("s.mp4", "aac"), ("s.mkv", "opus"), ("s.wav", "pcm_s16le")])
def test_waveform_after_a_seek_lies_at_the_same_place(tmp_path: Path, name: str, codec: str) -> None:
    """With `seek` the samples are where they were to some milliseconds, in files with pictures as well."""
    samples = make_babble(20, seed=0, rate_hz=SAMPLE_RATE_HZ)
    sound = Sound([(0, samples)], codec=codec, format="s16" if codec.startswith("pcm") else "fltp")
    path = write_media(tmp_path / name, None if name.endswith("wav") else constant(500, 25), sound)
    exact, quick = (
        decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ, start_seconds=14.3, stop_seconds=17.1, seek=seek)
        for seek in (False, True)
    )
    assert len(exact) == len(quick) == round(2.8 * SAMPLE_RATE_HZ)
    products = np.correlate(quick, exact[500:-500], mode="valid")
    assert abs(int(products.argmax()) - 500) < 0.01 * SAMPLE_RATE_HZ
    assert products.max() > 0.95 * np.square(exact[500:-500]).sum()


def test_waveform_needs_sound(tmp_path: Path) -> None:
    """A file without sound gives an error, not silence."""
    path = write_media(tmp_path / "v.mp4", constant(25, 25))
    with pytest.raises(DecodeError, match="has no sound"):
        decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ)


def test_change_of_sample_rate_within_a_file(tmp_path: Path) -> None:
    """Sound that changes its rate and channels on the way keeps its tones and its times."""
    first = write_media(tmp_path / "a.mp3", None, tones(2, codec="libmp3lame", rate_hz=24_000))
    second = write_media(tmp_path / "b.mp3", None, tones(2, codec="libmp3lame", rate_hz=48_000))
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    clips = read(joined)
    assert clips and all(clip.waveform is not None for clip in clips[:2])
    assert clips[0].waveform is not None and abs(loudest_frequency(clips[0].waveform) - tone_of(0)) < 5


def write_channels(path: Path, channels: list[npt.NDArray[np.float32]]) -> Path:
    """A WAV of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(np.round(np.stack(channels, axis=1) * 32767).astype("<i2").tobytes())
    return path


def test_channels_are_averaged(tmp_path: Path) -> None:
    """Mono is an average of the channels: equal ones keep their loudness, opposite ones cancel."""
    tone = make_tones(1)
    loudness = []
    for channels in ([tone], [tone, tone], [tone, -tone], [tone] * 6):
        path = write_channels(tmp_path / "channels.wav", channels)
        loudness.append(float(np.abs(decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ)).max()))
    assert np.allclose(loudness, [0.3, 0.3, 0, 0.3], atol=0.01)


def test_sound_that_cannot_be_mixed_is_missing(tmp_path: Path) -> None:
    """Seventy channels are more than ffmpeg mixes: no waveform, and a complaint instead of an error."""
    reader = open_clips(write_channels(tmp_path / "channels.wav", [make_tones(1)] * 70))
    (clip,) = reader
    assert clip.waveform is None and "sound that could not be decoded" in reader.complaint


def test_sound_that_begins_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """Sound that a recording has only from its twelfth second on is found, and is where its time stamps say."""
    first = write_media(tmp_path / "a.ts", constant(300, 25, codec="mpeg2video"))
    sound = Sound([(12, make_tones(2))], codec="mp2", format="s16")
    later = write_media(tmp_path / "b.ts", Pictures(constant_rate(50, 25, start=12), codec="mpeg2video"), sound)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + later.read_bytes())
    clips = read(joined)
    assert indices(clips[:2]) == [12, 37] and len(clips) == 14
    assert [clip.waveform is None for clip in clips[:11]] == [True] * 11 and clips[12].waveform is not None
    assert abs(loudest_frequency(clips[12].waveform) - tone_of(0)) < 5
    assert_same_clips(clips, read(joined, method="sequential"))


def test_unannounced_streams_end_reading_without_error(tmp_path: Path) -> None:
    """PyAV raises IndexError after the last packet if streams have appeared on the way; every packet still comes."""
    path = write_media(tmp_path / "v.mp4", constant(25, 25))

    class Stumbling:
        def demux(self, *streams: VideoStream) -> Iterator[object]:
            yield from container.demux(*streams)
            raise IndexError("list index out of range")

    with av.open(str(path)) as container:
        video = container.streams.video[0]
        packets = list(read_packets(Stumbling(), video, limits=DecodeLimits()))  # type: ignore[arg-type]
    assert len(packets) == 25


def with_id3_cover(path: Path, cover: bytes) -> None:
    """Put a cover picture before an MP3."""
    body = b"\0image/png\0\x03\0" + cover
    tag = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes((len(tag) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\0\0" + size + tag + path.read_bytes())


def with_flac_cover(path: Path, cover: bytes) -> None:
    """Put a cover picture behind the first block of a FLAC."""
    mime = b"image/png"
    body = (
        struct.pack(">II", 3, len(mime))
        + mime
        + struct.pack(">5I", 0, 8, 8, 24, 0)
        + struct.pack(">I", len(cover))
        + cover
    )
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[5:8], "big")
    assert not data[4] & 0x80, "the first block must not be the last"
    path.write_bytes(data[:end] + b"\x06" + len(body).to_bytes(3, "big") + body + data[end:])


@pytest.mark.parametrize(
    ("name", "codec", "format", "audio_codec"),
    [("a.mp3", "libmp3lame", "fltp", "mp3"), ("a.flac", "flac", "s16", "flac"), ("a.ogg", "libopus", "flt", "opus")],
)
def test_sound_file_with_cover_art(name: str, codec: str, format: str, audio_codec: str, tmp_path: Path) -> None:
    """Cover art is no picture: the file is audio, with tones and without frames."""
    rate_hz = 48_000 if codec == "libopus" else SAMPLE_RATE_HZ
    path = write_media(tmp_path / name, None, tones(3, codec=codec, format=format, rate_hz=rate_hz))
    PIL.Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "cover.png")
    if name.endswith("mp3"):
        with_id3_cover(path, (tmp_path / "cover.png").read_bytes())
    if name.endswith("flac"):
        with_flac_cover(path, (tmp_path / "cover.png").read_bytes())
    clips = read(path)
    info = probe(path)
    assert (info.kind, info.audio_codec, info.video_codec, info.has_video) == ("audio", audio_codec, "", False)
    assert len(clips) == 3 and all(clip.frame is None and NO_VIDEO in clip.flags for clip in clips)
    for clip in clips:
        assert clip.waveform is not None and abs(loudest_frequency(clip.waveform) - tone_of(clip.second)) < 5


def test_m4a_with_cover_art(tmp_path: Path) -> None:
    """A picture stream marked as attached is skipped in MP4, too."""
    path = tmp_path / "a.m4a"
    with av.open(str(path), mode="w", format="mp4") as container:
        cover = add_pictures(container, constant(1, 25, codec="mjpeg"))
        container.streams.video[0].disposition = Disposition.attached_pic
        sound = add_sound(container, tones(2))
        for packet in [*cover, *sound]:
            container.mux(packet)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    info = probe(path)
    assert info.kind == "audio" and info.n_seconds == 2


# Flags


def test_flags_of_black_static_and_silent(tmp_path: Path) -> None:
    """Black pictures, pictures that stay the same and digital silence are flagged, from any second on."""
    brightness = [0] * 50 + [128] * 50 + [200] * 25
    pictures = Pictures(constant_rate(125, 25), brightness=brightness)
    sound = Sound(
        [(0, np.concatenate([np.zeros(24_000), make_tones(4)]).astype(np.float32))], codec="pcm_s16le", format="s16"
    )
    path = write_media(tmp_path / "flags.mkv", pictures, sound)
    clips = read(path)
    assert [clip.flags for clip in clips] == [(BLACK, SILENT), (BLACK, STATIC), (), (STATIC,), ()]
    assert [clip.flags for clip in read(path, start=3)] == [(STATIC,), ()]


# Damage


@pytest.mark.parametrize(("name", "options"), [("t.mp4", {"movflags": "faststart"}), ("t.mkv", {})])
def test_truncated_file_gives_what_is_there(name: str, options: dict[str, str], tmp_path: Path) -> None:
    """The seconds that are there come out, the others do not, and the complaint counts both."""
    path = write_media(tmp_path / name, constant(250, 25, params="keyint=25"), tones(10), options=options)
    whole = read(path)
    truncate(path, 0.6)
    reader = open_clips(path)
    clips = list(reader)
    assert 3 <= len(clips) < 10
    assert f"truncated: {len(clips)} of 10 seconds" in reader.complaint
    assert_same_clips(clips[:-1], whole[: len(clips) - 1])
    assert_same_clips(clips, read(path, method="sequential"))


def test_damage_in_the_middle_is_survived(tmp_path: Path) -> None:
    """Seconds before and after damaged bytes are right; both methods still agree; the complaint counts."""
    path = write_media(tmp_path / "d.mp4", constant(150, 25, params="keyint=25"), tones(6))
    whole = read(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    reader = open_clips(path)
    clips = list(reader)
    assert len(clips) == 6
    assert_same_clips(clips, read(path, method="sequential"))
    assert same(clips[0].frame, whole[0].frame) and same(clips[5].frame, whole[5].frame)
    assert "could not be decoded" in reader.complaint


# Hostile and unreadable files


def write_gap(path: Path, seconds: int) -> Path:
    """A tiny file whose last frame comes after so many seconds."""
    return write_media(path, Pictures([0, 0.04, float(seconds)], size=(16, 16)))


@pytest.mark.parametrize("name", ["gap.mkv", "gap.mp4"])
def test_forged_duration_is_refused(name: str, tmp_path: Path) -> None:
    """A small file may not have a million seconds, and the error says how many it may have."""
    path = write_gap(tmp_path / name, 20_000)
    with pytest.raises(DecodeError, match=r"2000[01] seconds in a file of \d+ bytes; allowed are \d+ seconds"):
        open_clips(path)
    with pytest.raises(DecodeError, match="allowed are"):
        probe(path)


def test_length_limit_holds_for_large_files(tmp_path: Path) -> None:
    """`max_seconds` is a limit of its own."""
    path = write_media(tmp_path / "v.mp4", constant(100, 25))
    with pytest.raises(DecodeError, match=r"4 seconds .* allowed are 3 seconds"):
        probe(path, limits=DecodeLimits(max_seconds=3))


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    """Pictures above `max_pixels` are refused, in videos and images."""
    limits = DecodeLimits(max_pixels=100 * 90)
    video = write_media(tmp_path / "v.mp4", constant(5, 25))
    PIL.Image.new("RGB", (128, 96)).save(tmp_path / "i.png")
    for path in (video, tmp_path / "i.png"):
        with pytest.raises(DecodeError, match=r"128 x 96 = 12288 pixels; allowed are 9000"):
            probe(path, limits=limits)
    with pytest.raises(DecodeError, match="allowed are 9000"):
        decode_image(tmp_path / "i.png", frame_size=8, limits=limits)


def opened(path: Path, action: Callable[[], object]) -> bool:
    """Whether a file is opened while something is done."""
    libc = ctypes.CDLL(None, use_errno=True)
    in_open, in_nonblock = 0x20, 0x800
    watch = libc.inotify_init1(in_nonblock)
    assert watch >= 0 and libc.inotify_add_watch(watch, os.fsencode(path), in_open) >= 0
    try:
        action()
        return bool(os.read(watch, 4096))
    except BlockingIOError:
        return False
    finally:
        os.close(watch)


REFERENCES = {
    "concat": "ffconcat version 1.0\nfile '{path}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4.0,\n{path}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash": '<?xml version="1.0"?><MPD type="static"><Period><AdaptationSet><Representation id="1" bandwidth="1">'
    "<BaseURL>{path}</BaseURL></Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_file_that_refers_to_another_is_refused(kind: str, tmp_path: Path) -> None:
    """Scripts and playlists named .mp4 are refused, and what they refer to is not even opened."""
    secret = write_media(tmp_path / "secret.ts", constant(100, 25, codec="mpeg2video"))
    script = tmp_path / "script.mp4"
    script.write_text(REFERENCES[kind].format(path=secret))

    def read_script() -> None:
        with pytest.raises(DecodeError, match="cannot be read as media"):
            open_clips(script)

    assert not opened(secret, read_script)


def test_detection_of_opened_files_works(tmp_path: Path) -> None:
    """Without our whitelist a script does open what it refers to, and the test above would see it."""
    secret = write_media(tmp_path / "secret.ts", constant(100, 25, codec="mpeg2video"))
    script = tmp_path / "script.mp4"
    script.write_text(REFERENCES["concat"].format(path=secret))
    assert opened(secret, lambda: av.open(str(script), format="concat", options={"safe": "0"}).close())


def make_moovless(path: Path) -> None:
    """An MP4 whose index, which comes last, was never written."""
    write_media(path, constant(50, 25))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "0 bytes"),
    "text": (lambda path: path.write_text("This is not a video.\n" * 200), "cannot be read as media"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(1).bytes(20_000)), "cannot be read|promises"),
    "without moov": (make_moovless, "cannot be read as media"),
    "directory": (lambda path: path.mkdir(), "not a regular file"),
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "missing": (lambda path: None, "No such file"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_file_is_one_clear_error(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What is no media file raises a DecodeError that names it, at once and without a word on stderr."""
    make, words = UNREADABLE[kind]
    path = tmp_path / "x.mp4"
    make(path)
    for action in (probe, open_clips):
        with pytest.raises(DecodeError, match=words) as caught:
            action(path)
        assert str(path) in str(caught.value)
    assert capfd.readouterr().err == ""


def test_permission_denied_is_a_decode_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read says so."""
    path = write_media(tmp_path / "v.mp4", constant(5, 25))

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DecodeError, match="Permission denied"):
        probe(path)


def test_file_without_picture_and_sound_is_refused(tmp_path: Path) -> None:
    """Cover art alone is no media."""
    path = tmp_path / "cover.m4a"
    with av.open(str(path), mode="w", format="mp4") as container:
        cover = add_pictures(container, constant(1, 25, codec="mjpeg"))
        container.streams.video[0].disposition = Disposition.attached_pic
        for packet in cover:
            container.mux(packet)
    with pytest.raises(DecodeError, match="no picture and no sound that can be decoded"):
        probe(path)


def test_names_are_not_taken_for_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file called like an address of the network is just a file."""
    (tmp_path / "http:").mkdir()
    path = write_media(tmp_path / "v.mp4", constant(25, 25))
    for name in ("http:/v.mp4", "concat:a|b.mp4", "pipe:0", "-v.mp4"):
        (tmp_path / name).write_bytes(path.read_bytes())
        monkeypatch.chdir(tmp_path)
        assert probe(name).n_seconds == 1


def test_odd_metadata_does_not_stop_reading(tmp_path: Path) -> None:
    """Metadata that is no UTF-8 is not our business."""
    path = tmp_path / "v.mkv"
    write_media(path, constant(25, 25))
    data = path.read_bytes()
    assert b"Lavf" in data
    path.write_bytes(data.replace(b"Lavf", b"\xff\xfe\xfd\xfc"))
    assert len(read(path)) == 1


# Images


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "bmp", "tiff", "gif"])
def test_image_is_one_clip_with_a_frame(format: str, tmp_path: Path) -> None:
    """Stills of every kind are read upright into one second without sound."""
    path = tmp_path / f"still.{format}"
    PIL.Image.fromarray(draw_index(77)).save(path)
    info = probe(path)
    assert (info.kind, info.width, info.height, info.n_seconds, info.has_audio) == ("image", 128, 96, 1, False)
    (clip,) = read(path)
    assert clip.second == 0 and clip.waveform is None and indices([clip]) == [77]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_is_turned_by_its_exif_orientation(orientation: int, tmp_path: Path) -> None:
    """Each of the eight EXIF orientations is undone."""
    undo = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, 1), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    PIL.Image.fromarray(np.ascontiguousarray(undo[orientation](draw_index(77)))).save(path, exif=exif)
    assert read_index(decode_image(path, frame_size=FRAME_SIZE)) == 77
    info = probe(path)
    assert (info.width, info.height) == (128, 96)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "CMYK", "1"])
def test_image_modes(mode: str, tmp_path: Path) -> None:
    """Grey, palette, transparent, 16-bit, printed and two-tone pictures all become RGB."""
    path = tmp_path / "mode.tiff"
    grey = draw_index(77)[..., 0]
    image = (
        PIL.Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else PIL.Image.fromarray(grey).convert(mode)
    )
    image.save(path)
    assert read_index(decode_image(path, frame_size=FRAME_SIZE)) == 77


def test_broken_image_is_a_decode_error(tmp_path: Path) -> None:
    """A truncated image and a video given for an image are errors."""
    path = tmp_path / "x.png"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    truncate(path, 0.5)
    with pytest.raises(DecodeError, match="cannot be read as an image"):
        decode_image(path, frame_size=8)
    with pytest.raises(DecodeError, match="not an image; allowed are JPEG"):
        decode_image(write_media(tmp_path / "v.mp4", constant(5, 25)), frame_size=8)


# Arguments and life of the reader


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"frame_size": 0}, "frame_size 0"),
        ({"sample_rate_hz": 0}, "sample_rate_hz 0"),
        ({"start_second": -1}, r"\[-1, None\)"),
        ({"start_second": 3, "stop_second": 2}, r"\[3, 2\)"),
        ({"method": "guess"}, "'guess' unknown"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], words: str) -> None:
    """A caller's mistake is a ValueError before any file is touched."""
    values: dict[str, object] = {"frame_size": 8, "sample_rate_hz": 8000, **arguments}
    with pytest.raises(ValueError, match=words):
        decode_clips("nowhere.mp4", **values)  # type: ignore[arg-type]


def test_reading_can_stop_early(tmp_path: Path) -> None:
    """A reader left after the first clip closes the file."""
    path = write_media(tmp_path / "v.mp4", constant(100, 25), tones(4))
    n_before = len(os.listdir("/proc/self/fd"))
    with open_clips(path) as reader:
        assert next(reader).second == 0
    assert list(reader) == []
    assert len(os.listdir("/proc/self/fd")) == n_before


def test_reading_starts_no_threads(tmp_path: Path) -> None:
    """Files are read in parallel by processes, so one file keeps to the calling thread."""
    path = write_media(tmp_path / "v.mp4", constant(50, 25), tones(2))
    before = set(os.listdir("/proc/self/task"))
    for method in ("two_pass", "sequential"):
        for _ in open_clips(path, method=method):
            assert set(os.listdir("/proc/self/task")) <= before


def test_seconds_beyond_the_end_are_none(tmp_path: Path) -> None:
    """Asking for seconds after the end gives no clips."""
    path = write_media(tmp_path / "v.mp4", constant(50, 25))
    assert read(path, start=2) == [] and read(path, start=7, stop=9) == []
    assert len(read(path, stop=9)) == 2
