"""What people see of `visxp doctor`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from visxp_search.capacity import CapacityPlan
from visxp_search.clips import format_bytes, format_span
from visxp_search.doctor import GOOD, Check

if TYPE_CHECKING:
    from visxp_search.store_admin import Setting


def print_checks(checks: Sequence[Check]) -> None:
    """A line each; what to do about it below."""
    for check in checks:
        mark = "" if check.state == GOOD else f"{check.state}: "
        print(f"{check.name:12}{mark}{check.found}")
        if check.advice:
            print(f"{'':12}-> {check.advice}")


def print_settings(settings: Sequence["Setting"]) -> None:
    """What an index on a server has beside what its size needs; what to do about it below."""
    rows = [("server", "wanted", "found"), *((setting.name, setting.wanted, setting.found) for setting in settings)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print()
    for row, advice in zip(rows, ["", *(setting.advice for setting in settings)], strict=True):
        print(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}")
        if advice:
            print(f"{'':{widths[0]}}  -> {advice}")


def print_capacity(plan: CapacityPlan, *, is_measured_on: str) -> None:
    """What an archive needs, embedded and served."""
    print(f"\n{plan.hours:,.0f} hours of media are {plan.points:,} seconds, and so points")
    for name, needs in (("embedded", plan.embedded), ("served", plan.served)):
        print(f"{name:12}{format_bytes(needs.disk_bytes)} of disk, {format_bytes(needs.memory_bytes)} of memory")
    if plan.days is None:
        print("indexing    not measured, as none of the sample could be read")
    else:
        print(f"indexing    {format_span(plan.days * 86_400)} on this machine, measured on {is_measured_on}")
    print(f"advice      {plan.advice}")
