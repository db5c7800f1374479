"""Bad copies of frames and waveforms, named, for measuring whether a moment is found again. Deterministic.

They are harsher than, and other than, what augmentation draws from: fixed strengths, JPEG and a band limit.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Frames = npt.NDArray[np.uint8]
Waveforms = npt.NDArray[np.int16]


def recompress(frames: Frames) -> Frames:
    """Half the size and JPEG quality 20, as a low bit rate leaves it."""
    side = frames.shape[2]

    def change(frame: Frames) -> Frames:
        stored = io.BytesIO()
        picture = Image.fromarray(frame.transpose(1, 2, 0)).resize((side // 2, side // 2), Image.Resampling.BILINEAR)
        picture.save(stored, "JPEG", quality=20)
        shown = Image.open(stored).resize((side, side), Image.Resampling.BILINEAR)
        changed: Frames = np.asarray(shown, dtype=np.uint8).transpose(2, 0, 1)
        return changed

    return np.stack([change(frame) for frame in frames])


def crop(frames: Frames) -> Frames:
    """20 % of width and height cut off, more on one side than on the other."""
    side = frames.shape[2]
    box = (0.15 * side, 0.05 * side, 0.95 * side, 0.85 * side)

    def change(frame: Frames) -> Frames:
        picture = Image.fromarray(frame.transpose(1, 2, 0))
        shown = picture.resize((side, side), Image.Resampling.BILINEAR, box=box)
        changed: Frames = np.asarray(shown, dtype=np.uint8).transpose(2, 0, 1)
        return changed

    return np.stack([change(frame) for frame in frames])


def mirror(frames: Frames) -> Frames:
    """Left and right exchanged."""
    mirrored: Frames = np.ascontiguousarray(frames[..., ::-1])
    return mirrored


def brighten(frames: Frames) -> Frames:
    """30 % brighter."""
    return _to_uint8(frames * 1.3)


def darken(frames: Frames) -> Frames:
    """30 % darker."""
    return _to_uint8(frames * 0.7)


def add_grain(frames: Frames) -> Frames:
    """White noise of 10 grey levels."""
    noise = np.random.default_rng(0).normal(0, 10, frames.shape)
    return _to_uint8(frames + noise)


def add_noise(waveforms: Waveforms) -> Waveforms:
    """White noise 10 dB below the sound."""
    sound = waveforms.astype(np.float64)
    level = np.sqrt(np.square(sound).mean(axis=1, keepdims=True)) * 10 ** (-10 / 20)
    return _to_int16(sound + level * np.random.default_rng(0).standard_normal(sound.shape))


def tilt(waveforms: Waveforms) -> Waveforms:
    """3 dB an octave more treble, the level kept."""
    sound = waveforms.astype(np.float64)
    spectrum = np.fft.rfft(sound)
    # 3 dB an octave is a power gain proportional to frequency, an amplitude gain to its square root.
    tilted = np.fft.irfft(spectrum * np.sqrt(np.arange(spectrum.shape[1])), n=sound.shape[1])
    before, after = (np.sqrt(np.square(x).mean(axis=1, keepdims=True)) for x in (sound, tilted))
    return _to_int16(tilted * before / np.maximum(after, 1e-9))


def soften(waveforms: Waveforms) -> Waveforms:
    """12 dB softer."""
    return _to_int16(waveforms * 10 ** (-12 / 20))


def narrow(waveforms: Waveforms) -> Waveforms:
    """Nothing above 4 kHz, as a bad line leaves it."""
    spectrum = np.fft.rfft(waveforms.astype(np.float64))
    hertz = np.fft.rfftfreq(waveforms.shape[1], 1 / waveforms.shape[1])  # a second has sample_rate_hz samples
    return _to_int16(np.fft.irfft(spectrum * (hertz < 4000), n=waveforms.shape[1]))


def _to_uint8(frames: npt.NDArray[np.floating[Any]]) -> Frames:
    return frames.clip(0, 255).astype(np.uint8)


def _to_int16(sound: npt.NDArray[np.floating[Any]]) -> Waveforms:
    return np.round(sound).clip(-32768, 32767).astype(np.int16)


OF_FRAMES: dict[str, Callable[[Frames], Frames]] = {
    "low bit rate": recompress,
    "crop 20 %": crop,
    "mirrored": mirror,
    "+30 % bright": brighten,
    "-30 % bright": darken,
    "grain": add_grain,
}
OF_WAVEFORMS: dict[str, Callable[[Waveforms], Waveforms]] = {
    "noise 10 dB": add_noise,
    "tilt 3 dB/oct": tilt,
    "-12 dB": soften,
    "4 kHz": narrow,
}
