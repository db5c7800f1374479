"""Our encoders as an embedder: a checkpoint's networks applied to clips."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visxp_search.checkpoint import DEFAULT_CHECKPOINT, available_device, load_checkpoint
from visxp_search.clips import Clip, stack_frames, stack_waveforms
from visxp_search.embed import Embeddings, FloatArray, VectorSpec

MAX_BATCH = 64
"""Clips that pass through a network at a time; bounds memory for long queries."""


@dataclass(frozen=True)
class PseudoLabels:
    """Clusters that self-labelling learned, of B seconds; -1 (and confidence 0) where a modality is missing.

    Attributes:
        cluster: (B, n_heads) told by picture and sound together.
        cluster_visual: (B, n_heads) told by the picture alone.
        cluster_audio: (B, n_heads) told by the sound alone.
        confidence: (B, n_heads) probability of `cluster`, in [0, 1].
    """

    cluster: npt.NDArray[np.int64]
    cluster_visual: npt.NDArray[np.int64]
    cluster_audio: npt.NDArray[np.int64]
    confidence: FloatArray


class L3NetEmbedder:
    """The default plugin; see `visxp_search.embed.Embedder` for what its attributes mean."""

    def __init__(self, path: Path | None = None, *, device: str | None = None) -> None:
        checkpoint = load_checkpoint(path or DEFAULT_CHECKPOINT)
        architecture = checkpoint.networks.architecture
        self.checkpoint_id = checkpoint.checkpoint_id
        self.provenance = checkpoint.provenance
        self.specs: Mapping[str, VectorSpec] = {
            "visual": VectorSpec(architecture.visual.embedding, ("visual",)),
            "audio": VectorSpec(architecture.audio.embedding, ("audio",)),
            "joint": VectorSpec(architecture.joint, ("visual", "audio")),
        }
        self.frame_size = architecture.visual.frame_size
        self.sample_rate_hz = architecture.spectrogram.sample_rate_hz
        self._device = available_device(device)
        self._networks = checkpoint.networks.to(self._device)
        self._networks.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def embed(self, clips: Sequence[Clip]) -> Embeddings:
        """Embed clips in batches of at most `MAX_BATCH`."""
        parts = [self._embed_batch(clips[start : start + MAX_BATCH]) for start in range(0, len(clips), MAX_BATCH)]
        if not parts:
            raise ValueError("no clips to embed")
        return Embeddings(
            visual=np.concatenate([part.visual for part in parts]),
            audio=np.concatenate([part.audio for part in parts]),
            joint_visual=np.concatenate([part.joint_visual for part in parts]),
            joint_audio=np.concatenate([part.joint_audio for part in parts]),
        )

    @torch.inference_mode()
    def pseudo_labels(self, embeddings: Embeddings) -> PseudoLabels | None:
        """The clusters of embedded seconds, or None if this checkpoint was not trained by self-labelling."""
        networks = self._networks
        if (
            networks.clustering is None
            or networks.representation_visual is None
            or networks.representation_audio is None
        ):
            return None
        visual, audio = self._tensor(embeddings.visual), self._tensor(embeddings.audio)
        has_visual, has_audio = ~visual.isnan().any(dim=1), ~audio.isnan().any(dim=1)

        def tell(logits: Tensor, present: Tensor) -> tuple[npt.NDArray[np.int64], FloatArray]:
            """Best cluster and its probability; what a network says of NaN is masked."""
            best = logits.softmax(dim=2).max(dim=2)  # (B, n_heads, K) -> (B, n_heads)
            cluster = torch.where(present[:, None], best.indices, -1)
            return cluster.cpu().numpy(), torch.where(present[:, None], best.values, 0.0).cpu().numpy()

        cluster, confidence = tell(networks.clustering(visual, audio), has_visual & has_audio)
        return PseudoLabels(
            cluster=cluster,
            cluster_visual=tell(networks.representation_visual(visual), has_visual)[0],
            cluster_audio=tell(networks.representation_audio(audio), has_audio)[0],
            confidence=confidence,
        )

    def _embed_batch(self, clips: Sequence[Clip]) -> Embeddings:
        networks = self._networks
        has_visual = np.array([clip.has_visual for clip in clips])
        has_audio = np.array([clip.has_audio for clip in clips])
        visual, joint_visual = self._scatter(
            has_visual,
            lambda: networks.visual.embed(self._tensor(stack_frames(clips))),
            networks.joint_visual,
            "visual",
        )
        audio, joint_audio = self._scatter(
            has_audio,
            lambda: networks.audio.embed(networks.log_mel(self._tensor(stack_waveforms(clips)))),
            networks.joint_audio,
            "audio",
        )
        return Embeddings(visual=visual, audio=audio, joint_visual=joint_visual, joint_audio=joint_audio)

    def _scatter(
        self,
        present: np.ndarray[tuple[int], np.dtype[np.bool_]],
        embed: Callable[[], Tensor],
        joint_head: Callable[[Tensor], Tensor],
        name: str,
    ) -> tuple[FloatArray, FloatArray]:
        """Embed the rows that are present and put them among rows of NaN."""
        own = np.full((len(present), self.specs[name].length), np.nan, dtype=np.float32)
        joint = np.full((len(present), self.specs["joint"].length), np.nan, dtype=np.float32)
        if present.any():
            embedding = embed()
            own[present] = embedding.cpu().numpy()
            joint[present] = joint_head(embedding).cpu().numpy()
        return own, joint

    def _tensor(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(array).to(self._device)
