"""The options that all searching commands have, given to each by one decorator."""

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from visxp_search.commands.shared import DeviceOption, IndexOption, JsonOption, ModelOption, parse_seconds
from visxp_search.errors import UsageError

MOST_PER_VIDEO = 50
"""Moments of one video that an exhaustive search shows."""
WHERE, WHAT, HOW = "Where to look", "What is an answer", "Output"


def shared_options(
    mode: Annotated[
        str,
        typer.Option("--mode", help="`similar`: looks or sounds like it. `same`: the same recording, in step."),
    ] = "similar",
    top: Annotated[int, typer.Option("--top", min=1, help="Moments wanted.")] = 10,
    per_video: Annotated[int, typer.Option("--per-video", min=1, help="At most so many moments of one video.")] = 3,
    like: Annotated[
        list[str] | None,
        typer.Option("--like", metavar="VIDEO@S[-E]", help="Also like this indexed moment. Repeatable."),
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option("--unlike", metavar="VIDEO@S[-E]", help="Not like this one. Repeatable.")
    ] = None,
    then: Annotated[
        Path | None, typer.Option("--then", metavar="FILE", help="Only what is followed by something like this file.")
    ] = None,
    within: Annotated[
        str, typer.Option("--within", metavar="TIME", help="Time between the moment and --then at most.")
    ] = "30",
    max_chance: Annotated[
        float | None,
        typer.Option(
            "--max-chance",
            min=0,
            help="Leave out moments of which more are expected by chance; `inf` shows all. Default: 0.05 with `same`; "
            "1 with `similar`, where what is as alike as neighbours in this archive are is shown as well.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    min_visual: Annotated[
        float,
        typer.Option("--min-visual", help="Least percentile of the picture, 0 to 100.", rich_help_panel=WHAT),
    ] = 0.0,
    min_audio: Annotated[
        float, typer.Option("--min-audio", help="Least percentile of the sound, 0 to 100.", rich_help_panel=WHAT)
    ] = 0.0,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", "--hide", metavar="VIDEO", help="Not in this video. Repeatable.", rich_help_panel=WHERE
        ),
    ] = None,
    video: Annotated[
        list[str] | None,
        typer.Option("--video", metavar="VIDEO", help="Only in this video. Repeatable.", rich_help_panel=WHERE),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(
            "--path",
            metavar="GLOB",
            help="Only in files whose path, or its end, matches: `*.mxf`, `news/*`. Repeatable.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    cluster: Annotated[
        list[int] | None,
        typer.Option("--cluster", help="Only seconds of this cluster. Repeatable.", rich_help_panel=WHERE),
    ] = None,
    not_cluster: Annotated[
        list[int] | None,
        typer.Option("--not-cluster", help="No seconds of this cluster. Repeatable.", rich_help_panel=WHERE),
    ] = None,
    branch: Annotated[
        str | None, typer.Option("--branch", help="Only below this branch of the hierarchy.", rich_help_panel=WHERE)
    ] = None,
    flag: Annotated[
        list[str] | None,
        typer.Option("--flag", help="Only seconds with this flag, e.g. static. Repeatable.", rich_help_panel=WHERE),
    ] = None,
    not_flag: Annotated[
        list[str] | None,
        typer.Option("--not-flag", help="No seconds with this flag. Repeatable.", rich_help_panel=WHERE),
    ] = None,
    after: Annotated[
        str,
        typer.Option("--after", metavar="TIME", help="Only from this time of a video on.", rich_help_panel=WHERE),
    ] = "0",
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="TIME", help="Only before this time of a video.", rich_help_panel=WHERE),
    ] = None,
    min_duration: Annotated[
        str | None,
        typer.Option("--min-duration", metavar="TIME", help="Only videos at least this long.", rich_help_panel=WHERE),
    ] = None,
    max_duration: Annotated[
        str | None,
        typer.Option("--max-duration", metavar="TIME", help="Only videos at most this long.", rich_help_panel=WHERE),
    ] = None,
    modified_since: Annotated[
        str | None,
        typer.Option(
            "--modified-since", metavar="DATE", help="Only files changed since, e.g. 2026-11-01.", rich_help_panel=WHERE
        ),
    ] = None,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive",
            help="Compare every second of every video, tell the running yield, and show all answers.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    save: Annotated[
        str | None,
        typer.Option("--save", metavar="NAME", help="Keep this search: visxp search run NAME.", rich_help_panel=HOW),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show both timelines, second by second, and what carried.", rich_help_panel=HOW),
    ] = False,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """All of them as a dictionary, by the names of the parameters."""
    return dict(locals())


def searching(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose last parameter is `options` all shared options, as a dictionary in that parameter."""
    own = [parameter for parameter in inspect.signature(command).parameters.values() if parameter.name != "options"]
    shared = list(inspect.signature(shared_options).parameters.values())
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared)]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        names = {parameter.name for parameter in own}
        mine = {name: value for name, value in values.items() if name in names}
        rest = {name: value for name, value in values.items() if name not in names}
        command(**mine, options=shared_options(**rest))

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def search_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the shared options that are plain keyword arguments of `api.Index.search`."""
    top = options["top"]
    if options["exhaustive"] and top == inspect.signature(shared_options).parameters["top"].default:
        top = 1_000_000
    return {
        "mode": options["mode"],
        "top": top,
        "per_video": max(MOST_PER_VIDEO, options["per_video"]) if options["exhaustive"] else options["per_video"],
        "max_chance": options["max_chance"],
        "min_visual": options["min_visual"],
        "min_audio": options["min_audio"],
        "exhaustive": options["exhaustive"],
        "within": parse_seconds(options["within"]),
    }


def scope_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Those that say where to look, as keyword arguments of `filters.Scope`, without `videos` and `hidden`."""
    from visxp_search.filters import parse_date

    if options["max_chance"] is not None and math.isnan(options["max_chance"]):
        raise UsageError("--max-chance nan is not a number; give one from 0 on, or inf")
    return {
        "paths": tuple(options["path"] or ()),
        "clusters": tuple(options["cluster"] or ()),
        "not_clusters": tuple(options["not_cluster"] or ()),
        "branch": options["branch"],
        "flags": tuple(options["flag"] or ()),
        "not_flags": tuple(options["not_flag"] or ()),
        "after": parse_seconds(options["after"]),
        "before": None if options["before"] is None else parse_seconds(options["before"]),
        "min_duration": None if options["min_duration"] is None else parse_seconds(options["min_duration"]),
        "max_duration": None if options["max_duration"] is None else parse_seconds(options["max_duration"]),
        "modified_since": None if options["modified_since"] is None else parse_date(options["modified_since"]),
    }
