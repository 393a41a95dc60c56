"""Plain text tables for the screen."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Plain text table; columns of numbers are right-aligned, floats get one decimal.

    Example:
        >>> print(table(["encoder", "accuracy"], [["trained", 81.25]]))
        encoder  accuracy
        -------  --------
        trained      81.2
    """
    cells = [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    numeric = [all(isinstance(row[i], int | float) for row in rows) and bool(rows) for i in range(len(header))]

    def line(values: Sequence[str]) -> str:
        parts = [v.rjust(w) if n else v.ljust(w) for v, w, n in zip(values, widths, numeric, strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, cells)])


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what it counts.

    Example:
        >>> counted(1, "body", "bodies"), counted(2, "body", "bodies"), counted(0, "class", "classes")
        ('1 body', '2 bodies', '0 classes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
