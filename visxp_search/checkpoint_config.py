"""What a checkpoint folder says of itself, read without torch: its configuration, its id, what it takes and gives."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from visxp_search.errors import CheckpointError

FORMAT_VERSION = 1
DEFAULT_CHECKPOINT = Path(__file__).parent / "checkpoint_default"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class CheckpointFacts:
    """What the encoders of a checkpoint take and give.

    Attributes:
        checkpoint_id: 12 hexadecimal digits.
        frame_size: side of the frames, pixels.
        sample_rate_hz: of the waveforms.
        visual: D of visual embeddings.
        audio: D of audio embeddings.
        joint: J of embeddings in the joint space.
    """

    checkpoint_id: str
    frame_size: int
    sample_rate_hz: int
    visual: int
    audio: int
    joint: int


def read_facts(path: Path) -> CheckpointFacts:
    """Read what the encoders of a checkpoint folder take and give; the weights are hashed, and not loaded.

    Raises:
        CheckpointError: If the folder or a file is missing, damaged, or of another format version.
    """
    architecture = read_config(path)["architecture"]
    try:
        with safetensors.safe_open(path / WEIGHTS, framework="numpy"):
            pass  # its header was found to be whole
        return CheckpointFacts(
            checkpoint_id=checkpoint_id(path, architecture),
            frame_size=architecture["visual"]["frame_size"],
            sample_rate_hz=architecture["spectrogram"]["sample_rate_hz"],
            visual=architecture["visual"]["embedding"],
            audio=architecture["audio"]["embedding"],
            joint=architecture["joint"],
        )
    except (KeyError, TypeError) as exc:
        raise CheckpointError(f"checkpoint {path}: config.json does not fit this version ({exc})") from exc
    except (OSError, safetensors.SafetensorError) as exc:
        raise CheckpointError(f"checkpoint {path}: cannot read {WEIGHTS} ({exc})") from exc


def read_config(path: Path) -> Mapping[str, Any]:
    """The configuration of a checkpoint folder, with `architecture` and `provenance`.

    Raises:
        CheckpointError: If the folder or the file is missing, damaged, or of another format version.
    """
    if not path.is_dir():
        raise CheckpointError(
            f"checkpoint {path} is not a folder; pass a folder with config.json and model.safetensors"
        )
    try:
        config = json.loads((path / "config.json").read_text())
    except FileNotFoundError as exc:
        raise CheckpointError(f"checkpoint {path} has no config.json; is it a checkpoint folder?") from exc
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"checkpoint {path}: cannot read config.json ({exc})") from exc
    version = config.get("format_version") if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {path} has format version {version}, this program reads {FORMAT_VERSION}; "
            f"use the visxp release that made it or train it anew"
        )
    if "architecture" not in config:
        raise CheckpointError(f"checkpoint {path}: config.json does not fit this version (no architecture)")
    return {"provenance": {}, **config}


def checkpoint_id(path: Path, architecture: Any) -> str:
    """Hash of the weights and of the part of the configuration that decides what the embeddings are.

    Raises:
        OSError: If the weights cannot be read.
    """
    with (path / WEIGHTS).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(json.dumps(architecture, sort_keys=True).encode())
    return digest.hexdigest()[:12]
