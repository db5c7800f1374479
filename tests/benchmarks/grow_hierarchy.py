"""How the hyperbolic hierarchy grows and how good its trees are, beside average and Ward linkage: run by hand.

    PYTHONPATH=. python tests/benchmarks/grow_hierarchy.py 100 300 1000 3000

A line for each number of leaves: wall and CPU time, Dasgupta's cost relative to average linkage, and the dendrogram
purity of the three planted levels, lowest first, of each method.
"""

import sys
import time

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage

from tests.test_hierarchy import average_linkage, plant_tree
from visxp_search.hierarchy import cluster_hierarchy, dasgupta_cost, dendrogram_purity


def measure(n_leaves: int) -> None:
    """Print the lines of one size."""
    points, levels = plant_tree(n_leaves, noise=0.8)
    started = time.perf_counter(), time.process_time()
    merges, _ = cluster_hierarchy(torch.from_numpy(points))
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    similarities = (points.astype(np.float64) @ points.T + 1) / 2
    usual = average_linkage(points)
    ward = linkage(points.astype(np.float64), "ward")[:, :2].astype(np.int64)
    cost = dasgupta_cost(usual, similarities)
    for name, tree in (("hyperbolic", merges), ("average", usual), ("ward", ward)):
        purity = " ".join(f"{dendrogram_purity(tree, labels):.3f}" for labels in levels)
        took = f"wall {wall:.1f} s, cpu {cpu:.1f} s" if name == "hyperbolic" else ""
        print(f"{n_leaves:5} {name:10}  cost {dasgupta_cost(tree, similarities) / cost:.4f}  purity {purity}  {took}")


if __name__ == "__main__":
    for number in sys.argv[1:] or ["100", "300", "1000", "3000"]:
        measure(int(number))
