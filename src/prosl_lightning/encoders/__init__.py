"""Encoders by name: each turns clips (N, C, T, V, M) into features and into the projections that are contrasted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from prosl_lightning.encoders.bigru import BiGRUEncoder
from prosl_lightning.encoders.hico import KINDS, HiCoEncoder
from prosl_lightning.encoders.projected import ProjectedEncoder
from prosl_lightning.encoders.public_hico import hico_state_dict, load_hico_checkpoint
from prosl_lightning.encoders.stgcn import STGCN
from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout

__all__ = [
    "ENCODERS",
    "STGCN",
    "BiGRUEncoder",
    "HiCoEncoder",
    "ProjectedEncoder",
    "build_encoder",
    "check_arguments",
    "hico_state_dict",
    "load_hico_checkpoint",
]

_SHAPE = ("layout", "num_bodies", "num_frames")


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
    builder = ENCODERS[name]
    check_arguments(f"encoder '{name}'", builder, args)
    return builder(layout=SkeletonLayout.of(layout), num_bodies=num_bodies, num_frames=num_frames, **args)


def check_arguments(what: str, builder: Callable[..., Any], args: Mapping[str, Any]) -> None:
    """Refuse arguments that a builder does not take, and the lack of those it needs, before it is called.

    Args:
        what: How errors call it.
        builder: Called with ``layout``, ``num_bodies``, ``num_frames`` and `args`, all by name.
        args: Its further arguments.

    Raises:
        UsageError: Names what was found and what is known.
    """
    parameters = inspect.signature(builder).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not takes_all and not set(_SHAPE) <= set(named):
        raise UsageError(f"{what} must take the arguments {', '.join(_SHAPE)}; it takes {', '.join(named) or 'none'}")
    known = sorted(named.keys() - set(_SHAPE))
    unknown = sorted(args.keys() - set(known)) if not takes_all else sorted(args.keys() & set(_SHAPE))
    if unknown:
        raise UsageError(f"{what} has no argument '{unknown[0]}': known are {', '.join(known) or 'none'}")
    missing = [name for name in known if named[name].default is inspect.Parameter.empty and name not in args]
    if missing:
        raise UsageError(f"{what} needs the argument '{missing[0]}'")


def _build_hico(kind: Any, *, layout: SkeletonLayout, num_bodies: int, num_frames: int, **args: Any) -> HiCoEncoder:
    known = inspect.signature(HiCoEncoder).parameters.keys() - {"kind", "num_joints", "num_bodies", "num_frames"}
    unknown = sorted(args.keys() - known)
    if unknown:
        raise UsageError(f"encoder 'hico-{kind}' has no argument '{unknown[0]}': known are {', '.join(sorted(known))}")
    return HiCoEncoder(kind=kind, num_joints=layout.num_joints, num_bodies=num_bodies, num_frames=num_frames, **args)


ENCODERS: dict[str, Callable[..., nn.Module]] = {
    **{f"hico-{kind}": partial(_build_hico, kind) for kind in KINDS},
    "st-gcn": STGCN,
    "bigru": BiGRUEncoder,
}
"""Name -> builder, called with ``layout`` (a SkeletonLayout), ``num_bodies``, ``num_frames`` and its own arguments."""
