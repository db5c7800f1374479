"""Audio-visual correspondence: do this frame and this sound belong to the same second?

Positives are the frame and the sound of one second. Negatives are all other pairs of the batch that come from another
group ([arandjelovic2017] draws one), with `hard_negatives` also another second of the same video. In the same pass two
projections bring both modalities into the joint space, so that a sound can find pictures.

References:
    [arandjelovic2017] Look, Listen and Learn, 2017, arXiv:1705.08168.
    [korbar2018] Cooperative Learning of Audio and Video Models from Self-Supervised Synchronization, 2018,
        arXiv:1807.00230: hard negatives of the same video.
"""

import dataclasses
import math
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.config import AvcConfig
from training.distributed import Workers
from training.losses import contrastive_loss, correspondence_loss, weighted_sum
from training.pairs import Pairs, Rehearsal, Rows, embed_frames, embed_waveforms, plan_epoch
from training.stage import (
    Progress,
    add_heads,
    anchor_loss,
    build_optimizer,
    load_batch,
    set_training_mode,
    share_of,
    take_anchors,
)
from training.state import keep_settings, load_state, log_row, save_state
from visxp_search.checkpoint import Networks


class CorrespondencePass(nn.Module):
    """One forward pass: everything that the losses of this stage need, so that DDP sees a single call."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, frames: Tensor, spectrograms: Tensor, n_pairs: int) -> dict[str, Tensor]:
        """Embeddings of all rows; logits and joint embeddings of the first `n_pairs`."""
        if self.networks.fusion is None:
            raise AssertionError("the networks have no fusion network")
        visual, audio = self.networks.visual.embed(frames), self.networks.audio.embed(spectrograms)
        return {
            "visual": visual,
            "audio": audio,
            "logits": self.networks.fusion(visual[:n_pairs], audio[:n_pairs]),
            "joint_visual": self.networks.joint_visual(visual[:n_pairs]),
            "joint_audio": self.networks.joint_audio(audio[:n_pairs]),
        }


def train_avc(
    networks: Networks,
    pairs: Pairs,
    config: AvcConfig,
    *,
    rehearsal: Rehearsal | None,
    seed: int,
    run: Path,
    workers: Workers,
    progress: Progress,
) -> Networks:
    """Train encoders, fusion network and joint heads, saving after each epoch and resuming from what is there.

    Args:
        networks: to go on from; not changed.
        pairs: the training data; held-out groups are not learned from.
        config: the settings.
        rehearsal: frames and sounds without a partner, or None.
        seed: of weights, batches and augmentation.
        run: folder for settings, state and logs (`avc.*`).
        workers: this process among those that train.
        progress: called with (what, steps done, steps in all).

    Returns:
        The trained networks, in evaluation mode, on the CPU.

    Raises:
        UsageError: If the run folder was begun with other settings or the data are too few.
    """
    rows, device = pairs.training_rows, workers.device
    workers.check_share(config.batches_per_step)
    keep_settings(run, "avc", {"seed": seed, "pairs": len(rows), **dataclasses.asdict(config)})
    torch.manual_seed(seed)
    networks = add_heads(networks, fusion_hidden=config.fusion_hidden).to(device)
    anchors = take_anchors(networks, pairs, rehearsal, device=device)
    module = workers.wrap(CorrespondencePass(networks))

    def plan(epoch: int) -> Rows:
        return plan_epoch(
            rows,
            pairs.files[rows],
            batch_size=config.batch_size,
            batches_per_step=config.batches_per_step,
            seed=seed,
            epoch=epoch,
            same_video=config.hard_negatives,
        )

    steps_per_epoch = len(plan(0))
    training = build_optimizer(networks, config, n_steps=steps_per_epoch * config.epochs)
    parts = {"networks": networks, "optimizer": training.optimizer, "schedule": training.schedule}
    first_epoch = load_state(run / "avc.pt", parts)

    for epoch in range(first_epoch, config.epochs):
        started, sums = time.monotonic(), dict.fromkeys([*config.loss_weights, "avc/accuracy"], 0.0)
        set_training_mode(networks, freeze_norm=config.freeze_norm)
        for step, batches in enumerate(plan(epoch)):
            own = share_of(batches, workers)
            for turn, (number, batch_rows) in enumerate(own):
                batch = load_batch(
                    pairs,
                    batch_rows,
                    rehearsal,
                    anchors,
                    networks,
                    n_rehearsed=config.rehearsal,
                    seed=(seed, epoch, step, number),
                    device=device,
                )
                allowed = find_negatives(pairs, batch_rows, hard=config.hard_negatives).to(device)
                with workers.local_gradients(module, local=turn + 1 < len(own)):
                    with torch.autocast(device.type, torch.bfloat16):
                        out = module(batch.frames, batch.spectrograms, len(batch_rows))
                    losses = {
                        "avc/correspondence": correspondence_loss(out["logits"], allowed),
                        "avc/contrastive": contrastive_loss(
                            out["joint_visual"], out["joint_audio"], temperature=config.temperature, allowed=allowed
                        ),
                        "avc/anchor": anchor_loss(out["visual"], out["audio"], batch),
                    }
                    loss = weighted_sum(losses, config.loss_weights)
                    (loss / len(own)).backward()  # type: ignore[no-untyped-call]
                for name in config.loss_weights:
                    sums[name] += losses[name].item() / len(own)
                sums["avc/accuracy"] += balanced_accuracy(out["logits"].detach(), allowed) / len(own)
            training.step(networks)
            progress("avc", epoch * steps_per_epoch + step + 1, config.epochs * steps_per_epoch)
        workers.average_buffers(networks)
        means = workers.mean({name: total / steps_per_epoch for name, total in sums.items()})
        if workers.is_first:
            held_out = measure_held_out(networks, pairs, seed=seed, device=device)
            seconds = round(time.monotonic() - started, 1)
            log_row(run, "avc", {"epoch": epoch + 1, "seconds": seconds, **means, "held_out/accuracy": held_out})
            save_state(run / "avc.pt", parts, epoch + 1)
        workers.wait()
    return networks.eval().cpu()


def find_negatives(pairs: Pairs, rows: Rows, *, hard: bool) -> Tensor:
    """(B, B) bool: which picture (row) and sound (column) certainly do not belong together.

    Those of different groups; with `hard` also those of different seconds of the same video. Seconds of different
    videos of one group may be the same footage, so they are neither.
    """
    groups, files, seconds = pairs.groups[rows], pairs.files[rows], pairs.seconds[rows]
    allowed: npt.NDArray[np.bool_] = groups[:, None] != groups[None]
    if hard:
        allowed |= (files[:, None] == files[None]) & (seconds[:, None] != seconds[None])
    return torch.from_numpy(allowed)


def balanced_accuracy(logits: Tensor, allowed: Tensor) -> float:
    """Mean of the shares of positives (diagonal) and of allowed negatives that (B, B) logits tell rightly."""
    positives = (logits.diagonal() > 0).float().mean()
    return float((positives + (logits[allowed] <= 0).float().mean()) / 2)


@torch.inference_mode()
def measure_held_out(networks: Networks, pairs: Pairs, *, seed: int, device: torch.device) -> float:
    """Balanced accuracy on held-out pairs, one at a random place of each group; NaN if there are not two groups."""
    rows = np.flatnonzero(pairs.held_out)
    random = np.random.default_rng(seed)
    members = [rows[pairs.groups[rows] == group] for group in np.unique(pairs.groups[rows])]
    chosen = np.array([random.choice(member) for member in members], dtype=np.int64)
    if len(chosen) < 2 or networks.fusion is None:
        return math.nan
    visual = torch.from_numpy(embed_frames(networks, pairs.read_frames, chosen, device=device)).to(device)
    audio = torch.from_numpy(embed_waveforms(networks, pairs.read_waveforms, chosen, device=device)).to(device)
    return balanced_accuracy(networks.fusion(visual, audio), find_negatives(pairs, chosen, hard=False).to(device))
