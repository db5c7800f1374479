"""What a store keeps and is asked, as plain JSON data: filters, ledger entries, and what an index says of itself."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from visxp_search.errors import CollectionError
from visxp_search.store import OLDEST_SCHEMA, SCHEMA_VERSION, CollectionInfo, Filter, VideoRecord, check_info

BULKY_VIDEO_KEYS = ("stats", "facts")
"""Payload keys of the ledger that a listing does not need."""

_INFO_FORMAT = "visxp-index"


def conditions(where: Filter | None) -> dict[str, list[dict[str, Any]]]:
    """A filter as plain data in the JSON form of Qdrant's REST API; the stores turn it into their own classes.

    Each condition is one of `{"key", "match": {"any": [...]}}`, `{"key", "range": {"gte", "lt"}}` and `{"has_vector"}`.
    """
    where = where or Filter()
    must: list[dict[str, Any]] = [_any_of("flags", [flag]) for flag in where.flags]
    if where.video_ids is not None:
        must.append(_any_of("video_id", where.video_ids))
    told = {"cluster": where.clusters, "cluster_visual": where.clusters_visual, "cluster_audio": where.clusters_audio}
    must += [_any_of(key, values) for key, values in told.items() if values is not None]
    if where.branch is not None:
        must.append(_any_of("path", [where.branch]))
    if where.seconds is not None:
        start, stop = where.seconds
        must.append({"key": "second", "range": {"gte": start, "lt": stop}})
    if where.has_vector is not None:
        must.append({"has_vector": where.has_vector})
    unwanted = {"video_id": where.not_video_ids, "cluster": where.not_clusters, "flags": where.not_flags}
    return {"must": must, "must_not": [_any_of(key, values) for key, values in unwanted.items() if values]}


def _any_of(key: str, values: Iterable[object]) -> dict[str, Any]:
    return {"key": key, "match": {"any": list(values)}}


def video_payload(record: VideoRecord) -> dict[str, Any]:
    """A ledger entry as JSON data, without its vectors; `video_record` is the inverse."""
    payload = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "vectors"}
    payload["facts"] = dict(record.facts)
    payload["paths"] = [_path_to_text(path) for path in record.paths]
    payload["stats"] = {_path_to_text(path): list(stat) for path, stat in record.stats.items()}
    payload["error"] = record.error.encode("utf-8", "backslashreplace").decode()
    return payload


def video_record(payload: Mapping[str, Any]) -> VideoRecord:
    """The ledger entry of a payload; keys that this version does not know are ignored."""
    known = {name: payload[name] for name in _PLAIN_KEYS if name in payload}
    paths = tuple([_path_from_text(path) for path in payload["paths"]])
    stats = {_path_from_text(path): stat for path, stat in payload.get("stats", {}).items()}
    record = object.__new__(VideoRecord)  # its own constructor, which sets each field apart, takes three times as long
    vars(record).update({"facts": {}, "vectors": {}, **known, "paths": paths, "stats": stats})
    return record


_PLAIN_KEYS = tuple(f.name for f in fields(VideoRecord) if f.name not in ("paths", "stats", "vectors"))


def _path_to_text(path: str) -> str:
    """A path as valid Unicode: one that holds undecodable bytes (lone surrogates) becomes a `file://` URI."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return Path(path).as_uri()
    return path


def _path_from_text(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text.removeprefix("file://"))) if text.startswith("file://") else text


def info_to_json(info: CollectionInfo) -> dict[str, Any]:
    """What an index says of itself as JSON data; `info_from_json` is the inverse."""
    return {"format": _INFO_FORMAT, **asdict(info)}


def info_from_json(data: Any, *, location: str) -> CollectionInfo:
    """Read what `info_to_json` wrote, in whatever state it is found.

    Raises:
        CollectionError: If it is not the description of a visxp index, or of one of a schema that is not read.
    """
    try:
        if not isinstance(data, dict):
            raise ValueError("it is no JSON object")
        if data["format"] != _INFO_FORMAT:
            raise ValueError(f"its format is {data['format']!r}, not {_INFO_FORMAT!r}")
        schema = int(data["schema"])
        readable = OLDEST_SCHEMA <= schema <= SCHEMA_VERSION  # another version may say the rest in another way
        dims = {str(name): int(dim) for name, dim in data["dims"].items()} if readable else {}
        info = CollectionInfo(checkpoint=str(data["checkpoint"]) if readable else "", dims=dims, schema=schema)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        reason = f"it lacks {exc}" if isinstance(exc, KeyError) else str(exc)
        raise CollectionError(
            f"the description of index {location} is damaged or not that of a visxp index ({reason}); restore it from "
            f"a backup, or index the videos again into a new --index"
        ) from exc
    check_info(info, wanted_checkpoint=None, location=location)
    return info
