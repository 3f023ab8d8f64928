"""The table that every command prints: values, ratios of them, geometric means of the ratios."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from rich.table import Table


@dataclasses.dataclass(slots=True)
class Report:
    """Values by row and column; a value that is missing is shown as a dash and counts nowhere.

    ``ratios`` are pairs of columns, the one divided by the other.
    """

    columns: Sequence[str]
    ratios: Sequence[tuple[str, str]]
    unit: str = "seconds"
    digits: int = 3
    note: str = "ratios: how many times as long, below 1 is faster"
    rows: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def quotients(self, above: str, below: str) -> dict[str, float]:
        """A ratio in every row that has both values, neither of them too short to be measured."""
        return {
            name: row[above] / row[below]
            for name, row in self.rows.items()
            if row.get(above) and row.get(below)
        }

    def table(self) -> Table:
        """For the terminal."""
        table = Table()
        table.add_column(self.unit, no_wrap=True)
        for name in self.columns:
            table.add_column(heading(name), justify="right")
        for above, below in self.ratios:
            table.add_column(f"{heading(above)}\n/ {below}", justify="right")
        quotients = [self.quotients(*pair) for pair in self.ratios]
        for name, row in self.rows.items():
            cells = [format_value(row.get(column), self.digits) for column in self.columns]
            cells += [format_value(each.get(name), 2) for each in quotients]
            table.add_row(name, *cells)
        if quotients and len(self.rows) > 1:
            means = [format_value(geometric_mean(each.values()), 2) for each in quotients]
            table.add_section()
            table.add_row("geometric mean", *([""] * len(self.columns)), *means)
        return table

    def record(self) -> dict[str, object]:
        """For programs: values, and means by ``above / below``."""
        means = {
            f"{above} / {below}": geometric_mean(self.quotients(above, below).values())
            for above, below in self.ratios
        }
        return {"unit": self.unit, "rows": self.rows, "means": means}


def geometric_mean(values: Iterable[float]) -> float | None:
    """The mean for ratios; None of nothing."""
    logarithms = [math.log(value) for value in values]
    return math.exp(math.fsum(logarithms) / len(logarithms)) if logarithms else None


def heading(name: str) -> str:
    """A column's name on two lines: many narrow columns fit."""
    return name.replace(" ", "\n", 1)


def format_value(value: float | None, digits: int) -> str:
    """A number, or a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"
