"""Our encoders as an embedder: a checkpoint's networks applied to clips."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visxp_search.checkpoint import available_device, load_checkpoint
from visxp_search.checkpoint_config import DEFAULT_CHECKPOINT
from visxp_search.clips import Clip, stack_frames, stack_waveforms
from visxp_search.embed import Embeddings, FloatArray, PseudoLabels, VectorSpec
from visxp_search.encoders import convolve_in_bfloat16, fold_norms

MAX_BATCH = 64
"""Clips that are embedded at a time; bounds memory for long queries."""

CPU_PARTS = {"frames": 16, "waveforms": 8, "spectrograms": 64}
"""So many pass through their network at a time on a CPU: what lies between two layers then stays in its caches. The
recurrent layer is the one that gains by larger parts."""


class L3NetEmbedder:
    """See `visxp_search.embed.Embedder` for what its attributes mean."""

    def __init__(self, path: Path | None = None, *, device: str | None = None) -> None:
        checkpoint = load_checkpoint(path or DEFAULT_CHECKPOINT)
        architecture = checkpoint.networks.architecture
        self.checkpoint_id = checkpoint.checkpoint_id
        self.specs: Mapping[str, VectorSpec] = {
            "visual": VectorSpec(architecture.visual.embedding, ("visual",)),
            "audio": VectorSpec(architecture.audio.embedding, ("audio",)),
            "joint": VectorSpec(architecture.joint, ("visual", "audio")),
        }
        self.frame_size = architecture.visual.frame_size
        self.sample_rate_hz = architecture.spectrogram.sample_rate_hz
        self._device = available_device(device)
        has_bfloat16 = self._device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
        self._networks = checkpoint.networks.to(self._device)
        for encoder in (self._networks.visual, self._networks.audio):
            fold_norms(encoder)
            if has_bfloat16:  # where the processor computes in it
                convolve_in_bfloat16(encoder)
            encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @contextmanager
    def limit_threads(self, most: int) -> Iterator[None]:
        """Use no more threads of the CPU while the context lasts."""
        before = torch.get_num_threads()
        torch.set_num_threads(min(before, most))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @torch.inference_mode()
    def embed(self, clips: Sequence[Clip]) -> Embeddings:
        """Embed clips in batches of at most `MAX_BATCH`."""
        parts = [self._embed_batch(clips[start : start + MAX_BATCH]) for start in range(0, len(clips), MAX_BATCH)]
        if not parts:
            raise ValueError("no clips to embed")
        return Embeddings.joined(parts)

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

        def tell(logits: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
            """(B, n_heads) best cluster and its probability; what a network says of NaN is masked."""
            best = logits.softmax(dim=2).max(dim=2)  # (B, n_heads, K) -> (B, n_heads)
            return torch.where(present[:, None], best.indices, -1), torch.where(present[:, None], best.values, 0.0)

        by_picture = tell(networks.representation_visual(visual), has_visual)
        by_sound = tell(networks.representation_audio(audio), has_audio)
        together = tell(networks.clustering(visual, audio), has_visual & has_audio)
        lone = torch.where(has_visual[:, None], torch.stack(by_picture), torch.stack(by_sound))  # (2, B, n_heads)
        both = (has_visual & has_audio)[:, None]
        cluster, confidence = torch.where(both, together[0], lone[0].long()), torch.where(both, together[1], lone[1])
        return PseudoLabels(
            cluster=cluster.cpu().numpy(),
            cluster_visual=by_picture[0].cpu().numpy(),
            cluster_audio=by_sound[0].cpu().numpy(),
            confidence=confidence.cpu().numpy(),
        )

    def _embed_batch(self, clips: Sequence[Clip]) -> Embeddings:
        networks = self._networks
        has_visual = np.array([clip.has_visual for clip in clips])
        has_audio = np.array([clip.has_audio for clip in clips])
        visual, joint_visual = self._scatter(
            has_visual,
            lambda: self._in_parts("frames", networks.visual.embed, self._tensor(stack_frames(clips))),
            networks.joint_visual,
            "visual",
        )
        audio, joint_audio = self._scatter(
            has_audio,
            lambda: self._in_parts(
                "spectrograms",
                networks.audio.embed,
                self._in_parts("waveforms", networks.log_mel, self._tensor(stack_waveforms(clips))),
            ),
            networks.joint_audio,
            "audio",
        )
        return Embeddings(visual=visual, audio=audio, joint_visual=joint_visual, joint_audio=joint_audio)

    def _in_parts(self, kind: str, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """What a network makes of (B, ...) inputs, `CPU_PARTS` of them at a time; on a GPU all at once."""
        if self._device.type != "cpu":
            return network(inputs)
        return torch.cat([network(part) for part in torch.split(inputs, CPU_PARTS[kind])])

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
