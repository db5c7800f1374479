"""What all commands share: option types, opening an index, printing JSON."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visxp_search.errors import UsageError

if TYPE_CHECKING:
    from indexer.report import AddReport
    from visxp_search.api import Index
    from visxp_search.store import Store

EXIT_DONE, EXIT_SOME_FAILED, EXIT_WRONG_USE, EXIT_UNUSABLE, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        envvar="VISXP_INDEX",
        metavar="PATH|URL",
        help="Directory of the index, or http(s) URL of a Qdrant server. Default: a directory of your user data.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="PATH", help="Checkpoint folder or encoder plugin. Default: the shipped one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no messages but errors.")]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="Where the encoders run, e.g. cpu or cuda. Default: a GPU if there is one."),
]
ShardsOption = Annotated[
    int | None,
    typer.Option(
        "--shards",
        min=1,
        envvar="VISXP_QDRANT_SHARDS",
        help="Parts of an index that is created on a server. Default: one for each node.",
    ),
]
ReplicasOption = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        min=1,
        envvar="VISXP_QDRANT_REPLICAS",
        help="Copies of each part, on different nodes, of an index that is created on a server. Default: one.",
    ),
]
DEFAULT_WORKERS = min(os.cpu_count() or 1, 8)
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Decoding processes.")]


def group(help_text: str) -> typer.Typer:
    """A group of commands that shows its help when called alone."""
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


def open_searchable(index: str | None, model: str | None, device: str | None) -> "Index":
    """Open an index with its encoders, for searching and adding."""
    from visxp_search.api import open_index

    return open_index(index or default_index(), model=model, device=device)


def open_bare_store(index: str | None) -> AbstractContextManager["Store"]:
    """Open an index without encoders, whatever checkpoint made it; closes at the end of a `with`."""
    from contextlib import closing

    from visxp_search.store import open_store

    return closing(open_store(index or default_index(), checkpoint=None))


def default_index() -> str:
    """Where the index lies if nobody says."""
    return str(user_data_folder() / "index")


def user_data_folder() -> Path:
    """This program's directory among the user's data."""
    from platformdirs import user_data_path

    return user_data_path("visxp")


def parse_span(start: str, end: str | None) -> dict[str, Any]:
    """Start and end in seconds, as keyword arguments.

    Raises:
        UsageError: If a time is not understood.
    """
    from visxp_search.clips import parse_time

    try:
        return {"start": parse_time(start), "end": None if end is None else parse_time(end)}
    except ValueError as exc:
        raise UsageError(str(exc)) from exc


def parse_seconds(text: str) -> float:
    """A time in seconds.

    Raises:
        UsageError: If it is not understood.
    """
    return float(parse_span(text, None)["start"])


def report_added(report: "AddReport", *, as_json: bool, quiet: bool) -> None:
    """Say what an indexing run did; its failures were said as they came.

    Raises:
        typer.Exit: If some files failed.
    """
    from visxp_search.console import say

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


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    """JSON values of what the json module does not know: numpy's numbers, mappings, paths."""
    converters: tuple[Callable[[Any], Any], ...] = (dict, float, str)
    for convert in converters:
        try:
            return convert(value)
        except (TypeError, ValueError):
            continue
    raise TypeError(f"cannot print a {type(value).__name__} as JSON")
