"""What is asked with: files become embeddings."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_film
from visxp_search import queries
from visxp_search.errors import UsageError
from visxp_search.l3net import L3NetEmbedder
from visxp_search.queries import FIRST_STEP, STEPS, add_examples, clip_query, sound_query


def test_a_finely_cut_clip_holds_the_whole_seconds(tmp_path: Path, tiny_embedder: L3NetEmbedder) -> None:
    """Every fourth row of a query for `same` is what `similar` asks with, and no row's middle lies outside."""
    film = write_film(tmp_path / "film.mp4", seed=1, n_seconds=4)
    for ask in (clip_query, sound_query):
        plain, fine = ask(film, tiny_embedder), ask(film, tiny_embedder, fine=True)
        assert plain.fine_vectors == {} and set(fine.fine_vectors) == set(fine.weights)
        assert plain.length_seconds == fine.length_seconds == pytest.approx(4, abs=0.1)
        for name, rows in plain.vectors.items():
            np.testing.assert_allclose(fine.vectors[name], rows, atol=1e-5)
            np.testing.assert_array_equal(fine.fine_vectors[name][-FIRST_STEP::STEPS][: len(rows)], fine.vectors[name])
            assert len(fine.fine_vectors[name]) == 15


def test_long_queries_examples_and_wrong_spans(
    tmp_path: Path, tiny_embedder: L3NetEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long queries and several examples are not cut finely; a wrong span is refused as it always is."""
    monkeypatch.setattr(queries, "MAX_FINE_SECONDS", 5)
    film = write_film(tmp_path / "film.mp4", seed=1, n_seconds=6)
    long = clip_query(film, tiny_embedder, by="audio", fine=True)
    assert long.n_seconds == 6 and long.fine_vectors == {}
    short = clip_query(film, tiny_embedder, start=3, end=5, by="audio", fine=True)
    assert short.length_seconds == 2 and len(short.fine_vectors["audio"]) == 2 * STEPS - 1
    assert add_examples(short, like=[long], unlike=[]).fine_vectors == {}
    for start, end in ((5.0, 3.0), (99.0, None)):
        with pytest.raises(UsageError):
            clip_query(film, tiny_embedder, start=start, end=end, fine=True)
