"""Known-item trials: excerpts of an archive's own videos, made worse, that a search must find again.

Each excerpt begins anywhere, also between whole seconds, and is written as a new file, so that everything is tried that
a user's own recording of a programme goes through.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from visxp_search.decode import decode_waveform, probe
from visxp_search.errors import DecodeError, UsageError
from visxp_search.evaluate import Judgement, Span
from visxp_search.render import degrade_waveform, write_video
from visxp_search.store import DONE, Store, VideoRecord

Frames = npt.NDArray[np.uint8]
Waveform = npt.NDArray[np.float32]

SAMPLE_RATE_HZ = 44_100
LONGEST_SIDE = 480
"""Pictures are made at most this large: the encoders see less, and a trial should not take long."""
SHORTEST_SECONDS, LONGEST_SECONDS = 3.0, 10.0
LOW_BIT_RATE, GOOD_BIT_RATE = 150_000, 2_000_000


@dataclass(frozen=True)
class Excerpt:
    """Media of a stretch of a video.

    Attributes:
        frames: (n, H, W, 3) uint8 RGB, even H and W.
        frames_per_second: > 0.
        waveform: (m,) float32 mono at `SAMPLE_RATE_HZ`, or None without a sound track.
        bit_rate: that the pictures are to be written with.
    """

    frames: Frames
    frames_per_second: Fraction
    waveform: Waveform | None
    bit_rate: int = GOOD_BIT_RATE


Degrade = Callable[[Excerpt, int], Excerpt]


def crop(excerpt: Excerpt, seed: int) -> Excerpt:
    """Cut off 20 % of width and height, at a place that the seed chooses."""
    _, height, width, _ = excerpt.frames.shape
    rng = np.random.default_rng(seed)
    new_height, new_width = int(0.8 * height) // 2 * 2, int(0.8 * width) // 2 * 2
    top, left = rng.integers(0, height - new_height + 1), rng.integers(0, width - new_width + 1)
    return replace(excerpt, frames=excerpt.frames[:, top : top + new_height, left : left + new_width])


def mirror(excerpt: Excerpt, seed: int) -> Excerpt:
    """Exchange left and right."""
    return replace(excerpt, frames=excerpt.frames[:, :, ::-1])


def brighten(excerpt: Excerpt, seed: int) -> Excerpt:
    """Multiply by 1.3 or, for odd seeds, 0.7."""
    factor = 0.7 if seed % 2 else 1.3
    return replace(excerpt, frames=np.clip(excerpt.frames * np.float32(factor), 0, 255).astype(np.uint8))


def add_noise(excerpt: Excerpt, seed: int) -> Excerpt:
    """Add white noise to the sound, 10 dB below it."""
    if excerpt.waveform is None:
        return excerpt
    return replace(excerpt, waveform=degrade_waveform(excerpt.waveform, seed=seed, noise_db=-10.0, gain_db=0.0))


def change_speed(excerpt: Excerpt, seed: int) -> Excerpt:
    """Play 4 % faster or, for odd seeds, slower; the pitch goes with it, as on a film scanner."""
    speed = Fraction(96, 100) if seed % 2 else Fraction(104, 100)
    waveform = excerpt.waveform
    if waveform is not None:
        places = np.arange(int(len(waveform) / speed)) * float(speed)
        waveform = np.interp(places, np.arange(len(waveform)), waveform).astype(np.float32)
    return replace(excerpt, frames_per_second=excerpt.frames_per_second * speed, waveform=waveform)


def encode_low(excerpt: Excerpt, seed: int) -> Excerpt:
    """Write with 150 kbit/s."""
    return replace(excerpt, bit_rate=LOW_BIT_RATE)


def degrade_all(excerpt: Excerpt, seed: int) -> Excerpt:
    """All of the above at once."""
    for degrade in (crop, mirror, brighten, add_noise, change_speed, encode_low):
        excerpt = degrade(excerpt, seed)
    return excerpt


DEGRADATIONS: dict[str, Degrade] = {
    "150 kbit/s": encode_low,
    "crop 20 %": crop,
    "mirrored": mirror,
    "brightness": brighten,
    "noise 10 dB": add_noise,
    "speed 4 %": change_speed,
    "all of these": degrade_all,
}


def make_trials(
    store: Store,
    folder: Path,
    *,
    n_trials: int,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Judgement]:
    """Cut excerpts at random from indexed videos and degrade them, each way in turn.

    Args:
        store: an open index; its videos must still lie where they were.
        folder: where the excerpts are written.
        n_trials: number of excerpts.
        seed: chooses videos, places and lengths of 3 to 10 s.
        on_progress: called with ("cut", done, total).

    Raises:
        UsageError: If no indexed video is there and long enough.
    """
    records = sorted(
        (r for r in store.videos(DONE) if r.kind == "video" and r.duration_seconds >= SHORTEST_SECONDS and _path(r)),
        key=lambda record: record.video_id,
    )
    if not records:
        raise UsageError(
            f"no indexed video of {SHORTEST_SECONDS:g} s or more lies where it was indexed; see: visxp index ls"
        )
    rng = np.random.default_rng(seed)
    names = list(DEGRADATIONS)
    judgements: list[Judgement] = []
    while len(judgements) < n_trials:
        number = len(judgements)
        record = records[int(rng.integers(len(records)))]
        length = float(rng.uniform(SHORTEST_SECONDS, min(LONGEST_SECONDS, record.duration_seconds)))
        start = float(rng.uniform(0, record.duration_seconds - length))
        name = names[number % len(names)]
        excerpt = DEGRADATIONS[name](cut(Path(_path(record)), start=start, end=start + length), number)
        path = folder / f"trial{number:03d}.mp4"
        write_excerpt(path, excerpt)
        span = Span(record.video_id, start, start + length)
        judgements.append(Judgement(path=path, relevant=(span,), group=name))
        on_progress("cut", len(judgements), n_trials)
    return judgements


def cut(path: Path, *, start: float, end: float) -> Excerpt:
    """Read the media of `[start, end)` seconds, the pictures scaled to `LONGEST_SIDE`.

    Raises:
        DecodeError: If the file cannot be read.
    """
    from moviepy import VideoFileClip

    info = probe(path)
    try:
        # moviepy warns of files with several sound tracks, of which it would take none here anyway.
        with (
            warnings.catch_warnings(action="ignore", category=UserWarning),
            VideoFileClip(str(path), audio=False) as clip,
        ):
            rate = Fraction(clip.fps).limit_denominator(1001)
            part = clip.subclipped(start, min(end, clip.duration))
            frames = np.stack([_shrink(frame) for frame in part.iter_frames(fps=float(rate))])
            # moviepy leaves the pipes of an ffmpeg that has ended by itself open.
            for pipe in (clip.reader.proc.stdout, clip.reader.proc.stderr):
                pipe.close()
    except (OSError, ValueError) as exc:
        raise DecodeError(f"{path}: cannot be cut at {start:.1f} s ({exc})") from exc
    waveform = None
    if info.has_audio:
        waveform = decode_waveform(path, sample_rate_hz=SAMPLE_RATE_HZ, start_seconds=start, stop_seconds=end)
    return Excerpt(frames, rate, waveform if waveform is not None and len(waveform) else None)


def write_excerpt(path: Path, excerpt: Excerpt) -> None:
    """Write an excerpt as H.264 and AAC."""
    write_video(
        path,
        frames=excerpt.frames,
        frames_per_second=excerpt.frames_per_second,
        waveform=excerpt.waveform,
        sample_rate_hz=SAMPLE_RATE_HZ,
        options={"preset": "veryfast"},
        bit_rate=excerpt.bit_rate,
    )


def _shrink(frame: Frames) -> Frames:
    """(H, W, 3) scaled so that no side is longer than `LONGEST_SIDE`, both sides even."""
    height, width = frame.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = (max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


def _path(record: VideoRecord) -> str:
    """Where the video still lies; empty if nowhere."""
    return next((path for path in record.paths if Path(path).is_file()), "")
