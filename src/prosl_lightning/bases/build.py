"""From a name or a class path and plain arguments to a base method."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from prosl_lightning.bases.base import BaseMethod
from prosl_lightning.bases.hiclr import HiCLR
from prosl_lightning.bases.hico import HiCoGRU, HiCoLSTM, HiCoTransformer
from prosl_lightning.bases.isc import ISC
from prosl_lightning.bases.skeletonclr import SkeletonCLR
from prosl_lightning.encoders import check_arguments
from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout

BASES: dict[str, type[BaseMethod]] = {
    "hico-lstm": HiCoLSTM,
    "hico-gru": HiCoGRU,
    "hico-transformer": HiCoTransformer,
    "skeletonclr": SkeletonCLR,
    "isc": ISC,
    "hiclr": HiCLR,
}
"""Name -> class, built with ``layout`` (a SkeletonLayout), ``num_bodies``, ``num_frames`` and its own arguments."""


def build_base(
    base: str, *, layout: SkeletonLayout, num_bodies: int, num_frames: int, args: Mapping[str, Any] | None = None
) -> BaseMethod:
    """Build a base method.

    Args:
        base: A key of :data:`BASES`, or the path `package.module.Class` of a subclass of :class:`BaseMethod` or of an
            encoder (an `nn.Module`), which is contrasted by one term.
        layout: Body model.
        num_bodies: Persons per clip.
        num_frames: Frames of a view.
        args: Further arguments of the class.

    Raises:
        UsageError: There is no such name or class, it is of another kind, or an argument does not fit.
    """
    found, args = _class_of(base), dict(args or {})
    what = f"base '{base}'"
    check_arguments(what, found, args)
    made = found(layout=layout, num_bodies=num_bodies, num_frames=num_frames, **args)
    method = made if isinstance(made, BaseMethod) else BaseMethod(made, layout=layout, num_frames=num_frames)
    _check(what, method)
    return method


def _class_of(base: str) -> type[Any]:
    """The class that a name or path stands for; nothing of it has been called yet."""
    if base in BASES:
        return BASES[base]
    path, _, name = base.rpartition(".")
    if not path:
        raise UsageError(
            f"unknown base method '{base}': known are {', '.join(BASES)}, or a class path such as mypackage.MyMethod"
        )
    try:
        found = getattr(importlib.import_module(path), name, None)
    except ImportError as error:
        raise UsageError(
            f"base '{base}': module '{path}' cannot be imported ({error}); the file that defines the class must be "
            "installed or in a folder of PYTHONPATH, also where a checkpoint is opened"
        ) from error
    if not isinstance(found, type) or not issubclass(found, BaseMethod | nn.Module):
        described = "nothing of that name" if found is None else f"{found!r}"
        raise UsageError(
            f"base '{base}' must be a class derived from prosl_lightning.bases.BaseMethod or torch.nn.Module; "
            f"in '{path}' there is {described}"
        )
    return found


def _check(what: str, method: BaseMethod) -> None:
    """Refuse a method that lacks what the training calls."""
    encoder = getattr(method, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise UsageError(
            f"{what}: its encoder is {encoder!r}, not a torch.nn.Module; call super().__init__(encoder, ...)"
        )
    lacking = [name for name in ("project", "feature_size") if not hasattr(encoder, name)]
    if lacking:
        raise UsageError(
            f"{what}: the encoder {type(encoder).__name__} has no {' and no '.join(lacking)}; derive it from "
            "prosl_lightning.encoders.ProjectedEncoder, or see docs/own-method.md"
        )
    if method.semantic not in {term.key for term in method.terms}:
        raise UsageError(
            f"{what}: '{method.semantic}' is to be clustered, but no term has it as its key: "
            f"{', '.join(term.key for term in method.terms) or 'there are no terms'}"
        )
