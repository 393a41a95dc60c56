"""Animations: who is drawn where in which frame, what is hidden, and what is written."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from PIL import Image

from prosl_lightning.data.archive import Archive
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.figures import animation as animation_module
from prosl_lightning.figures.animation import Clip, check_format, skeleton_animation, write_animation
from prosl_lightning.figures.clips import mask_clips, mask_weights, sequence_clip, view_clips
from prosl_lightning.seeds import generator
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts
from prosl_lightning.views import centre_view

KINECT = SkeletonLayout.of("kinect-v2")


def _walk(layout=KINECT, frames=8, bodies=2):
    rest = np.random.default_rng(0).normal(size=(1, 3, layout.num_joints, bodies)) * 0.3
    return (rest + np.linspace(0, 1, frames)[:, None, None, None] * [[[[0.5]], [[0.0]], [[0.2]]]]).astype(np.float32)


def _artists(axes):
    lines = [each for each in axes.collections if isinstance(each, LineCollection)]
    return lines, [each for each in axes.collections if not isinstance(each, LineCollection)]


def test_every_frame_shows_the_bodies_where_they_are_and_nobody_who_is_absent():
    frames = _walk()
    frames[5:, ..., 1] = 0
    shown = skeleton_animation(KINECT, [Clip("walk", frames)])
    axes = shown.figure.axes[0]
    lines, dots = _artists(axes)
    places = []
    for frame in range(8):
        shown.show(frame)
        places.append(np.array(dots[0].get_offsets()))
        segments = np.array(lines[0].get_segments())
        np.testing.assert_allclose(segments, [places[-1][list(bone)] for bone in KINECT.bones])
        assert len(lines[1].get_segments()) == (len(KINECT.bones) if frame < 5 else 0)
        assert np.isnan(dots[1].get_offsets()).all() == (frame >= 5)
        assert axes.texts[0].get_text() == f"frame {frame + 1} of 8"
    steps = np.diff(places, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0, 0], steps.shape), atol=1e-6)  # one camera for all frames
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    assert (np.array(places) > low).all()
    assert (np.array(places) < high).all()
    assert dots[1].get_alpha() < dots[0].get_alpha()


def test_hidden_joints_are_hollow_and_grey_and_removed_ones_are_not_there():
    hidden, removed = [7, 22], [11]
    shown = skeleton_animation(KINECT, [Clip("masked", _walk(bodies=1), hidden, removed)])
    (lines,), (dots,) = _artists(shown.figure.axes[0])
    kept = [joint for joint in range(25) if joint not in removed]
    hollow = [joint for joint, face in zip(kept, dots.get_facecolor(), strict=True) if to_hex(face) == "#ffffff"]
    assert hollow == hidden
    bones = [bone for bone in KINECT.bones if 11 not in bone]
    assert len(bones) < len(KINECT.bones)
    assert len(lines.get_segments()) == len(bones)
    grey = [bone for bone, colour in zip(bones, lines.get_colors(), strict=True) if to_hex(colour) == "#9a9a9a"]
    assert grey == [bone for bone in bones if set(bone) & set(hidden)]


@pytest.mark.parametrize("name", packaged_layouts())
def test_every_layout_can_be_animated_and_read(name, legible):
    layout = SkeletonLayout.of(name)
    frames = _walk(layout, 3)
    clips = [Clip("centre crop, as evaluations see it", frames), Clip("query view\nno joint set to zero", frames[:2])]
    clips += [Clip("semantic view\n15 joints masked, x and z set to zero", frames, [0, 1])]
    shown = skeleton_animation(
        layout, clips, title="S001C001P001R001A001, put on a pair of glasses", note="grey: masked"
    )
    assert {"frame 1 of 2", "frame 1 of 3", "grey: masked"} < set(legible(shown.figure))
    shown.show(2)  # the shorter clip waits at its end
    assert [axes.texts[0].get_text() for axes in shown.figure.axes] == ["frame 3 of 3", "frame 2 of 2", "frame 3 of 3"]


def test_a_gif_has_all_frames_on_white(tmp_path):
    path = tmp_path / "walk.gif"
    write_animation(skeleton_animation(KINECT, [Clip("walk", _walk())], fps=10), path, fps=10)
    with Image.open(path) as image:
        assert image.n_frames == 8
        assert image.info["duration"] == 100
        pictures = []
        for frame in range(8):
            image.seek(frame)
            pictures.append(np.array(image.convert("RGB")))
    assert all((picture[:3, :3] == 255).all() for picture in pictures)
    assert all((one != two).any() for one, two in pairwise(pictures))


def test_a_long_title_is_broken(legible):
    title = "S001C001P001R001A001_mirrored, a very long name of a class, as some data sets have them"
    clip = Clip("60 of 300 frames", _walk(frames=2))
    shown = skeleton_animation(KINECT, [clip], title=title)
    assert title in [text.replace("\n", " ") for text in legible(shown.figure)]


def test_pictures_are_the_figure_drawn_anew_for_each_frame():
    frames = _walk(frames=4)
    shown = skeleton_animation(KINECT, [Clip("walk", frames), Clip("shorter", frames[:2], hidden=[3])], note="a note")
    pictures = [np.array(picture) for picture in shown.pictures(dpi=60)]
    shown.figure.set_dpi(60)
    for number, picture in enumerate(pictures):
        shown.show(number)
        shown.figure.canvas.draw()
        np.testing.assert_array_equal(picture, np.array(shown.figure.canvas.buffer_rgba())[..., :3])


def test_what_cannot_be_written_or_drawn_is_said(tmp_path, monkeypatch):
    shown = skeleton_animation(KINECT, [Clip("walk", _walk(frames=2))])
    with pytest.raises(UsageError, match=r"an animation is written as \.gif or \.mp4"):
        write_animation(shown, tmp_path / "walk.png")
    monkeypatch.setattr(animation_module.shutil, "which", lambda name: None)
    with pytest.raises(
        UsageError, match=r"MP4 needs the program ffmpeg, which is not installed; a \.gif needs nothing"
    ):
        check_format("walk.mp4")
    monkeypatch.setattr(animation_module.shutil, "which", lambda name: "ffmpeg")
    check_format("walk.MP4")
    with pytest.raises(DataError, match="cannot be written"):
        write_animation(shown, tmp_path / "nowhere" / "walk.gif")
    with pytest.raises(UsageError, match="no clip"):
        skeleton_animation(KINECT, [])
    with pytest.raises(UsageError, match=r"shape \(4, 3, 20, 1\); layout 'kinect-v2' needs \(T, 3, 25, M\)"):
        skeleton_animation(KINECT, [Clip("", np.ones((4, 3, 20, 1)))])
    with pytest.raises(DataError, match="nobody is in the clip 'empty'"):
        skeleton_animation(KINECT, [Clip("empty", np.zeros((4, 3, 25, 1)))])


def test_a_long_sequence_is_thinned_and_says_so():
    frames = np.arange(300, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 25, 1), np.float32)
    clip = sequence_clip(frames, "long")
    assert clip.title == "long\n60 of 300 frames"
    assert np.asarray(clip.frames)[[0, -1], 0, 0, 0].tolist() == [0, 299]
    assert sequence_clip(frames[:60], "short").title == "short"


def test_views_are_those_that_training_draws(tiny_archive, tiny_module):
    frames = np.array(Archive.open(tiny_archive).clip(5), np.float32)
    length = torch.tensor([len(frames)])
    joints = torch.from_numpy(frames).permute(1, 0, 2, 3)[None]
    seen = set()
    for seed in range(6):
        plain, query, key, semantic = view_clips(tiny_module, frames, seed)
        expected = centre_view(joints, length, 16)[0].permute(1, 0, 2, 3)
        np.testing.assert_allclose(plain.frames, expected)
        draw = generator("cpu", seed)
        for clip in (query, key):
            view = tiny_module.contrastive_view(joints, length, draw)[0]
            np.testing.assert_allclose(clip.frames, view.permute(1, 0, 2, 3))
            zero = [joint for joint in range(25) if not view[:, :, joint].any()]
            assert list(clip.removed) == zero
            assert clip.title.endswith(f"{len(zero)} joints set to zero" if zero else "no joint set to zero")
            seen.add(len(zero))
        assert len(set(semantic.hidden)) == tiny_module.masked_joints == 15
        assert f"{15} joints masked" in semantic.title
    assert seen == {0, 15}


def test_the_mask_hides_unimportant_joints_and_is_uniform_without_a_codebook(tiny_archive, tiny_module):
    frames = np.array(Archive.open(tiny_archive).clip(5), np.float32)
    plain, *draws = mask_clips(tiny_module, frames, seed=0, draws=200)
    assert plain.hidden == ()
    hidden = np.bincount(np.concatenate([draw.hidden for draw in draws]), minlength=25)
    assert hidden[:5].mean() > 1.5 * hidden[-5:].mean()  # importance rises with the number of the joint
    stored = tiny_module.codebook.importance
    try:
        tiny_module.codebook.importance = torch.zeros(0)
        assert torch.equal(mask_weights(tiny_module), torch.full((25,), 0.04))
        tiny_module.codebook.importance = torch.stack([torch.ones(25), 3 * torch.ones(25)])
        torch.testing.assert_close(mask_weights(tiny_module), torch.full((25,), 0.04))
    finally:
        tiny_module.codebook.importance = stored
    with pytest.raises(UsageError, match=r"shape \(60, 3, 20, 1\), the encoder takes \(T, 3, 25, 2\)"):
        mask_clips(tiny_module, np.ones((60, 3, 20, 1)))
