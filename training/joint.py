"""The heads on pairs, learned anew on encoders that stay as they are: the joint space and the fusion network.

The stages before change the encoders, a picture and a sound at a time, and can afford few passes over the pairs. With
the encoders at rest, pairs are embedded a few times over, each time changed at random (views), and the heads learn from
embeddings: thousands of steps in a minute. Groups of footage have from one to hundreds of seconds, so batches draw
groups, and of each a random second in random views; seconds drawn evenly would be those of a few groups.

References:
    [arandjelovic2017] Look, Listen and Learn, 2017, arXiv:1705.08168: what the fusion network learns.
    [oord2018] Representation Learning with Contrastive Predictive Coding, 2018, arXiv:1807.03748: the joint space.
"""

import copy
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.avc import find_negatives, measure_held_out
from training.config import JointConfig
from training.distributed import Workers
from training.losses import contrastive_loss, correspondence_loss, weighted_sum
from training.pairs import BLOCK_ROWS, Pairs, Rows, augment_batch, embed_frames, embed_waveforms
from training.stage import Progress
from training.state import keep_settings, load_state, log_row, save_state
from visxp_search.checkpoint import Networks
from visxp_search.errors import UsageError
from visxp_search.heads import FusionNetwork, JointHead

FloatArray = npt.NDArray[np.float32]


def train_joint(
    networks: Networks,
    pairs: Pairs,
    config: JointConfig,
    *,
    seed: int,
    run: Path,
    workers: Workers,
    progress: Progress,
) -> Networks:
    """Train joint heads and fusion network from the beginning, saving after each epoch and resuming from there.

    The heads are small: of several processes the first trains them, and the others wait and return what they had.

    Args:
        networks: with a fusion network; not changed.
        pairs: the training data; held-out groups are not learned from.
        config: the settings.
        seed: of weights, views and batches.
        run: folder for settings, views, state and logs (`joint.*`, `joint_view_*`).
        workers: this process among those that train.
        progress: called with (what, steps done, steps in all).

    Returns:
        Networks with new heads, in evaluation mode, on the CPU.

    Raises:
        UsageError: If there is no fusion network, the run folder was begun with other settings or the data are too few.
    """
    rows, device = pairs.training_rows, workers.device
    if networks.fusion is None:
        raise UsageError("the joint space goes on from a checkpoint with a fusion network; run `visxp train avc` first")
    if len(np.unique(pairs.groups[rows])) < 2:
        raise UsageError("the training pairs are of one group; negatives need another")
    keep_settings(run, "joint", {"seed": seed, "pairs": len(rows), **dataclasses.asdict(config)})
    if workers.is_first:
        networks = copy.deepcopy(networks).to(device)
        place: dict[str, Any] = {"seed": seed, "run": run, "device": device, "progress": progress}
        visual, audio = _embed_views(networks, pairs, rows, config, **place)
        _fit_heads(networks, pairs, rows, visual, audio, config, **place)
    workers.wait()
    return networks.eval().cpu()


def draw_groups(groups: npt.NDArray[np.str_], *, batch_size: int, seed: tuple[int, int]) -> Rows:
    """Rows in batches of different groups, as many in all as there are rows.

    Args:
        groups: (R,) group of each row.
        batch_size: groups a batch; fewer if there are not so many.
        seed: decides the draw.

    Returns:
        (n_batches, B) indices into `groups`: random groups, and of each a random row.
    """
    random = np.random.default_rng(seed)
    _, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order, starts = np.argsort(member, kind="stable"), np.cumsum(counts) - counts
    size = min(batch_size, len(counts))
    n_batches = max(1, len(groups) // size)
    chosen = np.stack([random.choice(len(counts), size, replace=False) for _ in range(n_batches)])
    rows: Rows = order[starts[chosen] + random.integers(counts[chosen])]
    return rows


def _embed_views(
    networks: Networks,
    pairs: Pairs,
    rows: Rows,
    config: JointConfig,
    *,
    seed: int,
    run: Path,
    device: torch.device,
    progress: Progress,
) -> tuple[FloatArray, FloatArray]:
    """(V + 1, R, D) embeddings of pictures and of sounds: as they are, and V times changed at random."""
    visual, audio = [], []
    for view in range(config.views + 1):
        path = run / f"joint_view_{view}.npy"
        if not path.is_file():
            progress("joint, views", view, config.views + 1)
            embedded = _embed_view(networks, pairs, rows, view=view, seed=seed, device=device)
            with path.with_suffix(".partial").open("wb") as stream:
                np.save(stream, embedded)
            os.replace(path.with_suffix(".partial"), path)
        embedded = np.load(path, allow_pickle=False)
        if len(embedded) != len(rows):
            raise UsageError(f"{path} is of other pairs; delete it or take another --run folder")
        visual.append(embedded[:, : networks.visual.centre.numel()])
        audio.append(embedded[:, networks.visual.centre.numel() :])
    return np.stack(visual), np.stack(audio)


@torch.inference_mode()
def _embed_view(
    networks: Networks, pairs: Pairs, rows: Rows, *, view: int, seed: int, device: torch.device
) -> FloatArray:
    """(R, D + D) embeddings of picture and sound side by side; view 0 changes nothing."""
    networks.eval()
    if view == 0:
        visual = embed_frames(networks, pairs.read_frames, rows, device=device)
        return np.concatenate([visual, embed_waveforms(networks, pairs.read_waveforms, rows, device=device)], axis=1)
    blocks = []
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        random = np.random.default_rng((seed, view, start))
        generator = torch.Generator(device).manual_seed(int(random.integers(2**62)))
        frames, waveforms = pairs.read_frames(block), pairs.read_waveforms(block)
        pictures, spectrograms = augment_batch(frames, waveforms, networks, generator=generator)
        both = [networks.visual.embed(pictures), networks.audio.embed(spectrograms)]
        blocks.append(torch.cat(both, dim=1).cpu().numpy())
    return np.concatenate(blocks)


def _fit_heads(
    networks: Networks,
    pairs: Pairs,
    rows: Rows,
    visual: FloatArray,
    audio: FloatArray,
    config: JointConfig,
    *,
    seed: int,
    run: Path,
    device: torch.device,
    progress: Progress,
) -> None:
    """Replace the heads on pairs in `networks` by fresh ones and train them."""
    architecture = networks.architecture
    if architecture.heads is None:
        raise AssertionError("networks with a fusion network say what heads they have")
    n_visual, n_audio = visual.shape[2], audio.shape[2]
    torch.manual_seed(seed)
    networks.joint_visual = JointHead(n_visual, architecture.joint).to(device)
    networks.joint_audio = JointHead(n_audio, architecture.joint).to(device)
    networks.fusion = FusionNetwork(n_visual, n_audio, architecture.heads.fusion_hidden).to(device)
    heads = nn.ModuleList([networks.joint_visual, networks.joint_audio, networks.fusion])
    groups = pairs.groups[rows]
    steps = len(draw_groups(groups, batch_size=config.batch_size, seed=(seed, 0)))
    optimizer = torch.optim.AdamW(heads.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps * config.epochs)
    parts = {"heads": heads, "optimizer": optimizer, "schedule": schedule}
    for epoch in range(load_state(run / "joint.pt", parts), config.epochs):
        started, sums = time.monotonic(), dict.fromkeys(config.loss_weights, 0.0)
        heads.train()
        random = np.random.default_rng((seed, epoch, 1))
        torch.manual_seed(int(random.integers(2**62)))  # of dropout
        for batch in draw_groups(groups, batch_size=config.batch_size, seed=(seed, epoch)):
            v, a = (_pick(views, batch, random).to(device) for views in (visual, audio))
            allowed = find_negatives(pairs, rows[batch], hard=False).to(device)
            losses = {
                "avc/correspondence": correspondence_loss(networks.fusion(v, a), allowed),
                "avc/contrastive": contrastive_loss(
                    networks.joint_visual(v), networks.joint_audio(a), temperature=config.temperature, allowed=allowed
                ),
            }
            weighted_sum(losses, config.loss_weights).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            for name in sums:
                sums[name] += losses[name].item() / steps
        heads.eval()
        progress("joint", epoch + 1, config.epochs)
        held_out = measure_held_out(networks, pairs, seed=seed, device=device)
        seconds = round(time.monotonic() - started, 1)
        log_row(run, "joint", {"epoch": epoch + 1, "seconds": seconds, **sums, "held_out/accuracy": held_out})
        save_state(run / "joint.pt", parts, epoch + 1)


def _pick(views: FloatArray, rows: Rows, random: np.random.Generator) -> Tensor:
    """(B, D) each row in a random one of (V, R, D) views."""
    return torch.from_numpy(views[random.integers(len(views), size=len(rows)), rows])
