"""What a similarity means in one archive: comparison with a random sample of it. Pure functions of arrays.

Three uses. *Standardising*: how far a similarity stands above those of unrelated seconds, so that pictures and sounds
can be added up. *Chance*: how many places of the archive are expected to score as high without being related.
*Commonness*: which seconds resemble a large part of the archive, and so say little.

References:
    [weibull1951] A statistical distribution function of wide applicability. J. Applied Mechanics 18, 1951.
    [jones1972] A statistical interpretation of term specificity and its application in retrieval. J. Documentation 28.
    [fisher1915] Frequency distribution of the values of the correlation coefficient. Biometrika 10, 1915 (artanh).
    [renyi1953] On the theory of order statistics. Acta Mathematica Hungarica 4, 1953 (spacings).
    [pickands1975] Statistical inference using extreme order statistics. Annals of Statistics 3, 1975.
    [auckenthaler2000] Score normalization for text-independent speaker verification systems (z-norm). DSP 10, 2000.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

MIN_SAMPLE = 20
"""Values below which nothing is said about chance."""
LARGEST, SMALLEST = 20.0, -3.0
"""Bounds of a standardised similarity: beyond them it is no further evidence, and no single second decides alone."""
LARGEST_SAME = 90.0
"""The upper bound where the same recording is looked for, by which a copy stands out from what merely shows the same
scene: both are far above unrelated seconds."""
MIN_SPREAD = 0.05
"""Least spread that counts, on Fisher's scale; below it differences are coding noise."""
LARGEST_COSINE = 0.9999
"""Cosines from here on are equal: float32 and coding noise."""
COMMON_SHARE = 0.03
"""A second that resembles more than this share of the other videos' seconds is common."""
COMMON_QUANTILE = 0.99
"""Two seconds resemble each other if they are more alike than a second is to this share of other videos' seconds."""
LEAST_WEIGHT = 0.1
MIN_RIVALS = 8
"""Places below which their best values tell nothing."""
TAIL_SIZE = 20
MIN_TAIL_SIZE = 6
MIN_TAIL_SCALE = 0.3
"""Least scale of the best values; below it their differences are rounding."""

_LEVELS = np.linspace(0.55, 0.95, 17)
"""Quantiles that the tail is fitted to. The highest twentieth is left out: it may hold what is looked for."""


@dataclass(frozen=True)
class Tail:
    """How scores of unrelated places are distributed.

    The upper half follows a Weibull law [weibull1951]: P(X > x) = 0.5 exp(-((x - median) / scale)^shape) for
    x > median.
    A shape of 1 is an exponential tail, one near 2 that of a normal distribution.

    Attributes:
        values: sorted scores of the sample.
        median: of the sample.
        scale: > 0.
        shape: in [1, 2], so that a tail is never taken to be shorter than a normal one.
    """

    values: FloatArray
    median: float
    scale: float
    shape: float

    def chance(self, value: float) -> float:
        """Probability that an unrelated place scores at least `value`, in (0, 1]."""
        if value <= self.median:
            return float(1 - np.searchsorted(self.values, value) / len(self.values))
        return float(0.5 * np.exp(-(((value - self.median) / self.scale) ** self.shape)))

    def percentile(self, value: float) -> float:
        """Share of the sample, in percent, that scores lower."""
        return 100.0 * float(np.searchsorted(self.values, value)) / len(self.values)


def fit_tail(values: FloatArray) -> Tail | None:
    """Fit the upper half of a sample by its quantiles, which a twentieth of related values among them cannot bend.

    Least squares on ln(-ln(2 P(X > x))) = shape (ln(x - median) - ln scale).

    Args:
        values: (n,) finite.

    Returns:
        None below `MIN_SAMPLE` values.
    """
    if len(values) < MIN_SAMPLE:
        return None
    median = float(np.median(values))
    above = np.maximum(np.quantile(values, _LEVELS).astype(np.float64) - median, 1e-9)
    strength = -np.log(2 * (1 - _LEVELS))
    x, y = np.log(above), np.log(strength)
    spread = float(np.square(x - x.mean()).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else 1.0
    shape = float(np.clip(slope, 1.0, 2.0))
    scale = float(np.median(above / strength ** (1 / shape)))
    return Tail(values=np.sort(values), median=median, scale=max(scale, 1e-6), shape=shape)


def expected_above(value: float, rivals: FloatArray) -> float | None:
    """How many unrelated places are expected to reach `value`, told by the best values of other places.

    The highest of many values have an exponential tail [pickands1975]. Its scale is estimated from the next `TAIL_SIZE`
    values; that it is an estimate makes the predicted tail heavier, P = (1 + excess / sum of excesses)^-(n - 1). Other
    copies of what is looked for may stand among the rivals: hence the best ones are left out, for whichever number of
    them leaves the clearest gap beneath; chance alone makes wide gaps the more rarely the more values lie above them
    [renyi1953].

    Args:
        value: best of its place.
        rivals: (n,) best values of the other places.

    Returns:
        None with fewer than `MIN_RIVALS`.
    """
    if len(rivals) < MIN_RIVALS:
        return None
    ordered = np.sort(np.asarray(rivals, dtype=np.float64))[::-1]
    n_above = int((ordered > value).sum())
    expected = float(n_above + 1)
    for n_left_out in range(n_above, len(ordered) - MIN_TAIL_SIZE + 1):
        tail = ordered[n_left_out : n_left_out + min(TAIL_SIZE, max(len(ordered) // 2, MIN_TAIL_SIZE))]
        weakest = min(value, float(ordered[n_left_out - 1])) if n_left_out > n_above else value
        excesses = max(float((tail - tail[-1]).sum()), MIN_TAIL_SCALE * len(tail))
        expected = min(expected, len(tail) * (1 + (weakest - float(tail[-1])) / excesses) ** (1.0 - len(tail)))
    return expected


@dataclass(frozen=True)
class Scale:
    """Centre and spread of the similarities of each second of a query with unrelated seconds, [auckenthaler2000].

    Both on the scale artanh(cosine) [fisher1915], on which 0.99 and 0.999 are as far apart as 0.9 and 0.99.

    Attributes:
        centre: (Q,) median.
        spread: (Q,) distance of the 75th percentile from the median, over 0.6745: the deviation of a normal upper half,
            which a jingle in a fifth of the archive does not widen.
    """

    centre: FloatArray
    spread: FloatArray

    def standardise(self, cosines: FloatArray, *, largest: float = LARGEST) -> FloatArray:
        """(Q, T) cosines -> (Q, T) deviations above the centre, cut off at `SMALLEST` and `largest`; NaN stays NaN."""
        deviations = (fisher(cosines) - self.centre[:, None]) / self.spread[:, None]
        return np.asarray(np.clip(deviations, SMALLEST, largest), dtype=np.float32)

    def deviations(self, row: int, cosines: npt.ArrayLike) -> FloatArray:
        """Cosines of one row, standardised but not cut off."""
        return np.asarray((fisher(cosines) - self.centre[row]) / self.spread[row], dtype=np.float32)


def fisher(cosines: npt.ArrayLike) -> FloatArray:
    """artanh, finite: cosines are cut off at plus and minus `LARGEST_COSINE`; NaN stays NaN."""
    inside = np.clip(np.asarray(cosines, dtype=np.float32), -LARGEST_COSINE, LARGEST_COSINE)
    return np.asarray(np.arctanh(inside), dtype=np.float32)


def fit_scale(cosines: FloatArray) -> Scale:
    """Centre and spread of each row of (Q, B) cosines with a background sample; NaN marks missing vectors.

    Rows or samples with too few values get centre 0 and spread 0.25, a neutral guess that only tiny archives meet.
    """
    n_rows = len(cosines)
    centre, spread = np.zeros(n_rows, np.float32), np.full(n_rows, 0.25, np.float32)
    transformed = fisher(cosines)
    columns = ~np.isnan(cosines).all(axis=0) if cosines.size else np.zeros(cosines.shape[1], dtype=bool)
    if columns.sum() >= MIN_SAMPLE:
        for row, values in enumerate(transformed[:, columns]):
            if not np.isnan(values).any():
                middle, high = np.quantile(values, (0.5, 0.75))
                centre[row], spread[row] = middle, max((high - middle) / 0.6745, MIN_SPREAD)
    return Scale(centre=centre, spread=spread)


def resemblance_threshold(vectors: FloatArray, owners: npt.NDArray[np.int64], *, most: int = 600) -> float:
    """The cosine that a typical second reaches with only 1 - `COMMON_QUANTILE` of the seconds of other videos.

    It is the median over the seconds, so that it stays where it is when many of them are common.

    Args:
        vectors: (B, D) of norm 1, no NaN.
        owners: (B,) number of the video of each.
        most: rows that are compared with each other.

    Returns:
        A cosine; infinity if there are no two videos to compare.
    """
    vectors, owners = vectors[:most], owners[:most]
    foreign = owners[:, None] != owners[None]
    if foreign.sum() < MIN_SAMPLE:
        return float("inf")
    n_foreign = foreign.sum(axis=1)
    ordered = np.sort(np.where(foreign, vectors @ vectors.T, -2.0), axis=1)[:, ::-1]
    rank = np.minimum((n_foreign * (1 - COMMON_QUANTILE)).astype(int), np.maximum(n_foreign - 1, 0))
    return float(np.median(np.take_along_axis(ordered, rank[:, None], axis=1)[n_foreign > 0]))


def nearest_cosines(vectors: FloatArray, owners: npt.NDArray[np.int64], *, most: int = 600) -> FloatArray:
    """How like its nearest neighbour in another video each second is: sorted cosines, empty if there is one video.

    A second of a query that is less like anything in the archive than nearly all of these is new to it.
    """
    vectors, owners = vectors[:most], owners[:most]
    if len(set(owners.tolist())) < 2:
        return np.empty(0, dtype=np.float32)
    foreign = owners[:, None] != owners[None]
    return np.sort(np.where(foreign, vectors @ vectors.T, -1.0).max(axis=1)).astype(np.float32)


def common_shares(
    vectors: FloatArray, sample: FloatArray, *, among: npt.NDArray[np.bool_], threshold: float
) -> FloatArray:
    """Share of a sample that each of (T, D) vectors resembles, (T,) in [0, 1]; 0 for rows of NaN.

    Args:
        vectors: (T, D) of norm 1, or NaN.
        sample: (B, D) of norm 1.
        among: (B,) which of the sample count.
        threshold: the cosine from which two resemble each other.
    """
    if not among.any():
        return np.zeros(len(vectors), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return np.asarray(((vectors @ sample.T >= threshold) & among).sum(axis=1) / among.sum(), dtype=np.float32)


def common_weights(shares: FloatArray) -> FloatArray:
    """Weight of seconds by how common they are, as stop words are weighted by inverse document frequency [jones1972].

    1 up to `COMMON_SHARE`, then ln(1 / share) / ln(1 / COMMON_SHARE), at least `LEAST_WEIGHT`.
    """
    weights = np.log(np.maximum(shares, COMMON_SHARE)) / np.log(COMMON_SHARE)
    return np.asarray(np.clip(weights, LEAST_WEIGHT, 1.0), dtype=np.float32)
