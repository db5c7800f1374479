"""Searches that are kept under a name, run again, and asked what is new since last time.

They lie in one JSON file: `saved_searches.json` in the directory of an embedded index, so that they move with it; for
an index on a server in this user's data directory, one file for each URL, as what is new is new to a person. The file
is replaced as a whole, under a lock.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt
from platformdirs import user_data_path

from visxp_search.errors import CollectionError, UsageError
from visxp_search.filters import Scope
from visxp_search.queries import Query
from visxp_search.results import Moment, Results
from visxp_search.store import is_url

FORMAT = "visxp-saved-searches-1"
LOCK_TIMEOUT_SECONDS = 10.0

Seen = tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class SavedSearch:
    """A search that can be run again.

    Attributes:
        name: letters, digits, `-`, `_` and `.`.
        checkpoint: that made the query's embeddings.
        query: with its embeddings, so that its file is not needed again.
        options: keyword arguments of `api.Index.search`; `scope` is a `Scope`, `then` a `Query`.
        seen: (video id, start, end) of what earlier runs found.
        known: video id -> how many of its seconds were indexed at the last run.
    """

    name: str
    checkpoint: str
    query: Query
    options: Mapping[str, Any] = field(default_factory=dict)
    seen: Seen = ()
    known: Mapping[str, int] = field(default_factory=dict)


class SavedSearches:
    """The saved searches of one index.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._read())

    def get(self, name: str) -> SavedSearch:
        """One saved search.

        Raises:
            UsageError: If there is none of this name.
            CollectionError: If the file is damaged.
        """
        entries = self._read()
        if name not in entries:
            raise UsageError(
                f"no saved search is named {name!r}; there are {', '.join(sorted(entries)) or 'none'}; --save makes one"
            )
        return _from_json(name, entries[name], self.path)

    def put(self, saved: SavedSearch) -> None:
        """Keep a search; one of the same name is replaced.

        Raises:
            UsageError: If the name is not allowed.
        """
        if not re.fullmatch(r"[\w.-]{1,80}", saved.name):
            raise UsageError(f"name {saved.name!r} is not allowed; use up to 80 letters, digits, '-', '_' and '.'")
        with self._locked():
            self._write({**self._read(), saved.name: _to_json(saved)})

    def forget(self, name: str) -> None:
        """Remove a search.

        Raises:
            UsageError: If there is none of this name.
        """
        with self._locked():
            self.get(name)
            self._write({other: entry for other, entry in self._read().items() if other != name})

    def _locked(self) -> AbstractContextManager[Any]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(self.path.with_suffix(".lock"), timeout=LOCK_TIMEOUT_SECONDS)

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self.path.read_text("utf-8"))
            if document["format"] != FORMAT:
                raise ValueError(f"its format is {document['format']!r}, not {FORMAT!r}")
            return dict(document["searches"])
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as exc:
            raise CollectionError(f"{self.path} is damaged ({exc}); move it away to start anew") from exc

    def _write(self, entries: Mapping[str, Any]) -> None:
        temporary = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            temporary.write_text(json.dumps({"format": FORMAT, "searches": entries}), "utf-8")
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


def saved_searches_path(location: str) -> Path:
    """Where the searches of the index at this directory or URL are kept."""
    if is_url(location):
        digest = hashlib.blake2b(location.rstrip("/").encode(), digest_size=8).hexdigest()
        return user_data_path("visxp") / "saved_searches" / f"{digest}.json"
    return Path(location) / "saved_searches.json"


def run_saved(
    searches: SavedSearches, name: str, search: Callable[..., Results], *, known: Mapping[str, int], only_new: bool
) -> Results:
    """Run a saved search and remember what it finds.

    Args:
        searches: where it is kept.
        name: of the search.
        search: from (saved search, `accept`) to results.
        known: video id -> how many of its seconds are indexed.
        only_new: only moments of videos of which more is indexed than at the last run, unless they were found before.
    """
    saved = searches.get(name)

    def is_new(moment: Moment) -> bool:
        grown = known.get(moment.video_id) != saved.known.get(moment.video_id)
        return grown and not _is_seen(span_of(moment), saved.seen)

    results = search(saved, accept=is_new) if only_new else search(saved)
    fresh = tuple(span for span in map(span_of, results.moments) if not _is_seen(span, saved.seen))
    searches.put(replace(saved, seen=(*saved.seen, *fresh), known=known))
    if only_new and not results.moments:
        n_grown = sum(known[video_id] != saved.known.get(video_id) for video_id in known)
        here = f"; in {n_grown} videos {results.reason}" if n_grown else ""
        return replace(
            results, reason=f"nothing new for {name!r}: {n_grown} videos were indexed since its last run{here}"
        )
    return results


def describe(saved: SavedSearch) -> dict[str, Any]:
    """A saved search as JSON values for people: what is asked with, the options that were changed, what was found."""
    entry = _to_json(saved)
    scope = entry["options"].get("scope") or {}
    unchanged = asdict(Scope())
    changed = {key: value for key, value in scope.items() if value != unchanged[key]}
    options = {
        key: value for key, value in entry["options"].items() if key not in ("scope", "then") and value is not None
    }
    then = saved.options.get("then")
    return {
        "name": saved.name,
        "kind": saved.query.kind,
        "origin": dict(saved.query.origin),
        "options": {**options, **changed, **({} if then is None else {"then": dict(then.origin)})},
        "seen": len(saved.seen),
    }


def spans_of(results: Results) -> Seen:
    """What a run found, to be remembered."""
    return tuple(span_of(moment) for moment in results.moments)


def span_of(moment: Moment) -> tuple[str, float, float]:
    """(video id, start, end)."""
    return moment.video_id, round(moment.start, 2), round(moment.end, 2)


def _is_seen(span: tuple[str, float, float], seen: Seen) -> bool:
    video_id, start, end = span
    return any(video_id == other and start < stop and begin < end for other, begin, stop in seen)


def _to_json(saved: SavedSearch) -> dict[str, Any]:
    options = dict(saved.options)
    if isinstance(options.get("scope"), Scope):
        options["scope"] = asdict(options["scope"])
    if isinstance(options.get("then"), Query):
        options["then"] = _query_to_json(options["then"])
    return {
        "checkpoint": saved.checkpoint,
        "query": _query_to_json(saved.query),
        "options": options,
        "seen": [list(span) for span in saved.seen],
        "known": dict(saved.known),
    }


def _from_json(name: str, entry: Mapping[str, Any], path: Path) -> SavedSearch:
    try:
        options = dict(entry["options"])
        if options.get("scope") is not None:
            options["scope"] = Scope(**{key: _tuple(value) for key, value in options["scope"].items()})
        if options.get("then") is not None:
            options["then"] = _query_from_json(options["then"])
        return SavedSearch(
            name=name,
            checkpoint=str(entry["checkpoint"]),
            query=_query_from_json(entry["query"]),
            options=options,
            seen=tuple((str(v), float(start), float(end)) for v, start, end in entry["seen"]),
            known={str(video_id): int(count) for video_id, count in entry.get("known", {}).items()},
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise CollectionError(
            f"saved search {name!r} in {path} is damaged ({exc!r}); search again and --save it anew"
        ) from exc


def _query_to_json(query: Query) -> dict[str, Any]:
    return {
        "kind": query.kind,
        "vectors": {name: _rows_to_json(rows) for name, rows in query.vectors.items()},
        "against": {name: _rows_to_json(rows) for name, rows in query.against.items()},
        "fine_vectors": {name: _rows_to_json(rows) for name, rows in query.fine_vectors.items()},
        "sound_levels": None if query.sound_levels is None else _rows_to_json(query.sound_levels),
        "weights": dict(query.weights),
        "origin": dict(query.origin),
        "video_id": query.video_id,
        "duration_seconds": query.duration_seconds,
        "examples": None if query.examples is None else list(query.examples),
        "notes": list(query.notes),
        "why_empty": query.why_empty,
    }


def _query_from_json(entry: Mapping[str, Any]) -> Query:
    decoded: dict[str, Any] = {key: _tuple(value) for key, value in entry.items()}
    for key in ("vectors", "against", "fine_vectors"):
        if key in entry:  # searches that were saved by earlier releases were not cut finely
            decoded[key] = {name: _rows_from_json(rows) for name, rows in entry[key].items()}
    if entry.get("sound_levels") is not None:
        decoded["sound_levels"] = _rows_from_json(entry["sound_levels"])
    return Query(**decoded)


def _rows_to_json(rows: npt.NDArray[np.float32]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(rows, dtype="<f4").tobytes()).decode()
    return {"shape": list(rows.shape), "float32": data}


def _rows_from_json(entry: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    rows = np.frombuffer(base64.b64decode(entry["float32"], validate=True), dtype="<f4")
    return rows.reshape(entry["shape"]).astype(np.float32)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
