"""The loss functions, each with its paper and equation. Pure functions of tensors.

References:
    [hinton2015] Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    [tung2019] Similarity-Preserving Knowledge Distillation, 2019, arXiv:1907.09682.
    [oord2018] Representation Learning with Contrastive Predictive Coding, 2018, arXiv:1807.03748.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of 1 - cosine of predicted and target features, both (B, D). In [0, 2]."""
    return (1 - F.cosine_similarity(predicted.float(), target.float(), dim=1)).mean()


def relation_loss(embedding: Tensor, target: Tensor) -> Tensor:
    """How far the similarities among a batch are from those of the targets.

    The idea of [tung2019] eq. (1)-(2): examples that are alike for the teacher should be alike for the student. We
    compare cosine similarities of centred rows by their mean squared difference, where the paper normalises rows of the
    Gram matrix.

    Args:
        embedding: (B, D) student features.
        target: (B, T) teacher features; T need not equal D.

    Returns:
        Mean over pairs of different examples of the squared difference of cosines.
    """
    student = F.normalize(embedding.float() - embedding.float().mean(dim=0), dim=1)
    teacher = F.normalize(target.float() - target.float().mean(dim=0), dim=1)
    difference = student @ student.T - teacher @ teacher.T
    n = len(difference)
    return difference.fill_diagonal_(0).square().sum() / (n * (n - 1))


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


def contrastive_loss(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE in both directions, [oord2018] eq. (4): row i of one belongs to row i of the other.

    Args:
        first: (B, J) embeddings of norm 1.
        second: (B, J) embeddings of norm 1.
        temperature: > 0; lower is stricter.
    """
    logits = first @ second.T / temperature  # (B, B)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
