"""`visxp doctor`: what is here, what is wrong, and what a larger archive would need."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.shared import (
    DEFAULT_WORKERS,
    EXIT_UNUSABLE,
    DeviceOption,
    IndexOption,
    JsonOption,
    ModelOption,
    QuietOption,
    WorkersOption,
    default_index,
    print_json,
)
from visxp_search.errors import UsageError

if TYPE_CHECKING:
    from visxp_search.capacity import CapacityPlan
    from visxp_search.embed import Embedder
    from visxp_search.store_admin import Setting


def doctor(
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="HOURS", help="Say what an archive of, e.g., 10000h would need.")
    ] = None,
    sample: Annotated[
        list[Path] | None,
        typer.Option("--sample", help="With --plan: files of the archive to measure on. Default: a film made for it."),
    ] = None,
    index: IndexOption = None,
    model: ModelOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look whether everything is here that indexing and searching need, and whether the index is well.

    Of an index on a server the settings are compared with what its size (or that of --plan) needs. Exit code 3 if
    something is missing without which nothing works.

    Examples: `visxp doctor` · `visxp doctor --plan 10000h --sample tape1.mxf --sample tape2.mxf`
    """
    from visxp_search.console_doctor import print_capacity, print_checks, print_settings
    from visxp_search.doctor import BAD, examine

    hours = None if plan is None else parse_hours(plan)
    location = index or default_index()
    checks, embedder = examine(location, model=model, device=device)
    needs = None
    if hours is not None and embedder is not None:
        needs = _plan(hours, embedder, location, sample or (), workers=workers, quiet=quiet or as_json)
    settings = _settings_of_server(location, points=needs.points if needs is not None else 0)
    if as_json:
        found: dict[str, object] = {"checks": [vars(check) for check in checks]}
        if settings:
            found["server"] = [vars(setting) for setting in settings]
        print_json(found if needs is None else {**found, "plan": _as_json(needs)})
    else:
        print_checks(checks)
        if settings:
            print_settings(settings)
        if needs is not None:
            print_capacity(needs, is_measured_on="the sample" if sample else "a film made for it")
    if any(check.state == BAD for check in checks):
        raise typer.Exit(EXIT_UNUSABLE)


def _settings_of_server(location: str, *, points: int) -> "list[Setting]":
    """The settings of an index on a server; none if there is none yet."""
    from visxp_search.errors import CollectionError, MissingIndexError
    from visxp_search.store import ServerSettings, is_url

    if not is_url(location):
        return []
    from visxp_search.store_admin import Setting, inspect_settings

    try:
        return inspect_settings(location, server=ServerSettings.from_environment(), points=points)
    except MissingIndexError:
        return []
    except CollectionError as exc:
        return [Setting("settings", "all", "none could be read", str(exc))]


def parse_hours(text: str) -> float:
    """`10000h`, `10000` (hours) or `400d` in hours.

    Raises:
        UsageError: If it is none of these, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hd]?)", text.strip())
    if found is None or not float(found[1]):
        raise UsageError(f"--plan {text} is not understood; give hours of media, e.g. 10000h")
    return float(found[1]) * (24 if found[2] == "d" else 1)


def _plan(
    hours: float, embedder: "Embedder", location: str, sample: Sequence[Path], *, workers: int, quiet: bool
) -> "CapacityPlan":
    import os
    import shutil
    from tempfile import TemporaryDirectory

    from indexer.estimate import measure_rate, render_sample
    from visxp_search.capacity import plan_capacity
    from visxp_search.console import StepProgress
    from visxp_search.doctor import disk_of, memory_bytes

    with StepProgress(quiet=quiet) as progress, TemporaryDirectory(prefix="visxp-doctor-") as folder:
        rate = measure_rate(sample or [render_sample(Path(folder))], embedder, progress=progress)
    return plan_capacity(
        hours,
        {name: spec.length for name, spec in embedder.specs.items()},
        wall_per_second=rate.wall_seconds(1, workers=workers, n_cores=os.cpu_count() or 1) if rate else None,
        memory_bytes=memory_bytes(),
        disk_free=shutil.disk_usage(disk_of(location)).free,
    )


def _as_json(needs: "CapacityPlan") -> dict[str, object]:
    return {**vars(needs), "embedded": vars(needs.embedded), "served": vars(needs.served)}
