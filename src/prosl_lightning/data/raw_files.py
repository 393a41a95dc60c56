"""Reads files and members of zip files whole, with one error for everything that can be wrong with them."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath

from prosl_lightning.errors import DataError

MAX_BYTES = 50_000_000  # many times the longest recording's text
_SPECIAL = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
_BROKEN_ZIP = (OSError, ValueError, EOFError, MemoryError, KeyError, RuntimeError, zlib.error, zipfile.BadZipFile)


def check_file(path: str | Path) -> int:
    """Size of a file; opening what is none, e.g. a named pipe, might wait for ever.

    Raises:
        DataError: It is not a file, or not there.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: {special_kind(found.st_mode)}, not a file that can be read")
    return found.st_size


def special_kind(mode: int) -> str:
    """What something is that is no file."""
    return _SPECIAL.get(stat.S_IFMT(mode), "a device")


def read_file(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """Content of a file.

    Raises:
        DataError: It is not a file, cannot be read, or has more bytes than the limit.
    """
    if check_file(path) > limit:
        raise DataError(f"{path}: more than {limit // 10**6} MB, which no recording has")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_text(path: str | Path) -> str:
    """Content of a text file in UTF-8, with or without a byte order mark.

    Raises:
        DataError: As :func:`read_file`, or it is no such text.
    """
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


@contextmanager
def opened_zip(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """An open zip or npz file; what is found to be wrong with it or its members while it is open becomes one error.

    Raises:
        DataError: It is damaged, encrypted or cut off.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    except _BROKEN_ZIP as error:
        wanted = "a whole zip file" if Path(path).suffix == ".zip" else "readable"
        raise DataError(f"{path}: damaged or not {wanted} ({error}); download or copy it again") from error


def member_names(path: str | Path, suffixes: tuple[str, ...] = ("",)) -> list[str]:
    """Names of the members that end in one of the suffixes; folders, and what macOS adds, are left out.

    Raises:
        DataError: The file is not a whole zip file.
    """
    with opened_zip(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(suffixes) and not name.endswith("/")]
    return [name for name in names if not PurePosixPath(name).name.startswith("._")]


def read_member(path: str, name: str) -> bytes:
    """Content of one member; the zip file stays open in this process.

    Raises:
        DataError: The member is damaged, encrypted, or too large to be a recording.
    """
    try:
        with _opened(path, os.getpid()).open(name) as member:
            content = member.read(MAX_BYTES + 1)
    except _BROKEN_ZIP as error:
        raise DataError(f"damaged in the zip file ({error})") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"more than {MAX_BYTES // 10**6} MB, which no recording has")
    return content


@lru_cache(maxsize=4)
def _opened(path: str, process: int) -> zipfile.ZipFile:
    # one for each process: forked ones would share, and move, the position in the file
    return zipfile.ZipFile(path)
