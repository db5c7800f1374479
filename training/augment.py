"""Random changes of training examples that do not change what they show or sound like.

They are what makes a moment findable after re-encoding, cropping, mirroring, colour shifts, noise, room sound and level
changes. Pure functions of (tensor, generator); batches in, batches out, on the device of the generator.

References:
    [park2019] SpecAugment, 2019, arXiv:1904.08779.
    [zhang2018] mixup: Beyond Empirical Risk Minimization, 2017, arXiv:1710.09412.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def augment_frames(frames: Tensor, *, size: int, generator: Generator) -> Tensor:
    """Crop, mirror, recolour, blur and add noise.

    Args:
        frames: (B, 3, S, S) uint8.
        size: side of the result.
        generator: source of randomness.

    Returns:
        (B, 3, size, size) float32 in [0, 255].
    """
    batch = len(frames)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator, device=generator.device)

    # Random resized crop and mirroring as one affine map of the sampling grid.
    area, aspect = uniform(0.4, 1.0), torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    centre_x, centre_y = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zero = torch.zeros(batch, device=generator.device)
    affine = torch.stack(
        [torch.stack([width * mirror, zero, centre_x], 1), torch.stack([zero, height, centre_y], 1)], 1
    )  # (B, 2, 3)
    grid = F.affine_grid(affine, [batch, 3, size, size], align_corners=False)
    x = F.grid_sample(frames.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    # Colour: brightness and contrast, saturation, tint, now and then no colour at all.
    x = x * uniform(0.6, 1.4, 1, 1, 1)
    mean = x.mean(dim=(2, 3), keepdim=True)
    x = mean + (x - mean) * uniform(0.6, 1.4, 1, 1, 1)
    grey = (x * torch.tensor([0.299, 0.587, 0.114], device=generator.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    saturation = torch.where(uniform(0, 1, 1, 1, 1) < 0.1, 0.0, uniform(0.5, 1.5, 1, 1, 1))
    x = grey + (x - grey) * saturation
    x = x * uniform(0.9, 1.1, 3, 1, 1)

    # What low bit rates do: detail lost for some, noise for some.
    blurred = uniform(0, 1) < 0.2
    if blurred.any():
        x[blurred] = F.interpolate(F.avg_pool2d(x[blurred], 2), size=(size, size), mode="bilinear", align_corners=False)
    noise = uniform(0, 12, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.3)
    x = x + noise * torch.randn(x.shape, generator=generator, device=generator.device)
    return x.clamp(0, 255)


def augment_waveforms(waveforms: Tensor, *, generator: Generator) -> Tensor:
    """Shift in time, add noise of random colour, and echo.

    Args:
        waveforms: (B, n) float32, n samples a second.
        generator: source of randomness.
    """
    batch, n = waveforms.shape
    spectrum = torch.fft.rfft(waveforms)
    # Every third gets a short room: an exponentially decaying noise tail, its strength random.
    room = torch.rand(batch, 1, generator=generator, device=generator.device) < 0.33
    seconds = torch.arange(n // 2, device=generator.device) / n
    decay = torch.exp(
        -seconds[None] / (0.02 + 0.13 * torch.rand(batch, 1, generator=generator, device=generator.device))
    )
    tail = torch.randn(batch, n // 2, generator=generator, device=generator.device) * decay
    tail = (
        tail
        / tail.square().sum(dim=1, keepdim=True).sqrt()
        * torch.rand(batch, 1, generator=generator, device=generator.device)
    )
    tail[:, 0] = 1
    wet = torch.fft.irfft(spectrum * torch.fft.rfft(tail, n=n), n=n)
    x = torch.where(room, wet, waveforms)
    # Half get noise at 5 to 30 dB below, from white to brown.
    noisy = torch.rand(batch, 1, generator=generator, device=generator.device) < 0.5
    noise = torch.randn(batch, n, generator=generator, device=generator.device)
    slope = torch.rand(batch, 1, generator=generator, device=generator.device)
    shaped = torch.fft.rfft(noise) / torch.arange(1, n // 2 + 2, device=generator.device)[None] ** slope
    noise = torch.fft.irfft(shaped, n=n)
    level = _rms(x) * 10 ** (-(5 + 25 * torch.rand(batch, 1, generator=generator, device=generator.device)) / 20)
    return torch.where(noisy, x + noise / _rms(noise) * level, x)


def mix_waveforms(waveforms: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """[zhang2018] eq. (1) for sounds, each at equal level first: `share` of the one and 1 - share of the other.

    Args:
        waveforms: (B, n).
        others: (B, n).
        share: (B,) in [0, 1].
    """
    share = share[:, None]
    return share * waveforms / _rms(waveforms) + (1 - share) * others / _rms(others)


def augment_spectrograms(spectrograms: Tensor, *, generator: Generator) -> Tensor:
    """Tilt, level, pitch shift and masks ([park2019] section 2) on (B, M, T) log-mel spectrograms."""
    batch, n_mels, n_steps = spectrograms.shape
    # A tilt of up to 3 dB an octave; the mel axis is close to logarithmic above 1 kHz. 0.23 = ln(10) / 10 (power).
    tilt = (torch.rand(batch, 1, 1, generator=generator, device=generator.device) * 2 - 1) * 6.0 * 0.23 * 2
    ramp = torch.linspace(-1, 1, n_mels, device=generator.device).view(1, n_mels, 1)
    level = torch.randn(batch, 1, 1, generator=generator, device=generator.device) * 0.5
    x = spectrograms + tilt * ramp + level
    shifted = torch.rand(batch, generator=generator, device=generator.device) < 0.3
    for row in shifted.nonzero().flatten().tolist():
        bands = int(torch.randint(-2, 3, (1,), generator=generator, device=generator.device))
        x[row] = x[row].roll(bands, dims=0)
    for axis, longest in ((1, n_mels // 8), (2, n_steps // 5)):
        length = torch.rand(batch, 1, generator=generator, device=generator.device) * longest
        start = torch.rand(batch, 1, generator=generator, device=generator.device) * (x.shape[axis] - length)
        position = torch.arange(x.shape[axis], device=generator.device)[None]
        mask = (position >= start) & (position < start + length)
        mask = mask[:, :, None] if axis == 1 else mask[:, None, :]
        x = torch.where(mask, x.mean(dim=(1, 2), keepdim=True), x)
    return x


def _rms(waveform: Tensor) -> Tensor:
    return waveform.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-6)
