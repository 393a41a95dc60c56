"""What an inspection tells of an archive and of raw sequences: the same, and nothing else than what is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.data import inspection as module
from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.data.inspection import inspect_archive, inspect_source
from prosl_lightning.data.inspection_summary import summarize
from prosl_lightning.data.ntu_sets import NTU60
from prosl_lightning.data.source import RawSequence, Source
from prosl_lightning.errors import DataError
from prosl_lightning.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout.of("sbu-15")
PROTOCOLS = {
    "x-sub": {"column": "subject", "train": [1, 2]},
    "odd": {"column": "take", "train": [1], "test": [3]},
    "twice": {"column": "subject", "train": [1, 2], "test": [2, 3]},
}


def _clips() -> list[np.ndarray]:
    """Nine sequences (T, B, V, C): swaying bodies, the second there in every third sequence."""
    draw, clips = np.random.default_rng(0), []
    for number in range(9):
        time = np.arange(30 + 5 * number) / 10
        rest = draw.normal(size=(2, 15, 3)) * 0.4
        sway = np.stack([np.sin(time), 0.1 * np.cos(time), 3 + 0.1 * np.sin(time / 2)], axis=1)
        clip = (rest[None] + sway[:, None, None]) * [[[1.0]], [[float(number % 3 == 0)]]]
        clips.append(clip)
    clips[4][10:, 0, 5, 0] += 1.0  # a jump
    clips[7][3:8] = 0  # nobody
    return clips


def _columns(number: int) -> dict[str, int]:
    return {"subject": 1 + number % 3, "take": number}


def _archive(root: Path) -> Archive:
    writer = ArchiveWriter(
        root,
        layout=LAYOUT,
        num_bodies=2,
        class_names=("wave", "bow", "never"),
        protocols=PROTOCOLS,
        recipe={"normalize": "none"},
        source="made up",
        dtype="float32",
    )
    with writer:
        for number, clip in enumerate(_clips()):
            writer.add(f"clip{number}", clip.transpose(0, 2, 1, 3), label=number % 2, **_columns(number))
        writer.counts = {"read": 9}
    return Archive.open(root)


def _sequence(number: int) -> RawSequence:
    if number == 9:
        return RawSequence("file9", "clip9", error="cut off")
    if number == 10:
        return RawSequence("file10", "clip10", np.zeros((0, 1, 15, 3)))
    clip = _clips()[number]
    bodies = clip if number % 3 == 0 else clip[:, :1]  # raw files list as many bodies as there are
    return RawSequence(f"file{number}", f"clip{number}", bodies, label=number % 2, columns=_columns(number))


def _source(items: range = range(11), read: Callable[[int], RawSequence] = _sequence) -> Source:
    return Source(
        Path("raw"),
        "ours",
        LAYOUT,
        2,
        items,
        read,
        class_names=("wave", "bow", "never"),
        protocols=PROTOCOLS | {"by-view": {"column": "view", "train": [1]}},
        official={"x-sub": (40, 30)},
        left_out={"on the list": ["a", "b"]},
        bad=[("file11", "wrongly named")],
        notes=["a note"],
    )


def test_an_archive(tmp_path):
    found = summarize(inspect_archive(_archive(tmp_path / "set"), verify=True))
    assert (found["kind"], found["format"], found["verified"]) == ("archive", "prosl-archive 1", True)
    assert (found["sequences"], found["frames"], found["bodies"]) == (9, sum(map(len, _clips())), 2)
    assert found["made"]["recipe"] == {"normalize": "none"}
    assert (found["made"]["source"], found["made"]["counts"]) == ("made up", {"read": 9})
    assert found["made"]["bytes"] == sum(path.stat().st_size for path in (tmp_path / "set").iterdir())
    assert [(item["name"], item["sequences"]) for item in found["classes"]["sequences"]] == [
        ("wave", 5),
        ("bow", 4),
        ("never", 0),
    ]
    assert found["classes"]["largest_to_smallest"] == 1.25
    assert found["columns"]["subject"]["sequences"] == {"1": 3, "2": 3, "3": 3}
    assert (found["columns"]["take"]["values"], found["columns"]["take"]["max"]) == (9, 8)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_protocols_are_counted_with_what_is_wrong_about_them(tmp_path):
    protocols = summarize(inspect_archive(_archive(tmp_path / "set")))["protocols"]
    assert protocols["x-sub"] == {
        "train": 6, "test": 3, "neither": 0, "both": 0, "official": None, "tested_but_not_trained": [],
    }  # fmt: skip
    assert (protocols["odd"]["train"], protocols["odd"]["test"], protocols["odd"]["neither"]) == (1, 1, 7)
    assert protocols["odd"]["tested_but_not_trained"] == []
    assert (protocols["twice"]["both"], protocols["twice"]["neither"]) == (3, 0)
    split = _archive(tmp_path / "other")
    split.meta["protocols"] = {"p": {"column": "take", "train": [0, 2], "test": [1]}}
    assert summarize(inspect_archive(split))["protocols"]["p"]["tested_but_not_trained"] == ["bow"]


def test_faults_name_their_sequences(tmp_path):
    found = summarize(inspect_archive(_archive(tmp_path / "set")))
    jumps, empty = found["faults"]["jumps"], found["faults"]["frames_without_anybody"]
    assert (jumps["count"], jumps["sequences"]) == (1, 1)
    assert jumps["found"] == [{"name": "clip4", "row": 4, "count": 1}]
    assert (empty["count"], empty["found"][0]["name"]) == (5, "clip7")
    assert [item["jumps"] for item in found["joint_faults"]] == [int(joint == 5) for joint in range(15)]
    second = found["positions"][1]
    absent = sum(len(clip) for number, clip in enumerate(_clips()) if number % 3)
    assert (second["never_there"], second["absent_frames"]) == (6, absent)
    assert second["absent_share"] == pytest.approx(absent / found["frames"], abs=1e-6)
    assert found["faults"]["nonfinite_values"]["count"] == found["faults"]["stuck_joints"]["count"] == 0
    assert [(item["name"], item["most"]) for item in found["unusual"]] == [("clip7", "frames without anybody")]
    drifting = [item for item in found["bone_drift"] if item["drifting_sequences"]]
    assert all("left_hand" in item["bone"] or "left_elbow" in item["bone"] for item in drifting)


def test_lengths(tmp_path):
    lengths = summarize(inspect_archive(_archive(tmp_path / "set")))["lengths"]
    assert (lengths["min"], lengths["median"], lengths["mean"], lengths["max"]) == (30, 50, 50.0, 70)
    assert sum(item["sequences"] for item in lengths["histogram"]) == 9
    ranges = [(item["from"], item["to"]) for item in lengths["histogram"]]
    assert (ranges[0][0], ranges[-1][1]) == (30, 70)
    assert all(one[1] + 1 == other[0] for one, other in pairwise(ranges))


def test_raw_sequences_tell_the_same_as_their_archive(tmp_path):
    of_archive, of_raw = inspect_archive(_archive(tmp_path / "set")), inspect_source(_source())
    for name, values in vars(of_archive.faults).items():
        np.testing.assert_allclose(getattr(of_raw.faults, name), values, atol=1e-5)
    found, other = summarize(of_raw), summarize(of_archive)
    for key in ("classes", "columns", "lengths", "positions", "faults", "joint_faults"):
        assert found[key] == other[key]
    assert (found["kind"], found["format"], found["left_out"]) == ("raw", "ours", {"on the list": 2})
    assert [(item["source"], item["reason"]) for item in found["bad"]] == [
        ("file11", "wrongly named"),
        ("file9", "cut off"),
        ("file10", "no frames"),
    ]
    assert found["protocols"]["x-sub"]["official"] == [40, 30]
    assert "by-view" not in found["protocols"]  # its column is not there
    assert found["notes"] == ["a note"]


def test_raw_sequences_are_read_one_at_a_time_and_not_kept():
    alive: list[int] = []

    class Frames(np.ndarray):
        def __del__(self) -> None:
            if self.base is None:
                alive.append(-1)

    def read(number: int) -> RawSequence:
        alive.append(1)
        assert sum(alive) <= 2  # the one being read and the one before it
        frames = np.ndarray.__new__(Frames, (20, 1, 15, 3))
        frames[:] = 1.0 + np.arange(15)[:, None]
        return RawSequence(str(number), str(number), frames)

    assert len(inspect_source(_source(range(1100), read))) == 1100


def test_sizes_of_known_sets_are_told_of_their_archives_too(tmp_path):
    writer = ArchiveWriter(
        tmp_path / "set",
        layout=SkeletonLayout.of("kinect-v2"),
        num_bodies=1,
        class_names=NTU60.class_names,
        protocols={"x-sub": NTU60.protocols["x-sub"], "mine": {"column": "subject", "train": [2]}},
    )
    with writer:
        writer.add("a", np.ones((20, 25, 1, 3)) * np.arange(25)[:, None, None], label=3, subject=1)
    protocols = summarize(inspect_archive(Archive.open(tmp_path / "set")))["protocols"]
    assert {name: found["official"] for name, found in protocols.items()} == {"x-sub": [40091, 16487], "mine": None}


def test_absurd_labels_are_counted_without_a_place_for_each_below_them():
    def read(number: int) -> RawSequence:
        return RawSequence(str(number), str(number), _clips()[number], label=(10**11, 2, 5)[number % 3])

    found = summarize(inspect_source(_source(range(9), read)))["classes"]["sequences"]
    assert [(item["name"], item["sequences"]) for item in found] == [
        ("wave", 0), ("bow", 0), ("never", 3), ("5", 3), ("100000000000", 3),
    ]  # fmt: skip


def test_no_more_strips_are_kept_than_a_sheet_shows(tmp_path):
    clip = _clips()[0]
    source = _source(range(200), lambda number: RawSequence(str(number), str(number), clip, label=2 * number))
    strips = inspect_source(source).strips
    assert [strip.label for strip in strips] == list(range(0, 360, 2))
    with ArchiveWriter(tmp_path / "set", layout=LAYOUT, num_bodies=2) as writer:
        for number in range(200):
            writer.add(str(number), clip[:5].transpose(0, 2, 1, 3), label=2 * number)
    strips = inspect_archive(Archive.open(tmp_path / "set")).strips
    assert [strip.label for strip in strips] == list(range(0, 360, 2))


def test_nothing_to_read_is_an_error():
    with pytest.raises(DataError, match="raw: none of 2 sequences can be read; the first: file11: wrongly named"):
        inspect_source(_source(range(9, 11)))


def test_small_blocks_give_the_same(tmp_path, monkeypatch):
    archive = _archive(tmp_path / "set")
    whole = summarize(inspect_archive(archive))
    monkeypatch.setattr(module, "_BLOCK_FRAMES", 64)
    assert summarize(inspect_archive(archive)) == whole


def test_a_damaged_archive_is_found_when_verified(tmp_path):
    archive = _archive(tmp_path / "set")
    content = bytearray((tmp_path / "set" / "frames.npy").read_bytes())
    content[5000] ^= 1
    (tmp_path / "set" / "frames.npy").write_bytes(content)
    assert not inspect_archive(archive).verified
    with pytest.raises(DataError, match="frames.npy: wrong checksum"):
        inspect_archive(archive, verify=True)


def test_strips_show_one_sequence_of_each_class_or_the_first_unlabelled_ones(tmp_path):
    strips = inspect_archive(_archive(tmp_path / "set")).strips
    assert [(strip.label, strip.name, strip.frames.shape) for strip in strips] == [
        (0, "clip0", (6, 3, 15, 2)),
        (1, "clip1", (6, 3, 15, 2)),
    ]
    first = _clips()[0].transpose(0, 3, 2, 1)
    np.testing.assert_allclose(strips[0].frames, first[[0, 6, 12, 17, 23, 29]], rtol=1e-6)

    def unlabelled(number: int) -> RawSequence:
        return RawSequence(str(number), f"clip{number}", _clips()[number % 9])

    strips = inspect_source(_source(range(40), unlabelled)).strips
    assert [strip.name for strip in strips] == [f"clip{number}" for number in range(24)]


def test_the_real_sets_have_no_stuck_joints_and_some_jumps(shared_folder):
    from prosl_lightning.data.formats import open_source

    found = summarize(inspect_source(open_source(shared_folder / "data" / "raw-samples" / "ntu-skeleton")))
    assert (found["sequences"], found["frames"], found["format"]) == (23, 1901, "ntu60")
    assert found["faults"]["stuck_joints"]["count"] == found["faults"]["nonfinite_values"]["count"] == 0
    assert found["faults"]["jumps"]["found"][0]["name"] == "S017C003P020R002A055"  # two people embrace
    assert found["unusual"][0]["name"] == "S017C003P020R002A055"
    assert len(found["unusual"]) < 12
    assert found["faults"]["drifting_bones"]["sequences"] < 12  # in every one some bone varies by more than 25 %
