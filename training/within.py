"""Within-class covariance normalisation: what differs between copies of one second is made small, in the last layer.

An encoder that predicts a teacher's features keeps directions in which a second and its bad copies (noise, crops,
other colours) lie apart. One linear map evens them out; it is folded into the encoder's projection and costs nothing
in use.

References:
    [hatch2006] Within-Class Covariance Normalization for SVM-based Speaker Recognition, Interspeech 2006.
"""

import torch
from torch import Tensor

from visxp_search.encoders import AudioEncoder, VisualEncoder


def within_covariance(copies: Tensor) -> Tensor:
    """Covariance of the copies of a second around their mean, averaged over seconds; [hatch2006].

    Args:
        copies: (V, N, D), V >= 2 copies of N seconds.

    Returns:
        (D, D) float64.
    """
    deviations = (copies.double() - copies.double().mean(dim=0)).flatten(0, 1)  # (V * N, D)
    return deviations.T @ deviations / (len(deviations) - copies.shape[1])


def normalising_map(covariance: Tensor, *, shrinkage: float) -> Tensor:
    """The symmetric (D, D) map under which the covariance becomes the identity, but for the shrinkage.

    Of all maps B with B^T B = C^-1 ([hatch2006]) the one that turns nothing.

    Args:
        covariance: (D, D) float64.
        shrinkage: > 0, share of the mean variance that is added to each direction's, so that none is blown up.
    """
    shrunk = covariance + shrinkage * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
    variances, directions = torch.linalg.eigh(shrunk)
    normalising: Tensor = directions @ torch.diag(variances.rsqrt()) @ directions.T
    return normalising


@torch.no_grad()
def fold_map(encoder: VisualEncoder | AudioEncoder, matrix: Tensor) -> None:
    """Let the encoder's projection give `matrix @ features`, in place."""
    matrix = matrix.to(encoder.project.weight)
    encoder.project.weight.copy_(matrix @ encoder.project.weight)
    encoder.project.bias.copy_(matrix @ encoder.project.bias)
