"""What an index of so many seconds needs, embedded and served; plain arithmetic on measured numbers.

A second has one vector for each name, of float32 and, to be compared first, of int8. A server builds HNSW graphs, and
keeps in memory what is int8; the embedded engine scans, and maps everything when it is opened.

References:
    [qdrant-capacity] Qdrant, "Capacity planning", qdrant.tech/documentation/capacity-planning: memory is the bytes of
        the vectors times 1.5, which covers metadata and the segments that optimising makes meanwhile.
    [malkov2016] Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
        Navigable Small World graphs", 2016, arXiv:1603.09320: the lowest layer has 2 M links a point.
"""

from collections.abc import Mapping
from dataclasses import dataclass

FLOAT_BYTES, INT8_BYTES = 4, 1
HNSW_LINKS = 16
"""M, Qdrant's default; a link is 4 bytes, and the upper layers add a tenth [malkov2016]."""
PAYLOAD_BYTES = 400
"""Payload, its indexes and ids of a second on the disk; measured in embedded indexes: 337 of 1,000,000 seconds, 484 of
60,000, which are in two segments and bear the fixed parts."""
MAPPED_BYTES = 900
"""What is resident of a second besides its vectors when an embedded index is open; measured: 870 of 1,000,000 seconds,
whose 640 numbers make it 3.4 GB."""
RESIDENT_BYTES = 410
"""Ids and payload indexes of a second in memory that cannot be given back; measured in an embedded index of 60,000."""
SERVER_MARGIN = 1.5
"""Of the vectors in a server's memory [qdrant-capacity]."""
LARGEST_EMBEDDED = 2_000_000
"""Seconds up to which the embedded index is meant: one process has it open, and each query reads an int8 copy of all
vectors that it compares (about 20 ms of a core for a million of 256 numbers)."""
MEMORY_SHARE = 0.5
"""Of this machine's memory an embedded index may need so much."""


@dataclass(frozen=True)
class Needs:
    """What one kind of index needs.

    Attributes:
        disk_bytes: all of it.
        memory_bytes: to answer at once.
    """

    disk_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class CapacityPlan:
    """What an archive needs.

    Attributes:
        hours: of media.
        points: seconds, and so points.
        embedded: as an embedded index.
        served: on a Qdrant server, all shards together, one replica.
        days: of indexing on this machine; None if the rate was not measured.
        advice: which of the two, and why.
    """

    hours: float
    points: int
    embedded: Needs
    served: Needs
    days: float | None
    advice: str


def plan_capacity(
    hours: float, dims: Mapping[str, int], *, wall_per_second: float | None, memory_bytes: int, disk_free: int
) -> CapacityPlan:
    """Say what so many hours of media need.

    Args:
        hours: > 0.
        dims: vector name -> length.
        wall_per_second: measured wall time to index a second of media on this machine; None if it was not measured.
        memory_bytes: of this machine.
        disk_free: bytes free where the index lies.

    Raises:
        ValueError: If hours is not positive.
    """
    if not hours > 0:
        raise ValueError(f"{hours} hours cannot be planned for; expected more than 0")
    points = round(hours * 3600)
    numbers = sum(dims.values())
    links = len(dims) * round(2 * HNSW_LINKS * FLOAT_BYTES * 1.1)
    stored = numbers * (FLOAT_BYTES + INT8_BYTES)
    in_memory = round(SERVER_MARGIN * INT8_BYTES * numbers)
    embedded = Needs(points * (stored + PAYLOAD_BYTES), points * (stored + MAPPED_BYTES))
    served = Needs(points * (stored + PAYLOAD_BYTES + links), points * (in_memory + RESIDENT_BYTES))
    return CapacityPlan(
        hours=hours,
        points=points,
        embedded=embedded,
        served=served,
        days=None if wall_per_second is None else points * wall_per_second / 86_400,
        advice=_advise(points, embedded, memory_bytes=memory_bytes, disk_free=disk_free),
    )


def _advise(points: int, embedded: Needs, *, memory_bytes: int, disk_free: int) -> str:
    reasons = []
    if points > LARGEST_EMBEDDED:
        reasons.append(f"more than {LARGEST_EMBEDDED:,} seconds, which one process would compare one by one")
    if embedded.memory_bytes > MEMORY_SHARE * memory_bytes:
        reasons.append("it would need more than half of this machine's memory")
    if embedded.disk_bytes > disk_free:
        reasons.append("it does not fit on this disk")
    if reasons:
        return f"serve it from Qdrant (--index http://host:6333): {'; '.join(reasons)}"
    return "an embedded index will do, unless several processes or machines are to use it at once"
