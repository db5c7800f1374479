"""The addresses of media, below `/media/`: videos by range, filmstrips, spectrograms, proxies."""

import logging
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from visxp_search.errors import VisxpError
from webui.card import Card
from webui.exporting import Exports
from webui.media import SAVED_TYPES, Media, NotServedError, Served

log = logging.getLogger(__name__)


def media_routes(media: Media, exports: Exports, *, card: Callable[[], Card | None]) -> list[Route]:
    """The routes; each answers GET and HEAD, in a thread, and knows a video by its id and an export by its token."""

    def serve(find: Callable[[Request], Served], *, max_age_seconds: int) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                served = find(request)
            except NotServedError as exc:
                return PlainTextResponse(str(exc), status_code=404)
            except VisxpError as exc:  # the words name the file's path
                log.info("%s: %s", request.url.path, exc)
                return PlainTextResponse("this part of the file cannot be read", status_code=404)
            headers = {"cache-control": f"private, max-age={max_age_seconds}"}
            return FileResponse(served.path, media_type=served.content_type, headers=headers)

        return answer

    def span(request: Request) -> tuple[str, int, int]:
        return request.path_params["video_id"], request.path_params["start"], request.path_params["end"]

    def still(request: Request) -> Served:
        return media.still(request.path_params["video_id"], request.path_params["second"])

    def saved(request: Request) -> Response:
        export = exports.find(request.path_params["token"])
        if export is None or export.path is None or not export.path.exists():
            return PlainTextResponse("this export is no longer kept; export it again", status_code=404)
        kind = SAVED_TYPES.get(export.path.suffix, "application/octet-stream")
        headers = {"cache-control": "private, no-store"}
        return FileResponse(export.path, media_type=kind, filename=export.path.name, headers=headers)

    def report(request: Request) -> Response:
        found = card()
        if found is None or found.report is None:
            return PlainTextResponse("this checkpoint has no report", status_code=404)
        return FileResponse(found.report, media_type="application/octet-stream", filename=found.report.name)

    day = 24 * 3600
    return [
        Route("/media/export/{token}", saved),
        Route("/media/report", report),
        Route(
            "/media/video/{video_id}", serve(lambda r: media.original(r.path_params["video_id"]), max_age_seconds=60)
        ),
        Route("/media/still/{video_id}/{second:int}.jpg", serve(still, max_age_seconds=day)),
        Route(
            "/media/proxy/{video_id}/{start:int}",
            serve(lambda r: media.proxy(r.path_params["video_id"], r.path_params["start"]), max_age_seconds=day),
        ),
        Route(
            "/media/sheet/{video_id}/{start:int}-{end:int}.jpg",
            serve(lambda r: media.sheet(*span(r)), max_age_seconds=day),
        ),
        Route(
            "/media/strip/{video_id}/{start:int}-{end:int}.jpg",
            serve(lambda r: media.strip(*span(r)), max_age_seconds=day),
        ),
        Route(
            "/media/sound/{video_id}/{start:int}-{end:int}.jpg",
            serve(lambda r: media.sound(*span(r)), max_age_seconds=day),
        ),
    ]
