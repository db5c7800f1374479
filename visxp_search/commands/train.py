"""`visxp train`: from videos to a checkpoint, stage by stage."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.shared import (
    DEFAULT_WORKERS,
    EXIT_SOME_FAILED,
    DeviceOption,
    JsonOption,
    QuietOption,
    WorkersOption,
    group,
    print_json,
)

if TYPE_CHECKING:
    from training.config import Recipe

DataArgument = Annotated[
    Path, typer.Argument(metavar="DATA", help="Shards that `visxp train prepare` wrote, or a corpus with manifest.csv.")
]
StartOption = Annotated[
    Path | None,
    typer.Option("--from", metavar="CHECKPOINT", help="Checkpoint to go on from. Default: untrained networks."),
]
OutOption = Annotated[Path, typer.Option("--out", metavar="CHECKPOINT", help="Checkpoint folder to write.")]
RunOption = Annotated[
    Path, typer.Option("--run", metavar="RUN", help="Folder for state and logs; the same command goes on from it.")
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", metavar="CACHE", help="Folder for decoded media of a corpus (not for shards)."),
]
RecipeOption = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="Settings as JSON. Default: the built-in ones.")
]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Passes over the data, instead of the recipe's.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch. Default: all cores.")]

app = group("Train the encoders: from videos to a checkpoint, stage by stage.")


@app.command("prepare")
def train_prepare(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder with videos, corpus folder, or VGGSound's CSV list.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="SHARDS", help="Folder for the shards.")],
    layout: Annotated[
        str | None, typer.Option("--layout", help="folder, classes, vggsound or corpus. Default: what it looks like.")
    ] = None,
    media: Annotated[Path | None, typer.Option("--media", help="Folder with the files of a VGGSound list.")] = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Cut videos into 1-second clips in WebDataset shards, split by group, and report what is in them.

    Goes on where an interrupted call stopped. Files that cannot be read are reported (exit code 1).

    Examples: `visxp train prepare ~/Videos --out shards` ·
    `visxp train prepare vggsound.csv --media vggsound --out shards --workers 16`
    """
    from training.prepare import prepare_shards
    from training.sources import find_layout, list_videos
    from visxp_search.console import StepProgress, say
    from visxp_search.spectrogram import SpectrogramConfig

    videos = list(list_videos(source, layout=layout or find_layout(source), media=media))
    rate = SpectrogramConfig().sample_rate_hz
    with StepProgress(quiet=quiet or as_json) as progress:
        report = prepare_shards(videos, out, sample_rate_hz=rate, workers=workers, progress=progress)
    if as_json:
        print_json(report)
    elif not quiet:
        flags = ", ".join(f"{number} {flag}" for flag, number in report["flags"].items())
        say(
            f"{report['videos']} videos, {report['seconds']} seconds ({flags}), {report['pairs']} pairs, "
            f"{len(report['near_duplicates'])} near-duplicates, {len(report['refused'])} refused; "
            f"see {out / 'report.json'}"
        )
    if report["refused"]:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command("warmstart")
def train_warmstart(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder with manifest.csv and teachers.npz.")],
    out: OutOption,
    run: RunOption,
    cache: Annotated[Path, typer.Option("--cache", metavar="CACHE", help="Folder for decoded media (some GB).")],
    only: Annotated[
        str | None,
        typer.Option("--only", help="visual or audio: train this encoder and write no checkpoint yet."),
    ] = None,
    recipe: RecipeOption = None,
    epochs: EpochsOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the encoders to predict features of pretrained networks, and write a checkpoint.

    State is saved after every epoch: interrupt with Ctrl-C and run the same command again to go on. The result is the
    same as without the interruption. Two processes with `--only visual` and `--only audio` and one thread each use two
    cores better than one process; the command without `--only` then finishes from their states.

    Example: `visxp train warmstart corpus --out checkpoint --run runs/first --cache runs/cache`
    """
    from training.run import override, run_encoder, run_warmstart
    from visxp_search.console import StepProgress, say
    from visxp_search.errors import UsageError

    if only not in (None, "visual", "audio"):
        raise UsageError(f"--only {only}: it takes visual or audio")

    settings = override(_load_recipe(recipe), epochs=epochs, stages=("warmstart_visual", "warmstart_audio"))
    _set_threads(threads)
    with StepProgress(quiet=quiet or as_json) as progress:
        if only:
            last = run_encoder(corpus, settings, modality=only, run=run, cache=cache, progress=progress)
        else:
            metrics = run_warmstart(corpus, out, settings, run=run, cache=cache, progress=progress)
    if only:
        if as_json:
            print_json({"run": str(run), **last})
        elif not quiet:
            say(f"{only} encoder trained; its state is in {run}; run the command without --only for the checkpoint")
        return
    if as_json:
        print_json({"out": str(out), **metrics})
    elif not quiet:
        say(f"checkpoint {metrics['checkpoint']} written to {out}; its card is {out / 'README.md'}")


@app.command("avc")
def train_avc(
    data: DataArgument,
    out: OutOption,
    run: RunOption,
    start: StartOption = None,
    cache: CacheOption = None,
    recipe: RecipeOption = None,
    epochs: EpochsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train on audio-visual correspondence: which picture and which sound belong together.

    Several processes: `torchrun --nproc-per-node 2 -m -- visxp_search.cli train avc ...` (see `batches_per_step`).

    Example: `visxp train avc shards --from runs/warm/checkpoint --out runs/avc/checkpoint --run runs/avc`
    """
    settings = _settings(recipe, epochs, "avc")
    _set_threads(threads)
    _run_stage("avc", settings, data, out, run, start, cache, device, as_json=as_json, quiet=quiet)


@app.command("selflabel")
def train_selflabel(
    data: DataArgument,
    out: OutOption,
    run: RunOption,
    start: Annotated[Path, typer.Option("--from", metavar="CHECKPOINT", help="Checkpoint of `visxp train avc`.")],
    cache: CacheOption = None,
    recipe: RecipeOption = None,
    epochs: EpochsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train on pseudo-labels: clusters of wanted sizes over picture and sound, in turns with learning them.

    Example: `visxp train selflabel shards --from runs/avc/checkpoint --out runs/sl/checkpoint --run runs/sl`
    """
    settings = _settings(recipe, epochs, "selflabel")
    _set_threads(threads)
    _run_stage("selflabel", settings, data, out, run, start, cache, device, as_json=as_json, quiet=quiet)


@app.command("joint")
def train_joint(
    data: DataArgument,
    out: OutOption,
    run: RunOption,
    start: Annotated[Path, typer.Option("--from", metavar="CHECKPOINT", help="Checkpoint with trained encoders.")],
    cache: CacheOption = None,
    recipe: RecipeOption = None,
    epochs: EpochsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the joint space and the fusion network anew, on encoders that stay as they are.

    Vectors of pictures and of sounds, and pseudo-labels, stay the same; `search sound --cross` gets better.

    Example: `visxp train joint shards --from runs/sl/checkpoint --out runs/joint/checkpoint --run runs/joint`
    """
    settings = _settings(recipe, epochs, "joint")
    _set_threads(threads)
    _run_stage("joint", settings, data, out, run, start, cache, device, as_json=as_json, quiet=quiet)


@app.command("hierarchy")
def train_hierarchy(
    data: DataArgument,
    out: OutOption,
    run: RunOption,
    start: Annotated[Path, typer.Option("--from", metavar="CHECKPOINT", help="Checkpoint of `visxp train selflabel`.")],
    cache: CacheOption = None,
    recipe: RecipeOption = None,
    epochs: EpochsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train on places in a hyperbolic hierarchy over the clusters of self-labelling: its more complex variant.

    Compare both with `visxp train evaluate DATA --model HIERARCHY --beside SELFLABEL`.

    Example: `visxp train hierarchy shards --from runs/sl/checkpoint --out runs/hi/checkpoint --run runs/hi`
    """
    settings = _settings(recipe, epochs, "hierarchy")
    _set_threads(threads)
    _run_stage("hierarchy", settings, data, out, run, start, cache, device, as_json=as_json, quiet=quiet)


@app.command("evaluate")
def train_evaluate(
    data: DataArgument,
    checkpoint: Annotated[Path, typer.Option("--model", metavar="CHECKPOINT", help="Checkpoint folder to measure.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for evaluation.json and report.html.")],
    run: Annotated[Path | None, typer.Option("--run", metavar="RUN", help="Run folder whose logs are drawn.")] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--beside", metavar="CHECKPOINT", help="Another checkpoint for the same tables. Repeatable."),
    ] = None,
    cache: CacheOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the untrained network, negatives and draws.")] = 0,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a checkpoint on held-out groups beside baselines, as JSON and as a page with plots.

    Correspondence, retrieval by picture, by sound and across, clusters, a linear probe, and the same moment in bad
    copies; with bootstrap intervals.

    Example: `visxp train evaluate shards --model runs/sl/checkpoint --out runs/sl/evaluation --run runs/sl`
    """
    from training.run import run_evaluate
    from visxp_search.checkpoint import available_device
    from visxp_search.console import StepProgress, say

    _set_threads(threads)
    torch_device = available_device(device)
    with StepProgress(quiet=quiet or as_json) as progress:
        evaluation = run_evaluate(
            checkpoint,
            data,
            out,
            run=run,
            cache=cache,
            seed=seed,
            device=torch_device,
            progress=progress,
            beside=beside or (),
        )
    if as_json:
        print_json(evaluation)
    elif not quiet:
        say(f"{len(evaluation['tables'])} tables written to {out / 'report.html'} and {out / 'evaluation.json'}")


@app.command("package")
def train_package(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint of the last stage.")],
    out: OutOption,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            "--evaluation",
            metavar="FILE",
            help="evaluation.json of this checkpoint; repeated, those of earlier stages come first.",
        ),
    ] = None,
    max_megabytes: Annotated[float, typer.Option("--max-megabytes", help="Refuse to write more weights.")] = 20.0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the checkpoint to hand out: weights, config and a card with what was measured.

    Example: `visxp train package runs/sl/checkpoint --evaluation runs/sl/evaluation/evaluation.json --out release`
    """
    from training.package import package_checkpoint
    from visxp_search.console import say

    packaged = package_checkpoint(checkpoint, out, evaluations=evaluation or (), max_megabytes=max_megabytes)
    if as_json:
        print_json(packaged)
    elif not quiet:
        say(f"checkpoint {packaged['checkpoint']} ({packaged['megabytes']} MB) written to {out}")


@app.command("run")
def train_run(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder with manifest.csv and teachers.npz.")],
    out: OutOption,
    run: RunOption,
    cache: Annotated[Path, typer.Option("--cache", metavar="CACHE", help="Folder for decoded media (some GB).")],
    recipe: RecipeOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run all stages of one recipe: warm start, correspondence, self-labelling, joint space, each evaluated; package.

    Goes on where it stopped. Each stage's checkpoint and evaluation stay in the run folder.

    Example: `visxp train run corpus --out checkpoint --run runs/all --cache runs/cache --recipe recipe.json`
    """
    from training.run import run_all
    from visxp_search.checkpoint import available_device
    from visxp_search.console import StepProgress, say

    settings = _load_recipe(recipe)
    _set_threads(threads)
    torch_device = available_device(device)
    with StepProgress(quiet=quiet or as_json) as progress:
        packaged = run_all(corpus, out, settings, run=run, cache=cache, device=torch_device, progress=progress)
    if as_json:
        print_json(packaged)
    elif not quiet:
        say(f"checkpoint {packaged['checkpoint']} ({packaged['megabytes']} MB) written to {out}; see {run}")


def _run_stage(
    stage: str,
    settings: "Recipe",
    data: Path,
    out: Path,
    run: Path,
    start: Path | None,
    cache: Path | None,
    device: str | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from training.run import run_stage
    from visxp_search.checkpoint import available_device
    from visxp_search.console import StepProgress, say

    torch_device = available_device(device)
    with StepProgress(quiet=quiet or as_json) as progress:
        last = run_stage(
            stage,
            data,
            out,
            settings,
            start=start,
            run=run,
            cache=cache,
            device=torch_device,
            progress=progress,
        )
    if not last["checkpoint"]:  # not the first of several processes
        return
    if as_json:
        print_json({"out": str(out), **last})
    elif not quiet:
        say(f"checkpoint {last['checkpoint']} written to {out}; logs are in {run}")


def _settings(path: Path | None, epochs: int | None, stage: str) -> "Recipe":
    from training.run import override

    return override(_load_recipe(path), epochs=epochs, stages=(stage,))


def _load_recipe(path: Path | None) -> "Recipe":
    from training.config import Recipe, recipe_from_file

    return Recipe() if path is None else recipe_from_file(path)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
