"""`visxp clusters`: the kinds of moments in an archive, as a tree to descend, to name and to edit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxp_search.commands.shared import (
    IndexOption,
    JsonOption,
    QuietOption,
    group,
    open_bare_store,
    print_json,
)
from visxp_search.errors import UsageError

if TYPE_CHECKING:
    from visxp_search.cluster_store import Clustering
    from visxp_search.store import Store

ClusterArgument = Annotated[str, typer.Argument(metavar="C", help="Cluster: its number, id (c7) or name.")]
NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="Cluster or branch: id (c7, b3) or name.")]
HiddenOption = Annotated[bool, typer.Option("--hidden", help="With those that are hidden.")]

app = group("The kinds of moments in an archive: fit, browse, name and edit clusters.")


@app.command("fit")
def clusters_fit(
    k: Annotated[
        str | None,
        typer.Option("--k", metavar="N|auto", help="Clusters wanted. Default: as many as there are, at first auto."),
    ] = None,
    sizes: Annotated[
        str,
        typer.Option("--sizes", help="Wanted sizes: natural, tempered (the square roots of those), uniform, gaussian."),
    ] = "natural",
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin with new prototypes everywhere, as if nothing had been named.")
    ] = False,
    check_stability: Annotated[
        bool, typer.Option("--check-stability", help="Say how far a fit with another seed agrees (NMI).")
    ] = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find the clusters of the indexed seconds and their hierarchy, and label every second.

    Seconds that are indexed later are labelled at once. Fitting again holds clusters that were named or edited where
    their seconds are, keeps ids, names and edits of all that are found again, and lists the others. Interrupted, the
    same command completes it.

    Examples: `visxp clusters fit` · `visxp clusters fit --k 300 --sizes uniform`
    """
    from visxp_search.cluster_fit import FitOptions, fit_clusters
    from visxp_search.console import StepProgress
    from visxp_search.console_clusters import print_fit

    if k is not None and k != "auto" and not k.isdigit():
        raise UsageError(f"--k {k} not understood; expected a number, or auto")
    options = FitOptions(
        n_clusters=int(k) if k and k.isdigit() else "auto" if k else None,
        sizes=sizes,
        seed=seed,
        fresh=fresh,
        check_stability=check_stability,
    )
    with open_bare_store(index) as store, StepProgress(quiet=quiet or as_json) as progress:
        report = fit_clusters(store, options, progress=progress)
    if as_json:
        book = report.clustering.book
        print_json(
            {
                **vars(report.clustering.fit),
                "clusters": book.clusters(),
                "carried": report.carried,
                "resumed": report.resumed,
                "unchanged": report.unchanged,
                "lost": list(book.lost),
            }
        )
    elif not quiet:
        print_fit(report)


@app.command("ls")
def clusters_ls(
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            help="tree, size, picture, sound, same-sound (and different pictures), same-picture, videos, confidence.",
        ),
    ] = "size",
    hidden: HiddenOption = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the clusters with their sizes, and how pure they are in picture and in sound.

    Before the first `visxp clusters fit` these are the clusters that the checkpoint learned in training, with sizes
    alone, if it learned any.

    Example: `visxp clusters ls --sort same-sound`
    """
    from visxp_search.cluster_describe import SORTS, describe_nodes, shown_nodes
    from visxp_search.cluster_store import read_clustering, require_clustering
    from visxp_search.console_clusters import description_to_json, print_learned, print_list, print_lost

    if sort != "tree" and sort not in SORTS:
        raise UsageError(f"--sort {sort} unknown; expected tree, {', '.join(SORTS)}")
    with open_bare_store(index) as store:
        learned = store.facet("cluster") if read_clustering(store) is None else {}
        if learned:
            total = sum(learned.values())
            rows = [{"cluster": c, "seconds": n, "share": round(n / total, 4)} for c, n in learned.items()]
            if as_json:
                print_json([{"of": "checkpoint", **row} for row in rows])
            else:
                print_learned(rows)
            return
        clustering = require_clustering(store)
        found = describe_nodes(store, clustering, shown_nodes(clustering, with_hidden=hidden))
        paths = _paths(store)
    if sort != "tree":
        found = sorted(found, key=SORTS[sort])
    if as_json:
        print_json([{"of": "archive", **description_to_json(description, paths)} for description in found])
    else:
        print_list(found)
        print_lost(clustering.book)
        _warn_unapplied(clustering)


@app.command("show")
def clusters_show(node: NodeArgument, index: IndexOption = None, as_json: JsonOption = False) -> None:
    """Describe one cluster or branch: size, purity, typical, different and doubtful seconds, neighbours.

    Example: `visxp clusters show 7`
    """
    from visxp_search.cluster_describe import describe_nodes
    from visxp_search.cluster_store import require_clustering
    from visxp_search.console_clusters import description_to_json, print_description

    with open_bare_store(index) as store:
        clustering = require_clustering(store)
        [found] = describe_nodes(store, clustering, [clustering.book.find(node)])
        paths = _paths(store)
    if as_json:
        print_json(description_to_json(found, paths))
    else:
        print_description(found, clustering.book, paths)


@app.command("tree")
def clusters_tree(
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Levels to show. Default: all.")] = None,
    hidden: HiddenOption = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the hierarchy of clusters with sizes, names, what they lack, and where they mainly are.

    Example: `visxp clusters tree --depth 2`
    """
    from visxp_search.clips import format_time
    from visxp_search.cluster_describe import main_stretches, say_what_is_missing
    from visxp_search.cluster_store import require_clustering
    from visxp_search.console_clusters import print_tree, tree_to_json

    with open_bare_store(index) as store:
        clustering = require_clustering(store)
        sizes = {int(cluster): number for cluster, number in store.facet("cluster").items()}
        if as_json:
            print_json(tree_to_json(clustering.book, sizes))
            return
        paths = _paths(store)

        def about(node: str, n_seconds: int) -> str:
            places = [
                f"{Path(paths[video][0]).name} {format_time(start)}-{format_time(stop)}"
                for video, start, stop in main_stretches(store, node)
                if paths.get(video)
            ]
            missing = say_what_is_missing(store, node, n_seconds=n_seconds)
            return "; ".join(part for part in (missing, ", ".join(places)) if part)

        print_tree(clustering.book, sizes, about, with_hidden=hidden, depth=depth)
    _warn_unapplied(clustering)


@app.command("name")
def clusters_name(
    node: NodeArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name to give; an empty one takes it away.")],
    index: IndexOption = None,
) -> None:
    """Name a cluster or a branch.

    Example: `visxp clusters name 7 "credits"`
    """
    from visxp_search import cluster_edit
    from visxp_search.cluster_store import require_clustering
    from visxp_search.console import say

    with open_bare_store(index) as store:
        clustering = require_clustering(store)
        found = clustering.book.find(node)
        cluster_edit.name(store, clustering, found, name)
    say(f"{found} is now called {name.strip()!r}" if name.strip() else f"{found} has no name any more")


@app.command("merge")
def clusters_merge(
    kept: ClusterArgument,
    merged: Annotated[str, typer.Argument(metavar="D", help="Cluster that becomes part of C.")],
    index: IndexOption = None,
) -> None:
    """Make two clusters one; the first keeps its id, name and place.

    Example: `visxp clusters merge 7 12`
    """
    from visxp_search import cluster_edit
    from visxp_search.cluster_store import require_clustering
    from visxp_search.console import say

    with open_bare_store(index) as store:
        clustering = require_clustering(store)
        first, second = clustering.book.find_cluster(kept), clustering.book.find_cluster(merged)
        cluster_edit.merge(store, clustering, first, second)
    say(f"c{second} is now part of c{first}; undo it with: visxp clusters split c{first}")


@app.command("split")
def clusters_split(
    cluster: ClusterArgument,
    into: Annotated[int, typer.Option("--into", min=2, max=20, help="Parts, unless it was merged.")] = 2,
    index: IndexOption = None,
) -> None:
    """Split a cluster into parts of like seconds, or a merged one into what was merged.

    Example: `visxp clusters split 7 --into 3`
    """
    from visxp_search import cluster_edit
    from visxp_search.cluster_store import require_clustering
    from visxp_search.console import say

    with open_bare_store(index) as store:
        clustering = require_clustering(store)
        found = clustering.book.find_cluster(cluster)
        after = cluster_edit.split(store, clustering, found, parts=into)
    new = sorted(set(after.book.clusters()) - set(clustering.book.clusters()))
    say(f"c{found} was split; beside it there is now {', '.join(f'c{number}' for number in new)}")


@app.command("move")
def clusters_move(
    node: NodeArgument,
    branch: Annotated[str, typer.Argument(metavar="BRANCH", help="Branch to hang it from: id (b3) or name.")],
    index: IndexOption = None,
) -> None:
    """Move a cluster or a branch below another branch of the tree.

    Example: `visxp clusters move c7 b3`
    """
    from visxp_search import cluster_edit
    from visxp_search.cluster_store import require_clustering
    from visxp_search.console import say

    with open_bare_store(index) as store:
        clustering = require_clustering(store)
        moved, target = clustering.book.find(node), clustering.book.find(branch)
        after = cluster_edit.move(store, clustering, moved, target)
    say(f"{moved} now hangs at {' / '.join(after.book.title(above) for above in after.book.path(moved))}")


@app.command("hide")
def clusters_hide(
    node: NodeArgument,
    show: Annotated[bool, typer.Option("--show", help="Show it again.")] = False,
    index: IndexOption = None,
) -> None:
    """Leave a cluster or branch out of lists and trees; searches are not touched.

    Examples: `visxp clusters hide 7` · `visxp clusters hide 7 --show`
    """
    from visxp_search import cluster_edit
    from visxp_search.cluster_store import require_clustering
    from visxp_search.console import say

    with open_bare_store(index) as store:
        clustering = require_clustering(store)
        found = clustering.book.find(node)
        cluster_edit.hide(store, clustering, found, hidden=not show)
    say(
        f"{found} is shown again"
        if show
        else f"{found} is hidden; show it again with: visxp clusters hide {found} --show"
    )


@app.command("export")
def clusters_export(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to write: .csv, .json or .html by its ending.")
    ],
    hidden: HiddenOption = False,
    index: IndexOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write all clusters as a table (.csv), as data (.json), or as a contact sheet with pictures (.html).

    The contact sheet reads the videos themselves, and is one file that needs nothing else.

    Example: `visxp clusters export --out sheet.html`
    """
    import json
    import os

    from visxp_search.cluster_describe import describe_nodes, shown_nodes
    from visxp_search.cluster_sheet import make_tiles, render_sheet
    from visxp_search.cluster_store import require_clustering
    from visxp_search.console import StepProgress, say
    from visxp_search.console_clusters import description_to_json, descriptions_to_csv, tree_to_json

    if out.suffix not in (".csv", ".json", ".html"):
        raise UsageError(f"--out {out} must end with .csv, .json or .html")
    with open_bare_store(index) as store:
        clustering = require_clustering(store)
        shown = shown_nodes(clustering, with_hidden=hidden)
        every = describe_nodes(store, clustering, [*shown, *clustering.book.tree])
        found, branches = every[: len(shown)], {branch.node: branch for branch in every[len(shown) :]}
        sizes = {int(cluster): number for cluster, number in store.facet("cluster").items()}
        paths = _paths(store)
        location = store.location
    if out.suffix == ".csv":
        text = descriptions_to_csv(found, paths)
    elif out.suffix == ".json":
        clusters = [description_to_json(description, paths) for description in found]
        text = json.dumps({"tree": tree_to_json(clustering.book, sizes), "clusters": clusters}, indent=1)
    else:
        examples = [example for d in found for example in (*d.nearest, *d.diverse, *d.boundary)]
        with StepProgress(quiet=quiet) as progress:
            tiles = make_tiles(examples, paths, on_tile=lambda done, total: progress("read pictures", done, total))
        text = render_sheet(found, branches, clustering.book, tiles, paths, title=f"Clusters of {Path(location).name}")
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, out)
    except OSError as exc:
        raise UsageError(f"--out {out} cannot be written: {exc}; name a file in a folder that is there") from exc
    if not quiet:
        say(f"{len(found)} clusters written to {out}")


def _paths(store: "Store") -> dict[str, tuple[str, ...]]:
    return {record.video_id: record.paths for record in store.videos()}


def _warn_unapplied(clustering: "Clustering") -> None:
    from visxp_search.console import say

    if not clustering.applied:
        say("the last fit or edit was interrupted, so some seconds have old labels; complete it: visxp clusters fit")
