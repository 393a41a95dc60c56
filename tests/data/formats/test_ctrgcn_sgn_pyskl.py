"""CTR-GCN's npz, SGN's pickles, PYSKL's annotations, NW-UCLA's json: the same clips come out of all of them."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest

from prosl_lightning.data.archive import Archive
from prosl_lightning.data.formats import open_source
from prosl_lightning.data.formats.pyskl import image_to_space
from prosl_lightning.data.normalize import normalize_agcn
from prosl_lightning.data.prepare import arrays
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout

NAMES = ["S001C003P002R001A003", "S001C001P001R001A001", "S002C002P003R002A002", "S001C001P003R001A003"]


@pytest.mark.parametrize("format", ["sgn-pkl", "sgn-pkl-denoised", "pyskl", "stgcn"])
def test_every_format_gives_the_same_clips(make, tmp_path, format):
    ragged = {s.name: s for s in open_source(make("ragged-npz", tmp_path / "r").path, layout="kinect-v2")}
    source = open_source(make(format, tmp_path / "f").path)
    sequences = list(source)
    assert [s.name for s in sequences] == sorted(ragged)
    for sequence in sequences:
        expected = ragged[sequence.name]
        np.testing.assert_array_equal(sequence.bodies, expected.bodies)
        assert (sequence.label, sequence.columns["subject"]) == (expected.label, expected.columns["subject"])
    assert (source.layout.name, source.num_bodies, source.normalize) == ("kinect-v2", 2, "agcn")
    assert source.class_names[1] == "eat meal/snack"


def test_ctrgcn_npz(make, tmp_path):
    ragged = list(open_source(make("ragged-npz", tmp_path / "r").path, layout="kinect-v2"))
    source = open_source(make("ctrgcn-npz", tmp_path).path)
    sequences = list(source)
    assert [s.name for s in sequences] == ["train_000000", "train_000001", "test_000000", "test_000001"]
    assert [(s.label, s.columns["x-sub"]) for s in sequences] == [(2, 0), (0, 0), (1, 1), (2, 1)]
    for sequence, expected in zip(sequences, ragged, strict=True):
        np.testing.assert_array_equal(sequence.bodies, expected.bodies)
    assert (source.class_names[0], source.official) == ("drink water", {"x-sub": (40091, 16487)})


def _npz(path, **changes):
    content = {
        "x_train": np.ones((2, 6, 150), np.float32), "y_train": np.eye(4)[[0, 3]],
        "x_test": np.ones((1, 6, 150), np.float32), "y_test": np.eye(4)[[2]],
    } | changes  # fmt: skip
    np.savez(path, **content)
    return path


def test_ctrgcn_variants(tmp_path):
    empty = _npz(tmp_path / "mine.npz", x_train=np.zeros((0, 6, 150)), y_train=np.zeros((0, 4)))
    source = open_source(empty)
    assert [(s.name, s.label, dict(s.columns)) for s in source] == [("test_000000", 2, {"given": 1})]
    numbers = _npz(tmp_path / "NTU120_CSet.npz", y_train=np.array([5, 7]), x_test=np.ones((1, 6, 75)))
    source = open_source(numbers)
    assert [(s.label, s.bodies.shape[1]) for s in source] == [(5, 2), (7, 2), (2, 1)]
    assert (list(source.protocols), len(source.class_names)) == (["x-set"], 120)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.ones((2, 4))}, r"row 0 of y_train has 4 classes, expected exactly one \(one-hot\)"),
        ({"y_train": np.eye(4)}, "but there are 4 labels in y_train"),
        ({"x_train": np.ones((2, 6, 60))}, "20 joints, but layout 'kinect-v2' has 25"),
        ({"x_train": np.ones((2, 6, 25, 3))}, r"expected numbers \(N, T, M\*V\*3\)"),
        ({"x_train": np.array([None])}, "pickled Python objects"),
    ],
)
def test_ctrgcn_files_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(DataError, match=f"NTU60_CS.npz.*{message}"):
        open_source(_npz(tmp_path / "NTU60_CS.npz", **changes))


def test_denoised_joints_find_their_names_or_are_numbered(make, tmp_path):
    made = make("sgn-pkl-denoised", tmp_path / "a")
    (tmp_path / "a" / "skes_available_name.txt").unlink()
    source = open_source(made.path)
    assert [(s.name, s.label, dict(s.columns)) for s in source][3] == ("000003", -1, {})
    assert source.protocols == {}
    assert source.notes[1].startswith("no skes_available_name.txt with 4 names near it: samples are numbered")
    make("sgn-pkl", tmp_path / "a")
    source = open_source(made.path)
    assert [s.name for s in source] == sorted(NAMES)
    assert source.notes[1] == "names are from raw_skes_data.pkl"


def test_samples_of_ntu_120_bring_all_its_protocols(tmp_path):
    clip = np.random.default_rng(0).normal(size=(1, 4, 25, 3)).astype(np.float32)
    names = ["S018C003P008R001A061", "S018C001P008R001A061", "S020C001P008R001A002", "S001C001P048R001A062"]
    annotations = [{"frame_dir": name, "label": int(name[-3:]) - 1, "keypoint": clip} for name in names]
    (tmp_path / "ntu120_3danno.pkl").write_bytes(pickle.dumps({"annotations": annotations, "split": {}}))
    (tmp_path / "raw_denoised_joints.pkl").write_bytes(pickle.dumps([clip.reshape(4, 75)] * 4))
    (tmp_path / "skes_available_name.txt").write_text("\n".join(names))
    for file in ("ntu120_3danno.pkl", "raw_denoised_joints.pkl"):
        report = arrays(str(tmp_path / file), out=str(tmp_path / file[:3]))
        assert report.splits == {"x-sub": (3, 1), "x-set": (3, 1), "one-shot": (1, 1), "one-shot-auxiliary": (2, 0),
                                 "all": (4, 0)}  # fmt: skip
        assert Archive.open(report.root).class_names[119] == "finger-guessing game (playing rock-paper-scissors)"


def test_damaged_samples_of_sgn_are_told_one_by_one(tmp_path):
    joints = np.ones((50, 3), np.float32)
    samples = [
        {"name": "a", "num_frames": 2, "data": {"1": {"joints": joints, "interval": [0, 1]}}},
        {"name": "b", "num_frames": 2, "data": {"1": {"joints": joints, "interval": [0, 2]}}},
        {"name": "c", "num_frames": 2, "data": {"1": {"joints": joints, "interval": [0]}}},
        {"name": "d", "num_frames": 10**9, "data": {}},
        {"name": "e", "num_frames": 2, "data": {"1": {"joints": "x", "interval": [0, 1]}}},
        {"name": "f", "num_frames": 2, "data": {"1": {}}},
        {"name": "g", "num_frames": 10**400, "data": {}},
        {"name": "h", "num_frames": 10**5000, "data": {}},
        {"name": "i", "num_frames": True, "data": {}},
    ]
    (tmp_path / "raw_skes_data.pkl").write_bytes(pickle.dumps(samples))
    errors = [s.error for s in open_source(tmp_path / "raw_skes_data.pkl")]
    assert errors == [
        "",
        "a body's interval reaches beyond the 2 frames",
        "a body has joints (50, 3) for 1 frames of 25 joints",
        "num_frames 1000000000: a sequence of 300000 MB; at most 64 MB, cut it up",
        "joints are str, expected numbers",
        "a body lacks joints or interval",
        *["expected a possible num_frames and data (bodies by their ID)"] * 3,
    ]


def test_an_array_of_sgn_without_frames_is_told(tmp_path):
    (tmp_path / "raw_denoised_joints.pkl").write_bytes(pickle.dumps([np.zeros((5, 75)), np.zeros((0, 75))]))
    assert [s.error for s in open_source(tmp_path / "raw_denoised_joints.pkl")] == ["", "no frames"]


def test_pyskl_splits(make, tmp_path):
    source = open_source(make("pyskl", tmp_path).path)
    assert {name: rule["column"] for name, rule in source.protocols.items()} == {"x-sub": "x-sub", "x-view": "x-view"}
    columns = {s.name: (s.columns["x-sub"], s.columns["x-view"]) for s in source}
    assert columns == {NAMES[0]: (0, 0), NAMES[1]: (0, 1), NAMES[2]: (1, 0), NAMES[3]: (1, 1)}


def test_a_pyskl_split_named_all_gets_another_name(tmp_path):
    clip = np.random.default_rng(0).normal(size=(1, 4, 25, 3)).astype(np.float32)
    annotations = [{"frame_dir": name, "label": 0, "keypoint": clip} for name in "ab"]
    split = {"all_train": ["a"], "all_val": ["b"]}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"annotations": annotations, "split": split}))
    source = open_source(tmp_path / "x.pkl")
    assert "split 'all' is called 'split-all' here: 'all' is every sequence" in source.notes
    assert [dict(s.columns) for s in source] == [{"split-all": 0}, {"split-all": 1}]
    assert arrays(str(tmp_path / "x.pkl"), out=str(tmp_path / "o")).splits == {"split-all": (1, 1), "all": (2, 0)}


def test_pyskl_scores_that_are_no_numbers_are_told(tmp_path):
    whole = {"label": 0, "keypoint": np.ones((1, 4, 17, 2)), "img_shape": (9, 9)}
    scores = [np.ones((1, 4, 17)), np.full((1, 4, 17), "x")]
    annotations = [whole | {"frame_dir": name, "keypoint_score": s} for name, s in zip("ab", scores, strict=True)]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(annotations))
    assert [s.error for s in open_source(tmp_path / "x.pkl")] == ["", "keypoint_score is <U1, expected numbers"]


def test_pyskl_2d(make, tmp_path):
    made = make("pyskl-2d", tmp_path)
    source = open_source(made.path)
    sequences = list(source)
    assert (source.layout.name, source.num_bodies, source.normalize) == ("coco-17", 1, "upright")
    assert {s.name: dict(s.columns) for s in sequences}["clip2"] == {"given": 1}
    assert sequences[0].bodies.shape == (6, 1, 17, 3)
    report = arrays(str(made.path), out=str(tmp_path / "o"), dtype="float32")
    clip = Archive.open(report.root).clip(0)[..., 0]  # (T, C, V)
    hips, shoulders = clip[0, :, 11:13].mean(axis=1), clip[0, :, 5:7].mean(axis=1)
    np.testing.assert_allclose(hips, 0, atol=1e-6)
    np.testing.assert_allclose((shoulders - hips)[:2], 0, atol=1e-6)  # upright: the spine is the z axis
    assert shoulders[2] > 0
    np.testing.assert_allclose(clip[:, 1], 0, atol=1e-6)  # and the picture stays a picture, the left at the smaller x
    assert clip[0, 0, 6] > clip[0, 0, 5]


def test_pixels_become_a_cameras_axes():
    points = np.array([[960.0, 540.0], [0.0, 0.0], [1920.0, 1080.0], [5.0, 5.0]])
    space = image_to_space(points, np.array([0.9, 0.1, 1.0, 0.0]), (1080, 1920))
    np.testing.assert_allclose(space, [[0, 0, 0], [960 / 1080, 0.5, 0], [-960 / 1080, -0.5, 0], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(image_to_space(points[1:2], None, (1080, 1920)), 0)  # without scores 0, 0 is absent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoint": np.ones((1, 4, 20, 3))}, r"keypoint has shape \(1, 4, 20, 3\), expected \(M, T, 25, 3\)"),
        ({"keypoint": [[1]]}, r"keypoint is no array of numbers"),
        ({"keypoint": np.ones((0, 30_000_000, 25, 3), np.float32)}, "nobody in any frame"),
        ({"keypoint": np.ones((1, 230_000, 25, 3), np.float32)}, "keypoint: a sequence of 69 MB; at most 64 MB"),
        ({"keypoint_score": np.ones((1, 4))}, "keypoint_score does not fit keypoint"),
    ],
)
def test_an_annotation_that_does_not_fit(tmp_path, change, message):
    whole = {"frame_dir": "a", "label": 0, "keypoint": np.ones((1, 4, 25, 3), np.float32)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([whole, whole | change | {"frame_dir": "b"}]))
    first, second = open_source(tmp_path / "x.pkl")
    assert first.error == ""
    assert second.bodies is None
    assert re.search(message, second.error)


def test_samples_of_one_name_are_told(tmp_path):
    """Which part of a split they are in cannot be said of each, so somebody should look."""
    annotations = [
        {"frame_dir": name, "label": 0, "keypoint": np.full((1, 4, 25, 3), row + 1.0, np.float32)}
        for row, name in enumerate("bacabb")
    ]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(annotations))
    source = open_source(tmp_path / "x.pkl")
    assert "warning: 2 names stand for several sequences: a, b" in source.notes
    assert [float(s.bodies[0, 0, 0, 0]) for s in source] == [2, 4, 1, 5, 6, 3]
    samples = [{"name": "a", "num_frames": 1, "data": {}}] * 2
    (tmp_path / "raw_skes_data.pkl").write_bytes(pickle.dumps(samples))
    assert "warning: 1 name stands for several sequences: a" in open_source(tmp_path / "raw_skes_data.pkl").notes


def test_17_joints_in_3d_have_no_usual_body_model(tmp_path):
    """They may be Human3.6M's, or pixels with a score."""
    content = [{"frame_dir": "a", "label": 0, "keypoint": np.ones((1, 4, 17, 3), np.float32)}]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UsageError, match=r"x.pkl: whose joints are these\? give the body model with --layout"):
        open_source(tmp_path / "x.pkl")
    assert open_source(tmp_path / "x.pkl", layout="coco-17").layout.name == "coco-17"


def test_nw_ucla_json(make, tmp_path):
    made = make("nw-ucla-json", tmp_path)
    (made.path / "a07_s01_e00_v01.json").write_text('{"skeletons": []}')
    (made.path / "a01_s01_e00_v02.json").write_text('{"skeletons": [[[1, 2]]]}')
    (made.path / "a02_s01_e00_v02.json").write_text("[" * 100_000)
    source = open_source(made.path)
    sequences = {s.name: s for s in source}
    assert (source.layout.name, source.num_bodies, source.official) == ("kinect-v1", 1, {"x-view": (1020, 464)})
    assert [s.label for s in sequences.values() if not s.error] == [0, 6, 9]
    assert sequences["a12_s10_e01_v02"].columns == {"subject": 10, "episode": 1, "view": 2}
    assert source.class_names[6] == "donning"
    assert "action 7, expected one of" in sequences["a07_s01_e00_v01"].error
    assert sequences["a01_s01_e00_v02"].error == "skeletons (1, 1, 2), expected (T, 20, 3)"
    assert "not a json file with 'skeletons'" in sequences["a02_s01_e00_v02"].error


def test_nw_ucla_json_gives_the_sequences_of_the_npz(shared_folder, tmp_path):
    """Written out as the json files that others keep, the set comes back as it is."""
    whole = list(open_source(shared_folder / "data" / "nw-ucla" / "nw-ucla.npz"))[::50]
    for sequence in whole:
        content = {"file_name": sequence.name, "skeletons": sequence.bodies[:, 0].tolist()}
        (tmp_path / f"{sequence.name}.json").write_text(json.dumps(content))
    read = list(open_source(tmp_path))
    assert len(read) == len(whole) == 30
    for found, expected in zip(read, sorted(whole, key=lambda s: s.name), strict=True):
        np.testing.assert_array_equal(found.bodies, expected.bodies)
        assert (found.name, found.label, dict(found.columns)) == (expected.name, expected.label, dict(expected.columns))


def test_real_files_of_others(shared_folder):
    """Eleven and two samples; CTR-GCN's npz is the denoised list, joint 2 of the first frame at the origin."""
    folder = shared_folder / "data" / "raw-samples" / "ntu-arrays"
    npz = list(open_source(folder / "hdgcn-NTU60_CS.npz"))
    denoised = list(open_source(folder / "hdgcn-raw_denoised_joints.pkl"))
    raw = list(open_source(folder / "hdgcn-raw_skes_data.pkl"))
    assert [s.label for s in npz] == [s.label for s in denoised] == [s.label for s in raw] == list(range(49, 60))
    assert [s.name for s in denoised] == [f"S017C003P020R002A{action:03d}" for action in range(50, 61)]
    for moved, original in zip(npz, denoised, strict=True):
        there = original.bodies.any(axis=(2, 3))
        assert len(moved.bodies) == len(original.bodies)
        origin = original.bodies[np.argmax(there[:, 0]), 0, 1]
        np.testing.assert_allclose(moved.bodies[there], original.bodies[there] - origin, atol=1e-5)
    two = list(open_source(folder / "sgn-raw_skes_data.pkl"))
    for sequence, flat in zip(two, open_source(folder / "sgn-raw_denoised_joints.pkl"), strict=True):
        np.testing.assert_array_equal(sequence.bodies, flat.bodies)
    assert [(s.name, s.label) for s in two] == [("S001C001P001R001A001", 0), ("S001C001P001R001A002", 1)]


def test_what_others_made_of_real_samples_becomes_what_the_raw_files_become(shared_folder):
    """Five samples with two people and two with one: raw file, SGN's pickles and CTR-GCN's npz give the same clip."""
    samples = shared_folder / "data" / "raw-samples"
    raw = {s.name: s for s in open_source(samples / "ntu-skeleton")}
    layout, compared = SkeletonLayout.of("kinect-v2"), 0
    for file in ("hdgcn-raw_denoised_joints.pkl", "hdgcn-raw_skes_data.pkl", "sgn-raw_denoised_joints.pkl",
                 "hdgcn-NTU60_CS.npz"):  # fmt: skip
        for sequence in open_source(samples / "ntu-arrays" / file):
            name = sequence.name if sequence.name in raw else f"S017C003P020R002A{sequence.label + 1:03d}"
            if name in raw:
                expected = normalize_agcn(raw[name].bodies, layout, 2)
                np.testing.assert_allclose(normalize_agcn(sequence.bodies, layout, 2), expected, atol=5e-6)
                compared += 1
    assert compared == 17


def test_a_joint_at_the_origin_is_not_an_absent_one(tmp_path):
    """CTR-GCN moves clips so that a joint of the first frame is the origin; nothing else may change."""
    clip = np.random.default_rng(0).normal(size=(1, 6, 2, 25, 3)).astype(np.float32)
    clip[0, 3:, 1] = 0
    clip[0, 0, 0, 1] = 0
    (sequence, _) = open_source(_npz(tmp_path / "x.npz", x_train=clip.reshape(1, 6, 150), y_train=np.eye(4)[[0]]))
    assert sequence.bodies[0, 0, 1].tolist() == pytest.approx([1e-7] * 3)
    sequence.bodies[0, 0, 1] = 0
    np.testing.assert_array_equal(sequence.bodies, clip[0])
