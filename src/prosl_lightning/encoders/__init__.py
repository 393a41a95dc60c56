"""Encoders by name: each turns clips (N, C, T, V, M) into features and into the projections that are contrasted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from prosl_lightning.encoders.hico import KINDS, HiCoEncoder
from prosl_lightning.encoders.public_hico import hico_state_dict, load_hico_checkpoint
from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout

__all__ = ["ENCODERS", "HiCoEncoder", "build_encoder", "hico_state_dict", "load_hico_checkpoint"]


def build_encoder(
    name: str,
    *,
    layout: str | Path | Mapping[str, Any] | SkeletonLayout,
    num_bodies: int,
    num_frames: int,
    **args: Any,
) -> nn.Module:
    """Build the encoder called ``name`` for a body model and a clip length.

    Every encoder has ``forward(x)``: (N, C, T, V, M) -> (N, feature_size); ``project(x)``: a mapping with the
    unnormalised projections, ``instance`` (N, projection_size) among them; and the attributes ``feature_size``,
    ``projection_size`` and ``has_dropout``.

    Args:
        name: A key of :data:`ENCODERS`.
        layout: The body model, in any form :meth:`SkeletonLayout.of` takes.
        num_bodies: Persons M per clip.
        num_frames: Frames T per clip.
        **args: Further arguments of that encoder, such as ``hidden_size``.

    Raises:
        UsageError: The name is unknown, or an argument is unknown or does not fit.
    """
    if name not in ENCODERS:
        raise UsageError(f"unknown encoder '{name}': known are {', '.join(ENCODERS)}")
    return ENCODERS[name](layout=SkeletonLayout.of(layout), num_bodies=num_bodies, num_frames=num_frames, **args)


def _build_hico(kind: Any, *, layout: SkeletonLayout, num_bodies: int, num_frames: int, **args: Any) -> HiCoEncoder:
    known = inspect.signature(HiCoEncoder).parameters.keys() - {"kind", "num_joints", "num_bodies", "num_frames"}
    unknown = sorted(args.keys() - known)
    if unknown:
        raise UsageError(f"encoder 'hico-{kind}' has no argument '{unknown[0]}': known are {', '.join(sorted(known))}")
    return HiCoEncoder(kind=kind, num_joints=layout.num_joints, num_bodies=num_bodies, num_frames=num_frames, **args)


ENCODERS: dict[str, Callable[..., nn.Module]] = {f"hico-{kind}": partial(_build_hico, kind) for kind in KINDS}
"""Name -> builder, called with ``layout`` (a SkeletonLayout), ``num_bodies``, ``num_frames`` and its own arguments."""
