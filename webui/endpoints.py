"""The page's HTTP API: named, typed functions for `gradio_client` and plain HTTP. Examples stand in `EXAMPLES`.

Moments have the form of DESIGN section 4, with `name` instead of `path`; times are seconds.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from visxp_search.api import find_video
from visxp_search.cluster_book import ROOT
from visxp_search.errors import UsageError
from webui.archive import Archive
from webui.asking import CLIP, INDEXED, SOUND, STILL, Form, Uploads
from webui.basket import read_basket
from webui.clusters import Clusters
from webui.exporting import Exports
from webui.finding import find, results_document
from webui.narrow import Narrow
from webui.videos import display_name, list_videos

By = Literal["both", "visual", "audio"]
Mode = Literal["similar", "same"]

EXAMPLES = """\
from gradio_client import Client, handle_file

page = Client("{url}")
found = page.predict(handle_file("{clip}"), by="both", top=5, api_name="/search_clip")
for moment in found["moments"]:
    print(moment["name"], moment["start"], moment["end"], moment["score"])

page.predict(handle_file("{sound}"), api_name="/search_sound")
page.predict(handle_file("{still}"), api_name="/search_still")
page.predict(found["moments"][0]["video_id"], 2, 5, api_name="/search_moment")
page.predict(api_name="/facts")
page.predict("", api_name="/videos")

for cluster in page.predict(api_name="/clusters"):
    print(cluster["node"], cluster["name"], cluster["seconds"], cluster["videos"])
only_bells = page.predict(handle_file("{clip}"), files="*bell*", weak=True, api_name="/search_clip")

made = page.predict(found["moments"][:3], "edl", api_name="/export_moments")
print(made["name"], made["url"])  # the file is there, below the page's address
"""
"""How to call each endpoint; a test runs this text with files of its own."""


def make_endpoints(archive: Archive, clusters: Clusters, uploads: Uploads) -> Mapping[str, Callable[..., Any]]:
    """Name -> function, for `gr.api`."""

    def answer(form: Form) -> dict[str, Any]:
        return results_document(find(archive, clusters, form, uploads))

    def shared(top: int, per_video: int, files: str, nodes: list[str] | None, weak: bool) -> dict[str, Any]:
        narrow = Narrow(files=files, nodes=tuple(nodes or ()))
        return {"top": top, "per_video": per_video, "narrow": narrow, "weak": weak}

    def search_clip(
        clip: dict[str, Any],
        start: str = "",
        end: str = "",
        by: By = "both",
        audio_weight: float = 0.5,
        mode: Mode = "similar",
        top: int = 10,
        per_video: int = 3,
        files: str = "",
        nodes: list[str] | None = None,
        weak: bool = False,
    ) -> dict[str, Any]:
        """Moments like an uploaded clip of a video, or like [start, end) of it."""
        how: dict[str, Any] = {"by": by, "audio_weight": audio_weight, "mode": mode}
        options = shared(top, per_video, files, nodes, weak)
        return answer(Form(CLIP, _path(clip), start=start, end=end, **how, **options))

    def search_sound(
        sound: dict[str, Any],
        start: str = "",
        end: str = "",
        cross: bool = False,
        mode: Mode = "similar",
        top: int = 10,
        per_video: int = 3,
        files: str = "",
        nodes: list[str] | None = None,
        weak: bool = False,
    ) -> dict[str, Any]:
        """Moments that sound like an uploaded file or, with cross, whose pictures go with it."""
        options = shared(top, per_video, files, nodes, weak)
        return answer(Form(SOUND, _path(sound), start=start, end=end, cross=cross, mode=mode, **options))

    def search_still(
        still: dict[str, Any],
        top: int = 10,
        per_video: int = 3,
        files: str = "",
        nodes: list[str] | None = None,
        weak: bool = False,
    ) -> dict[str, Any]:
        """Moments that look like an uploaded picture."""
        return answer(Form(STILL, _path(still), **shared(top, per_video, files, nodes, weak)))

    def search_moment(
        video: str,
        start: float,
        end: float,
        by: By = "both",
        audio_weight: float = 0.5,
        mode: Mode = "similar",
        top: int = 10,
        per_video: int = 3,
        files: str = "",
        nodes: list[str] | None = None,
        weak: bool = False,
    ) -> dict[str, Any]:
        """Moments like [start, end) of an indexed video, given by id or by name."""
        how: dict[str, Any] = {"by": by, "audio_weight": audio_weight, "mode": mode}
        options = shared(top, per_video, files, nodes, weak)
        return answer(Form(INDEXED, None, video, f"{start}", f"{end}", **how, **options))

    def facts() -> dict[str, Any]:
        """What the index holds."""
        held = archive.facts()
        if held is None:
            return {"state": archive.readiness.state}
        return {
            "state": archive.readiness.state,
            "checkpoint": held.checkpoint,
            "videos": held.videos,
            "seconds": held.seconds,
            "seconds_expected": held.seconds_expected,
            "flags": held.flags,
        }

    def videos(text: str = "") -> list[dict[str, Any]]:
        """The indexed videos whose name holds a text."""
        return [
            {
                "video_id": record.video_id,
                "name": display_name(record),
                "status": record.status,
                "seconds": record.seconds_done,
                "seconds_expected": record.seconds_expected,
            }
            for record in list_videos(archive.store, text=text)
        ]

    def video(name: str) -> dict[str, Any]:
        """One video, by id, start of an id, or name."""
        record = find_video(archive.store, name)
        return {"video_id": record.video_id, "name": display_name(record), "facts": dict(record.facts)}

    functions = (search_clip, search_sound, search_still, search_moment, facts, videos, video)
    return {function.__name__: function for function in functions}


def make_cluster_endpoints(clusters: Clusters, *, read_only: bool) -> Mapping[str, Callable[..., Any]]:
    """Name -> function, of clusters; those that change something only if that is allowed."""

    def described(node: str) -> dict[str, Any]:
        known = clusters.require()
        d = known.descriptions[known.book.find(node)]
        pictures, sounds = (None if math.isnan(value) else value for value in (d.purity_visual, d.purity_audio))
        return {
            "node": d.node,
            "name": d.name,
            "hidden": d.hidden,
            "branches": list(d.path),
            "seconds": d.seconds,
            "videos": d.videos,
            "purity_visual": pictures,
            "purity_audio": sounds,
            "typical": [[example.video_id, example.second] for example in d.nearest],
            "boundary": [[example.video_id, example.second] for example in d.boundary],
        }

    def list_clusters() -> list[dict[str, Any]]:
        """All clusters in the order of the tree."""
        known = clusters.known()
        return [] if known is None else [described(f"c{number}") for number in known.book.below(ROOT)]

    def cluster(node: str) -> dict[str, Any]:
        """One cluster or branch, by id or name."""
        return described(node)

    def name_cluster(node: str, name: str) -> dict[str, Any]:
        """Name a cluster or branch; an empty name takes it away."""
        clusters.rename(node, name)
        return described(node)

    def merge_clusters(kept: str, merged: str) -> dict[str, Any]:
        """Make two clusters one, which keeps the id and name of the first."""
        clusters.merge(kept, merged)
        return described(kept)

    def split_cluster(node: str) -> list[str]:
        """Split a cluster; the ids of the new ones."""
        return clusters.split(node)

    def move_cluster(node: str, branch: str) -> dict[str, Any]:
        """Hang a cluster or branch below another branch."""
        clusters.move(node, branch)
        return described(node)

    def hide_cluster(node: str, hidden: bool = True) -> dict[str, Any]:
        """Leave a cluster or branch out of lists, or show it again."""
        clusters.hide(node, hidden=hidden)
        return described(node)

    edits = () if read_only else (name_cluster, merge_clusters, split_cluster, move_cluster, hide_cluster)
    shown: dict[str, Callable[..., Any]] = {"clusters": list_clusters, "cluster": cluster}
    return shown | {function.__name__: function for function in edits}


def make_export_endpoints(exports: Exports) -> Mapping[str, Callable[..., Any]]:
    """Name -> function, of exports."""

    def export_moments(moments: list[dict[str, Any]], to: str = "edl") -> dict[str, Any]:
        """Moments as a search gave them, with a `note` where there is one, as a file of one of the export formats.

        The answer comes when the file is made; `url` is fetched within the hour.
        """
        export = exports.start(read_basket(moments), to)
        export.ended.wait()
        if export.path is None:
            raise UsageError(export.words)
        return {
            "name": export.path.name,
            "url": f"media/export/{export.token}",
            "failures": [{"moment": moment, "reason": reason} for moment, reason in export.failures],
        }

    return {"export_moments": export_moments}


def _path(file: Mapping[str, Any]) -> str | None:
    """The path of an uploaded file as gradio_client sends it; `asking.checked_upload` decides whether it is read."""
    path = file.get("path") if isinstance(file, Mapping) else None
    return str(path) if path else None
