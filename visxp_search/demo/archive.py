"""The demo's archive: small videos of seven kinds of moments, drawn and played by our own code, and the truth.

`PROGRAMME` says which files there are and what each shows when; `demo.kinds` says how a moment is made. Rendering
needs no other files and gives the same archive every time.
"""

import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from visxp_search.demo.canvas import FRAME_HEIGHT, FRAME_WIDTH, FRAMES_PER_SECOND, Frame, film
from visxp_search.demo.kinds import KINDS
from visxp_search.demo.sounds import Waveform, finish_sound
from visxp_search.render import write_audio, write_video

BLANK = "blank"
"""The kind of a span with a black picture and no sound."""


@dataclass(frozen=True)
class Span:
    """One kind of moment in a file, covering `[start_seconds, stop_seconds)`.

    Attributes:
        kind: a name of `KINDS`, or `BLANK` for a black picture with no sound.
        start_seconds: from the file's start.
        stop_seconds: from the file's start.
    """

    kind: str
    start_seconds: float
    stop_seconds: float


@dataclass(frozen=True)
class DemoFile:
    """What one file of the archive holds.

    Attributes:
        path: where it was written.
        duration_seconds: of picture and sound alike.
        spans: one after the other, without gaps, from 0 to the duration.
        has_video: whether there is a picture.
        has_audio: whether there is a sound track.
    """

    path: Path
    duration_seconds: float
    spans: tuple[Span, ...]
    has_video: bool = True
    has_audio: bool = True


@dataclass(frozen=True)
class DemoTruth:
    """What the whole archive holds."""

    files: tuple[DemoFile, ...]

    def find_spans(self, kind: str) -> list[tuple[DemoFile, Span]]:
        """Every span of one kind with the file that it is in."""
        return [(file, span) for file in self.files for span in file.spans if span.kind == kind]


@dataclass(frozen=True)
class DemoQuery:
    """A clip or a sound to search with, and the kind of moment that should come first.

    Attributes:
        path: an mp4 (picture and sound) or a wav (the same sound alone).
        kind: a name of `KINDS`.
        duration_seconds: of the clip.
    """

    path: Path
    kind: str
    duration_seconds: float


@dataclass(frozen=True)
class _Part:
    """A stretch of a file: one variation of one kind, or a blank."""

    kind: str
    seconds: int
    variation: int = 0


@dataclass(frozen=True)
class _Plan:
    name: str
    parts: tuple[_Part, ...]
    sample_rate_hz: int = 44_100


PROGRAMME = (
    _Plan("bell-tower-morning.mp4", (_Part("bell", 12, 0),)),
    _Plan("bell-tower-dusk.mp4", (_Part("bell", 14, 1),), 24_000),
    _Plan("ambulance-by-day.mp4", (_Part("siren", 12, 0),), 24_000),
    _Plan("ambulance-by-night.mp4", (_Part("siren", 13, 1),)),
    _Plan("robin-in-spring.mp4", (_Part("bird", 12, 0),)),
    _Plan("tit-in-late-summer.mp4", (_Part("bird", 14, 1),)),
    _Plan("rain-on-the-pond.mp4", (_Part("rain", 12, 0),)),
    _Plan("drummer-on-stage.mp4", (_Part("drums", 14, 0),)),
    _Plan("drummer-rehearsing.mp4", (_Part("drums", 12, 1),), 24_000),
    _Plan("piano-lesson.mp4", (_Part("piano", 13, 0),)),
    _Plan("piano-without-sound.mp4", (_Part("piano", 10, 1),)),
    _Plan("clock-after-a-black-start.mp4", (_Part(BLANK, 3), _Part("clock", 11, 0))),
    _Plan("evening-rain-then-drums.mp4", (_Part("rain", 8, 1), _Part("drums", 8, 2))),
    _Plan("evening-clock-piano-bell.mp4", (_Part("clock", 6, 1), _Part("piano", 7, 2), _Part("bell", 6, 2)), 24_000),
    _Plan("rain-recording.m4a", (_Part("rain", 10, 2),)),
)
"""The files of the archive in the order in which they are rendered."""

WITHOUT_AUDIO = frozenset({"piano-without-sound.mp4"})
QUERY_SECONDS = 6
VIDEO_OPTIONS = {"preset": "veryfast", "crf": "25"}


def describe_archive(folder: Path) -> DemoTruth:
    """What `render_archive` puts into this folder, without rendering it."""
    return DemoTruth(files=tuple(_describe_file(folder, plan) for plan in PROGRAMME))


def render_archive(
    folder: Path, *, only: Collection[str] | None = None, on_progress: Callable[[int, int], None] | None = None
) -> DemoTruth:
    """Render the files of `PROGRAMME` into a folder; files of these names are replaced.

    Args:
        folder: created where it is missing.
        only: names of the files to render; None renders all.
        on_progress: called after each file with the number of files done and of all files.

    Returns:
        What each file that was rendered holds.

    Raises:
        ValueError: If a name in `only` is not in the programme.
        OSError: If a file cannot be written.
    """
    names = [plan.name for plan in PROGRAMME]
    unknown = set(only or ()) - set(names)
    if unknown:
        raise ValueError(f"no files {sorted(unknown)} in the demo; there are {names}")
    folder.mkdir(parents=True, exist_ok=True)
    plans = [plan for plan in PROGRAMME if only is None or plan.name in only]
    files = []
    for plan in plans:
        file = _describe_file(folder, plan)
        _render_file(file, plan)
        files.append(file)
        if on_progress is not None:
            on_progress(len(files), len(plans))
    return DemoTruth(files=tuple(files))


def render_queries(folder: Path, *, only: Collection[str] | None = None) -> list[DemoQuery]:
    """Render for each kind a clip that is not in the archive (`query-KIND.mp4`) and its sound alone (`query-KIND.wav`).

    Args:
        folder: created where it is missing; not the archive's, else a query finds itself.
        only: kinds to render; None renders all of `KINDS`.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    queries = []
    for name, kind in KINDS.items():
        if only is not None and name not in only:
            continue
        variation = len(kind.variations) - 1
        frames, waveform = render_moment(name, QUERY_SECONDS, variation=variation, sample_rate_hz=44_100)
        clip, sound = folder / f"query-{name}.mp4", folder / f"query-{name}.wav"
        write_video(clip, frames=frames, frames_per_second=FRAMES_PER_SECOND, waveform=waveform, options=VIDEO_OPTIONS)
        write_audio(sound, waveform=waveform, sample_rate_hz=44_100)
        queries += [DemoQuery(path=path, kind=name, duration_seconds=QUERY_SECONDS) for path in (clip, sound)]
    return queries


def render_moment(
    kind: str, duration_seconds: int, *, variation: int, sample_rate_hz: int
) -> tuple[Iterator[Frame], Waveform]:
    """Draw and play one variation of one kind.

    Args:
        kind: a name of `KINDS`, or `BLANK`.
        duration_seconds: a positive whole number.
        variation: which of the kind's variations; also seeds all that is random in it.
        sample_rate_hz: of the sound.

    Returns:
        The (FRAME_HEIGHT, FRAME_WIDTH, 3) uint8 pictures, drawn as they are taken, and the (n,) float32 waveform.
    """
    n_frames, n_samples = duration_seconds * FRAMES_PER_SECOND, duration_seconds * sample_rate_hz
    if kind == BLANK:
        black = np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), dtype=np.uint8)
        return repeat(black, n_frames), np.zeros(n_samples, dtype=np.float32)
    made = KINDS[kind]
    look, voice = made.variations[variation]
    # A stream for each use: the picture stays the same when the sound's rate changes.
    for_cues, for_picture, for_sound = np.random.default_rng([zlib.crc32(kind.encode()), variation]).spawn(3)
    cues = made.compose(duration_seconds, voice=voice, rng=for_cues)
    waveform = made.play(cues, n_samples=n_samples, sample_rate_hz=sample_rate_hz, voice=voice, rng=for_sound)
    waveform = finish_sound(waveform, sample_rate_hz=sample_rate_hz, voice=voice, rng=for_sound)
    scene = made.draw(look, cues=cues, rng=for_picture)
    return film(scene, n_frames=n_frames, look=look, rng=for_picture), waveform


def _describe_file(folder: Path, plan: _Plan) -> DemoFile:
    path, stops = folder / plan.name, np.cumsum([part.seconds for part in plan.parts]).tolist()
    return DemoFile(
        path=path,
        duration_seconds=float(stops[-1]),
        spans=tuple(
            Span(kind=part.kind, start_seconds=float(stop - part.seconds), stop_seconds=float(stop))
            for part, stop in zip(plan.parts, stops, strict=True)
        ),
        has_video=path.suffix == ".mp4",
        has_audio=plan.name not in WITHOUT_AUDIO,
    )


def _render_file(file: DemoFile, plan: _Plan) -> None:
    rate = plan.sample_rate_hz
    moments = [render_moment(p.kind, p.seconds, variation=p.variation, sample_rate_hz=rate) for p in plan.parts]
    waveform = np.concatenate([sound for _, sound in moments])
    if not file.has_video:
        write_audio(file.path, waveform=waveform, sample_rate_hz=rate)
        return
    write_video(
        file.path,
        frames=chain.from_iterable(frames for frames, _ in moments),
        frames_per_second=FRAMES_PER_SECOND,
        waveform=waveform if file.has_audio else None,
        sample_rate_hz=rate,
        options=VIDEO_OPTIONS,
    )
