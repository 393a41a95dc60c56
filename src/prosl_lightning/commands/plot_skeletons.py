"""`prosl plot animate`: moving skeletons of an archive or of a user's file, their views, and what a mask hides."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.commands.evaluate import at_least_one
from prosl_lightning.commands.plot_inputs import NO_DATA, DataIfAny, method_of, rows_of, trained_epochs
from prosl_lightning.commands.user_files import UserFiles, refuse_other_layout
from prosl_lightning.data.archive import Archive
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.encoder import load_encoder
from prosl_lightning.evaluation.features import load_module
from prosl_lightning.figures.animation import Clip, check_format, skeleton_animation, write_animation
from prosl_lightning.figures.clips import mask_clips, sequence_clip, view_clips
from prosl_lightning.figures.style import class_name
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted


class _Sequence(NamedTuple):
    """A sequence, its frames (T, C, V, M), and what it is called."""

    title: str
    layout: SkeletonLayout
    frames: NDArray[np.float32]


def animate(
    *,
    out: str,
    show: Literal["sequence", "views", "mask"] = "sequence",
    ckpt: str | None = None,
    data: DataIfAny = NO_DATA,
    file: str | None = None,
    sequence: int | str = 0,
    format: str | None = None,
    layout: str | None = None,
    fps: int = 15,
    seed: int = 0,
) -> None:
    """A moving skeleton as GIF, or as MP4 where ffmpeg is installed.

    `views` shows query, key and semantic view side by side as training draws them, `mask` what the adaptive joint mask
    hides: masked joints are grey and hollow. Joints are drawn whatever stream the encoder sees.

    Args:
        out: File to write: .gif or .mp4.
        show: The sequence alone, its views, or draws of the mask.
        ckpt: A checkpoint; needed for views and mask.
        data: An archive.
        file: A file of any format the package reads, instead of an archive.
        sequence: Name, or number in the archive or file.
        format: Format of the file; found out where it is not given.
        layout: Body model of the file, where it does not say.
        fps: Frames a second; recordings are usually made at 30.
        seed: Of the draws.
    """
    check_format(out)
    at_least_one(fps=fps)
    if (data.root is None) == (file is None):
        raise UsageError(
            "give an archive with --data.root, or a file with --file" + ("" if data.root is None else ", not both")
        )
    if show != "sequence" and ckpt is None:
        raise UsageError(f"--show {show} needs a checkpoint: --ckpt FILE")
    found = (
        _of_archive(data.root, sequence)
        if data.root is not None
        else _of_file(str(file), sequence, format, layout, ckpt)
    )
    clips, note = [sequence_clip(found.frames)], ""
    if show != "sequence" and ckpt is not None:
        clips, note = _drawn(ckpt, found, show, seed)
    animation = skeleton_animation(found.layout, clips, fps=fps, title=found.title, note=note)
    write_animation(animation, out, fps=fps)
    frames = max(len(np.asarray(clip.frames)) for clip in clips)
    print(f"{out}: {found.title}, {counted(len(clips), 'panel')} of {counted(frames, 'frame')}")


def _drawn(ckpt: str, found: _Sequence, show: str, seed: int) -> tuple[list[Clip], str]:
    module = load_module(ckpt)
    if module.layout.joints != found.layout.joints:
        raise DataError(
            f"the sequence has layout '{found.layout.name}' with {found.layout.num_joints} joints, {ckpt} takes "
            f"'{module.layout.name}' with {module.layout.num_joints}"
        )
    wanted, bodies = module.hparams["num_bodies"], found.frames.shape[-1]
    frames = np.pad(found.frames[..., :wanted], [(0, 0)] * 3 + [(0, max(wanted - bodies, 0))])
    clips = (view_clips if show == "views" else mask_clips)(module, frames, seed)
    steered = module.codebook.importance.numel() and module.hparams.get("third_branch", "semantic") == "semantic"
    how = "by the codebook's importance" if steered else "uniformly: it has no codebook yet"
    note = f"{method_of(ckpt)}, {counted(trained_epochs(ckpt), 'epoch')}; grey and hollow: masked, drawn {how}"
    return clips, note if any(clip.hidden for clip in clips) else note.split(";")[0]


def _of_archive(root: str, sequence: int | str) -> _Sequence:
    archive = Archive.open(root)
    row = int(rows_of(archive, [sequence])[0])
    label = int(archive.labels[row])
    known = [class_name(archive.class_names, label)] if label >= 0 else []
    title = ", ".join([str(archive.names[row]), *known])
    return _Sequence(title, archive.layout, np.asarray(archive.clip(row), np.float32))


def _of_file(file: str, sequence: int | str, format: str | None, layout: str | None, ckpt: str | None) -> _Sequence:
    """A sequence of a user's file: normalised as an encoder wants it where there is one, else as recorded."""
    encoder = None if ckpt is None else load_encoder(ckpt, device="cpu")
    with UserFiles([file], format, layout) as opened:
        if encoder is not None:
            refuse_other_layout(opened.layout, encoder, file, "give a checkpoint of the same body model")
        names = []
        for source in opened.sources:
            for number, each in enumerate(source):
                names.append(each.name)
                if str(sequence) not in (each.name, str(number)):
                    continue
                if each.bodies is None:
                    raise DataError(f"{each.source}: {each.error}")
                bodies = each.bodies if encoder is None else encoder.prepare(each.bodies, already=source.already)
                frames = np.asarray(bodies, np.float32)
                # Raw sequences are (T, B, V, C), prepared ones (T, V, M, C).
                frames = frames.transpose(0, 3, 2, 1) if encoder is None else frames.transpose(0, 3, 1, 2)
                known = [class_name(source.class_names, each.label)] if each.label >= 0 else []
                return _Sequence(", ".join([each.name, *known]), opened.layout, frames)
    found = f"its first are {', '.join(names[:3])}" if names else "it has none"
    raise UsageError(f"{file} has no sequence '{sequence}' among {len(names)}; {found}")
