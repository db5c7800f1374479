"""The clusters of the page: what is shown, how they are corrected, and the map."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.webui_site import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    ColourEmbedder,
    index_colours,
    make_archive,
    record_named,
    unit,
    write_colours,
)
from visxp_search.api import Index
from visxp_search.cluster_book import ROOT, ClusterBook
from visxp_search.cluster_model import ClusterModel
from visxp_search.cluster_store import Clustering, FitFacts, apply_clustering
from visxp_search.errors import UsageError
from visxp_search.store import Filter, open_store
from webui import asking, browse, finding, watching
from webui.adding import Adder
from webui.archive import Archive
from webui.asking import Form
from webui.browse import Browsing
from webui.card import Card, read_card
from webui.clusters import N_BUCKETS, Clusters, Run, gather_runs, title_of
from webui.disk import distance, lay_out, move
from webui.endpoints import make_cluster_endpoints
from webui.narrow import Narrow, make_scope
from webui.views_browse import browse_view
from webui.views_watch import watch_view


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an archive of four colours with a cluster each; its index is copied, not opened."""
    folder = tmp_path_factory.mktemp("fitted")
    made = make_archive(folder)
    colours = [GREEN, YELLOW, YELLOW, GREEN, RED, BLUE]
    index_colours(made.store, write_colours(folder / "more.mp4", colours), colours)
    made.store.flush()
    apply_clustering(made.store, cluster_by_colour(RED, YELLOW, GREEN, BLUE))
    made.close()
    return folder


def cluster_by_colour(*colours: tuple[int, int, int]) -> Clustering:
    """A cluster for each colour, in two branches; sounds are all alike."""
    pictures = np.stack([unit(np.array(colour, dtype=np.float32) - 60) for colour in colours])
    sounds = np.tile(np.array([[1, 0]], dtype=np.float32), (len(colours), 1))
    nodes = [f"c{number}" for number in range(len(colours))]
    half = len(nodes) // 2
    return Clustering(
        model=ClusterModel(
            means={"visual": np.zeros(3, dtype=np.float32), "audio": np.zeros(2, dtype=np.float32)},
            prototypes=(np.concatenate([pictures, sounds], axis=1) / np.sqrt(2)).astype(np.float32),
            offsets=np.zeros(len(colours)),
            sharpness=20.0,
        ),
        book=ClusterBook(
            rows=tuple(range(len(colours))),
            tree={ROOT: ("b1", "b2"), "b1": tuple(nodes[:half]), "b2": tuple(nodes[half:])},
            next_cluster=len(colours),
            next_branch=3,
        ),
        fit=FitFacts("by hand", len(colours), "natural", 0, 15, 0.0),
    )


def open_copy(fitted: Path, folder: Path) -> Archive:
    """A copy of its index, opened."""
    shutil.copytree(fitted / "index", folder / "index")
    store = open_store(folder / "index", checkpoint="colours")
    archive = Archive(store, lambda: Index(store, ColourEmbedder()))
    archive.start()
    return archive


@pytest.fixture(scope="module")
def archive(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive that no test changes."""
    archive = open_copy(fitted, tmp_path_factory.mktemp("archive"))
    yield archive
    archive.close()


@pytest.fixture(scope="module")
def clusters(archive: Archive) -> Clusters:
    """Its clusters."""
    return Clusters(archive, Adder(archive))


@pytest.fixture
def spare(fitted: Path, tmp_path: Path) -> Iterator[Archive]:
    """An archive that a test may change."""
    archive = open_copy(fitted, tmp_path)
    yield archive
    archive.close()


@pytest.fixture
def changeable(spare: Archive) -> Clusters:
    """Its clusters."""
    return Clusters(spare, Adder(spare))


def cluster_at(archive: Archive, name: str, second: int) -> str:
    """The node of one second's cluster."""
    [point] = archive.store.get([(record_named(archive, name).video_id, second)])
    return f"c{point.payload['cluster']}"


def test_without_clusters_the_page_says_how_to_make_them(tmp_path: Path) -> None:
    """An index without clusters shows the command, offers no choices and refuses to filter by one."""
    bare = make_archive(tmp_path)
    clusters = Clusters(bare, Adder(bare))
    assert "visxp clusters fit" in browse_view(Browsing(), clusters.known(), {}, read_only=False)
    assert clusters.choices() == [] and clusters.below(()) == ()
    with pytest.raises(UsageError, match="no clusters yet"):
        clusters.below(("c0",))
    bare.close()


def test_every_view_shows_every_cluster(archive: Archive, clusters: Clusters) -> None:
    """List and map hold all clusters; the tree is descended to each of them."""
    known = clusters.require()
    nodes = {f"c{cluster}" for cluster in known.book.clusters()}
    listed = {d.node for d in browse.listing(Browsing(), known)}
    mapped = {node["id"] for node in browse.make_map(Browsing(), known) if node["leaf"]}
    seen, waiting = set(), [ROOT]
    while waiting:
        for child in browse.children(Browsing(node=waiting.pop()), known):
            seen.add(child.node)
            waiting.append(child.node)
    assert listed == mapped == nodes and nodes <= seen


@pytest.mark.parametrize("view", ["tree", "list", "map"])
def test_names_are_escaped_in_every_view(spare: Archive, changeable: Clusters, view: str) -> None:
    """A name made of tags is shown as it is written, in the map's data too."""
    node = cluster_at(spare, "cool.mp4", 1)
    changeable.rename(node, '<img src=x onerror="alert(1)">')
    known = changeable.require()
    shown = Browsing(view=view, node=node if view == "tree" else ROOT)
    html = browse_view(shown, known, {}, read_only=False)
    assert "<img src=x" not in html and "&lt;img src=x" in html
    if view == "map":
        data = re.search(r'data-nodes="([^"]*)"', html)
        assert data is not None
        assert any(entry["name"].startswith("<img src=x") for entry in json.loads(unescape(data[1])))


def test_names_and_hiding_hold_after_opening_again(spare: Archive, changeable: Clusters) -> None:
    """A name is kept with the index; a hidden cluster is left out until hidden ones are asked for."""
    node = cluster_at(spare, "cool.mp4", 1)
    changeable.rename(node, "  green   meadow ")
    changeable.hide(node, hidden=True)
    again = Clusters(spare, Adder(spare)).require()
    assert title_of(again.book, node) == "green meadow"
    assert node not in {d.node for d in browse.listing(Browsing(), again)}
    assert node in {d.node for d in browse.listing(Browsing(with_hidden=True), again)}


def test_merge_split_and_move_change_what_is_stored(spare: Archive, changeable: Clusters) -> None:
    """Merged seconds carry the kept cluster, splitting gives them back, moving changes their path."""
    red, green = cluster_at(spare, "warm.mp4", 0), cluster_at(spare, "cool.mp4", 1)
    assert red != green
    changeable.merge(red, green)
    assert cluster_at(spare, "cool.mp4", 1) == red and green not in changeable.require().descriptions
    changeable.split(red)
    assert cluster_at(spare, "cool.mp4", 1) != cluster_at(spare, "warm.mp4", 0)
    book = changeable.require().book
    outside = next(f"c{cluster}" for cluster in book.clusters() if "b1" not in book.path(f"c{cluster}"))
    changeable.move(outside, "b1")
    assert "b1" in changeable.require().book.path(outside)
    assert spare.store.count(Filter(branch="b1")) >= spare.store.count(Filter(clusters=(int(outside[1:]),))) > 0


def test_edits_that_cannot_be_made_are_refused(spare: Archive, changeable: Clusters) -> None:
    """Unknown nodes, merging with itself, and edits of seconds while videos are added are refused in words."""
    node = cluster_at(spare, "warm.mp4", 0)
    edits: list[Callable[[], object]] = [
        lambda: changeable.rename("c99", "x"),
        lambda: changeable.merge(node, node),
        lambda: changeable.move(node, node),
    ]
    for edit in edits:
        with pytest.raises(UsageError):
            edit()
    busy = Adder(spare)
    busy._thread = object()  # type: ignore[assignment]
    waiting = Clusters(spare, busy)
    waiting.rename(node, "allowed")
    with pytest.raises(UsageError, match="being added"):
        waiting.split(node)


def test_read_only_pages_offer_no_edits(archive: Archive, clusters: Clusters) -> None:
    """The open cluster can be searched with, but not changed."""
    shown = Browsing(node=cluster_at(archive, "warm.mp4", 0))
    html = browse_view(shown, clusters.require(), {}, read_only=True)
    assert 'data-act="ask"' in html and 'data-act="within"' in html
    assert not any(f'data-act="{act}"' in html for act in ("merge", "split", "move", "leave"))
    assert 'data-change="rename"' not in html


def test_a_cluster_asks_and_filters(archive: Archive, clusters: Clusters) -> None:
    """A cluster finds its own seconds; as a filter nothing else is found."""
    green = cluster_at(archive, "cool.mp4", 1)
    found = finding.search_cluster(archive, clusters, Form(by="visual", weak=True), green)
    record = record_named(archive, "cool.mp4")
    assert found.moments[0].video_id in {record.video_id, record_named(archive, "more.mp4").video_id}
    narrow = Narrow(nodes=(green,))
    form = Form("indexed", None, record.video_id, "1", "2", by="visual", weak=True, narrow=narrow)
    inside = finding.find(archive, clusters, form, asking.Uploads(Path("/nowhere")))
    assert inside.moments
    assert {f"c{second.cluster}" for moment in inside.moments for second in moment.seconds} == {green}


def test_the_strip_runs_along_the_video(archive: Archive, clusters: Clusters) -> None:
    """Runs cover the video in order, meet without gaps, and stand in the player with their names."""
    record = record_named(archive, "warm.mp4")
    strip = clusters.strip(record.video_id)
    assert strip[0].start == 0 and strip[-1].end == 5
    assert all(a.end == b.start and a.cluster != b.cluster for a, b in pairwise(strip))
    watched = watching.watch_span(archive, clusters, record.video_id, 0, 2)
    html = watch_view(watched, (), titles={run.cluster or 0: ("<sea>", 200) for run in strip})
    assert "vx-clusterline" in html and "&lt;sea&gt;" in html and "<sea>" not in html


def test_long_videos_have_coarse_strips() -> None:
    """Of a long video at most `N_BUCKETS` parts are shown, by majority; seconds without a cluster are gaps."""
    labels = [(second, 1 if second < 5000 else 2) for second in range(10_000) if not 7000 <= second < 7500]
    runs = gather_runs(labels)
    assert len(runs) <= N_BUCKETS and [run.cluster for run in runs] == [1, 2, None, 2]
    assert gather_runs([(3, 5)]) == (Run(0, 3, None), Run(3, 4, 5)) and gather_runs([]) == ()


def test_descriptions_are_read_once_until_something_changes(spare: Archive, changeable: Clusters) -> None:
    """Renaming needs no second pass over the seconds; adding a video does."""
    first = changeable.require()
    changeable.rename("c0", "sea")
    renamed = changeable.require()
    assert renamed.descriptions["c0"].name == "sea"
    assert renamed.descriptions["c0"].nearest is first.descriptions["c0"].nearest
    assert spare.store.count() == 15
    spare.store.delete_video(record_named(spare, "more.mp4").video_id)
    assert changeable.require().descriptions[ROOT].seconds == 9


@pytest.mark.parametrize(
    ("narrow", "words"),
    [
        (Narrow(after="2", before="1"), "second time is later"),
        (Narrow(after="soon"), "not understood"),
        (Narrow(flags=("shiny",)), "no remark"),
        (Narrow(files=", ".join("abc" for _ in range(300))), "at most 200"),
    ],
)
def test_conditions_that_make_no_sense_are_said(clusters: Clusters, narrow: Narrow, words: str) -> None:
    """Every value that a browser may send as a filter is refused with a reason."""
    with pytest.raises(UsageError, match=words):
        make_scope(narrow, clusters)


def test_conditions_become_a_scope(archive: Archive, clusters: Clusters) -> None:
    """Words match within names, times are read as people write them, branches stand for their clusters."""
    scope = make_scope(Narrow(files="tape, *.mxf", after="0:30", longest="1:00", nodes=(ROOT,)), clusters, hidden=["v"])
    assert scope.paths == ("*tape*", "*.mxf") and (scope.after, scope.max_duration) == (30, 60)
    assert scope.clusters == tuple(clusters.require().book.clusters()) and scope.hidden == ("v",)


def test_distances_on_the_disk_are_hyperbolic() -> None:
    """Moving the disk keeps distances, and a point at tanh(d / 2) lies d from the centre."""
    generator = np.random.default_rng(0)
    radii, angles = 0.95 * np.sqrt(generator.random(12)), 2 * np.pi * generator.random(12)
    points = [complex(r * np.cos(a), r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]
    for one, other, by in zip(points[:4], points[4:8], points[8:], strict=True):
        assert distance(move(one, by=by), move(other, by=by)) == pytest.approx(distance(one, other), rel=1e-6)
    assert distance(0j, complex(np.tanh(1.5 / 2), 0)) == pytest.approx(1.5)


def test_the_map_puts_every_node_in_the_disk_apart_from_others() -> None:
    """Children lie one step from their parent, all in the open disk, siblings and cousins apart."""
    tree = {"b0": ("b1", "b2", "b3")} | {f"b{i}": tuple(f"c{i}{j}" for j in range(5)) for i in (1, 2, 3)}
    places = lay_out(tree, "b0", {f"c{i}{j}": 1 + 50 * (j == 0) for i in (1, 2, 3) for j in range(5)}, step=1.25)
    assert len(places) == 19 and all(abs(place) < 1 for place in places.values())
    for branch, children in tree.items():
        for child in children:
            assert distance(places[branch], places[child]) == pytest.approx(1.25, abs=1e-6)
    names = list(places)
    closest = min(distance(places[a], places[b]) for i, a in enumerate(names) for b in names[:i])
    assert closest > 0.25


def test_a_node_that_is_gone_leads_back_to_the_root(archive: Archive, clusters: Clusters) -> None:
    """After a merge by someone else, the page of the merged cluster shows the root; wrong values are refused."""
    known = clusters.require()
    assert browse.settle(Browsing(node="c99"), known).node == ROOT
    assert browse.open_node(replace(Browsing(), view="map"), "c0") == Browsing(node="c0")
    with pytest.raises(UsageError):
        browse.choose_view(Browsing(), "globe")
    with pytest.raises(UsageError):
        browse.choose_sort(Browsing(), "beauty")


def test_programs_can_do_what_the_page_does(spare: Archive, changeable: Clusters) -> None:
    """Programs list, describe and correct clusters; on a read-only page they only look."""
    calls = make_cluster_endpoints(changeable, read_only=False)
    listed = calls["clusters"]()
    assert sum(cluster["seconds"] for cluster in listed) == 15 and all(cluster["typical"] for cluster in listed)
    assert json.loads(json.dumps(listed)) == listed
    node = listed[0]["node"]
    assert calls["name_cluster"](node, "sea")["name"] == "sea" and calls["cluster"]("sea")["node"] == node
    assert calls["hide_cluster"](node)["hidden"] and not calls["hide_cluster"](node, hidden=False)["hidden"]
    assert set(make_cluster_endpoints(changeable, read_only=True)) == {"clusters", "cluster"}


def test_the_card_of_the_checkpoint_is_read(tmp_path: Path) -> None:
    """The card comes without its front matter, with the report where one lies by; a plugin has none."""
    (tmp_path / "README.md").write_text("---\nlicense: x\n---\n\n# Encoders\n\nmeasured: 0.8\n")
    assert read_card(str(tmp_path)) == Card("# Encoders\n\nmeasured: 0.8", None)
    (tmp_path / "report.html").write_text("<p>")
    assert read_card(str(tmp_path)) == Card("# Encoders\n\nmeasured: 0.8", tmp_path / "report.html")
    assert read_card("some-plugin") is None
    shipped = read_card(None)
    assert shipped is not None and shipped.markdown.startswith("# ")
