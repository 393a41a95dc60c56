"""Moving skeletons: one sequence, several views of it side by side, and what a joint mask hides."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.animation import FFMpegWriter, FuncAnimation
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.figures.sheet import joint_colours, viewing_plane
from prosl_lightning.figures.style import GREY, heading, remark
from prosl_lightning.skeleton import SkeletonLayout

Array = NDArray[np.float64]

FORMATS = (".gif", ".mp4")
_PANEL = 2.9  # inches
_COLOURS = 40  # of a GIF
_SECOND = 0.5  # how strongly further bodies are drawn
_TURN = math.radians(25)  # the camera stands a little aside, so that depth is seen


class Clip(NamedTuple):
    """One panel of an animation.

    Attributes:
        title: Above it.
        frames: Coordinates (T, C, V, M); absent bodies are zero.
        hidden: Joints that are drawn grey and hollow.
        removed: Joints that are not drawn, as where an augmentation has put them to zero.
    """

    title: str
    frames: ArrayLike
    hidden: Sequence[int] = ()
    removed: Sequence[int] = ()


def skeleton_animation(
    layout: SkeletonLayout, clips: Sequence[Clip], *, fps: int = 15, title: str = "", note: str = ""
) -> SkeletonAnimation:
    """Clips side by side, all seen from one place in front of the first one; shorter ones wait at their end.

    The left side of the body is blue, the right one orange; further bodies are paler. Each panel has its own scale.

    Args:
        layout: The body model.
        clips: What to show.
        fps: Frames a second.
        title: Above all.
        note: Below all.

    Returns:
        An animation of matplotlib's: `to_jshtml()` shows it in a notebook, :func:`write_animation` writes it to a file.

    Raises:
        UsageError: There is no clip, or one does not fit the layout.
        DataError: Nobody is in a clip.
    """
    if not clips:
        raise UsageError("there is no clip to animate")
    bodies = [_bodies(layout, clip) for clip in clips]
    across, up = _camera(layout, bodies[0])
    figure = Figure(figsize=(_PANEL * len(clips) + 0.2, _PANEL + 0.75), layout="constrained")
    FigureCanvasAgg(figure)
    panels = [
        _Panel(axes, layout, clip, np.stack([points @ across, points @ up], axis=-1))
        for axes, clip, points in zip(figure.subplots(1, len(clips), squeeze=False)[0], clips, bodies, strict=True)
    ]
    heading(figure, title, 11)
    remark(figure, note)

    return SkeletonAnimation(figure, panels, max(len(points) for points in bodies), fps)


class SkeletonAnimation(FuncAnimation):
    """What :func:`skeleton_animation` makes.

    Attributes:
        figure: The figure that is drawn on.
        num_frames: How many frames there are.
    """

    def __init__(self, figure: Figure, panels: Sequence[_Panel], num_frames: int, fps: int) -> None:
        self.figure, self.num_frames, self._panels = figure, num_frames, panels
        self.show(0)
        for _ in range(2):  # panels of equal scale settle in the second pass
            figure.canvas.draw()
        figure.set_layout_engine("none")  # doing it for every frame takes most of the time
        super().__init__(figure, self.show, frames=num_frames, interval=1000 / fps, init_func=lambda: self.show(0))
        self._draw_was_started = True  # whoever looks at single frames has no need to write a file

    def show(self, frame: int) -> list[Any]:
        """Move to a frame; what has changed."""
        return [artist for panel in self._panels for artist in panel.show(frame)]

    def pictures(self, dpi: int) -> Iterator[Image.Image]:
        """Every frame as a picture. What does not move is drawn once."""
        canvas = self.figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        before = self.figure.dpi
        moving = self.show(0)
        try:
            self.figure.set_dpi(dpi)
            for artist in moving:
                artist.set_animated(True)
            canvas.draw()
            still = canvas.copy_from_bbox(self.figure.bbox)
            for frame in range(self.num_frames):
                canvas.restore_region(still)
                for artist in sorted(self.show(frame), key=lambda each: each.get_zorder()):
                    self.figure.draw_artist(artist)
                yield Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB")
        finally:
            for artist in moving:
                artist.set_animated(False)
            self.figure.set_dpi(before)


def write_animation(animation: SkeletonAnimation, path: str | Path, *, fps: int = 15, dpi: int = 80) -> None:
    """Write an animation as GIF or, where ffmpeg is installed, as MP4.

    Args:
        animation: What to write.
        path: A file that ends in .gif or .mp4.
        fps: Frames a second.
        dpi: Pixels an inch.

    Raises:
        UsageError: The ending is another one, or ffmpeg is missing.
        DataError: The file cannot be written.
    """
    check_format(path)
    try:
        if Path(path).suffix.lower() == ".gif":
            _write_gif(list(animation.pictures(dpi)), Path(path), fps)
        else:
            animation.save(str(path), writer=FFMpegWriter(fps), dpi=dpi)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def _write_gif(frames: Sequence[Image.Image], path: Path, fps: int) -> None:
    """Write frames with one small palette: a fraction of the bytes, and lines need few colours."""
    sample = Image.new("RGB", (frames[0].width, 4 * frames[0].height))
    for number in range(4):  # of a few frames, since not every colour is in all of them
        sample.paste(frames[number * (len(frames) - 1) // 3], (0, number * frames[0].height))
    palette = sample.quantize(_COLOURS, dither=Image.Dither.NONE)
    colours = np.reshape(palette.getpalette() or [], (-1, 3))
    colours[colours.min(axis=1) > 240] = 255  # the background stays white: the search for a colour is a coarse one
    palette.putpalette(colours.ravel().tolist())
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, optimize=True)


def check_format(path: str | Path) -> None:
    """Refuse a file that no animation can be written to.

    Raises:
        UsageError: The ending is unknown, or ffmpeg is missing for MP4.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise UsageError(f"{path}: an animation is written as {' or '.join(FORMATS)}")
    if ending == ".mp4" and shutil.which("ffmpeg") is None:
        raise UsageError(f"{path}: MP4 needs the program ffmpeg, which is not installed; a .gif needs nothing")


def _bodies(layout: SkeletonLayout, clip: Clip) -> Array:
    """Frames of a clip as (T, M, V, C), the bodies first that are there most of the time."""
    frames = np.asarray(clip.frames, np.float64)
    if frames.ndim != 4 or frames.shape[1:3] != (3, layout.num_joints):
        raise UsageError(
            f"a clip has shape {frames.shape}; layout '{layout.name}' needs (T, 3, {layout.num_joints}, M)"
        )
    bodies = np.nan_to_num(frames.transpose(0, 3, 2, 1))
    if not bodies.any():
        raise DataError(f"nobody is in the clip '{clip.title}'")
    return bodies


def _camera(layout: SkeletonLayout, bodies: Array) -> tuple[Array, Array]:
    """Unit vectors across and up of a camera in front of the first body, a little to its side."""
    there: NDArray[np.bool_] = np.asarray(bodies.any(axis=(2, 3)))
    across, up = viewing_plane(layout, bodies, there)
    return math.cos(_TURN) * across + math.sin(_TURN) * np.cross(up, across), up


class _Panel:
    """A clip in its axes: lines and dots that move.

    Args:
        axes: Where it is drawn.
        layout: The body model.
        clip: The clip.
        points: Positions across and up, (T, M, V, 2); zero where a body is absent.
    """

    def __init__(self, axes: Axes, layout: SkeletonLayout, clip: Clip, points: Array) -> None:
        there: NDArray[np.bool_] = np.asarray(points.any(axis=(2, 3)))  # (T, M)
        self._points, self._there = points, there
        hidden, removed = set(clip.hidden), set(clip.removed)
        shown = [joint for joint in range(layout.num_joints) if joint not in removed]
        self._bones = np.array([bone for bone in layout.bones if not removed & set(bone)], np.int64).reshape(-1, 2)
        self._joints = np.array(shown, np.int64)
        colours = joint_colours(layout)
        lines = [GREY if hidden & set(bone) else colours[bone[0]] for bone in self._bones.tolist()]
        styles = ["--" if hidden & set(bone) else "-" for bone in self._bones.tolist()]
        faces = ["white" if joint in hidden else colours[joint] for joint in shown]
        edges = [GREY if joint in hidden else colours[joint] for joint in shown]
        self._artists: list[tuple[LineCollection, PathCollection]] = []
        for body in range(points.shape[1]):
            alpha = 1.0 if body == 0 else _SECOND
            bones = LineCollection([], colors=lines, linestyles=styles, linewidths=1.8, alpha=alpha)
            axes.add_collection(bones, autolim=False)
            size = [26 if joint in hidden else 16 for joint in shown]
            dots = axes.scatter(
                np.zeros(len(shown)), np.zeros(len(shown)), s=size, c=faces, edgecolors=edges, zorder=3, alpha=alpha
            )
            self._artists.append((bones, dots))
        seen = points[there][:, self._joints].reshape(-1, 2)
        low, high = seen.min(axis=0), seen.max(axis=0)
        middle, half = (low + high) / 2, 0.54 * max(float((high - low).max()), 1e-6)
        axes.set_xlim(middle[0] - half, middle[0] + half)
        axes.set_ylim(middle[1] - half, middle[1] + half)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_color("0.85")
        axes.set_title(clip.title, fontsize=9.5, parse_math=False)
        self._time = axes.text(
            0.5, -0.03, "", transform=axes.transAxes, fontsize=7.5, color="0.45", ha="center", va="top"
        )

    def show(self, frame: int) -> list[Any]:
        """Move to a frame; behind the last one nothing moves."""
        frame = min(frame, len(self._points) - 1)
        for body, (bones, dots) in enumerate(self._artists):
            here = bool(self._there[frame, body])
            points = self._points[frame, body]
            bones.set_segments(list(points[self._bones]) if here else [])
            dots.set_offsets(points[self._joints] if here else np.full((len(self._joints), 2), np.nan))
        self._time.set_text(f"frame {frame + 1} of {len(self._points)}")
        return [self._time, *(artist for pair in self._artists for artist in pair)]
