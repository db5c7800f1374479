"""Clusters in a terminal: lists, descriptions, the tree."""

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from visxp_search.clips import format_time
from visxp_search.cluster_book import ROOT, ClusterBook
from visxp_search.cluster_describe import Description, Example, summarise
from visxp_search.cluster_fit import FitReport
from visxp_search.cluster_store import FitFacts

BAR_WIDTH = 24
"""Characters of the longest bar."""


def print_fit(report: FitReport) -> None:
    """How a fit went: the curve of `auto`, sizes, and what could not be carried over."""
    fit, book = report.clustering.fit, report.clustering.book
    if report.resumed:
        print("a fit that had been interrupted was completed; run the command again to fit anew")
    if report.unchanged:
        print("the same seconds were fitted so before: clusters stay as they are; --fresh begins anew")
    elif fit.curve:
        best = max(max(value for _, value, _ in fit.curve), 1e-9)
        print(
            "K by what two halves of the archive both tell, in bits beyond chance, less a quarter of what K labels can "
            "tell;\nof those within one standard error of the best the largest is taken:"
        )
        for k, value, error in fit.curve:
            bar = "█" * round(BAR_WIDTH * max(value, 0) / best)
            print(f"  {k:4}  {value:6.2f} ± {error:.2f}  {bar}{'  <- taken' if k == fit.n_clusters else ''}")
    print(f"{len(book.clusters())} clusters of {fit.n_seconds} seconds, {len(book.tree) - 1} branches")
    _print_sizes(fit)
    if fit.stability is not None:
        print(f"fitted once more from other seconds, the same seconds are together: NMI {fit.stability:.3f} (1 is all)")
    if report.carried and not report.unchanged:
        print(f"{report.carried} of them are clusters of the fit before, and keep their ids, names and edits")
    print_lost(book)


def _print_sizes(fit: FitFacts) -> None:
    """Sizes that were wanted beside those obtained: their range, and the prototype that is farthest off."""
    if not fit.wanted:  # of an earlier release
        return
    if fit.sizes == "natural" and fit.wanted == fit.obtained:
        print(f"sizes (natural): {min(fit.obtained)} to {max(fit.obtained)} s, as the nearest prototypes give them")
        return
    gaps = [abs(obtained - wanted) / wanted for wanted, obtained in zip(fit.wanted, fit.obtained, strict=True)]
    worst = gaps.index(max(gaps))
    print(
        f"sizes ({fit.sizes}): {min(fit.wanted)} to {max(fit.wanted)} s wanted, {min(fit.obtained)} to "
        f"{max(fit.obtained)} s obtained; farthest off by {100 * gaps[worst]:.1f} %: {fit.obtained[worst]} s for "
        f"{fit.wanted[worst]} s"
    )


def print_lost(book: ClusterBook) -> None:
    """Edits that a refit could not carry over."""
    for lost in book.lost:
        name = f" ({lost['name']})" if lost["name"] else ""
        print(f"not found again: {lost['node']}{name}: {', '.join(lost['edits'])}")


def print_list(descriptions: Sequence[Description]) -> None:
    """Clusters as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("id")
    table.add_column("name")
    for heading in ("seconds", "share", "videos", "picture", "sound", "has sound", "sure"):
        table.add_column(heading, justify="right")
    table.add_column("near")
    for d in descriptions:
        table.add_row(
            d.node,
            escape(d.name) + (" (hidden)" if d.hidden else ""),
            str(d.seconds),
            f"{100 * d.share:.1f} %",
            str(d.videos),
            _number(d.purity_visual),
            _number(d.purity_audio),
            f"{100 * d.has_audio:.0f} %",
            f"{d.confidence:.2f}",
            " ".join(d.neighbours),
        )
    _stdout().print(table)


def print_learned(clusters: Sequence[Mapping[str, Any]]) -> None:
    """The clusters that a checkpoint learned, as a table: `cluster`, `seconds` and `share` of each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("cluster", "seconds", "share"):
        table.add_column(heading, justify="right")
    for cluster in clusters:
        table.add_row(str(cluster["cluster"]), str(cluster["seconds"]), f"{100 * cluster['share']:.1f} %")
    _stdout().print(table)
    print("these clusters were learned by the checkpoint in training; make this archive's own: visxp clusters fit")


def print_description(description: Description, book: ClusterBook, paths: Mapping[str, Sequence[str]]) -> None:
    """One node with its examples."""
    d = description
    out = _stdout()
    lines = {
        "node": f"{d.node} {d.name}".strip() + (" (hidden)" if d.hidden else ""),
        "path": " / ".join(book.title(node) for node in d.path),
        "what": summarise(d, paths) or "-",
        "seconds": f"{d.seconds} ({100 * d.share:.1f} % of the archive) in {d.videos} videos, {d.clusters} clusters",
        "picture": f"purity {_number(d.purity_visual)}",
        "sound": f"purity {_number(d.purity_audio)}; {100 * d.has_audio:.0f} % of the seconds have one",
        "confidence": f"{d.confidence:.2f}",
        "near": ", ".join(book.title(node) for node in d.neighbours) or "none",
    }
    for name, value in lines.items():
        out.print(f"{name:12}{value}", markup=False, highlight=False, soft_wrap=True)
    for name, examples in (("nearest", d.nearest), ("diverse", d.diverse), ("boundary", d.boundary)):
        for example in examples:
            out.print(f"{name:12}{_place(example, paths)}", markup=False, highlight=False, soft_wrap=True)
            name = ""


def print_tree(
    book: ClusterBook,
    sizes: Mapping[int, int],
    about: Callable[[str, int], str],
    *,
    with_hidden: bool = False,
    depth: int | None = None,
) -> None:
    """The tree with sizes, as far down as wanted.

    Args:
        book: the tree and its names.
        sizes: cluster -> seconds.
        about: node, and its seconds -> what is to be said of it, e.g. where it mainly is.
        with_hidden: show hidden nodes too.
        depth: levels to show; None for all.
    """
    total = max(sum(sizes.values()), 1)

    def label(node: str) -> str:
        n_seconds = sum(sizes.get(cluster, 0) for cluster in book.below(node))
        bar = "█" * max(round(BAR_WIDTH * n_seconds / total), 1 if n_seconds else 0)
        name = f" [bold]{escape(book.names[node])}[/bold]" if node in book.names else ""
        hidden = " (hidden)" if node in book.hidden else ""
        words = "" if node == ROOT else f"  {escape(about(node, n_seconds))}"
        return f"{node}{name}{hidden}  {n_seconds} s  [dim]{100 * n_seconds / total:.1f} % {bar}{words}[/dim]"

    def grow(branch: Tree, node: str, level: int) -> None:
        for child in book.tree.get(node, ()):
            if child in book.hidden and not with_hidden:
                continue
            twig = branch.add(label(child), highlight=False)
            if depth is None or level < depth:
                grow(twig, child, level + 1)

    root = Tree(label(ROOT), highlight=False)
    grow(root, ROOT, 1)
    _stdout().print(root)


def tree_to_json(book: ClusterBook, sizes: Mapping[int, int], node: str = ROOT) -> dict[str, Any]:
    """A node and all below it."""
    found: dict[str, Any] = {
        "node": node,
        "name": book.names.get(node, ""),
        "hidden": node in book.hidden,
        "seconds": sum(sizes.get(cluster, 0) for cluster in book.below(node)),
    }
    if node.startswith("b"):
        found["children"] = [tree_to_json(book, sizes, child) for child in book.tree[node]]
    return found


def description_to_json(description: Description, paths: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A description as JSON data, with paths; a purity that is not known is null."""

    def example(found: Example) -> dict[str, Any]:
        path = paths.get(found.video_id, ("",))[0]
        return {"video_id": found.video_id, "path": path, "second": found.second, "score": found.score}

    data = {**vars(description), "words": summarise(description, paths)}
    data["main_videos"] = [
        {"video_id": video, "path": paths.get(video, ("",))[0], "share": share}
        for video, share in description.main_videos
    ]
    for key in ("nearest", "diverse", "boundary"):
        data[key] = [example(found) for found in data[key]]
    for key in ("purity_visual", "purity_audio"):
        data[key] = None if np.isnan(data[key]) else data[key]
    return data


def descriptions_to_csv(descriptions: Sequence[Description], paths: Mapping[str, Sequence[str]]) -> str:
    """A row a cluster; examples as `path@second`, separated by spaces."""
    rows = []
    for description in descriptions:
        row = description_to_json(description, paths)
        for key in ("nearest", "diverse", "boundary"):
            row[key] = " ".join(f"{found['path']}@{found['second']}" for found in row[key])
        row["main_videos"] = " ".join(found["path"] for found in row["main_videos"])
        rows.append({**row, "path": " ".join(row["path"]), "neighbours": " ".join(row["neighbours"])})
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]) if rows else ["node"])
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _place(example: Example, paths: Mapping[str, Sequence[str]]) -> str:
    path = paths.get(example.video_id, (example.video_id,))[0]
    return f"{format_time(example.second):>8}  {example.score:5.2f}  {Path(path).name}"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"


def _stdout() -> Console:
    """Tables keep their full width when piped."""
    return Console() if sys.stdout.isatty() else Console(width=200, no_color=True)
