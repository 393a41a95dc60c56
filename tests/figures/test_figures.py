"""Figures: what they show, not how they look."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
from matplotlib.colors import to_rgba
from pytorch_lightning.loggers import CSVLogger

from prosl_lightning import ProSLModule, SkeletonDataModule
from prosl_lightning.errors import UsageError
from prosl_lightning.figures.callback import FigureLogger
from prosl_lightning.figures.skeletons import default_pose, joint_importance_figure
from prosl_lightning.figures.training import cluster_sizes_figure
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts


def _dots(figure):
    (dots,) = (c for c in figure.axes[0].collections if len(c.get_offsets()))
    return np.asarray(dots.get_offsets()), np.asarray(dots.get_array())


@pytest.mark.parametrize("name", packaged_layouts())
def test_every_layout_can_be_drawn(name):
    layout = SkeletonLayout.of(name)
    pose = default_pose(layout)
    assert len(np.unique(pose, axis=0)) == layout.num_joints  # no joint hides another
    importance = np.arange(layout.num_joints, dtype=float)
    figure = joint_importance_figure(layout, importance, title="mine")
    offsets, colours = _dots(figure)
    assert np.array_equal(offsets, pose)
    assert np.allclose(colours, importance / importance.max())  # colours tell proportions
    assert len(figure.axes[0].lines) == len(layout.bones)
    named = {text.get_text() for text in figure.axes[0].texts}
    assert named == {joint.replace("_", " ") for joint in layout.joints[-5:]}
    assert figure.axes[0].get_title() == "mine"


def test_a_pose_is_drawn_upright_whatever_its_frame_of_reference():
    layout = SkeletonLayout.of("kinect-v2")
    flat = default_pose(layout)
    body = np.stack([flat[:, 0], np.zeros(25), flat[:, 1]], axis=1)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    offsets, _ = _dots(joint_importance_figure(layout, np.ones(25), body @ turn.T))
    assert np.allclose(offsets, flat, atol=1e-12)


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
    assert axes.get_title() == "4 clusters of 6 sequences, 1 empty"
    assert axes.patches[0].get_facecolor() == to_rgba("#0072B2")


class _Album(CSVLogger):
    """A logger that takes images."""

    def __init__(self, folder):
        super().__init__(folder)
        self.images = []

    def log_image(self, key, images, step):
        self.images.append((key, step, [image.shape for image in images]))


@pytest.mark.parametrize("importance", ["dataset", "sample"])
def test_figures_of_the_codebook_reach_loggers_that_take_images(tmp_path, tiny_archive, tiny_options, importance):
    album, plain = _Album(tmp_path), CSVLogger(tmp_path, name="plain")
    pl.Trainer(
        default_root_dir=tmp_path, max_epochs=4, accelerator="cpu", logger=[plain, album], log_every_n_steps=2,
        callbacks=[FigureLogger(every_n_epochs=2)], enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False,
    ).fit(
        ProSLModule(**tiny_options | {"importance": importance}),
        datamodule=SkeletonDataModule(str(tiny_archive), batch_size=8),
    )  # fmt: skip
    # Semantic epochs are 1, 2 and 3, of four steps each
    shapes = {"figures/joint_importance": [(600, 500, 4)], "figures/cluster_sizes": [(360, 600, 4)]}
    assert album.images == [(key, step, shape) for step in (8, 16) for key, shape in shapes.items()]
    with pytest.raises(UsageError, match="every_n_epochs is 0"):
        FigureLogger(0)
