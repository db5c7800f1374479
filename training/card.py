"""The model card of a checkpoint: what it was trained on, how, how good it is, and what it cannot do."""

from collections.abc import Mapping
from typing import Any

from visxp_search.checkpoint import Networks

STAGES = {
    "warmstart": "warm start: the encoders learned to predict features of two pretrained networks (EfficientNet-Lite0 "
    "for pictures, YAMNet for sounds)",
    "avc": "audio-visual correspondence: fusion network, joint heads and encoders, negatives from other groups",
    "selflabel": "self-labelling: clusters of wanted sizes over picture and sound become labels, and are learned by a "
    "clustering network, by each modality alone and by the encoders",
    "joint": "joint space and fusion network learned anew, the encoders at rest: pairs in several views, groups evenly",
    "hierarchy": "hierarchy training: the clusters became leaves of a hyperbolic hierarchy, and each modality learned "
    "where in it a second lies",
}

SUMMARY = {
    "correspondence": ("Correspondence", "joint space", "accuracy"),
    "sound finds picture, R@10": ("Across modalities", "sound finds picture, this checkpoint", "R@10"),
    "picture finds sound, R@10": ("Across modalities", "picture finds sound, this checkpoint", "R@10"),
    "teacher's neighbours": ("Neighbours of the teacher", "this checkpoint", "all"),
    "photographs, mAP": ("Photographs", "this checkpoint", "mAP"),
    "sound files, mAP": ("Sound files", "this checkpoint", "mAP"),
    "k-means, NMI": ("Clusters", "k-means, this checkpoint", "NMI"),
    "pseudo-labels, NMI": ("Clusters", "pseudo-labels, head 0", "NMI"),
}
"""Column of the table of stages -> (table, row, measure) of an evaluation."""


def write_card(provenance: Mapping[str, Any], networks: Networks) -> str:
    """The card as Markdown with the front matter that model hubs read."""
    architecture = networks.architecture
    spectrogram = architecture.spectrogram
    stages = "\n".join(
        f"{n}. {STAGES.get(stage, stage)}" for n, stage in enumerate(provenance.get("stages", []), start=1)
    )
    mirrored = ", the picture and its mirror image together" if architecture.visual.mirrored else ""
    stages_read = ", read off all of its stages" if architecture.visual.grid else ""
    return f"""---
license: apache-2.0
library_name: visxp-search
tags: [audio-visual, video-retrieval, embeddings]
---

# Encoders of VisXP search

Two encoders for one second of video each: a CNN for the frame in its middle ({_millions(networks.visual)} parameters,
input {architecture.visual.frame_size} px{mirrored}{stages_read}, {architecture.visual.embedding} numbers out)
and a convolutional recurrent network for the log-mel spectrogram of its sound ({_millions(networks.audio)} parameters,
{spectrogram.n_mels} x {spectrogram.n_steps}, {architecture.audio.embedding} numbers out), and heads on top: two
projections into a joint space of {architecture.joint} numbers{_describe_heads(networks)}.

## Stages

{stages}

The full recipe stands in `config.json`.

## Data

{_describe_data(provenance)}

## Measured on held-out groups

{_describe_measures(provenance)}

One run, seed {provenance.get("recipe", {}).get("seed", "not recorded")}.

{_describe_stages(provenance)}## Limits

Trained on little data: what a moment *is* (a dog, a drum) is told coarsely. It tells looks and sounds apart well enough
to find the same footage again and its near relatives; do not read meaning into small differences of score. Speech is
heard as speech, not understood. Not meant for recognising people.
"""


def _millions(module: Any) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.1f} M"


def _describe_heads(networks: Networks) -> str:
    heads = networks.architecture.heads
    text = ""
    if networks.fusion is not None:
        text += ", a fusion network that tells whether a picture and a sound belong together"
    if heads is not None and heads.n_heads:
        text += f", and {heads.n_heads} clusterings of {heads.n_clusters} clusters (pseudo-labels)"
    return text


def _describe_data(provenance: Mapping[str, Any]) -> str:
    parts = []
    if "corpus" in provenance:
        rows, held_out = provenance["corpus"]["manifest_rows"], provenance["corpus"]["held_out_rows"]
        parts.append(
            f"Warm start: {rows['visual']} pictures (seconds of videos and photographs) and {rows['audio']} seconds of "
            f"sound, of which {held_out['visual']} and {held_out['audio']} were held out."
        )
    if "pairs" in provenance:
        rows, held_out = provenance["pairs"]["rows"], provenance["pairs"]["held_out_rows"]
        parts.append(f"Later stages: {rows} seconds with picture and sound, of which {held_out} were held out.")
    parts.append(
        "Whole groups (versions of one footage) are held out, decided by the hash of the group's name. Much of it is "
        "research demonstration footage and research image sets; none of it is part of this repository."
    )
    return "\n".join(parts)


def _describe_measures(provenance: Mapping[str, Any]) -> str:
    if "evaluation" in provenance:
        return _evaluation_tables(provenance["evaluation"])
    return "Not measured; run `visxp train evaluate`."


def _evaluation_tables(evaluation: Mapping[str, Any]) -> str:
    """The tables of `visxp train evaluate`; cells are value and 95 % bootstrap interval over groups."""
    lines = ["Value and 95 % interval (bootstrap over groups)."]
    for table in evaluation["tables"]:
        lines += ["", f"**{table['title']}** ({table['about']})", ""]
        lines.append("| " + " | ".join(["measured", *table["measures"]]) + " |")
        lines.append("| " + " | ".join(["---"] * (len(table["measures"]) + 1)) + " |")
        for row in table["rows"]:
            cells = [format_cell(row["values"].get(measure)) for measure in table["measures"]]
            lines.append("| " + " | ".join([row["name"], *cells]) + " |")
    return "\n".join(lines)


def format_cell(cell: Mapping[str, float] | None) -> str:
    """`0.812 (0.77-0.85)`, or a dash where nothing was measured."""
    if cell is None:
        return "-"
    return f"{cell['value']:.3f} ({cell['low']:.2f}-{cell['high']:.2f})"


def summarise(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The few cells of an evaluation that tell one stage from another; None where it has no such cell."""
    cells: dict[str, Any] = {}
    for column, (title, name, measure) in SUMMARY.items():
        rows = [row for table in evaluation["tables"] if table["title"] == title for row in table["rows"]]
        cells[column] = next((row["values"].get(measure) for row in rows if row["name"] == name), None)
    return cells


def _describe_stages(provenance: Mapping[str, Any]) -> str:
    """What each stage adds: the same measures of the checkpoints before this one."""
    if "earlier" not in provenance:
        return ""
    own = {"stages": provenance["evaluation"]["stages"], **summarise(provenance["evaluation"])}
    columns = [name for name in SUMMARY if any(stage[name] for stage in [*provenance["earlier"], own])]
    lines = ["## What each stage adds", "", "| after | " + " | ".join(columns) + " |"]
    lines.append("| " + " | ".join(["---"] * (len(columns) + 1)) + " |")
    for stage in [*provenance["earlier"], own]:
        cells = [f"{stage[name]['value']:.3f}" if stage[name] else "-" for name in columns]
        lines.append("| " + " | ".join([stage["stages"][-1], *cells]) + " |")
    return "\n".join([*lines, "", ""])
