"""Follows the counts of a raw text line by line, and says where and why it is wrong."""

from __future__ import annotations

from prosl_lightning.errors import DataError
from prosl_lightning.tables import counted


class LineReader:
    """Reads whole numbers and rows of numbers off a text; every error names the line.

    Attributes:
        where: Which part of the text is being read, for messages; may be empty.
        number: Number of the line read last, from 1.

    Raises:
        DataError: The text is empty.
    """

    def __init__(self, content: bytes, source: str, where: str = "") -> None:
        self.where = where
        self._source, self._content = source, content.rstrip()
        self.number, self._place = 0, 0  # where the next line begins: a list of all lines may be many times the text
        if not self._content:
            raise DataError(f"{source}: empty file")

    @property
    def ended(self) -> bool:
        """Whether the last line was read."""
        return self._place >= len(self._content)

    def line(self) -> str:
        """The next line."""
        if self.ended:
            where = f", {self.where}" if self.where else ""
            raise DataError(f"{self._source}: truncated: ends after line {self.number}{where}")
        start, end = self._place, self._content.find(b"\n", self._place)
        self._place = len(self._content) if end < 0 else end + 1
        self.number += 1
        return self._content[start : self._place].decode("ascii", errors="replace").rstrip("\n")

    def row(self, columns: int, what: str) -> list[float]:
        """The numbers of the next line, which must be so many; NaN and infinity are among them."""
        tokens = self.line().split(None, 10 * columns)
        if len(tokens) < columns and self.ended:
            raise self.error("truncated: the file ends within this line")
        if len(tokens) != columns:
            raise self.error(f"{counted(len(tokens), 'column')}, expected the {columns} numbers {what}")
        return [self._float(token) for token in tokens]

    def count(self, what: str, most: int, least: int = 0) -> int:
        """The whole number that the next line is."""
        text = self.line().strip()
        try:
            count = int(text.replace("_", "?"))
        except ValueError:
            raise self.error(f"'{text[:40]}', expected {what}") from None
        if not least <= count <= most:
            raise self.error(f"{text[:40]} cannot be {what}")
        return count

    def error(self, problem: str) -> DataError:
        """The error for something that is wrong in the line read last."""
        where = f" ({self.where})" if self.where else ""
        return DataError(f"{self._source}: line {self.number}{where}: {problem}")

    def _float(self, token: str) -> float:
        try:
            return float(token.replace("_", "?"))
        except ValueError:
            raise self.error(f"'{token[:40]}' is not a number") from None
