"""The encoders alone: milliseconds per second of video, by batch, threads and precision, beside the L3-Net layout."""

import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.benchmarks.race import Row, race, row, rows_of
from visxp_search.checkpoint import DEFAULT_CHECKPOINT, Networks, load_checkpoint

BATCHES = (1, 8, 32, 128)
BATCH = 32


class L3Net(nn.Module):
    """One subnetwork of L3-Net: four blocks of two 3 x 3 convolutions and pooling, 64 to 512 channels.

    References:
        [arandjelovic2017] Look, listen and learn. ICCV 2017, arXiv:1705.08168, figure 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (64, 128, 256, 512):
            for source in (channels, width):
                layers += [nn.Conv2d(source, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            layers.append(nn.MaxPool2d(2))
            channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 512)."""
        return torch.as_tensor(self.layers(images)).amax(dim=(2, 3))


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """Both encoders in all ways, taking turns."""
    networks = load_checkpoint(DEFAULT_CHECKPOINT).networks.eval()
    networks.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    share = budget_seconds / 4
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        rows = _by_way(networks, budget_seconds=share)
        rows += _by_batch(networks, budget_seconds=share)
        rows += _by_threads(networks, budget_seconds=share)
        rows += _beside_l3net(networks, budget_seconds=share, quick=quick)
    finally:
        torch.set_num_threads(before)
    return rows


def make_batch(networks: Networks, size: int) -> tuple[Tensor, Tensor]:
    """Random frames (B, 3, H, W) uint8 and waveforms (B, n) float32."""
    rng = np.random.default_rng(0)
    side, rate = networks.architecture.visual.frame_size, networks.architecture.spectrogram.sample_rate_hz
    frames = rng.integers(0, 256, (size, 3, side, side), dtype=np.uint8)
    waveforms = 0.1 * rng.standard_normal((size, rate)).astype(np.float32)
    return torch.from_numpy(frames), torch.from_numpy(waveforms.astype(np.float32))


@torch.inference_mode()
def encode(networks: Networks, frames: Tensor, waveforms: Tensor) -> tuple[Tensor, Tensor]:
    """Visual and audio embeddings, as the indexer makes them."""
    return networks.visual.embed(frames), networks.audio.embed(networks.log_mel(waveforms))


def _by_way(networks: Networks, *, budget_seconds: float) -> list[Row]:
    """Precision: float32 as it is, bf16 by autocast, int8 for the recurrent and linear layers; with what it changes."""
    frames, waveforms = make_batch(networks, BATCH)

    def bf16() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return encode(networks, frames, waveforms)

    def spectrogram() -> Tensor:
        with torch.inference_mode():
            mels: Tensor = networks.log_mel(waveforms)
            return mels

    mels = spectrogram()
    cases: dict[str, Callable[[], object]] = {
        "both, float32": lambda: encode(networks, frames, waveforms),
        "both, bf16 autocast": bf16,
        "picture, float32": torch.inference_mode()(lambda: networks.visual.embed(frames)),
        "sound, float32": torch.inference_mode()(lambda: networks.audio.embed(mels)),
        "spectrogram, float32": spectrogram,
    }
    times = race(cases, rounds=15, budget_seconds=budget_seconds)
    rows = rows_of("encode", times, unit="ms per second", scale=1000 / BATCH, against="both, float32")
    exact, rounded = encode(networks, frames, waveforms), bf16()
    for name, one, other in zip(("picture", "sound"), exact, rounded, strict=True):
        cosines = nn.functional.cosine_similarity(one.float(), other.float()).tolist()
        rows.append(row("encode", f"{name}: cosine of bf16 with float32, random input", cosines, unit="cosine"))
    return rows


def _by_batch(networks: Networks, *, budget_seconds: float) -> list[Row]:
    batches = {size: make_batch(networks, size) for size in BATCHES}
    cases: dict[str, Callable[[], object]] = {
        f"both, batch {size}": lambda batch=batch: encode(networks, *batch)  # type: ignore[misc]
        for size, batch in batches.items()
    }
    times = race(cases, rounds=7, budget_seconds=budget_seconds)
    per_second = {name: [t / size for t in times[name]] for name, size in zip(times, BATCHES, strict=True)}
    return rows_of("encode", per_second, unit="ms per second", scale=1000, against=f"both, batch {BATCH}")


def _by_threads(networks: Networks, *, budget_seconds: float) -> list[Row]:
    batch = make_batch(networks, BATCH)

    def with_threads(number: int) -> None:
        torch.set_num_threads(number)
        encode(networks, *batch)

    cases: dict[str, Callable[[], object]] = {
        f"both, {number} threads": lambda number=number: with_threads(number)  # type: ignore[misc]
        for number in (1, 2)
    }
    times = race(cases, rounds=11, budget_seconds=budget_seconds)
    torch.set_num_threads(1)
    return rows_of("encode", times, unit="ms per second", scale=1000 / BATCH, against="both, 1 threads")


def _beside_l3net(networks: Networks, *, budget_seconds: float, quick: bool) -> list[Row]:
    """Ours against the original layout: 224 px and a 257 x 99 spectrogram."""
    size = 1 if quick else 4
    visual, audio = L3Net(3).eval(), L3Net(1).eval()
    pictures, spectrograms = torch.randn(size, 3, 224, 224), torch.randn(size, 1, 257, 99)
    batch = make_batch(networks, BATCH)

    @torch.inference_mode()
    def original() -> None:
        visual(pictures)
        audio(spectrograms)

    cases = {"original L3-Net layout, both": original, "both, float32, beside it": lambda: encode(networks, *batch)}
    times = race(cases, rounds=5, budget_seconds=budget_seconds)
    sizes = (size, BATCH)
    per_second = {name: [t / n for t in times[name]] for name, n in zip(times, sizes, strict=True)}
    rows = rows_of("encode", per_second, unit="ms per second", scale=1000, against="original L3-Net layout, both")
    speedup = statistics.median(per_second["original L3-Net layout, both"]) / statistics.median(
        per_second["both, float32, beside it"]
    )
    return [*rows, row("encode", "times faster than the L3-Net layout", [speedup], unit="x")]
