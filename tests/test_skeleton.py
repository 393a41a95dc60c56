"""Body models: the packaged ones are sound, one's own are checked."""

from __future__ import annotations

import pytest

from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts

NTU_BONES_FROM_1 = """(1,2) (2,21) (3,21) (4,3) (5,21) (6,5) (7,6) (8,7) (9,21) (10,9) (11,10) (12,11) (13,1) (14,13)
(15,14) (16,15) (17,1) (18,17) (19,18) (20,19) (22,23) (23,8) (24,25) (25,12)"""
KINECT_V1_BONES = """(1,0) (2,1) (3,2) (4,2) (5,4) (6,5) (7,6) (8,2) (9,8) (10,9) (11,10) (12,0) (13,12) (14,13) (15,14)
(16,0) (17,16) (18,17) (19,18)"""
UTD_BONES = """(0,1) (2,1) (3,2) (4,1) (5,4) (6,5) (7,6) (8,1) (9,8) (10,9) (11,10) (12,3) (13,12) (14,13) (15,14)
(16,3) (17,16) (18,17) (19,18)"""
SBU_BONES = "(0,1) (1,2) (3,1) (4,3) (5,4) (6,1) (7,6) (8,7) (9,2) (10,9) (11,10) (12,2) (13,12) (14,13)"


def _pairs(text: str, first: int = 0) -> set[frozenset[int]]:
    numbers = [pair.strip("()").split(",") for pair in text.split()]
    return {frozenset((int(a) - first, int(b) - first)) for a, b in numbers}


@pytest.mark.parametrize("name", packaged_layouts())
def test_packaged_layouts_are_sound(name):
    layout = SkeletonLayout.of(name)
    joints = range(layout.num_joints)
    assert layout.name == name
    assert [layout.mirror[layout.mirror[joint]] for joint in joints] == list(joints)
    for joint in joints:  # every chain of parents ends in a root: no cycle
        for _ in joints:
            joint = layout.parents[joint]
        assert layout.parents[joint] == joint
    assert len(layout.bones) == layout.num_joints - 1
    assert layout.spine[0] != layout.spine[1]
    if name != "sfinge3d":  # a hand has no other side
        assert sum(layout.mirror[joint] != joint for joint in joints) >= 12
        for joint in joints:
            side = layout.joints[joint].split("_")[0]
            assert (layout.mirror[joint] == joint) == (side not in ("left", "right"))
            if joint != layout.mirror[joint]:  # both sides hang on mirrored parents
                assert layout.mirror[layout.parents[joint]] == layout.parents[layout.mirror[joint]]
        assert all(layout.joints[joint].startswith("left_") for joint in layout.shoulders[0])
        assert tuple(layout.mirror[joint] for joint in layout.shoulders[0]) == layout.shoulders[1]
    assert SkeletonLayout.of(layout.to_dict()) == layout
    assert layout.to_plain() == name


def test_kinect_v2_has_the_published_bones_and_mirror():
    layout = SkeletonLayout.of("kinect-v2")
    published = [tuple(int(n) - 1 for n in pair.strip("()").split(",")) for pair in NTU_BONES_FROM_1.split()]
    assert list(layout.bones) == published
    assert layout.parents[20] == 20
    mirror = "0 1 2 3 8 9 10 11 4 5 6 7 16 17 18 19 12 13 14 15 20 23 24 21 22"
    assert list(layout.mirror) == [int(joint) for joint in mirror.split()]
    assert (layout.center, layout.spine, layout.shoulders) == ((1,), ((0,), (1,)), ((4,), (8,)))


@pytest.mark.parametrize(
    ("name", "bones"),
    [("kinect-v1", KINECT_V1_BONES), ("utd-mhad", UTD_BONES), ("sbu-15", SBU_BONES), ("florence3d", SBU_BONES)],
)
def test_other_bodies_have_the_published_bones(name, bones):
    assert {frozenset(bone) for bone in SkeletonLayout.of(name).bones} == _pairs(bones)


@pytest.mark.parametrize(
    ("name", "parents"),
    [
        ("ui-prmd", "-1 0 1 2 3 4 2 6 7 8 2 10 11 12 0 14 15 16 0 18 19 20"),
        ("bandai-namco", "-1 0 1 2 3 2 5 6 7 2 9 10 11 0 13 14 15 0 17 18 19"),
    ],
)
def test_recorded_trees_are_kept(name, parents):
    expected = [max(int(parent), 0) for parent in parents.split()]
    assert list(SkeletonLayout.of(name).parents) == expected


OWN = {"joints": ["root", "left_hand", "right_hand"], "parents": ["root", "root", 0], "center": "root",
       "spine": ["root", "left_hand"], "shoulders": ["left_hand", ["right_hand"]]}  # fmt: skip


def test_ones_own_layout_from_data_and_from_a_file(tmp_path):
    layout = SkeletonLayout.of(OWN)
    assert layout.parents == (0, 0, 0)
    assert layout.mirror == (0, 2, 1)
    assert layout.to_plain()["name"] == "unnamed"
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join(f"{key}: {value}" for key, value in OWN.items()))
    assert SkeletonLayout.of(str(file)).joints == layout.joints
    assert SkeletonLayout.of(file).name == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": ["root"]}, "3 joints but 1 parents"),
        ({"center": "hip"}, "names joint 'hip'"),
        ({"center": 3}, "names joint '3'"),
        ({"joints": ["root", "root", "b"]}, "a joint name twice"),
        ({"spine": ["root"]}, "spine must be two groups"),
        ({"joints": "root"}, "joints must be a list, found 'root'"),
        ({"parents": None}, "parents must be a list"),
        ({"parents": [0, 2, 1]}, "the parents of joint 'left_hand' lead back to it and to no root"),
        ({"mirror": [["left_hand"]]}, "mirror must be a list of joint pairs"),
        ({"mirror": [["left_hand", "root"], ["root", "right_hand"]]}, "no joint in two of them"),
        ({"mirror": [["left_hand", "foot"]]}, "names joint 'foot'"),
        ({"joints": [], "parents": []}, "has no joints"),
        ({"center": []}, "a group of joints is empty; center, spine and shoulders need joints"),
        ({"spine": [[], "left_hand"]}, "a group of joints is empty"),
        ({"shoulders": ["left_hand", []]}, "a group of joints is empty"),
        ({"unit": "millimetre"}, "unit is 'millimetre'; expected metre or normalised"),
    ],
)
def test_wrong_layouts_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        SkeletonLayout.of(OWN | change)


def test_missing_keys_and_unknown_names_are_told(tmp_path):
    with pytest.raises(DataError, match="lacks center, spine"):
        SkeletonLayout.of({key: OWN[key] for key in ("joints", "parents", "shoulders")})
    with pytest.raises(UsageError, match="unknown layout 'kinect-v3': packaged are .*kinect-v1, kinect-v2"):
        SkeletonLayout.of("kinect-v3")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="binary.yaml: cannot be read"):
        SkeletonLayout.of(tmp_path / "binary.yaml")
    (tmp_path / "broken.yaml").write_text("joints: [a")
    with pytest.raises(DataError, match="not valid YAML"):
        SkeletonLayout.of(tmp_path / "broken.yaml")


def test_mirror_pairs_can_be_given(tmp_path):
    spec = OWN | {
        "joints": ["root", "hand.L", "hand.R"],
        "spine": ["root", "hand.L"],
        "shoulders": ["hand.L", "hand.R"],
    }
    assert SkeletonLayout.of(spec).mirror == (0, 1, 2)  # names without left_ and right_ say nothing
    layout = SkeletonLayout.of(spec | {"mirror": [["hand.L", "hand.R"]]})
    assert layout.mirror == (0, 2, 1)
    assert layout.to_plain()["mirror"] == [[1, 2]]
    assert SkeletonLayout.of(layout.to_dict()) == layout
    assert SkeletonLayout.of(OWN | {"mirror": []}).mirror == (0, 1, 2)  # none, whatever the names say
    assert "mirror" not in SkeletonLayout.of(OWN).to_dict()
