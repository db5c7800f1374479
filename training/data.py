"""The material that a stage is given by name: a corpus folder or a folder of shards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.corpus import Examples, load_examples
from training.pairs import Pairs, Rehearsal, pairs_of_corpus
from training.shards import SHARD_INDEX, pairs_of_shards
from visxp_search.errors import UsageError


@dataclass(frozen=True)
class Material:
    """What there is to learn from and to measure on.

    Attributes:
        pairs: seconds with picture and sound.
        rehearsal: photographs and sounds of a corpus; None for shards.
        examples: both modalities of a corpus, with their teachers' features; empty for shards.
    """

    pairs: Pairs
    rehearsal: Rehearsal | None
    examples: Mapping[str, Examples]


def load_material(
    data: Path, *, cache: Path | None, sample_rate_hz: int, progress: Callable[[str, int, int], None]
) -> Material:
    """Read a corpus or shards.

    Args:
        data: a folder that `visxp train prepare` wrote, or a corpus with manifest.csv and teachers.npz.
        cache: folder for decoded media of a corpus; shards need none.
        sample_rate_hz: of the waveforms.
        progress: called with (what, done, total) while decoding.

    Raises:
        UsageError: If it is neither, or a corpus comes without a cache.
    """
    if (data / SHARD_INDEX).is_file():
        return Material(pairs_of_shards(data, sample_rate_hz=sample_rate_hz), None, {})
    if not (data / "manifest.csv").is_file():
        raise UsageError(f"{data} is neither shards (run `visxp train prepare`) nor a corpus with manifest.csv")
    if cache is None:
        raise UsageError(f"{data} is a corpus: pass --cache FOLDER for its decoded media")
    examples = {
        modality: load_examples(data, modality=modality, cache=cache, sample_rate_hz=sample_rate_hz, progress=progress)
        for modality in ("visual", "audio")
    }
    return Material(*pairs_of_corpus(examples["visual"], examples["audio"]), examples)
