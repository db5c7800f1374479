"""What is known of the checkpoint: its card with what was measured, and the report of its evaluation if one lies by."""

from dataclasses import dataclass
from pathlib import Path

from visxp_search.checkpoint_config import DEFAULT_CHECKPOINT

REPORT = "report.html"


@dataclass(frozen=True)
class Card:
    """What people can read about a checkpoint.

    Attributes:
        markdown: the model card without its front matter.
        report: the page that `visxp train evaluate` wrote, if it lies in the checkpoint's folder.
    """

    markdown: str
    report: Path | None


def read_card(model: str | None) -> Card | None:
    """The card of the checkpoint that `--model` names; None if it is a plugin or has none.

    Args:
        model: as for `visxp ui --model`; None for the shipped checkpoint.
    """
    folder = DEFAULT_CHECKPOINT if model is None else Path(model)
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    report = folder / REPORT
    return Card(text.strip(), report if report.is_file() else None)
