"""Waveform to log-mel spectrogram; every audio constant lives here, derived rather than typed.

A second of sound is first brought to one level (the same moment, louder or softer, must be found), so the spectrogram
does not change with gain. Mel filters are torchaudio's (HTK formula).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visxp_search.torchaudio_pure import torchaudio


@dataclass(frozen=True)
class SpectrogramConfig:
    """Shape and analysis of the spectrogram of one second.

    Attributes:
        sample_rate_hz: of the waveform; one second has this many samples.
        n_mels: mel bands.
        n_steps: columns per second; must divide sample_rate_hz.
        window_seconds: length of the Hann window.
        min_hz: lower edge of the lowest band.
        max_hz: upper edge of the highest band.

    Raises:
        ValueError: If n_steps does not divide sample_rate_hz, or max_hz is above half of it.
    """

    sample_rate_hz: int = 24_000
    n_mels: int = 64
    n_steps: int = 100
    window_seconds: float = 0.025
    min_hz: float = 60.0
    max_hz: float = 12_000.0

    def __post_init__(self) -> None:
        if self.sample_rate_hz % self.n_steps:
            raise ValueError(f"n_steps {self.n_steps} does not divide sample_rate_hz {self.sample_rate_hz}")
        if not 0 <= self.min_hz < self.max_hz <= self.sample_rate_hz / 2:
            raise ValueError(f"bands from {self.min_hz} to {self.max_hz} Hz; need 0 <= min < max <= half the rate")

    @property
    def hop_samples(self) -> int:
        """Samples between columns: 240 at 24 kHz and 100 steps."""
        return self.sample_rate_hz // self.n_steps

    @property
    def window_samples(self) -> int:
        """Samples in a window: 600 at 24 kHz and 25 ms."""
        return round(self.sample_rate_hz * self.window_seconds)

    @property
    def n_fft(self) -> int:
        """The next power of two that holds a window: 1024 at 24 kHz."""
        return 1 << (self.window_samples - 1).bit_length()


RMS_LEVEL = 0.1
"""Root mean square that every second is brought to: -20 dBFS, so a sine keeps inside [-1, 1]."""
POWER_FLOOR = 1e-4
"""Added to the mel power before the logarithm: about 60 dB below a sine of `RMS_LEVEL` in its band."""


class LogMel(nn.Module):
    """(B, sample_rate_hz) float32 waveform to (B, n_mels, n_steps) log-mel spectrogram.

    Column k is centred at k / n_steps seconds. Values are natural logarithms of mel power, between log(POWER_FLOOR) =
    -9.2 and about 9. The transform holds no weights.
    """

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.config = config
        self.spectrum = torchaudio.transforms.Spectrogram(
            n_fft=config.n_fft, win_length=config.window_samples, hop_length=config.hop_samples, power=None
        )
        self.mel_scale = torchaudio.transforms.MelScale(
            n_mels=config.n_mels,
            sample_rate=config.sample_rate_hz,
            f_min=config.min_hz,
            f_max=config.max_hz,
            n_stft=config.n_fft // 2 + 1,
        )
        # Window and filters follow from the config: they are not part of a checkpoint.
        for module in self.modules():
            module._non_persistent_buffers_set.update(module._buffers)

    def forward(self, waveform: Tensor) -> Tensor:
        """Turn one-second waveforms into spectrograms.

        Raises:
            ValueError: If the waveforms are not exactly one second long.
        """
        if waveform.ndim != 2 or waveform.shape[1] != self.config.sample_rate_hz:
            raise ValueError(
                f"waveform has shape {tuple(waveform.shape)}; expected (B, {self.config.sample_rate_hz}), one second"
            )
        spectrum = self.spectrum(normalise_level(waveform))[:, :, : self.config.n_steps]  # (B, F, T + 1) -> (B, F, T)
        power = spectrum.real.square() + spectrum.imag.square()  # a quarter of the time of spectrum.abs() ** 2
        return torch.log(self.mel_scale(power) + POWER_FLOOR)  # -> (B, M, T)


def normalise_level(waveform: Tensor) -> Tensor:
    """Bring each row of (B, n) to a root mean square of `RMS_LEVEL`; silence stays silence."""
    rms = waveform.square().mean(dim=-1, keepdim=True).sqrt()
    return waveform * (RMS_LEVEL / rms.clamp_min(1e-6))
