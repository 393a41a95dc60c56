"""What a user calls files, columns and classes: suffixes, keys, text labels, words the archive keeps for itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.formats import open_source
from prosl_lightning.data.formats.ragged import RaggedFile
from prosl_lightning.data.prepare import arrays
from prosl_lightning.errors import DataError, UsageError

JOINTS = np.random.default_rng(0).normal(size=(60, 1, 25, 3)).astype(np.float32)
THREE = np.array([0, 1, 2])


def _npz(path: Path, **more: Any) -> str:
    np.savez(path, joints=JOINTS, lengths=np.array([20, 20, 20]), **more)
    return str(path)


def _folder(root: Path, table: str, *names: str) -> str:
    root.mkdir()
    for row, name in enumerate(names):
        np.savetxt(root / name, JOINTS[20 * row : 20 * row + 20].reshape(20, 75), delimiter=",")
    (root / "index.csv").write_text(table)
    return str(root)


def test_classes_given_in_a_file_are_matched_with_text_labels_by_name(tmp_path):
    table = "name,label\nanna_01,wave\nanna_02,bow\nanna_03,\n"
    folder = _folder(tmp_path / "r", table, "anna_01.csv", "anna_02.csv", "anna_03.csv")
    (tmp_path / "classes.txt").write_text("walk\nwave\nbow\n")
    arrays(folder, out=str(tmp_path / "o"), layout="kinect-v2", class_names=str(tmp_path / "classes.txt"), jobs=2)
    archive = Archive.open(tmp_path / "o")
    assert archive.class_names == ("walk", "wave", "bow")
    assert archive.labels.tolist() == [1, 2, -1]
    (tmp_path / "classes.txt").write_text("wave\nBow\n")
    with pytest.raises(DataError, match=r"classes.txt: lacks bow, of which the set has sequences"):
        arrays(folder, out=str(tmp_path / "p"), layout="kinect-v2", class_names=str(tmp_path / "classes.txt"))


def test_classes_given_in_a_file_name_numbers_in_their_order(tmp_path):
    (tmp_path / "classes.txt").write_text("wave\nbow\n")
    folder = _folder(tmp_path / "r", "name,label\na,1\nb,0\n", "a.csv", "b.csv")
    arrays(folder, out=str(tmp_path / "o"), layout="kinect-v2", class_names=str(tmp_path / "classes.txt"))
    archive = Archive.open(tmp_path / "o")
    assert [archive.class_names[label] for label in archive.labels] == ["bow", "wave"]


def test_suffixes_in_capital_letters(tmp_path):
    folder = _folder(tmp_path / "r", "name,label\nA.CSV,0\nb.TXT,1\nc.npy,2\n", "A.CSV", "b.TXT")
    np.save(tmp_path / "c.npy", JOINTS[:20, 0])
    (tmp_path / "c.npy").rename(tmp_path / "r" / "c.NPY")
    (tmp_path / "r" / "index.csv").rename(tmp_path / "r" / "INDEX.CSV")
    source = open_source(folder, layout="kinect-v2")
    assert source.bad == []
    assert [(s.name, s.label, s.error) for s in source] == [("A", 0, ""), ("b", 1, ""), ("c", 2, "")]


def test_what_text_stands_for_is_kept(tmp_path):
    table = "name,room,subject\na,kitchen,1\nb,office,2\n"
    folder = _folder(tmp_path / "r", table, "a.csv", "b.csv")
    arrays(folder, out=str(tmp_path / "o"), layout="kinect-v2")
    archive = Archive.open(tmp_path / "o")
    archive.verify()
    assert archive.columns["room"].tolist() == [0, 1]
    assert archive.meta["recipe"]["column_names"] == {"room": ["kitchen", "office"]}


def test_common_keys_in_the_singular(tmp_path):
    file = RaggedFile(_npz(tmp_path / "x.npz", label=THREE, name=np.array(["a", "b", "c"]), subject=THREE + 5))
    assert file.labels.tolist() == [0, 1, 2]
    assert file.names == ["a", "b", "c"]
    assert {column: values.tolist() for column, values in file.columns.items()} == {"subject": [5, 6, 7]}
    with pytest.raises(
        DataError, match=r"x.npz: label are float64 \(3,\)|labels are float64 \(3,\), expected integers"
    ):
        RaggedFile(_npz(tmp_path / "x.npz", label=np.ones(3)))


@pytest.mark.parametrize("keys", [("subject", "subjects"), ("label", "labels"), ("name", "names"), ("view", "views")])
def test_the_same_column_twice(tmp_path, keys):
    with pytest.raises(DataError, match=f"x.npz: has {keys[0]} and {keys[1]}, which are one column; keep one of them"):
        RaggedFile(_npz(tmp_path / "x.npz", **dict.fromkeys(keys, THREE)))


def test_sequences_of_one_name_are_told(tmp_path, capsys):
    arrays(_npz(tmp_path / "x.npz", names=np.array(["a", "b", "a"])), out=str(tmp_path / "o"), layout="kinect-v2")
    assert "warning: 1 name stands for several sequences: a" in capsys.readouterr().out
    assert len(Archive.open(tmp_path / "o")) == 3


@pytest.mark.parametrize("column", ["self", "joints", "writer"])
def test_columns_of_any_name(tmp_path, column):
    """The words of the writer's own code are free."""
    folder = _folder(tmp_path / "r", f"name,{column}\na,0\nb,1\nc,2\n", "a.csv", "b.csv", "c.csv")
    arrays(folder, out=str(tmp_path / "o"), layout="kinect-v2")
    assert Archive.open(tmp_path / "o").columns[column].tolist() == [0, 1, 2]


def test_columns_that_every_archive_has(tmp_path):
    with pytest.raises(UsageError, match="'length' is a column of every archive; give that of the files another name"):
        arrays(_npz(tmp_path / "x.npz", length=THREE), out=str(tmp_path / "o"), layout="kinect-v2")
    folder = _folder(tmp_path / "r", "file,name,label\na,b,0\n", "a.csv")
    with pytest.raises(DataError, match="has columns name and file; keep one of them"):
        arrays(folder, out=str(tmp_path / "o"), layout="kinect-v2")
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(make, tmp_path):
    folder = _folder(tmp_path / "r", "name\na\nb\n", "a.csv")
    os.mkfifo(tmp_path / "r" / "b.csv")
    errors = [s.error for s in open_source(folder, layout="kinect-v2")]
    assert errors == ["", "a named pipe, not a file that can be read"]
    with pytest.raises(DataError, match=r"b.csv: neither a file nor a folder but a named pipe"):
        open_source(tmp_path / "r" / "b.csv")
    ucla = make("nw-ucla-json", tmp_path).path
    os.mkfifo(ucla / "a01_s01_e00_v02.json")
    assert [s.error for s in open_source(ucla)].count("a named pipe, not a file that can be read") == 1


def test_the_folder_one_stands_in_tells_the_protocol(make, tmp_path, monkeypatch):
    monkeypatch.chdir(make("agcn", tmp_path).path)
    arrays(".", out=str(tmp_path / "o"))
    archive = Archive.open(tmp_path / "o")
    assert "x-sub" in archive.protocols
    assert "given" not in archive.protocols
    assert archive.meta["source"] == "xsub"
