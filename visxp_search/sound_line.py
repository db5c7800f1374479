"""Runs of audio samples placed on the time line and cut into seconds: arithmetic only, no media library."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]


class SoundLine:
    """Receives runs of samples in order, gives back whole seconds with flat memory.

    Where runs overlap, the earlier one stays; what lies before the start of the time line is dropped; what no run
    covers within a second is silence, and a second that no run touches does not come out at all.

    Attributes:
        sample_rate_hz: samples per second.
        end: first sample position after everything received so far.
    """

    def __init__(self, *, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.end = 0
        self._second = -1
        self._waveform: Waveform | None = None

    def add(self, position: int, samples: Waveform) -> Iterator[tuple[int, Waveform]]:
        """Place (n,) float32 samples at a sample position; yield (second, waveform) for each second completed."""
        overlap = max(0, self.end - position)
        position, samples = position + overlap, samples[overlap:]
        while len(samples):
            second, offset = divmod(position, self.sample_rate_hz)
            if second != self._second:
                yield from self.finish()
                self._second = second
                self._waveform = np.zeros(self.sample_rate_hz, dtype=np.float32)
            assert self._waveform is not None
            n_placed = min(self.sample_rate_hz - offset, len(samples))
            self._waveform[offset : offset + n_placed] = samples[:n_placed]
            position, samples = position + n_placed, samples[n_placed:]
            self.end = position

    def finish(self) -> Iterator[tuple[int, Waveform]]:
        """Yield the second begun last, if there is one."""
        if self._waveform is not None:
            yield self._second, self._waveform
            self._waveform = None
