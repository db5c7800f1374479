"""Self-labelling: clusters become labels, labels are learned, and what was learned makes better clusters.

The combined objective has three named terms (and, so that nothing learned before is lost, those of correspondence):

- `selflabel/clustering`: the clustering network, which reads picture and sound together, tells the pseudo-label;
- `selflabel/representation`: each modality alone tells it too, which brings the encoders into line with the clusters;
- `selflabel/regularisation`: dimensions of an embedding that say the same are penalised.

References:
    [asano2020] Self-labelling via simultaneous clustering and representation learning, 2020, arXiv:1911.05371.
    [asano2020b] Labelling unlabelled videos from scratch with multi-modal self-supervision, 2020, arXiv:2006.13662.
"""

import dataclasses
import logging
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from training.avc import CorrespondencePass, find_negatives
from training.config import SelfLabelConfig
from training.distributed import Workers
from training.labelling import embed_pairs, first_labels, labelling_epochs, next_labels, wanted_sizes
from training.losses import contrastive_loss, correspondence_loss, pseudo_label_loss, redundancy_loss, weighted_sum
from training.pairs import Pairs, Rehearsal, Rows, plan_epoch
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
from visxp_search.errors import UsageError

JOINT_TEMPERATURE = 0.1
log = logging.getLogger(__name__)


class SelfLabelPass(nn.Module):
    """One forward pass: everything that the losses of this stage need, so that DDP sees a single call."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.correspondence = CorrespondencePass(networks)

    def forward(self, frames: Tensor, spectrograms: Tensor, n_pairs: int) -> dict[str, Tensor]:
        """What `CorrespondencePass` gives, and (n_pairs, n_heads, K) logits of the clusters by all three networks."""
        networks = self.correspondence.networks
        if not (networks.clustering and networks.representation_visual and networks.representation_audio):
            raise AssertionError("the networks have no clustering heads")
        out: dict[str, Tensor] = self.correspondence(frames, spectrograms, n_pairs)
        visual, audio = out["visual"][:n_pairs], out["audio"][:n_pairs]
        return {
            **out,
            "clusters": networks.clustering(visual, audio),
            "clusters_visual": networks.representation_visual(visual),
            "clusters_audio": networks.representation_audio(audio),
        }


class Labels:
    """The pseudo-labels of all pairs, (N, n_heads) int64, -1 where a pair has none; kept in the stage's state."""

    def __init__(self, n_pairs: int, n_heads: int) -> None:
        self.values = torch.full((n_pairs, n_heads), -1, dtype=torch.int64)

    def state_dict(self) -> dict[str, Tensor]:
        """For `save_state`."""
        return {"values": self.values.int()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From `load_state`."""
        self.values = state["values"].long()


def train_selflabel(
    networks: Networks,
    pairs: Pairs,
    config: SelfLabelConfig,
    *,
    rehearsal: Rehearsal | None,
    seed: int,
    run: Path,
    workers: Workers,
    progress: Progress,
) -> Networks:
    """Label and learn in turns, saving after each epoch and resuming from what is there.

    Args:
        networks: after correspondence training; not changed.
        pairs: the training data; held-out groups are not learned from.
        config: the settings.
        rehearsal: frames and sounds without a partner, or None.
        seed: of weights, labels, batches and augmentation.
        run: folder for settings, state and logs (`selflabel.*`, and a row a labelling in `selflabel_rounds.csv`).
        workers: this process among those that train.
        progress: called with (what, steps done, steps in all).

    Returns:
        The trained networks, in evaluation mode, on the CPU.

    Raises:
        UsageError: If the networks have no fusion network, the run folder was begun with other settings, or there are
            fewer training pairs than clusters.
    """
    rows, device = pairs.training_rows, workers.device
    if networks.fusion is None:
        raise UsageError("self-labelling goes on from a checkpoint with a fusion network; run `visxp train avc` first")
    if len(rows) < config.n_clusters:
        raise UsageError(f"{len(rows)} training pairs cannot fill {config.n_clusters} clusters; set n_clusters lower")
    workers.check_share(config.batches_per_step)
    keep_settings(run, "selflabel", {"seed": seed, "pairs": len(rows), **dataclasses.asdict(config)})
    torch.manual_seed(seed)
    shapes = {"n_heads": config.n_heads, "n_clusters": config.n_clusters, "cluster_hidden": config.cluster_hidden}
    networks = add_heads(networks, **shapes).to(device)
    anchors = take_anchors(networks, pairs, rehearsal, device=device)
    module = workers.wrap(SelfLabelPass(networks))
    sizes, labels = wanted_sizes(config, seed=seed), Labels(len(pairs), config.n_heads)

    def plan(epoch: int) -> Rows:
        files, per_step = pairs.files[rows], config.batches_per_step
        return plan_epoch(rows, files, batch_size=config.batch_size, batches_per_step=per_step, seed=seed, epoch=epoch)

    steps_per_epoch = len(plan(0))
    training = build_optimizer(networks, config, n_steps=steps_per_epoch * config.epochs)
    parts = {
        "networks": networks,
        "optimizer": training.optimizer,
        "schedule": training.schedule,
        "labels": labels,
    }
    first_epoch = load_state(run / "selflabel.pt", parts)

    for epoch in range(first_epoch, config.epochs):
        started, sums = time.monotonic(), dict.fromkeys(config.loss_weights, 0.0)
        if epoch in labelling_epochs(config):
            if workers.is_first:
                labels.values[rows] = label_pairs(
                    networks,
                    pairs,
                    rows,
                    sizes,
                    labels.values[rows],
                    config,
                    epoch=epoch,
                    seed=seed,
                    run=run,
                    device=device,
                )
            workers.share(labels.values)
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
                wanted = labels.values[batch_rows].to(device)
                allowed = find_negatives(pairs, batch_rows, hard=False).to(device)
                with workers.local_gradients(module, local=turn + 1 < len(own)):
                    with torch.autocast(device.type, torch.bfloat16):
                        out = module(batch.frames, batch.spectrograms, len(batch_rows))
                    by_visual = pseudo_label_loss(out["clusters_visual"], wanted)
                    by_audio = pseudo_label_loss(out["clusters_audio"], wanted)
                    losses = {
                        "selflabel/clustering": pseudo_label_loss(out["clusters"], wanted),
                        "selflabel/representation": (by_visual + by_audio) / 2,
                        "selflabel/regularisation": (redundancy_loss(out["visual"]) + redundancy_loss(out["audio"]))
                        / 2,
                        "selflabel/anchor": anchor_loss(out["visual"], out["audio"], batch),
                        "avc/correspondence": correspondence_loss(out["logits"], allowed),
                        "avc/contrastive": contrastive_loss(
                            out["joint_visual"], out["joint_audio"], temperature=JOINT_TEMPERATURE, allowed=allowed
                        ),
                    }
                    loss = weighted_sum(losses, config.loss_weights)
                    (loss / len(own)).backward()  # type: ignore[no-untyped-call]
                for name in sums:
                    sums[name] += losses[name].item() / len(own)
            training.step(networks)
            progress("selflabel", epoch * steps_per_epoch + step + 1, config.epochs * steps_per_epoch)
        workers.average_buffers(networks)
        means = workers.mean({name: total / steps_per_epoch for name, total in sums.items()})
        if workers.is_first:
            log_row(run, "selflabel", {"epoch": epoch + 1, "seconds": round(time.monotonic() - started, 1), **means})
            save_state(run / "selflabel.pt", parts, epoch + 1)
        workers.wait()
    return networks.eval().cpu()


def label_pairs(
    networks: Networks,
    pairs: Pairs,
    rows: Rows,
    sizes: list[Tensor],
    previous: Tensor,
    config: SelfLabelConfig,
    *,
    epoch: int,
    seed: int,
    run: Path,
    device: torch.device,
) -> Tensor:
    """(R, n_heads) labels of the given rows; logs the round and warns of collapse."""
    embedded = embed_pairs(networks, pairs, rows, device=device)
    if epoch == 0:
        labels, done = first_labels(embedded, sizes, seed=seed, device=device)
    else:
        labels, done = next_labels(networks, embedded, sizes, previous, config, device=device)
    log_row(run, "selflabel_rounds", {"epoch": epoch, **dataclasses.asdict(done)})
    for alarm in done.alarms():
        log.warning("self-labelling before epoch %d: %s", epoch + 1, alarm)
    return labels
