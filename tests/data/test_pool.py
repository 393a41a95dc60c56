"""Archives joined over the joints they share: which joints, which centre, which splits, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning.cli import main
from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.data.pool import pool
from prosl_lightning.data.pool_layout import shared_layout
from prosl_lightning.data.recipes import normalize_bodies
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SAME_PLACE, SkeletonLayout, packaged_layouts

V1, V2 = SkeletonLayout.of("kinect-v1"), SkeletonLayout.of("kinect-v2")


def _bodies(layout: SkeletonLayout, seed: int, bodies: int = 1, people: int = 0) -> np.ndarray:
    draw = np.random.default_rng([seed, people])
    rest = draw.normal(size=(bodies, layout.num_joints, 3)) + np.array([0, 0, 3])
    return rest + draw.normal(size=(5 + seed, bodies, layout.num_joints, 3)).cumsum(axis=0) * 0.02


def _archive(
    root: Path,
    layout: SkeletonLayout,
    *,
    recipe: str = "agcn",
    bodies: int = 1,
    labels: bool = True,
    people: int = 0,
    **options,
) -> str:
    """Four sequences of four subjects, of which 1 and 3 train; the last belongs to neither side."""
    options = {"protocols": {"x-sub": {"column": "subject", "train": [1, 3], "test": [2]}}} | options
    writer = ArchiveWriter(
        root,
        layout=layout,
        num_bodies=bodies,
        class_names=("sit", "stand") if labels else (),
        recipe={"importer": "test", "normalize": recipe},
        **{"dtype": "float32"} | options,
    )
    with writer:
        for row in range(4):
            joints = normalize_bodies(_bodies(layout, row, bodies, people), layout, bodies, recipe)
            writer.add(f"clip{row}", joints, label=row % 2 if labels else -1, subject=row + 1, take=0)
    return str(root)


@pytest.fixture
def three(tmp_path) -> list[str]:
    return [
        _archive(tmp_path / "old", V1),
        _archive(tmp_path / "new", V2, bodies=2, labels=False),
        _archive(tmp_path / "plain", V1, protocols={}, people=1),
    ]


def test_what_is_in_a_pool(three, tmp_path, capsys):
    report = pool(three, out=str(tmp_path / "pool"))
    archive = Archive.open(tmp_path / "pool")
    assert archive.layout.joints == V1.joints
    assert archive.layout.parents == V1.parents
    assert archive.num_bodies == 2
    assert archive.names[[0, 4, 11]].tolist() == ["old/clip0", "new/clip0", "plain/clip3"]
    assert archive.class_names == ("old/sit", "old/stand", "plain/sit", "plain/stand")
    assert archive.labels.tolist() == [0, 1, 0, 1, -1, -1, -1, -1, 2, 3, 2, 3]
    assert archive.columns["source"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert archive.columns["row"].tolist() == [0, 1, 2, 3] * 3
    assert archive.columns["subject"].tolist() == [1, 2, 3, 4] * 3
    assert archive.meta["recipe"]["normalize"] == "agcn"
    np.testing.assert_array_equal(archive.clip(2)[..., 0], Archive.open(three[0]).clip(2)[..., 0])
    assert not archive.clip(2)[..., 1].any()
    assert "neck, left_hand_tip, left_thumb, right_hand_tip, right_thumb  moved" in capsys.readouterr().out
    assert report.splits == {"pool": (8, 2), "old/x-sub": (2, 1), "new/x-sub": (2, 1), "all": (12, 0)}


def test_no_test_sequence_is_trained_on(three, tmp_path):
    pool(three, out=str(tmp_path / "pool"))
    archive = Archive.open(tmp_path / "pool")
    train, test = archive.split("pool")
    assert train.tolist() == [0, 2, 4, 6, 8, 9, 10, 11]  # all of the archive that has no split; never row 3 and 7
    assert test.tolist() == [1, 5]
    for name, start in (("old", 0), ("new", 4)):
        own_train, own_test = archive.split(f"{name}/x-sub")
        assert (own_train.tolist(), own_test.tolist()) == ([start, start + 2], [start + 1])
        assert not set(own_test) & set(train)


def test_recordings_that_are_in_two_archives_are_not_trained_on_where_one_tests_on_them(tmp_path, capsys):
    """As with NTU-60 and NTU-120, of which the one is in the other: here the second archive trains on rows 1 and 3."""
    other = {"x-set": {"column": "subject", "train": [2, 4], "test": [1, 3]}}
    roots = [
        _archive(tmp_path / "one", V2, dtype="float16"),
        _archive(tmp_path / "two", V2, bodies=2, protocols=other, people=1),
    ]
    pool(roots, out=str(tmp_path / "apart"))
    assert Archive.open(tmp_path / "apart").split("pool")[0].tolist() == [0, 2, 5, 7]  # like names, other motion
    assert "not trained on" not in capsys.readouterr().err
    roots[1] = _archive(tmp_path / "same" / "two", V2, protocols=other)
    pool(roots, out=str(tmp_path / "pool"))
    archive = Archive.open(tmp_path / "pool")
    train, test = archive.split("pool")
    assert (train.tolist(), test.tolist()) == ([7], [1, 4, 6])  # row 3 of the first is on neither side there
    assert archive.split("one/x-sub")[0].tolist() == [0, 2]
    assert archive.split("two/x-set")[0].tolist() == [5, 7]
    assert capsys.readouterr().err == (
        "warning: not trained on in 'pool', because another archive tests on the same recording: "
        "3 sequences: one/clip0, one/clip2, two/clip1\n"
    )


def _named(root: Path, rows: dict[str, int], *, length: int = 5, **recipe) -> Path:
    """An archive of still bodies, each name with the side (1 trains, 2 tests) it is on; recipe as it is given."""
    rule = {"x": {"column": "side", "train": [1], "test": [2]}}
    recipe = {"normalize": "agcn"} | recipe
    with ArchiveWriter(root, layout=V2, num_bodies=1, protocols=rule, recipe=recipe) as writer:
        for number, (name, side) in enumerate(rows.items()):
            joints = np.random.default_rng(number).normal(size=(1, 25, 1, 3)).repeat(length, axis=0)
            writer.add(name, joints, side=side, room=number)
    return root


def test_recordings_of_ntu_are_known_by_name_also_when_cut_and_in_a_pool_of_pools(tmp_path, capsys):
    clips = [f"S001C001P001R001A00{action}" for action in (1, 2, 3)]
    one = _named(tmp_path / "one", dict(zip(clips, (1, 1, 2), strict=True)))
    two = _named(tmp_path / "two", dict(zip(clips, (2, 1, 1), strict=True)), length=4)
    pool([one, two], out=str(tmp_path / "pool"))
    assert "2 sequences: one/S001C001P001R001A001, two/S001C001P001R001A003" in capsys.readouterr().err
    third = _named(tmp_path / "third", {clips[1]: 2})
    pool([tmp_path / "pool", third], out=str(tmp_path / "again"))
    archive = Archive.open(tmp_path / "again")
    names = [{name.rsplit("/", 1)[-1] for name in archive.names[side]} for side in archive.split("pool")]
    assert not names[0] & names[1]


def test_columns_of_text_that_mean_different_things_are_left_out(tmp_path, capsys):
    rooms = [{"column_names": {"room": names}} for names in (["hall", "office"], ["hall", "zoo"])]
    one, two = (_named(tmp_path / name, {"a": 1, "b": 2}, **room) for name, room in zip("pq", rooms, strict=True))
    pool([one, two], out=str(tmp_path / "pool"))
    assert "room" not in Archive.open(tmp_path / "pool").columns
    assert "side" in Archive.open(tmp_path / "pool").columns
    assert "left out, because their numbers mean different things: room" in capsys.readouterr().err


def test_a_moved_centre_is_that_of_the_normalisation(tmp_path):
    """Moving the origin of a normalised sequence gives what normalising it about the new centre would have given."""
    center = V1.joints.index("hip_center")
    pool([_archive(tmp_path / "old", V1), _archive(tmp_path / "new", V2, bodies=2)], out=str(tmp_path / "pool"))
    archive = Archive.open(tmp_path / "pool")
    about_hips = replace(V2, center=(V2.joints.index("spine_base"),))
    order = [V2.places[place] for place in V1.joints]
    for row in range(4):
        expected = normalize_bodies(_bodies(V2, row, 2), about_hips, 2, "agcn")[:, order]
        found = archive.clip(4 + row).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert not found[:, center, 0].any()


def test_absent_bodies_stay_absent(tmp_path):
    for layout, name in ((V1, "old"), (V2, "new")):
        with ArchiveWriter(
            tmp_path / name, layout=layout, num_bodies=2, recipe={"normalize": "agcn"}, dtype="float32"
        ) as writer:
            bodies = _bodies(layout, 5, 2)
            bodies[4:, 1] = bodies[6:, 0] = 0
            writer.add("clip", normalize_bodies(bodies, layout, 2, "none"))
    pool([str(tmp_path / "old"), str(tmp_path / "new")], out=str(tmp_path / "pool"))
    moved = Archive.open(tmp_path / "pool").clip(1)
    assert moved[:, :, :, 0].any(axis=(1, 2)).tolist() == [True] * 6 + [False] * 4
    assert moved[:, :, :, 1].any(axis=(1, 2)).tolist() == [True] * 4 + [False] * 6


def test_equal_layouts_are_kept_whole(tmp_path):
    pool([_archive(tmp_path / "a", V2), _archive(tmp_path / "b", V2)], out=str(tmp_path / "pool"))
    assert Archive.open(tmp_path / "pool").layout == V2


def test_the_split_that_counts_can_be_chosen(tmp_path):
    rules = {name: {"column": "subject", "train": [train]} for name, train in (("first", 1), ("second", 2))}
    roots = [_archive(tmp_path / name, V1, protocols=rules, people=ord(name)) for name in ("a", "b")]
    pool(roots, out=str(tmp_path / "pool"), protocol="b:second")
    archive = Archive.open(tmp_path / "pool")
    assert archive.protocols == ("pool", "a/first", "b/second", "all")
    assert archive.split("pool")[0].tolist() == [0, 5]
    for text, message in (
        ("second", "expected NAME:SPLIT"),
        ("c:first", "NAME one of a, b"),
        ("b:third", "no protocol"),
    ):
        with pytest.raises(UsageError, match=message):
            pool(roots, out=str(tmp_path / "other"), protocol=text)


def test_shared_joints_of_packaged_layouts():
    layouts = {name: SkeletonLayout.of(name) for name in ("kinect-v2", "florence3d", "utd-mhad")}
    shared, joints = shared_layout(layouts)
    assert shared.num_joints == 15
    assert shared.joints[shared.center[0]] == "spine_mid"
    by_index = sorted(shared.places, key=shared.places.__getitem__)
    for name, own in layouts.items():
        assert len(joints[name]) == 15
        assert [own.places[place] for place in by_index] == joints[name]
    assert shared.joints[shared.parents[shared.joints.index("left_hip")]] == "spine_mid"
    assert shared.joints[shared.mirror[shared.joints.index("left_knee")]] == "right_knee"


def test_declared_mirror_pairs_are_kept():
    names = ["hips", "chest", "l_arm", "r_arm", "l_leg", "r_leg", "tail"]
    pairs = [["l_arm", "r_arm"], ["l_leg", "r_leg"]]

    def layout(joints: list[str], mirror: list[list[str]] | None) -> SkeletonLayout:
        groups = {"center": ["chest"], "spine": ["hips", "chest"], "shoulders": ["l_arm", "r_arm"]}
        return SkeletonLayout.of(
            {"name": "own", "joints": joints, "parents": [0] * len(joints), "mirror": mirror} | groups
        )

    whole, without_tail = layout(names, pairs), layout(["r_arm", "hips", "r_leg", "chest", "l_arm"], pairs[:1])
    shared, _ = shared_layout({"whole": whole, "fewer": without_tail})
    assert shared.joints == ("hips", "chest", "l_arm", "r_arm", "r_leg")
    assert shared.mirror == (0, 1, 3, 2, 4)
    other, _ = shared_layout({"undeclared": layout(names[:4], None), "whole": whole})
    assert other.mirror == (0, 1, 3, 2)
    assert shared_layout({"v1": V1, "v2": V2})[0].mirror_pairs is None  # the names tell


def test_parents_are_linked_past_joints_that_fall_away():
    few = SkeletonLayout.of(
        {
            "name": "few", "joints": ["head", "left_shoulder", "right_shoulder", "left_hand", "spine", "hip_center"],
            "parents": [4, 4, 4, 1, 5, 5], "center": ["spine"], "spine": ["hip_center", "spine"],
            "shoulders": ["left_shoulder", "right_shoulder"],
        }
    )  # fmt: skip
    shared, _ = shared_layout({"v1": V1, "few": few})
    links = {shared.joints[child]: shared.joints[parent] for child, parent in enumerate(shared.parents)}
    assert links == {
        "hip_center": "hip_center", "spine": "hip_center", "head": "spine", "left_shoulder": "spine",
        "left_hand": "left_shoulder", "right_shoulder": "spine",
    }  # fmt: skip


@pytest.mark.parametrize("name", packaged_layouts())
def test_places_of_packaged_layouts(name):
    layout = SkeletonLayout.of(name)
    found = layout.places
    assert sorted(found.values()) == list(range(layout.num_joints))
    for place, others in SAME_PLACE.items():
        assert place in found or not set(others) & set(found)


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (SkeletonLayout.of("sbu-15"), {}, "units differ: a metre, b normalised"),
        (V1, {"recipe": "upright"}, "normalised in different ways: a agcn, b upright\nprepare them alike"),
        (SkeletonLayout.of("sfinge3d"), {}, r"share 0 joints \(none\), too few to align them: a needs hip_center, "),
        (
            replace(V1, shoulders=V1.shoulders[::-1], name="turned"),
            {},
            r"b is turned by other shoulders \(layout turned\)",
        ),
    ],
)
def test_archives_that_do_not_fit(tmp_path, layout, options, message):
    roots = [_archive(tmp_path / "a", V1), _archive(tmp_path / "b", layout, **options)]
    with pytest.raises(DataError, match=message):
        pool(roots, out=str(tmp_path / "pool"))
    assert not (tmp_path / "pool").exists()


def test_wrong_lists_of_archives(tmp_path):
    root = _archive(tmp_path / "a", V1)
    with pytest.raises(UsageError, match="1 archive to pool; expected two or more"):
        pool([root], out=str(tmp_path / "pool"))
    with pytest.raises(UsageError, match="two archives are called a"):
        pool([root, _archive(tmp_path / "b" / "a", V1)], out=str(tmp_path / "pool"))
    content = bytearray((tmp_path / "a" / "frames.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a" / "frames.npy").write_bytes(content)
    with pytest.raises(DataError, match="wrong checksum"):
        pool([root, str(tmp_path / "b" / "a")], out=str(tmp_path / "pool"))


def test_from_the_command_line(three, tmp_path, capsys):
    out = tmp_path / "pool"
    assert main(["prepare", "pool", *three[:2], "--out", str(out), "--overwrite"]) == 0
    assert main(["prepare", "pool", "--out", str(out), *three]) == 1
    assert "exists already" in capsys.readouterr().err
    assert len(Archive.open(out)) == 8
