"""The tree of clusters on the Poincaré disk: every child the same hyperbolic way from its parent, in a cone of its own.

A tree fits into the hyperbolic plane with little distortion, since the room in it grows as fast as the tree does.

References:
    [sarkar2011] Low distortion Delaunay embedding of trees in hyperbolic plane, 2011.
    [lamping1995] A focus+context technique based on hyperbolic geometry for visualizing large hierarchies, 1995.
"""

import cmath
import math
from collections.abc import Mapping, Sequence

STEP = 1.25
"""Hyperbolic length of an edge near the root; deeper ones are the same."""
LEAST_SHARE = 0.35
"""A child's cone is as wide as its weight demands, but at least this share of an even division."""


def lay_out(
    tree: Mapping[str, Sequence[str]], root: str, weights: Mapping[str, float], *, step: float = STEP
) -> dict[str, complex]:
    """Node -> place in the open unit disk; the root lies at its centre.

    At each node the disk is moved so that the node is the centre; its children lie on a circle around it, away from its
    parent, in the order of the tree.

    Args:
        tree: branch -> children.
        root: the branch to begin with.
        weights: node -> size; cones of children are as wide as the roots of their sizes.
        step: hyperbolic length of an edge.
    """
    places = {root: 0j}
    radius = math.tanh(step / 2)
    waiting: list[tuple[str, float, float]] = [(root, 0.0, 2 * math.pi)]
    while waiting:
        node, middle, width = waiting.pop()
        children = tree.get(node, ())
        angle = middle - width / 2
        for child, share in zip(children, _shares([weights.get(child, 0.0) for child in children]), strict=True):
            direction = angle + share * width / 2
            angle += share * width
            places[child] = move(radius * cmath.exp(1j * direction), by=places[node])
            # Seen from the child, its parent lies in one direction and its own cone is the other way.
            back = move(places[node], by=-places[child])
            waiting.append((child, cmath.phase(-back), min(max(share * width * 1.6, 0.75 * math.pi), 1.1 * math.pi)))
    return places


def move(point: complex, *, by: complex) -> complex:
    """The point after the disk was moved so that its centre lies at `by`; distances stay as they are."""
    return (point + by) / (1 + by.conjugate() * point)


def distance(one: complex, other: complex) -> float:
    """Hyperbolic distance of two places in the disk."""
    return 2 * math.atanh(min(abs(move(one, by=-other)), 1 - 1e-15))


def _shares(weights: Sequence[float]) -> list[float]:
    """Shares of the cone that sum to 1, for sizes."""
    if not weights:
        return []
    roots = [math.sqrt(max(weight, 0.0)) for weight in weights]
    total = sum(roots) or 1.0
    widths = [max(root / total, LEAST_SHARE / len(weights)) for root in roots]
    return [width / sum(widths) for width in widths]
