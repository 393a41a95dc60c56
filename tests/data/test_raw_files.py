"""Files and zip members read whole: one error for whatever is wrong, and nothing that is no file is opened."""

from __future__ import annotations

import os
import zipfile

import pytest

from prosl_lightning.data.raw_files import member_names, opened_zip, read_file, read_text
from prosl_lightning.errors import DataError


def test_text_with_and_without_a_byte_order_mark(tmp_path):
    for content in (b"a\xc3\xa4", b"\xef\xbb\xbfa\xc3\xa4"):
        (tmp_path / "x").write_bytes(content)
        assert (read_text(tmp_path / "x"), read_file(tmp_path / "x", len(content))) == ("aä", content)
    with pytest.raises(DataError, match="x: more than 0 MB"):
        read_file(tmp_path / "x", 5)
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"x: cannot be read \('utf-8'"):
        read_text(tmp_path / "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("read", [read_file, read_text, member_names, lambda path: opened_zip(path).__enter__()])
def test_what_is_no_file(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path, what in (
        (tmp_path / "pipe", "a named pipe, not a file that can be read"),
        (tmp_path, "a folder, not a file that can be read"),
        (os.devnull, "a device, not a file that can be read"),
        (tmp_path / "gone", r"cannot be read \(No such file or directory\)"),
    ):
        with pytest.raises(DataError, match=f"^{path}: {what}$"):
            read(path)


def test_names_in_a_zip_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("a/", "a/b.txt", "c.skeleton", "__MACOSX/._c.skeleton", "d//e.skeleton"):
            archive.writestr(name, b"")
    assert member_names(tmp_path / "x.zip", (".skeleton",)) == ["c.skeleton", "d//e.skeleton"]
    assert member_names(tmp_path / "x.zip") == ["a/b.txt", "c.skeleton", "d//e.skeleton"]


def test_errors_while_a_zip_file_is_open_become_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a", b"")
    told = r"x.npz: damaged or not readable \(.*gone.*\); download or copy it again"
    with pytest.raises(DataError, match=told), opened_zip(tmp_path / "x.npz") as archive:
        archive.open("gone")
    with pytest.raises(DataError, match="^ours$"), opened_zip(tmp_path / "x.npz"):
        raise DataError("ours")
