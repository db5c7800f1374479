"""The checkpoint that is handed out: trained networks with their evaluation and card, small enough."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.card import summarise, write_card
from visxp_search.checkpoint import load_checkpoint, save_checkpoint
from visxp_search.errors import UsageError

MAX_MEGABYTES = 20.0


def package_checkpoint(
    checkpoint: Path, out: Path, *, evaluations: Sequence[Path], max_megabytes: float = MAX_MEGABYTES
) -> dict[str, Any]:
    """Write a checkpoint anew with what was measured of it, in `config.json` and in the card.

    Args:
        checkpoint: the last stage's folder.
        out: the folder to write, in Hugging Face layout.
        evaluations: `evaluation.json` of this very checkpoint, those of earlier stages before it; none to say that
            nothing was measured.
        max_megabytes: refuse to write a bigger one.

    Returns:
        `checkpoint` (id), `megabytes` and `out`.

    Raises:
        UsageError: If the evaluation cannot be read or is of another checkpoint, or the weights are too big.
    """
    loaded = load_checkpoint(checkpoint)
    megabytes = (checkpoint / "model.safetensors").stat().st_size / 1e6
    if megabytes > max_megabytes:
        raise UsageError(
            f"{checkpoint} has {megabytes:.1f} MB of weights, more than {max_megabytes}; train smaller networks"
        )
    provenance = {name: value for name, value in loaded.provenance.items() if name not in ("evaluation", "earlier")}
    if evaluations:
        *earlier, own = [_read_evaluation(path) for path in evaluations]
        if own.get("checkpoint") != loaded.checkpoint_id:
            raise UsageError(
                f"{evaluations[-1]} measured checkpoint {own.get('checkpoint')}, not {loaded.checkpoint_id}; "
                "evaluate this one first"
            )
        provenance["evaluation"] = own
        provenance["earlier"] = [{"stages": each["stages"], **summarise(each)} for each in earlier]
    card = write_card(provenance, loaded.networks)
    checkpoint_id = save_checkpoint(out, loaded.networks, provenance=provenance, card=card)
    return {"checkpoint": checkpoint_id, "megabytes": round(megabytes, 2), "out": str(out)}


def _read_evaluation(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise UsageError(f"{path} cannot be read ({exc}); `visxp train evaluate` writes it") from exc
    return values
