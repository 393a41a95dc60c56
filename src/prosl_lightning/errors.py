"""Errors a user can act on: each says what was found, what was expected and what to do."""

from __future__ import annotations


class ProSLError(Exception):
    """Base of all errors this library raises on purpose; the command line prints its text and exits with 1."""


class DataError(ProSLError, ValueError):
    """A file, an archive or a checkpoint does not hold what it should."""


class UsageError(ProSLError, ValueError):
    """An option or argument does not fit; the command line exits with 2."""


class MissingExtraError(ProSLError, ImportError):
    """An optional package is not installed; the text is the line that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'prosl-lightning[{extra}]'")
