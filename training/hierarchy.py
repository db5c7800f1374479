"""Hierarchy training: each modality learns where in the Poincaré ball the hierarchy of clusters puts a second.

The more complex variant of self-labelling. The clusters become leaves of a hyperbolic hierarchy
(`visxp_search.hierarchy`), and a second's *position* is the midpoint of the leaves, weighted by how probable each
cluster is for it: at a leaf if it is sure, between siblings if it wavers between them, near the middle of the ball if
it could be anything. These are continuous hierarchical pseudo-labels: a mistake between siblings costs little, one
between distant branches much, where to a plain label all mistakes are alike. They are found once, before the stage, so
that networks and labels cannot chase each other.

The layers that tell positions are left behind with the run; the encoders are what is kept. The clusters stay learned.

References:
    [long2023] Cross-modal Scalable Hyperbolic Hierarchical Clustering, ICCV 2023. Hierarchies of clusters as labels.
    [chami2020] From Trees to Continuous Embeddings and Back: Hyperbolic Hierarchical Clustering, 2020,
        arXiv:2010.00402.
    [ungar2008] A Gyrovector Space Approach to Hyperbolic Geometry, 2008: the midpoint.
"""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.avc import find_negatives
from training.config import HierarchyConfig
from training.distributed import Workers
from training.labelling import Embedded
from training.losses import contrastive_loss, correspondence_loss, pseudo_label_loss, weighted_sum
from training.pairs import Pairs, Rehearsal, Rows, plan_epoch
from training.selflabel import JOINT_TEMPERATURE, SelfLabelPass
from training.stage import (
    Progress,
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
from visxp_search.hierarchy import decode_tree, embed_leaves, widen_tree

FIRST_WEIGHTS = 0.1
"""Of the layers that tell positions, beside torch's own: training begins near the middle of the ball."""


class PositionNetwork(nn.Module):
    """Tells the position of a second by picture and sound together, and by each alone, as vectors at the origin."""

    def __init__(self, visual: int, audio: int, *, hidden: int, dimensions: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(visual + audio, hidden), nn.LayerNorm(hidden), nn.ReLU())
        self.together = nn.Linear(hidden, dimensions)
        self.visual = nn.Linear(visual, dimensions)
        self.audio = nn.Linear(audio, dimensions)
        with torch.no_grad():
            for last in (self.together, self.visual, self.audio):
                last.weight.mul_(FIRST_WEIGHTS)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """(B, D) and (B, D) embeddings of norm 1 of the same seconds -> (3, B, d) tangent vectors."""
        scaled = [embedding * math.sqrt(embedding.shape[1]) for embedding in (visual, audio)]  # components of about 1
        together = self.together(self.hidden(torch.cat(scaled, dim=1)))
        return torch.stack([together, self.visual(scaled[0]), self.audio(scaled[1])])


class HierarchyPass(nn.Module):
    """One forward pass: everything that the losses of this stage need, so that DDP sees a single call."""

    def __init__(self, networks: Networks, positions: PositionNetwork) -> None:
        super().__init__()
        self.labels = SelfLabelPass(networks)
        self.positions = positions

    def forward(self, frames: Tensor, spectrograms: Tensor, n_pairs: int) -> dict[str, Tensor]:
        """What `SelfLabelPass` gives, and (3, n_pairs, d) `positions`."""
        out: dict[str, Tensor] = self.labels(frames, spectrograms, n_pairs)
        return {**out, "positions": self.positions(out["visual"][:n_pairs], out["audio"][:n_pairs])}


def position_loss(tangents: Tensor, wanted: Tensor, *, radius: float) -> Tensor:
    """Mean hyperbolic distance of positions from those wanted, in units of the leaves' distance from the origin.

    Args:
        tangents: (..., B, d) vectors at the origin, as `PositionNetwork` gives them.
        wanted: (B, d) points of the Poincaré ball.
        radius: hyperbolic distance of the leaves from the origin.
    """
    import geoopt  # on first use: it takes a second to load

    ball = geoopt.PoincareBall()
    distance: Tensor = ball.dist(ball.expmap0(tangents.float()), wanted)
    return distance.mean() / radius


def place_leaves(prototypes: Tensor, *, radius: float, seed: int) -> Tensor:
    """(K, D) prototypes of norm 1, K >= 3 -> (K, d) leaves in the Poincaré ball, at hyperbolic distance `radius`."""
    return math.tanh(radius / 2) * embed_leaves(prototypes, seed=seed)


def place_seconds(probabilities: Tensor, leaves: Tensor) -> Tensor:
    """Positions of seconds: midpoints of leaves, [ungar2008], weighted by (B, K) probabilities -> (B, d)."""
    conformal = 2 / (1 - leaves.square().sum(dim=1))  # (K,)
    total = probabilities @ (conformal[:, None] * leaves)  # (B, K) @ (K, d) -> (B, d)
    middle = total / (probabilities @ (conformal - 1)[:, None])
    # Half of that vector in the sense of the ball: the point half as far from the origin.
    return middle / (1 + (1 - middle.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt())


def train_hierarchy(
    networks: Networks,
    pairs: Pairs,
    config: HierarchyConfig,
    *,
    rehearsal: Rehearsal | None,
    seed: int,
    run: Path,
    workers: Workers,
    progress: Progress,
) -> Networks:
    """Find the hierarchy of a checkpoint's clusters and learn positions, resuming from what is there.

    Args:
        networks: after self-labelling; not changed.
        pairs: the training data; held-out groups are not learned from.
        config: the settings.
        rehearsal: frames and sounds without a partner, or None.
        seed: of the hierarchy, weights, batches and augmentation.
        run: folder for settings, state and log (`hierarchy.*`), and the tree that was found (`hierarchy_tree.json`).
        workers: this process among those that train.
        progress: called with (what, steps done, steps in all).

    Returns:
        The trained networks, in evaluation mode, on the CPU.

    Raises:
        UsageError: If the networks have no clusters, or too few, or the run folder was begun with other settings.
    """
    rows, device = pairs.training_rows, workers.device
    if networks.clustering is None or networks.clustering.shape[1] < 3:
        raise UsageError(
            "hierarchy training needs a checkpoint with at least three clusters; run `visxp train selflabel` first"
        )
    workers.check_share(config.batches_per_step)
    keep_settings(run, "hierarchy", {"seed": seed, "pairs": len(rows), **dataclasses.asdict(config)})
    torch.manual_seed(seed)
    networks = copy.deepcopy(networks).to(device)
    anchors = take_anchors(networks, pairs, rehearsal, device=device)
    embedded = Embedded(
        visual=torch.from_numpy(anchors.visual[rows]).half(), audio=torch.from_numpy(anchors.audio[rows]).half()
    )
    leaves = place_leaves(find_prototypes(networks, embedded, device=device), radius=config.radius, seed=seed)
    labels, wanted_positions = label_seconds(networks, embedded, leaves, device=device)
    row_of = torch.full((len(pairs),), -1, dtype=torch.int64)
    row_of[torch.from_numpy(rows)] = torch.arange(len(rows))
    if workers.is_first:
        _write_tree(run / "hierarchy_tree.json", leaves)

    sizes = networks.visual.centre.numel(), networks.audio.centre.numel()
    positions = PositionNetwork(*sizes, hidden=config.hidden, dimensions=leaves.shape[1]).to(device)
    module = workers.wrap(HierarchyPass(networks, positions))

    def plan(epoch: int) -> Rows:
        files, per_step = pairs.files[rows], config.batches_per_step
        return plan_epoch(rows, files, batch_size=config.batch_size, batches_per_step=per_step, seed=seed, epoch=epoch)

    steps_per_epoch = len(plan(0))
    training = build_optimizer(networks, config, n_steps=steps_per_epoch * config.epochs, others=positions)
    parts = {
        "networks": networks,
        "positions": positions,
        "optimizer": training.optimizer,
        "schedule": training.schedule,
    }
    first_epoch = load_state(run / "hierarchy.pt", parts)

    for epoch in range(first_epoch, config.epochs):
        started, sums = time.monotonic(), dict.fromkeys(config.loss_weights, 0.0)
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
                at = row_of[torch.from_numpy(batch_rows)]
                wanted, places = labels[at].to(device), wanted_positions[at].to(device)
                allowed = find_negatives(pairs, batch_rows, hard=False).to(device)
                with workers.local_gradients(module, local=turn + 1 < len(own)):
                    with torch.autocast(device.type, torch.bfloat16):
                        out = module(batch.frames, batch.spectrograms, len(batch_rows))
                    by_visual = pseudo_label_loss(out["clusters_visual"], wanted)
                    by_audio = pseudo_label_loss(out["clusters_audio"], wanted)
                    losses = {
                        "hierarchy/position": position_loss(out["positions"], places, radius=config.radius),
                        "hierarchy/anchor": anchor_loss(out["visual"], out["audio"], batch),
                        "selflabel/clustering": pseudo_label_loss(out["clusters"], wanted),
                        "selflabel/representation": (by_visual + by_audio) / 2,
                        "avc/correspondence": correspondence_loss(out["logits"], allowed),
                        "avc/contrastive": contrastive_loss(
                            out["joint_visual"], out["joint_audio"], temperature=JOINT_TEMPERATURE, allowed=allowed
                        ),
                    }
                    loss = weighted_sum(losses, config.loss_weights)
                    (loss / len(own)).backward()  # type: ignore[no-untyped-call]
                for name in sums:
                    sums[name] += losses[name].item() / len(own)
            training.step(module)
            progress("hierarchy", epoch * steps_per_epoch + step + 1, config.epochs * steps_per_epoch)
        workers.average_buffers(networks)
        means = workers.mean({name: total / steps_per_epoch for name, total in sums.items()})
        if workers.is_first:
            log_row(run, "hierarchy", {"epoch": epoch + 1, "seconds": round(time.monotonic() - started, 1), **means})
            save_state(run / "hierarchy.pt", parts, epoch + 1)
        workers.wait()
    return networks.eval().cpu()


@torch.inference_mode()
def find_prototypes(networks: Networks, embedded: Embedded, *, device: torch.device) -> Tensor:
    """Means of both embeddings side by side over each cluster of the first head, less that of all seconds.

    Returns:
        (K, D_visual + D_audio) of norm 1.
    """
    sums, weights = [], []
    for (visual, audio), logits in _told(networks, embedded, device=device):
        plan = logits[:, 0].softmax(dim=1)  # (n, K)
        sums.append((plan.T @ torch.cat([visual, audio], dim=1)).cpu())  # (K, n) @ (n, D) -> (K, D)
        weights.append(plan.sum(dim=0).cpu())
    total, weight = torch.stack(sums).sum(dim=0), torch.stack(weights).sum(dim=0)
    return F.normalize(total / weight[:, None].clamp(min=1e-9) - total.sum(dim=0) / weight.sum(), dim=1)


@torch.inference_mode()
def label_seconds(
    networks: Networks, embedded: Embedded, leaves: Tensor, *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What the networks say of N seconds: (N, n_heads) clusters, and (N, d) positions by the first head."""
    labels, positions = [], []
    for _, logits in _told(networks, embedded, device=device):
        labels.append(logits.argmax(dim=2).cpu())
        positions.append(place_seconds(logits[:, 0].softmax(dim=1).cpu(), leaves))
    return torch.cat(labels), torch.cat(positions)


def _told(
    networks: Networks, embedded: Embedded, *, device: torch.device
) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
    """Blocks of embeddings with (n, n_heads, K) logits of their clusters."""
    if networks.clustering is None:
        raise AssertionError("the networks have no clustering network")
    networks.eval()
    for visual, audio in embedded.blocks(device):
        yield (visual, audio), networks.clustering(visual, audio)


def _write_tree(path: Path, leaves: Tensor) -> None:
    """The hierarchy for people: inner node -> children, leaves being clusters 0 to K - 1; and the leaves' places."""
    tree = widen_tree(*decode_tree(F.normalize(leaves, dim=1)))
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"tree": tree, "leaves": leaves.tolist()}) + "\n")
    partial.replace(path)
