"""The ragged npz format: real sets with their official splits, and every way such a file can be wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.formats.known_sets import column_name, known_sets, parse_protocol
from prosl_lightning.data.formats.ragged import RaggedFile
from prosl_lightning.data.normalize import normalize_agcn
from prosl_lightning.data.prepare import arrays
from prosl_lightning.data.protocols import check_rule, split_rows
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout


def _content(bodies: int = 1, joints: int = 20) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    lengths = np.array([5, 1, 7, 4], np.int32)
    return {
        "joints": draw.normal(size=(lengths.sum(), bodies, joints, 3)).astype(np.float32),
        "lengths": lengths,
        "labels": np.array([0, 1, 2, 0], np.int32),
        "subjects": np.array([1, 1, 2, 3], np.int32),
        "views": np.array([3, 3, 1, 2], np.int32),
        "names": np.array(["a", "b", "c", "d"]),
        "weights": np.ones(4, np.float32),
    }


def _save(path: Path, **changes) -> str:
    content = _content() | changes
    np.savez_compressed(path, **{key: array for key, array in content.items() if array is not None})
    return str(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_sequences_are_streamed_in_order(tmp_path, save):
    content = _content(bodies=2)
    save(tmp_path / "x.npz", **content)
    file = RaggedFile(tmp_path / "x.npz")
    assert (len(file), file.num_bodies, file.num_joints) == (4, 2, 20)
    for _ in range(2):  # can be read more than once
        np.testing.assert_array_equal(np.concatenate(list(file)), content["joints"])
    assert [len(bodies) for bodies in file] == [5, 1, 7, 4]
    assert {column: values.tolist() for column, values in file.columns.items()} == {
        "subject": [1, 1, 2, 3],
        "view": [3, 3, 1, 2],
    }
    assert file.ignored == ["weights"]


def test_archive_of_a_file_of_ones_own(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("stand\nwalk\n\nsit\n")
    report = arrays(
        _save(tmp_path / "own.npz"),
        out=str(tmp_path / "own"),
        layout="kinect-v1",
        protocol="x-view:views=1,2 x-sub:subject=1",
        class_names=str(tmp_path / "classes.txt"),
        dtype="float32",
    )
    archive = Archive.open(tmp_path / "own")
    archive.verify()
    assert report.splits == {"x-view": (2, 2), "x-sub": (2, 2), "all": (4, 0)}
    assert archive.class_names == ("stand", "walk", "sit")
    assert archive.split("x-view")[0].tolist() == [2, 3]
    assert archive.names.tolist() == ["a", "b", "c", "d"]
    assert archive.labels.tolist() == [0, 1, 2, 0]
    assert archive.meta["recipe"] == {"importer": "ragged-npz", "normalize": "agcn"}
    expected = normalize_agcn(_content()["joints"][6:13], SkeletonLayout.of("kinect-v1"), 1)
    np.testing.assert_array_equal(archive.clip(2), expected.transpose(0, 3, 2, 1))
    printed = capsys.readouterr().out
    assert "4 sequences, 17 frames" in printed
    assert "x-view        2     2" in printed
    assert "not used, because not integers (N,): weights" in printed


def test_coordinates_can_be_kept_and_bodies_be_added(tmp_path):
    out = str(tmp_path / "raw")
    arrays(_save(tmp_path / "own.npz"), out=out, layout="kinect-v1", normalize="none", num_bodies=2, dtype="float32")
    frames = Archive.open(out).frames
    np.testing.assert_array_equal(frames[..., 0], _content()["joints"][:, 0].transpose(0, 2, 1))
    assert frames.shape[-1] == 2
    assert not frames[..., 1].any()


def test_a_known_set_brings_its_layout_classes_splits_and_normalisation(tmp_path):
    content = _content(joints=22) | {"subjects": np.array([1, 2, 3, 4])}
    np.savez(tmp_path / "ui-prmd.npz", **content)
    arrays(str(tmp_path / "ui-prmd.npz"), out=str(tmp_path / "o"), dtype="float32")
    archive = Archive.open(tmp_path / "o")
    assert archive.layout.name == "ui-prmd"
    assert archive.class_names[0] == "deep squat"
    assert archive.split("x-sub")[0].tolist() == [0, 2]
    assert archive.meta["recipe"] == {"importer": "ragged-npz", "normalize": "upright"}
    expected = normalize_agcn(content["joints"][:5], archive.layout, 1, upright=True)
    np.testing.assert_array_equal(archive.clip(0), expected.transpose(0, 3, 2, 1))


def test_labels_subjects_and_names_may_be_missing(tmp_path):
    arrays(
        _save(tmp_path / "own.npz", labels=None, subjects=None, names=None), out=str(tmp_path / "o"), layout="kinect-v1"
    )
    archive = Archive.open(tmp_path / "o")
    assert archive.labels.tolist() == [-1, -1, -1, -1]
    assert archive.names.tolist() == ["0", "1", "2", "3"]
    assert set(archive.columns) == {"view"}


def test_unusable_sequences_are_passed_over_and_named(tmp_path, capsys):
    joints = _content()["joints"]
    joints[3, 0, 4, 1] = np.nan
    joints[5] = 0
    file = _save(tmp_path / "own.npz", joints=joints)
    report = arrays(file, out=str(tmp_path / "o"), layout="kinect-v1")
    assert report.bad == [
        ("own.npz, sequence 0 (a)", "NaN or infinity in 1 of 5 frames, first in frame 3"),
        ("own.npz, sequence 1 (b)", "nobody in any frame"),
    ]
    assert Archive.open(tmp_path / "o").names.tolist() == ["c", "d"]
    printed = capsys.readouterr().out
    assert "could not be used: 2\n  own.npz, sequence 0 (a): NaN or infinity" in printed
    with pytest.raises(DataError, match=r"own.npz, sequence 0 \(a\): NaN or infinity"):
        arrays(file, out=str(tmp_path / "strict"), layout="kinect-v1", strict=True)
    with pytest.raises(DataError, match=r"nothing usable among 4 sequences; the first: .*sequence 0"):
        arrays(_save(tmp_path / "nan.npz", joints=joints * np.nan), out=str(tmp_path / "nan"), layout="kinect-v1")
    assert not (tmp_path / "strict").exists()
    assert not (tmp_path / "nan").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints": None}, "lacks joints; it has lengths, labels"),
        ({"lengths": None}, "lacks lengths"),
        ({"joints": np.zeros((17, 20, 3), np.float32)}, r"joints are float32 \(17, 20, 3\), expected numbers \(frames"),
        ({"joints": np.zeros((17, 1, 20, 2), np.float32)}, r"expected numbers \(frames, bodies, joints, 3\)"),
        ({"joints": np.zeros((17, 1, 20, 3), "U3")}, "joints are <U3"),
        ({"joints": np.asfortranarray(np.ones((17, 1, 20, 3)))}, "stored in Fortran order"),
        ({"joints": np.zeros((17, 1, 19, 3), np.float32)}, "19 joints, but layout 'kinect-v1' has 20; .*--layout"),
        ({"lengths": np.array([5, 1, 7, 5])}, "lengths add up to 18, but joints hold 17 frames"),
        ({"lengths": np.array([-5, 11, 7, 4])}, "expected counts"),
        ({"lengths": np.array([5.0, 1, 7, 4])}, "lengths are float64"),
        ({"labels": np.zeros(3, int)}, r"labels are int64 \(3,\), expected integers \(4,\)"),
        ({"labels": np.zeros(4)}, r"labels are float64 \(4,\), expected integers"),
        ({"labels": np.array([0, 1, 2, None])}, "labels: holds pickled Python objects, which are never loaded"),
        ({"names": np.array(["a"])}, r"names are <U1 \(1,\), expected strings \(4,\)"),
    ],
)
def test_a_file_that_does_not_fit_is_one_error(tmp_path, changes, message):
    file = _save(tmp_path / "own.npz", **changes)
    with pytest.raises(DataError, match=f"own.npz: .*{message}"):
        arrays(file, out=str(tmp_path / "o"), layout="kinect-v1")
    assert not (tmp_path / "o").exists()


def test_a_file_that_is_no_npz(tmp_path):
    whole = Path(_save(tmp_path / "whole.npz")).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("joints")
    for name in ("cut.npz", "text.npz"):
        with pytest.raises(DataError, match=r"not a \(whole\) npz file"):
            RaggedFile(tmp_path / name)
    with pytest.raises(DataError, match="there is no such file"):
        RaggedFile(tmp_path / "gone.npz")


def test_damaged_joints_are_found_while_streaming(tmp_path):
    np.savez(tmp_path / "own.npz", **_content())
    content = bytearray((tmp_path / "own.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "own.npz") as archive:
        start = archive.getinfo("joints.npy").header_offset
    content[start + 1000] ^= 1
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match="damaged or not readable .*joints.npy"):
        arrays(str(tmp_path / "own.npz"), out=str(tmp_path / "o"), layout="kinect-v1")
    assert not (tmp_path / "o").exists()


def test_options_that_do_not_fit(tmp_path):
    file = _save(tmp_path / "own.npz")
    out = str(tmp_path / "o")
    with pytest.raises(UsageError, match=r"own.npz is not a known data set \(nw-ucla, .*\n--layout NAME"):
        arrays(file, out=out)
    with pytest.raises(UsageError, match="unknown layout 'kinect'"):
        arrays(file, out=out, layout="kinect")
    for text in ("x-sub", "x-sub:subject", "x-sub:subject=", "x-sub:subject=a", ":subject=1", "x-sub=1"):
        with pytest.raises(UsageError, match=r"expected NAME:COLUMN=1,2,3"):
            arrays(file, out=out, layout="kinect-v1", protocol=text)
    with pytest.raises(UsageError, match="splits by column 'camera'; columns are subject, view"):
        arrays(file, out=out, layout="kinect-v1", protocol="x:camera=1")
    with pytest.raises(UsageError, match="normalize is 'hico'"):
        arrays(file, out=out, layout="kinect-v1", normalize="hico")
    with pytest.raises(DataError, match=r"nope.txt: class names cannot be read"):
        arrays(file, out=out, layout="kinect-v1", class_names=str(tmp_path / "nope.txt"))
    assert not (tmp_path / "o").exists()
    assert parse_protocol("x:takes=-1,2") == ("x", {"column": "take", "train": [-1, 2]})


def test_column_names():
    names = ["subjects", "views", "correctness", "children", "folds", "class"]
    assert list(map(column_name, names)) == ["subject", "view", "correctness", "children", "fold", "class"]


def test_known_sets_are_consistent():
    for name, known in known_sets().items():
        layout = SkeletonLayout.of(known.layout)
        assert layout.num_joints >= 15, name
        assert len(set(known.class_names)) == len(known.class_names), name
        for protocol, rule in known.protocols.items():
            assert check_rule(protocol, rule)["column"] == rule["column"]


OFFICIAL = {
    "nw-ucla": {"x-view": (1020, 464)},
    "utd-mhad": {"x-sub": (431, 430)},
    "irds": {"x-sub": (1250, 625)},
    "kinder-gator": {"x-sub": (580, 579), "x-age": (579, 580)},
    "sbu": {
        f"fold-{fold}": sizes for fold, sizes in enumerate([(227, 55), (230, 52), (226, 56), (228, 54), (217, 65)], 1)
    },
    "precog": {"x-sub": (180, 170)},
    "ui-prmd": {"x-sub": (1000, 1000)},
    "florence3d": {},
    "sfinge3d": {},
    "cmu-subset": {},
    "gtu": {},
    "bandai-namco": {},
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_splits_of_the_real_sets(shared_folder, name):
    """Only the index is read: labels fit the class names, the joints fit the layout, splits have their known sizes."""
    file, known = RaggedFile(shared_folder / "data" / name / f"{name}.npz"), known_sets()[name]
    assert file.num_joints == SkeletonLayout.of(known.layout).num_joints
    assert file.labels.max() < len(known.class_names)
    for protocol, rule in known.protocols.items():
        train, test = split_rows(rule, file.columns)
        assert len(train) + len(test) == len(file)
        assert min(len(train), len(test)) > 0
        assert OFFICIAL[name].get(protocol, (len(train), len(test))) == (len(train), len(test))


def test_two_bodies_of_a_real_set(shared_folder, tmp_path):
    report = arrays(str(shared_folder / "data" / "sbu" / "sbu.npz"), out=str(tmp_path / "sbu"))
    archive = Archive.open(tmp_path / "sbu")
    assert (report.num_sequences, report.num_frames, report.bad) == (282, 6822, [])
    assert archive.frames.shape == (6822, 3, 15, 2)
    assert archive.layout.unit == "normalised"
    assert np.abs(archive.frames[:, :, 2, 0]).max() == 0  # the torso of the first person is the origin
    assert archive.frames[..., 1].any(axis=(1, 2)).all()
