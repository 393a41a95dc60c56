"""Folders of padded npy arrays: true lengths, splits from all protocol folders, names, labels, what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.formats import open_source
from prosl_lightning.data.formats.clips import is_centered, true_length
from prosl_lightning.data.normalize import normalize_agcn
from prosl_lightning.data.prepare import arrays
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

NAMES = ["S001C003P002R001A003", "S001C001P001R001A001", "S002C002P003R002A002", "S001C001P003R001A003"]
LENGTHS = [12, 7, 9, 5]
BY_NAME = sorted(range(4), key=NAMES.__getitem__)
KINECT = SkeletonLayout.of("kinect-v2")


def test_agcn_folder(make, tmp_path):
    source = open_source(make("agcn", tmp_path).path)
    sequences = list(source)
    assert (source.format, source.layout.name, source.num_bodies, source.already) == ("agcn", "kinect-v2", 2, "agcn")
    assert source.notes[0] == "format agcn: {train,val}_data_joint.npy of 2s-AGCN, HiCo, ISC, CMD, UmURL"
    assert [s.name for s in sequences] == sorted(NAMES)
    assert [len(s.bodies) for s in sequences] == [LENGTHS[row] for row in BY_NAME]
    assert [s.label for s in sequences] == [0, 2, 2, 1]
    assert sequences[0].columns == {"setup": 1, "camera": 1, "subject": 1, "replication": 1, "x-sub": 0}
    assert [s.columns["x-sub"] for s in sequences] == [0, 1, 0, 1]
    assert source.class_names[:2] == ("drink water", "eat meal/snack")
    assert source.protocols["x-sub"] == {"column": "x-sub", "train": [0], "test": [1]}
    assert source.protocols["x-view"] == {"column": "camera", "train": [2, 3]}
    assert source.official["x-sub"] == (40091, 16487)


def test_an_archive_of_agcn_arrays_is_that_of_the_raw_clips(make, tmp_path):
    """Cut to its true length, the stored clip is what normalising the raw clip gives."""
    made = make("agcn", tmp_path)
    report = arrays(str(made.path), out=str(tmp_path / "o"), dtype="float32")
    archive = Archive.open(tmp_path / "o")
    ragged = arrays(str(make("ragged-npz", tmp_path / "r").path), out=str(tmp_path / "p"), layout="kinect-v2",
                    dtype="float32", normalize="agcn")  # fmt: skip
    raw = Archive.open(ragged.root)
    assert report.splits["x-sub"] == (2, 2)
    for row, name in enumerate(archive.names.tolist()):
        np.testing.assert_array_equal(archive.clip(row), raw.clip(raw.names.tolist().index(name)))


def test_without_num_frame_the_replay_is_found(make, tmp_path):
    made = make("agcn", tmp_path)
    for part in ("train", "val"):
        (made.path / f"{part}_num_frame.npy").unlink()
    source = open_source(made.path)
    assert [len(s.bodies) for s in source] == [LENGTHS[row] for row in BY_NAME]
    assert "no *_num_frame.npy: lengths are found from the frames (zeros or replay at the end)" in source.notes


def test_true_length():
    draw = np.random.default_rng(0)
    clip = draw.normal(size=(110, 2, 25, 3))
    replayed = normalize_agcn(clip, KINECT, 2, total_frames=300)
    assert true_length(replayed) == 110
    late = clip.copy()
    late[60:, 1] = 0  # one body leaves earlier; it is replayed on its own
    assert true_length(normalize_agcn(late, KINECT, 2, total_frames=300)) == 110
    late[60:], late[60:, 0] = clip[60:], 0  # the same the other way round; the body that leaves moves most
    late[:, 0] *= 2
    assert true_length(normalize_agcn(late, KINECT, 2, total_frames=300)) == 110
    zeros = np.zeros((300, 2, 25, 3))
    assert true_length(zeros) == 0
    zeros[:40] = clip[:40]
    zeros[10] = 0  # an inner gap is no end
    assert true_length(zeros) == 40
    assert true_length(draw.normal(size=(300, 1, 25, 3))) == 300
    assert true_length(np.ones((299, 1, 25, 3))) == 299  # replay is looked for at 300 frames only
    assert is_centered([replayed], KINECT)
    assert not is_centered([clip], KINECT)
    assert not is_centered([replayed * np.nan], KINECT)
    assert not is_centered([zeros * 0], KINECT)


def test_frame_counts_beyond_the_array_are_cut_and_zero_is_told(make, tmp_path):
    made = make("agcn", tmp_path)
    np.save(made.path / "train_num_frame.npy", np.array([412, 0]))
    sequences = {s.name: s for s in open_source(made.path)}
    assert len(sequences[NAMES[0]].bodies) == 300
    assert sequences[NAMES[1]].error == "its number of frames is 0"


def test_several_protocol_folders_are_one_set(make, tmp_path):
    made = make("agcn", tmp_path / "a")
    other = make("agcn", tmp_path / "b").path
    root = made.path.parent
    other.rename(root / "xview")
    for file, rows in (("train", [0, 2]), ("val", [1])):  # the second folder splits otherwise, and lacks a sample
        arrays_of = {part: np.load(made.path / f"{part}_data_joint.npy") for part in ("train", "val")}
        both = np.concatenate([arrays_of["train"], arrays_of["val"]])
        np.save(root / "xview" / f"{file}_data_joint.npy", both[rows])
        np.save(root / "xview" / f"{file}_num_frame.npy", np.array([LENGTHS[row] for row in rows]))
        content = ([f"{NAMES[row]}.skeleton" for row in rows], [[2, 0, 1, 2][row] for row in rows])
        (root / "xview" / f"{file}_label.pkl").write_bytes(pickle.dumps(content))
    source = open_source(root)
    columns = {s.name: (s.columns["x-sub"], s.columns["x-view"]) for s in source}
    assert columns == {NAMES[0]: (0, 0), NAMES[1]: (0, 1), NAMES[2]: (1, 0), NAMES[3]: (1, -1)}
    assert set(source.protocols) == {"x-sub", "x-view"}


def test_stgcn_folder(make, tmp_path):
    source = open_source(make("stgcn", tmp_path).path)
    assert (source.format, source.normalize) == ("stgcn", "agcn")
    assert [len(s.bodies) for s in source] == [LENGTHS[row] for row in BY_NAME]
    assert [s.columns["x-view"] for s in source] == [1, 1, 0, 0]


def test_frame50_folder_has_neither_names_nor_counts(make, tmp_path):
    made = make("frame50", tmp_path)
    np.save(made.path / "train_label.npy", np.array([[7], [3]]))  # (N, 1) as CrosSCLR writes them
    source = open_source(made.path)
    sequences = list(source)
    assert (source.format, source.already) == ("frame50", "crossclr")
    assert [(s.name, s.label, len(s.bodies)) for s in sequences] == [
        ("train_000000", 7, 5), ("train_000001", 3, 5), ("val_000000", -1, 5), ("val_000001", -1, 5),
    ]  # fmt: skip
    assert "no names in xsub/train, xsub/val: sequences are numbered" in source.notes


def test_labels_of_pku_are_floats(make, tmp_path):
    made = make("agcn", tmp_path)
    for part, label in (("train", 50.0), ("val", 3.0)):
        content = [["0002-L_0", "0002-L_1"], np.array([label, 4.0])]
        if part == "val":
            content[0] = ["0291-M_0", "0291-M_1"]
        (made.path / f"{part}_label.pkl").write_bytes(pickle.dumps(tuple(content), 2))
    source = open_source(made.path)
    assert [(s.name, s.label) for s in source] == [("0002-L_0", 50), ("0002-L_1", 4), ("0291-M_0", 3), ("0291-M_1", 4)]
    assert source.class_names == ()
    assert dict(source.items[0].columns) == {"x-sub": 0}


def test_labels_that_are_not_the_actions_of_the_names(make, tmp_path):
    made = make("agcn", tmp_path)
    content = ([f"{name}.skeleton" for name in NAMES[:2]], [5, 6])
    (made.path / "train_label.pkl").write_bytes(pickle.dumps(content))
    source = open_source(made.path)
    assert source.class_names == ()
    assert "labels are not the action numbers of the names, so classes have no names" in source.notes


def test_a_name_that_comes_twice_and_a_part_that_is_missing(make, tmp_path):
    made = make("agcn", tmp_path)
    (made.path / "train_label.pkl").write_bytes(pickle.dumps(([f"{NAMES[0]}.skeleton"] * 2, [2, 2])))
    for file in made.path.glob("val_*"):
        file.unlink()
    source = open_source(made.path)
    assert [s.name for s in source] == [NAMES[0]]
    assert source.bad[0] == (f"xsub/train_data_joint.npy, row 1 ({NAMES[0]})", "the same name as an earlier row")
    assert source.bad[1][1] == "there is no such file, so this part is missing"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train_data_joint.npy", np.zeros((2, 3, 4, 20, 2)), "20 joints, but layout 'kinect-v2' has 25; .*--layout"),
        ("train_data_joint.npy", np.zeros((2, 2, 4, 25, 2)), r"expected numbers \(N, 3, T, V, M\)"),
        ("train_data_joint.npy", np.zeros((3, 3, 4, 25, 2)), "2 names, but the array beside it has 3 rows"),
        ("train_data_joint.npy", np.array([None]), "holds pickled Python objects, which are never loaded"),
        ("val_num_frame.npy", np.array([3]), r"int64 \(1,\), expected integers \(2,\), one a row"),
        ("val_num_frame.npy", np.array([3.0, 4.0]), "float64"),
        ("val_label.pkl", 5, r"expected the pair \(names, labels\), found int"),
        ("val_label.pkl", (["a", "b"], [1, 0.5]), "label 0.5 in row 1, expected classes as whole numbers from 0"),
        ("val_label.pkl", (["a", 3], [1, 0]), "names are not a list of strings"),
        ("val_label.pkl", (["a", "b"], [1]), "1 labels of val, but the array beside them has 2 rows"),
        ("val_label.pkl", (["a", "b"], [1, "x"]), "labels are not a list of numbers"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_error(make, tmp_path, file, content, message):
    made = make("agcn", tmp_path)
    if file.endswith(".npy"):
        np.save(made.path / file, content)
    else:
        (made.path / file).write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message):
        list(open_source(made.path))


def test_a_cut_array_is_found_before_anything_is_read(make, tmp_path):
    made = make("agcn", tmp_path)
    whole = (made.path / "val_data_joint.npy").read_bytes()
    (made.path / "val_data_joint.npy").write_bytes(whole[:-4])
    with pytest.raises(DataError, match="val_data_joint.npy: cut off: 359996 bytes of values, expected 360000"):
        open_source(made.path)


def test_readers_travel_to_other_processes_without_the_data(make, tmp_path):
    source = open_source(make("agcn", tmp_path).path)
    first = next(iter(source))
    sent = pickle.dumps((source.read, source.items[0]))
    assert len(sent) < 2000
    read, item = pickle.loads(sent)
    np.testing.assert_array_equal(read(item).bodies, first.bodies)


def test_bones_and_motion_are_refused_with_the_reason(tmp_path):
    (tmp_path / "xsub").mkdir()
    for name in ("train_data_bone.npy", "val_data_bone.npy"):
        np.save(tmp_path / "xsub" / name, np.zeros((1, 3, 4, 25, 2)))
    with pytest.raises(DataError, match=r"_data_bone.npy holds bones or motion, which are made from the joints while"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="give the joints of the same run"):
        open_source(tmp_path / "xsub" / "val_data_bone.npy")


def test_real_labels_of_crossclr(shared_folder, tmp_path):
    """Labels of 274 real samples of one class, from the pickle with names and from an (N, 1) array of another run."""
    given = shared_folder / "data" / "raw-samples" / "ntu-arrays"
    for name, file in (("pickled", "crossclr-xsub-val_label.pkl"), ("plain", "crossclr-frame50-xsub-val_label.npy")):
        folder = tmp_path / name / "xsub"
        folder.mkdir(parents=True)
        (folder / f"val_label{file[-4:]}").write_bytes((given / file).read_bytes())
        np.save(folder / "val_position.npy", np.ones((274, 3, 1, 25, 2), np.float32))
    named = list(open_source(tmp_path / "pickled"))
    plain = list(open_source(tmp_path / "plain" / "xsub"))
    assert [s.columns for s in plain] == [{"x-sub": 1}] * 274
    assert all(s.label == int(s.name[-3:]) - 1 for s in named)
    assert {s.label for s in plain} == {0}
    assert open_source(tmp_path / "pickled").class_names[22] == "hand waving"
