"""The page's HTTP API: named, typed functions for `gradio_client` and plain HTTP. Examples stand in `EXAMPLES`.

Moments have the form of DESIGN section 4, with `name` instead of `path`; times are seconds.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from visxp_search.api import find_video
from webui.archive import Archive
from webui.clusters import Clusters
from webui.handlers import CLIP, INDEXED, SOUND, STILL, Form, Uploads, display_name, find, list_videos, results_document

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
"""
"""How to call each endpoint; a test runs this text with files of its own."""


def make_endpoints(archive: Archive, clusters: Clusters, uploads: Uploads) -> Mapping[str, Callable[..., Any]]:
    """Name -> function, for `gr.api`."""

    def answer(form: Form) -> dict[str, Any]:
        return results_document(find(archive, clusters, form, uploads))

    def search_clip(
        clip: dict[str, Any],
        start: str = "",
        end: str = "",
        by: By = "both",
        audio_weight: float = 0.5,
        mode: Mode = "similar",
        top: int = 10,
        per_video: int = 3,
    ) -> dict[str, Any]:
        """Moments like an uploaded clip of a video, or like [start, end) of it."""
        return answer(
            Form(CLIP, _path(clip), "", start, end, by, audio_weight, mode=mode, top=top, per_video=per_video)
        )

    def search_sound(
        sound: dict[str, Any],
        start: str = "",
        end: str = "",
        cross: bool = False,
        mode: Mode = "similar",
        top: int = 10,
        per_video: int = 3,
    ) -> dict[str, Any]:
        """Moments that sound like an uploaded file or, with cross, whose pictures go with it."""
        return answer(Form(SOUND, _path(sound), "", start, end, cross=cross, mode=mode, top=top, per_video=per_video))

    def search_still(still: dict[str, Any], top: int = 10, per_video: int = 3) -> dict[str, Any]:
        """Moments that look like an uploaded picture."""
        return answer(Form(STILL, _path(still), top=top, per_video=per_video))

    def search_moment(
        video: str,
        start: float,
        end: float,
        by: By = "both",
        audio_weight: float = 0.5,
        mode: Mode = "similar",
        top: int = 10,
        per_video: int = 3,
    ) -> dict[str, Any]:
        """Moments like [start, end) of an indexed video, given by id or by name."""
        return answer(
            Form(INDEXED, None, video, f"{start}", f"{end}", by, audio_weight, mode=mode, top=top, per_video=per_video)
        )

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

    return {
        function.__name__: function
        for function in (search_clip, search_sound, search_still, search_moment, facts, videos, video)
    }


def _path(file: Mapping[str, Any]) -> str | None:
    """The path of an uploaded file as gradio_client sends it; `handlers.checked_upload` decides whether it is read."""
    path = file.get("path") if isinstance(file, Mapping) else None
    return str(path) if path else None
