"""The networks on top of both encoders: the joint space, correspondence, clusters, and clusters told by one modality.

They read embeddings (norm 1), never pictures or sounds, so whatever has stored embeddings can apply them.

References:
    [arandjelovic2017] Look, Listen and Learn, 2017, arXiv:1705.08168. The fusion network (fig. 2).
    [asano2020] Self-labelling via simultaneous clustering and representation learning, 2020, arXiv:1911.05371.
    [asano2020b] Labelling unlabelled videos from scratch with multi-modal self-supervision, 2020, arXiv:2006.13662.
        Several heads, one clustering for both modalities.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DROPOUT = 0.5
"""Share of an embedding and of a hidden layer that the heads on pairs do without in training."""


@dataclass(frozen=True)
class HeadsConfig:
    """Which heads there are, and their shapes.

    Attributes:
        fusion_hidden: units of the fusion network's hidden layer; 0 for no fusion network.
        n_heads: clusterings that were learned side by side; 0 for no pseudo-labels.
        n_clusters: K of each of them.
        cluster_hidden: units of the clustering network's hidden layers.
    """

    fusion_hidden: int = 0
    n_heads: int = 0
    n_clusters: int = 0
    cluster_hidden: int = 256


class JointHead(nn.Module):
    """Projection of one modality's embedding into the joint space: (B, D) norm 1 to (B, J) norm 1.

    In training half of the embedding and of the hidden layer are dropped: pairs are few, and what goes together must
    not be learned by heart.
    """

    def __init__(self, embedding: int, joint: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(embedding, embedding), nn.BatchNorm1d(embedding), nn.ReLU(), nn.Linear(embedding, joint)
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """Project and normalise."""
        hidden = self.layers[:-1](F.dropout(embedding, DROPOUT, self.training))
        return F.normalize(self.layers[-1](F.dropout(hidden, DROPOUT, self.training)), dim=1)


class FusionNetwork(nn.Module):
    """Do this picture and this sound belong together? A logit for every pair of B pictures and C sounds.

    [arandjelovic2017] fig. 2 concatenates both features before a hidden layer. A linear layer on a concatenation is the
    sum of two linear layers, so each picture and each sound passes its own once, whatever the number of pairs.
    """

    def __init__(self, visual: int, audio: int, hidden: int) -> None:
        super().__init__()
        self.visual = nn.Linear(visual, hidden)
        self.audio = nn.Linear(audio, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """(B, D) and (C, D) embeddings of norm 1 -> (B, C) logits, positive for "belong together"."""
        visual, audio = (F.dropout(_scale(rows), DROPOUT, self.training) for rows in (visual, audio))
        both = self.visual(visual)[:, None] + self.audio(audio)[None]  # (B, 1, H) + (1, C, H)
        logits: Tensor = self.out(F.dropout(F.relu(both), DROPOUT, self.training)).squeeze(2)  # -> (B, C)
        return logits


class ClusteringNetwork(nn.Module):
    """Reads picture and sound together and divides seconds into clusters, once for each head."""

    def __init__(self, visual: int, audio: int, config: HeadsConfig) -> None:
        super().__init__()
        self.shape = (config.n_heads, config.n_clusters)
        hidden = config.cluster_hidden
        self.layers = nn.Sequential(nn.Linear(visual + audio, hidden), nn.LayerNorm(hidden), nn.ReLU())
        self.heads = nn.Linear(hidden, config.n_heads * config.n_clusters)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """(B, D) and (B, D) embeddings of the same seconds -> (B, n_heads, K) logits."""
        fused: Tensor = self.layers(torch.cat([_scale(visual), _scale(audio)], dim=1))
        logits: Tensor = self.heads(fused)
        return logits.reshape(len(logits), *self.shape)  # (B, n_heads * K) -> (B, n_heads, K)


class RepresentationNetwork(nn.Module):
    """Tells the cluster of a second from one modality alone: what brings the encoder into line with pseudo-labels."""

    def __init__(self, embedding: int, config: HeadsConfig) -> None:
        super().__init__()
        self.shape = (config.n_heads, config.n_clusters)
        self.heads = nn.Linear(embedding, config.n_heads * config.n_clusters)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings of one modality -> (B, n_heads, K) logits."""
        logits: Tensor = self.heads(_scale(embedding))
        return logits.reshape(len(logits), *self.shape)  # (B, n_heads * K) -> (B, n_heads, K)


def _scale(embedding: Tensor) -> Tensor:
    """Components of about 1 instead of 1 / sqrt(D), which the layers' initial weights are made for."""
    return embedding * math.sqrt(embedding.shape[1])
