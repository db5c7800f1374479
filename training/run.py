"""From a corpus to a checkpoint: builds everything from one recipe, calls the stages, measures, writes.

Each stage keeps its state in the run folder, so the same call goes on after an interruption.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from training.avc import train_avc
from training.card import write_card
from training.config import Recipe, recipe_to_json
from training.corpus import Examples, load_examples, match_pairs
from training.data import load_pairs
from training.distributed import join_workers
from training.evaluate import evaluate, write_evaluation
from training.hierarchy import train_hierarchy
from training.joint import train_joint
from training.metrics import mean_average_precision, nearest_neighbour_accuracy, neighbour_overlap, paired_recall
from training.package import package_checkpoint
from training.pairs import set_centres
from training.report import write_report
from training.selflabel import train_selflabel
from training.state import read_rows
from training.warmstart import build_encoder, compute_features, train_warmstart
from visxp_search.checkpoint import Architecture, Networks, load_checkpoint, save_checkpoint
from visxp_search.encoders import Encoder

FloatArray = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def run_warmstart(
    corpus: Path, out: Path, recipe: Recipe, *, run: Path, cache: Path, progress: Progress
) -> dict[str, Any]:
    """Train both encoders and the joint heads, and write a checkpoint folder with its card.

    Args:
        corpus: folder with media, `manifest.csv` and `teachers.npz`.
        out: the checkpoint folder to write.
        recipe: all settings.
        run: folder for the state of the stages; the run resumes from it.
        cache: folder for decoded media.
        progress: called with (what, done, total).

    Returns:
        Measures on held-out groups, as also written to `metrics.json` in the run folder.
    """
    rate = recipe.spectrogram.sample_rate_hz
    examples = {
        modality: load_examples(corpus, modality=modality, cache=cache, sample_rate_hz=rate, progress=progress)
        for modality in ("visual", "audio")
    }
    encoders = {
        modality: train_warmstart(rows, recipe, modality=modality, run=run, progress=progress)
        for modality, rows in examples.items()
    }
    embeddings = {modality: embed_all(encoders[modality], rows, recipe) for modality, rows in examples.items()}
    first, second = match_pairs(examples["visual"], examples["audio"])
    groups = examples["visual"].groups[first]
    held_out = examples["visual"].held_out[first]
    visual, audio = embeddings["visual"][first], embeddings["audio"][second]
    heads = train_joint(
        visual[~held_out], audio[~held_out], groups[~held_out], recipe.joint, seed=recipe.seed, progress=progress
    )
    with torch.inference_mode():
        joint_visual = heads[0](torch.from_numpy(visual[held_out])).numpy()
        joint_audio = heads[1](torch.from_numpy(audio[held_out])).numpy()
    metrics: dict[str, Any] = {
        "visual": measure_visual(embeddings["visual"], examples["visual"], recipe),
        "audio": measure_audio(embeddings["audio"], examples["audio"], recipe),
        "joint": {
            "groups": len(np.unique(groups[held_out])),
            "sound_to_picture_R@10": paired_recall(joint_audio, joint_visual, groups[held_out], k=10),
            "picture_to_sound_R@10": paired_recall(joint_visual, joint_audio, groups[held_out], k=10),
        },
    }
    networks = Networks(_architecture(recipe))
    parts = (encoders["visual"], encoders["audio"], *heads)
    for own, trained in zip(
        (networks.visual, networks.audio, networks.joint_visual, networks.joint_audio), parts, strict=True
    ):
        own.load_state_dict(trained.state_dict())
    provenance = {
        "stages": ["warmstart", "joint"],
        "recipe": recipe_to_json(recipe),
        "corpus": {
            "manifest_rows": {modality: len(rows.files) for modality, rows in examples.items()},
            "held_out_rows": {modality: int(rows.held_out.sum()) for modality, rows in examples.items()},
        },
        "metrics": metrics,
    }
    checkpoint_id = save_checkpoint(out, networks, provenance=provenance, card=write_card(provenance, networks))
    metrics["checkpoint"] = checkpoint_id
    (run / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def embed_all(encoder: Encoder, examples: Examples, recipe: Recipe) -> FloatArray:
    """(N, D) embeddings of all rows of a modality."""
    features = compute_features(encoder, examples, np.arange(len(examples.files)), recipe=recipe)
    return F.normalize(torch.from_numpy(features) - encoder.centre, dim=1).numpy()


def measure_visual(embeddings: FloatArray, examples: Examples, recipe: Recipe) -> dict[str, Any]:
    """Held-out pictures: how far their neighbours are the teacher's, beside an untrained network."""
    rows = np.flatnonzero(examples.held_out)
    groups = examples.groups[rows]
    teacher = F.normalize(torch.from_numpy(examples.features[rows]), dim=1).numpy()
    untrained = embed_untrained(examples, rows, recipe, modality="visual")
    return {
        "rows": len(rows),
        "neighbour_overlap@10": neighbour_overlap(embeddings[rows], teacher, groups),
        "untrained_neighbour_overlap@10": neighbour_overlap(untrained, teacher, groups),
    }


def measure_audio(embeddings: FloatArray, examples: Examples, recipe: Recipe) -> dict[str, Any]:
    """Held-out sound files (mean over their seconds): labels of neighbours.

    Beside them an untrained network and the teacher. Only labels that at least five held-out files carry are counted.
    """
    rows = np.flatnonzero(examples.held_out & ~examples.is_video)
    files, member = np.unique(examples.files[rows], return_inverse=True)
    labels = np.array([examples.labels[rows[member == file]][0] for file in range(len(files))])
    groups = np.array([examples.groups[rows[member == file]][0] for file in range(len(files))])
    counted = np.array([(labels == label).sum() >= 5 for label in labels])

    def measure(vectors: FloatArray) -> dict[str, float]:
        means = np.stack([vectors[member == file].mean(axis=0) for file in range(len(files))])
        means = means / np.linalg.norm(means, axis=1, keepdims=True)
        chosen = means[counted], labels[counted], groups[counted]
        return {"1-NN": nearest_neighbour_accuracy(*chosen), "mAP": mean_average_precision(*chosen)}

    untrained = embed_untrained(examples, rows, recipe, modality="audio")
    return {
        "files": int(counted.sum()),
        "labels": len(np.unique(labels[counted])),
        **measure(embeddings[rows]),
        "untrained": measure(untrained),
        "teacher": measure(examples.features[rows]),
    }


def embed_untrained(examples: Examples, rows: npt.NDArray[np.int64], recipe: Recipe, *, modality: str) -> FloatArray:
    """Embeddings of the given rows by the same network with random weights, centred on them: the baseline."""
    torch.manual_seed(recipe.seed + 1)
    features = compute_features(build_encoder(recipe, modality=modality), examples, rows, recipe=recipe)
    centred = features - features.mean(axis=0)
    return np.asarray(centred / np.linalg.norm(centred, axis=1, keepdims=True), dtype=np.float32)


def override(recipe: Recipe, *, epochs: int | None, stages: Sequence[str]) -> Recipe:
    """A recipe with another number of epochs for the named parts."""
    if epochs is None:
        return recipe
    changed = {stage: dataclasses.replace(getattr(recipe, stage), epochs=epochs) for stage in stages}
    return dataclasses.replace(recipe, **changed)


def run_stage(
    stage: str,
    data: Path,
    out: Path,
    recipe: Recipe,
    *,
    start: Path | None,
    run: Path,
    cache: Path | None,
    device: torch.device,
    progress: Progress,
) -> dict[str, Any]:
    """One stage after the warm start: from a checkpoint and data to the next checkpoint.

    Args:
        stage: `avc`, `selflabel` or `hierarchy`.
        data: corpus or shards, see `data.load_pairs`.
        out: the checkpoint folder to write.
        recipe: all settings; shapes of networks come from `start` if there is one.
        start: the checkpoint to go on from; None for untrained networks.
        run: folder for the state of the stage; the run resumes from it.
        cache: folder for decoded media of a corpus.
        device: kind of device to train on.
        progress: called with (what, done, total).

    Returns:
        The last row of the stage's log, and the checkpoint's id under `checkpoint`.
    """
    torch.manual_seed(recipe.seed)
    loaded = None if start is None else load_checkpoint(start)
    networks = loaded.networks if loaded else Networks(_architecture(recipe))
    networks.requires_grad_(True)
    earlier = loaded.provenance if loaded else {"stages": []}
    rate = networks.architecture.spectrogram.sample_rate_hz
    pairs, rehearsal = load_pairs(data, cache=cache, sample_rate_hz=rate, progress=progress)
    with join_workers(device) as workers:
        if start is None:
            set_centres(networks, pairs, device=workers.device)
        options: dict[str, Any] = {
            "rehearsal": rehearsal,
            "seed": recipe.seed,
            "run": run,
            "workers": workers,
            "progress": progress,
        }
        if stage == "avc":
            networks = train_avc(networks, pairs, recipe.avc, **options)
        elif stage == "selflabel":
            networks = train_selflabel(networks, pairs, recipe.selflabel, **options)
        else:
            networks = train_hierarchy(networks, pairs, recipe.hierarchy, **options)
        last = read_rows(run, stage)[-1]
        provenance = {
            **earlier,
            "stages": [*earlier.get("stages", []), stage],
            "recipe": recipe_to_json(recipe),
            "pairs": {"rows": len(pairs), "held_out_rows": int(pairs.held_out.sum())},
            "logs": {**earlier.get("logs", {}), stage: last},
        }
        checkpoint_id = ""
        if workers.is_first:
            card = write_card(provenance, networks)
            checkpoint_id = save_checkpoint(out, networks, provenance=provenance, card=card)
        workers.wait()
    return {**last, "checkpoint": checkpoint_id}


def run_evaluate(
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    run: Path | None,
    cache: Path | None,
    seed: int,
    device: torch.device,
    progress: Progress,
    beside: Sequence[Path] = (),
) -> dict[str, Any]:
    """Measure a checkpoint and write `evaluation.json` and `report.html`; see `evaluate.evaluate`."""
    rate = load_checkpoint(checkpoint).networks.architecture.spectrogram.sample_rate_hz
    pairs, _ = load_pairs(data, cache=cache, sample_rate_hz=rate, progress=progress)
    evaluation, shown = evaluate(checkpoint, pairs, seed=seed, device=device, progress=progress, beside=beside)
    out.mkdir(parents=True, exist_ok=True)
    write_evaluation(out / "evaluation.json", evaluation)
    write_report(out / "report.html", evaluation, shown, run=run)
    return evaluation


def run_all(
    corpus: Path, out: Path, recipe: Recipe, *, run: Path, cache: Path, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """All stages of a recipe, each from the checkpoint before it, each evaluated; then the package.

    Checkpoints lie in `run/checkpoint_<stage>`, evaluations in `run/evaluation_<stage>`: together they say what each
    stage adds.

    Returns:
        As `package_checkpoint`.
    """
    checkpoint = run / "checkpoint_warmstart"
    run_warmstart(corpus, checkpoint, recipe, run=run, cache=cache, progress=progress)
    options: dict[str, Any] = {"run": run, "cache": cache, "device": device, "progress": progress}
    run_evaluate(checkpoint, corpus, run / "evaluation_warmstart", seed=recipe.seed, **options)
    for stage in ("avc", "selflabel"):
        start, checkpoint = checkpoint, run / f"checkpoint_{stage}"
        run_stage(stage, corpus, checkpoint, recipe, start=start, **options)
        run_evaluate(checkpoint, corpus, run / f"evaluation_{stage}", seed=recipe.seed, **options)
    return package_checkpoint(checkpoint, out, evaluation=run / "evaluation_selflabel" / "evaluation.json")


def _architecture(recipe: Recipe) -> Architecture:
    return Architecture(recipe.spectrogram, recipe.visual, recipe.audio, joint=recipe.joint.dimensions)
