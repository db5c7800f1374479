"""Clips in, embeddings out: the interface that every encoder plugin has, and ours.

A plugin is an entry point of the group `visxp.encoders`: a function that takes (checkpoint path or None, device or
None) and returns an `Embedder`. `--model` names a checkpoint folder of ours, `NAME` or `NAME:PATH` of a plugin.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from visxp_search.clips import Clip
from visxp_search.errors import CheckpointError

ENTRY_POINT_GROUP = "visxp.encoders"
DEFAULT_ENCODER = "l3net"
IMPORTED_PREFIX = "dane-"
"""With this the checkpoint name of an index begins whose features were imported, and not made by an encoder of ours."""
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class VectorSpec:
    """One named vector that an embedder makes.

    Attributes:
        length: D.
        made_from: the modalities it is made from, of `visual` and `audio`.
    """

    length: int
    made_from: tuple[str, ...]


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of B clips, one row a clip; rows of a missing or worthless modality are all NaN.

    Attributes:
        visual: (B, D) norm 1.
        audio: (B, D) norm 1.
        joint_visual: (B, J) the picture in the joint space, norm 1.
        joint_audio: (B, J) the sound in the joint space, norm 1.
    """

    visual: FloatArray
    audio: FloatArray
    joint_visual: FloatArray
    joint_audio: FloatArray

    @classmethod
    def joined(cls, parts: "Sequence[Embeddings]") -> "Embeddings":
        """The rows of several, one after the other.

        Raises:
            ValueError: If there are none.
        """
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def joint(self) -> FloatArray:
        """(B, J) normalised sum of the modalities that are there; NaN where neither is."""
        total = np.nan_to_num(self.joint_visual) + np.nan_to_num(self.joint_audio)
        norm = np.linalg.norm(total, axis=1, keepdims=True)
        return np.where(norm > 0, total / np.where(norm > 0, norm, 1), np.nan).astype(np.float32)

    def vectors(self, row: int) -> dict[str, FloatArray]:
        """The named vectors of one clip, those that are there."""
        named = {"visual": self.visual[row], "audio": self.audio[row], "joint": self.joint[row]}
        return {name: vector for name, vector in named.items() if not np.isnan(vector[0])}


@dataclass(frozen=True)
class PseudoLabels:
    """Clusters that self-labelling learned, of B seconds; -1 (and confidence 0) where nothing tells them.

    All networks of a checkpoint share one numbering of clusters.

    Attributes:
        cluster: (B, n_heads) told by picture and sound together, or by the one of them that is there.
        cluster_visual: (B, n_heads) told by the picture alone.
        cluster_audio: (B, n_heads) told by the sound alone.
        confidence: (B, n_heads) probability of `cluster`, in [0, 1].
    """

    cluster: npt.NDArray[np.int64]
    cluster_visual: npt.NDArray[np.int64]
    cluster_audio: npt.NDArray[np.int64]
    confidence: FloatArray

    def payload(self, row: int) -> dict[str, Any]:
        """What `store.make_payload` takes of one second: the labels of the first head, those that are known."""
        labels = {name: int(getattr(self, name)[row, 0]) for name in ("cluster", "cluster_visual", "cluster_audio")}
        known: dict[str, Any] = {name: label for name, label in labels.items() if label >= 0}
        return {**known, "confidence": round(float(self.confidence[row, 0]), 4)} if "cluster" in known else known


@runtime_checkable
class Embedder(Protocol):
    """What an encoder plugin gives back.

    Attributes:
        checkpoint_id: identifies the weights; an index accepts vectors of one checkpoint only.
        specs: named vector -> what it is; the names are of `visual`, `audio` and `joint`.
        frame_size: side of the frames it takes, pixels.
        sample_rate_hz: of the waveforms it takes.
    """

    checkpoint_id: str
    specs: Mapping[str, VectorSpec]
    frame_size: int
    sample_rate_hz: int

    def embed(self, clips: Sequence[Clip]) -> Embeddings:
        """Embed clips; a row depends on its clip alone."""


@runtime_checkable
class SelfLabelled(Protocol):
    """What an embedder can do besides, if its networks learned clusters."""

    def pseudo_labels(self, embeddings: Embeddings) -> PseudoLabels | None:
        """The clusters of embedded seconds; None if these networks learned none."""


@runtime_checkable
class Deferred(Protocol):
    """What an embedder can do besides, if its networks are loaded only when they are first needed."""

    def begin_loading(self) -> None:
        """Load them in the background; what goes wrong is told to whoever needs them first."""


@runtime_checkable
class Threaded(Protocol):
    """What an embedder can do besides, if it computes in threads of this process."""

    def limit_threads(self, most: int) -> AbstractContextManager[None]:
        """Use no more threads than this while the context lasts; it changes no bit of the embeddings."""


def load_embedder(model: str | Path | None = None, *, device: str | None = None) -> Embedder:
    """The embedder that `--model` names.

    Args:
        model: None for the shipped checkpoint; a checkpoint folder; or `NAME` or `NAME:PATH` of a plugin.
        device: torch's name of a device; None takes a GPU if there is one.

    Raises:
        CheckpointError: If there is no such plugin or checkpoint.
    """
    name, path = DEFAULT_ENCODER, None
    if model is not None:
        head, _, tail = str(model).partition(":")
        if Path(model).exists() or (not tail and "/" in head):
            path = Path(model)
        else:
            name, path = head, Path(tail) if tail else None
    plugins = entry_points(group=ENTRY_POINT_GROUP)
    if name not in plugins.names:
        raise CheckpointError(
            f"no checkpoint folder {model} and no encoder plugin {name!r}; installed plugins: {sorted(plugins.names)}"
        )
    embedder: Embedder = plugins[name].load()(path, device)
    return embedder


class ImportedFeatures:
    """Stands for the encoder of an index of imported features, which is not here: indexed moments can be asked with."""

    frame_size = 1
    sample_rate_hz = 1

    def __init__(self, checkpoint_id: str, dims: Mapping[str, int]) -> None:
        self.checkpoint_id = checkpoint_id
        self.specs: Mapping[str, VectorSpec] = {name: VectorSpec(length, (name,)) for name, length in dims.items()}

    def embed(self, clips: Sequence[Clip]) -> Embeddings:
        """Nothing can be embedded.

        Raises:
            CheckpointError: Always.
        """
        raise CheckpointError(
            f"this index holds imported features ({self.checkpoint_id}), whose encoder is not here; ask with one of "
            f"its own moments: visxp search moment VIDEO@S"
        )


def begin_loading(embedder: Embedder) -> None:
    """Let an embedder that can do so load its networks while other things are done."""
    if isinstance(embedder, Deferred):
        embedder.begin_loading()


def load_now(embedder: Embedder) -> None:
    """Embed a second of nothing: afterwards the networks are there, and are known to work.

    Raises:
        CheckpointError: If they cannot be loaded.
    """
    frame = np.zeros((3, embedder.frame_size, embedder.frame_size), dtype=np.uint8)
    embedder.embed([Clip(0, frame, np.zeros(embedder.sample_rate_hz, dtype=np.float32))])


def load_l3net(path: Path | None = None, device: str | None = None) -> Embedder:
    """Our own encoders, as a plugin: the shipped checkpoint, or the one at `path`."""
    if device is None:
        from visxp_search.l3net_deferred import DeferredL3Net

        return DeferredL3Net(path)
    from visxp_search.l3net import L3NetEmbedder  # whether the device can be used is said at once

    return L3NetEmbedder(path, device=device)
