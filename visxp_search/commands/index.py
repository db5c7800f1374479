"""`visxp index`: put videos into an index, and look after it."""

from pathlib import Path
from typing import Annotated

import typer

from visxp_search.commands.exchange import index_export, index_import
from visxp_search.commands.shared import (
    DEFAULT_WORKERS,
    EXIT_SOME_FAILED,
    DeviceOption,
    IndexOption,
    JsonOption,
    ModelOption,
    QuietOption,
    WorkersOption,
    group,
    open_bare_store,
    open_searchable,
    print_json,
)

app = group("Put videos into an index, and look after it.")
app.command("export")(index_export)
app.command("import")(index_import)


@app.command("add")
def index_add(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files, and folders with all that is in them.")],
    index: IndexOption = None,
    model: ModelOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Index videos and sounds: every second is embedded and stored.

    What is done is skipped, so the same command goes on after an interruption. A file that fails is reported with its
    reason and the rest goes on (exit code 1).

    Examples: `visxp index add ~/Videos` · `visxp index add tape1.mxf tape2.mxf --index tapes.index --workers 4`
    """
    from visxp_search.console import IndexProgress, say

    with (
        open_searchable(index, model, device, create=True) as opened,
        IndexProgress(quiet=quiet or as_json) as progress,
    ):
        report = opened.add(paths, workers=workers, progress=progress)
    if as_json:
        print_json(
            {
                "indexed": report.indexed,
                "skipped": report.skipped,
                "duplicates": report.duplicates,
                "seconds": report.seconds,
                "failures": [{"path": str(path), "reason": reason} for path, reason in report.failures],
                "stage_seconds": {stage: round(seconds, 3) for stage, seconds in report.stage_seconds.items()},
            }
        )
    elif not quiet:
        say(
            f"{report.indexed} files indexed ({report.seconds} seconds), {report.skipped} were done already, "
            f"{report.duplicates} duplicates, {len(report.failures)} failed"
        )
    if report.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command("ls")
def index_ls(index: IndexOption = None, as_json: JsonOption = False) -> None:
    """List the videos of an index, with what failed and why.

    Example: `visxp index ls --index tapes.index --json`
    """
    from visxp_search.console import print_videos

    with open_bare_store(index) as store:
        records = sorted(store.videos(), key=lambda record: record.paths)
    if as_json:
        hidden = {"vectors", "stats"}
        print_json([{k: v for k, v in vars(record).items() if k not in hidden} for record in records])
    else:
        print_videos(records)


@app.command("info")
def index_info(index: IndexOption = None, as_json: JsonOption = False) -> None:
    """Say what an index holds: videos, seconds, checkpoint, flags.

    Example: `visxp index info`
    """
    from visxp_search.api import collect_facts
    from visxp_search.console import print_facts

    with open_bare_store(index) as store:
        facts = collect_facts(store)
    if as_json:
        print_json(vars(facts))
    else:
        print_facts(facts)


@app.command("rm")
def index_rm(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO", help="Id, unique start of an id, path or name.")],
    index: IndexOption = None,
    quiet: QuietOption = False,
) -> None:
    """Remove videos from an index; the files themselves stay.

    Example: `visxp index rm tape1.mxf`
    """
    from visxp_search.api import find_video
    from visxp_search.console import say

    with open_bare_store(index) as store:
        records = [find_video(store, video) for video in videos]
        for record in records:
            store.delete_video(record.video_id)
            if not quiet:
                say(f"removed {record.video_id} ({', '.join(record.paths)})")
