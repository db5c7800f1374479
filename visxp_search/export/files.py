"""Files that appear whole or not at all, are named sensibly, and never take the place of another unasked."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from visxp_search.errors import UsageError


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a name that is taken, before any work is done.

    Raises:
        UsageError: If a file of this name exists and may not be replaced, or it is a folder, or its folder is missing.
    """
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}; make it first")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already; give another --out, or replace it with --overwrite")


@contextmanager
def appearing(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A hidden name beside `path`, renamed to it when the block ends well and removed when it does not.

    Raises:
        UsageError: If `path` is taken; see `check_free`.
    """
    check_free(path, overwrite=overwrite)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a text file, UTF-8, with the line ends that the text has.

    Raises:
        UsageError: If `path` is taken (see `check_free`), or cannot be written.
    """
    with appearing(path, overwrite=overwrite) as partial:
        try:
            partial.write_bytes(text.encode("utf-8", "surrogateescape"))
        except OSError as exc:
            raise UsageError(f"--out {path} cannot be written ({exc.strerror}); give another place") from exc


def make_folder(path: Path) -> None:
    """Make a folder for exports, if need be.

    Raises:
        UsageError: If there is a file of that name, or it cannot be made.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {path} is a file; this export writes several files and wants a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"--out {path} cannot be made ({exc.strerror}); give another place") from exc


def unique_names(texts: Iterable[str]) -> list[str]:
    """File names made of texts: only letters, digits, `.`, `-` and `_`, at most 80, no two alike (`a`, `a-2`)."""
    names: list[str] = []
    for text in texts:
        bare = re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._")[:80] or "video"
        name, number = bare, 1
        while name.lower() in (taken.lower() for taken in names):
            number += 1
            name = f"{bare}-{number}"
        names.append(name)
    return names
