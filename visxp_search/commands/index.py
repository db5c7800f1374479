"""`visxp index`: put videos into an index, and look after it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.exchange import index_export, index_import
from visxp_search.commands.migrate import index_migrate
from visxp_search.commands.rebuild import index_diff, index_rebuild, index_swap
from visxp_search.commands.shared import (
    DEFAULT_WORKERS,
    DeviceOption,
    IndexOption,
    JsonOption,
    ModelOption,
    QuietOption,
    ReplicasOption,
    ShardsOption,
    WorkersOption,
    default_index,
    group,
    open_bare_store,
    open_searchable,
    print_json,
    report_added,
)
from visxp_search.commands.snapshot import index_restore, index_snapshot
from visxp_search.commands.transfer import index_pull, index_push
from visxp_search.commands.upkeep import index_verify
from visxp_search.errors import UsageError
from visxp_search.leaving import expect_to_read_once

if TYPE_CHECKING:
    from indexer.report import AddReport
    from visxp_search.store import ServerSettings

app = group("Put videos into an index, and look after it.")
app.command("verify")(index_verify)
app.command("rebuild")(index_rebuild)
app.command("diff")(index_diff)
app.command("swap")(index_swap)
app.command("migrate")(index_migrate)
app.command("export")(index_export)
app.command("import")(index_import)
app.command("push")(index_push)
app.command("pull")(index_pull)
app.command("snapshot")(index_snapshot)
app.command("restore")(index_restore)


@app.command("add")
def index_add(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files, and folders with all that is in them.")],
    index: IndexOption = None,
    model: ModelOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    device: DeviceOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, how long it takes and how large it gets.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C: also what is new, changed, moved or deleted later.")
    ] = False,
    rest: Annotated[
        float, typer.Option("--rest", min=0.1, help="With --watch: seconds without a change before a file is read.")
    ] = 10.0,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Work on all machines of a Ray cluster (HOST:6379; alone: the one that this machine belongs to), "
            "with as many decoders as it has cores. Needs an index on a server.",
        ),
    ] = None,
    shards: ShardsOption = None,
    replicas: ReplicasOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Index videos and sounds: every second is embedded and stored.

    What is done is skipped, so the same command goes on after an interruption. A file that fails is reported with its
    reason and the rest goes on (exit code 1).

    Examples: `visxp index add ~/Videos` · `visxp index add tape1.mxf tape2.mxf --index tapes.index --workers 4` ·
    `visxp index add /srv/incoming --watch` · `visxp index add /archive --index http://host:6333/tapes --ray`
    """
    from visxp_search.api import add_on_ray, open_index
    from visxp_search.console import IndexProgress
    from visxp_search.store import ServerSettings

    server = ServerSettings.from_environment(shards=shards, replicas=replicas)
    if watch and (dry_run or as_json):
        raise UsageError("--watch does not end by itself: it goes neither with --dry-run nor with --json")
    if ray is not None and (watch or dry_run):
        raise UsageError("--ray goes neither with --watch nor with --dry-run")
    if not dry_run:
        _meet_new_index(index or default_index(), paths, quiet=quiet or as_json)
    if watch:
        _watch(paths, index, model, device, server, workers=workers, rest=rest, quiet=quiet)
        return
    if dry_run:
        _say_what_add_would_do(paths, index, model, device, workers=workers, as_json=as_json, quiet=quiet)
        return
    if ray is not None:
        with IndexProgress(quiet=quiet, silent=as_json) as progress:
            report = add_on_ray(
                index or default_index(),
                paths,
                address=ray,
                model=model,
                device=device,
                server=server,
                progress=progress,
            )
        report_added(report, as_json=as_json, quiet=quiet)
        return
    with (
        open_index(index or default_index(), model=model, device=device, create=True, server=server) as opened,
        IndexProgress(quiet=quiet, silent=as_json) as progress,
    ):
        report = opened.add(paths, workers=workers, progress=progress)
    report_added(report, as_json=as_json, quiet=quiet)


def _meet_new_index(location: str, paths: list[Path], *, quiet: bool) -> None:
    """Say that an index will be made: a person who meant one on a disk that is not mounted can still stop it.

    Raises:
        UsageError: If it would be made of nothing, because no path exists.
    """
    from visxp_search.store import is_url
    from visxp_search.store_edge_files import holds_index
    from visxp_search.terminal import say

    if is_url(location) or holds_index(Path(location)):
        return
    if not any(os.path.lexists(path) for path in paths):
        raise UsageError(f"{paths[0]}: there is no such file or folder; no index was made")
    if not quiet:
        say(f"there is no index at {Path(location).absolute()} yet: a new one is made")


def _watch(
    paths: list[Path],
    index: str | None,
    model: str | None,
    device: str | None,
    server: "ServerSettings",
    *,
    workers: int,
    rest: float,
    quiet: bool,
) -> None:
    from visxp_search.api import watch_index
    from visxp_search.console import IndexProgress, say

    def tell(report: "AddReport", n_forgotten: int) -> None:
        if not quiet:
            say(
                f"{report.indexed} files indexed ({report.seconds} seconds), {report.duplicates} moved or copied, "
                f"{n_forgotten} deleted, {len(report.failures)} failed; watching"
            )

    if not quiet:
        say(f"watching {', '.join(str(path) for path in paths)}; Ctrl-C ends it")
    with IndexProgress(quiet=quiet) as progress:
        watch_index(
            index or default_index(),
            paths,
            model=model,
            device=device,
            server=server,
            workers=workers,
            rest_seconds=rest,
            progress=progress,
            on_work=tell,
        )
    if not quiet:
        say("no longer watching; what is stored stays")


def _say_what_add_would_do(
    paths: list[Path],
    index: str | None,
    model: str | None,
    device: str | None,
    *,
    workers: int,
    as_json: bool,
    quiet: bool,
) -> None:
    from visxp_search.api import estimate_add
    from visxp_search.console import StepProgress
    from visxp_search.console_ledger import print_estimate

    location = index or default_index()
    with StepProgress(quiet=quiet or as_json) as progress:
        found = estimate_add(location, paths, model=model, device=device, workers=workers, progress=progress)
    if as_json:
        print_json({"index": location, **vars(found)})
    else:
        print_estimate(found)


@app.command("retry")
def index_retry(
    index: IndexOption = None,
    model: ModelOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Try again what failed, and nothing else; `visxp index ls --status failed` says what that is.

    Example: `visxp index retry --index tapes.index`
    """
    from visxp_search.console import IndexProgress

    with open_searchable(index, model, device) as opened, IndexProgress(quiet=quiet, silent=as_json) as progress:
        report = opened.retry(workers=workers, progress=progress)
    report_added(report, as_json=as_json, quiet=quiet)


@app.command("ls")
def index_ls(
    status: Annotated[
        str | None, typer.Option("--status", help="Only those that are `pending`, `done` or `failed`.")
    ] = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the videos of an index, with what failed and why.

    Examples: `visxp index ls --index tapes.index --json` · `visxp index ls --status failed`
    """
    from visxp_search.console_ledger import print_videos
    from visxp_search.facts import read_ledger, without_cycle_search
    from visxp_search.store import STATUSES

    if status is not None and status not in STATUSES:
        raise UsageError(f"--status {status} is unknown; choose one of {', '.join(STATUSES)}")
    expect_to_read_once()
    with open_bare_store(index) as store:
        if as_json:
            hidden = {"vectors", "stats"}
            records = read_ledger(store, status)
            print_json([{k: v for k, v in vars(record).items() if k not in hidden} for record in records])
        else:
            with without_cycle_search():
                print_videos(store.videos(status, brief=True))


@app.command("info")
def index_info(index: IndexOption = None, as_json: JsonOption = False) -> None:
    """Say what an index holds: videos, seconds, checkpoint, flags.

    Example: `visxp index info`
    """
    from visxp_search.console_ledger import print_facts
    from visxp_search.facts import collect_facts

    expect_to_read_once()
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
    from visxp_search.facts import find_video
    from visxp_search.terminal import say

    with open_bare_store(index) as store:
        records = [find_video(store, video) for video in videos]
        for record in records:
            store.delete_video(record.video_id)
            if not quiet:
                say(f"removed {record.video_id} ({', '.join(record.paths)})")
