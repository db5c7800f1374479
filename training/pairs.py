"""What the stages after the warm start learn from: pairs, a frame and the sound of the same second.

Pairs come from a corpus (memory-mapped arrays) or from shards (read by offset); both give any rows at any time, so an
epoch is a true shuffle and a resumed run sees what it would have seen. `plan_epoch` says which rows make which batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.augment import augment_frames, augment_spectrograms, augment_waveforms
from training.corpus import Examples, match_pairs
from visxp_search.checkpoint import Networks
from visxp_search.encoders import Encoder
from visxp_search.errors import UsageError

Rows = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Reader = Callable[[Rows], npt.NDArray[np.generic]]
BLOCK_ROWS = 256
"""Rows that are read and embedded at a time."""


@dataclass(frozen=True)
class Pairs:
    """N seconds that have a frame and a sound.

    Attributes:
        files: (N,) name of the video.
        seconds: (N,) t.
        groups: (N,) videos of one group are versions of the same footage.
        labels: (N,) for evaluation only; empty where unknown.
        held_out: (N,) whether the group is kept for evaluation.
        read_frames: rows -> (R, 3, S, S) uint8.
        read_waveforms: rows -> (R, sample_rate_hz) int16.
    """

    files: npt.NDArray[np.str_]
    seconds: npt.NDArray[np.int32]
    groups: npt.NDArray[np.str_]
    labels: npt.NDArray[np.str_]
    held_out: npt.NDArray[np.bool_]
    read_frames: Reader
    read_waveforms: Reader

    def __len__(self) -> int:
        return len(self.files)

    @property
    def training_rows(self) -> Rows:
        """Rows that may be learned from.

        Raises:
            UsageError: If there are none.
        """
        rows = np.flatnonzero(~self.held_out)
        if not len(rows):
            raise UsageError("there are no training pairs; the data need videos with picture and sound")
        return rows


@dataclass(frozen=True)
class Rehearsal:
    """Frames and sounds that have no partner: not learned from, but not to be forgotten either.

    Attributes:
        n_frames: how many frames there are.
        n_waveforms: how many waveforms.
        read_frames: rows -> (R, 3, S, S) uint8.
        read_waveforms: rows -> (R, sample_rate_hz) int16.
    """

    n_frames: int
    n_waveforms: int
    read_frames: Reader
    read_waveforms: Reader


def pairs_of_corpus(visual: Examples, audio: Examples) -> tuple[Pairs, Rehearsal]:
    """The pairs of a corpus, and its training photographs and sounds as what is rehearsed."""
    first, second = match_pairs(visual, audio)
    frames, waveforms = visual.inputs, audio.inputs
    lone_frames = np.flatnonzero(~visual.held_out & ~visual.is_video)
    lone_waveforms = np.flatnonzero(~audio.held_out & ~audio.is_video)
    pairs = Pairs(
        files=visual.files[first],
        seconds=visual.seconds[first],
        groups=visual.groups[first],
        labels=visual.labels[first],
        held_out=visual.held_out[first],
        read_frames=lambda rows: np.asarray(frames[first[rows]]),
        read_waveforms=lambda rows: np.asarray(waveforms[second[rows]]),
    )
    rehearsal = Rehearsal(
        n_frames=len(lone_frames),
        n_waveforms=len(lone_waveforms),
        read_frames=lambda rows: np.asarray(frames[lone_frames[rows]]),
        read_waveforms=lambda rows: np.asarray(waveforms[lone_waveforms[rows]]),
    )
    return pairs, rehearsal


def plan_epoch(
    rows: Rows,
    files: npt.NDArray[np.str_],
    *,
    batch_size: int,
    batches_per_step: int,
    seed: int,
    epoch: int,
    same_video: bool = False,
) -> Rows:
    """Which rows make which batch of an epoch.

    Args:
        rows: (R,) rows to shuffle.
        files: (R,) the video of each.
        batch_size: rows a batch; smaller if there are not so many rows.
        batches_per_step: batches whose gradients are averaged into one step.
        seed: with `epoch`, decides the order.
        epoch: from 0.
        same_video: keep two seconds of a video next to each other, so that each batch has hard negatives.

    Returns:
        (n_steps, batches_per_step, batch_size) rows; what does not fill a step is left out this time.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(rows))
    if same_video:
        order = order[np.argsort(files[order], kind="stable")]  # videos together, their seconds shuffled
        couples = [order[start : start + 2] for start in range(0, len(order) - 1, 2)]
        order = np.concatenate([couples[index] for index in random.permutation(len(couples))])
    batch_size = min(batch_size, len(order) // batches_per_step)
    if batch_size < 2:
        raise UsageError(f"{len(rows)} training pairs are too few for {batches_per_step} batches of at least 2")
    per_step = batch_size * batches_per_step
    n_steps = len(order) // per_step
    return rows[order[: n_steps * per_step]].reshape(n_steps, batches_per_step, batch_size)


def augment_batch(
    frames: npt.NDArray[np.generic],
    waveforms: npt.NDArray[np.generic],
    networks: Networks,
    *,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Frames and spectrograms as the encoders take them, changed at random, on the generator's device."""
    pictures = augment_frames(
        torch.from_numpy(np.ascontiguousarray(frames)).to(generator.device),
        size=networks.architecture.visual.frame_size,
        generator=generator,
    )
    sounds = torch.from_numpy(np.ascontiguousarray(waveforms)).to(generator.device).float() / 32768
    sounds = augment_waveforms(sounds, generator=generator)
    return pictures, augment_spectrograms(networks.log_mel(sounds), generator=generator)


def plain_frames(networks: Networks, read: Reader, rows: Rows, *, device: torch.device) -> Iterator[Tensor]:
    """Frames as they are, in blocks of (at most `BLOCK_ROWS`, 3, S, S) float32 at the encoder's size."""
    size = networks.architecture.visual.frame_size
    for start in range(0, len(rows), BLOCK_ROWS):
        frames = torch.from_numpy(np.ascontiguousarray(read(rows[start : start + BLOCK_ROWS]))).to(device).float()
        yield torch.nn.functional.interpolate(
            frames, size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )


def plain_spectrograms(networks: Networks, read: Reader, rows: Rows, *, device: torch.device) -> Iterator[Tensor]:
    """Spectrograms of waveforms as they are, in blocks of (at most `BLOCK_ROWS`, n_mels, n_steps)."""
    for start in range(0, len(rows), BLOCK_ROWS):
        waveforms = torch.from_numpy(np.ascontiguousarray(read(rows[start : start + BLOCK_ROWS]))).to(device)
        yield networks.log_mel(waveforms.float() / 32768)


@torch.inference_mode()
def embed_frames(networks: Networks, read: Reader, rows: Rows, *, device: torch.device) -> FloatArray:
    """(R, D) embeddings of frames as they are."""
    blocks = plain_frames(networks, read, rows, device=device)
    return _embed_blocks(networks.eval().visual, blocks)


@torch.inference_mode()
def embed_waveforms(networks: Networks, read: Reader, rows: Rows, *, device: torch.device) -> FloatArray:
    """(R, D) embeddings of waveforms as they are."""
    blocks = plain_spectrograms(networks, read, rows, device=device)
    return _embed_blocks(networks.eval().audio, blocks)


@torch.inference_mode()
def set_centres(networks: Networks, pairs: Pairs, *, device: torch.device) -> None:
    """Make the mean features of (at most 2048) training pairs the encoders' centres, as a warm start does.

    Untrained encoders give nearly the same features for everything; only around their mean do they differ.
    """
    rows = np.sort(np.random.default_rng(0).permutation(pairs.training_rows)[:2048])
    networks.to(device).eval()
    frames = plain_frames(networks, pairs.read_frames, rows, device=device)
    networks.visual.centre.copy_(torch.cat([networks.visual.features(block) for block in frames]).mean(dim=0))
    spectrograms = plain_spectrograms(networks, pairs.read_waveforms, rows, device=device)
    networks.audio.centre.copy_(torch.cat([networks.audio(block) for block in spectrograms]).mean(dim=0))


def _embed_blocks(encoder: Encoder, blocks: Iterator[Tensor]) -> FloatArray:
    parts = [encoder.embed(block).cpu().numpy() for block in blocks]
    return np.concatenate(parts) if parts else np.zeros((0, encoder.centre.numel()), np.float32)
