"""The fitted clusters of an archive: what a second is compared by, and which cluster it belongs to.

A second is compared by its picture and its sound together: of each modality's embedding the archive's mean is
subtracted and the rest scaled to norm 1; the two are put side by side and scaled to norm 1. That a modality is missing
says something too: it is zeros there, and a number of its own behind them, the same for all seconds that miss it, so
that silence is like silence whatever is seen, as a sound is like itself. The `joint` vector is not used: it keeps what
picture and sound have in common, and clusters are wanted that differ in one of them.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from visxp_search.store import SecondPoint

FloatArray = npt.NDArray[np.float32]
MODALITIES = ("visual", "audio")
BEYOND_REACH = 0.5
"""Share of a prototype's seconds that lie outside its reach, as nothing else was nearer to them."""


@dataclass(frozen=True)
class ClusterModel:
    """Prototypes in the space of `features`, and the offsets that give clusters their sizes.

    Attributes:
        means: modality -> (D,) the archive's mean embedding; modalities that the index lacks are not there.
        prototypes: (R, F) float32 of norm 1; F as `make_features` has it.
        offsets: (R,) float64 added to cosines before the best is taken.
        sharpness: of the soft assignment, for the confidence.
        absence: how much it counts that a modality is missing, see `make_features`.
        reach: (R,) float32 the cosine that all but `BEYOND_REACH` of a prototype's seconds had at least when it was
            fitted; empty if not known.
    """

    means: Mapping[str, FloatArray]
    prototypes: FloatArray
    offsets: npt.NDArray[np.float64]
    sharpness: float
    absence: float = 0.0
    reach: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))

    @property
    def modalities(self) -> tuple[str, ...]:
        """What seconds are compared by."""
        return tuple(self.means)

    def features(self, points: Sequence[SecondPoint]) -> FloatArray:
        """(B, F) features of seconds; see `make_features`."""
        vectors = stack_vectors(points, {name: len(mean) for name, mean in self.means.items()})
        return make_features(vectors, self.means, absence=self.absence)

    def assign(self, features: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """The row of the best prototype for each second, -1 for one without features, and the confidence in [0, 1].

        Args:
            features: (B, F) of `features`.
        """
        import torch  # takes a second: an index without clusters is read and written without it

        from visxp_search.clusters import hard_assignment, soft_assignment

        scores = torch.from_numpy(features) @ torch.from_numpy(self.prototypes).T  # (B, R)
        offsets = torch.from_numpy(self.offsets)
        rows = hard_assignment(scores, offsets=offsets).numpy()
        plan = soft_assignment(scores, offsets=offsets, sharpness=self.sharpness)
        confidence = plan.max(dim=1).values.numpy()
        return np.where(features.any(axis=1), rows, -1), confidence

    def assign_known(self, features: FloatArray) -> npt.NDArray[np.int64]:
        """As `assign`, but -1 also for seconds outside the reach of their prototype: (B,).

        They are of a kind that was not there when the prototype was fitted, and went to what was least unlike.

        Args:
            features: (B, F) of `features`.
        """
        rows, _ = self.assign(features)
        if not len(self.reach):
            return rows
        cosines = np.einsum("bf,bf->b", features, self.prototypes[rows])
        return np.where(cosines >= self.reach[rows] - 1e-6, rows, -1)

    def assign_alone(self, features: FloatArray) -> dict[str, npt.NDArray[np.int64]]:
        """Modality -> the row of the prototype that it alone points to, (B,), -1 where a second lacks it.

        Args:
            features: (B, F) of `features`.
        """
        found, start = {}, 0
        for name, mean in self.means.items():
            part = slice(start, start + len(mean))
            start += len(mean)
            own, prototypes = features[:, part], self.prototypes[:, part]
            cosines = own @ _normalise(prototypes).T  # (B, D) @ (D, R); of unscaled rows: the best one is the same
            cosines[:, ~prototypes.any(axis=1)] = -np.inf
            found[name] = np.where(own.any(axis=1), cosines.argmax(axis=1), -1)
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON data; `from_json` is the inverse, bit by bit."""
        return {
            "means": {name: _pack(mean) for name, mean in self.means.items()},
            "prototypes": _pack(self.prototypes),
            "offsets": _pack(self.offsets),
            "sharpness": self.sharpness,
            "absence": self.absence,
            "reach": _pack(self.reach),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ClusterModel":
        """What `to_json` wrote."""
        return ClusterModel(
            means={name: _unpack(mean) for name, mean in data["means"].items()},
            prototypes=_unpack(data["prototypes"]),
            offsets=_unpack(data["offsets"]),
            sharpness=float(data["sharpness"]),
            # Clusters of earlier releases have neither.
            absence=float(data.get("absence", 0.0)),
            reach=_unpack(data["reach"]) if "reach" in data else np.empty(0, dtype=np.float32),
        )


def measure_reach(features: FloatArray, prototypes: FloatArray, rows: npt.NDArray[np.int64]) -> FloatArray:
    """The reach (R,) of prototypes (R, F), see `ClusterModel`.

    Args:
        features: (B, F) of seconds.
        prototypes: of norm 1.
        rows: (B,) the prototype of each second; one without seconds reaches only itself.
    """
    cosines = np.einsum("bf,bf->b", features, prototypes[rows])
    order = np.argsort(rows, kind="stable")
    parts = np.split(cosines[order], np.searchsorted(rows[order], np.arange(1, len(prototypes))))
    return np.array([np.quantile(part, BEYOND_REACH) if len(part) else 1 for part in parts], dtype=np.float32)


def stack_vectors(points: Sequence[SecondPoint], dims: Mapping[str, int]) -> FloatArray:
    """The modalities of seconds side by side, zeros where one is missing: (B, F) for dims modality -> D."""
    rows = np.zeros((len(points), sum(dims.values())), dtype=np.float32)
    start = 0
    for name, dim in dims.items():
        there = [row for row, point in enumerate(points) if name in point.vectors]
        if there:
            rows[there, start : start + dim] = np.stack([points[row].vectors[name] for row in there])
        start += dim
    return rows


def make_features(vectors: FloatArray, means: Mapping[str, FloatArray], *, absence: float) -> FloatArray:
    """What seconds are compared by, a row a second.

    Args:
        vectors: (B, F) of `stack_vectors`; more columns behind them are not looked at.
        means: modality -> (D,) mean embedding, in the order of the columns.
        absence: what a missing modality counts, where one that is there counts 1. With 0 there is no column for it,
            and a second without any vector is a row of zeros.

    Returns:
        (B, F + M) float32 of norm 1: the modalities, then of each of these M whether it is missing.
    """
    parts, missing, start = [], [], 0
    for mean in means.values():
        part = vectors[:, start : start + len(mean)].astype(np.float32)
        there = part.any(axis=1, keepdims=True)
        parts.append(_normalise(np.where(there, part - mean, 0)))
        missing.append(absence * ~there)
        start += len(mean)
    return _normalise(np.concatenate([*parts, *(missing if absence else ())], axis=1))


def _normalise(rows: npt.NDArray[Any]) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 1e-9, norms, 1)).astype(np.float32)


def _pack(array: npt.NDArray[Any]) -> dict[str, Any]:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return {
        "type": array.dtype.name,
        "shape": list(array.shape),
        "base64": base64.b64encode(little.tobytes()).decode("ascii"),
    }


def _unpack(data: Mapping[str, Any]) -> npt.NDArray[Any]:
    kind = np.dtype(data["type"]).newbyteorder("<")
    flat = np.frombuffer(base64.b64decode(data["base64"]), dtype=kind)
    return flat.reshape(data["shape"]).astype(data["type"])
