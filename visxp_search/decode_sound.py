"""Decode sound, mix it down to mono, resample it and place it on the time line.

A part of `decode.py`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.error import FFmpegError
from av.filter import Graph

from visxp_search.decode_file import (
    MICROSECONDS,
    Damage,
    DecodeLimits,
    decode_packets,
    find_zero,
    open_sound,
    read_packets,
    start_of,
    time_base_of,
)
from visxp_search.sound_line import SoundLine

Waveform = npt.NDArray[np.float32]

MAX_DRIFT_SECONDS = 0.01
"""Sound whose time stamp is further than this from the end of the sound before it is placed anew, by its time stamp."""


def decode_sound(
    path: Path, limits: DecodeLimits, line: SoundLine, damage: Damage, *, start_seconds: float = 0.0
) -> Iterator[tuple[int, Waveform]]:
    """Decode all sound from the file's beginning; yield (second, waveform) for the seconds that have any.

    With `start_seconds` decoding begins at a place before it that the container knows.
    """
    with open_sound(path, limits) as (container, audio):
        if start_seconds > 0:
            container.seek(start_of(container) + round(start_seconds * MICROSECONDS))
        zero, time_base = find_zero(container, audio), time_base_of(audio)
        packets = read_packets(container, audio, limits=limits)
        run: _SoundRun | None = None
        for frame in decode_packets(audio.codec_context.decode, packets, on_error=damage.count_sound):
            if not 0 < frame.sample_rate <= limits.max_sample_rate_hz:
                damage.count_sound()
                continue
            start = None if frame.pts is None else float((frame.pts - zero) * time_base)
            if run is not None and not run.is_continued_by(frame, start):
                yield from line.add(*run.finish())
                run = None
            if start is None:
                start = line.end / line.sample_rate_hz
            try:
                run = run or _SoundRun(frame, start_seconds=start, sample_rate_hz=line.sample_rate_hz)
                samples = run.add(frame)
            except (FFmpegError, ValueError):
                damage.count_sound()
                run = None
            else:
                yield from line.add(*samples)
        if run is not None:
            yield from line.add(*run.finish())
        yield from line.finish()


class _SoundRun:
    """Frames of sound without gap or change of format, resampled to mono as one."""

    def __init__(self, first: AudioFrame, *, start_seconds: float, sample_rate_hz: int) -> None:
        self._format = _describe_sound(first)
        self._start_seconds = start_seconds
        self._n_received = 0
        self._position = round(start_seconds * sample_rate_hz)
        self._resampler = _make_resampler(first, sample_rate_hz=sample_rate_hz)

    def is_continued_by(self, frame: AudioFrame, start_seconds: float | None) -> bool:
        """Whether a frame is of the same kind and begins where the run ends."""
        if _describe_sound(frame) != self._format:
            return False
        expected = self._start_seconds + self._n_received / frame.sample_rate
        return start_seconds is None or abs(start_seconds - expected) <= MAX_DRIFT_SECONDS

    def add(self, frame: AudioFrame) -> tuple[int, Waveform]:
        """(position, samples) of what the resampler has ready."""
        self._n_received += frame.samples
        frame.pts = None  # the run's place is known; the resampler is not to correct it
        return self._collect(frame)

    def finish(self) -> tuple[int, Waveform]:
        """(position, samples) of what the resampler still held."""
        return self._collect(None)

    def _collect(self, frame: AudioFrame | None) -> tuple[int, Waveform]:
        position = self._position
        self._resampler.push(frame)
        resampled = list(_pull_all(self._resampler))
        if not resampled:
            return position, np.zeros(0, dtype=np.float32)
        samples = np.concatenate(resampled)
        self._position += len(samples)
        return position, np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)


def _make_resampler(frame: AudioFrame, *, sample_rate_hz: int) -> Graph:
    """A filter from the frame's kind of sound to mono float32; `av.AudioResampler` is the same, but starts threads."""
    graph = Graph()
    graph.threads = 1
    nodes = (
        graph.add(
            "abuffer",
            sample_rate=str(frame.sample_rate),
            sample_fmt=frame.format.name,
            channel_layout=frame.layout.name,
            time_base=f"1/{frame.sample_rate}",
        ),
        graph.add("aresample", rematrix_maxval="1"),  # average channels; by default loud ones add up beyond 1
        graph.add("aformat", sample_rates=str(sample_rate_hz), sample_fmts="flt", channel_layouts="mono"),
        graph.add("abuffersink"),
    )
    graph.link_nodes(*nodes).configure()
    graph.set_audio_frame_size(sample_rate_hz)  # pieces of a second, as each piece costs more than its samples
    return graph


def _pull_all(resampler: Graph) -> Iterator[Waveform]:
    """Yield the (n,) samples that a resampler has ready."""
    while True:
        try:
            piece = resampler.pull()
        except (BlockingIOError, EOFError):
            return
        yield piece.to_ndarray().reshape(-1).astype(np.float32)


def _describe_sound(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
