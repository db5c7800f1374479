"""The Python API, and other encoders as plugins."""

from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

from visxp_search import api, embed
from visxp_search.clips import Clip
from visxp_search.embed import Embeddings, VectorSpec, load_embedder
from visxp_search.errors import CollectionError, UsageError


def test_open_add_search_iterate(index_folder: Path, tiny_checkpoint: Path, films: Path) -> None:
    """The four calls of the README do what they say."""
    with api.open_index(index_folder, model=tiny_checkpoint, create=True) as index:
        assert index.add([films]).indexed == 4
        moments = index.search_clip(films / "long.mp4", start=3, end=9, by="both", top=5)
        best = next(iter(moments))
        assert (Path(best.path).name, best.start, best.end) == ("long.mp4", 3.0, 9.0)
        assert index.facts().seconds == 55
        long = index.find_video("long.mp4")
        assert index.find_video(long.video_id[:8]) == index.find_video(str(films / "long.mp4")) == long
        with pytest.raises(UsageError, match="no indexed video"):
            index.find_video("nothing")
    with pytest.raises(CollectionError, match="no index at"):
        api.open_index(index_folder.with_name("none"), model=tiny_checkpoint)


class BrightnessEmbedder:
    """A plugin of another kind: two numbers on the brightness of the picture, no sound."""

    checkpoint_id = "brightness-1"
    specs = {"visual": VectorSpec(2, ("visual",))}  # noqa: RUF012
    frame_size = 8
    sample_rate_hz = 8000

    def embed(self, clips: Sequence[Clip]) -> Embeddings:
        """Angle by brightness."""
        angles = [np.nan if clip.frame is None else clip.frame.mean() / 255 * np.pi for clip in clips]
        visual = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        nothing = np.full_like(visual, np.nan)
        return Embeddings(visual=visual, audio=nothing, joint_visual=nothing, joint_audio=nothing)


def load_brightness(path: Path | None, device: str | None) -> BrightnessEmbedder:
    """The plugin's entry point."""
    return BrightnessEmbedder()


def test_other_encoders_plug_in(
    index_folder: Path, films: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    """An encoder of the entry-point group indexes and searches, under its own checkpoint id."""
    entry = EntryPoint("brightness", "tests.test_api:load_brightness", embed.ENTRY_POINT_GROUP)
    monkeypatch.setattr(embed, "entry_points", lambda group: EntryPoints([entry]))
    assert load_embedder("brightness").checkpoint_id == "brightness-1"
    with api.open_index(index_folder, model="brightness", create=True) as index:
        index.add([films / "short.mp4"])
        assert index.facts().dims == {"visual": 2}
        assert len(index.search_clip(films / "short.mp4", start=1, end=3, by="visual"))
    monkeypatch.undo()
    with pytest.raises(CollectionError, match="made by checkpoint brightness-1"):
        api.open_index(index_folder, model=tiny_checkpoint)
