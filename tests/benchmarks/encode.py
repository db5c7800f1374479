"""The encoders alone: milliseconds per second of video, by batch, threads and precision, beside the L3-Net layout."""

import shutil
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.benchmarks.race import Row, race, row, rows_of
from visxp_search.checkpoint import Networks, load_checkpoint
from visxp_search.checkpoint_config import DEFAULT_CHECKPOINT
from visxp_search.clips import Clip, make_clip, stack_frames, stack_waveforms
from visxp_search.encoders import convolve_in_bfloat16, fold_norms
from visxp_search.l3net import L3NetEmbedder
from visxp_search.spectrogram import LogMel

BATCHES = (1, 8, 64)
BATCH = 64
"""Clips that the indexer embeds at a time."""
WAY_BATCH = 16


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
    share = budget_seconds / 4
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        rows = _parts(budget_seconds=share)
        rows += _ways(budget_seconds=share, quick=quick)
        rows += _by_batch_and_threads(budget_seconds=share)
        rows += _beside_l3net(budget_seconds=share, quick=quick)
    finally:
        torch.set_num_threads(before)
    return rows


def make_clips(size: int, *, visual: bool = True, audio: bool = True) -> list[Clip]:
    """Clips of noise, with a picture, a sound or both."""
    rng = np.random.default_rng(0)
    embedder = L3NetEmbedder()
    side, rate = embedder.frame_size, embedder.sample_rate_hz
    return [
        make_clip(
            second,
            frame=rng.integers(0, 256, (3, side, side), dtype=np.uint8) if visual else None,
            waveform=0.1 * rng.standard_normal(rate, dtype=np.float32) if audio else None,
        )
        for second in range(size)
    ]


def _parts(*, budget_seconds: float) -> list[Row]:
    """As the indexer embeds, and each modality alone."""
    embedder = L3NetEmbedder(device="cpu")
    cases: dict[str, Callable[[], object]] = {
        name: lambda clips=clips: embedder.embed(clips)  # type: ignore[misc]
        for name, clips in {
            "both": make_clips(BATCH),
            "picture": make_clips(BATCH, audio=False),
            "sound, with its spectrogram": make_clips(BATCH, visual=False),
        }.items()
    }
    waveforms = torch.from_numpy(stack_waveforms(make_clips(8)))
    log_mel = torch.inference_mode()(LogMel(load_checkpoint(DEFAULT_CHECKPOINT).networks.architecture.spectrogram))
    cases["spectrogram"] = lambda: [log_mel(waveforms) for _ in range(BATCH // 8)]
    times = race(cases, rounds=25, budget_seconds=budget_seconds)
    return rows_of("encode", times, unit="ms per second of video", scale=1000 / BATCH, against="both")


def _ways(*, budget_seconds: float, quick: bool) -> list[Row]:
    """What else the encoders could be run with, each with what it changes; convolutions in bf16 are in use."""
    frames = torch.from_numpy(stack_frames(make_clips(WAY_BATCH)))
    networks = _folded()
    mels = torch.inference_mode()(networks.log_mel)(torch.from_numpy(stack_waveforms(make_clips(WAY_BATCH))))
    plain: dict[str, Callable[[Tensor], Tensor]] = {"picture": networks.visual.embed, "sound": networks.audio.embed}
    halved = _folded()
    for encoder in (halved.visual, halved.audio):
        convolve_in_bfloat16(encoder)
    in_bf16: dict[str, Callable[[Tensor], Tensor]] = {"picture": halved.visual.embed, "sound": halved.audio.embed}
    inputs = {"picture": frames, "sound": mels}
    rows: list[Row] = []
    for part, embed in plain.items():
        ways = {f"{part}, float32, {WAY_BATCH} at once": embed, f"{part}, convolutions in bf16": in_bf16[part]}
        if part == "sound":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                int8 = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
                    _folded().audio, {nn.GRU, nn.Linear}, dtype=torch.qint8
                )
            ways[f"{part}, int8 in its recurrent and linear layers"] = int8.embed
        if not quick and shutil.which("g++"):
            compiled = torch.inference_mode()(torch.compile(embed))
            try:
                compiled(inputs[part])
                ways[f"{part}, torch.compile"] = compiled
            except RuntimeError as exc:  # its compiler's errors too
                print(f"encode: torch.compile cannot do the {part}: {str(exc)[:300]}", file=sys.stderr)
        cases: dict[str, Callable[[], object]] = {
            name: torch.inference_mode()(lambda way=way, batch=inputs[part]: way(batch)) for name, way in ways.items()
        }
        times = race(cases, rounds=9, budget_seconds=budget_seconds / 2)
        exact = next(iter(cases))
        rows += rows_of("encode", times, unit="ms per second of video", scale=1000 / WAY_BATCH, against=exact)
        wanted = cases[exact]()
        for name, case in list(cases.items())[1:]:
            cosines = nn.functional.cosine_similarity(wanted, case().float())  # type: ignore[arg-type, attr-defined]
            rows.append(row("encode", f"{name}: least cosine with float32", [float(cosines.min())], unit="cosine"))
    return rows


def _folded() -> Networks:
    """The networks as the embedder runs them."""
    networks = load_checkpoint(DEFAULT_CHECKPOINT).networks
    for encoder in (networks.visual, networks.audio):
        fold_norms(encoder)
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return networks


def _by_batch_and_threads(*, budget_seconds: float) -> list[Row]:
    embedder = L3NetEmbedder(device="cpu")
    sizes = {f"both, {size} clips a call": size for size in BATCHES}
    batches = {name: make_clips(size) for name, size in sizes.items()}
    cases: dict[str, Callable[[], object]] = {
        name: lambda batch=batch: embedder.embed(batch)  # type: ignore[misc]
        for name, batch in batches.items()
    }
    times = race(cases, rounds=9, budget_seconds=budget_seconds / 2)
    baseline = f"both, {BATCH} clips a call"
    per_second = {name: [t / sizes[name] for t in taken] for name, taken in times.items()}
    rows = rows_of("encode", per_second, unit="ms per second of video", scale=1000, against=baseline)

    def with_threads(number: int) -> None:
        torch.set_num_threads(number)
        embedder.embed(batches[baseline])

    threads: dict[str, Callable[[], object]] = {
        f"both, {number} threads": lambda number=number: with_threads(number)  # type: ignore[misc]
        for number in (1, 2)
    }
    times = race(threads, rounds=9, budget_seconds=budget_seconds / 2)
    torch.set_num_threads(1)
    return rows + rows_of("encode", times, unit="ms per second of video", scale=1000 / BATCH, against="both, 1 threads")


def _beside_l3net(*, budget_seconds: float, quick: bool) -> list[Row]:
    """Ours against the original layout: 224 px and a 257 x 99 spectrogram."""
    size = 1 if quick else 4
    visual, audio = L3Net(3).eval(), L3Net(1).eval()
    pictures, spectrograms = torch.randn(size, 3, 224, 224), torch.randn(size, 1, 257, 99)
    embedder, clips = L3NetEmbedder(device="cpu"), make_clips(BATCH)

    @torch.inference_mode()
    def original() -> None:
        visual(pictures)
        audio(spectrograms)

    baseline, ours = "original L3-Net layout, both", "both, beside it"
    cases: dict[str, Callable[[], object]] = {baseline: original, ours: lambda: embedder.embed(clips)}
    times = race(cases, rounds=5, budget_seconds=budget_seconds)
    per_second = {baseline: [t / size for t in times[baseline]], ours: [t / BATCH for t in times[ours]]}
    rows = rows_of("encode", per_second, unit="ms per second of video", scale=1000, against=baseline)
    speedup = statistics.median(per_second[baseline]) / statistics.median(per_second[ours])
    return [*rows, row("encode", "times faster than the L3-Net layout", [speedup], unit="x")]
