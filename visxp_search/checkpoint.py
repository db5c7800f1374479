"""A checkpoint: a folder in Hugging Face layout from which the encoders are rebuilt.

    config.json        shapes of the networks, provenance (recipe, data, metrics), format version
    model.safetensors  weights, float16
    README.md          the model card, for people

Nothing is unpickled: JSON and safetensors only. The checkpoint's id is a hash of the weights and of the part of the
configuration that decides what the embeddings are; a collection stores it, and two checkpoints never share an index.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from visxp_search.checkpoint_config import FORMAT_VERSION, WEIGHTS, checkpoint_id, read_config
from visxp_search.encoders import AudioConfig, AudioEncoder, VisualConfig, VisualEncoder
from visxp_search.errors import CheckpointError
from visxp_search.heads import ClusteringNetwork, FusionNetwork, HeadsConfig, JointHead, RepresentationNetwork
from visxp_search.spectrogram import LogMel, SpectrogramConfig


@dataclass(frozen=True)
class Architecture:
    """Everything needed to rebuild the networks.

    Attributes:
        spectrogram: analysis of the sound.
        visual: shape of the visual encoder.
        audio: shape of the audio encoder.
        joint: J, length of embeddings in the joint space.
        heads: what else training left on top of the encoders; None in checkpoints of a warm start only.
    """

    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    visual: VisualConfig = field(default_factory=VisualConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    joint: int = 128
    heads: HeadsConfig | None = None


class Networks(nn.Module):
    """The networks of one checkpoint, untrained until weights are loaded into them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.log_mel = LogMel(architecture.spectrogram)
        self.visual = VisualEncoder(architecture.visual)
        self.audio = AudioEncoder(architecture.audio, n_mels=architecture.spectrogram.n_mels)
        self.joint_visual = JointHead(architecture.visual.embedding, architecture.joint)
        self.joint_audio = JointHead(architecture.audio.embedding, architecture.joint)
        heads, n_visual, n_audio = (
            architecture.heads or HeadsConfig(),
            self.visual.centre.numel(),
            self.audio.centre.numel(),
        )
        self.fusion = FusionNetwork(n_visual, n_audio, heads.fusion_hidden) if heads.fusion_hidden else None
        self.clustering = ClusteringNetwork(n_visual, n_audio, heads) if heads.n_heads else None
        self.representation_visual = RepresentationNetwork(n_visual, heads) if heads.n_heads else None
        self.representation_audio = RepresentationNetwork(n_audio, heads) if heads.n_heads else None


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        checkpoint_id: 12 hexadecimal digits.
        networks: with weights, in evaluation mode, float32.
        provenance: what the training wrote about itself (recipe, data, metrics).
        path: the folder.
    """

    checkpoint_id: str
    networks: Networks
    provenance: Mapping[str, Any]
    path: Path


def save_checkpoint(path: Path, networks: Networks, *, provenance: Mapping[str, Any], card: str) -> str:
    """Write a checkpoint folder; each file appears whole.

    Args:
        path: folder; made if need be.
        networks: trained networks.
        provenance: JSON values on how they were made.
        card: text of the model card.

    Returns:
        The checkpoint's id.
    """
    path.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().half().contiguous() if value.is_floating_point() else value.detach().contiguous()
        for name, value in networks.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    config = {
        "format_version": FORMAT_VERSION,
        "architecture": _architecture_to_json(networks.architecture),
        "provenance": dict(provenance),
    }
    _replace(path / WEIGHTS, safetensors.torch.save(weights))
    _replace(path / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    _replace(path / "README.md", card.encode())
    return checkpoint_id(path, config["architecture"])


def load_checkpoint(path: Path) -> Checkpoint:
    """Rebuild the networks of a checkpoint folder.

    Raises:
        CheckpointError: If the folder or a file is missing, damaged, or of another format version.
    """
    config = read_config(path)
    try:
        architecture = _architecture_from_json(config["architecture"])
        networks = Networks(architecture)
        weights: dict[str, Tensor] = safetensors.torch.load_file(path / WEIGHTS)
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"checkpoint {path}: config.json does not fit this version ({exc})") from exc
    except (OSError, safetensors.SafetensorError) as exc:
        raise CheckpointError(f"checkpoint {path}: cannot read {WEIGHTS} ({exc})") from exc
    wanted = {name for name in networks.state_dict() if not name.endswith("num_batches_tracked")}
    if set(weights) != wanted:
        different = sorted(set(weights) ^ wanted)
        raise CheckpointError(
            f"checkpoint {path}: weights do not fit config.json; {len(different)} names differ, e.g. {different[0]}"
        )
    try:
        networks.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    except RuntimeError as exc:
        raise CheckpointError(f"checkpoint {path}: weights do not fit config.json ({exc})") from exc
    networks.eval().requires_grad_(False)
    return Checkpoint(
        checkpoint_id=checkpoint_id(path, config["architecture"]),
        networks=networks,
        provenance=config["provenance"],
        path=path,
    )


def _architecture_to_json(architecture: Architecture) -> dict[str, Any]:
    """As a checkpoint of the first stage has it, without a word on heads, where there are none."""
    return {name: value for name, value in dataclasses.asdict(architecture).items() if value is not None}


def _architecture_from_json(values: Mapping[str, Any]) -> Architecture:
    visual = {"mirrored": False, "grid": 0, **values["visual"]}  # what checkpoints do not say that are older than it
    return Architecture(
        spectrogram=SpectrogramConfig(**values["spectrogram"]),
        visual=VisualConfig(**{**visual, "blocks": tuple(visual["blocks"])}),
        audio=AudioConfig(**{**values["audio"], "channels": tuple(values["audio"]["channels"])}),
        joint=values["joint"],
        heads=HeadsConfig(**values["heads"]) if "heads" in values else None,
    )


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def available_device(wanted: str | None) -> torch.device:
    """The device to run on: the wanted one, else a GPU if there is one, else the CPU.

    Raises:
        CheckpointError: If the wanted device is not there; nothing falls back in silence.
    """
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise CheckpointError(f"device {wanted!r} cannot be used ({exc}); try --device cpu") from exc
    return device
