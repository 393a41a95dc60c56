"""What to animate: a sequence, the views that training draws of it, and what the adaptive joint mask hides."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import UsageError
from prosl_lightning.figures.animation import Clip
from prosl_lightning.prosl.importance import mask_probability
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.seeds import generator
from prosl_lightning.tables import counted
from prosl_lightning.views import centre_view, draw_joints

_FRAMES = 60  # of a sequence; a longer one is shown in fewer frames


def sequence_batch(frames: NDArray[np.floating]) -> SkeletonBatch:
    """One sequence (T, C, V, M) as a batch of one."""
    joints = torch.from_numpy(np.array(frames, np.float32)).permute(1, 0, 2, 3)[None]
    return SkeletonBatch(joints, torch.tensor([joints.shape[2]]), torch.tensor([0]), torch.tensor([-1]))


def sequence_clip(frames: NDArray[np.floating], title: str = "") -> Clip:
    """A sequence (T, C, V, M) as it is, in at most 60 frames spread evenly."""
    times = np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)
    told = "" if len(times) == len(frames) else f"{len(times)} of {len(frames)} frames"
    return Clip("\n".join(filter(None, [title, told])), np.asarray(frames, np.float32)[times])


@torch.no_grad()
def view_clips(module: ProSLModule, frames: NDArray[np.floating], seed: int = 0) -> list[Clip]:
    """Query, key and semantic view of a sequence as training draws them, beside its centre crop; joints, in any stream.

    Args:
        module: Whose views, masked joints and importance are used.
        frames: One sequence (T, C, V, M), normalised as in the archive.
        seed: Of the draws.

    Raises:
        UsageError: The sequence does not fit the module.
    """
    batch, draw = _fitting(module, frames), generator("cpu", seed)
    plain = centre_view(batch.joints, batch.length, module.hparams["num_frames"])
    clips = [Clip("centre crop, as evaluations see it", _frames(plain))]
    for name in ("query", "key"):
        view = module.contrastive_view(batch.joints, batch.length, draw)
        zero = _zeroed(view, plain)
        told = f"{counted(len(zero), 'joint')} set to zero" if zero else "no joint set to zero"
        clips.append(Clip(f"{name} view\n{told}", _frames(view), removed=zero))
    if module.hparams["semantic"] and module.hparams.get("third_branch", "semantic") != "none":
        view = module.semantic_view(batch.joints, batch.length, draw)
        hidden = draw_joints(mask_weights(module), module.masked_joints, 1, draw)[0].tolist()
        lost = [axis for axis, values in zip("xyz", view[0], strict=True) if not values.any()]
        told = f"{counted(len(hidden), 'joint')} masked" + (f", {' and '.join(lost)} set to zero" if lost else "")
        clips.append(Clip(f"semantic view\n{told}", _frames(view), hidden))
    return clips


@torch.no_grad()
def mask_clips(module: ProSLModule, frames: NDArray[np.floating], seed: int = 0, draws: int = 3) -> list[Clip]:
    """What the adaptive joint mask hides: the centre crop, and several draws of the mask on it.

    Args:
        module: Whose importance and number of masked joints are used.
        frames: One sequence (T, C, V, M), normalised as in the archive.
        seed: Of the draws.
        draws: How many.

    Raises:
        UsageError: The sequence does not fit the module, or it has no semantic branch.
    """
    batch, draw = _fitting(module, frames), generator("cpu", seed)
    if not module.hparams["semantic"] or module.hparams.get("third_branch", "semantic") == "none":
        raise UsageError("the encoder was trained without a third branch, so nothing is masked")
    plain = _frames(centre_view(batch.joints, batch.length, module.hparams["num_frames"]))
    joints = draw_joints(mask_weights(module).expand(draws, -1), module.masked_joints, draws, draw).tolist()
    told = f"{module.masked_joints} of {module.layout.num_joints} joints masked"
    return [Clip("centre crop", plain)] + [
        Clip(f"draw {number}\n{told}", plain, hidden) for number, hidden in enumerate(joints, start=1)
    ]


def mask_weights(module: ProSLModule) -> Tensor:
    """Masking probability of each joint (Eq. 8), (V,): by the codebook's mean importance, uniform where it has none."""
    importance = module.codebook.importance.cpu()
    if importance.numel() == 0 or module.hparams.get("third_branch", "semantic") == "normal":
        return torch.full((module.layout.num_joints,), 1 / module.layout.num_joints)
    return mask_probability(importance.mean(dim=0) if importance.dim() == 2 else importance)


def _fitting(module: ProSLModule, frames: NDArray[np.floating]) -> SkeletonBatch:
    wanted = (3, module.layout.num_joints, module.hparams["num_bodies"])
    if np.ndim(frames) != 4 or np.shape(frames)[1:] != wanted:
        raise UsageError(
            f"the sequence has shape {np.shape(frames)}, the encoder takes (T, {', '.join(map(str, wanted))})"
        )
    return sequence_batch(frames)


def _frames(view: Tensor) -> NDArray[np.float32]:
    """The first clip of (N, C, T, V, M) as (T, C, V, M)."""
    return view[0].permute(1, 0, 2, 3).numpy()


def _zeroed(view: Tensor, plain: Tensor) -> list[int]:
    """Joints that are zero in a view throughout, and were not before."""
    gone, before = ((clip[0] == 0).permute(2, 0, 1, 3).flatten(1).all(dim=1) for clip in (view, plain))
    return (gone & ~before).nonzero().squeeze(1).tolist()
