"""`visxp train`: from videos to a checkpoint, stage by stage."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.shared import JsonOption, QuietOption, group, print_json

if TYPE_CHECKING:
    from training.config import Recipe

OutOption = Annotated[Path, typer.Option("--out", metavar="CHECKPOINT", help="Checkpoint folder to write.")]
RunOption = Annotated[
    Path, typer.Option("--run", metavar="RUN", help="Folder for state and logs; the same command goes on from it.")
]
CacheOption = Annotated[
    Path,
    typer.Option("--cache", metavar="CACHE", help="Folder for decoded media (1.6 GB for a corpus of 28,000 rows)."),
]
RecipeOption = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="Settings as JSON. Default: the built-in ones.")
]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Passes over the data, instead of the recipe's.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch. Default: all cores.")]

app = group("Train the encoders: from videos to a checkpoint, stage by stage.")


@app.command("warmstart")
def train_warmstart(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder with manifest.csv and teachers.npz.")],
    out: OutOption,
    run: RunOption,
    cache: CacheOption,
    recipe: RecipeOption = None,
    epochs: EpochsOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the encoders to predict features of pretrained networks, and write a checkpoint.

    State is saved after every epoch: interrupt with Ctrl-C and run the same command again to go on. The result is the
    same as without the interruption.

    Example: `visxp train warmstart corpus --out checkpoint --run runs/first --cache runs/cache`
    """
    from training.run import override, run_warmstart
    from visxp_search.console import StepProgress, say

    settings = override(_load_recipe(recipe), epochs=epochs)
    _set_threads(threads)
    with StepProgress(quiet=quiet or as_json) as progress:
        metrics = run_warmstart(corpus, out, settings, run=run, cache=cache, progress=progress)
    if as_json:
        print_json({"out": str(out), **metrics})
    elif not quiet:
        say(f"checkpoint {metrics['checkpoint']} written to {out}; its card is {out / 'README.md'}")


def _load_recipe(path: Path | None) -> "Recipe":
    from training.config import Recipe, recipe_from_file

    return Recipe() if path is None else recipe_from_file(path)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
