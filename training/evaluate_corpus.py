"""What only a corpus can tell of a checkpoint: its photographs, its sound files, and the neighbours its teacher sees.

Held-out groups only, each table beside baselines of the same run, as in `evaluate`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.baselines import centre_and_normalise, colour_histograms, mfcc_statistics
from training.corpus import Examples
from training.metrics import bootstrap_mean, label_retrieval, overlap_scores
from training.pairs import Rows, embed_frames, embed_waveforms
from visxp_search.checkpoint import Networks

FloatArray = npt.NDArray[np.float32]
MANY_NAMES = "mixed"
"""The label of files of which nobody said what they show; they are left out."""
MEASURES = {"1-NN": "R@1", "mAP": "mAP"}
"""Name in the table -> name in `label_retrieval`; leave-one-out, R@1 is the accuracy of the nearest neighbour."""


@dataclass(frozen=True)
class Method:
    """A way of embedding that is measured.

    Attributes:
        name: for the tables.
        embed: (Examples, rows) -> (R, D) of norm 1.
    """

    name: str
    embed: Callable[[Examples, Rows], FloatArray]


def measure_corpus(
    networks: Mapping[str, Networks], examples: Mapping[str, Examples], *, device: torch.device
) -> list[dict[str, Any]]:
    """The tables of a corpus, as `evaluate` gives its own.

    Args:
        networks: those that are measured, by their name in the tables.
        examples: both modalities, by name.
        device: where to compute.
    """
    visual, audio = examples["visual"], examples["audio"]
    return [
        measure_neighbours(_methods(networks, "visual", device), visual),
        measure_files(_methods(networks, "visual", device), visual, title="Photographs"),
        measure_files(_methods(networks, "audio", device), audio, title="Sound files"),
    ]


def measure_neighbours(methods: list[Method], examples: Examples) -> dict[str, Any]:
    """How many of the ten nearest pictures of other groups by the teacher are among the ten nearest here."""
    rows = np.flatnonzero(examples.held_out)
    groups = examples.groups[rows]
    teacher = centre_and_normalise(examples.features[rows])
    measured = []
    for method in methods[:-1]:  # the last one is the teacher itself
        scores = overlap_scores(method.embed(examples, rows), teacher, groups, k=10)
        of_videos = examples.is_video[rows]
        values = {
            "all": bootstrap_mean(scores, groups),
            "seconds of videos": bootstrap_mean(scores[of_videos], groups[of_videos]),
        }
        measured.append({"name": method.name, "values": values})
    about = f"share of the picture teacher's 10 nearest of other groups found, among {len(rows)} pictures"
    return {
        "title": "Neighbours of the teacher",
        "about": about,
        "measures": ["all", "seconds of videos"],
        "rows": measured,
    }


def measure_files(methods: list[Method], examples: Examples, *, title: str) -> dict[str, Any]:
    """Files without a partner, each the mean of its seconds: do the nearest others carry the same label?"""
    rows = np.flatnonzero(examples.held_out & ~examples.is_video)
    files, first, member = np.unique(examples.files[rows], return_index=True, return_inverse=True)
    labels, groups = examples.labels[rows[first]], examples.groups[rows[first]]
    asked = labels != MANY_NAMES
    measured = []
    for method in methods:
        embeddings = method.embed(examples, rows)
        sums = np.zeros((len(files), embeddings.shape[1]), dtype=np.float32)
        np.add.at(sums, member, embeddings)
        means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        scores = label_retrieval(means[asked], labels[asked], groups[asked])
        values = {name: bootstrap_mean(scores[measure], groups[asked]) for name, measure in MEASURES.items()}
        if any(values.values()):
            measured.append({"name": method.name, "values": values})
    n_asked = int(np.isfinite(scores["mAP"]).sum())
    about = f"{n_asked} files whose label another of {int(asked.sum())} carries, leave-one-out"
    return {"title": title, "about": about, "measures": list(MEASURES), "rows": measured}


def _methods(networks: Mapping[str, Networks], modality: str, device: torch.device) -> list[Method]:
    """The networks, handcrafted features, and the teacher."""
    embed = embed_frames if modality == "visual" else embed_waveforms

    def with_networks(measured: Networks) -> Callable[[Examples, Rows], FloatArray]:
        measured = measured.to(device)
        return lambda examples, rows: embed(
            measured, lambda wanted: np.asarray(examples.inputs[wanted]), rows, device=device
        )

    def by_hand(examples: Examples, rows: Rows) -> FloatArray:
        inputs: npt.NDArray[Any] = np.asarray(examples.inputs[rows])
        if modality == "visual":
            return colour_histograms(inputs)
        return mfcc_statistics(inputs, sample_rate_hz=inputs.shape[1])

    return [
        *(Method(name, with_networks(measured)) for name, measured in networks.items()),
        Method("colour histogram" if modality == "visual" else "MFCC statistics", by_hand),
        Method("teacher", lambda examples, rows: centre_and_normalise(examples.features[rows])),
    ]
