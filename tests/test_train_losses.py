"""Tests of the losses: each against a slow and obvious computation."""

import math

import numpy as np
import pytest
import torch

from training import losses


@pytest.fixture
def random() -> torch.Generator:
    """A generator of its own for each test."""
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_feature_loss_is_one_minus_the_mean_cosine(n: int, random: torch.Generator) -> None:
    """The feature loss equals 1 - cosine averaged row by row."""
    a, b = torch.randn(n, 7, generator=random), torch.randn(n, 7, generator=random)
    slow = sum(1 - float(x @ y) / float(x.norm() * y.norm()) for x, y in zip(a, b, strict=True)) / n
    assert losses.feature_loss(a, b).item() == pytest.approx(slow, abs=1e-6)


def test_class_score_loss_is_mean_binary_cross_entropy(random: torch.Generator) -> None:
    """The class score loss equals -(s log p + (1 - s) log(1 - p)) averaged over all cells."""
    logits, scores = torch.randn(4, 6, generator=random), torch.rand(4, 6, generator=random)
    cells = []
    for logit, score in zip(logits.flatten().tolist(), scores.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        cells.append(-(score * math.log(p) + (1 - score) * math.log(1 - p)))
    assert losses.class_score_loss(logits, scores).item() == pytest.approx(np.mean(cells), abs=1e-6)


def test_top_class_loss_is_cross_entropy_to_the_named_shares(random: torch.Generator) -> None:
    """The top class loss equals cross-entropy to the dense distribution that the shares describe."""
    logits = torch.randn(3, 8, generator=random)
    top = torch.tensor([[0, 3], [7, 1], [2, 5]])
    shares = torch.tensor([0.7, 0.3])
    dense = torch.zeros(3, 8).scatter(1, top, shares.expand(3, 2))
    slow = torch.nn.functional.cross_entropy(logits, dense).item()
    assert losses.top_class_loss(logits, top, shares).item() == pytest.approx(slow, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_contrastive_loss_is_info_nce_both_ways(temperature: float, random: torch.Generator) -> None:
    """The contrastive loss equals the mean of -log of the own pair's share, over rows and over columns."""
    a = torch.nn.functional.normalize(torch.randn(5, 4, generator=random), dim=1)
    b = torch.nn.functional.normalize(torch.randn(5, 4, generator=random), dim=1)
    exp = np.exp((a @ b.T).double().numpy() / temperature)
    slow = np.mean([-np.log(exp[i, i] / exp[i].sum()) - np.log(exp[i, i] / exp[:, i].sum()) for i in range(5)]) / 2
    assert losses.contrastive_loss(a, b, temperature=temperature).item() == pytest.approx(slow, rel=1e-4)
