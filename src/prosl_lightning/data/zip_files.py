"""Reads members of zip files without unpacking them, with one error for everything that can be wrong with a zip."""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

from prosl_lightning.errors import DataError

MAX_BYTES = 50_000_000  # of one member: many times the longest recording's text
_BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, zlib.error, zipfile.BadZipFile, NotImplementedError)


def member_names(path: str | Path, suffixes: tuple[str, ...]) -> list[str]:
    """Names of the members that end in one of the suffixes, hidden ones left out.

    Raises:
        DataError: The file is not a whole zip file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except _BROKEN as error:
        raise DataError(f"{path}: damaged or not a whole zip file ({error}); download or copy it again") from error
    return [name for name in names if name.endswith(suffixes) and not PurePosixPath(name).name.startswith("._")]


def read_member(path: str, name: str) -> bytes:
    """Content of one member; the zip file stays open in this process.

    Raises:
        DataError: The member is damaged, encrypted, or too large to be a recording.
    """
    try:
        with _opened(path, os.getpid()).open(name) as member:
            content = member.read(MAX_BYTES + 1)
    except _BROKEN as error:
        raise DataError(f"damaged in the zip file ({error})") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"more than {MAX_BYTES // 10**6} MB, which no recording has")
    return content


@lru_cache(maxsize=4)
def _opened(path: str, process: int) -> zipfile.ZipFile:
    # one for each process: forked ones would share, and move, the position in the file
    return zipfile.ZipFile(path)
