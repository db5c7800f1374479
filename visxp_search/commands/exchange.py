"""`visxp index export` and `visxp index import`: whole indexes as Parquet, and the features of the VisXP workers."""

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.shared import (
    EXIT_SOME_FAILED,
    IndexOption,
    JsonOption,
    QuietOption,
    ReplicasOption,
    ShardsOption,
    default_index,
    open_bare_store,
    print_json,
)
from visxp_search.errors import UsageError

if TYPE_CHECKING:
    from visxp_search.exchange.dane_import import Progress
    from visxp_search.store import ServerSettings, Store

EXPORTS = ("parquet", "dane")


def index_export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    to: Annotated[str, typer.Option("--to", help="`parquet`, or `dane`: the layout of the VisXP workers.")] = "parquet",
    index: IndexOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write embeddings and payloads of a whole index as Parquet, or as the VisXP workers of DANE do.

    Parquet comes back with `visxp index import` exactly as it was, on any machine, embedded or on a server.

    Examples: `visxp index export tapes.parquet --index tapes.index` · `visxp index export features --to dane`
    """
    from visxp_search.console import StepProgress, say
    from visxp_search.exchange.dane_export import export_dane
    from visxp_search.exchange.parquet import export_parquet

    if to not in EXPORTS:
        raise UsageError(f"--to {to} is unknown; choose one of {', '.join(EXPORTS)}")
    write = export_parquet if to == "parquet" else export_dane
    with open_bare_store(index) as store, StepProgress(quiet=quiet or as_json) as progress:
        n_seconds, n_videos = write(store, out, progress=progress)
    if as_json:
        print_json({"out": str(out), "to": to, "seconds": n_seconds, "videos": n_videos})
    elif not quiet:
        say(f"{n_seconds} seconds of {n_videos} videos written to {out}")


def index_import(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Folder of `visxp index export`, or one that VisXP workers wrote.")
    ],
    timestamps: Annotated[
        str, typer.Option("--timestamps", help="Unit of the workers' time stamps: auto, ms or s.")
    ] = "auto",
    index: IndexOption = None,
    shards: ShardsOption = None,
    replicas: ReplicasOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read a Parquet export, or the features of the VisXP workers of DANE, into an index of their own checkpoint.

    Nothing is unpickled and nothing is run: a file that would need it is refused. Imported features are searched with
    `visxp search moment`.

    Examples: `visxp index import tapes.parquet --index http://host:6333/tapes` ·
    `visxp index import /mnt/dane-fs/output-files --index dane.index`
    """
    from visxp_search.console import StepProgress
    from visxp_search.exchange.parquet import is_parquet_export
    from visxp_search.store import ServerSettings

    location, server = index or default_index(), ServerSettings.from_environment(shards=shards, replicas=replicas)
    with StepProgress(quiet=quiet or as_json) as progress:
        if is_parquet_export(source):
            summary = _import_parquet(source, location, server, progress=progress)
        else:
            summary = _import_dane(source, location, server, unit=timestamps, progress=progress)
    _report(summary, location, as_json=as_json, quiet=quiet)


def _import_parquet(
    source: Path, location: str, server: "ServerSettings", *, progress: "Progress"
) -> dict[str, object]:
    from visxp_search.exchange.parquet import import_parquet, read_info
    from visxp_search.store import open_store

    info = read_info(source)
    with closing(open_store(location, checkpoint=info.checkpoint, create=info.dims, server=server)) as store:
        n_seconds, n_videos = import_parquet(store, source, progress=progress)
    return {"checkpoint": info.checkpoint, "seconds": n_seconds, "videos": n_videos, "failures": []}


def _import_dane(
    source: Path, location: str, server: "ServerSettings", *, unit: str, progress: "Progress"
) -> dict[str, object]:
    from visxp_search.exchange.dane_import import import_dane
    from visxp_search.store import open_store

    with ExitStack() as stack:
        checkpoints = []

        def open_into(checkpoint: str, dims: Mapping[str, int]) -> "Store":
            store = open_store(location, checkpoint=checkpoint, create=dims, server=server)
            stack.callback(store.close)
            checkpoints.append(checkpoint)
            return store

        report = import_dane(source, open_into=open_into, unit=unit, progress=progress)
    return {
        "checkpoint": checkpoints[0],
        "seconds": report.seconds,
        "videos": report.videos,
        "crowded": report.crowded,
        "spectrograms_not_read": report.spectrograms,
        "own_exports": report.own,
        "failures": [{"path": str(path), "reason": reason} for path, reason in report.failures],
    }


def _report(summary: dict[str, object], location: str, *, as_json: bool, quiet: bool) -> None:
    from visxp_search.console import say

    failures = summary["failures"]
    assert isinstance(failures, list)
    if as_json:
        print_json({"index": location, **summary})
    else:
        for failure in failures:
            say(f"failed {failure['path']}: {str(failure['reason']).removeprefix(failure['path'] + ': ')}")
    if not quiet and not as_json:
        if summary.get("spectrograms_not_read"):
            say(f"{summary['spectrograms_not_read']} spectrograms are pickled and were not read; they are not needed")
        if summary.get("own_exports"):
            say(f"{summary['own_exports']} sources are exports of visxp: columns and checkpoint by their provenance")
        if summary.get("crowded"):
            say(f"{summary['crowded']} keyframes left out: another of the same second lies nearer its middle")
        say(f"{summary['seconds']} seconds of {summary['videos']} videos imported into {location}")
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)
