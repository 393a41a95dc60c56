"""From a name or a class path and plain arguments to a base method."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping
from typing import Any

from torch import nn

from prosl_lightning.bases.base import BaseMethod
from prosl_lightning.bases.checks import check_output, check_parts
from prosl_lightning.bases.hiclr import HiCLR
from prosl_lightning.bases.hico import HiCoGRU, HiCoLSTM, HiCoTransformer
from prosl_lightning.bases.isc import ISC
from prosl_lightning.bases.skeletonclr import SkeletonCLR
from prosl_lightning.encoders import check_arguments
from prosl_lightning.errors import ProSLError, UsageError
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

_SOURCE = "arguments are model.base_args, which a configuration may set too; --model.base_args '{}' clears them"


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
        UsageError: There is no such name or class, it is of another kind or fails, or an argument does not fit.
    """
    found, args = _class_of(base), dict(args or {})
    what = f"base '{base}'"
    try:
        check_arguments(what, found, args)
        made = found(layout=layout, num_bodies=num_bodies, num_frames=num_frames, **args)
    except UsageError as error:
        if not args:
            raise
        raise UsageError(f"{error}\n{_SOURCE}") from error
    except ProSLError:
        raise
    except Exception as error:  # whatever a class of the user's does
        raise UsageError(f"{what} cannot be built with {args or 'no arguments'}: {_told(error)}\n{_SOURCE}") from error
    method = made if isinstance(made, BaseMethod) else BaseMethod(made, layout=layout, num_frames=num_frames)
    check_parts(what, method)
    if base not in BASES:
        check_output(what, method, (3, num_frames, layout.num_joints, num_bodies))
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
    except Exception as error:  # a module of the user's may raise anything
        raise UsageError(f"base '{base}': module '{path}' fails when it is imported: {_told(error)}") from error
    if not isinstance(found, type) or not issubclass(found, BaseMethod | nn.Module):
        described = "nothing of that name" if found is None else f"{found!r}"
        raise UsageError(
            f"base '{base}' must be a class derived from prosl_lightning.bases.BaseMethod or torch.nn.Module; "
            f"in '{path}' there is {described}"
        )
    return found


def _told(error: Exception) -> str:
    """Kind and text of an error in the user's code, and where in it."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in {error.filename}, line {error.lineno}: {error.msg}"
    # The first frame is ours, those of Python's import have no file.
    frames = [f for f in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in f.filename]
    place = f" in {frames[0].filename}, line {frames[0].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {first}"
