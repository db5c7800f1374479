"""What people are told: messages in the words of the page, without folders of the server, and numbers they sent."""

import re
from collections.abc import Mapping

from visxp_search.errors import UsageError

PAGE_WORDS = {
    "; --max-chance raises it": ", so it is left out as weak",
    "--min-visual and --min-audio": "the least likeness that was asked for",
    "see: visxp index ls": "see Manage",
}
"""What core messages say of the command line, in the words of the page."""
_FOLDERS = re.compile(r"(?:/[^\s/:;,'\"()]+)+/")


def hide_folders(text: str, names: Mapping[str, str] | None = None) -> str:
    """A message for a browser: known paths become names, and of any other path only the last part is left."""
    for path in sorted(names or {}, key=len, reverse=True):
        text = text.replace(path, (names or {})[path])
    return _FOLDERS.sub("", text)


def whole_number(value: object, what: str) -> int:
    """An integer that a browser sent.

    Raises:
        UsageError: If it is none.
    """
    try:
        return int(float(str(value)))
    except (ValueError, OverflowError) as exc:
        raise UsageError(f"{what} {value!r} is not a number") from exc
