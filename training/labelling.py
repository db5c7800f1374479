"""Making pseudo-labels: clusters of wanted sizes for all training pairs, in blocks, and alarms when they collapse.

Memory for N pairs: embeddings as float16, 4 N D bytes for both modalities (2.0 GB for 2 M pairs at D = 256), labels
4 N n_heads bytes (32 MB), and the scores of one block of 8192 rows. Nothing of size (N, K) is ever held.

References:
    [asano2020] Self-labelling via simultaneous clustering and representation learning, 2020, arXiv:1911.05371.
    [asano2020b] Labelling unlabelled videos from scratch with multi-modal self-supervision, 2020, arXiv:2006.13662.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import SelfLabelConfig
from training.pairs import Pairs, Rows, embed_frames, embed_waveforms
from visxp_search.checkpoint import Networks
from visxp_search.cluster_prototypes import fit_prototypes
from visxp_search.clusters import (
    Blocks,
    balance_labels,
    gaussian_sizes,
    hard_assignment,
    uniform_sizes,
)
from visxp_search.errors import UsageError

BLOCK_ROWS = 8192
FIT_ROWS = 20_000
"""Rows, drawn at random, from which the prototypes of the first labelling are found."""
FIT_SHARPNESS = 30.0
"""Of the first labelling, whose scores are cosines; those of later ones are log-probabilities."""
MIN_USED, MIN_ENTROPY, MAX_CHANGE = 0.7, 0.6, 0.8
"""Beyond these the alarm is raised."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the training pairs, unaugmented; both (N, D) float16."""

    visual: Tensor
    audio: Tensor

    def blocks(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Both modalities, `BLOCK_ROWS` at a time, as float32."""
        for start in range(0, len(self.visual), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            yield self.visual[block].to(device).float(), self.audio[block].to(device).float()


@dataclass(frozen=True)
class Round:
    """What one labelling did, for the log and the alarms; lowest or highest over heads.

    Attributes:
        used: share of clusters that the network itself names best for some pair, before sizes are enforced.
        entropy: of the network's own choices, relative to the logarithm of K.
        change: share of pairs whose label is another than before; NaN at first.
        size_error: largest relative deviation of a label's share from the wanted one.
        agreement: share of pairs for which picture and sound alone name the same cluster; NaN at first.
    """

    used: float
    entropy: float
    change: float
    size_error: float
    agreement: float

    def alarms(self) -> list[str]:
        """What looks like collapse, in words."""
        found = []
        if self.used < MIN_USED:
            found.append(f"only {self.used:.0%} of the clusters are used by some head (alarm below {MIN_USED:.0%})")
        if self.entropy < MIN_ENTROPY:
            found.append(f"the entropy of a head's labels is {self.entropy:.2f} (alarm below {MIN_ENTROPY})")
        if self.change > MAX_CHANGE:
            found.append(f"{self.change:.0%} of the labels of a head changed (alarm above {MAX_CHANGE:.0%})")
        return found


def wanted_sizes(config: SelfLabelConfig, *, seed: int) -> list[Tensor]:
    """(K,) shares for each head.

    Raises:
        UsageError: If `config.sizes` is not known.
    """
    if config.sizes not in ("uniform", "gaussian", "mixed"):
        raise UsageError(f"sizes {config.sizes!r} unknown; choose uniform, gaussian or mixed")
    return [
        uniform_sizes(config.n_clusters)
        if config.sizes == "uniform" or (config.sizes == "mixed" and head % 2 == 0)
        else gaussian_sizes(config.n_clusters, seed=seed + head)
        for head in range(config.n_heads)
    ]


def embed_pairs(networks: Networks, pairs: Pairs, rows: Rows, *, device: torch.device) -> Embedded:
    """Both embeddings of the given rows."""
    return Embedded(
        visual=torch.from_numpy(embed_frames(networks, pairs.read_frames, rows, device=device)).half(),
        audio=torch.from_numpy(embed_waveforms(networks, pairs.read_waveforms, rows, device=device)).half(),
    )


def first_labels(embedded: Embedded, sizes: list[Tensor], *, seed: int, device: torch.device) -> tuple[Tensor, Round]:
    """Labels before the heads know anything: balanced spherical k-means of both embeddings side by side, per head.

    [asano2020] begins with the choices of an untrained network; encoders after a warm start tell more.

    Returns:
        (N, n_heads) int64, and what was done.
    """
    n_rows = len(embedded.visual)
    generator = torch.Generator().manual_seed(seed)
    columns, used, entropies = [], [], []
    for head, head_sizes in enumerate(sizes):
        chosen = torch.randperm(n_rows, generator=generator)[:FIT_ROWS]
        rows = _side_by_side(embedded.visual[chosen].float(), embedded.audio[chosen].float()).to(device)
        prototypes, _, _ = fit_prototypes(rows, len(head_sizes), sizes="uniform", seed=seed + head)
        counts = torch.bincount((rows @ prototypes.T).argmax(dim=1), minlength=len(head_sizes))
        prototypes = prototypes[counts.argsort(descending=True, stable=True)]  # wanted sizes come largest first

        def blocks(prototypes: Tensor = prototypes) -> Iterator[Tensor]:
            for visual, audio in embedded.blocks(device):
                yield _side_by_side(visual, audio) @ prototypes.T

        column, own = _assign(blocks, head_sizes, sharpness=FIT_SHARPNESS)
        columns.append(column)
        used.append(_used(own, len(head_sizes)))
        entropies.append(_entropy(own, len(head_sizes)))
    labels = torch.stack(columns, dim=1)
    nan = float("nan")
    return labels, Round(min(used), min(entropies), nan, _size_error(labels, sizes), nan)


@torch.inference_mode()
def next_labels(
    networks: Networks,
    embedded: Embedded,
    sizes: list[Tensor],
    previous: Tensor,
    config: SelfLabelConfig,
    *,
    device: torch.device,
) -> tuple[Tensor, Round]:
    """Labels from what the networks say, [asano2020] section 3, for several heads as in [asano2020b].

    The score of a cluster is the log-probability by the clustering network, mixed with the mean of those by each
    modality alone: labels on which sight and sound agree win. Where [asano2020b] permutes the clusters of one modality
    to align them, all networks here share one numbering from the first labelling on.

    Returns:
        (N, n_heads) int64, and what was done.
    """
    networks.eval()

    def scores(visual: Tensor, audio: Tensor) -> Tensor:
        if networks.clustering is None:
            raise AssertionError("the networks have no clustering network")
        together = F.log_softmax(networks.clustering(visual, audio), dim=2)
        alone = (log_probs_alone(networks, visual, "visual") + log_probs_alone(networks, audio, "audio")) / 2
        return (1 - config.alignment) * together + config.alignment * alone  # (n, n_heads, K)

    columns, used, entropies, changes, agreements = [], [], [], [], []
    for head, head_sizes in enumerate(sizes):

        def blocks(head: int = head) -> Iterator[Tensor]:
            for visual, audio in embedded.blocks(device):
                yield scores(visual, audio)[:, head]

        column, own = _assign(blocks, head_sizes, sharpness=config.sharpness)
        columns.append(column)
        used.append(_used(own, len(head_sizes)))
        entropies.append(_entropy(own, len(head_sizes)))
        changes.append(float((column != previous[:, head]).double().mean()))
        same = [
            log_probs_alone(networks, visual, "visual")[:, head].argmax(1)
            == log_probs_alone(networks, audio, "audio")[:, head].argmax(1)
            for visual, audio in embedded.blocks(device)
        ]
        agreements.append(float(torch.cat(same).double().mean()))
    labels = torch.stack(columns, dim=1)
    return labels, Round(min(used), min(entropies), max(changes), _size_error(labels, sizes), min(agreements))


def log_probs_alone(networks: Networks, embedding: Tensor, modality: str) -> Tensor:
    """(n, n_heads, K) log-probabilities by one modality."""
    network = networks.representation_visual if modality == "visual" else networks.representation_audio
    if network is None:
        raise AssertionError("the networks have no representation network")
    return F.log_softmax(network(embedding), dim=2)


def labelling_epochs(config: SelfLabelConfig) -> list[int]:
    """The epochs before which labels are made: `labellings` of them, evenly spaced, the first at 0."""
    rounds = min(config.labellings, config.epochs)
    return sorted({number * config.epochs // rounds for number in range(rounds)})


def _assign(blocks: Blocks, sizes: Tensor, *, sharpness: float) -> tuple[Tensor, Tensor]:
    """(N,) labels of the wanted sizes, and (N,) what the scores alone would say."""
    offsets = balance_labels(blocks, cluster_sizes=sizes, sharpness=sharpness)
    labels, own = [], []
    for scores in blocks():
        labels.append(hard_assignment(scores, offsets=offsets).cpu())
        own.append(scores.argmax(dim=1).cpu())
    return torch.cat(labels), torch.cat(own)


def _side_by_side(visual: Tensor, audio: Tensor) -> Tensor:
    return torch.cat([visual, audio], dim=1) / 2**0.5  # norms 1 and 1 -> norm 1


def _used(labels: Tensor, n_clusters: int) -> float:
    return len(set(labels.tolist())) / min(n_clusters, len(labels))


def _entropy(labels: Tensor, n_clusters: int) -> float:
    shares = torch.bincount(labels, minlength=n_clusters).double() / len(labels)
    return float(torch.special.entr(shares).sum() / np.log(max(n_clusters, 2)))


def _size_error(labels: Tensor, sizes: list[Tensor]) -> float:
    """Largest relative deviation of a cluster's share from the wanted one, over heads."""
    errors = []
    for head, head_sizes in enumerate(sizes):
        shares = torch.bincount(labels[:, head], minlength=len(head_sizes)).double() / len(labels)
        errors.append(float((shares / head_sizes - 1).abs().max()))
    return max(errors)
