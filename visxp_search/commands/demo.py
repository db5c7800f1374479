"""`visxp demo`: a small archive of our own, indexed, searched and checked."""

from pathlib import Path
from typing import Annotated

import typer

from visxp_search.commands.shared import (
    DEFAULT_WORKERS,
    EXIT_SOME_FAILED,
    JsonOption,
    ModelOption,
    QuietOption,
    WorkersOption,
    print_json,
    user_data_folder,
)


def demo(
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to work. Default: visxp/demo in your user data directory.")
    ] = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    model: ModelOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a small archive, index it, search it by clip and by sound, and check what is found.

    All is rendered here: seven kinds of things that move and sound together, each in several videos. Exit code 1 if a
    query finds another kind first.

    Example: `visxp demo`
    """
    from visxp_search.console import IndexProgress, StepProgress, print_demo
    from visxp_search.demo.run import render_demo, search_demo
    from visxp_search.search import moment_to_json

    folder = folder or user_data_folder() / "demo"
    with StepProgress(quiet=quiet or as_json) as progress:
        truth, queries = render_demo(folder, progress=progress)
    with IndexProgress(quiet=quiet, silent=as_json) as progress:
        outcome = search_demo(folder, truth, queries, workers=workers, progress=progress, model=model)
    if as_json:
        print_json(
            {
                "folder": str(outcome.folder),
                "seconds": outcome.n_seconds,
                "wrong": outcome.n_wrong,
                "answers": [
                    {
                        "query": str(answer.query.path),
                        "kind": answer.query.kind,
                        "found": answer.found_kind,
                        "moment": moment_to_json(answer.moment) if answer.moment else None,
                    }
                    for answer in outcome.answers
                ],
            }
        )
    else:
        print_demo(outcome)
    if outcome.n_wrong:
        raise typer.Exit(EXIT_SOME_FAILED)
