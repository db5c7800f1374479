"""What the visual encoder's features are read off in the end: one linear map of all stages to the teacher's features.

In training the features are a map of the last stage alone, which makes the stages before it serve the last. What those
know besides, of where light, colours and edges are, tells one second from the next and helps to predict the teacher as
well. A ridge regression over pictures and their copies finds the map in one pass, in constant memory.

References:
    [hoerl1970] Ridge Regression: Biased Estimation for Nonorthogonal Problems, Technometrics 12(1), 1970.
"""

import dataclasses

import torch
from torch import Tensor

from visxp_search.encoders import VisualConfig, VisualEncoder


class RidgeRegression:
    """Least squares with a penalty on the weights of standardised inputs; [hoerl1970] eq. (2.1).

    Only sums are kept, so examples may be given in as many parts as there are.
    """

    def __init__(self, n_inputs: int, n_targets: int) -> None:
        self._n = 0
        self._products = torch.zeros(n_inputs + n_targets, n_inputs + n_targets, dtype=torch.float64)
        self._sums = torch.zeros(n_inputs + n_targets, dtype=torch.float64)
        self._n_inputs = n_inputs

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Take in (B, D) inputs and the (B, T) targets that belong to them."""
        both = torch.cat([inputs, targets], dim=1).double()
        self._n += len(both)
        self._sums += both.sum(dim=0)
        self._products += both.T @ both

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """(T, D) weights and (T,) biases, float64.

        Args:
            penalty: > 0, beside the variance of 1 that each standardised input has.
        """
        means = self._sums / self._n
        covariance = self._products / self._n - torch.outer(means, means)
        d = self._n_inputs
        scale = covariance.diagonal()[:d].clamp_min(0).sqrt() + 1e-3  # of inputs that never change as well
        correlation = covariance[:d, :d] / torch.outer(scale, scale)
        correlation += penalty * torch.eye(d, dtype=torch.float64)
        weights = (torch.linalg.solve(correlation, covariance[:d, d:] / scale[:, None]) / scale[:, None]).T
        return weights, means[d:] - weights @ means[:d]


@torch.no_grad()
def with_grid(encoder: VisualEncoder, config: VisualConfig) -> VisualEncoder:
    """An encoder with the layers of another and the `grid` of a configuration; its projection has yet to be found."""
    wider = VisualEncoder(dataclasses.replace(encoder.config, grid=config.grid))
    layers = {name: value for name, value in encoder.state_dict().items() if not name.startswith("project.")}
    wider.load_state_dict(layers, strict=False)
    return wider.eval()
