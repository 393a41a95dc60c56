"""Formats are told apart and named; what is none of them gets an error that says what was looked for and found."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest

from prosl_lightning.data.formats import FORMATS, open_source
from prosl_lightning.errors import DataError, UsageError

GENERATED = ["ragged-npz", "agcn", "stgcn", "frame50", "ctrgcn-npz", "sgn-pkl", "sgn-pkl-denoised", "pyskl", "pyskl-2d",
             "nw-ucla-json", "npy", "files"]  # fmt: skip


@pytest.mark.parametrize("name", GENERATED)
def test_formats_are_found_named_and_ordered_by_name(make, tmp_path, name):
    made = make(name, tmp_path)
    source = open_source(made.path, layout=made.layout)
    assert name.startswith(source.format)
    assert source.notes[0] == f"format {source.format}: {FORMATS[source.format]}"
    names = [s.name for s in source]
    assert len(names) == len(source) > 0
    assert names == sorted(names) or name in ("ragged-npz", "ctrgcn-npz")  # in the file's own order
    forced = open_source(made.path, layout=made.layout, format=source.format)
    assert [s.name for s in forced] == names


def test_an_unknown_folder_says_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(b"")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "deep.npz").write_bytes(b"")
    with pytest.raises(DataError) as error:
        open_source(tmp_path)
    assert "holds no skeletons in a known format; found 2 .mp4, 1 .npz" in str(error.value)
    assert "looked for: ragged-npz (one npz file with joints and lengths); agcn ({train,val}_data_joint" in str(
        error.value
    )
    assert str(error.value).endswith("or give one of its files: deep.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found no files"):
        open_source(tmp_path / "empty")


def test_single_files_that_are_none(tmp_path, tiny_archive):
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps((["a"], [0])))
    for suffix in ("h5", "mp4", "csv"):
        (tmp_path / f"x.{suffix}").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("film.mp4", b"")
    expected = {
        tmp_path / "x.npz": "holds a; expected joints and lengths, or x_train and x_test",
        tmp_path / "x.pkl": "this is a label file: give the folder it lies in",
        tmp_path / "x.h5": r"HDF5 \(SGN's format\) is not read; give raw_denoised_joints.pkl, from which SGN made it",
        tmp_path / "x.mp4": "'.mp4' files are not known\nlooked for",
        tmp_path / "x.csv": "'.csv' files are not known; give the folder it lies in",
        tmp_path / "x.zip": "holds no skeletons in a known format; found 1 .mp4",
        tmp_path / "gone": "there is no such file or folder",
        tiny_archive: "this is an archive already",
    }
    for path, message in expected.items():
        with pytest.raises(DataError, match=message):
            open_source(path)
    with pytest.raises(UsageError, match="unknown format 'hico': expected ragged-npz, agcn"):
        open_source(tmp_path / "x.npz", format="hico")
    with pytest.raises(DataError, match="format agcn needs a folder with train_data_joint.npy or val_data_joint.npy"):
        open_source(tmp_path, format="agcn")


def test_raw_sets_are_handed_on(shared_folder):
    assert open_source(shared_folder / "data" / "raw-samples" / "ntu-skeleton").notes[0].startswith("format ntu:")
