"""What correspondence training and self-labelling share: networks to go on from, optimiser, batches and anchors.

References:
    [li2016] Learning without Forgetting, 2016, arXiv:1606.09282. The idea of the anchor: what the encoders knew before
        the stage is a target in it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import AvcConfig, HierarchyConfig, SelfLabelConfig
from training.distributed import Workers
from training.pairs import Pairs, Rehearsal, Rows, augment_batch, embed_frames, embed_waveforms
from visxp_search.checkpoint import Networks
from visxp_search.heads import HeadsConfig

Progress = Callable[[str, int, int], None]
FloatArray = npt.NDArray[np.float32]


def add_heads(networks: Networks, **wanted: int) -> Networks:
    """The networks with further heads (fields of `HeadsConfig`), untrained; all that was there is kept."""
    heads = replace(networks.architecture.heads or HeadsConfig(), **wanted)
    grown = Networks(replace(networks.architecture, heads=heads))
    own = grown.state_dict()
    kept = {name: value for name, value in networks.state_dict().items() if own[name].shape == value.shape}
    grown.load_state_dict(kept, strict=False)
    return grown


def build_optimizer(
    networks: Networks,
    config: AvcConfig | SelfLabelConfig | HierarchyConfig,
    *,
    n_steps: int,
    others: nn.Module | None = None,
) -> "Training":
    """AdamW with a rate for encoders and one for heads, weights decaying and biases not, on a one-cycle schedule.

    Args:
        networks: the encoders and heads.
        config: rates and decay.
        n_steps: of the schedule.
        others: a module of the stage's own, which learns at the rate of the heads.
    """
    encoders = [*networks.visual.parameters(), *networks.audio.parameters()]
    of_encoders = {id(parameter) for parameter in encoders}
    heads = [parameter for parameter in networks.parameters() if id(parameter) not in of_encoders]
    heads += list(others.parameters()) if others is not None else []
    groups, peaks = [], []
    for parameters, rate in ((encoders, config.encoder_learning_rate), (heads, config.learning_rate)):
        for decay in (config.weight_decay, 0.0):
            chosen = [p for p in parameters if (p.ndim > 1) == (decay > 0)]
            groups.append({"params": chosen, "weight_decay": decay, "lr": rate})
            peaks.append(rate)
    optimizer = torch.optim.AdamW(groups)
    return Training(optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=n_steps))


@dataclass(frozen=True)
class Training:
    """An optimiser and its schedule, which step together."""

    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.OneCycleLR

    def step(self, networks: nn.Module) -> None:
        """Clip gradients, change the weights, move the rate."""
        nn.utils.clip_grad_norm_(networks.parameters(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)


def set_training_mode(networks: Networks, *, freeze_norm: bool) -> None:
    """Heads learn with their own batch statistics; the encoders' statistics stay or follow, as wanted."""
    networks.train()
    if freeze_norm:
        networks.visual.eval()
        networks.audio.eval()


@dataclass(frozen=True)
class Anchors:
    """The embeddings that the encoders gave before the stage: what they are held to during it.

    Memory: 4 D bytes a row, so 2 GB a modality for 2 M pairs at D = 256.

    Attributes:
        visual: (N, D) of the pairs' frames.
        audio: (N, D) of the pairs' waveforms.
        lone_visual: (M, D) of frames without a partner.
        lone_audio: (M, D) of waveforms without a partner.
    """

    visual: FloatArray
    audio: FloatArray
    lone_visual: FloatArray
    lone_audio: FloatArray


def take_anchors(networks: Networks, pairs: Pairs, rehearsal: Rehearsal | None, *, device: torch.device) -> Anchors:
    """Embed everything once with the networks as they are."""
    every = np.arange(len(pairs))
    return Anchors(
        visual=embed_frames(networks, pairs.read_frames, every, device=device),
        audio=embed_waveforms(networks, pairs.read_waveforms, every, device=device),
        lone_visual=embed_frames(networks, rehearsal.read_frames, np.arange(rehearsal.n_frames), device=device)
        if rehearsal
        else np.zeros((0, networks.visual.centre.numel()), np.float32),
        lone_audio=embed_waveforms(networks, rehearsal.read_waveforms, np.arange(rehearsal.n_waveforms), device=device)
        if rehearsal
        else np.zeros((0, networks.audio.centre.numel()), np.float32),
    )


@dataclass(frozen=True)
class Batch:
    """B pairs followed by what is rehearsed, augmented, with the anchors of all.

    Attributes:
        rows: (B,) rows of the pairs.
        frames: (B + R, 3, S, S).
        spectrograms: (B + Q, n_mels, n_steps).
        anchor_visual: (B + R, D).
        anchor_audio: (B + Q, D).
    """

    rows: Rows
    frames: Tensor
    spectrograms: Tensor
    anchor_visual: Tensor
    anchor_audio: Tensor


def load_batch(
    pairs: Pairs,
    rows: Rows,
    rehearsal: Rehearsal | None,
    anchors: Anchors,
    networks: Networks,
    *,
    n_rehearsed: int,
    seed: tuple[int, ...],
    device: torch.device,
) -> Batch:
    """Read, augment and complete one batch; all randomness of its step follows from `seed`, that of dropout too."""
    random = np.random.default_rng(seed)
    torch.manual_seed(int(random.integers(2**62)))
    generator = torch.Generator(device).manual_seed(int(random.integers(2**62)))
    frames, waveforms = pairs.read_frames(rows), pairs.read_waveforms(rows)
    anchor_visual, anchor_audio = anchors.visual[rows], anchors.audio[rows]
    if rehearsal and n_rehearsed and rehearsal.n_frames:
        chosen = random.integers(rehearsal.n_frames, size=n_rehearsed)
        frames = np.concatenate([frames, rehearsal.read_frames(chosen)])
        anchor_visual = np.concatenate([anchor_visual, anchors.lone_visual[chosen]])
    if rehearsal and n_rehearsed and rehearsal.n_waveforms:
        chosen = random.integers(rehearsal.n_waveforms, size=n_rehearsed)
        waveforms = np.concatenate([waveforms, rehearsal.read_waveforms(chosen)])
        anchor_audio = np.concatenate([anchor_audio, anchors.lone_audio[chosen]])
    pictures, spectrograms = augment_batch(frames, waveforms, networks, generator=generator)
    return Batch(
        rows=rows,
        frames=pictures,
        spectrograms=spectrograms,
        anchor_visual=torch.from_numpy(anchor_visual).to(device),
        anchor_audio=torch.from_numpy(anchor_audio).to(device),
    )


def anchor_loss(visual: Tensor, audio: Tensor, batch: Batch) -> Tensor:
    """Mean of 1 - cosine of the embeddings to their anchors, both modalities; the idea of [li2016]."""
    kept_visual = 1 - F.cosine_similarity(visual, batch.anchor_visual, dim=1).mean()
    return (kept_visual + 1 - F.cosine_similarity(audio, batch.anchor_audio, dim=1).mean()) / 2


def share_of(plan: Rows, workers: Workers) -> list[tuple[int, Rows]]:
    """This process's batches of a step, (batches_per_step, B) -> [(number in the step, (B,))]."""
    return [(number, plan[number]) for number in range(workers.rank, len(plan), workers.world)]
