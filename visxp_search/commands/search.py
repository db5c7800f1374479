"""`visxp search`: find moments like a clip, a sound, a picture or an indexed moment."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visxp_search.commands.shared import (
    DeviceOption,
    IndexOption,
    JsonOption,
    ModelOption,
    group,
    open_searchable,
    parse_span,
    print_json,
)
from visxp_search.errors import UsageError

if TYPE_CHECKING:
    from visxp_search.api import SearchResults
    from visxp_search.store import Store


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
    bool | None,
    typer.Option(
        "--exclude-self/--include-self",
        help="Whether to look in the very file that is asked with. Default: not if the whole file is.",
        show_default=False,
    ),
]
app = group("Find moments like a clip, a sound, a picture or an indexed moment.")


@app.command("clip")
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
    exclude_self: ExcludeSelfOption = None,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find moments like a clip, by picture and sound.

    Examples: `visxp search clip talk.mp4 --start 1:10 --end 1:16` · `visxp search clip dog.mp4 --by audio --top 20`
    """
    span = parse_span(start, end)
    with open_searchable(index, model, device) as opened:
        hidden = _exclusions(opened.store, exclude, file, exclude_self, whole=start == "0" and end is None)
        options: dict[str, Any] = {"mode": mode, "top": top, "per_video": per_video, "exclude": hidden}
        found = opened.search_clip(file, **span, by=by, audio_weight=audio_weight, **options)
    left_out = file if exclude_self is None and len(hidden) > len(exclude or []) else None
    _print_found(found, as_json=as_json, left_out=left_out)


@app.command("sound")
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
    exclude_self: ExcludeSelfOption = None,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find moments that sound like a file.

    Examples: `visxp search sound bell.wav` · `visxp search sound bell.wav --cross`
    """
    span = parse_span(start, end)
    with open_searchable(index, model, device) as opened:
        hidden = _exclusions(opened.store, exclude, file, exclude_self, whole=start == "0" and end is None)
        options: dict[str, Any] = {"mode": mode, "top": top, "per_video": per_video, "exclude": hidden}
        found = opened.search_sound(file, **span, cross=cross, **options)
    left_out = file if exclude_self is None and len(hidden) > len(exclude or []) else None
    _print_found(found, as_json=as_json, left_out=left_out)


@app.command("frame")
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
    with open_searchable(index, model, device) as opened:
        hidden = _exclusions(opened.store, exclude, file, False, whole=True)
        found = opened.search_frame(file, top=top, per_video=per_video, exclude=hidden)
    _print_found(found, as_json=as_json)


@app.command("moment")
def search_moment(
    moment: Annotated[str, typer.Argument(metavar="VIDEO@S[-E]", help="Indexed moment, e.g. talk.mp4@70-76.")],
    by: ByOption = "both",
    audio_weight: AudioWeightOption = 0.5,
    mode: ModeOption = "similar",
    top: TopOption = 10,
    per_video: PerVideoOption = 3,
    exclude: ExcludeOption = None,
    exclude_self: ExcludeSelfOption = None,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find more like an indexed moment; nothing is decoded.

    Example: `visxp search moment talk.mp4@1:10-1:16 --exclude-self`
    """
    video, start, end = _parse_moment(moment)
    with open_searchable(index, model, device) as opened:
        hidden = [*(exclude or []), *([video] if exclude_self else [])]
        options: dict[str, Any] = {"mode": mode, "top": top, "per_video": per_video, "exclude": hidden}
        found = opened.search_moment(video, start=start, end=end, by=by, audio_weight=audio_weight, **options)
    _print_found(found, as_json=as_json)


def _parse_moment(text: str) -> tuple[str, int, int]:
    """(video, start, end) of VIDEO@S or VIDEO@S-E, in whole seconds, end exclusive."""
    video, at, span = text.rpartition("@")
    first, _, last = span.partition("-")
    if not at or not video or not first:
        raise UsageError(f"moment {text!r} not understood; write VIDEO@S or VIDEO@S-E, e.g. talk.mp4@70-76")
    times = parse_span(first, last or None)
    start = int(times["start"])
    end = start + 1 if times["end"] is None else int(times["end"])
    if end <= start:
        raise UsageError(f"moment {text!r} ends before it begins; write VIDEO@S-E with E after S")
    return video, start, end


def _exclusions(
    store: "Store", exclude: list[str] | None, file: Path, exclude_self: bool | None, *, whole: bool
) -> list[str]:
    """The videos not to look in: those named and, where it is indexed itself, the file that is asked with."""
    from visxp_search.store import hash_file

    hidden = list(exclude or [])
    if exclude_self is not False and (exclude_self or whole) and file.is_file():
        own = hash_file(file)
        if store.video(own) is not None:
            hidden.append(own)
    return hidden


def _print_found(found: "SearchResults", *, as_json: bool, left_out: Path | None = None) -> None:
    from visxp_search.console import print_moments
    from visxp_search.search import results_to_json

    if as_json:
        print_json(results_to_json(found.results))
    else:
        print_moments(found.results)
    if left_out is not None:
        print(f"not looking in {left_out} itself, which is indexed too; --include-self does", file=sys.stderr)
