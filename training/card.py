"""The model card of a checkpoint: what it was trained on, how, how good it is, and what it cannot do."""

from collections.abc import Mapping
from typing import Any

from visxp_search.checkpoint import Networks


def write_card(provenance: Mapping[str, Any], networks: Networks) -> str:
    """The card as Markdown with the front matter that model hubs read."""
    recipe, metrics = provenance["recipe"], provenance["metrics"]
    visual, audio, joint = metrics["visual"], metrics["audio"], metrics["joint"]
    rows, held_out = provenance["corpus"]["manifest_rows"], provenance["corpus"]["held_out_rows"]
    millions = {
        name: sum(parameter.numel() for parameter in getattr(networks, name).parameters()) / 1e6
        for name in ("visual", "audio", "joint_visual", "joint_audio")
    }
    cells = [
        (f"sounds, {audio['files']} files of {audio['labels']} labels: 1-NN", *_three(audio, "1-NN")),
        ("the same: mAP", *_three(audio, "mAP")),
        (
            f"{visual['rows']} pictures: share of the teacher's 10 nearest of other groups found",
            f"{visual['neighbour_overlap@10']:.3f}",
            f"{visual['untrained_neighbour_overlap@10']:.3f}",
            "1",
        ),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    return f"""---
license: apache-2.0
library_name: visxp-search
tags: [audio-visual, video-retrieval, embeddings]
---

# Encoders of VisXP search

Two encoders for one second of video each: a CNN for the frame in its middle ({millions["visual"]:.1f} M parameters,
input {recipe["visual"]["frame_size"]} px, {recipe["visual"]["embedding"]} numbers out) and a convolutional recurrent
network for the log-mel spectrogram of its sound ({millions["audio"]:.1f} M parameters,
{recipe["spectrogram"]["n_mels"]} x {recipe["spectrogram"]["n_steps"]}, {recipe["audio"]["embedding"]} numbers out), and
two heads into a joint space of {networks.architecture.joint} numbers ({
        millions["joint_visual"] + millions["joint_audio"]:.2f} M parameters).

## Stages

{", ".join(provenance["stages"])}. This is a *first* checkpoint: a warm start only. The encoders learned to predict
features of two pretrained networks (EfficientNet-Lite0 for pictures, YAMNet for sounds); the joint heads were then
trained contrastively on the seconds that have both, the encoders frozen. No audio-visual correspondence training of the
encoders and no self-labelling yet: there are no pseudo-labels. The full recipe stands in `config.json`.

## Data

{rows["visual"]} pictures (seconds of videos and photographs) and {rows["audio"]} seconds of sound, of which
{held_out["visual"]} and {held_out["audio"]} were held out (whole groups, decided by the hash of the group's name). Much
of it is research demonstration footage and research image sets; none of it is part of this repository.

## Measured on the held-out groups

| what | this checkpoint | same network, untrained | teacher |
| --- | --- | --- | --- |
{table}

Sound finds its picture among {joint["groups"]} groups (one second of each), R@10: {joint["sound_to_picture_R@10"]:.2f};
picture finds its sound: {joint["picture_to_sound_R@10"]:.2f}; chance {10 / joint["groups"]:.2f}. One run, seed
{recipe["seed"]}.

## Limits

Trained on little data: what a moment *is* (a dog, a drum) is told coarsely. It tells looks and sounds apart well enough
to find the same footage again and its near relatives; do not read meaning into small differences of score. Speech is
heard as speech, not understood. Not meant for recognising people.
"""


def _three(measured: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    values = (measured[name], measured["untrained"][name], measured["teacher"][name])
    return f"{values[0]:.3f}", f"{values[1]:.3f}", f"{values[2]:.3f}"
