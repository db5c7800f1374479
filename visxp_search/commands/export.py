"""`visxp export`: what a search found, for editors, catalogues and people."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from visxp_search.commands.shared import EXIT_SOME_FAILED, JsonOption, QuietOption, print_json
from visxp_search.errors import UsageError


def export(
    results: Annotated[
        str, typer.Argument(metavar="RESULTS.json", help="What `visxp search ... --json` printed; - for stdin.")
    ],
    to: Annotated[
        str,
        typer.Option("--to", help="otio, edl, fcpxml, csv, json, webvtt, webannotation, clips or reel."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="PATH",
            help="File to write; a folder for clips; for webvtt either, a folder has one file a video.",
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Take the moments of a search into an editor, a catalogue, or a film.

    `otio` and `edl` are time lines with the sources' own timecodes, `webvtt` and `webannotation` point into the videos,
    `clips` and `reel` are cut films with name and timecode burnt in. What cannot be exported is reported (exit code 1).

    Examples: `visxp search clip goal.mp4 --json > hits.json` then `visxp export hits.json --to edl --out hits.edl` ·
    `visxp search sound bell.wav --json | visxp export - --to reel --out bells.mp4`
    """
    from visxp_search.console import StepProgress, say
    from visxp_search.export.results import read_results
    from visxp_search.export.run import export_results

    found = read_results(_read(results), source=results if results != "-" else "stdin")
    with StepProgress(quiet=quiet or as_json) as progress:
        report = export_results(found, to=to, out=out, overwrite=overwrite, progress=progress)
    failures = [
        {"rank": moment.rank, "path": str(moment.path), "start": moment.start, "end": moment.end, "reason": reason}
        for moment, reason in report.failures
    ]
    if as_json:
        print_json({"to": to, "written": [str(path) for path in report.written], "failures": failures})
    else:
        for failure in failures:
            say(f"failed hit {failure['rank']}: {failure['reason']}")
        if not quiet:
            for path in report.written:
                say(f"written {path}")
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _read(name: str) -> str:
    """The text of a file or of stdin.

    Raises:
        UsageError: If it cannot be read.
    """
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise UsageError(f"{name} cannot be read ({reason}); give what `visxp search ... --json` printed") from exc
