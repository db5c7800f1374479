"""The command line `visxp`: the one place where all parts are wired together.

Each command parses, calls one function and prints. Imports of the parts stand inside the commands, so that `visxp
--help` loads neither torch nor Qdrant. Results go to stdout, everything else to stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visxp_search.errors import UsageError, VisxpError

if TYPE_CHECKING:
    from visxp_search.api import Index, SearchResults
    from visxp_search.store import Store

EXIT_DONE, EXIT_SOME_FAILED, EXIT_WRONG_USE, EXIT_UNUSABLE, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


def _group(help_text: str) -> typer.Typer:
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


app = _group("Find similar moments in video archives, by picture and by sound.")
index_app = _group("Put videos into an index, and look after it.")
search_app = _group("Find moments like a clip, a sound, a picture or an indexed moment.")
train_app = _group("Train the encoders from a corpus.")
app.add_typer(index_app, name="index")
app.add_typer(search_app, name="search")
app.add_typer(train_app, name="train")

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
StartOption = Annotated[str, typer.Option("--start", metavar="TIME", help="Begin of the query: 12.5 or 1:02:03.")]
EndOption = Annotated[str | None, typer.Option("--end", metavar="TIME", help="End of the query. Default: the end.")]
TopOption = Annotated[int, typer.Option("--top", min=1, help="Moments wanted.")]
PerVideoOption = Annotated[int, typer.Option("--per-video", min=1, help="At most so many moments of one video.")]
ModeOption = Annotated[
    str, typer.Option("--mode", help="`similar`: looks or sounds like it. `same`: the same recording, in step.")
]
ByOption = Annotated[str, typer.Option("--by", help="What to compare: both, visual or audio.")]
AudioWeightOption = Annotated[float, typer.Option("--audio-weight", help="Share of the sound with --by both, 0 to 1.")]
ExcludeOption = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="VIDEO", help="Do not look in this video. Repeatable.")
]
ExcludeSelfOption = Annotated[
    bool, typer.Option("--exclude-self", help="Do not look in the video that the query was taken from.")
]
DEFAULT_WORKERS = min(os.cpu_count() or 1, 8)
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Decoding processes.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0 done, 1 done with failures, 2 wrong use, 3 unusable input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments, prog_name="visxp", standalone_mode=False)
    except VisxpError as exc:
        _print_error(type(exc).__name__, str(exc), as_json="--json" in arguments)
        return EXIT_WRONG_USE if isinstance(exc, UsageError) else EXIT_UNUSABLE
    except typer.TyperException as exc:
        message = exc.format_message()
        if message:
            _print_error("UsageError", message, as_json="--json" in arguments)
        return EXIT_WRONG_USE
    except typer.Abort:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    if code == EXIT_INTERRUPTED:
        print("interrupted; nothing is lost, run the same command again to go on", file=sys.stderr)
    return code if isinstance(code, int) else EXIT_DONE


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Find similar moments in video archives, by picture and by sound.

    Begin with `visxp demo`, or with your own files:

    `visxp index add ~/Videos` then `visxp search clip some.mp4 --start 12 --end 18`
    """
    if version:
        from visxp_search import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@index_app.command("add")
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

    with _open(index, model, device, create=True) as opened, IndexProgress(quiet=quiet or as_json) as progress:
        report = opened.add(paths, workers=workers, progress=progress)
    if as_json:
        _print_json(
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


@index_app.command("ls")
def index_ls(index: IndexOption = None, as_json: JsonOption = False) -> None:
    """List the videos of an index, with what failed and why.

    Example: `visxp index ls --index tapes.index --json`
    """
    from visxp_search.console import print_videos

    with _open_store(index) as store:
        records = sorted(store.videos(), key=lambda record: record.paths)
    if as_json:
        hidden = {"vectors", "stats"}
        _print_json([{k: v for k, v in vars(record).items() if k not in hidden} for record in records])
    else:
        print_videos(records)


@index_app.command("info")
def index_info(index: IndexOption = None, as_json: JsonOption = False) -> None:
    """Say what an index holds: videos, seconds, checkpoint, flags.

    Example: `visxp index info`
    """
    from visxp_search.api import collect_facts
    from visxp_search.console import print_facts

    with _open_store(index) as store:
        facts = collect_facts(store)
    if as_json:
        _print_json(vars(facts))
    else:
        print_facts(facts)


@index_app.command("rm")
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

    with _open_store(index) as store:
        records = [find_video(store, video) for video in videos]
        for record in records:
            store.delete_video(record.video_id)
            if not quiet:
                say(f"removed {record.video_id} ({', '.join(record.paths)})")


@search_app.command("clip")
def search_clip(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Video or audio file to ask with.")],
    start: StartOption = "0",
    end: EndOption = None,
    by: ByOption = "both",
    audio_weight: AudioWeightOption = 0.5,
    mode: ModeOption = "similar",
    top: TopOption = 10,
    per_video: PerVideoOption = 3,
    exclude: ExcludeOption = None,
    exclude_self: ExcludeSelfOption = False,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find moments like a clip, by picture and sound.

    Examples: `visxp search clip talk.mp4 --start 1:10 --end 1:16` · `visxp search clip dog.mp4 --by audio --top 20`
    """
    span = _span(start, end)
    with _open(index, model, device) as opened:
        hidden = _exclusions(opened.store, exclude, file if exclude_self else None)
        options = {"mode": mode, "top": top, "per_video": per_video, "exclude": hidden}
        found = opened.search_clip(file, **span, by=by, audio_weight=audio_weight, **options)
    _print_found(found, as_json=as_json)


@search_app.command("sound")
def search_sound(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Audio file, or video file of which the sound is taken.")
    ],
    start: StartOption = "0",
    end: EndOption = None,
    cross: Annotated[bool, typer.Option("--cross", help="Which pictures go with this sound.")] = False,
    mode: ModeOption = "similar",
    top: TopOption = 10,
    per_video: PerVideoOption = 3,
    exclude: ExcludeOption = None,
    exclude_self: ExcludeSelfOption = False,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find moments that sound like a file.

    Examples: `visxp search sound bell.wav` · `visxp search sound bell.wav --cross`
    """
    span = _span(start, end)
    with _open(index, model, device) as opened:
        hidden = _exclusions(opened.store, exclude, file if exclude_self else None)
        options = {"mode": mode, "top": top, "per_video": per_video, "exclude": hidden}
        found = opened.search_sound(file, **span, cross=cross, **options)
    _print_found(found, as_json=as_json)


@search_app.command("frame")
def search_frame(
    file: Annotated[Path, typer.Argument(metavar="IMAGE", help="Picture file to ask with.")],
    top: TopOption = 10,
    per_video: PerVideoOption = 3,
    exclude: ExcludeOption = None,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find moments that look like a picture.

    Example: `visxp search frame still.jpg --top 5`
    """
    with _open(index, model, device) as opened:
        hidden = _exclusions(opened.store, exclude, None)
        found = opened.search_frame(file, top=top, per_video=per_video, exclude=hidden)
    _print_found(found, as_json=as_json)


@search_app.command("moment")
def search_moment(
    moment: Annotated[str, typer.Argument(metavar="VIDEO@S[-E]", help="Indexed moment, e.g. talk.mp4@70-76.")],
    by: ByOption = "both",
    audio_weight: AudioWeightOption = 0.5,
    mode: ModeOption = "similar",
    top: TopOption = 10,
    per_video: PerVideoOption = 3,
    exclude: ExcludeOption = None,
    exclude_self: ExcludeSelfOption = False,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find more like an indexed moment; nothing is decoded.

    Example: `visxp search moment talk.mp4@1:10-1:16 --exclude-self`
    """
    video, start, end = _parse_moment(moment)
    with _open(index, model, device) as opened:
        hidden = [*(exclude or []), *([video] if exclude_self else [])]
        options = {"mode": mode, "top": top, "per_video": per_video, "exclude": hidden}
        found = opened.search_moment(video, start=start, end=end, by=by, audio_weight=audio_weight, **options)
    _print_found(found, as_json=as_json)


@app.command("embed")
def embed(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Video, audio and image files.")],
    out: Annotated[Path, typer.Option("--out", metavar="X.npz", help="Where to write the embeddings.")],
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn media files into embeddings, without an index.

    Writes arrays of one length: path, second, visual, audio, joint_visual, joint_audio, has_visual, has_audio. Rows
    without a modality are NaN there.

    Example: `visxp embed *.mp4 sound.wav still.jpg --out embeddings.npz`
    """
    import numpy as np

    from visxp_search.api import embed_files
    from visxp_search.console import StepProgress, say
    from visxp_search.embed import load_embedder

    if out.suffix != ".npz":
        raise UsageError(f"--out {out} must end with .npz")
    embedder = load_embedder(model, device=device)
    failures: list[dict[str, str]] = []
    with StepProgress(quiet=quiet or as_json) as progress:
        arrays = embed_files(
            embedder,
            files,
            on_failure=lambda path, exc: failures.append({"path": str(path), "reason": str(exc)}),
            on_file=lambda done: progress("embed files", done, len(files)),
        )
    partial = out.with_name(f".{out.name}.partial.npz")
    np.savez(partial, **arrays)
    os.replace(partial, out)
    for failure in failures:
        say(f"failed {failure['path']}: {failure['reason']}")
    summary = {"out": str(out), "rows": len(arrays["second"]), "model": embedder.checkpoint_id, "failures": failures}
    if as_json:
        _print_json(summary)
    elif not quiet:
        say(f"{summary['rows']} seconds of {len(files) - len(failures)} files written to {out}")
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command("demo")
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

    folder = folder or _user_data() / "demo"
    hushed = quiet or as_json
    with StepProgress(quiet=hushed) as progress:
        truth, queries = render_demo(folder, progress=progress)
    with IndexProgress(quiet=hushed) as progress:
        outcome = search_demo(folder, truth, queries, workers=workers, progress=progress, model=model)
    if as_json:
        _print_json(
            {
                "folder": str(outcome.folder),
                "seconds": outcome.n_seconds,
                "wrong": outcome.n_wrong,
                "answers": [
                    {
                        "query": str(answer.query.path),
                        "kind": answer.query.kind,
                        "found": answer.found_kind,
                        "moment": moment_to_json(answer.moment),
                    }
                    for answer in outcome.answers
                ],
            }
        )
    else:
        print_demo(outcome)
    if outcome.n_wrong:
        raise typer.Exit(EXIT_SOME_FAILED)


def _open(index: str | None, model: str | None, device: str | None, *, create: bool = False) -> "Index":
    from visxp_search.api import open_index

    return open_index(index or _default_index(), model=model, device=device, create=create)


def _open_store(index: str | None) -> AbstractContextManager["Store"]:
    from contextlib import closing

    from visxp_search.store import open_store

    return closing(open_store(index or _default_index(), checkpoint=None))


def _default_index() -> str:
    return str(_user_data() / "index")


def _user_data() -> Path:
    from platformdirs import user_data_path

    return user_data_path("visxp")


def _span(start: str, end: str | None) -> dict[str, Any]:
    from visxp_search.clips import parse_time

    try:
        return {"start": parse_time(start), "end": None if end is None else parse_time(end)}
    except ValueError as exc:
        raise UsageError(str(exc)) from exc


def _parse_moment(text: str) -> tuple[str, int, int]:
    """(video, start, end) of VIDEO@S or VIDEO@S-E, in whole seconds, end exclusive."""
    video, at, span = text.rpartition("@")
    first, _, last = span.partition("-")
    if not at or not video or not first:
        raise UsageError(f"moment {text!r} not understood; write VIDEO@S or VIDEO@S-E, e.g. talk.mp4@70-76")
    times = _span(first, last or None)
    start = int(times["start"])
    end = start + 1 if times["end"] is None else int(times["end"])
    if end <= start:
        raise UsageError(f"moment {text!r} ends before it begins; write VIDEO@S-E with E after S")
    return video, start, end


def _exclusions(store: "Store", exclude: list[str] | None, own_file: Path | None) -> list[str]:
    """The videos not to look in; a query file excludes itself if its content is indexed."""
    from visxp_search.store import hash_file

    hidden = list(exclude or [])
    if own_file is not None and own_file.is_file():
        own = hash_file(own_file)
        if store.video(own) is None:
            print(f"--exclude-self: {own_file} is not itself in the index", file=sys.stderr)
        else:
            hidden.append(own)
    return hidden


def _print_found(found: "SearchResults", *, as_json: bool) -> None:
    from visxp_search.console import print_moments
    from visxp_search.search import results_to_json

    if as_json:
        _print_json(results_to_json(found.results))
    else:
        print_moments(found.results)


def _print_json(value: Any) -> None:
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


def _print_error(kind: str, message: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": {"type": kind, "message": message}}), file=sys.stderr)
    else:
        print(f"error: {message}" if not message.startswith("Usage") else message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
