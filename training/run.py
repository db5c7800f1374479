"""From a corpus to a checkpoint: builds everything from one recipe, calls the stages, measures, writes.

Each stage keeps its state in the run folder, so the same call goes on after an interruption.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from training.avc import train_avc
from training.card import write_card
from training.config import Recipe, recipe_to_json
from training.corpus import load_examples
from training.data import load_material
from training.distributed import join_workers
from training.evaluate import evaluate, write_evaluation
from training.hierarchy import train_hierarchy
from training.joint import train_joint
from training.package import package_checkpoint
from training.pairs import set_centres
from training.report import write_report
from training.selflabel import train_selflabel
from training.state import read_rows
from training.warmstart import train_warmstart
from visxp_search.checkpoint import Architecture, Networks, load_checkpoint, save_checkpoint

Progress = Callable[[str, int, int], None]
STAGES = ("warmstart", "avc", "selflabel", "joint")
"""Of a whole run, in their order."""


def run_encoder(
    corpus: Path, recipe: Recipe, *, modality: str, run: Path, cache: Path, progress: Progress
) -> dict[str, Any]:
    """Warm-start one encoder only, so that two processes can train both side by side; `run_warmstart` goes on from it.

    Returns:
        The last row of its log.
    """
    rate = recipe.spectrogram.sample_rate_hz
    examples = load_examples(corpus, modality=modality, cache=cache, sample_rate_hz=rate, progress=progress)
    train_warmstart(examples, recipe, modality=modality, run=run, progress=progress)
    return dict(read_rows(run, f"warmstart_{modality}")[-1])


def run_warmstart(
    corpus: Path, out: Path, recipe: Recipe, *, run: Path, cache: Path, progress: Progress
) -> dict[str, Any]:
    """Train both encoders, and write a checkpoint folder with its card; its joint heads are untrained.

    Args:
        corpus: folder with media, `manifest.csv` and `teachers.npz`.
        out: the checkpoint folder to write.
        recipe: all settings.
        run: folder for the state of the stages; the run resumes from it.
        cache: folder for decoded media.
        progress: called with (what, done, total).

    Returns:
        The last row of each encoder's log, and the checkpoint's id under `checkpoint`.
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
    networks = Networks(_architecture(recipe))
    networks.visual.load_state_dict(encoders["visual"].state_dict())
    networks.audio.load_state_dict(encoders["audio"].state_dict())
    provenance = {
        "stages": ["warmstart"],
        "recipe": recipe_to_json(recipe),
        "corpus": {
            "manifest_rows": {modality: len(rows.files) for modality, rows in examples.items()},
            "held_out_rows": {modality: int(rows.held_out.sum()) for modality, rows in examples.items()},
        },
    }
    checkpoint_id = save_checkpoint(out, networks, provenance=provenance, card=write_card(provenance, networks))
    logs = {f"warmstart_{modality}": read_rows(run, f"warmstart_{modality}")[-1] for modality in examples}
    return {**logs, "checkpoint": checkpoint_id}


def override(recipe: Recipe, *, epochs: int | None, stages: Sequence[str]) -> Recipe:
    """A recipe with another number of epochs for the named parts, in one cycle."""
    if epochs is None:
        return recipe
    changed: dict[str, Any] = {}
    for stage in stages:
        one_cycle = {"restart_epochs": 0} if stage.startswith("warmstart") else {}
        changed[stage] = dataclasses.replace(getattr(recipe, stage), epochs=epochs, **one_cycle)
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
        stage: `avc`, `selflabel`, `joint` or `hierarchy`.
        data: corpus or shards, see `data.load_material`.
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
    material = load_material(data, cache=cache, sample_rate_hz=rate, progress=progress)
    pairs = material.pairs
    with join_workers(device) as workers:
        if start is None:
            set_centres(networks, pairs, device=workers.device)
        options: dict[str, Any] = {"seed": recipe.seed, "run": run, "workers": workers, "progress": progress}
        rehearsal = material.rehearsal
        if stage == "avc":
            networks = train_avc(networks, pairs, recipe.avc, rehearsal=rehearsal, **options)
        elif stage == "selflabel":
            networks = train_selflabel(networks, pairs, recipe.selflabel, rehearsal=rehearsal, **options)
        elif stage == "joint":
            networks = train_joint(networks, pairs, recipe.joint, **options)
        else:
            networks = train_hierarchy(networks, pairs, recipe.hierarchy, rehearsal=rehearsal, **options)
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
    material = load_material(data, cache=cache, sample_rate_hz=rate, progress=progress)
    evaluation, shown = evaluate(checkpoint, material, seed=seed, device=device, progress=progress, beside=beside)
    out.mkdir(parents=True, exist_ok=True)
    write_evaluation(out / "evaluation.json", evaluation)
    write_report(out / "report.html", evaluation, shown, run=run)
    return evaluation


def run_all(
    corpus: Path, out: Path, recipe: Recipe, *, run: Path, cache: Path, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """All stages of a recipe, each from the checkpoint before it and evaluated beside it; then the package.

    Checkpoints lie in `run/checkpoint_<stage>`, evaluations in `run/evaluation_<stage>`: together they say what each
    stage adds.

    Returns:
        As `package_checkpoint`.
    """
    checkpoint = run / "checkpoint_warmstart"
    run_warmstart(corpus, checkpoint, recipe, run=run, cache=cache, progress=progress)
    options: dict[str, Any] = {"run": run, "cache": cache, "device": device, "progress": progress}
    run_evaluate(checkpoint, corpus, run / "evaluation_warmstart", seed=recipe.seed, **options)
    for stage in STAGES[1:]:
        start, checkpoint = checkpoint, run / f"checkpoint_{stage}"
        run_stage(stage, corpus, checkpoint, recipe, start=start, **options)
        run_evaluate(checkpoint, corpus, run / f"evaluation_{stage}", seed=recipe.seed, beside=[start], **options)
    evaluations = [run / f"evaluation_{stage}" / "evaluation.json" for stage in STAGES]
    return package_checkpoint(checkpoint, out, evaluations=evaluations)


def _architecture(recipe: Recipe) -> Architecture:
    return Architecture(recipe.spectrogram, recipe.visual, recipe.audio, joint=recipe.avc.joint)
