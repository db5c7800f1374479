"""`visxp search`: find moments like a clip, a sound, a picture or an indexed moment."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visxp_search.commands.search_options import scope_arguments, search_arguments, searching
from visxp_search.commands.shared import (
    DeviceOption,
    IndexOption,
    JsonOption,
    ModelOption,
    QuietOption,
    group,
    open_bare_store,
    open_searchable,
    parse_span,
    print_json,
)
from visxp_search.errors import UsageError
from visxp_search.leaving import expect_to_read_once

if TYPE_CHECKING:
    from visxp_search.api import Index, SearchResults
    from visxp_search.queries import Query
    from visxp_search.store import Store


StartOption = Annotated[str, typer.Option("--start", metavar="TIME", help="Begin of the query: 12.5 or 1:02:03.")]
EndOption = Annotated[str | None, typer.Option("--end", metavar="TIME", help="End of the query. Default: the end.")]
ByOption = Annotated[str, typer.Option("--by", help="What to compare: both, visual or audio.")]
AudioWeightOption = Annotated[float, typer.Option("--audio-weight", help="Share of the sound with --by both, 0 to 1.")]
ExcludeSelfOption = Annotated[
    bool | None,
    typer.Option(
        "--exclude-self/--include-self",
        help="Whether to look in the very file that is asked with. Default: not if the whole file is.",
        show_default=False,
    ),
]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Show both timelines, second by second.")]
app = group("Find moments like a clip, a sound, a picture or an indexed moment.")


@app.command("clip")
@searching
def search_clip(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Video or audio file to ask with.")],
    start: StartOption = "0",
    end: EndOption = None,
    by: ByOption = "both",
    audio_weight: AudioWeightOption = 0.5,
    exclude_self: ExcludeSelfOption = None,
    *,
    options: dict[str, Any],
) -> None:
    """Find moments like a clip, by picture and sound.

    Examples: `visxp search clip talk.mp4 --start 1:10 --end 1:16` · `visxp search clip ad.mp4 --mode same` ·
    `visxp search clip dog.mp4 --by audio --path "news/*" --then bell.wav --within 20`
    """
    span, is_fine = parse_span(start, end), options["mode"] == "same"

    def ask(opened: "Index") -> "Query":
        from visxp_search.queries import choose_weights, clip_query

        opened.store.expect_queries(tuple(choose_weights(by, audio_weight)))
        return clip_query(file, opened.embedder, **span, by=by, audio_weight=audio_weight, fine=is_fine)

    _search(ask, options, file=file, exclude_self=exclude_self, whole=start == "0" and end is None)


@app.command("sound")
@searching
def search_sound(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Audio file, or video file of which the sound is taken.")
    ],
    start: StartOption = "0",
    end: EndOption = None,
    cross: Annotated[bool, typer.Option("--cross", help="Which pictures go with this sound.")] = False,
    exclude_self: ExcludeSelfOption = None,
    *,
    options: dict[str, Any],
) -> None:
    """Find moments that sound like a file.

    Examples: `visxp search sound bell.wav` · `visxp search sound bell.wav --cross`
    """
    span, is_fine = parse_span(start, end), options["mode"] == "same"

    def ask(opened: "Index") -> "Query":
        from visxp_search.queries import sound_query

        opened.store.expect_queries(("joint",) if cross else ("audio",))
        return sound_query(file, opened.embedder, **span, cross=cross, fine=is_fine)

    _search(ask, options, file=file, exclude_self=exclude_self, whole=start == "0" and end is None)


@app.command("frame")
@searching
def search_frame(
    file: Annotated[Path, typer.Argument(metavar="IMAGE", help="Picture file to ask with.")],
    *,
    options: dict[str, Any],
) -> None:
    """Find moments that look like a picture.

    Example: `visxp search frame still.jpg --top 5`
    """

    def ask(opened: "Index") -> "Query":
        from visxp_search.queries import frame_query

        opened.store.expect_queries(("visual",))
        return frame_query(file, opened.embedder)

    _search(ask, options)


@app.command("moment")
@searching
def search_moment(
    moment: Annotated[str, typer.Argument(metavar="VIDEO@S[-E]", help="Indexed moment, e.g. talk.mp4@70-76.")],
    by: ByOption = "both",
    audio_weight: AudioWeightOption = 0.5,
    exclude_self: ExcludeSelfOption = None,
    *,
    options: dict[str, Any],
) -> None:
    """Find more like an indexed moment; nothing is decoded.

    Examples: `visxp search moment talk.mp4@1:10-1:16 --exclude-self` ·
    `visxp search moment talk.mp4@70 --like news.mp4@12 --unlike news.mp4@40`
    """
    video, start, end = parse_moment(moment)
    options["exclude"] = [*(options["exclude"] or []), *([video] if exclude_self else [])]

    def ask(opened: "Index") -> "Query":
        return opened.moment(video, start=start, end=end, by=by, audio_weight=audio_weight)

    _search(ask, options)


@app.command("run")
def search_run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A search that was kept with --save.")],
    new: Annotated[bool, typer.Option("--new", help="Only what is indexed since the last run.")] = False,
    explain: ExplainOption = False,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a saved search again.

    Example: `visxp search run goals --new`
    """
    with open_searchable(index, model, device) as opened:
        found = opened.run_saved(name, only_new=new)
    _print_found(found, as_json=as_json, explain=explain)


@app.command("saved")
def search_saved(
    forget: Annotated[str | None, typer.Option("--forget", metavar="NAME", help="Remove this search.")] = None,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the saved searches.

    Example: `visxp search saved`
    """
    from visxp_search.console import print_saved
    from visxp_search.saved_searches import SavedSearches, describe, saved_searches_path

    with open_bare_store(index) as store:
        searches = SavedSearches(saved_searches_path(store.location))
        if forget is not None:
            searches.forget(forget)
        saved = [searches.get(name) for name in searches.names()]
    if as_json:
        print_json([describe(one) for one in saved])
    else:
        print_saved(saved)


@app.command("evaluate")
def search_evaluate(
    judged: Annotated[
        Path | None,
        typer.Argument(
            metavar="[JUDGED.csv]",
            help="Columns query, video, start, end; optionally kind, query_start, query_end, group.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=0, help="Known-item trials: excerpts of indexed videos, made worse.")
    ] = 0,
    absent: Annotated[
        list[Path] | None,
        typer.Option(
            "--absent",
            metavar="PATH",
            help="Videos that are not in the index, or a .txt that lists them: what is answered though nothing should "
            "be. Repeatable.",
        ),
    ] = None,
    absent_queries: Annotated[int, typer.Option("--absent-queries", min=1, help="Ask with so many of them.")] = 40,
    mode: Annotated[
        str | None, typer.Option("--mode", help="Default: `same` for trials, `similar` for judgements.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Answers asked for.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the excerpts.")] = 0,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FOLDER", help="Keep the excerpts here. Default: they are removed.")
    ] = None,
    index: IndexOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure the search on your own archive: recall, mAP, temporal IoU and latency, with 95 % intervals.

    Examples: `visxp search evaluate judged.csv` · `visxp search evaluate --trials 60` ·
    `visxp search evaluate --trials 60 --absent ~/OtherVideos`
    """
    from visxp_search.absent import absent_to_json
    from visxp_search.console import StepProgress, print_absent, print_report
    from visxp_search.evaluate import report_to_json

    if (judged is None) == (trials == 0 and not absent):
        raise UsageError("give either JUDGED.csv or --trials N (and --absent PATH)")
    report = missing = None
    with open_searchable(index, model, device) as opened, StepProgress(quiet=quiet or as_json) as progress:
        if judged is not None:
            report = opened.evaluate_judged(judged, mode=mode or "similar", top=top, progress=progress)
        if trials:
            report = opened.evaluate_trials(
                trials, mode=mode or "same", top=top, seed=seed, keep=keep, progress=progress
            )
        if absent:
            missing = opened.evaluate_absent(
                absent, n_queries=absent_queries, mode=mode or "same", top=top, seed=seed, progress=progress
            )
    if as_json:
        document = {} if report is None else report_to_json(report)
        print_json(document if missing is None else {**document, "absent": absent_to_json(missing)})
        return
    if report is not None:
        print_report(report)
    if missing is not None:
        print_absent(missing)


def parse_moment(text: str) -> tuple[str, int, int]:
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


def _search(
    ask: "Callable[[Index], Query]",
    options: dict[str, Any],
    *,
    file: Path | None = None,
    exclude_self: bool | None = False,
    whole: bool = False,
) -> None:
    """Make the query, search with all options, keep the search if that is wanted, and print."""
    from visxp_search.console import YieldProgress
    from visxp_search.filters import Scope
    from visxp_search.queries import add_examples, clip_query

    expect_to_read_once()
    arguments, where = search_arguments(options), scope_arguments(options)
    examples = {key: [parse_moment(text) for text in options[key] or ()] for key in ("like", "unlike")}
    with open_searchable(options["index"], options["model"], options["device"]) as opened:
        hidden = [opened.find_video(video).video_id for video in options["exclude"] or ()]
        own = _own_video(opened.store, file, exclude_self, whole=whole)
        hidden += own
        videos = tuple(opened.find_video(video).video_id for video in options["video"] or ())
        arguments["scope"] = Scope(videos=videos, hidden=tuple(hidden), **where)
        query = ask(opened)
        like, unlike = (
            [opened.moment(video, start=start, end=end) for video, start, end in examples[key]]
            for key in ("like", "unlike")
        )
        if like or unlike:
            query = add_examples(query, like=like, unlike=unlike)
        arguments["then"] = None
        if options["then"] is not None:
            arguments["then"] = clip_query(options["then"], opened.embedder, fine=options["mode"] == "same")
        progress = YieldProgress(shown=options["exhaustive"])
        found = opened.search(query, **arguments, on_progress=progress)
        if options["save"] is not None:
            opened.save_search(options["save"], query, arguments, found)
    _print_found(found, as_json=options["as_json"], explain=options["explain"])
    if own and exclude_self is None:
        print(f"not looking in {file} itself, which is indexed too; --include-self does", file=sys.stderr)


def _own_video(store: "Store", file: Path | None, exclude_self: bool | None, *, whole: bool) -> list[str]:
    """The video not to look in because it is what is asked with, where it is indexed itself."""
    from visxp_search.store import hash_file

    if file is None or exclude_self is False or not (exclude_self or whole) or not file.is_file():
        return []
    own = hash_file(file)
    if store.video(own) is None:
        return []
    return [own]


def _print_found(found: "SearchResults", *, as_json: bool, explain: bool) -> None:
    from visxp_search.console import print_moments
    from visxp_search.results import results_to_json

    if as_json:
        print_json(results_to_json(found.results))
    else:
        print_moments(found.results, explain=explain)
