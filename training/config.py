"""The settings of every training stage: frozen, printed at the start, stored in the checkpoint.

A recipe (`recipe_default.json`) is a saved `Recipe`; the command line overrides single fields.
"""

import dataclasses
import json
from collections.abc import Mapping
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
        epochs: passes over the training examples in the first cycle.
        batch_size: examples a step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW, on matrices and kernels only.
        loss_weights: term -> weight; the terms are `warmstart/features` and `warmstart/classes`.
        mixup: share of examples that are mixed with another one (sounds only).
        warmup: share of a cycle's steps in which the learning rate rises.
        restart_epochs: passes in a second cycle, which goes on from the weights of the first; 0 for none.
        restart_learning_rate: peak of the second cycle.
        shrinkage: of the normalisation within copies at the end; lower holds bad copies closer to their original.
        ridge: penalty of the regression that finds the features of a visual encoder with a `grid`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    loss_weights: dict[str, float]
    mixup: float = 0.0
    warmup: float = 0.3
    restart_epochs: int = 0
    restart_learning_rate: float = 1e-3
    shrinkage: float = 0.1
    ridge: float = 0.003


@dataclass(frozen=True)
class AvcConfig:
    """Audio-visual correspondence, with the contrastive projection into the joint space.

    Attributes:
        epochs: passes over the training pairs.
        batch_size: pairs among which all others are negatives.
        batches_per_step: batches whose gradients make one step; divided among processes.
        learning_rate: of the heads; peak of the one-cycle schedule.
        encoder_learning_rate: of the encoders.
        weight_decay: of AdamW.
        joint: J, length of embeddings in the joint space.
        fusion_hidden: units of the fusion network's hidden layer.
        temperature: of the contrastive loss.
        hard_negatives: whether another second of the same video is a negative too.
        freeze_norm: keep the batch statistics of the encoders as they are: batches of few videos are too alike.
        rehearsal: frames and sounds without a partner a batch, which the anchor loss keeps where they were.
        loss_weights: term -> weight; the terms are `avc/correspondence`, `avc/contrastive` and `avc/anchor`.
    """

    epochs: int = 8
    batch_size: int = 64
    batches_per_step: int = 1
    learning_rate: float = 2e-3
    encoder_learning_rate: float = 1e-5
    weight_decay: float = 0.05
    joint: int = 128
    fusion_hidden: int = 128
    temperature: float = 0.1
    hard_negatives: bool = False
    freeze_norm: bool = True
    rehearsal: int = 32
    loss_weights: dict[str, float] = field(
        default_factory=lambda: {"avc/correspondence": 1.0, "avc/contrastive": 1.0, "avc/anchor": 5.0}
    )


@dataclass(frozen=True)
class SelfLabelConfig:
    """Self-labelling: clusters of wanted sizes as labels, in turns with learning them.

    Attributes:
        epochs: passes over the training pairs.
        labellings: how often labels are made, the first from the embeddings; at evenly spaced epochs.
        batch_size: pairs a batch.
        batches_per_step: batches whose gradients make one step; divided among processes.
        learning_rate: of the heads; peak of the one-cycle schedule.
        encoder_learning_rate: of the encoders.
        weight_decay: of AdamW.
        n_heads: clusterings side by side.
        n_clusters: K of each.
        cluster_hidden: units of the clustering network's hidden layer.
        sizes: wanted sizes: `uniform`, `gaussian`, or `mixed`: every second head gaussian.
        sharpness: of the assignment, where its search begins.
        alignment: in [0, 1], share of what each modality says alone in the assignment; the rest is what both say.
        freeze_norm: see `AvcConfig`.
        rehearsal: see `AvcConfig`.
        loss_weights: term -> weight; the terms are `selflabel/clustering`, `selflabel/representation`,
            `selflabel/regularisation` and `selflabel/anchor`, and those of `avc` that keep its heads in step.
    """

    epochs: int = 6
    labellings: int = 3
    batch_size: int = 64
    batches_per_step: int = 1
    learning_rate: float = 2e-3
    encoder_learning_rate: float = 1e-5
    weight_decay: float = 0.05
    n_heads: int = 4
    n_clusters: int = 64
    cluster_hidden: int = 256
    sizes: str = "mixed"
    sharpness: float = 10.0
    alignment: float = 0.5
    freeze_norm: bool = True
    rehearsal: int = 32
    loss_weights: dict[str, float] = field(
        default_factory=lambda: {
            "selflabel/clustering": 1.0,
            "selflabel/representation": 0.5,
            "selflabel/regularisation": 0.02,
            "selflabel/anchor": 5.0,
            "avc/correspondence": 0.5,
            "avc/contrastive": 0.5,
        }
    )


@dataclass(frozen=True)
class JointConfig:
    """The heads on pairs, learned anew while the encoders stay as they are.

    Attributes:
        views: times that each pair is embedded changed at random, besides as it is.
        epochs: passes over the training pairs.
        batch_size: pairs of different groups, among which all others are negatives.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        temperature: of the contrastive loss.
        loss_weights: term -> weight; the terms are `avc/correspondence` and `avc/contrastive`.
    """

    views: int = 8
    epochs: int = 24
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    temperature: float = 0.1
    loss_weights: dict[str, float] = field(default_factory=lambda: {"avc/correspondence": 1.0, "avc/contrastive": 1.0})


@dataclass(frozen=True)
class HierarchyConfig:
    """Positions in the Poincaré ball as labels, from the hierarchy over the clusters of self-labelling.

    Attributes:
        epochs: passes over the training pairs.
        batch_size: pairs a batch.
        batches_per_step: batches whose gradients make one step; divided among processes.
        learning_rate: of the heads; peak of the one-cycle schedule.
        encoder_learning_rate: of the encoders.
        weight_decay: of AdamW.
        hidden: units of the hidden layer that tells positions by both modalities.
        radius: hyperbolic distance of the leaves from the origin; the larger, the more alike are all mistakes.
        freeze_norm: see `AvcConfig`.
        rehearsal: see `AvcConfig`.
        loss_weights: term -> weight; the terms are `hierarchy/position` and `hierarchy/anchor`, and those of
            `selflabel` and `avc` that keep their heads in step.
    """

    epochs: int = 6
    batch_size: int = 64
    batches_per_step: int = 1
    learning_rate: float = 2e-3
    encoder_learning_rate: float = 1e-5
    weight_decay: float = 0.05
    hidden: int = 256
    radius: float = 4.0
    freeze_norm: bool = True
    rehearsal: int = 32
    loss_weights: dict[str, float] = field(
        default_factory=lambda: {
            "hierarchy/position": 1.0,
            "hierarchy/anchor": 5.0,
            "selflabel/clustering": 0.5,
            "selflabel/representation": 0.25,
            "avc/correspondence": 0.5,
            "avc/contrastive": 0.3,
        }
    )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out of training, besides the data."""

    seed: int = 0
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    visual: VisualConfig = field(default_factory=VisualConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    warmstart_visual: WarmstartConfig = field(
        default_factory=lambda: WarmstartConfig(
            epochs=32,
            batch_size=64,
            learning_rate=2e-3,
            weight_decay=0.05,
            loss_weights={"warmstart/features": 1.0, "warmstart/classes": 0.1},
            warmup=0.1,
            restart_epochs=24,
        )
    )
    warmstart_audio: WarmstartConfig = field(
        default_factory=lambda: WarmstartConfig(
            epochs=30,
            batch_size=64,
            learning_rate=2e-3,
            weight_decay=0.05,
            loss_weights={"warmstart/features": 1.0, "warmstart/classes": 20.0},
            mixup=0.5,
            warmup=0.1,
            restart_epochs=24,
            shrinkage=0.03,
        )
    )
    avc: AvcConfig = field(default_factory=AvcConfig)
    selflabel: SelfLabelConfig = field(default_factory=SelfLabelConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    hierarchy: HierarchyConfig = field(default_factory=HierarchyConfig)


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
        return recipe_from_json(values)
    except (KeyError, TypeError, ValueError) as exc:
        raise UsageError(
            f"recipe {path} does not fit this version ({exc}); compare it with the recipe in a checkpoint's config.json"
        ) from exc


def recipe_from_json(values: Mapping[str, Any]) -> Recipe:
    """A recipe from JSON values; a part that is not named keeps its built-in settings.

    Raises:
        TypeError: If a field is unknown or missing.
    """
    kinds: dict[str, Any] = {
        "spectrogram": SpectrogramConfig,
        "visual": VisualConfig,
        "audio": AudioConfig,
        "warmstart_visual": WarmstartConfig,
        "warmstart_audio": WarmstartConfig,
        "avc": AvcConfig,
        "selflabel": SelfLabelConfig,
        "joint": JointConfig,
        "hierarchy": HierarchyConfig,
    }
    parts: dict[str, Any] = {"seed": values["seed"]} if "seed" in values else {}
    for name, fields in values.items():
        if name != "seed":
            if name not in kinds:
                raise TypeError(f"unknown part {name!r}; parts are {sorted(kinds)}")
            tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
            parts[name] = kinds[name](**tuples)
    return Recipe(**parts)
