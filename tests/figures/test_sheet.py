"""The sheet of skeleton strips: who is drawn, where, and that every body model can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from prosl_lightning.data.inspection import Inspection, Strip, inspect_source
from prosl_lightning.data.source import RawSequence, Source
from prosl_lightning.errors import DataError
from prosl_lightning.figures import sheet
from prosl_lightning.figures.sheet import project, strip_sheet, write_sheet
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts

KINECT = SkeletonLayout.of("kinect-v2")


def _body(heading: float = 0.0) -> np.ndarray:
    """A body (V, C) as the sensor sees it, y up, turned by an angle about y; shoulders 0.4 m, spine 0.6 m."""
    body = np.random.default_rng(0).normal(size=(25, 3)) * [0.1, 0.3, 0.1]
    body[[0, 1, 20]] = [[0, -0.3, 0], [0, 0.0, 0], [0, 0.3, 0]]
    body[[4, 8]] = [[-0.2, 0.25, 0], [0.2, 0.25, 0]]
    cosine, sine = np.cos(heading), np.sin(heading)
    return body @ np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]]).T + np.array([0.5, 0.2, 3.0])


def _inspection(labels: list[int], class_names: tuple[str, ...] = (), layout: SkeletonLayout = KINECT) -> Inspection:
    draw = np.random.default_rng(1)
    rest = draw.normal(size=(1, 2, layout.num_joints, 3)) * 0.3

    def read(number: int) -> RawSequence:
        sway = 0.1 * np.sin(np.arange(20) / 3)[:, None, None, None]
        return RawSequence("file", f"clip{number}", rest[:, : 1 + number % 2] + sway, label=labels[number])

    return inspect_source(Source(Path("set"), "ours", layout, 2, range(len(labels)), read, class_names=class_names))


def _drawn(figure) -> list[tuple[str, list[LineCollection]]]:
    """Title and bodies (one collection each, of all frames) of every strip."""
    (axes,) = figure.axes
    strips = [(text.get_text(), []) for text in axes.texts[1:]]
    places = [text.get_position() for text in axes.texts[1:]]
    for body in (item for item in axes.collections if item.get_alpha() is not None):
        x, y = np.concatenate(body.get_segments()).mean(axis=0)
        cell = [0 <= x - left + 0.06 < 5.2 and 0 <= top + 0.04 - y < 1.35 for left, top in places]
        strips[cell.index(True)][1].append(body)
    return strips


def test_one_strip_a_class_with_its_name_and_number():
    drawn = _drawn(strip_sheet(_inspection([2, 0, 2, 2], ("wave", "bow", "clap"))))
    assert [title for title, _ in drawn] == ["0  wave  (1 sequence)", "2  clap  (3 sequences)"]
    assert [len(bodies) for _, bodies in drawn] == [2, 1]
    assert all(len(body.get_segments()) == 6 * len(KINECT.bones) for _, bodies in drawn for body in bodies)


def test_sides_have_colours_and_the_second_body_is_paler():
    (_, bodies), *_ = _drawn(strip_sheet(_inspection([5, 0])))
    assert len({tuple(colour[:3]) for colour in bodies[0].get_colors()}) == 3
    assert bodies[0].get_alpha() == 1.0
    assert bodies[1].get_alpha() < 0.6


def test_sides_follow_the_mirror_pairs_whatever_the_joints_are_called():
    names = ["hips", "chest", "l_arm", "r_arm", "WristRight", "WristLeft", "fin1", "fin2", "tail"]
    spec = {
        "name": "own", "joints": names, "parents": [0, 0, 1, 1, 3, 2, 0, 0, 0], "center": ["hips"],
        "spine": ["hips", "chest"], "shoulders": ["l_arm", "r_arm"],
        "mirror": [["l_arm", "r_arm"], ["WristRight", "WristLeft"], ["fin2", "fin1"]],
    }  # fmt: skip
    found = dict(zip(names, sheet.joint_colours(SkeletonLayout.of(spec)), strict=True))
    left = {name for name, colour in found.items() if colour == sheet._LEFT}
    right = {name for name, colour in found.items() if colour == sheet._RIGHT}
    assert (left, right) == ({"l_arm", "WristLeft", "fin2"}, {"r_arm", "WristRight", "fin1"})
    sides = sheet.joint_colours(KINECT)
    assert all(
        sides[joint] == (sheet._LEFT if name.startswith("left_") else sheet._RIGHT)
        for joint, name in enumerate(KINECT.joints)
        if "_" in name and name.split("_")[0] in ("left", "right")
    )


def test_names_that_look_like_formulas_are_written_as_they_are(tmp_path):
    inspection = _inspection([0, 1], (r"$\frac$", "a_$x"))
    inspection.path = Path(r"$\oops$")
    write_sheet(inspection, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_a_sheet_stays_of_a_size_that_can_be_looked_at():
    figure = strip_sheet(_inspection(list(range(300))))
    assert len(_drawn(figure)) == 180
    assert figure.axes[0].texts[0].get_text().endswith(", 180 of 300 classes")
    assert figure.get_size_inches()[0] * sheet._DPI < 7000
    assert "classes" not in strip_sheet(_inspection([0, 1])).axes[0].texts[0].get_text()


def test_many_classes_fill_several_columns():
    figure = strip_sheet(_inspection(list(range(60))))
    assert [title.split()[0] for title, _ in _drawn(figure)] == [str(number) for number in range(60)]
    assert figure.get_size_inches() == pytest.approx([4 * 5.2, 15 * 1.35 + 0.4])
    places = np.array([text.get_position() for text in figure.axes[0].texts[1:]])
    assert (np.diff(places[:15, 1]) < 0).all()  # columns are filled from top to bottom
    np.testing.assert_allclose(places[15] - places[0], [5.2, 0])


def test_nobody_leaves_his_cell():
    _, (_, (one, two)) = drawn = _drawn(strip_sheet(_inspection([0, 1])))
    for body in (drawn[0][1][0], one, two):
        points = np.array(body.get_segments()).reshape(6, -1, 2)
        for number, frame in enumerate(points):
            assert number * 5.2 / 6 <= frame[:, 0].min() < frame[:, 0].max() <= (number + 1) * 5.2 / 6
            assert np.ptp(frame[:, 1]) <= 1.05


@pytest.mark.parametrize("heading", [0.0, 1.0, 3.0])
def test_a_body_is_seen_upright_from_its_own_front_whatever_its_heading(heading):
    frames = np.stack([_body(heading), _body(heading + 0.8)])[:, None].transpose(0, 3, 2, 1).astype(np.float32)
    points, there = project(KINECT, frames)
    assert there.all()
    np.testing.assert_allclose(points[0, 0, 8] - points[0, 0, 4], [0.4, 0], atol=1e-5)
    np.testing.assert_allclose(points[0, 0, 20] - points[0, 0, 0], [0, 0.6], atol=1e-5)
    turned = points[1, 0, 8] - points[1, 0, 4]  # the plane stays that of the first frame, so a turn is seen
    assert turned[0] == pytest.approx(0.4 * np.cos(0.8), abs=1e-5)


def test_two_bodies_stand_side_by_side():
    pair = np.stack([_body(0.0), _body(np.pi) + np.array([0, 0, 1.0])])  # one behind the other, face to face
    points, _ = project(KINECT, pair[None].transpose(0, 3, 2, 1).astype(np.float32))
    first, second = points[0, :, :, 0].mean(axis=1)
    assert second - first == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", packaged_layouts())
def test_every_layout_can_be_drawn(name, tmp_path):
    layout = SkeletonLayout.of(name)
    inspection = _inspection([0, 1, -1], layout=layout)
    assert [title for title, _ in _drawn(strip_sheet(inspection))] == [
        "0  class 0  (1 sequence)",
        "1  class 1  (1 sequence)",
        "clip2",
    ]
    write_sheet(inspection, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_lines_without_direction_are_drawn_somehow():
    inspection = _inspection([0])
    point = np.zeros((2, 3, 25, 1), dtype=np.float32)
    point[:, 2] = 3.0
    inspection.strips = [Strip("point", 0, point)]
    ((_, bodies),) = _drawn(strip_sheet(inspection))
    assert np.isfinite(np.concatenate([np.concatenate(body.get_segments()) for body in bodies])).all()


def test_nobody_to_draw(tmp_path):
    inspection = _inspection([0])
    inspection.strips = []
    with pytest.raises(DataError, match="set: nobody is in any sequence"):
        write_sheet(inspection, tmp_path / "sheet.png")
