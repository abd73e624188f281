"""One measured figure beside its target, and a table of them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`value` and `target` in the same unit; `at_least`: the target is a minimum, else a maximum.

    Without a target (None) the figure is for comparison over time only.
    """

    name: str
    value: float
    target: float | None
    at_least: bool
    detail: str

    @property
    def met(self) -> bool:
        """Whether the target is reached, if there is one."""
        if self.target is None:
            return True
        return self.value >= self.target if self.at_least else self.value <= self.target

    def cells(self) -> tuple[str, ...]:
        """What the table shows."""
        if self.target is None:
            return self.name, f"{self.value:,.2f}", "", "", self.detail
        sign = ">=" if self.at_least else "<="
        verdict = "yes" if self.met else "NO"
        return self.name, f"{self.value:,.2f}", f"{sign} {self.target:.2f}", verdict, self.detail


def rendered(figures: Sequence[Figure]) -> str:
    """The figures as lines of text."""
    rows = [("what", "measured", "target", "met", "made of"), *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]])
