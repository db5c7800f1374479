"""Results as an editor's time line: OTIO, CMX3600 EDL and FCPXML.

One picture track and, in OTIO, one sound track beside it; the hits follow each other, best first. Times of the media
are timecodes of the source, counted from the file's own start timecode. Time lines start at 00:00:00:00.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import opentimelineio as otio
from opentimelineio.opentime import RationalTime, TimeRange

from visxp_search.errors import UsageError
from visxp_search.export.cuts import DROP_RATES, Cut, Failure, Source
from visxp_search.export.files import check_free, write_text

FCPX_ADAPTER = "fcpx_xml"
REEL_LENGTH = 8
"""Characters of a reel name that every reader of CMX3600 understands."""
MAX_EVENTS = 999
"""An EDL numbers its events with three digits."""


def write_otio(cuts: Sequence[Cut], path: Path, *, title: str, overwrite: bool) -> list[Path]:
    """Write an `.otio` file (JSON); each clip keeps the rate of its file.

    Raises:
        UsageError: If `path` is taken.
    """
    text = otio.adapters.write_to_string(make_timeline(cuts, title=title), adapter_name="otio_json")
    write_text(path, text, overwrite=overwrite)
    return [path]


def write_fcpxml(cuts: Sequence[Cut], path: Path, *, title: str, overwrite: bool) -> list[Path]:
    """Write Final Cut Pro X's XML with OpenTimelineIO's adapter for it.

    The adapter knows whole rates only. Cuts that all run at one NTSC rate (29.97) are written at the whole rate beside
    it (30), which numbers their frames in the same way, and all times are then stretched by 1001/1000.

    Raises:
        UsageError: If the adapter cannot write these rates (NTSC beside others), or `path` is taken.
    """
    check_free(path, overwrite=overwrite)
    rates = {cut.source.timecode_rate or cut.source.rate for cut in cuts}
    rate = next(iter(rates)) if len(rates) == 1 else None
    is_ntsc = rate is not None and rate.denominator == 1001
    timeline = make_timeline(cuts, title=title, rate=Fraction(round(rate)) if rate is not None and is_ntsc else None)
    try:
        text = otio.adapters.write_to_string(timeline, adapter_name=FCPX_ADAPTER)
    except (otio.exceptions.OTIOError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise UsageError(f"OpenTimelineIO's FCPXML adapter cannot write this ({exc}); choose --to otio") from exc
    write_text(path, _stretch_times(text, by=Fraction(1001, 1000)) if is_ntsc else text, overwrite=overwrite)
    return [path]


def write_edls(cuts: Sequence[Cut], path: Path, *, title: str, overwrite: bool) -> tuple[list[Path], list[Failure]]:
    """Write CMX3600 lists, one for each way of counting timecode, as an EDL has only one.

    The way that most hits have goes to `path`, the others beside it with their name in between (`hits.29.97df.edl`).

    Returns:
        The files written; and the moments that cannot stand in an EDL: sound alone, rates that timecode cannot count.

    Raises:
        UsageError: If a name is taken, or there are too many events.
    """
    groups: dict[tuple[Fraction, bool], list[Cut]] = defaultdict(list)
    failures: list[Failure] = []
    for cut in cuts:
        rate = cut.source.timecode_rate
        if not cut.source.has_pictures:
            failures.append((cut.moment, f"{cut.source.path}: has no pictures for an EDL; choose --to otio"))
        elif rate is None:
            shown = f"{float(cut.source.rate):g} frames per second"
            failures.append((cut.moment, f"{cut.source.path}: timecode cannot count {shown}; choose --to otio"))
        else:
            groups[rate, cut.source.is_drop].append(cut)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    names = [path, *(path.with_name(f"{path.stem}.{_rate_name(*key)}{path.suffix}") for key, _ in ordered[1:])]
    names = names[: len(ordered)]
    for name, (_, group) in zip(names, ordered, strict=True):
        check_free(name, overwrite=overwrite)
        if len(group) > MAX_EVENTS:
            raise UsageError(f"{len(group)} moments; an EDL holds {MAX_EVENTS}; search with a smaller --top")
    for name, ((rate, is_drop), group) in zip(names, ordered, strict=True):
        write_text(name, make_edl(group, rate=rate, is_drop=is_drop, title=title), overwrite=overwrite)
    return names, failures


def make_edl(cuts: Sequence[Cut], *, rate: Fraction, is_drop: bool, title: str) -> str:
    """The text of a CMX3600 list of cuts that all count timecode in the same way.

    OpenTimelineIO's adapter takes 29.97 frames per second for drop-frame; lists without it are written at 30, which
    numbers the frames in the same way.
    """
    written_rate = rate if is_drop or rate not in DROP_RATES else Fraction(round(rate))
    timeline = make_timeline(cuts, title=_plain(title), rate=written_rate, with_sound=False)
    text = otio.adapters.write_to_string(timeline, adapter_name="cmx_3600", rate=float(written_rate))
    head, _, events = text.partition("\n\n")
    return f"{head}\nFCM: {'DROP FRAME' if is_drop else 'NON-DROP FRAME'}\n\n{events}"


def make_timeline(
    cuts: Sequence[Cut], *, title: str, rate: Fraction | None = None, with_sound: bool = True
) -> otio.schema.Timeline:
    """Hits one after the other on a picture track and a sound track.

    Args:
        cuts: in the order of the time line.
        title: its name.
        rate: the rate that frame numbers are stated at; None for each file's own.
        with_sound: whether there is a sound track.
    """
    timeline = otio.schema.Timeline(name=title)
    pictures = otio.schema.Track(name="V1", kind=otio.schema.TrackKind.Video)
    sounds = otio.schema.Track(name="A1", kind=otio.schema.TrackKind.Audio)
    reels = _name_reels(cuts)
    for cut in cuts:
        stated = float(rate or cut.source.timecode_rate or cut.source.rate)
        reel = reels[cut.source.path]
        pictures.append(_item(cut, rate=stated, reel=reel) if cut.source.has_pictures else _gap(cut, stated))
        sounds.append(_item(cut, rate=stated, reel=reel) if cut.source.has_sound else _gap(cut, stated))
    timeline.tracks.append(pictures)
    if with_sound:
        timeline.tracks.append(sounds)
    return timeline


def _item(cut: Cut, *, rate: float, reel: str) -> otio.schema.Clip:
    source = cut.source
    metadata: Mapping[str, Any] = {
        "visxp": {
            "rank": cut.moment.rank,
            "video_id": cut.moment.video_id,
            "start_seconds": cut.moment.start,
            "end_seconds": cut.moment.end,
            "start_timecode": source.timing.start_timecode,
            **cut.moment.scores,
            **({"note": cut.moment.note} if cut.moment.note else {}),
        },
        "cmx_3600": {"reel": reel},
    }
    source_range = _range(source, cut.first, cut.stop, rate=rate)
    return otio.schema.Clip(
        name=_plain(source.path.name),
        media_reference=otio.schema.ExternalReference(
            target_url=cut.moment.uri, available_range=_range(source, 0, source.n_frames, rate=rate)
        ),
        source_range=source_range,
        markers=[_marker(cut.moment.note, source_range)] if cut.moment.note else [],
        metadata=metadata,
    )


def _marker(note: str, source_range: TimeRange) -> otio.schema.Marker:
    """A person's note at the first frame; in an EDL it becomes a locator."""
    first = TimeRange(source_range.start_time, RationalTime(1, source_range.start_time.rate))
    return otio.schema.Marker(name=_plain(note), marked_range=first, color=otio.schema.MarkerColor.GREEN)


def _gap(cut: Cut, rate: float) -> otio.schema.Gap:
    return otio.schema.Gap(duration=RationalTime(cut.n_frames, rate))


def _range(source: Source, first: int, stop: int, *, rate: float) -> TimeRange:
    start = source.number(first)
    return TimeRange(RationalTime(start, rate), RationalTime(max(1, source.number(stop) - start), rate))


def _stretch_times(text: str, *, by: Fraction) -> str:
    """FCPXML with all its times (`"31/30s"`) multiplied."""

    def stretched(match: re.Match[str]) -> str:
        time = Fraction(int(match[1]), int(match[2] or 1)) * by
        return f'"{time.numerator}/{time.denominator}s"'

    return re.sub(r'"(\d+)(?:/(\d+))?s"', stretched, text)


def _name_reels(cuts: Sequence[Cut]) -> dict[Path, str]:
    """A reel name for each file, no two alike, of capital letters and digits."""
    reels: dict[Path, str] = {}
    for path in dict.fromkeys(cut.source.path for cut in cuts):
        bare = re.sub(r"[^A-Z0-9]", "", path.stem.upper()) or "REEL"
        name, number = bare[:REEL_LENGTH], 1
        while name in reels.values() or name in ("AX", "BL"):
            number += 1
            name = f"{bare[: REEL_LENGTH - len(str(number))]}{number}"
        reels[path] = name
    return reels


def _rate_name(rate: Fraction, is_drop: bool) -> str:
    return f"{round(float(rate), 3):g}{'df' if is_drop else ''}"


def _plain(text: str) -> str:
    """Text that stays on its line and can be encoded."""
    return " ".join(text.encode("utf-8", "replace").decode().split())
