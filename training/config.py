"""The settings of every training stage: frozen, printed at the start, stored in the checkpoint.

A recipe (`recipe_default.json`) is a saved `Recipe`; the command line overrides single fields.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visxp_search.encoders import AudioConfig, VisualConfig
from visxp_search.errors import UsageError
from visxp_search.spectrogram import SpectrogramConfig


@dataclass(frozen=True)
class WarmstartConfig:
    """The warm start of one encoder.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples a step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW, on matrices and kernels only.
        loss_weights: term -> weight; the terms are those of `losses.warmstart_losses`.
        mixup: share of examples that are mixed with another one (sounds only).
        warmup: share of the steps in which the learning rate rises.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    loss_weights: dict[str, float]
    mixup: float = 0.0
    warmup: float = 0.3


@dataclass(frozen=True)
class JointConfig:
    """The contrastive projection of both modalities into the joint space, encoders frozen.

    Attributes:
        epochs: passes over the seconds that have picture and sound.
        batch_size: groups a step; one second is drawn from each, so negatives come from other groups.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        dimensions: J.
        temperature: of the contrastive loss.
    """

    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dimensions: int = 128
    temperature: float = 0.1


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out of training, besides the data."""

    seed: int = 0
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    visual: VisualConfig = field(default_factory=VisualConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    warmstart_visual: WarmstartConfig = field(
        default_factory=lambda: WarmstartConfig(
            epochs=15,
            batch_size=64,
            learning_rate=2e-3,
            weight_decay=0.02,
            loss_weights={"warmstart/features": 1.0, "warmstart/relations": 10.0, "warmstart/classes": 0.1},
            warmup=0.1,
        )
    )
    warmstart_audio: WarmstartConfig = field(
        default_factory=lambda: WarmstartConfig(
            epochs=16,
            batch_size=64,
            learning_rate=2.5e-3,
            weight_decay=0.02,
            loss_weights={"warmstart/features": 1.0, "warmstart/relations": 2.0, "warmstart/classes": 20.0},
            mixup=0.5,
        )
    )
    joint: JointConfig = field(default_factory=JointConfig)


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain JSON values."""
    return dataclasses.asdict(recipe)


def recipe_from_file(path: Path) -> Recipe:
    """Read a recipe written by `recipe_to_json`.

    Raises:
        UsageError: If the file cannot be read, or a field is unknown or missing.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise UsageError(f"recipe {path} cannot be read ({exc}); it is a JSON file as `visxp train` writes") from exc
    try:
        return Recipe(
            seed=values["seed"],
            spectrogram=SpectrogramConfig(**values["spectrogram"]),
            visual=VisualConfig(**{**values["visual"], "blocks": tuple(values["visual"]["blocks"])}),
            audio=AudioConfig(**{**values["audio"], "channels": tuple(values["audio"]["channels"])}),
            warmstart_visual=WarmstartConfig(**values["warmstart_visual"]),
            warmstart_audio=WarmstartConfig(**values["warmstart_audio"]),
            joint=JointConfig(**values["joint"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise UsageError(
            f"recipe {path} does not fit this version ({exc}); compare it with the recipe in a checkpoint's config.json"
        ) from exc


def keep_recipe(run: Path, recipe: Recipe) -> None:
    """Write the recipe into a run folder, or check that the folder was begun with this one.

    Raises:
        UsageError: If the folder belongs to another recipe; its state must not be taken up by this one.
    """
    path, text = run / "recipe.json", json.dumps(recipe_to_json(recipe), indent=2) + "\n"
    if path.is_file() and path.read_text() != text:
        raise UsageError(
            f"{run} was begun with other settings (see {path}); use them again or take another --run folder"
        )
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
