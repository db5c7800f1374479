"""What a stage leaves in its run folder: settings, state after each epoch, and logs. Everything appears whole.

`<stage>.json` holds the settings, `<stage>.pt` tensors and numbers only (never pickled classes), `<stage>.csv` and
`tensorboard/<stage>` a row an epoch.
"""

import csv
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from visxp_search.errors import UsageError


def keep_settings(run: Path, stage: str, settings: Mapping[str, Any]) -> None:
    """Write a stage's settings into a run folder, or check that the stage was begun with these.

    Raises:
        UsageError: If it was begun with others; its state must not be taken up by these.
    """
    path, text = run / f"{stage}.json", json.dumps(settings, indent=2) + "\n"
    if path.is_file() and path.read_text() != text:
        raise UsageError(
            f"{stage} in {run} was begun with other settings (see {path}); use them again or take another --run folder"
        )
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def save_state(path: Path, parts: Mapping[str, Any], epoch: int) -> None:
    """Save the state of all parts (anything with `state_dict`) after so many epochs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save({"epoch": epoch, **{name: part.state_dict() for name, part in parts.items()}}, partial)
    os.replace(partial, path)


def load_state(path: Path, parts: Mapping[str, Any]) -> int:
    """Restore all parts and return the number of epochs done; 0 where there is no saved state.

    Raises:
        UsageError: If the state is damaged or of other networks.
    """
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError, EOFError) as exc:
        raise UsageError(f"{path} is damaged or of other networks ({exc}); delete it to begin the stage anew") from exc
    return int(state["epoch"])


def log_row(run: Path, stage: str, row: Mapping[str, float]) -> None:
    """Append a row to the stage's CSV and to its TensorBoard log; `row["epoch"]` is the step there."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / f"{stage}.csv"
    new = not path.is_file()
    with path.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow({name: value if math.isfinite(value) else "" for name, value in row.items()})
    with SummaryWriter(str(run / "tensorboard" / stage)) as board:
        for name, value in row.items():
            board.add_scalar(name, value, int(row["epoch"]))


def read_rows(run: Path, stage: str) -> list[dict[str, float]]:
    """The rows logged so far, empty cells left out."""
    path = run / f"{stage}.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as lines:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]
