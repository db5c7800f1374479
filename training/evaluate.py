"""How good a checkpoint is on held-out groups, always beside baselines measured in the same run.

Everything is embedded once; each table is a small function from embeddings to rows of cells, a cell being a value with
its 95 % bootstrap interval over groups. Baselines: the same network with random weights, a colour histogram, MFCC
statistics, and k-means on the same features.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import RidgeClassifier

from training.baselines import colour_histograms, mfcc_statistics
from training.data import Material
from training.degrade import OF_FRAMES, OF_WAVEFORMS
from training.evaluate_corpus import measure_corpus
from training.metrics import bootstrap_clustering, bootstrap_mean, label_retrieval, paired_ranks, same_moment_found
from training.pairs import Pairs, Rows, embed_frames, embed_waveforms, set_centres
from visxp_search.checkpoint import Checkpoint, Networks, load_checkpoint
from visxp_search.errors import UsageError
from visxp_search.heads import FusionNetwork

FloatArray = npt.NDArray[np.float32]
Cell = dict[str, float] | None
Progress = Callable[[str, int, int], None]
MAX_HELD_OUT, MAX_TRAINING, MAX_MOMENTS = 4000, 4000, 600
"""Rows measured at most, spread evenly: rankings grow with their square."""
RANKS = (1, 5, 10)
UNTRAINED = "same network, untrained"


@dataclass(frozen=True)
class Embedded:
    """What one method makes of the same rows.

    Attributes:
        name: for the tables.
        visual: (N, D) of frames.
        audio: (N, D) of waveforms.
        train_visual: (M, D) of training frames, for linear probes and thresholds.
        train_audio: (M, D) of training waveforms.
        networks: that made them; None for features that nobody trained.
    """

    name: str
    visual: FloatArray
    audio: FloatArray
    train_visual: FloatArray
    train_audio: FloatArray
    networks: Networks | None = None


@dataclass(frozen=True)
class Rated:
    """The rows that are measured, with what is known of them.

    Attributes:
        labels: (N,) of held-out rows.
        groups: (N,).
        train_labels: (M,).
        train_groups: (M,).
        frames: (N, 3, S, S) uint8.
        waveforms: (N, n) int16.
    """

    labels: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    train_labels: npt.NDArray[np.str_]
    train_groups: npt.NDArray[np.str_]
    frames: npt.NDArray[np.uint8]
    waveforms: npt.NDArray[np.int16]


@dataclass(frozen=True)
class Shown:
    """What the report shows besides the numbers."""

    ours: Embedded
    rated: Rated


def evaluate(
    checkpoint_path: Path,
    material: Material,
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
    beside: Sequence[Path] = (),
) -> tuple[dict[str, Any], Shown]:
    """Measure a checkpoint on the held-out pairs.

    Args:
        checkpoint_path: a checkpoint folder.
        material: with held-out groups; training groups serve linear probes and thresholds.
        seed: of the untrained network, negatives and draws.
        device: where to compute.
        progress: called with (what, steps done, steps in all).
        beside: further checkpoint folders, measured on the same seconds in the same tables.

    Returns:
        The evaluation as JSON values (`tables`, `clusters`, counts), and what the report shows besides.

    Raises:
        UsageError: If fewer than two groups are held out.
    """
    checkpoint, pairs = load_checkpoint(checkpoint_path), material.pairs
    held_out = _spread(np.flatnonzero(pairs.held_out), MAX_HELD_OUT)
    training = _spread(pairs.training_rows, MAX_TRAINING)
    if len(set(pairs.groups[held_out].tolist())) < 2:
        raise UsageError("fewer than two groups are held out; nothing can be measured, add videos")
    rated = Rated(
        labels=pairs.labels[held_out],
        groups=pairs.groups[held_out],
        train_labels=pairs.labels[training],
        train_groups=pairs.groups[training],
        frames=np.asarray(pairs.read_frames(held_out), dtype=np.uint8),
        waveforms=np.asarray(pairs.read_waveforms(held_out), dtype=np.int16),
    )

    ours = embed_with("this checkpoint", checkpoint.networks, pairs, held_out, training, device=device)
    blank = build_untrained(checkpoint, pairs, seed=seed, device=device)
    untrained = embed_with(UNTRAINED, blank, pairs, held_out, training, device=device)
    trained = [ours]
    for path in beside:
        other = load_checkpoint(path)
        name = f"checkpoint {other.checkpoint_id}"
        trained.append(embed_with(name, other.networks, pairs, held_out, training, device=device))
    methods = [*trained, untrained, embed_plainly(pairs, rated, training)]
    measurements: list[Callable[[], dict[str, Any]]] = [
        lambda: measure_correspondence(trained, untrained, rated, seed=seed),
        lambda: measure_across([*trained, untrained], rated),
        lambda: measure_retrieval(methods, rated, modality="visual"),
        lambda: measure_retrieval(methods, rated, modality="audio"),
        lambda: measure_probe(methods, rated),
        lambda: measure_clusters(methods, rated, seed=seed),
        lambda: measure_moments(methods, rated, modality="visual", device=device),
        lambda: measure_moments(methods, rated, modality="audio", device=device),
    ]
    tables = []
    for number, measure in enumerate(measurements, start=1):
        tables.append(measure())
        progress("evaluate", number, len(measurements) + 1)
    if material.examples:
        networks = {each.name: each.networks for each in [*trained, untrained] if each.networks is not None}
        tables += measure_corpus(networks, material.examples, device=device)
    progress("evaluate", len(measurements) + 1, len(measurements) + 1)
    evaluation = {
        "checkpoint": checkpoint.checkpoint_id,
        "stages": checkpoint.provenance.get("stages", []),
        "seed": seed,
        "held_out": {"seconds": len(held_out), "groups": len(set(rated.groups.tolist()))},
        "training": {"seconds": len(training), "groups": len(set(rated.train_groups.tolist()))},
        "tables": [table for table in tables if table["rows"]],
        "clusters": count_clusters(ours),
    }
    return evaluation, Shown(ours, rated)


def embed_with(
    name: str, networks: Networks, pairs: Pairs, held_out: Rows, training: Rows, *, device: torch.device
) -> Embedded:
    """Embed the measured rows with networks."""
    networks = networks.to(device)
    return Embedded(
        name=name,
        visual=embed_frames(networks, pairs.read_frames, held_out, device=device),
        audio=embed_waveforms(networks, pairs.read_waveforms, held_out, device=device),
        train_visual=embed_frames(networks, pairs.read_frames, training, device=device),
        train_audio=embed_waveforms(networks, pairs.read_waveforms, training, device=device),
        networks=networks,
    )


def build_untrained(checkpoint: Checkpoint, pairs: Pairs, *, seed: int, device: torch.device) -> Networks:
    """The same networks with random weights, their centres in the middle of the training data."""
    torch.manual_seed(seed)
    networks = Networks(checkpoint.networks.architecture).requires_grad_(False)
    set_centres(networks, pairs, device=device)
    return networks


def embed_plainly(pairs: Pairs, rated: Rated, training: Rows) -> Embedded:
    """Colour histograms and MFCC statistics of the measured rows."""
    frames = np.concatenate([rated.frames, np.asarray(pairs.read_frames(training), dtype=np.uint8)])
    waveforms = np.concatenate([rated.waveforms, np.asarray(pairs.read_waveforms(training), dtype=np.int16)])
    visual = colour_histograms(frames)
    audio = mfcc_statistics(waveforms, sample_rate_hz=waveforms.shape[1])
    n = len(rated.labels)
    return Embedded("colour histogram / MFCC", visual[:n], audio[:n], visual[n:], audio[n:])


def measure_correspondence(
    trained: Sequence[Embedded], untrained: Embedded, rated: Rated, *, seed: int
) -> dict[str, Any]:
    """Accuracy of "belong together", one negative of another group for each positive."""
    random = np.random.default_rng(seed)
    partners = _draw_others(rated.groups, random)
    train_partners = _draw_others(rated.train_groups, random)
    rows = []
    names = ["", *(f", {method.name}" for method in trained[1:])]
    for method, suffix in zip(trained, names, strict=True):
        if method.networks is not None and method.networks.fusion is not None:
            fusion = method.networks.fusion

            def fused(v: torch.Tensor, a: torch.Tensor, fusion: FusionNetwork = fusion) -> torch.Tensor:
                logits: torch.Tensor = fusion(v, a)
                return logits.diagonal()

            scores = _score_pairs(method, method.visual, method.audio, partners, fused)
            rows.append({"name": f"fusion network{suffix}", "values": _accuracy(scores, 0.0, rated.groups)})
    for method, suffix in zip([*trained, untrained], [*names, ", untrained"], strict=True):
        if method.networks is not None:
            networks = method.networks

            def cosine(v: torch.Tensor, a: torch.Tensor, networks: Networks = networks) -> torch.Tensor:
                products: torch.Tensor = networks.joint_visual(v) * networks.joint_audio(a)
                return products.sum(dim=1)

            fitted = _score_pairs(method, method.train_visual, method.train_audio, train_partners, cosine)
            threshold = (np.median(fitted[0]) + np.median(fitted[1])) / 2
            scores = _score_pairs(method, method.visual, method.audio, partners, cosine)
            values = _accuracy(scores, float(threshold), rated.groups)
            rows.append({"name": f"joint space{suffix}", "values": values})
    about = (
        "balanced; negatives from random other groups; chance 0.5; of all seconds, and where each group counts alike, "
        "however long it is; the joint space's threshold comes from training pairs"
    )
    return {"title": "Correspondence", "about": about, "measures": ["accuracy", "groups alike"], "rows": rows}


def measure_across(methods: list[Embedded], rated: Rated) -> dict[str, Any]:
    """A sound finds its picture, and the reverse, among one second of each group."""
    rows = []
    for method in methods:
        visual, audio = _project(method)
        for name, queries, targets in (("sound finds picture", audio, visual), ("picture finds sound", visual, audio)):
            ranks = paired_ranks(queries, targets, rated.groups)
            scores = {f"R@{k}": (ranks <= k).astype(np.float32) for k in RANKS}
            scores["mAP"] = (1 / ranks).astype(np.float32)  # one target is right: precision at its rank
            values = {name: bootstrap_mean(score, rated.groups) for name, score in scores.items()}
            rows.append({"name": f"{name}, {method.name}", "values": values})
    n_groups = len(set(rated.groups.tolist()))
    about = f"among {n_groups} groups, one second of each; chance of R@10 {min(1.0, 10 / n_groups):.2f}"
    return {"title": "Across modalities", "about": about, "measures": ["R@1", "R@5", "R@10", "mAP"], "rows": rows}


def measure_retrieval(methods: list[Embedded], rated: Rated, *, modality: str) -> dict[str, Any]:
    """Seconds of other groups with the same label, ranked by one modality."""
    labelled = rated.labels != ""
    rows = []
    for method in methods:
        embeddings = getattr(method, modality)[labelled]
        scores = label_retrieval(embeddings, rated.labels[labelled], rated.groups[labelled])
        values = {name: bootstrap_mean(score, rated.groups[labelled]) for name, score in scores.items()}
        if any(values.values()):
            rows.append({"name": method.name, "values": values})
    title = "By picture" if modality == "visual" else "By sound"
    about = "seconds of other groups with the same label"
    return {"title": title, "about": about, "measures": ["R@1", "R@5", "R@10", "mAP"], "rows": rows}


def measure_probe(methods: list[Embedded], rated: Rated) -> dict[str, Any]:
    """A linear classifier learned on training seconds, accuracy on held-out ones whose label it has seen."""
    seen = np.isin(rated.labels, rated.train_labels) & (rated.labels != "")
    known = rated.train_labels != ""
    rows = []
    if seen.any() and len(set(rated.train_labels[known].tolist())) > 1:
        for method in methods:
            values: dict[str, Cell] = {}
            for name, train, test in (
                ("picture", method.train_visual, method.visual),
                ("sound", method.train_audio, method.audio),
                (
                    "both",
                    np.concatenate([method.train_visual, method.train_audio], axis=1),
                    np.concatenate([method.visual, method.audio], axis=1),
                ),
            ):
                probe = RidgeClassifier(alpha=1.0).fit(train[known], rated.train_labels[known])
                right = probe.predict(test[seen]) == rated.labels[seen]
                values[name] = bootstrap_mean(right.astype(np.float32), rated.groups[seen])
            rows.append({"name": method.name, "values": values})
    about = f"ridge classifier, {int(known.sum())} training seconds, {int(seen.sum())} held-out ones"
    return {"title": "Linear probe", "about": about, "measures": ["picture", "sound", "both"], "rows": rows}


def measure_clusters(methods: list[Embedded], rated: Rated, *, seed: int) -> dict[str, Any]:
    """Agreement of clusters with labels: pseudo-labels of each head, and k-means on all features."""
    labelled = rated.labels != ""
    rows = []
    labels, groups = rated.labels[labelled], rated.groups[labelled]
    own = tell_clusters(methods[0])
    n_clusters = max(2, min(own.shape[2] if own is not None else 32, len(labels) // 2))
    for method in methods if len(labels) else []:
        told = tell_clusters(method)
        if told is None or method.name == UNTRAINED:
            continue
        suffix = "" if method is methods[0] else f", {method.name}"
        for head in range(told.shape[1]):
            clusters = told[labelled, head].argmax(axis=1)
            values = bootstrap_clustering(clusters, labels, groups)
            rows.append({"name": f"pseudo-labels, head {head}{suffix}", "values": values})
    for method in methods if len(labels) else []:
        both = np.concatenate([method.visual, method.audio], axis=1)[labelled]
        learned = np.concatenate([method.train_visual, method.train_audio], axis=1)
        for what, seen in (("k-means", learned), ("k-means of the held-out seconds", both)):
            if len(seen) > n_clusters:
                fitted = KMeans(n_clusters, n_init=3, random_state=seed).fit(seen)
                values = bootstrap_clustering(fitted.predict(both).astype(np.int64), labels, groups)
                rows.append({"name": f"{what}, {method.name}", "values": values})
    about = (
        f"{n_clusters} clusters, {len(labels)} held-out seconds; pseudo-labels and k-means learn from training "
        "seconds, unless it is said otherwise"
    )
    measures = ["NMI", "AMI", "ARI", "purity", "Hungarian"]
    return {"title": "Clusters", "about": about, "measures": measures, "rows": rows}


def measure_moments(methods: list[Embedded], rated: Rated, *, modality: str, device: torch.device) -> dict[str, Any]:
    """A bad copy of a second finds that very second among all of them."""
    rows_measured = _spread(np.arange(len(rated.labels)), MAX_MOMENTS)
    originals: npt.NDArray[Any] = (rated.frames if modality == "visual" else rated.waveforms)[rows_measured]
    copies: Mapping[str, Callable[[Any], Any]] = OF_FRAMES if modality == "visual" else OF_WAVEFORMS
    groups = rated.groups[rows_measured]
    rows = []
    for method in methods:
        values = {}
        for name, change in copies.items():
            targets, queries = _embed_media([originals, change(originals)], method, modality, device=device)
            values[name] = bootstrap_mean(same_moment_found(queries, targets), groups)
        rows.append({"name": method.name, "values": values})
    title = "Same moment, by picture" if modality == "visual" else "Same moment, by sound"
    about = f"R@1 among {len(rows_measured)} seconds"
    return {"title": title, "about": about, "measures": list(copies), "rows": rows}


def tell_clusters(method: Embedded) -> FloatArray | None:
    """(N, n_heads, K) probabilities of the pseudo-labels of held-out seconds; None without self-labelling."""
    if method.networks is None or method.networks.clustering is None:
        return None
    with torch.inference_mode():
        visual, audio = _tensors(method, method.visual, method.audio)
        logits: torch.Tensor = method.networks.clustering(visual, audio)
        return np.asarray(logits.softmax(dim=2).cpu().numpy(), dtype=np.float32)


def count_clusters(method: Embedded) -> dict[str, Any]:
    """How many held-out and training seconds each cluster of each head gets; empty without self-labelling."""
    if method.networks is None or method.networks.clustering is None:
        return {}
    with torch.inference_mode():
        visual, audio = _tensors(method, method.train_visual, method.train_audio)
        chosen = method.networks.clustering(visual, audio).argmax(dim=2).cpu().numpy()  # (M, n_heads)
    n_clusters = method.networks.clustering.shape[1]
    sizes = [np.bincount(column, minlength=n_clusters).tolist() for column in chosen.T]
    used = [float(np.mean(np.array(head) > 0)) for head in sizes]
    return {"sizes_on_training_seconds": sizes, "used": used}


def write_evaluation(path: Path, evaluation: Mapping[str, Any]) -> None:
    """As JSON, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(evaluation, indent=2) + "\n")
    partial.replace(path)


@torch.inference_mode()
def _embed_media(media: list[Any], method: Embedded, modality: str, *, device: torch.device) -> list[FloatArray]:
    """Several versions of the same rows, by one method; centred together where nothing else says where."""
    sizes = np.cumsum([len(part) for part in media])[:-1]
    every = np.concatenate(media)
    if method.networks is None:
        plain = (
            colour_histograms(every) if modality == "visual" else mfcc_statistics(every, sample_rate_hz=every.shape[1])
        )
        return np.split(plain, sizes)
    embed = embed_frames if modality == "visual" else embed_waveforms
    return np.split(embed(method.networks, lambda rows: every[rows], np.arange(len(every)), device=device), sizes)


@torch.inference_mode()
def _project(method: Embedded) -> tuple[FloatArray, FloatArray]:
    """Both modalities in the joint space."""
    if method.networks is None:
        raise AssertionError("only networks have a joint space")
    visual, audio = _tensors(method, method.visual, method.audio)
    networks = method.networks.eval()
    return networks.joint_visual(visual).cpu().numpy(), networks.joint_audio(audio).cpu().numpy()


def _tensors(method: Embedded, *arrays: FloatArray) -> list[torch.Tensor]:
    if method.networks is None:
        raise AssertionError("only networks have a device")
    device = next(method.networks.parameters()).device
    return [torch.from_numpy(array).to(device) for array in arrays]


@torch.inference_mode()
def _score_pairs(
    method: Embedded,
    visual: FloatArray,
    audio: FloatArray,
    partners: Rows,
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[FloatArray, FloatArray]:
    """(N,) scores of each picture with its own sound, and (N,) with the sound of its partner."""
    if method.networks is not None:
        method.networks.eval()
    sides = []
    for sounds in (audio, audio[partners]):
        blocks = []
        for start in range(0, len(visual), 256):
            v, a = _tensors(method, visual[start : start + 256], sounds[start : start + 256])
            blocks.append(score(v, a).cpu().numpy())
        sides.append(np.concatenate(blocks))
    return sides[0], sides[1]


def _accuracy(scores: tuple[FloatArray, FloatArray], threshold: float, groups: npt.NDArray[np.str_]) -> dict[str, Cell]:
    """Share of positives above and of negatives at most at the threshold, half each: of all seconds, and by group."""
    right = ((scores[0] > threshold).astype(np.float32) + (scores[1] <= threshold)) / 2
    names, member = np.unique(groups, return_inverse=True)
    by_group = np.bincount(member, weights=right) / np.bincount(member)
    return {
        "accuracy": bootstrap_mean(right.astype(np.float32), groups),
        "groups alike": bootstrap_mean(by_group.astype(np.float32), names),
    }


def _draw_others(groups: npt.NDArray[np.str_], random: np.random.Generator) -> Rows:
    """For each row a random row of a random other group."""
    names, member = np.unique(groups, return_inverse=True)
    others = (member + random.integers(1, len(names), size=len(groups))) % len(names)
    rows_of = [np.flatnonzero(member == number) for number in range(len(names))]
    return np.array([random.choice(rows_of[other]) for other in others], dtype=np.int64)


def _spread(rows: Rows, limit: int) -> Rows:
    """At most `limit` rows, evenly spaced."""
    if len(rows) <= limit:
        return rows
    return rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]
