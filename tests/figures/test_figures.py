"""Figures of importance and of cluster sizes: what they show, not how they look."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.colors import to_rgba
from pytorch_lightning.loggers import CSVLogger

import prosl_lightning.figures as figures
from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.figures.callback import FigureLogger
from prosl_lightning.figures.codebook import cluster_sizes_figure
from prosl_lightning.figures.importance import Body, importance_grid_figure, joint_importance_figure
from prosl_lightning.figures.skeletons import can_stand, default_pose
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts


def _dots(axes):
    (dots,) = (c for c in axes.collections if len(c.get_offsets()))
    return np.asarray(dots.get_offsets()), np.asarray(dots.get_array())


def _rows(array):
    """Rows in an order that does not depend on the order of drawing."""
    return array[np.lexsort(np.asarray(array).T)]


def test_public_names_exist():
    for name in figures.__all__:
        assert callable(getattr(figures, name)), name
        assert getattr(figures, name).__module__.startswith("prosl_lightning.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = figures.nothing
    assert set(figures.__all__) <= set(dir(importlib.import_module("prosl_lightning.figures")))


@pytest.mark.parametrize("name", packaged_layouts())
def test_every_layout_can_be_drawn(name, legible):
    layout = SkeletonLayout.of(name)
    pose = default_pose(layout)
    assert len(np.unique(pose, axis=0)) == layout.num_joints  # no joint hides another
    importance = np.arange(layout.num_joints, dtype=float)
    figure = joint_importance_figure(layout, importance, title="mine")
    offsets, colours = _dots(figure.axes[0])
    assert np.array_equal(offsets, pose)  # drawn from the least important to the most important
    assert np.allclose(colours, importance / importance.max())  # colours tell proportions
    assert len(figure.axes[0].lines) == len(layout.bones)
    named = {text.get_text() for text in figure.axes[0].texts}
    assert named == {joint.replace("_", " ") for joint in layout.joints[-5:]}
    assert figure.axes[0].get_title() == "mine"
    assert named < set(legible(figure))
    assert can_stand(layout) == (name != "sfinge3d")  # a hand


def test_a_hand_grows_from_its_root_and_lines_to_names_keep_off_other_joints(legible):
    layout = SkeletonLayout.of("sfinge3d")
    points = default_pose(layout)
    root = next(joint for joint, parent in enumerate(layout.parents) if joint == parent)
    assert (np.delete(points[:, 1], root) > points[root, 1]).all()  # the root below
    for seed in range(5):
        figure = joint_importance_figure(layout, np.random.default_rng(seed).random(layout.num_joints))
        legible(figure)
        for text in figure.axes[0].texts:
            start, end = np.array(text.xy), np.array(text.xyann)
            others = points[np.linalg.norm(points - start, axis=1) > 1e-9]
            along = np.linspace(0, 1, 200)[:, None] * (end - start) + start
            assert np.linalg.norm(others[:, None] - along, axis=-1).min() > 0.025 * np.ptp(points[:, 1])


def test_tiny_coefficients_keep_their_proportions_and_none_at_all_are_pale():
    layout = SkeletonLayout.of("kinect-v2")
    values = np.arange(25.0)
    for scale in (1.0, 1e-13, 1e-300):
        _, colours = _dots(joint_importance_figure(layout, values * scale).axes[0])
        np.testing.assert_allclose(colours, values / 24)
    _, colours = _dots(importance_grid_figure(layout, [Body("", np.zeros(25)), Body("", values)]).axes[0])
    assert not colours.any()


def test_the_colour_bar_keeps_off_the_last_of_two_bodies():
    layout = SkeletonLayout.of("kinect-v2")
    figure = importance_grid_figure(layout, [Body("a", np.arange(25.0)), Body("b", np.arange(25.0))])
    figure.draw_without_rendering()
    last = figure.axes[1].transData.transform(default_pose(layout))[:, 0].max()
    assert figure.axes[2].get_window_extent().x0 - last > 0.25 * figure.dpi


def test_a_pose_is_drawn_upright_whatever_its_frame_of_reference():
    layout = SkeletonLayout.of("kinect-v2")
    flat = default_pose(layout)
    body = np.stack([flat[:, 0], np.zeros(25), flat[:, 1]], axis=1)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    offsets, _ = _dots(joint_importance_figure(layout, np.ones(25), body @ turn.T).axes[0])
    assert np.allclose(offsets, flat, atol=1e-12)


def test_many_bodies_each_have_their_own_scale_and_names(legible):
    layout = SkeletonLayout.of("kinect-v2")
    draw = np.random.default_rng(0)
    values = draw.random((8, 25)) * 10.0 ** np.arange(8)[:, None]
    titles = [f"cluster {n}: 1,234 sequences\n71 % put on a pair of glas…" for n in range(8)]
    bodies = [Body(title, value) for title, value in zip(titles, values, strict=True)]
    figure = importance_grid_figure(layout, bodies, title="Semantic coefficients", note="of 16 each")
    assert [axes.get_title() for axes in figure.axes[:8]] == titles
    for axes, value in zip(figure.axes, values, strict=False):
        offsets, colours = _dots(axes)
        assert np.allclose(colours, np.sort(value) / value.max())
        assert np.array_equal(offsets, default_pose(layout)[np.argsort(value)])
        strongest = [layout.joints[joint].replace("_", " ") for joint in np.argsort(value)[::-1][:3]]
        assert axes.texts[0].get_text().split("\n") == strongest
    assert set(titles) < set(legible(figure))
    with pytest.raises(UsageError, match="no body"):
        importance_grid_figure(layout, [])


def test_wrong_shapes_are_named():
    layout = SkeletonLayout.of("kinect-v2")
    with pytest.raises(UsageError, match=r"importance has shape \(20,\); layout 'kinect-v2' needs \(25,\)"):
        joint_importance_figure(layout, np.ones(20))
    with pytest.raises(UsageError, match=r"pose has shape \(25, 2\); layout 'kinect-v2' needs \(25, 3\)"):
        joint_importance_figure(layout, np.ones(25), np.ones((25, 2)))
    with pytest.raises(UsageError, match="labels from 0 to 4; 4 clusters need labels from 0 to 3"):
        cluster_sizes_figure([0, 4], 4)
    with pytest.raises(UsageError, match="no sample"):
        cluster_sizes_figure([], 4)


def test_cluster_sizes_are_sorted_and_complete():
    figure = cluster_sizes_figure([2, 2, 2, 0, 0, 1], 4)
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [3, 2, 1, 0]
    assert axes.lines[0].get_ydata()[0] == 1.5
    assert axes.get_title(loc="left") == "4 clusters of 6 sequences, 1 empty"
    assert axes.patches[0].get_facecolor() == to_rgba("#0072B2")


class _Album(CSVLogger):
    """A logger that takes images."""

    def __init__(self, folder):
        super().__init__(folder)
        self.images = []

    def log_image(self, key, images, step):
        self.images.append((key, step, [image.shape for image in images]))


def _fit(folder, archive, options, callbacks, loggers):
    pl.seed_everything(0, verbose=False)
    module = ProSLModule(**options)
    pl.Trainer(
        default_root_dir=folder, max_epochs=4, accelerator="cpu", logger=loggers, log_every_n_steps=2,
        callbacks=callbacks, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    ).fit(module, datamodule=SkeletonDataModule(str(archive), batch_size=8))  # fmt: skip
    return module


@pytest.mark.parametrize("importance", ["dataset", "sample"])
def test_figures_reach_loggers_that_take_images_and_leave_the_training_alone(
    tmp_path, tiny_archive, tiny_options, importance
):
    album, options = _Album(tmp_path), tiny_options | {"importance": importance}
    drawn = _fit(tmp_path, tiny_archive, options, [FigureLogger(2, 30)], [CSVLogger(tmp_path, name="plain"), album])
    # Semantic epochs are 1, 2 and 3, of four steps each; drawn in 1 and 3
    keys = ["features", "joint_importance", "cluster_sizes"]
    assert [(key, step) for key, step, _ in album.images] == [
        (f"figures/{key}", step) for step in (8, 16) for key in keys
    ]
    assert all(shape[2] == 4 and min(shape[:2]) > 300 for _, _, shapes in album.images for shape in shapes)
    alone = _fit(tmp_path, tiny_archive, options, [], False)
    assert all(torch.equal(weight, alone.state_dict()[name]) for name, weight in drawn.state_dict().items())


def test_the_map_is_drawn_before_the_semantic_stage_too_and_can_be_left_out(tmp_path, tiny_archive, tiny_options):
    album = _Album(tmp_path)
    _fit(tmp_path, tiny_archive, tiny_options | {"semantic_start": 3}, [FigureLogger(3, 30)], [album])
    assert [(key, step) for key, step, _ in album.images if key == "figures/features"] == [
        ("figures/features", 4), ("figures/features", 16)
    ]  # fmt: skip
    without = _Album(tmp_path)
    _fit(tmp_path, tiny_archive, tiny_options | {"semantic": False}, [FigureLogger(1, 0)], [without])
    assert without.images == []


def test_a_third_branch_that_needs_no_importance_has_no_picture_of_it(tmp_path, tiny_archive, tiny_options):
    album = _Album(tmp_path)
    _fit(tmp_path, tiny_archive, tiny_options | {"third_branch": "none"}, [FigureLogger(2, 0)], [album])
    assert {key for key, _, _ in album.images} == {"figures/cluster_sizes"}


def test_options_of_the_callback_are_checked():
    with pytest.raises(UsageError, match="every_n_epochs is 0"):
        FigureLogger(0)
    with pytest.raises(UsageError, match="map_sequences is 3; it must be 0 or at least 10"):
        FigureLogger(map_sequences=3)
