"""The loss functions, each with its paper and equation. Pure functions of tensors.

References:
    [hinton2015] Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    [arandjelovic2017] Look, Listen and Learn, 2017, arXiv:1705.08168.
    [asano2020] Self-labelling via simultaneous clustering and representation learning, 2020, arXiv:1911.05371.
    [bardes2021] VICReg: Variance-Invariance-Covariance Regularization, 2021, arXiv:2105.04906.
    [oord2018] Representation Learning with Contrastive Predictive Coding, 2018, arXiv:1807.03748.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The objective: each named term times its weight.

    Raises:
        KeyError: If a weight names a term that there is not.
    """
    return torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()


def feature_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of 1 - cosine of predicted and target features, both (B, D). In [0, 2]."""
    return (1 - F.cosine_similarity(predicted.float(), target.float(), dim=1)).mean()


def class_score_loss(logits: Tensor, scores: Tensor) -> Tensor:
    """Mean binary cross-entropy of (B, C) logits to the teacher's class scores in [0, 1]; [hinton2015] with T = 1."""
    return F.binary_cross_entropy_with_logits(logits.float(), scores.float())


def top_class_loss(logits: Tensor, top_classes: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of (B, C) logits to a distribution given by its best classes.

    Args:
        logits: (B, C).
        top_classes: (B, R) int64 class indices, best first.
        shares: (R,) probability given to each rank; sums to 1.
    """
    log_probs = F.log_softmax(logits.float(), dim=1).gather(1, top_classes)  # (B, C) -> (B, R)
    return -(log_probs * shares).sum(dim=1).mean()


def contrastive_loss(first: Tensor, second: Tensor, *, temperature: float, allowed: Tensor | None = None) -> Tensor:
    """InfoNCE in both directions, [oord2018] eq. (4): row i of one belongs to row i of the other.

    Args:
        first: (B, J) embeddings of norm 1.
        second: (B, J) embeddings of norm 1.
        temperature: > 0; lower is stricter.
        allowed: (B, B) bool, which pairs count as negatives; None for all but the diagonal.
    """
    logits = first.float() @ second.float().T / temperature  # (B, B)
    own = torch.arange(len(logits), device=logits.device)
    if allowed is not None:
        logits = logits.masked_fill(~(allowed | torch.eye(len(own), dtype=torch.bool, device=own.device)), -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def correspondence_loss(logits: Tensor, allowed: Tensor) -> Tensor:
    """Binary cross-entropy of "this picture and this sound belong together", [arandjelovic2017] section 2.

    The diagonal are the positives. Where the paper draws one negative a positive, all allowed pairs of the batch are
    negatives here; both kinds weigh one half, so that always saying no earns nothing.

    Args:
        logits: (B, B) of the fusion network, pictures in rows.
        allowed: (B, B) bool, which pairs count as negatives; at least one.
    """
    logits = logits.float()
    positives = F.softplus(-logits.diagonal()).mean()
    negatives = F.softplus(logits)[allowed].mean()
    return (positives + negatives) / 2


def pseudo_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy to the pseudo-labels, averaged over rows and heads; [asano2020] section 3, the loss E(p, q).

    Args:
        logits: (B, n_heads, K).
        labels: (B, n_heads) int64.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())


def redundancy_loss(embedding: Tensor) -> Tensor:
    """How much the dimensions of an embedding say the same: the covariance criterion of [bardes2021] section 4.1.

    Components are first brought to unit deviation over the batch, so that the loss cannot be lowered by shrinking.

    Args:
        embedding: (B, D), B >= 2.

    Returns:
        Sum of squared correlations of different dimensions, over D; >= 0.
    """
    centred = embedding.float() - embedding.float().mean(dim=0)
    scaled = centred / centred.square().mean(dim=0).sqrt().clamp_min(1e-4)
    correlation = scaled.T @ scaled / len(scaled)  # (D, D)
    off_diagonal = correlation - torch.diag(correlation.diagonal())
    return off_diagonal.square().sum() / len(correlation)
