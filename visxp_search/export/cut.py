"""Clips and reels: moments cut out of their videos, each frame with the source's name and timecode burnt in.

moviepy reads and writes the media (with the ffmpeg of imageio-ffmpeg), one moment at a time, so that memory and the
number of processes do not grow with the hits. What moviepy would get wrong is put right here: it rounds frame rates,
fails on timecode tracks, lets sound that starts late begin at once, and repeats the last frame of a file that ends
early.
"""

import subprocess
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from wave import Wave_write
from wave import open as open_wave

import numpy as np
import numpy.typing as npt
from moviepy.audio.io.readers import FFMPEG_AudioReader
from moviepy.video.io.ffmpeg_reader import FFMPEG_VideoReader
from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter
from PIL import Image, ImageDraw, ImageFont

from visxp_search.clips import format_time
from visxp_search.errors import DecodeError, UsageError
from visxp_search.export.cuts import Cut, Failure, Source
from visxp_search.export.files import appearing, check_free, make_folder, unique_names

Frame = npt.NDArray[np.uint8]

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
MAX_WIDTH, MAX_HEIGHT = 1920, 1080
"""Clips and reels are no larger; larger sources are scaled down."""
SOUND_ONLY_SIZE = (640, 360)
HELD_SECONDS = Fraction(1, 2)
"""Pictures that end this much before the file does stand still until then, as in a player; more is reported."""
SAMPLE_RATE_HZ = 48_000
N_CHANNELS = 2
QUALITY = ("-crf", "18", "-movflags", "+faststart")
AUDIO_BIT_RATE = "192k"


@dataclass(frozen=True)
class Format:
    """What a film is written as.

    Attributes:
        size: (width, height) in pixels, even.
        rate: frames per second.
    """

    size: tuple[int, int]
    rate: Fraction

    def n_frames(self, cut: Cut) -> int:
        """Frames that a cut takes, at least 1."""
        return max(1, round(cut.n_frames / cut.source.rate * self.rate))


def write_clips(
    cuts: Sequence[Cut], folder: Path, *, overwrite: bool, progress: Callable[[str, int, int], None]
) -> tuple[list[Path], list[Failure]]:
    """Write each cut as a file of its own (`01_tape_0-01-12.mp4`), at its own size and rate.

    Returns:
        The files written; and the moments that could not be cut, or not whole.

    Raises:
        UsageError: If a name is taken, before anything is written.
    """
    make_folder(folder)
    texts = [f"{cut.moment.rank:02d}_{cut.source.path.stem}_{_dashed_time(cut.moment.start)}" for cut in cuts]
    paths = [folder / f"{name}.mp4" for name in unique_names(texts)]
    for path in paths:
        check_free(path, overwrite=overwrite)
    formats = [choose_format([cut]) for cut in cuts]
    total = sum(format_.n_frames(cut) for format_, cut in zip(formats, cuts, strict=True))
    done = 0
    written: list[Path] = []
    failures: list[Failure] = []
    for cut, path, format_ in zip(cuts, paths, formats, strict=True):

        def tell(n_frames: int, before: int = done) -> None:
            progress("cut clips", before + n_frames, total)

        try:
            failures += _write_film([cut], path, format_, overwrite=overwrite, tell=tell)
            written.append(path)
        except DecodeError as exc:
            failures.append((cut.moment, str(exc)))
        done += format_.n_frames(cut)
    return written, failures


def write_reel(
    cuts: Sequence[Cut], path: Path, *, overwrite: bool, progress: Callable[[str, int, int], None]
) -> tuple[list[Path], list[Failure]]:
    """Write all cuts as one film, one after the other, at the size and rate that hold them all.

    Returns:
        The file written; and the moments that are not whole in it.

    Raises:
        UsageError: If the name is taken or has no suffix of `VIDEO_SUFFIXES`.
        DecodeError: If a source cannot be read; nothing is written then.
    """
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f"--out {path} must end with one of {', '.join(VIDEO_SUFFIXES)}")
    format_ = choose_format(cuts)
    total = sum(format_.n_frames(cut) for cut in cuts)
    failures = _write_film(
        cuts, path, format_, overwrite=overwrite, tell=lambda n_frames: progress("cut reel", n_frames, total)
    )
    return [path], failures


def choose_format(cuts: Sequence[Cut]) -> Format:
    """The rate that most frames have, and the smallest size that no picture must be scaled down for, within limits."""
    with_pictures = [cut for cut in cuts if cut.source.has_pictures]
    if not with_pictures:
        return Format(SOUND_ONLY_SIZE, cuts[0].source.rate)
    rates: Counter[Fraction] = Counter()
    for cut in with_pictures:
        rates[cut.source.timecode_rate or cut.source.rate] += cut.n_frames
    width = max(cut.source.timing.width for cut in with_pictures)
    height = max(cut.source.timing.height for cut in with_pictures)
    return Format(_even(_fit((width, height), (MAX_WIDTH, MAX_HEIGHT))), rates.most_common(1)[0][0])


def _write_film(
    cuts: Sequence[Cut], path: Path, format_: Format, *, overwrite: bool, tell: Callable[[int], None]
) -> list[Failure]:
    """Write cuts one after the other; `tell` is told how many frames are done. What is not whole comes back."""
    failures: list[Failure] = []
    with (
        appearing(path, overwrite=overwrite) as partial,
        TemporaryDirectory(prefix=".visxp-", dir=path.parent) as folder,
    ):
        sound = Path(folder) / "sound.wav" if any(cut.source.has_sound for cut in cuts) else None
        if sound is not None:
            _write_sound(cuts, sound, format_)
        done = 0
        with _film_writer(partial, format_, sound=sound) as writer:
            for cut in cuts:
                missing: list[int] = []
                for frame in _read_frames(cut, format_, on_missing=missing.append):
                    writer.write_frame(frame)
                    done += 1
                    tell(done)
                if len(missing) > HELD_SECONDS * format_.rate:
                    reason = f"{len(missing)} frames are not there, from {cut.source.timecode(missing[0])} on"
                    failures.append((cut.moment, f"{cut.source.path}: {reason}; the picture stands still"))
    return failures


def _write_sound(cuts: Sequence[Cut], path: Path, format_: Format) -> None:
    """The sound of all cuts as one WAV file, in step with the frames."""
    n_frames = n_samples = 0
    with closing(open_wave(str(path), "wb")) as wave:
        assert isinstance(wave, Wave_write)
        wave.setnchannels(N_CHANNELS)
        wave.setsampwidth(2)
        wave.setframerate(SAMPLE_RATE_HZ)
        for cut in cuts:
            n_frames += format_.n_frames(cut)
            stop = round(n_frames / format_.rate * SAMPLE_RATE_HZ)
            for chunk in _read_sound(cut, stop - n_samples):
                wave.writeframes((chunk * 32767).round().clip(-32768, 32767).astype("<i2").tobytes())
            n_samples = stop


def _read_sound(cut: Cut, n_samples: int) -> Iterator[npt.NDArray[np.float64]]:
    """(n, channels) pieces in [-1, 1], n_samples in all; silence where there is none."""
    begins = cut.source.timing.sound_start_seconds
    start = float(cut.first / cut.source.rate)
    late = n_samples if begins is None else min(n_samples, max(0, round((begins - start) * SAMPLE_RATE_HZ)))
    for n in _pieces(late):
        yield np.zeros((n, N_CHANNELS))
    if late == n_samples or begins is None:
        return
    with _translated(cut), closing(_SoundReader(cut.source)) as reader:
        # Without a seek ffmpeg gives the first sample of the track, whenever that is due.
        reader.initialize(0 if late else start)
        for n in _pieces(n_samples - late):
            yield np.broadcast_to(reader.read_chunk(n), (n, N_CHANNELS))


def _pieces(n_samples: int) -> Iterator[int]:
    """Numbers of samples of about a second that sum to n_samples."""
    for start in range(0, n_samples, SAMPLE_RATE_HZ):
        yield min(SAMPLE_RATE_HZ, n_samples - start)


def _read_frames(cut: Cut, format_: Format, *, on_missing: Callable[[int], None]) -> Iterator[Frame]:
    """The frames of a cut as they stand in the film; for one that is not there (its number is told) the one before."""
    n_frames = format_.n_frames(cut)
    step = cut.source.rate / format_.rate
    # The frame on display in the middle of the film's frame.
    wanted = [min(cut.stop - 1, cut.first + int((index + Fraction(1, 2)) * step)) for index in range(n_frames)]
    if not cut.source.has_pictures:
        black = np.zeros((format_.size[1], format_.size[0], 3), dtype=np.uint8)
        for frame in wanted:
            yield _burn(black, cut, frame)
        return
    timing = cut.source.timing
    fitted = _even(_fit((timing.width, timing.height), format_.size, grow=True))
    with closing(_PictureReader(cut.source, size=fitted)) as reader:
        for frame in wanted:
            with _translated(cut), warnings.catch_warnings(record=True) as complaints:
                warnings.simplefilter("always", UserWarning)
                picture = reader.get_frame((frame + 0.5) / reader.fps)
            if complaints:
                on_missing(frame)
            yield _burn(_pad(picture, format_.size), cut, frame)


def _close_pipes(process: subprocess.Popen[bytes] | None) -> None:
    """Close what moviepy leaves open: it closes its pipes only if ffmpeg is still running."""
    for pipe in (process.stdout, process.stderr) if process is not None else ():
        if pipe is not None:
            pipe.close()


class _PictureReader(FFMPEG_VideoReader):  # type: ignore[misc]
    """moviepy's reader of a file that we know already.

    moviepy's own constructor reads the rate, with two decimals, from what ffmpeg prints, and fails on files with a
    timecode track.
    """

    def __init__(self, source: Source, *, size: tuple[int, int]) -> None:
        self.filename, self.proc = str(source.path), None
        self.fps, self.size = float(source.rate), size
        self.n_frames, self.duration = source.n_frames, source.timing.duration_seconds
        self.pixel_format, self.depth, self.resize_algo = "rgb24", 3, "bicubic"
        self.bufsize = self.depth * size[0] * size[1] + 100
        self.pos = 0

    def get_frame(self, t: float) -> Frame:
        """The picture on display at t seconds."""
        if self.proc is None:
            self.initialize(t)
            return np.asarray(self.last_read)
        return np.asarray(super().get_frame(t))

    def close(self, delete_lastread: bool = True) -> None:
        """Stop reading."""
        process = self.proc
        super().close(delete_lastread)
        _close_pipes(process)


class _SoundReader(FFMPEG_AudioReader):  # type: ignore[misc]
    """moviepy's reader of a file's sound; its own constructor has the same faults as that for pictures."""

    def __init__(self, source: Source) -> None:
        self.filename, self.proc = str(source.path), None
        # ffmpeg would make mono quieter when it spreads it over two channels.
        self.nchannels = 1 if source.timing.n_channels == 1 else N_CHANNELS
        self.fps, self.nbytes = SAMPLE_RATE_HZ, 2
        self.format, self.codec = "s16le", "pcm_s16le"
        self.buffersize = SAMPLE_RATE_HZ
        self.pos = 0

    def close(self) -> None:
        """Stop reading."""
        process = self.proc
        super().close()
        _close_pipes(process)


@contextmanager
def _translated(cut: Cut) -> Iterator[None]:
    """Errors of moviepy, which come in all kinds, as DecodeErrors."""
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, ZeroDivisionError) as exc:
        reason = " ".join(str(exc).split())[-200:]
        raise DecodeError(f"{cut.source.path}: cannot be cut ({reason}); is it complete?") from exc


@contextmanager
def _film_writer(path: Path, format_: Format, *, sound: Path | None) -> Iterator[FFMPEG_VideoWriter]:
    """A running encoder; it is closed however the block ends."""
    rate = format_.rate
    # moviepy states the rate with two decimals; the frames' times are set anew from their numbers.
    exact = ["-vf", f"settb={rate.denominator}/{rate.numerator},setpts=N", "-r", f"{rate.numerator}/{rate.denominator}"]
    audio = ["-b:a", AUDIO_BIT_RATE] if sound else []
    writer = FFMPEG_VideoWriter(
        str(path),
        format_.size,
        float(rate),
        preset="veryfast",
        audiofile=str(sound) if sound else None,
        audio_codec="aac" if sound else None,
        ffmpeg_params=[*exact, *audio, *QUALITY],
    )
    try:
        with closing(writer):
            yield writer
            encoder = writer.proc
    except OSError as exc:
        raise UsageError(f"{path.name} cannot be written ({' '.join(str(exc).split())[-200:]})") from exc
    if encoder.returncode != 0:
        raise UsageError(
            f"{path.name} could not be encoded (ffmpeg ended with {encoder.returncode}); is the disk full?"
        )


def _burn(picture: Frame, cut: Cut, frame: int) -> Frame:
    """The picture with the source's name, the frame's timecode and the hit's rank and score in a corner."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    size = max(10, image.height // 24)
    font = ImageFont.load_default(size)
    text = f"{_printable(cut.source.path.name)}\n{cut.source.timecode(frame)}"
    if cut.moment.label:
        text += f"   {cut.moment.rank}: {cut.moment.label}"
    corner = (size // 2, image.height - size // 2)
    left, top, right, bottom = draw.multiline_textbbox(corner, text, font=font, anchor="ld")
    margin = size // 4
    draw.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=(0, 0, 0, 160))
    draw.multiline_text(corner, text, font=font, anchor="ld", fill=(255, 255, 255, 255))
    return np.asarray(image)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _pad(picture: Frame, size: tuple[int, int]) -> Frame:
    """The picture in the middle of a black one of `size` (width, height)."""
    width, height = size
    if picture.shape[:2] == (height, width):
        return picture
    padded = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    padded[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return padded


def _fit(size: tuple[int, int], box: tuple[int, int], *, grow: bool = False) -> tuple[int, int]:
    """A size of the same shape that fits into a box, and fills it if it may grow."""
    scale = min(box[0] / size[0], box[1] / size[1])
    scale = scale if grow else min(1.0, scale)
    return round(size[0] * scale), round(size[1] * scale)


def _even(size: tuple[int, int]) -> tuple[int, int]:
    """The size with even sides, as 4:2:0 video wants them, none below 2."""
    return max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)


def _dashed_time(seconds: float) -> str:
    return format_time(seconds).replace(":", "-")
