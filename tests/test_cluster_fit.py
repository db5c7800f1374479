"""Clusters of an index: fitting, labels of new seconds, interruption, refitting, edits, descriptions, the commands."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import pytest
import torch

from tests.conftest import RATE
from visxp_search import cluster_edit
from visxp_search.cli import main
from visxp_search.cluster_book import ROOT, name_node
from visxp_search.cluster_describe import SORTS, Example, describe_nodes, shown_nodes, summarise
from visxp_search.cluster_fit import FitOptions, fit_clusters
from visxp_search.cluster_model import make_features
from visxp_search.cluster_prototypes import choose_n_clusters, fit_prototypes
from visxp_search.cluster_sheet import Tile, make_tiles, render_sheet
from visxp_search.cluster_store import DOCUMENT, Clustering, label_points, require_clustering, write_clustering
from visxp_search.errors import CollectionError, UsageError
from visxp_search.render import write_video
from visxp_search.store import DONE, Filter, SecondPoint, Store, VideoRecord, make_payload
from visxp_search.store_edge import open_edge_store

DIMS = {"visual": 8, "audio": 8, "joint": 2}
N_KINDS = 6


def seconds_of_kinds(n_seconds: int, *, seed: int = 0, first_video: int = 0) -> tuple[list[SecondPoint], list[int]]:
    """Seconds of six kinds, each with its own direction in picture and in sound; each tenth has no sound."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(N_KINDS, n_seconds, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    points = []
    for at, kind in enumerate(kinds.tolist()):
        vectors = {}
        for name in ("visual", "audio"):
            if name == "audio" and at % 10 == 0:
                continue
            vector = np.eye(8, dtype=np.float32)[kind] + 0.08 * rng.normal(size=8).astype(np.float32)
            vectors[name] = (vector / np.linalg.norm(vector)).astype(np.float32)
        video = f"v{first_video + at // 50}"
        payload = make_payload(video_id=video, second=at % 50, has_audio="audio" in vectors, flags=[], checkpoint="c1")
        points.append(SecondPoint(video, at % 50, vectors, payload))
    return points, kinds.tolist()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An index of 300 seconds of six kinds."""
    opened = open_edge_store(tmp_path / "index", checkpoint="c1", create=DIMS)
    opened.upsert_seconds(seconds_of_kinds(300)[0])
    opened.upsert_videos([VideoRecord(f"v{i}", (f"/nowhere/v{i}.mp4",), status=DONE) for i in range(6)])
    opened.flush()
    yield opened
    opened.close()


def labels_of(store: Store) -> dict[tuple[str, int], Any]:
    """Second -> cluster, path and confidence."""
    return {
        (p.video_id, p.second): (p.payload.get("cluster"), p.payload["path"], p.payload.get("confidence"))
        for p in store.seconds()
    }


def test_kinds_become_clusters(store: Store) -> None:
    """Seconds of one kind share a cluster, every second has a path that ends in it, and counts are facets."""
    clustering = fit_clusters(store, FitOptions(n_clusters=N_KINDS)).clustering
    labels = labels_of(store)
    points, kinds = seconds_of_kinds(300)
    found = {
        (kind, labels[point.video_id, point.second][0])
        for point, kind in zip(points, kinds, strict=True)
        if "audio" in point.vectors
    }
    assert len(found) <= N_KINDS + 2
    for cluster, path, confidence in labels.values():
        assert path == clustering.book.path(f"c{cluster}")
        assert path[0] == ROOT
        assert 0 < confidence <= 1
    assert sum(store.facet("cluster").values()) == 300
    assert store.count(Filter(branch=ROOT)) == 300
    assert clustering.applied
    assert require_clustering(store).book == clustering.book


def test_sizes_are_those_wanted(store: Store) -> None:
    """Uniform sizes come out uniform to the second, in the payloads too, also where they do not divide evenly."""
    for n_clusters, sizes in ((5, [60] * 5), (7, [42] * 1 + [43] * 6)):
        clustering = fit_clusters(store, FitOptions(n_clusters=n_clusters, sizes="uniform")).clustering
        assert sorted(store.facet("cluster").values()) == sizes
        assert sorted(clustering.fit.wanted) == sizes
        assert clustering.fit.size_error == 0


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["uniform", "tempered", "gaussian"])
def test_many_clusters_get_the_sizes_wanted(tmp_path: Path, sizes: str) -> None:
    """A hundred clusters of kinds of unequal sizes have the wanted sizes, in the fit and in the payloads."""
    rng = np.random.default_rng(3)
    centres, shares = rng.normal(size=(300, 24)), rng.lognormal(0, 0.7, 300)
    rows = centres[rng.choice(300, 10_000, p=shares / shares.sum())] + 0.7 * rng.normal(size=(10_000, 24))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    points = []
    for at, row in enumerate(rows):
        video, second = f"v{at // 500}", at % 500
        payload = make_payload(video_id=video, second=second, has_audio=False, flags=[], checkpoint="c1")
        points.append(SecondPoint(video, second, {"visual": row}, payload))
    with closing(open_edge_store(tmp_path / "index", checkpoint="c1", create={"visual": 24})) as store:
        store.upsert_seconds(points)
        fit = fit_clusters(store, FitOptions(n_clusters=100, sizes=sizes)).clustering.fit
        found = store.facet("cluster")
    assert fit.obtained == fit.wanted
    assert tuple(found[cluster] for cluster in range(100)) == fit.wanted


def test_new_seconds_are_labelled_at_once_and_like_old_ones(store: Store) -> None:
    """A new second gets the label that the same second had in the fit, also one without picture and sound."""
    points, _ = seconds_of_kinds(300)
    assert label_points(points[:3], None) == points[:3]
    clustering = fit_clusters(store, FitOptions(n_clusters=N_KINDS)).clustering
    labels = labels_of(store)
    for point in label_points(points[:40], clustering):
        assert point.payload["cluster"] == labels[point.video_id, point.second][0]
    bare = SecondPoint("v9", 0, {}, make_payload(video_id="v9", second=0, has_audio=False, flags=[], checkpoint="c1"))
    assert label_points([bare], clustering)[0].payload["cluster"] in clustering.book.clusters()


def test_a_fit_cut_short_is_completed_to_the_same_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed amid the payloads, the next run ends where an undisturbed one does."""
    options = FitOptions(n_clusters=N_KINDS)
    whole = fit_clusters(store, options).clustering
    expected = labels_of(store)
    store.set_payloads([(video, second, {"cluster": 99, "path": []}) for video, second in list(expected)[:150]])
    write_clustering(store, replace(whole, applied=False))  # as it is after kill -9 halfway
    again = fit_clusters(store, options)
    assert again.resumed
    assert labels_of(store) == expected
    assert require_clustering(store).applied


KILLED_FIT = """
import os, signal, sys
from pathlib import Path
from visxp_search.cluster_fit import FitOptions, fit_clusters
from visxp_search.store_edge import open_edge_store

store = open_edge_store(Path(sys.argv[1]), checkpoint="c1", create=None)
write, written = store._seconds.set_payload, 0

def write_and_die(point_id, values):
    global written
    written += 1
    if written == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(point_id, values)

store._seconds.set_payload = write_and_die
fit_clusters(store, FitOptions(n_clusters=int(sys.argv[3])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", [1, 137])
def test_killed_amid_the_payloads_the_next_run_completes_the_fit(store: Store, tmp_path: Path, dies_at: int) -> None:
    """After a real kill -9 the same command ends as an undisturbed one, and what is indexed between has labels."""
    points, _ = seconds_of_kinds(40, seed=3, first_video=20)
    store.close()
    shutil.copytree(tmp_path / "index", tmp_path / "undisturbed")
    arguments = [sys.executable, "-c", KILLED_FIT, str(tmp_path / "index"), str(dies_at), str(N_KINDS)]
    root = Path(__file__).parents[1]
    killed = subprocess.run(
        arguments, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    with closing(open_edge_store(tmp_path / "undisturbed", checkpoint="c1", create=None)) as other:
        whole = fit_clusters(other, FitOptions(n_clusters=N_KINDS)).clustering
        other.upsert_seconds(label_points(points, whole))
        expected = labels_of(other)
    with closing(open_edge_store(tmp_path / "index", checkpoint="c1", create=None)) as other:
        half = require_clustering(other)
        assert not half.applied
        assert sum("cluster" in point.payload for point in other.seconds()) == dies_at - 1
        other.upsert_seconds(label_points(points, half))
        assert fit_clusters(other, FitOptions(n_clusters=N_KINDS)).resumed
        assert labels_of(other) == expected
        assert require_clustering(other).fit == whole.fit


def test_two_fits_that_begin_elsewhere_agree(store: Store) -> None:
    """On planted kinds a fit with another seed puts the same seconds together, and the check changes no label."""
    plain = fit_clusters(store, FitOptions(n_clusters=N_KINDS, fresh=True)).clustering
    checked = fit_clusters(store, FitOptions(n_clusters=N_KINDS, fresh=True, check_stability=True)).clustering
    assert plain.fit.stability is None
    assert checked.fit.stability is not None
    assert checked.fit.stability > 0.9
    assert checked.fit.fit_id == plain.fit.fit_id


def test_the_same_points_and_seed_give_the_same_fit(store: Store) -> None:
    """A fresh fit has the same id and the same labels."""
    first = fit_clusters(store, FitOptions(n_clusters=N_KINDS, fresh=True)).clustering
    expected = labels_of(store)
    second = fit_clusters(store, FitOptions(n_clusters=N_KINDS, fresh=True)).clustering
    assert first.fit.fit_id == second.fit.fit_id
    assert labels_of(store) == expected


def test_names_survive_indexing_more_and_refitting(store: Store) -> None:
    """Names, merges and hiding are on the clusters of the same seconds after more seconds and a fresh fit."""

    def name_of(point: SecondPoint, kind: int) -> str:
        return f"kind {kind}" if "audio" in point.vectors else "silence"

    n_clusters = N_KINDS + 1  # silence is one
    clustering = fit_clusters(store, FitOptions(n_clusters=n_clusters)).clustering
    points, kinds = seconds_of_kinds(300)
    labels = labels_of(store)
    names = {labels[p.video_id, p.second][0]: name_of(p, kind) for p, kind in zip(points, kinds, strict=True)}
    assert len(set(names.values())) == n_clusters
    for cluster, given in names.items():
        clustering = cluster_edit.name(store, clustering, f"c{cluster}", given)
    clustering = cluster_edit.hide(store, clustering, f"c{clustering.book.clusters()[0]}", hidden=True)
    store.upsert_seconds(label_points(seconds_of_kinds(200, seed=5, first_video=10)[0], clustering))
    report = fit_clusters(store, FitOptions(n_clusters=n_clusters, seed=7, fresh=True))
    book = report.clustering.book
    assert report.carried == n_clusters
    assert book.names == clustering.book.names
    assert book.hidden == clustering.book.hidden
    assert book.lost == ()
    new, new_kinds = seconds_of_kinds(200, seed=5, first_video=10)
    labels = labels_of(store)
    right = [
        book.names[f"c{labels[p.video_id, p.second][0]}"] == name_of(p, kind)
        for p, kind in zip(new, new_kinds, strict=True)
    ]
    assert np.mean(right) > 0.95


def test_ten_names_stay_with_ten_kinds_of_twelve(tmp_path: Path) -> None:
    """Twice as much indexed and fitted with another seed, each name is on the kind of seconds it was given to."""
    rng = np.random.default_rng(4)
    kinds = rng.choice(12, 1200, p=np.arange(4, 16) / np.arange(4, 16).sum())
    rows = np.eye(16, dtype=np.float32)[kinds] + 0.12 * rng.normal(size=(1200, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    points = []
    for at, row in enumerate(rows):
        video, second = f"v{at // 60}", at % 60
        payload = make_payload(video_id=video, second=second, has_audio=False, flags=[], checkpoint="c1")
        points.append(SecondPoint(video, second, {"visual": row}, payload))
    with closing(open_edge_store(tmp_path / "index", checkpoint="c1", create={"visual": 16})) as store:
        store.upsert_seconds(points[:600])
        clustering = fit_clusters(store, FitOptions(n_clusters=12)).clustering
        labels, names = labels_of(store), {}
        for kind in range(10):
            of_kind = [labels[p.video_id, p.second][0] for p, k in zip(points[:600], kinds, strict=False) if k == kind]
            names[kind] = f"c{max(set(of_kind), key=of_kind.count)}"
            clustering = cluster_edit.name(store, clustering, names[kind], f"kind {kind}")
        assert len(set(names.values())) == 10
        store.upsert_seconds(label_points(points[600:], clustering))
        book = fit_clusters(store, FitOptions(n_clusters=12, seed=5, fresh=True)).clustering.book
        labels = labels_of(store)
        assert book.lost == ()
        named = [(book.names.get(f"c{labels[p.video_id, p.second][0]}"), k) for p, k in zip(points, kinds, strict=True)]
        assert np.mean([name == f"kind {k}" for name, k in named if k < 10]) > 0.95
        assert np.mean([name is None for name, k in named if k >= 10]) > 0.95


@pytest.mark.parametrize("n_clusters", [None, 24, "auto"])
def test_names_hold_while_other_kinds_are_indexed(tmp_path: Path, n_clusters: int | Literal["auto"] | None) -> None:
    """Most of eight kinds are named, twice as many others indexed: each name stays, also with three times the clusters.

    Nothing was free to go to what is new, had the named ones not been held.
    """
    rng = np.random.default_rng(9)
    kinds = np.concatenate([rng.integers(0, 8, 200), rng.integers(8, 24, 400)])
    rows = np.eye(24, dtype=np.float32)[kinds] + 0.1 * rng.normal(size=(600, 24)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    payload = partial(make_payload, has_audio=False, flags=[], checkpoint="c1")
    points = [
        SecondPoint(f"v{at // 50}", at % 50, {"visual": row}, payload(video_id=f"v{at // 50}", second=at % 50))
        for at, row in enumerate(rows)
    ]
    with closing(open_edge_store(tmp_path / "index", checkpoint="c1", create={"visual": 24})) as store:
        store.upsert_seconds(points[:200])
        clustering = fit_clusters(store, FitOptions(n_clusters=8)).clustering
        labels, names = labels_of(store), {}
        for kind in range(7):
            cluster = labels[next((p.video_id, p.second) for p, k in zip(points, kinds, strict=True) if k == kind)][0]
            names[f"c{cluster}"] = f"kind {kind}"
            clustering = cluster_edit.name(store, clustering, f"c{cluster}", f"kind {kind}")
        store.upsert_seconds(label_points(points[200:], clustering))
        book = fit_clusters(store, FitOptions(n_clusters=n_clusters)).clustering.book
        labels = labels_of(store)
        again = fit_clusters(store, FitOptions())
        assert again.unchanged
        assert labels_of(store) == labels
        assert again.clustering.book == book
    assert dict(book.names) == names
    assert book.lost == ()
    of_kind = [
        (book.names.get(f"c{labels[p.video_id, p.second][0]}"), k) for p, k in zip(points[:200], kinds, strict=False)
    ]
    assert np.mean([name == f"kind {k}" for name, k in of_kind if k < 7]) > 0.95


def test_what_is_unlike_all_is_known_to_none(store: Store) -> None:
    """The nearer half of a prototype's seconds is its own; a second of another kind has a label, and is not."""
    model = fit_clusters(store, FitOptions(n_clusters=N_KINDS)).clustering.model
    points = [p for p in store.seconds(with_vectors=("visual", "audio")) if "audio" in p.vectors]
    known = model.assign_known(model.features(points))
    rows, _ = model.assign(model.features(points))
    assert set(known.tolist()) == {-1, *rows.tolist()}
    assert 0.4 < np.mean(known >= 0) < 0.75
    assert (known[known >= 0] == rows[known >= 0]).all()
    strange = replace(points[0], vectors={name: -vector for name, vector in points[0].vectors.items()})
    assert model.assign_known(model.features([strange])).tolist() == [-1]
    assert model.assign(model.features([strange]))[0] >= 0


def test_what_is_not_found_again_is_listed(store: Store) -> None:
    """A name whose cluster a coarser fit no longer has goes to the list of lost edits, not nowhere."""
    clustering = fit_clusters(store, FitOptions(n_clusters=N_KINDS)).clustering
    for cluster in clustering.book.clusters():
        clustering = cluster_edit.name(store, clustering, f"c{cluster}", f"name {cluster}")
    book = fit_clusters(store, FitOptions(n_clusters=2)).clustering.book
    assert len(book.names) + len(book.lost) >= N_KINDS
    assert {lost["name"] for lost in book.lost} | set(book.names.values()) == {f"name {i}" for i in range(N_KINDS)}
    again = name_node(book, ROOT, book.lost[0]["name"])  # a person found it
    assert again.lost == book.lost[1:]
    with pytest.raises(UsageError, match="looks like the id"):
        name_node(book, ROOT, "c7")


def test_edits_reach_payloads(store: Store) -> None:
    """Merge, split and move change clusters and paths of the seconds concerned, and only the tree's shape."""
    clustering = fit_clusters(store, FitOptions(n_clusters=N_KINDS)).clustering
    sizes = store.facet("cluster")
    a, b = clustering.book.clusters()[:2]
    clustering = cluster_edit.merge(store, clustering, a, b)
    assert store.facet("cluster")[a] == sizes[a] + sizes[b]
    assert store.count(Filter(clusters=(b,))) == 0
    clustering = cluster_edit.split(store, clustering, a)
    assert store.facet("cluster") == sizes
    for cluster in (a, b):
        clustering = cluster_edit.name(store, clustering, f"c{cluster}", f"name {cluster}")
    clustering = cluster_edit.merge(store, clustering, b, a)  # the one that is kept has the later prototype
    assert [(edit["node"], edit["name"]) for edit in clustering.book.lost] == [(f"c{a}", f"name {a}")]
    clustering = cluster_edit.split(store, clustering, b)
    assert store.facet("cluster") == sizes
    assert sum(store.facet("cluster").values()) == 300
    big = int(next(iter(store.facet("cluster"))))
    clustering = cluster_edit.split(store, clustering, big, parts=2)
    assert len(clustering.book.clusters()) == N_KINDS + 1
    clustering = cluster_edit.move(store, clustering, f"c{big}", ROOT)
    assert clustering.book.path(f"c{big}") == [ROOT, f"c{big}"]
    for cluster, path, _ in labels_of(store).values():
        assert path == clustering.book.path(f"c{cluster}")
    with pytest.raises(UsageError, match="cannot be moved"):
        cluster_edit.move(store, clustering, ROOT, ROOT)
    with pytest.raises(UsageError, match="itself"):
        cluster_edit.merge(store, clustering, a, a)
    with pytest.raises(UsageError, match="visxp clusters tree"):
        clustering.book.find("nonsense")


def test_descriptions_are_right(store: Store) -> None:
    """Sizes add up, representatives and boundary cases are members, each kind is pure, and silence is apart."""
    clustering = fit_clusters(store, FitOptions(n_clusters=N_KINDS + 1)).clustering
    nodes = shown_nodes(clustering)
    found = describe_nodes(store, clustering, [*nodes, ROOT])
    labels = labels_of(store)
    assert sum(d.seconds for d in found[:-1]) == found[-1].seconds == 300
    assert found[-1].videos == 6
    for d in found[:-1]:
        assert {f"c{labels[e.video_id, e.second][0]}" for e in (*d.nearest, *d.diverse, *d.boundary)} == {d.node}
        assert d.purity_visual > 0.8 or d.has_audio == 0
        assert len(d.neighbours) == 3
        assert min(e.score for e in d.nearest) >= min(e.score for e in d.diverse)
    assert found[-1].purity_visual < 0.5
    assert [d.seconds for d in found if d.has_audio == 0] == [30]
    assert sorted(found, key=SORTS["size"])[0].node == ROOT
    hidden = cluster_edit.hide(store, clustering, nodes[0], hidden=True)
    assert nodes[0] not in shown_nodes(hidden)
    assert nodes[0] in shown_nodes(hidden, with_hidden=True)


def test_a_sheet_says_what_it_cannot_show(store: Store) -> None:
    """A video that is gone gives tiles that say so; names and paths are escaped."""
    clustering = fit_clusters(store, FitOptions(n_clusters=3)).clustering
    clustering = cluster_edit.name(store, clustering, "c0", "<b>&")
    found = describe_nodes(store, clustering, shown_nodes(clustering))
    branches = {d.node: d for d in describe_nodes(store, clustering, list(clustering.book.tree))}
    paths = {record.video_id: record.paths for record in store.videos()}
    tiles = make_tiles([e for d in found for e in (*d.nearest, *d.diverse, *d.boundary)], paths)
    page = render_sheet(found, branches, clustering.book, tiles, paths, title="Sheet")
    assert "file not readable" in page
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert "http" not in page


def test_examples_are_of_different_videos(store: Store) -> None:
    """Where a cluster has six videos or more, its examples of each sort are of six; and words say whence it is."""
    clustering = fit_clusters(store, FitOptions(n_clusters=3)).clustering
    paths = {record.video_id: record.paths for record in store.videos()}
    for d in describe_nodes(store, clustering, shown_nodes(clustering)):
        assert d.videos == 6
        for examples in (d.nearest, d.diverse, d.boundary):
            assert len({example.video_id for example in examples}) == 6
        assert d.main_videos[0][1] >= d.main_videos[-1][1]
        assert Path(paths[d.main_videos[0][0]][0]).name in summarise(d, paths)


def test_tiles_show_pictures_and_sounds(films: Path) -> None:
    """A film gives different pictures of its seconds, a sound its spectrogram, and both are read in one go each."""
    examples = [Example("film", second, 1.0) for second in (3, 1, 3)] + [Example("sound", s, 1.0) for s in (5, 0)]
    examples.append(Example("gone", 0, 1.0))
    paths = {"film": (str(films / "short.mp4"),), "sound": ("/nowhere", str(films / "sub" / "sound.wav"))}
    done: list[tuple[int, int]] = []
    tiles = make_tiles(examples, paths, on_tile=lambda n, total: done.append((n, total)))
    assert done == [(n, 5) for n in range(1, 6)]
    assert tiles["gone", 0] == Tile(b"", "no path known")
    shown = {key: np.asarray(PIL.Image.open(io.BytesIO(tile.jpeg))) for key, tile in tiles.items() if tile.jpeg}
    assert set(shown) == {("film", 1), ("film", 3), ("sound", 0), ("sound", 5)}
    assert all(picture.std() > 10 for picture in shown.values())  # not one colour
    assert np.abs(shown["film", 1].astype(int) - shown["film", 3]).mean() > 10
    assert np.abs(shown["sound", 0].astype(int) - shown["sound", 5]).mean() > 3


def test_black_pictures_give_way_to_their_sound(tmp_path: Path) -> None:
    """A second that is black and sounds is drawn as its spectrogram; one that is black and silent stays black."""
    tone = 0.3 * np.sin(2 * np.pi * 700 * np.arange(RATE) / RATE)
    write_video(
        tmp_path / "black.mp4",
        frames=[np.zeros((64, 96, 3), dtype=np.uint8)] * 30,
        frames_per_second=10,
        waveform=np.concatenate([tone, np.zeros(2 * RATE)]).astype(np.float32),
        sample_rate_hz=RATE,
    )
    tiles = make_tiles([Example("v", 0, 1.0), Example("v", 2, 1.0)], {"v": (str(tmp_path / "black.mp4"),)})
    shown = [np.asarray(PIL.Image.open(io.BytesIO(tiles["v", second].jpeg))) for second in (0, 2)]
    assert shown[0].max() > 150
    assert shown[1].max() < 30


def test_words_say_what_is_missing(store: Store) -> None:
    """Words about likeness are said only of what most seconds have."""
    clustering = fit_clusters(store, FitOptions(n_clusters=3)).clustering
    [whole] = describe_nodes(store, clustering, [ROOT])
    assert whole.has_visual == 1
    assert 0.8 < whole.has_audio < 1
    assert summarise(replace(whole, has_audio=0.02), {}).startswith("without sound;")
    assert summarise(replace(whole, has_visual=0.02), {}).startswith("sound without picture;")
    assert summarise(replace(whole, has_visual=0.3), {}).startswith("mostly sound without picture;")
    alike = replace(whole, purity_visual=0.3, purity_audio=0.8)
    assert summarise(alike, {}).startswith("same sound, different pictures;")


def test_silence_is_like_silence() -> None:
    """Pictures without sound are as alike as those with the same sound; where it counts nothing, not at all."""
    red, blue, tone, none = *np.eye(2, 4, dtype=np.float32), np.eye(4, dtype=np.float32)[2], np.zeros(4, np.float32)
    vectors = np.stack([red, blue, red + tone, blue + tone, none])
    means = {"visual": np.zeros(2, np.float32), "audio": np.zeros(2, np.float32)}
    features = make_features(vectors, means, absence=1.0)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
    alike = features @ features.T
    assert alike[0, 1] == pytest.approx(alike[2, 3]) == pytest.approx(0.5)
    assert alike[0, 4] == pytest.approx(0.5)
    assert alike[0, 3] == 0
    assert not make_features(vectors, means, absence=0)[4].any()


def fit_of_partly_silent(folder: Path, *, share: float) -> tuple[list[int], list[int], list[bool]]:
    """Clusters, kinds of picture and sound, and silence of 400 seconds of five kinds, of which a share is silent."""
    rng = np.random.default_rng(8)
    kinds, silent = rng.integers(0, 5, 400), rng.random(400) < share
    points = []
    for at, (kind, is_silent) in enumerate(zip(kinds, silent, strict=True)):
        names = ("visual",) if is_silent else ("visual", "audio")
        rows = {name: np.eye(8)[kind] + 0.1 * rng.normal(size=8) for name in names}
        vectors = {name: (row / np.linalg.norm(row)).astype(np.float32) for name, row in rows.items()}
        video, second = f"v{at // 40}", at % 40
        payload = make_payload(video_id=video, second=second, has_audio=not is_silent, flags=[], checkpoint="c1")
        points.append(SecondPoint(video, second, vectors, payload))
    with closing(open_edge_store(folder, checkpoint="c1", create=DIMS)) as store:
        store.upsert_seconds(points)
        fit_clusters(store, FitOptions(n_clusters=6))
        labels = labels_of(store)
    return [labels[p.video_id, p.second][0] for p in points], kinds.tolist(), silent.tolist()


def test_few_silent_seconds_are_a_cluster_of_their_own(tmp_path: Path) -> None:
    """What is silent lies together whatever is seen, and apart from all that sounds."""
    clusters, _, silent = fit_of_partly_silent(tmp_path / "index", share=0.1)
    pairs = set(zip(clusters, silent, strict=True))
    assert len({cluster for cluster, is_silent in pairs if is_silent}) == 1
    assert len(pairs) == len(set(clusters)) == 6


def test_silence_keeps_its_place_among_pictures_without_any() -> None:
    """Where pictures lie in all directions, so that much is near to nothing, few silent seconds are a cluster still."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(800, 48)).astype(np.float32)
    vectors[:14, 24:] = 0  # no sound
    means = {"visual": vectors[:, :24].mean(axis=0), "audio": vectors[14:, 24:].mean(axis=0)}
    sample = torch.from_numpy(make_features(vectors, means, absence=1.0))
    prototypes, _, _ = fit_prototypes(sample, 8, n_modalities=2, sizes="natural", seed=0)
    labels = (sample @ prototypes.T).argmax(dim=1).tolist()
    assert len(set(labels[:14])) == 1
    assert labels.count(labels[0]) == 14


def test_prototypes_that_are_held_stay() -> None:
    """Prototypes that are held come first, where they were; the others go to where no held one is near."""
    centres = torch.eye(6)
    rows = torch.arange(600) % 6
    noise = 0.1 * torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    sample = torch.nn.functional.normalize(centres[rows] + noise, dim=1)
    held = torch.nn.functional.normalize(centres[:3] + 0.2, dim=1)
    start = torch.cat([held, centres[[0, 1, 2]]])  # twice the same three kinds: much is far from all
    for begin in (None, start):
        for sizes in ("natural", "uniform"):
            found, _, _ = fit_prototypes(sample, 6, sizes=sizes, seed=0, start=begin, held=held)
            assert torch.equal(found[:3], held)
            assert sorted((found[3:] @ centres.T).argmax(dim=1).tolist()) == [3, 4, 5]


def test_much_silence_is_divided_by_what_is_seen(tmp_path: Path) -> None:
    """Where most seconds are silent, their pictures make the clusters."""
    clusters, kinds, silent = fit_of_partly_silent(tmp_path / "index", share=0.9)
    pairs = {(cluster, kind) for cluster, kind, is_silent in zip(clusters, kinds, silent, strict=True) if is_silent}
    assert len(pairs) == len({cluster for cluster, _ in pairs}) == 5


def test_clusters_of_earlier_releases_are_read_and_fitted_on(tmp_path: Path) -> None:
    """A document that knows nothing of missing modalities labels as it did, and its clusters are found again."""
    store = open_edge_store(tmp_path / "index", checkpoint="c1", create=DIMS)
    whole = [point for point in seconds_of_kinds(300)[0] if "audio" in point.vectors]
    store.upsert_seconds(whole)
    clustering = fit_clusters(store, FitOptions(n_clusters=N_KINDS)).clustering
    old = replace(clustering.model, prototypes=clustering.model.prototypes[:, :-2].copy(), absence=0.0)
    write_clustering(store, replace(clustering, model=old))
    document = store.read_document(DOCUMENT)
    assert document is not None
    del document["model"]["absence"], document["fit"]["wanted"], document["fit"]["obtained"]
    store.write_document(DOCUMENT, document)
    found = require_clustering(store)
    points = list(store.seconds(with_vectors=found.model.modalities))
    assert len(points) == len(whole) == 270
    assert [label["cluster"] for label in found.label(points)] == [point.payload["cluster"] for point in points]
    assert fit_clusters(store, FitOptions()).carried == N_KINDS
    store.close()


@pytest.mark.parametrize("n_kinds", [6, 12, 24])
def test_auto_finds_how_many_kinds_there_are(n_kinds: int) -> None:
    """Kinds of unequal sizes, in families, are found in their number, and neither end of the curve is taken."""
    rng = np.random.default_rng(1)
    families = np.repeat(rng.normal(size=(-(-n_kinds // 4), 32)), 4, axis=0)[:n_kinds]
    centres = families + rng.normal(size=(n_kinds, 32))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    shares = rng.uniform(0.5, 1.5, n_kinds)
    kinds = rng.choice(n_kinds, 1000, p=shares / shares.sum())
    rows = centres[kinds] + 0.12 * rng.normal(size=(1000, 32))
    sample = torch.nn.functional.normalize(torch.from_numpy(rows).float(), dim=1)
    stretches = torch.arange(250).repeat_interleave(4)
    best, curve = choose_n_clusters(sample, stretches, seed=0, progress=lambda step, done, total: None)
    assert best == n_kinds
    assert curve[0][0] < best < curve[-1][0]


def test_near_copies_do_not_make_clusters() -> None:
    """Stretches of near copies, which lie in all directions alike, are no kinds, however many there are."""
    rng = np.random.default_rng(2)
    rows = np.repeat(rng.normal(size=(120, 32)), 8, axis=0) + 0.05 * rng.normal(size=(960, 32))
    sample = torch.nn.functional.normalize(torch.from_numpy(rows).float(), dim=1)
    stretches = torch.arange(120).repeat_interleave(8)
    best, curve = choose_n_clusters(sample, stretches, seed=0, progress=lambda step, done, total: None)
    assert best <= 4
    assert curve[-1][0] <= 16


def test_wrong_wishes_are_refused(store: Store) -> None:
    """Impossible numbers and unknown sizes say what is possible; no clusters says how to make them."""
    with pytest.raises(UsageError, match="2 to 5000"):
        fit_clusters(store, FitOptions(n_clusters=1))
    with pytest.raises(UsageError, match="natural, tempered, uniform"):
        fit_clusters(store, FitOptions(sizes="odd"))
    with pytest.raises(UsageError, match="too few"):
        fit_clusters(store, FitOptions(n_clusters=400))
    with pytest.raises(CollectionError, match="visxp clusters fit"):
        require_clustering(store)


def test_the_document_round_trips(store: Store) -> None:
    """What is read is what was written, bit by bit."""
    clustering = fit_clusters(store, FitOptions(n_clusters=3)).clustering
    found = require_clustering(store)
    assert isinstance(found, Clustering)
    assert (found.book, found.fit, found.applied) == (clustering.book, clustering.fit, True)
    assert (found.model.prototypes == clustering.model.prototypes).all()
    assert (found.model.offsets == clustering.model.offsets).all()


def test_commands_from_fit_to_export(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands do what they say, in text and in JSON, and their mistakes have exit code 2."""
    store.close()
    at = ["--index", str(tmp_path / "index")]
    assert main(["clusters", "tree", *at]) == 3
    assert "visxp clusters fit" in capsys.readouterr().err
    assert main(["clusters", "fit", "--k", "6", "--json", *at]) == 0
    assert json.loads(capsys.readouterr().out)["n_clusters"] == 6
    assert main(["clusters", "name", "2", "applause", *at]) == 0
    assert main(["clusters", "ls", *at]) == 0
    assert "applause" in capsys.readouterr().out
    assert main(["clusters", "tree", *at]) == 0
    printed = capsys.readouterr().out
    assert "applause" in printed
    assert "v3.mp4" in printed
    assert main(["clusters", "tree", "--json", *at]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == 300
    assert main(["clusters", "show", "applause", *at]) == 0
    assert "boundary" in capsys.readouterr().out
    for name in ("x.csv", "x.json", "x.html"):
        assert main(["clusters", "export", "--out", str(tmp_path / name), *at]) == 0
        assert "applause" in (tmp_path / name).read_text(encoding="utf-8")
    assert main(["clusters", "export", "--out", str(tmp_path / "x.pdf"), *at]) == 2
    assert main(["clusters", "export", "--out", str(tmp_path / "nowhere" / "x.csv"), *at]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["clusters", "show", "nonsense", *at]) == 2
    assert main(["clusters", "fit", "--k", "many", *at]) == 2
