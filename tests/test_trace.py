"""Curves of similarity along a video."""

import numpy as np

from visxp_search.trace import best_similarities, fuse


def test_each_second_is_compared_with_the_best_row() -> None:
    """A second resembles a query as much as its most similar row; what is missing on either side is NaN."""
    rows = np.array([[1, 0], [0, 1], [np.nan, np.nan]], dtype=np.float32)
    vectors = [np.array([0.6, 0.8], dtype=np.float32), None]
    assert np.allclose(best_similarities(rows, vectors), [0.8, np.nan], equal_nan=True)
    assert np.isnan(best_similarities(rows[2:], vectors)).all()


def test_weights_are_shared_among_what_is_there() -> None:
    """A second without sound is judged by its picture alone, one with neither not at all."""
    parts = {
        "visual": np.array([0.4, 0.4, np.nan], dtype=np.float32),
        "audio": np.array([0.8, np.nan, np.nan], dtype=np.float32),
    }
    fused = fuse(parts, {"visual": 0.25, "audio": 0.75})
    assert np.allclose(fused, [0.7, 0.4, np.nan], equal_nan=True)
