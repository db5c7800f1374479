"""`visxp embed`: media files to embeddings, without an index."""

import os
from pathlib import Path
from typing import Annotated

import typer

from visxp_search.commands.shared import (
    EXIT_SOME_FAILED,
    DeviceOption,
    JsonOption,
    ModelOption,
    QuietOption,
    print_json,
)
from visxp_search.errors import UsageError


def embed(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Video, audio and image files.")],
    out: Annotated[Path, typer.Option("--out", metavar="X.npz", help="Where to write the embeddings.")],
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn media files into embeddings, without an index.

    Writes arrays of one length: path, second, visual, audio, joint_visual, joint_audio, has_visual, has_audio. Rows
    without a modality are NaN there.

    Example: `visxp embed *.mp4 sound.wav still.jpg --out embeddings.npz`
    """
    import numpy as np

    from visxp_search.api import embed_files
    from visxp_search.console import StepProgress, say
    from visxp_search.embed import load_embedder

    if out.suffix != ".npz":
        raise UsageError(f"--out {out} must end with .npz")
    embedder = load_embedder(model, device=device)
    failures: list[dict[str, str]] = []
    with StepProgress(quiet=quiet or as_json) as progress:
        arrays = embed_files(
            embedder,
            files,
            on_failure=lambda path, exc: failures.append({"path": str(path), "reason": str(exc)}),
            on_file=lambda done: progress("embed files", done, len(files)),
        )
    partial = out.with_name(f".{out.name}.partial.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    os.replace(partial, out)
    for failure in failures:
        say(f"failed {failure['path']}: {failure['reason']}")
    summary = {"out": str(out), "rows": len(arrays["second"]), "model": embedder.checkpoint_id, "failures": failures}
    if as_json:
        print_json(summary)
    elif not quiet:
        say(f"{summary['rows']} seconds of {len(files) - len(failures)} files written to {out}")
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)
