"""Clips per second of the training stages, beside a plain loop: the same network, batch and precision, and no more.

The data are invented and lie in memory. What a stage does besides the plain loop is augmentation, batches drawn from
the corpus, targets of its own, and its books.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.benchmarks.race import Row, row
from training.avc import train_avc
from training.config import AvcConfig, Recipe, SelfLabelConfig
from training.corpus import CACHED_FRAME_SIZE, Examples, is_held_out
from training.distributed import Workers
from training.joint import train_joint
from training.pairs import BLOCK_ROWS, Pairs
from training.selflabel import train_selflabel
from training.warmstart import build_encoder, train_warmstart
from visxp_search.checkpoint import load_checkpoint
from visxp_search.checkpoint_config import DEFAULT_CHECKPOINT
from visxp_search.spectrogram import LogMel

N_EXAMPLES = 640
N_TARGETS, N_SOUND_CLASSES = 256, 521


class Enough(Exception):
    """The steps wanted have been timed."""


class Stopwatch:
    """Seconds of each training step, told by a stage's progress; the first steps are warm-up."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps
        self.at: list[float] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        """As a stage's `progress`."""
        self.at.append(time.perf_counter())
        if len(self.at) > self.n_steps + 1:
            raise Enough

    @property
    def steps(self) -> list[float]:
        """Seconds of each step but the first two."""
        return np.diff(self.at[1:]).tolist()


def measure(work: Path, *, budget_seconds: float, quick: bool) -> list[Row]:
    """All stages, each and its plain loop one after the other."""
    n_steps = 2 if quick else 8
    recipe = Recipe()
    rows: list[Row] = []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for modality, words in (("visual", "pictures"), ("audio", "sounds")):
            config = recipe.warmstart_visual if modality == "visual" else recipe.warmstart_audio
            examples = make_examples(modality, recipe)
            steps = time_stage(
                lambda watch, examples=examples, modality=modality: train_warmstart(  # type: ignore[misc]
                    examples, recipe, modality=modality, run=fresh(work, modality), progress=watch
                ),
                n_steps,
            )
            encoder = build_encoder(recipe, modality=modality).train()
            inputs = plain_inputs(modality, recipe, config.batch_size)
            plain = time_plain(lambda encoder=encoder, inputs=inputs: encoder(inputs), encoder, n_steps)  # type: ignore[misc]
            rows += compare(f"warm start, {words}", steps, plain, config.batch_size)
        rows += measure_joint_stages(work, recipe, n_steps)
        rows += measure_joint_space(work, recipe)
    finally:
        torch.set_num_threads(before)
    return rows


def measure_joint_stages(work: Path, recipe: Recipe, n_steps: int) -> list[Row]:
    """Correspondence and self-labelling beside both encoders in a plain loop, from the shipped checkpoint."""
    networks = load_checkpoint(DEFAULT_CHECKPOINT).networks.requires_grad_(True)
    pairs, workers = make_pairs(recipe), Workers(0, 1, torch.device("cpu"))
    stages: dict[str, tuple[Callable[..., object], AvcConfig | SelfLabelConfig]] = {
        "correspondence": (train_avc, recipe.avc),
        "self-labelling": (train_selflabel, recipe.selflabel),
    }
    rows: list[Row] = []
    for name, (train, config) in stages.items():
        alone = replace(config, rehearsal=0)
        settings = {"rehearsal": None, "seed": 0, "run": fresh(work, name), "workers": workers}
        steps = time_stage(
            lambda watch, train=train, alone=alone, settings=settings: train(  # type: ignore[misc]
                networks, pairs, alone, progress=watch, **settings
            ),
            n_steps,
        )
        frames = plain_inputs("visual", recipe, config.batch_size)
        sounds = plain_inputs("audio", recipe, config.batch_size)
        encoders = nn.ModuleList([networks.visual, networks.audio]).train(not config.freeze_norm)
        plain = time_plain(
            lambda frames=frames, sounds=sounds: networks.visual(frames) + networks.audio(sounds),  # type: ignore[misc]
            encoders,
            n_steps,
        )
        rows += compare(name, steps, plain, config.batch_size)
    return rows


def measure_joint_space(work: Path, recipe: Recipe) -> list[Row]:
    """The views of pairs, on which the joint space is learned in little time, beside the encoders alone."""
    networks, pairs = load_checkpoint(DEFAULT_CHECKPOINT).networks, make_pairs(recipe)
    steps = time_stage(
        lambda watch: train_joint(
            networks,
            pairs,
            recipe.joint,
            seed=0,
            run=fresh(work, "joint"),
            workers=Workers(0, 1, torch.device("cpu")),
            progress=watch,
        ),
        2,
    )
    n_pairs = len(pairs.training_rows)
    frames, sounds = plain_inputs("visual", recipe, n_pairs), plain_inputs("audio", recipe, n_pairs)
    plain = []
    for _ in steps:
        begun = time.perf_counter()
        with torch.inference_mode():
            for picture, sound in zip(torch.split(frames, BLOCK_ROWS), torch.split(sounds, BLOCK_ROWS), strict=True):
                networks.visual.embed(picture), networks.audio.embed(sound)
        plain.append(time.perf_counter() - begun)
    return compare("joint space, a view of every pair", steps, plain, n_pairs)


def time_stage(train: Callable[[Stopwatch], object], n_steps: int) -> list[float]:
    """Seconds of each step of a stage, which is stopped after them."""
    watch = Stopwatch(n_steps)
    try:
        train(watch)
    except Enough:
        return watch.steps
    raise RuntimeError(f"training ended after {len(watch.at)} steps, before {n_steps} could be timed")


def time_plain(forward: Callable[[], Tensor], module: nn.Module, n_steps: int) -> list[float]:
    """Seconds of each step of the loop that everybody writes: forward, backward, step."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    taken = []
    for _ in range(n_steps + 1):
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            features = forward()
        optimizer.zero_grad(set_to_none=True)
        features.float().square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        taken.append(time.perf_counter() - begun)
    return taken[1:]


def compare(name: str, stage: list[float], plain: list[float], batch_size: int) -> list[Row]:
    """Clips per second of both, and how many times as long the stage takes."""
    ratio = float(np.median(stage) / np.median(plain))
    baseline = f"plain loop for {name}"
    return [
        row("training", baseline, [batch_size / t for t in plain], unit="clips per second"),
        row("training", name, [batch_size / t for t in stage], unit="clips per second", against=baseline, ratio=ratio),
    ]


def fresh(work: Path, name: str) -> Path:
    """A run folder that nothing was trained in."""
    folder = work / f"{name}_{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    return folder


def plain_inputs(modality: str, recipe: Recipe, size: int) -> Tensor:
    """A batch of pictures or spectrograms, as an encoder takes them in training."""
    if modality == "visual":
        side = recipe.visual.frame_size
        return torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
    spectrograms: Tensor = LogMel(recipe.spectrogram)(0.1 * torch.randn(size, recipe.spectrogram.sample_rate_hz))
    return spectrograms


def make_examples(modality: str, recipe: Recipe) -> Examples:
    """Invented examples of a warm start, about a tenth held out."""
    rng = np.random.default_rng(0)
    names = np.array([f"videos/{number:04}.mp4" for number in range(N_EXAMPLES)])
    classes = (
        rng.integers(0, 1000, (N_EXAMPLES, 5))
        if modality == "visual"
        else rng.integers(0, 256, (N_EXAMPLES, N_SOUND_CLASSES)).astype(np.uint8)
    )
    return Examples(
        files=names,
        seconds=np.zeros(N_EXAMPLES, dtype=np.int32),
        groups=names,
        labels=names,
        inputs=invent_frames(rng) if modality == "visual" else invent_waveforms(rng, recipe),
        features=rng.standard_normal((N_EXAMPLES, N_TARGETS)).astype(np.float32),
        classes=classes,
    )


def make_pairs(recipe: Recipe) -> Pairs:
    """Invented pairs."""
    rng = np.random.default_rng(0)
    names = np.array([f"videos/{number:04}.mp4" for number in range(N_EXAMPLES)])
    frames, waveforms = invent_frames(rng), invent_waveforms(rng, recipe)
    return Pairs(
        files=names,
        seconds=np.zeros(N_EXAMPLES, dtype=np.int32),
        groups=names,
        labels=names,
        held_out=np.array([is_held_out(name) for name in names.tolist()]),
        read_frames=lambda rows: frames[rows],
        read_waveforms=lambda rows: waveforms[rows],
    )


def invent_frames(rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(N, 3, S, S)."""
    return rng.integers(0, 256, (N_EXAMPLES, 3, CACHED_FRAME_SIZE, CACHED_FRAME_SIZE), dtype=np.uint8)


def invent_waveforms(rng: np.random.Generator, recipe: Recipe) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """(N, sample_rate_hz)."""
    return rng.integers(-3000, 3000, (N_EXAMPLES, recipe.spectrogram.sample_rate_hz)).astype(np.int16)
