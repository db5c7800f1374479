"""What all parts of the page share: the site they show, and how their events are tied to functions."""

import functools
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import ValidationError, validate_call

from visxp_search.errors import UsageError, VisxpError
from webui import basket as baskets
from webui import videos, wording
from webui.adding import Adder, Roots
from webui.archive import Archive
from webui.asking import Uploads
from webui.clusters import Clusters
from webui.exporting import CSV, JSON, Exports
from webui.searching import Searches

log = logging.getLogger(__name__)

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Options of events that programs have no use for."""
QUICK: dict[str, Any] = PRIVATE | {"queue": False}
"""Options of events that are answered at once."""
ACTS = """
const acts = [
  'watch', 'more', 'also', 'unlike', 'drop', 'back', 'weak', 'hide', 'unhide', 'instead', 'collect', 'close',
  'play', 'cluster', 'open', 'view', 'sort', 'hidden', 'rename', 'merge', 'split', 'move', 'leave', 'ask', 'within',
  'up', 'down', 'out', 'note', 'remove', 'confirm', 'keep', 'retry', 'again', 'span', 'stop',
];
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button || !element.contains(button)) return;
  const field = button.dataset.field && element.querySelector(button.dataset.field);
  trigger(button.dataset.act, { value: button.dataset.value || '', text: field ? field.value : '' });
});
element.addEventListener('change', (event) => {
  const field = event.target.closest('[data-change]');
  if (field) trigger(field.dataset.change, { value: field.dataset.value, text: field.value });
});
"""
"""Buttons in our own HTML become events of its component; `text` is what the field named by `data-field` holds."""


@dataclass(frozen=True)
class Site:
    """What the page is given.

    Attributes:
        archive: the index.
        adder: adds to it.
        roots: folders that may be added from.
        uploads: where uploads lie, and their limits.
        read_only: nothing can be added, removed or retried.
        model: the checkpoint as `visxp ui --model` names it; None for the shipped one.
    """

    archive: Archive
    adder: Adder
    roots: Roots
    uploads: Uploads
    read_only: bool = False
    model: str | None = None

    @cached_property
    def clusters(self) -> Clusters:
        """The clusters of the archive."""
        return Clusters(self.archive, self.adder)

    @cached_property
    def searches(self) -> Searches:
        """The searches of all visitors."""
        return Searches()

    @cached_property
    def exports(self) -> Exports:
        """What visitors export; in a folder beside the uploads, deleted with them."""
        return Exports(
            Path(self.uploads.folder) / "exports",
            find=lambda video_id: self.archive.store.video(video_id),
            texts={
                CSV: lambda basket: baskets.basket_csv(basket, self.name_of),
                JSON: lambda basket: json.dumps(
                    baskets.basket_document(basket, self.name_of), indent=1, ensure_ascii=False
                ),
            },
        )

    def name_of(self, video_id: str) -> str:
        """What people are shown instead of the path of a video."""
        return videos.name_of(self.archive.store, video_id)


def worded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with errors that are meant for people shown to them, without folders of the server."""

    @functools.wraps(function)
    def worded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except VisxpError as exc:
            raise _shown(exc) from exc

    worded.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return worded


def typed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with values of other types than it says refused in words: programs may send anything."""
    checked = validate_call(function)

    @functools.wraps(function)
    def typed(*args: Any, **kwargs: Any) -> Any:
        try:
            return checked(*args, **kwargs)
        except ValidationError as exc:
            names = list(inspect.signature(function).parameters)
            wrong = [
                f"{names[at] if isinstance(at, int) else at}: {error['msg']}"
                for error in exc.errors()
                for at in error["loc"][:1]
            ]
            raise UsageError("; ".join(dict.fromkeys(wrong))) from exc

    typed.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return typed


def worded_steps(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """As `worded`, for a function that gives its answer step by step."""

    @functools.wraps(function)
    def worded_steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from function(*args, **kwargs)
        except VisxpError as exc:
            raise _shown(exc) from exc

    worded_steps.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return worded_steps


def _shown(exc: VisxpError) -> gr.Error:
    log.info("%s", exc)
    return gr.Error(wording.hide_folders(str(exc)), duration=12, print_exception=False)


def hand_on(component: gr.Video | gr.Image) -> None:
    """Let an upload reach our own reader as it came: not converted, and refused in our own words."""
    component.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]


def read_target(value: object) -> tuple[str, float, float, float | None]:
    """Video id, start, end and score of `ID@START-END[@SCORE]`, as our buttons send it."""
    try:
        video_id, span, *rest = str(value).split("@")
        start, end = span.split("-")
        score = float(rest[0]) if rest and rest[0] else None
        return video_id, float(start), float(end), score
    except ValueError as exc:
        raise UsageError("this button's moment is not understood; search again") from exc
