"""The data that a stage is given by name: a corpus folder or a folder of shards."""

from collections.abc import Callable
from pathlib import Path

from training.corpus import load_examples
from training.pairs import Pairs, Rehearsal, pairs_of_corpus
from training.shards import SHARD_INDEX, pairs_of_shards
from visxp_search.errors import UsageError


def load_pairs(
    data: Path, *, cache: Path | None, sample_rate_hz: int, progress: Callable[[str, int, int], None]
) -> tuple[Pairs, Rehearsal | None]:
    """Pairs, and what is rehearsed where there is such: photographs and sounds of a corpus.

    Args:
        data: a folder that `visxp train prepare` wrote, or a corpus with manifest.csv and teachers.npz.
        cache: folder for decoded media of a corpus; shards need none.
        sample_rate_hz: of the waveforms.
        progress: called with (what, done, total) while decoding.

    Raises:
        UsageError: If it is neither, or a corpus comes without a cache.
    """
    if (data / SHARD_INDEX).is_file():
        return pairs_of_shards(data, sample_rate_hz=sample_rate_hz), None
    if not (data / "manifest.csv").is_file():
        raise UsageError(f"{data} is neither shards (run `visxp train prepare`) nor a corpus with manifest.csv")
    if cache is None:
        raise UsageError(f"{data} is a corpus: pass --cache FOLDER for its decoded media")
    visual, audio = (
        load_examples(data, modality=modality, cache=cache, sample_rate_hz=sample_rate_hz, progress=progress)
        for modality in ("visual", "audio")
    )
    return pairs_of_corpus(visual, audio)
