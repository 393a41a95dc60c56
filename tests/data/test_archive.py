"""The archive: what goes in comes out, damage is named, and nothing half-written ever stands there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout.of("sbu-15")
PROTOCOLS = {
    "x-sub": {"column": "subject", "train": [2, 1]},
    "view-2": {"column": "camera", "test": [2]},
    "some": {"column": "subject", "train": [1], "test": [3]},
}


def _clips(number: int = 6) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.normal(size=(3 + i, 15, 2, 3)) for i in range(number)]


def _write(root: Path, clips: list[np.ndarray] | None = None, **options) -> Path:
    options = {"class_names": ("wave", "bow"), "protocols": PROTOCOLS, "recipe": {"normalize": "agcn"}} | options
    with ArchiveWriter(root, layout=LAYOUT, num_bodies=2, **options) as writer:
        for i, clip in enumerate(_clips() if clips is None else clips):
            writer.add(f"clip-{i}é", clip, label=i % 2, subject=1 + i % 3, camera=1 + i // 3)
    return root


def test_round_trip(tmp_path):
    archive = Archive.open(_write(tmp_path / "deep" / "set", dtype="float32", source="made up"))
    clips = _clips()
    assert len(archive) == 6
    assert archive.frames.shape == (sum(map(len, clips)), 3, 15, 2)
    for i, clip in enumerate(clips):
        np.testing.assert_array_equal(archive.clip(i), clip.transpose(0, 3, 1, 2).astype(np.float32))
    np.testing.assert_array_equal(archive.lengths, [3, 4, 5, 6, 7, 8])
    np.testing.assert_array_equal(archive.offsets, [0, 3, 7, 12, 18, 25])
    np.testing.assert_array_equal(archive.labels, [0, 1, 0, 1, 0, 1])
    assert archive.columns["subject"].tolist() == [1, 2, 3, 1, 2, 3]
    assert archive.columns["camera"].dtype == archive.lengths.dtype == np.int64
    assert archive.names.tolist()[5] == "clip-5é"
    assert archive.layout == LAYOUT
    assert (archive.num_bodies, archive.class_names) == (2, ("wave", "bow"))
    assert archive.meta["recipe"] == {"normalize": "agcn"}
    assert archive.meta["source"] == "made up"
    assert not archive.frames.flags.writeable
    archive.verify()
    with pytest.raises(IndexError):
        archive.clip(6)


def test_half_precision_is_the_default_and_errors_stay_below_a_millimetre(tmp_path):
    archive = Archive.open(_write(tmp_path / "set", [np.full((2, 15, 2, 3), 0.7123)]))
    assert archive.frames.dtype == np.float16
    assert abs(float(archive.frames[0, 0, 0, 0]) - 0.7123) < 2.5e-4


def test_equal_input_gives_equal_bytes(tmp_path):
    first, second = _write(tmp_path / "a"), _write(tmp_path / "b")
    for file in ("frames.npy", "index.npy", "meta.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_large_columns_are_kept_whole(tmp_path):
    with ArchiveWriter(tmp_path / "set", layout=LAYOUT, num_bodies=2) as writer:
        writer.add("a", _clips()[0], body=72057594037931101)
    archive = Archive.open(tmp_path / "set")
    assert archive.columns["body"].tolist() == [72057594037931101]
    assert archive.labels.tolist() == [-1]


def test_splits_are_rules_over_columns(tmp_path):
    archive = Archive.open(_write(tmp_path / "set"))
    assert archive.protocols == ("x-sub", "view-2", "some", "all")
    for protocol, train, test in [
        ("x-sub", [0, 1, 3, 4], [2, 5]),
        ("view-2", [0, 1, 2], [3, 4, 5]),
        ("some", [0, 3], [2, 5]),
        ("all", [0, 1, 2, 3, 4, 5], []),
    ]:
        rows = archive.split(protocol)
        assert [side.tolist() for side in rows] == [train, test]
        assert all(side.dtype == np.int64 for side in rows)
    with pytest.raises(UsageError, match="no protocol 'x-set'; it has x-sub, view-2, some, all"):
        archive.split("x-set")


def _edit_meta(root: Path, **changes) -> None:
    meta = json.loads((root / "meta.json").read_text()) | changes
    (root / "meta.json").write_text(json.dumps({key: value for key, value in meta.items() if value is not None}))


def _flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"there is no archive .*set\nmake one: `prosl prepare ntu60 RAW_DIR --out"),
        (lambda root: (root / "meta.json").unlink(), r"not an archive .meta.json is missing.\nmake one"),
        (lambda root: (root / "frames.npy").unlink(), "frames.npy: cannot be read"),
        (lambda root: (root / "index.npy").unlink(), "index.npy: cannot be read"),
        (lambda root: (root / "meta.json").write_text("{"), "meta.json: cannot be read"),
        (lambda root: (root / "meta.json").write_text("[]"), "meta.json: does not describe an archive"),
        (lambda root: _edit_meta(root, version=2), "archive version 2, this library reads 1; prepare it again"),
        (lambda root: _edit_meta(root, protocols=None), "meta.json: lacks protocols"),
        (lambda root: _edit_meta(root, num_bodies=1), r"frames.npy: float16 \(33, 3, 15, 2\), expected .*15, 1\)"),
        (lambda root: _edit_meta(root, layout={}), "meta.json: incomplete or damaged .*joints"),
        (lambda root: _edit_meta(root, layout={"joints": list("abcdefghijklmno")}), "layout 'unnamed' lacks parents"),
        (lambda root: _edit_meta(root, index=3), "meta.json: incomplete or damaged"),
        (
            lambda root: _edit_meta(root, protocols={"mine": {"column": "nix", "train": [1]}}),
            "meta.json: protocol 'mine' splits by column 'nix'; the index has subject, camera; prepare it again",
        ),
        (lambda root: _edit_meta(root, protocols={"mine": {"column": "camera"}}), "meta.json: protocol 'mine' is"),
        (lambda root: _edit_meta(root, protocols={"mine": 3}), "meta.json: incomplete or damaged"),
        (lambda root: _flip_last_byte(root / "index.npy"), "index.npy: wrong checksum"),
        (lambda root: os.truncate(root / "frames.npy", 1000), "frames.npy: 1000 bytes, expected 6068: truncated"),
        (lambda root: os.truncate(root / "index.npy", 100), "index.npy: wrong checksum"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    root = _write(tmp_path / "set")
    damage(root)
    with pytest.raises(DataError, match=message):
        Archive.open(root)


def test_verify_finds_a_flipped_bit_in_the_frames(tmp_path):
    root = _write(tmp_path / "set")
    _flip_last_byte(root / "frames.npy")
    archive = Archive.open(root)
    with pytest.raises(DataError, match=r"frames.npy: wrong checksum"):
        archive.verify()


@pytest.mark.parametrize(
    ("joints", "label", "message"),
    [
        (np.zeros((4, 14, 2, 3)), 0, r"odd: shape \(4, 14, 2, 3\), expected \(T, 15, 2, 3\) of layout 'sbu-15'"),
        (np.zeros((0, 15, 2, 3)), 0, "odd: shape"),
        (np.zeros((15, 2, 3)), 0, "odd: shape"),
        (np.full((4, 15, 2, 3), np.nan), 0, "odd: holds NaN or infinity"),
        (np.full((4, 15, 2, 3), 1e6), 0, "odd: holds a value too large for float16; use float32"),
        (np.zeros((4, 15, 2, 3)), 2, "odd: label 2, but there are 2 classes"),
        (np.zeros((4, 15, 2, 3)), -2, "odd: label -2"),
    ],
)
def test_a_bad_sequence_is_refused_and_leaves_nothing(tmp_path, joints, label, message):
    def write() -> None:
        with ArchiveWriter(tmp_path / "new" / "set", layout=LAYOUT, num_bodies=2, class_names=("a", "b")) as writer:
            writer.add("fine", _clips()[0], label=1)
            writer.add("odd", joints, label=label)

    with pytest.raises(DataError, match=message):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_label_that_no_class_can_have_is_refused(tmp_path):
    with ArchiveWriter(tmp_path / "set", layout=LAYOUT, num_bodies=2) as writer:
        writer.add("a", _clips()[0], label=1_000_000)
        with pytest.raises(
            DataError, match="b: label 100000000000, expected classes counted from 0, at most 1,000,000"
        ):
            writer.add("b", _clips()[1], label=10**11)
    assert Archive.open(tmp_path / "set").labels.tolist() == [1_000_000]


def test_a_refused_sequence_does_not_harm_the_others(tmp_path):
    with ArchiveWriter(tmp_path / "set", layout=LAYOUT, num_bodies=2) as writer:
        writer.add("a", _clips()[0])
        with pytest.raises(DataError):
            writer.add("odd", np.zeros((4, 14, 2, 3)))
        writer.add("b", _clips()[1])
    archive = Archive.open(tmp_path / "set")
    archive.verify()
    assert archive.names.tolist() == ["a", "b"]


def test_wrong_use_of_the_writer(tmp_path):
    root = tmp_path / "set"
    with pytest.raises(UsageError, match="dtype is 'float64'"):
        ArchiveWriter(root, layout=LAYOUT, num_bodies=2, dtype="float64")
    with pytest.raises(UsageError, match="num_bodies is 0"):
        ArchiveWriter(root, layout=LAYOUT, num_bodies=0)
    with pytest.raises(UsageError, match="num_bodies is 1000000000; expected 1 to 100"):
        ArchiveWriter(root, layout=LAYOUT, num_bodies=10**9)
    for rule in (
        {"column": "subject"},
        {"train": [1]},
        {"column": "subject", "train": ["x"]},
        {"column": "a", "tset": [1]},
    ):
        with pytest.raises(UsageError, match="protocol 'p'"):
            ArchiveWriter(root, layout=LAYOUT, num_bodies=2, protocols={"p": rule})
    with pytest.raises(UsageError, match="protocol 'all'"):
        ArchiveWriter(root, layout=LAYOUT, num_bodies=2, protocols={"all": {"column": "a", "train": [1]}})
    with pytest.raises(UsageError, match="'x-sub' splits by column 'subject'; columns are camera"):
        _write_columns(root, {"camera": 1})
    with pytest.raises(UsageError, match=r"columns \['camera'\], but the first sequence has \['camera', 'subject'\]"):
        _write_columns(root, {"camera": 1, "subject": 1}, {"camera": 1})
    with pytest.raises(UsageError, match="'length' is a column of every archive"):
        _write_columns(root, {"length": 1})
    with pytest.raises(UsageError, match="inside its `with` block"):
        ArchiveWriter(root, layout=LAYOUT, num_bodies=2).add("a", _clips()[0])
    with pytest.raises(DataError, match="there is no sequence"):
        _write_columns(root)
    assert list(tmp_path.iterdir()) == []


def _write_columns(root: Path, *columns: dict[str, int]) -> None:
    with ArchiveWriter(root, layout=LAYOUT, num_bodies=2, protocols={"x-sub": PROTOCOLS["x-sub"]}) as writer:
        for values in columns:
            writer.add("a", _clips()[0], **values)


def test_an_existing_archive_is_replaced_only_on_request_and_only_when_complete(tmp_path):
    root = _write(tmp_path / "set")
    with pytest.raises(DataError, match="exists already; .*--overwrite"):
        _write(root)
    with pytest.raises(DataError, match="shape"):
        _write(root, [np.zeros((4, 1, 1, 1))], overwrite=True)
    assert len(Archive.open(root)) == 6
    _write(root, _clips(2), overwrite=True)
    assert len(Archive.open(root)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_other_folders_and_files_are_never_replaced(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    for name in ("set", "file"):
        with pytest.raises(DataError, match="exists and is not an archive"):
            _write(tmp_path / name, overwrite=True)
    assert (tmp_path / "set" / "thesis.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    assert len(Archive.open(_write(tmp_path / "empty"))) == 6


def test_nothing_stands_under_the_name_before_it_is_complete(tmp_path):
    root = tmp_path / "set"
    with ArchiveWriter(root, layout=LAYOUT, num_bodies=2) as writer:
        writer.add("a", _clips()[0])
        assert not root.exists()
    assert root.exists()


class _FullDisk:
    """Stands for the frames' file on a disk that takes no more."""

    def write(self, content: object) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_one_clear_error(tmp_path):
    def write() -> None:
        with ArchiveWriter(tmp_path / "set", layout=LAYOUT, num_bodies=2) as writer:
            writer.add("a", _clips()[0])
            writer._file.close()
            writer._file = _FullDisk()
            writer.add("b", _clips()[1])

    with pytest.raises(DataError, match="cannot write the archive .*set: No space left on device; free some space"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the archive"):
        _write(tmp_path / "file" / "set")


def test_a_writer_that_is_terminated_while_it_begins_leaves_nothing(tmp_path, monkeypatch):
    """As when the signal to stop comes right after the folder was made."""

    def stop(*_, **__):
        raise SystemExit(143)

    writer = ArchiveWriter(tmp_path / "new" / "out", layout=SkeletonLayout.of("kinect-v2"), num_bodies=1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", stop)
        with pytest.raises(SystemExit):
            writer.__enter__()
    assert list(tmp_path.iterdir()) == []
