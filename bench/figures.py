"""What a measurement found, and how it is shown."""

import dataclasses
import statistics


@dataclasses.dataclass
class Figure:
    """One line of the table: what is ours, what it is compared with, and what it should be."""

    measurement: str
    what: str
    unit: str
    ours: float
    beside: str | None = None
    theirs: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self):
        return self.ours / self.theirs if self.theirs else None

    @property
    def target(self):
        if self.at_most is not None:
            return f"≤ {self.at_most:g} ×"
        return f"≥ {self.at_least:g} ×" if self.at_least is not None else ""

    @property
    def met(self):
        """None where there is no target."""
        if self.ratio is None or not self.target:
            return None
        if self.at_most is not None:
            return self.ratio <= self.at_most
        return self.ratio >= self.at_least

    def as_json(self):
        return dataclasses.asdict(self) | {"ratio": self.ratio, "target": self.target or None, "met": self.met}


HEADINGS = ["measurement", "figure", "ours", "floor or peer", "", "ratio", "target", "met"]


def table(figures):
    rows = [HEADINGS] + [row(figure) for figure in figures]
    widths = [max(len(each[column]) for each in rows) for column in range(len(HEADINGS))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(line(cells, widths) for cells in rows)


def line(cells, widths):
    left = {0, 1, 4}
    padded = [
        cell.ljust(width) if column in left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def row(figure):
    theirs = number(figure.theirs, figure.unit) if figure.theirs is not None else ""
    ratio = f"{figure.ratio:.2f} ×" if figure.ratio is not None else ""
    met = {None: "", True: "yes", False: "no"}[figure.met]
    ours = number(figure.ours, figure.unit)
    return [figure.measurement, figure.what, ours, theirs, figure.beside or "", ratio, figure.target, met]


def number(value, unit):
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def median(samples):
    return statistics.median(samples)


def p99(samples):
    """The nearest rank: of fewer than a hundred samples the largest but one in a hundred, so the largest."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * 99 // 100) - 1)]
