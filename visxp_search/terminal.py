"""The two ways to the terminal: results on stdout, everything else on stderr. Loads no media and no engine."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str) -> None:
    """A message for a person, on stderr."""
    print(text, file=sys.stderr)


def without_path(message: str, path: str) -> str:
    """A message that begins with the path it is about, without it, for a line that has it already."""
    return message.removeprefix(f"{path}: ").removeprefix(f"{path} ")


def stdout() -> "Console":
    """Tables keep their full width when piped, so that long paths can be read by programs."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=400, no_color=True)
