"""One export from a search's document to files: chooses the format, and says what was written and what was not."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visxp_search.errors import DecodeError, UsageError
from visxp_search.export.cuts import Cut, Failure, read_cuts
from visxp_search.export.files import check_free, make_folder, unique_names, write_text
from visxp_search.export.results import FoundResults
from visxp_search.export.tables import to_csv, to_json
from visxp_search.export.web import to_web_annotations, to_webvtt

FORMATS = ("otio", "edl", "fcpxml", "csv", "json", "webvtt", "webannotation", "clips", "reel")

Progress = Callable[[str, int, int], None]
"""Called with (what, frames done, frames in all)."""


@dataclass(frozen=True)
class ExportReport:
    """What came of an export.

    Attributes:
        written: the files.
        failures: moments that are not in them, or not whole, with the reason.
    """

    written: tuple[Path, ...]
    failures: tuple[Failure, ...] = ()


def export_results(
    results: FoundResults, *, to: str, out: Path, overwrite: bool = False, progress: Progress | None = None
) -> ExportReport:
    """Write results in one of `FORMATS`.

    Args:
        results: what was found.
        to: the format.
        out: the file to write; a folder for `clips`; for `webvtt` a name without suffix is a folder, of one file a
            video.
        overwrite: whether files that exist may be replaced.
        progress: is told of the frames of clips and reels.

    Raises:
        UsageError: If the format is unknown or a name is taken.
        DecodeError: If none of the videos can be used.
    """
    if to not in FORMATS:
        raise UsageError(f"--to {to} is unknown; choose one of {', '.join(FORMATS)}")
    if to in ("csv", "json", "webannotation"):
        texts: dict[str, Callable[[], str]] = {
            "csv": lambda: to_csv(results),
            "json": lambda: _json(to_json(results)),
            "webannotation": lambda: _json(to_web_annotations(results)),
        }
        write_text(out, texts[to](), overwrite=overwrite)
        return ExportReport((out,))
    if to == "webvtt":
        return ExportReport(tuple(_write_webvtt(results, out, overwrite=overwrite)))
    return _export_media(results, to=to, out=out, overwrite=overwrite, progress=progress or _silent)


def _export_media(results: FoundResults, *, to: str, out: Path, overwrite: bool, progress: Progress) -> ExportReport:
    if to != "clips":
        check_free(out, overwrite=overwrite)
    cuts, failures = read_cuts(results.moments)
    _require(cuts, failures)
    if to == "clips":
        from visxp_search.export.cut import write_clips

        written, more = write_clips(cuts, out, overwrite=overwrite, progress=progress)
    elif to == "reel":
        from visxp_search.export.cut import write_reel

        written, more = write_reel(cuts, out, overwrite=overwrite, progress=progress)
    else:
        written, more = _write_timeline(cuts, to=to, out=out, title=results.title, overwrite=overwrite)
    failures += more
    if not written:
        _require([], failures)
    return ExportReport(tuple(written), tuple(failures))


def _write_timeline(
    cuts: list[Cut], *, to: str, out: Path, title: str, overwrite: bool
) -> tuple[list[Path], list[Failure]]:
    from visxp_search.export.timeline import write_edls, write_fcpxml, write_otio

    if to == "edl":
        return write_edls(cuts, out, title=title, overwrite=overwrite)
    write = write_otio if to == "otio" else write_fcpxml
    return write(cuts, out, title=title, overwrite=overwrite), []


def _write_webvtt(results: FoundResults, out: Path, *, overwrite: bool) -> list[Path]:
    """One file of all moments if `out` is named like a file, else a folder with a file a video."""
    if out.suffix and not out.is_dir():
        write_text(out, to_webvtt(results, results.moments), overwrite=overwrite)
        return [out]
    make_folder(out)
    paths = list(dict.fromkeys(moment.path for moment in results.moments))
    names = [out / f"{name}.vtt" for name in unique_names(path.stem for path in paths)]
    for name in names:
        check_free(name, overwrite=overwrite)
    for name, path in zip(names, paths, strict=True):
        of_video = [moment for moment in results.moments if moment.path == path]
        write_text(name, to_webvtt(results, of_video), overwrite=overwrite)
    return names


def _require(cuts: list[Cut], failures: list[Failure]) -> None:
    """Refuse to go on with nothing.

    Raises:
        DecodeError: If there is nothing to export.
    """
    if not cuts:
        reasons = list(dict.fromkeys(reason for _, reason in failures))
        rest = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
        raise DecodeError(f"none of {len(failures)} moments can be exported: {reasons[0]}{rest}")


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True) + "\n"


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
