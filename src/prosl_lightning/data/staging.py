"""Folders that are written under a temporary name and get their own only when they are complete."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import uuid
from pathlib import Path
from typing import BinaryIO


def temporary_name(root: Path) -> Path:
    """A new name beside ``root`` that tells which process of which machine writes there."""
    return root.with_name(f"{_prefix(root)}{os.getpid()}-{uuid.uuid4().hex[:8]}")


def remove_leftovers(root: Path) -> None:
    """Remove what killed processes of this machine left beside ``root``."""
    for folder in root.parent.glob(f"{glob.escape(_prefix(root))}*"):
        process = folder.name.removeprefix(_prefix(root)).split("-")[0]
        if process.isdecimal() and not _is_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def publish(partial: Path, root: Path) -> None:
    """Rename a complete folder to ``root``; what stands there is replaced.

    Raises:
        OSError: It cannot be renamed; what stood there stands there again.
    """
    old = partial.with_name(f"{partial.name}.old")
    replaced = root.exists()
    if replaced:
        os.rename(root, old)
    try:
        os.rename(partial, root)
    except OSError:
        if replaced:
            os.rename(old, root)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(root.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        sync_and_close(file)


def sync_and_close(file: BinaryIO) -> None:
    """Close a file after all of it has reached the disk."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _prefix(root: Path) -> str:
    return f".{root.name}.partial-{socket.gethostname()}-"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
