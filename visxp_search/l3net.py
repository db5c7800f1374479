"""Our encoders as an embedder: a checkpoint's networks applied to clips."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visxp_search.checkpoint import DEFAULT_CHECKPOINT, available_device, load_checkpoint
from visxp_search.clips import Clip, stack_frames, stack_waveforms
from visxp_search.embed import Embeddings, FloatArray, VectorSpec

MAX_BATCH = 64
"""Clips that pass through a network at a time; bounds memory for long queries."""


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
