"""The warm start: an encoder learns to predict the features of a pretrained teacher.

From scratch, audio-visual correspondence on an hour of video overfits; features that are predicted first give the later
stages something to stand on. One visible loop; an epoch's randomness follows from (seed, epoch), so a run that resumes
at an epoch's end equals one that never stopped.

References:
    [loshchilov2016] SGDR: Stochastic Gradient Descent with Warm Restarts, 2016, arXiv:1608.03983.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.augment import augment_frames, augment_spectrograms, augment_waveforms, mix_waveforms
from training.baselines import centre_and_normalise
from training.config import Recipe, WarmstartConfig
from training.corpus import Examples
from training.losses import class_score_loss, feature_loss, top_class_loss
from training.readout import RidgeRegression, with_grid
from training.state import keep_settings, load_state, log_row, save_state
from training.within import fold_map, normalising_map, within_covariance
from visxp_search.encoders import AudioEncoder, Encoder, VisualEncoder
from visxp_search.errors import UsageError
from visxp_search.spectrogram import LogMel

TOP_CLASS_SHARES = (0.5, 0.2, 0.13, 0.1, 0.07)
"""Probability given to the teacher's five best classes: their names are known, their scores are not."""
N_VISUAL_CLASSES = 1000
N_COPIES, MAX_COPIED = 2, 8192
"""Copies of each training example, and examples, from which the normalisation at the end is learned."""
N_READ = 3
"""Copies of each training picture, beside itself, from which it is learned to read the features of a `grid`."""


class WarmstartHeads(nn.Module):
    """What reads teacher features and class logits off an encoder's features; used in training only."""

    def __init__(self, n_features: int, n_targets: int, n_classes: int) -> None:
        super().__init__()
        self.features = nn.Linear(n_features, n_targets)
        self.classes = nn.Linear(n_features, n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> (B, T), (B, C)."""
        return self.features(x), self.classes(x)


def build_encoder(recipe: Recipe, *, modality: str) -> VisualEncoder | AudioEncoder:
    """The untrained encoder of one modality; a visual one is trained by its last stage, and given its `grid` later."""
    if modality == "visual":
        return VisualEncoder(dataclasses.replace(recipe.visual, grid=0))
    return AudioEncoder(recipe.audio, n_mels=recipe.spectrogram.n_mels)


def train_warmstart(
    examples: Examples,
    recipe: Recipe,
    *,
    modality: str,
    run: Path,
    progress: Callable[[str, int, int], None],
) -> VisualEncoder | AudioEncoder:
    """Train one encoder, saving after each epoch and resuming from what is there.

    Args:
        examples: all examples of the modality; held-out groups are not trained on.
        recipe: the settings.
        modality: `visual` or `audio`.
        run: folder for the state (`warmstart_<modality>.pt`) and the log (`warmstart_<modality>.csv`).
        progress: called with (what, steps done, steps in all) after each step.

    Returns:
        The trained encoder, a visual one with its `grid` (`readout`), normalised within copies (`within`), its `centre`
        set to the mean of its features over the training examples.

    Raises:
        UsageError: If the run folder was begun with other settings, or the teacher has fewer features than are wanted.
    """
    if modality == "visual" and recipe.visual.grid and recipe.visual.embedding > examples.features.shape[1]:
        raise UsageError(
            f"features with a grid are the teacher's, which has {examples.features.shape[1]}; the recipe wants "
            f"{recipe.visual.embedding}: lower visual.embedding, or set visual.grid to 0"
        )
    config = recipe.warmstart_visual if modality == "visual" else recipe.warmstart_audio
    shapes = {name: dataclasses.asdict(getattr(recipe, name)) for name in ("spectrogram", modality)}
    keep_settings(run, f"warmstart_{modality}", {"seed": recipe.seed, **shapes, **dataclasses.asdict(config)})
    torch.manual_seed(recipe.seed)
    encoder = build_encoder(recipe, modality=modality)
    log_mel = LogMel(recipe.spectrogram)
    n_classes = N_VISUAL_CLASSES if modality == "visual" else examples.classes.shape[1]
    heads = WarmstartHeads(encoder.centre.numel(), examples.features.shape[1], n_classes)
    rows = np.flatnonzero(~examples.held_out)
    steps_per_epoch, n_epochs = len(rows) // config.batch_size, config.epochs + config.restart_epochs
    optimizer, schedule = _begin_cycle(
        [encoder, heads], config, learning_rate=config.learning_rate, n_steps=steps_per_epoch * config.epochs
    )
    parts = {"encoder": encoder, "heads": heads, "optimizer": optimizer, "schedule": schedule}
    state_path = run / f"warmstart_{modality}.pt"
    first_epoch = load_state(state_path, parts)

    for epoch in range(first_epoch, n_epochs):
        if epoch == config.epochs:
            optimizer, schedule = _begin_cycle(
                [encoder, heads],
                config,
                learning_rate=config.restart_learning_rate,
                n_steps=steps_per_epoch * config.restart_epochs,
            )
            parts |= {"optimizer": optimizer, "schedule": schedule}
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        order = rows[torch.randperm(len(rows), generator=generator).numpy()]
        started, sums = time.monotonic(), dict.fromkeys(config.loss_weights, 0.0)
        encoder.train()
        for step in range(steps_per_epoch):
            batch = np.sort(order[step * config.batch_size : (step + 1) * config.batch_size])
            if modality == "visual":
                inputs, features, classes = _visual_batch(examples, batch, recipe, generator)
            else:
                inputs, features, classes = _audio_batch(examples, batch, log_mel, config, generator)
            with torch.autocast("cpu", torch.bfloat16):
                embedding = encoder(inputs)
                predicted, logits = heads(embedding)
            losses = {
                "warmstart/features": feature_loss(predicted, features),
                "warmstart/classes": top_class_loss(logits, classes, torch.tensor(TOP_CLASS_SHARES))
                if modality == "visual"
                else class_score_loss(logits, classes),
            }
            loss = sum((weight * losses[name] for name, weight in config.loss_weights.items()), torch.zeros(()))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_([*encoder.parameters(), *heads.parameters()], 5.0)
            optimizer.step()
            schedule.step()
            for name in sums:
                sums[name] += losses[name].item()
            progress(f"warmstart {modality}", epoch * steps_per_epoch + step + 1, n_epochs * steps_per_epoch)
        row: dict[str, float] = {"epoch": epoch + 1, "seconds": round(time.monotonic() - started, 1)}
        row.update({name: total / steps_per_epoch for name, total in sums.items()})
        row["held_out/features"] = _held_out_loss(encoder, heads, examples, log_mel, recipe, modality)
        log_row(run, f"warmstart_{modality}", row)
        save_state(state_path, parts, epoch + 1)
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + n_epochs)
    if isinstance(encoder, VisualEncoder) and recipe.visual.grid:
        encoder = _read_off_stages(encoder, examples, rows, recipe=recipe, generator=generator, progress=progress)
    copies = _features_of_copies(encoder, examples, rows, recipe=recipe, generator=generator)
    fold_map(encoder, normalising_map(within_covariance(copies), shrinkage=config.shrinkage))
    encoder.centre.copy_(torch.from_numpy(compute_features(encoder, examples, rows, recipe=recipe).mean(axis=0)))
    return encoder


@torch.inference_mode()
def compute_features(
    encoder: Encoder, examples: Examples, rows: np.ndarray[Any, np.dtype[np.int64]], *, recipe: Recipe
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(R, D) float32 features (not yet embeddings) of the given rows, without augmentation."""
    encoder.eval()
    log_mel = LogMel(recipe.spectrogram)
    parts = []
    for start in range(0, len(rows), 64):
        batch = np.sort(rows)[start : start + 64]
        parts.append(encoder.features(_plain_inputs(examples, batch, recipe, log_mel)).float().numpy())
    in_sorted_order = np.concatenate(parts)
    return in_sorted_order[np.argsort(np.argsort(rows))]


@torch.no_grad()
def _read_off_stages(
    encoder: VisualEncoder,
    examples: Examples,
    rows: np.ndarray[Any, np.dtype[np.int64]],
    *,
    recipe: Recipe,
    generator: torch.Generator,
    progress: Callable[[str, int, int], None],
) -> VisualEncoder:
    """The trained encoder with the `grid` of the recipe: its features are the teacher's, as far as they can be read."""
    wider = with_grid(encoder, recipe.visual)
    targets = torch.from_numpy(centre_and_normalise(examples.features[rows])[:, : recipe.visual.embedding])
    regression = RidgeRegression(wider.project.in_features, targets.shape[1])
    size, log_mel = recipe.visual.frame_size, LogMel(recipe.spectrogram)
    for start in range(0, len(rows), 64):
        batch = rows[start : start + 64]
        raw = torch.from_numpy(np.ascontiguousarray(examples.inputs[batch]))
        copies = (augment_frames(raw, size=size, generator=generator) for _ in range(N_READ))
        for inputs in (_plain_inputs(examples, batch, recipe, log_mel), *copies):
            with torch.autocast("cpu", torch.bfloat16):
                pooled = wider.pool(inputs)
            regression.add(pooled.float(), targets[start : start + 64])
        progress("reading features off", min(start + 64, len(rows)), len(rows))
    weights, biases = regression.solve(recipe.warmstart_visual.ridge)
    wider.project.weight.copy_(weights)
    wider.project.bias.copy_(biases)
    return wider


@torch.inference_mode()
def _features_of_copies(
    encoder: Encoder,
    examples: Examples,
    rows: np.ndarray[Any, np.dtype[np.int64]],
    *,
    recipe: Recipe,
    generator: torch.Generator,
) -> Tensor:
    """(1 + N_COPIES, R, D) features of at most `MAX_COPIED` of the rows: as they are, and changed at random."""
    encoder.eval()
    log_mel, size = LogMel(recipe.spectrogram), recipe.visual.frame_size
    rows = np.sort(rows[torch.randperm(len(rows), generator=generator).numpy()[:MAX_COPIED]])
    blocks = []
    for start in range(0, len(rows), 64):
        batch = rows[start : start + 64]
        raw = torch.from_numpy(np.ascontiguousarray(examples.inputs[batch]))
        changed = []
        for _ in range(N_COPIES):
            if raw.dtype == torch.int16:
                waveforms = augment_waveforms(raw.float() / 32768, generator=generator)
                changed.append(augment_spectrograms(log_mel(waveforms), generator=generator))
            else:
                changed.append(augment_frames(raw, size=size, generator=generator))
        inputs = (_plain_inputs(examples, batch, recipe, log_mel), *changed)
        blocks.append(torch.stack([encoder.features(x) for x in inputs]))
    return torch.cat(blocks, dim=1)


def _plain_inputs(examples: Examples, batch: Any, recipe: Recipe, log_mel: LogMel) -> Tensor:
    raw = torch.from_numpy(np.ascontiguousarray(examples.inputs[batch]))
    if raw.dtype == torch.int16:
        spectrogram: Tensor = log_mel(raw.float() / 32768)
        return spectrogram
    size = recipe.visual.frame_size
    return nn.functional.interpolate(
        raw.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )


def _visual_batch(
    examples: Examples, batch: Any, recipe: Recipe, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    frames = torch.from_numpy(np.ascontiguousarray(examples.inputs[batch]))
    inputs = augment_frames(frames, size=recipe.visual.frame_size, generator=generator)
    return inputs, torch.from_numpy(examples.features[batch]), torch.from_numpy(examples.classes[batch])


def _audio_batch(
    examples: Examples, batch: Any, log_mel: LogMel, config: WarmstartConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Spectrograms and targets; a mixed sound has its parts' features in proportion and the larger class scores."""
    waveforms = torch.from_numpy(np.ascontiguousarray(examples.inputs[batch])).float() / 32768
    features = nn.functional.normalize(torch.from_numpy(examples.features[batch]), dim=1)
    classes = torch.from_numpy(examples.classes[batch]).float() / 255
    waveforms = augment_waveforms(waveforms, generator=generator)
    other = torch.randperm(len(batch), generator=generator)
    mixed = torch.rand(len(batch), generator=generator) < config.mixup
    share = torch.where(mixed, 0.5 + 0.5 * torch.rand(len(batch), generator=generator), 1.0)
    waveforms = mix_waveforms(waveforms, waveforms[other], share)
    features = share[:, None] * features + (1 - share[:, None]) * features[other]
    # A sound that is much softer than the other is not heard: its classes count once it is within 6 dB or so.
    heard = (share < 0.67)[:, None]
    classes = torch.where(heard, torch.maximum(classes, classes[other]), classes)
    return augment_spectrograms(log_mel(waveforms), generator=generator), features, classes


@torch.inference_mode()
def _held_out_loss(
    encoder: Encoder, heads: WarmstartHeads, examples: Examples, log_mel: LogMel, recipe: Recipe, modality: str
) -> float:
    encoder.eval()
    rows = np.flatnonzero(examples.held_out)
    total = 0.0
    for start in range(0, len(rows), 64):
        batch = rows[start : start + 64]
        predicted, _ = heads(encoder(_plain_inputs(examples, batch, recipe, log_mel)))
        total += feature_loss(predicted, torch.from_numpy(examples.features[batch])).item() * len(batch)
    return total / max(len(rows), 1)


def _begin_cycle(
    modules: list[nn.Module], config: WarmstartConfig, *, learning_rate: float, n_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    """An optimiser that remembers nothing, and a rate that rises and falls once; a second cycle is [loshchilov2016]."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=n_steps, pct_start=config.warmup
    )
    return optimizer, schedule
