"""Exports of a basket: files for editors and catalogues, clips and reels; made in a folder that is emptied by age.

Written files call videos by their file names: where they lie on the server is nobody's business.
"""

import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path

from visxp_search.errors import UsageError, VisxpError
from visxp_search.export.results import FoundMoment, FoundResults
from visxp_search.store import VideoRecord
from webui.basket import Collected
from webui.media import NotServedError, checked_path
from webui.videos import display_name
from webui.wording import hide_folders

CSV, JSON = "csv", "json"
FORMATS = {
    "edl": ("Edit list (EDL, CMX 3600)", "moments.edl"),
    "otio": ("OpenTimelineIO", "moments.otio"),
    "fcpxml": ("Final Cut Pro XML", "moments.fcpxml"),
    CSV: ("Table for spreadsheets (CSV)", "moments.csv"),
    JSON: ("Results for visxp export (JSON)", "moments.json"),
    "webvtt": ("Subtitle tracks (WebVTT)", "moments-vtt"),
    "webannotation": ("Web annotations (W3C, JSON-LD)", "moments.jsonld"),
    "clips": ("Clips, a film each (MP4)", "moments-clips"),
    "reel": ("One reel of all (MP4)", "moments-reel.mp4"),
}
"""Format -> what people are shown, and the name of the file or folder."""
CUT = ("clips", "reel")
MAX_CUT_SECONDS = 1800.0
"""Longest clips or reel that the page cuts; `visxp export` cuts longer ones."""
KEPT_SECONDS = 3600.0
"""How long a finished export can be downloaded."""
MAX_KEPT = 20


@dataclass
class Export:
    """One export while it is made, and afterwards.

    Attributes:
        token: names it in addresses; cannot be guessed.
        label: the format, for people.
        done: steps done.
        total: steps in all; 0 while unknown.
        path: the file, once it is there.
        failures: (moment, reason) of what is not in it.
        words: why there is no file; empty if there is one, or while it is made.
        ended: set at the end, however it came.
        cancelled: set to end it early.
    """

    token: str
    label: str
    done: int = 0
    total: int = 0
    path: Path | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)
    words: str = ""
    ended: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)


class Exports:
    """Makes exports, one cut at a time, and keeps them for a while.

    Args:
        folder: made if missing; belongs to the exports alone.
        find: the ledger's entry of a video id, or None.
        texts: format -> function of (basket), for those that the page writes itself.
    """

    def __init__(
        self,
        folder: Path,
        *,
        find: Callable[[str], VideoRecord | None],
        texts: dict[str, Callable[[Sequence[Collected]], str]],
    ) -> None:
        self._folder = folder
        self._find = find
        self._texts = texts
        self._lock = threading.Lock()
        self._cutting = threading.Semaphore(1)
        self._exports: dict[str, tuple[float, Export]] = {}

    def start(self, basket: Sequence[Collected], to: str) -> Export:
        """Begin an export in the background.

        Raises:
            UsageError: If the format is unknown, the basket is empty, or too long to cut.
        """
        if to not in FORMATS:
            raise UsageError(f"there is no format {to!r}; choose one of {', '.join(FORMATS)}")
        if not basket:
            raise UsageError("the basket is empty; collect moments first")
        length = sum(collected.end - collected.start for collected in basket)
        if to in CUT and length > MAX_CUT_SECONDS:
            raise UsageError(
                f"the basket is {length / 60:.0f} minutes long; the page cuts up to {MAX_CUT_SECONDS / 60:.0f}: take "
                f"moments out, or download the JSON file and use visxp export"
            )
        export = Export(secrets.token_urlsafe(16), FORMATS[to][0])
        with self._lock:
            self._forget_old()
            self._exports[export.token] = (time.monotonic(), export)
        threading.Thread(target=self._run, args=(export, list(basket), to), name="export", daemon=True).start()
        return export

    def find(self, token: str) -> Export | None:
        """The export of a token, if it is still kept."""
        with self._lock:
            found = self._exports.get(token)
        return None if found is None else found[1]

    def cancel(self, token: str) -> None:
        """End an export early; nothing of it is kept."""
        export = self.find(token)
        if export is not None:
            export.cancelled.set()

    def _run(self, export: Export, basket: list[Collected], to: str) -> None:
        try:
            self._make(export, basket, to)
        except CancelledError:
            export.words = "Cancelled; nothing was kept."
        except VisxpError as exc:
            export.words = hide_folders(str(exc))
        except Exception:
            export.words = "The export failed; the terminal of visxp ui says why."
            raise
        finally:
            if export.path is None:
                shutil.rmtree(self._folder / export.token, ignore_errors=True)
            export.ended.set()

    def _make(self, export: Export, basket: list[Collected], to: str) -> None:
        folder = self._folder / export.token
        folder.mkdir(parents=True)
        out = folder / FORMATS[to][1]
        if to in self._texts:
            out.write_text(self._texts[to](basket), encoding="utf-8")
            export.path = out
            return

        from visxp_search.export.run import export_results  # on first use: OpenTimelineIO takes a while to load

        def tell(what: str, done: int, total: int) -> None:
            export.done, export.total = done, total
            if export.cancelled.is_set():
                raise CancelledError

        moments = self._locate(export, basket)
        if not moments:
            raise UsageError(f"none of {len(basket)} moments can be exported: {export.failures[0][1]}")
        results = FoundResults({"kind": "basket"}, tuple(moments))
        if to in CUT:
            while not self._cutting.acquire(timeout=0.5):
                tell("wait", 0, 0)
        try:
            report = export_results(results, to=to, out=out, progress=tell)
        finally:
            if to in CUT:
                self._cutting.release()
        export.failures += [(_label(moment), hide_folders(reason)) for moment, reason in report.failures]
        export.path = (
            report.written[0] if len(report.written) == 1 else _pack(report.written, folder / f"{out.stem}.zip")
        )

    def _locate(self, export: Export, basket: list[Collected]) -> list[FoundMoment]:
        """The moments whose files are there, under names of which no two are alike."""
        names: dict[str, str] = {}
        found = []
        for rank, collected in enumerate(basket, start=1):
            record = self._find(collected.video_id)
            try:
                if record is None:
                    raise NotServedError("its video is no longer in the index")
                path = checked_path(record)
            except NotServedError as exc:
                name = "moment" if record is None else display_name(record)
                export.failures.append((f"{rank}: {name}", str(exc)))
                continue
            name = display_name(record)
            taken = names.setdefault(name, record.video_id)
            if taken != record.video_id:
                name = f"{record.video_id[:6]}/{name}"
            score = {} if collected.score is None else {"score": collected.score}
            found.append(
                FoundMoment(
                    rank,
                    collected.video_id,
                    path,
                    collected.start,
                    collected.end,
                    score,
                    note=collected.note,
                    address=name,
                )
            )
        return found

    def _forget_old(self) -> None:
        """Delete what is too old or too many; what is being made stays."""
        now = time.monotonic()
        ended = [token for token, (_, export) in self._exports.items() if export.ended.is_set()]
        surplus = max(0, len(ended) - MAX_KEPT)
        for number, token in enumerate(ended):
            if number < surplus or now - self._exports[token][0] > KEPT_SECONDS:
                del self._exports[token]
                shutil.rmtree(self._folder / token, ignore_errors=True)


def _pack(files: Sequence[Path], target: Path) -> Path:
    """One ZIP of several files; films do not get smaller, so nothing is compressed."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.write(file, file.name)
    return target


def _label(moment: FoundMoment) -> str:
    return f"{moment.rank}: {moment.address}"
