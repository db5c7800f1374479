"""What people are told: messages in the words of the page, without folders of the server, and numbers they sent."""

import re
from collections.abc import Mapping

from visxp_search.clips import BLACK, NO_AUDIO, NO_VIDEO, SILENT, STATIC
from visxp_search.errors import UsageError

FLAG_WORDS = {
    STATIC: "still picture",
    BLACK: "black picture",
    NO_VIDEO: "no picture",
    SILENT: "silence",
    NO_AUDIO: "no sound",
}
"""Remarks on seconds, as people read them."""

PAGE_WORDS = {
    "; --max-chance raises it": ", so it is left out as weak",
    "--min-visual and --min-audio": "the least likeness that was asked for",
    "see: visxp index ls": "see Manage",
}
"""What core messages say of the command line, in the words of the page."""
_NOT_SHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that turn the direction of what follows, and bytes that are no text."""
_FOLDERS = re.compile(r"(?<![\w.\])])/(?=[^\s/])[^:;,'\"\n]*/")
"""From the first slash of a path to its last; folders may have spaces in their names."""


def hide_folders(text: str, names: Mapping[str, str] | None = None) -> str:
    """A message for a browser: known paths become names, and of any other path only the last part is left."""
    text = printable(text)
    for path in sorted(names or {}, key=len, reverse=True):
        text = text.replace(printable(path), (names or {})[path])
    return _FOLDERS.sub("", text)


def printable(text: str) -> str:
    """A text that can be sent and shown: what would break the page, or the reading of it, becomes a replacement sign.

    File names of old disks are not always valid text, and a character that turns the direction makes `gpj.exe` of
    `exe.jpg`.
    """
    return _NOT_SHOWN.sub("\N{REPLACEMENT CHARACTER}", text)


def whole_number(value: object, what: str) -> int:
    """An integer that a browser sent.

    Raises:
        UsageError: If it is none.
    """
    try:
        return int(float(str(value)))
    except (ValueError, OverflowError) as exc:
        raise UsageError(f"{what} {value!r} is not a number") from exc
