"""The directories that the VisXP workers of DANE leave behind: their layout, and safe readers of it.

One folder a source, as written by two public programs of the Netherlands Institute for Sound & Vision:

    <source id>/
      keyframes/<time>.jpg                              pictures, one a shot or one a second
      spectrograms/<time>_<sample rate>.npz             (earlier: spectograms/) one second of sound around each
      metadata/keyframes_timestamps_ms.txt              [500, 1500, ...]
      metadata/keyframes_indices.txt                    frame numbers of the same keyframes
      metadata/shot_boundaries_timestamps_ms.txt        [(0, 1100), ...]
      visxp_features__<source id>.pt                    (earlier: <source id>.pt) one row a keyframe, float32
      provenance.json                                   what was done with which model

A row of features is, by its width, one of `LAYOUTS`. `<time>` and the first column are milliseconds where keyframes are
those of shots, and the number of the second (or of the frame, one of which was taken each second) in their examples and
older runs. Where a shot is unknown its bounds are -1.

Their own programs read the spectrograms with `np.load(..., allow_pickle=True)` and the texts with `eval`, both of which
run whatever the file says. Here texts are literals, arrays are plain numbers, `.pt` files go through PyTorch's loader
of weights alone, and the spectrograms, which always are pickled, are looked at but never loaded: what is searched are
the features.

References:
    segmentation: beeldengeluid/dane-video-segmentation-worker: spectrogram.py (`np.savez` of a dict), hecate.py
        (`write_to_file`), scenedetect.py, keyframe_extraction.py, models.py (names of folders and files)
    extraction: beeldengeluid/dane-visual-feature-extraction-worker: data_handling.py (`VisXPData`, `ListOfShots`),
        feature_extraction.py (`apply_model`, the order of the columns), io_util.py (name of the feature file),
        tests/unit/feature_extraction_test.py (the layout without shots), provenance.py
"""

import ast
import json
import pickle
import pickletools
import zipfile
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from visxp_search.errors import ExchangeError
from visxp_search.store import VECTORS

FeatureArray = npt.NDArray[np.float32]

DIM = 512
"""Length of VisXP's embeddings, of each modality."""
FEATURES = "visxp_features__"
KEYFRAMES, METADATA, SPECTROGRAMS = "keyframes", "metadata", ("spectrograms", "spectograms")
TIMES_TEXT = "keyframes_timestamps_ms.txt"
FRAMES_TEXT = "keyframes_indices.txt"
SHOTS_TEXT = "shot_boundaries_timestamps_ms.txt"
PROVENANCE = "provenance.json"
EXPORT_ACTIVITY = "VisXP search export"
"""Name of the activity in the provenance of our own exports."""

MAX_TEXT_BYTES = 64 * 2**20
MAX_ARRAY_BYTES = 8 * 2**30
"""Nothing larger is read: 8 GiB are 23 days of features."""
HARMLESS_ROOTS = {"numpy", "torch", "collections", "_codecs"}
"""Packages that the workers' own pickles name. What names others was made to do something else."""
SLEIGHTS = {"POP", "POP_MARK", "DUP", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
"""Instructions that honest pickles of arrays do without, and with which a name could be hidden."""


@dataclass(frozen=True)
class Layout:
    """How the columns of a feature array are divided: time, bounds of the shot, embeddings.

    Attributes:
        has_shots: columns 1 and 2 are the bounds of the shot, ms.
        parts: (name of the vector, its length), in the order of the columns.
    """

    has_shots: bool
    parts: tuple[tuple[str, int], ...]

    @property
    def dims(self) -> dict[str, int]:
        """The named vectors of an index of such features."""
        return dict(self.parts)

    @property
    def first_feature(self) -> int:
        """Column at which the features begin."""
        return 3 if self.has_shots else 1

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.first_feature + sum(length for _, length in self.parts)


_BOTH, _VISUAL = (("audio", DIM), ("visual", DIM)), (("visual", DIM),)
LAYOUTS = {
    layout.width: layout
    for layout in (
        Layout(has_shots=True, parts=_BOTH),
        Layout(has_shots=True, parts=_VISUAL),
        Layout(has_shots=False, parts=_BOTH),
    )
}
"""By the number of columns: 1027 [time, shot start, shot end, audio, visual], 515 without audio, 1025 without shots.

An export of ours may have as many columns and mean others by them; its provenance says so, see `stated_layout`.
"""


@dataclass(frozen=True)
class DaneSource:
    """One feature array and the folders that belong to it.

    Attributes:
        source_id: the workers' name of the video.
        features: file of the array.
        folder: where keyframes, metadata and provenance lie; they may be missing.
    """

    source_id: str
    features: Path
    folder: Path

    @property
    def spectrograms(self) -> list[Path]:
        """Files of spectrograms, in both spellings of their folder."""
        return [path for name in SPECTROGRAMS for path in sorted((self.folder / name).glob("*.npz"))]


def find_sources(root: Path) -> list[DaneSource]:
    """All feature arrays below a folder, sorted.

    Raises:
        ExchangeError: If there is none.
    """
    if not root.is_dir():
        raise ExchangeError(f"{root} is not a folder; give one that the VisXP workers wrote, or a Parquet export")
    inputs = {KEYFRAMES, METADATA, *SPECTROGRAMS}
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix in (".pt", ".npy", ".npz")
        and path.is_file()
        and not inputs & set(path.relative_to(root).parts[:-1])
        and not path.name.startswith(".")
    )
    if not files:
        raise ExchangeError(
            f"{root} has no feature array ({FEATURES}<source id>.pt, or .npy, .npz); keyframes and spectrograms alone "
            f"hold no features: index the videos with visxp index add"
        )
    return [_find_source(path, root) for path in files]


def _find_source(path: Path, root: Path) -> DaneSource:
    source_id = path.stem.removeprefix(FEATURES)
    if source_id in ("features", "visxp_features"):
        source_id = path.parent.name
    places = [
        path.parent,
        path.parent / source_id,
        root / source_id,
        path.parent.parent / source_id,
        path.parent.parent,
    ]
    inside = [place for place in places if place.is_relative_to(root)]
    folder = next((place for place in inside if (place / METADATA).is_dir() or (place / PROVENANCE).is_file()), None)
    return DaneSource(source_id, path, folder or path.parent)


def read_features(path: Path, *, stated: Layout | None = None) -> tuple[FeatureArray, Layout]:
    """A feature array and what its columns are.

    Args:
        path: `.pt`, `.npy` or `.npz`.
        stated: what its provenance says of the columns; None tells them by their number.

    Returns:
        (N, width of `stated` or one of `LAYOUTS`) float32.

    Raises:
        ExchangeError: If the file would have to be unpickled, is damaged, or has another width.
    """
    if path.stat().st_size > MAX_ARRAY_BYTES:
        raise ExchangeError(
            f"{path}: {path.stat().st_size} bytes; features of one video have at most {MAX_ARRAY_BYTES}"
        )
    known = LAYOUTS if stated is None else {stated.width: stated}
    if path.suffix == ".npz":
        array = _read_npz(path, widths=known)
    else:
        array = _read_pt(path) if path.suffix == ".pt" else _read_npy(path)
    layout = known.get(array.shape[1]) if array.ndim == 2 else None
    if layout is None or array.dtype.kind not in "fiu":
        widths = ", ".join(map(str, known)) + ("" if stated is None else f", as {PROVENANCE} beside it says")
        raise ExchangeError(f"{path}: {array.dtype} of shape {array.shape}; expected numbers in rows of {widths}")
    return np.asarray(array, dtype=np.float32), layout


def read_literal(path: Path) -> Any:
    """What a text of metadata holds: lists, tuples and numbers, read as literals and never run.

    Returns:
        The value, or None if there is no such file.

    Raises:
        ExchangeError: If it is anything else.
    """
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ExchangeError(f"{path}: {path.stat().st_size} bytes; a list of times has at most {MAX_TEXT_BYTES}")
    try:
        return ast.literal_eval(path.read_text(encoding="utf-8").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as exc:
        raise ExchangeError(f"{path}: is not a list of numbers; it was not run, and its source is left out") from exc


def read_times(path: Path) -> list[int] | None:
    """A list of times or frame numbers; None if there is no such file.

    Raises:
        ExchangeError: If it is not such a list.
    """
    value = read_literal(path)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(_is_number(item) for item in value):
        raise ExchangeError(f"{path}: is not a list of numbers; its source is left out")
    return [round(item) for item in value]


def read_shots(path: Path) -> list[tuple[int, int]]:
    """Bounds of shots in ms; empty if there is no such file.

    Raises:
        ExchangeError: If it is not a list of pairs.
    """
    value = read_literal(path)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ExchangeError(f"{path}: is not a list of shots; its source is left out")
    shots = []
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(_is_number(item) for item in pair):
            raise ExchangeError(
                f"{path}: {str(pair)[:60]!r} is not the start and end of a shot; its source is left out"
            )
        shots.append((round(pair[0]), round(pair[1])))
    return shots


def read_provenance(path: Path) -> Mapping[str, Any]:
    """What the workers say they did; empty if there is no such file, or it is not JSON (an old worker wrote Python)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def stated_layout(provenance: Mapping[str, Any], *, path: Path) -> Layout | None:
    """The columns that the provenance of our own exports states (`EXPORT_ACTIVITY`); None for the workers' own.

    Raises:
        ExchangeError: If it is one of ours and states no columns that can be understood; `path` names it.
    """
    if provenance.get("activity_name") != EXPORT_ACTIVITY:
        return None
    try:
        layout = provenance["parameters"]["layout"]
        parts = tuple((str(part["vector"]), int(part["length"])) for part in layout["parts"])
        has_shots = bool(layout["has_shots"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ExchangeError(f"{path}: does not say what the columns are; export the index anew") from exc
    names = [name for name, _ in parts]
    if not parts or not set(names) <= set(VECTORS) or len(set(names)) < len(names) or min(n for _, n in parts) < 1:
        raise ExchangeError(f"{path}: columns {parts} are unknown; expected some of {', '.join(VECTORS)} with lengths")
    return Layout(has_shots=has_shots, parts=parts)


def check_spectrogram(path: Path) -> None:
    """Look at a spectrogram without loading it, and refuse one whose pickle would do more than rebuild arrays.

    Nothing is run whatever the file holds: the pickle's instructions are listed, not followed.

    Raises:
        ExchangeError: If it names functions outside `HARMLESS_ROOTS`, or is no archive of arrays.
    """
    for data in _pickles(path):
        for name in sorted(_named_in(data, path)):
            if name.split(".")[0] not in HARMLESS_ROOTS:
                raise ExchangeError(
                    f"{path}: holds a pickle that would call {name}; refused, and nothing of it was run"
                )


def _pickles(path: Path) -> Iterator[bytes]:
    """The pickled parts of an npz file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size > MAX_TEXT_BYTES:
                    raise ExchangeError(f"{path}: {member.filename} has {member.file_size} bytes; refused")
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    read_header = {
                        (1, 0): np.lib.format.read_array_header_1_0,
                        (2, 0): np.lib.format.read_array_header_2_0,
                    }
                    _, _, dtype = read_header[version](stream)
                    if dtype.hasobject:
                        yield stream.read()
    except (OSError, ValueError, KeyError, SyntaxError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as exc:
        raise ExchangeError(f"{path}: is not an archive of arrays ({exc}); refused") from exc


def _named_in(data: bytes, path: Path) -> set[str]:
    """Dotted names of the functions and classes that a pickle refers to."""
    names: set[str] = set()
    texts: list[str] = []  # that were put on the stack, in order
    memo: dict[int, str] = {}
    top: str | None = None  # of the stack, if it is a text
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                names.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.add(".".join(texts[-2:]) or "?")
            elif opcode.name in SLEIGHTS:
                names.add(f"? ({opcode.name})")
            if opcode.name == "MEMOIZE" or "PUT" in opcode.name:
                memo[len(memo) if argument is None else int(argument)] = top or ""
                continue
            is_text = isinstance(argument, str) and opcode.name not in ("GLOBAL", "INST")
            top = memo.get(int(argument or 0)) if "GET" in opcode.name else argument if is_text else None
            if top:
                texts.append(top)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise ExchangeError(f"{path}: holds a damaged pickle ({exc}); refused, and nothing of it was run") from exc
    return names


def _read_pt(path: Path) -> npt.NDArray[Any]:
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise ExchangeError(
            f"{path}: holds a pickle that is no plain tensor; refused, and nothing of it was run"
        ) from exc
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError, IndexError) as exc:
        raise ExchangeError(f"{path}: cannot be read as a tensor ({' '.join(str(exc).split())[:120]})") from exc
    if not isinstance(value, torch.Tensor) or value.is_sparse or value.is_quantized:
        raise ExchangeError(f"{path}: holds a {type(value).__name__}, not one tensor of features")
    if value.dtype == torch.bfloat16:
        value = value.float()
    return np.asarray(value.detach().numpy())


def _read_npy(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError, SyntaxError) as exc:
        raise ExchangeError(_refusal(path, exc)) from exc


def _read_npz(path: Path, *, widths: Container[int]) -> npt.NDArray[Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > MAX_ARRAY_BYTES:
            raise ExchangeError(
                f"{path}: unpacks to {n_bytes} bytes; features of one video have at most {MAX_ARRAY_BYTES}"
            )
        with np.load(path, allow_pickle=False) as arrays:
            found = [arrays[name] for name in arrays.files]
    except (OSError, ValueError, EOFError, SyntaxError, KeyError, zipfile.BadZipFile) as exc:
        raise ExchangeError(_refusal(path, exc)) from exc
    fitting = [array for array in found if array.ndim == 2 and array.shape[1] in widths]
    if len(fitting) != 1:
        raise ExchangeError(f"{path}: has {len(fitting)} arrays of features; expected one")
    return np.asarray(fitting[0])


def _refusal(path: Path, exc: Exception) -> str:
    if any(word in str(exc) for word in ("allow_pickle", "pickled", "Python objects")):  # as numpy says it
        return f"{path}: holds pickled objects, not an array of numbers; refused, and nothing of it was run"
    return f"{path}: cannot be read as an array ({' '.join(str(exc).split())[:120]})"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
