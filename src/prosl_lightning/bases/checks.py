"""Checks of a base method before it is trained: what it must have, and what it gives for a clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prosl_lightning.bases.base import BaseMethod
from prosl_lightning.errors import ProSLError, UsageError


def check_parts(what: str, method: BaseMethod) -> None:
    """Refuse a method that lacks what the training calls.

    Args:
        what: How errors call it.
        method: Any.

    Raises:
        UsageError: Says what is missing.
    """
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


def check_output(what: str, method: BaseMethod, shape: tuple[int, int, int, int]) -> None:
    """Refuse an encoder whose features or projections are not what the training takes.

    It is given one clip of zeros in evaluation mode; modes and random numbers are afterwards as they were.

    Args:
        what: How errors call it.
        method: One that :func:`check_parts` accepts.
        shape: Of a clip, (C, T, V, M).

    Raises:
        UsageError: Names the method of the encoder, what it gave and what was expected.
    """
    encoder = method.encoder
    name = f"{what}: {type(encoder).__name__}"
    parameter = next(encoder.parameters(), torch.empty(0))
    clip = torch.zeros(1, *shape, device=parameter.device)
    modes = [(module, module.training) for module in encoder.modules()]
    try:
        with torch.random.fork_rng(devices=[clip.device] if clip.is_cuda else []), torch.no_grad():
            encoder.eval()
            found = _shape(_call(f"{name}.forward", encoder, clip))
            if found != (1, encoder.feature_size):
                raise UsageError(
                    f"{name}.forward gives {found} for a clip {tuple(clip.shape)}; expected (1, feature_size) = "
                    f"(1, {encoder.feature_size})"
                )
            projections = _call(f"{name}.project", encoder.project, clip)
    finally:
        for module, mode in modes:
            module.training = mode
    _check_projections(f"{name}.project", method, projections)


def _check_projections(what: str, method: BaseMethod, projections: Any) -> None:
    if not isinstance(projections, Mapping):
        raise UsageError(f"{what} gives {type(projections).__name__}; expected a mapping from names to projections")
    for name in dict.fromkeys(each for term in method.terms for each in (term.query, term.key)):
        if name not in projections:
            raise UsageError(
                f"{what} gives {', '.join(projections) or 'nothing'}; a contrast term of the base method needs '{name}'"
            )
        found = _shape(projections[name])
        if len(found) not in (2, 3) or found[0] != 1:
            raise UsageError(f"{what} gives '{name}' {found} for one clip; expected (1, P) or, with levels, (1, G, P)")
    clustered = _shape(projections[method.semantic])
    if len(clustered) != 2:
        raise UsageError(
            f"{what} gives '{method.semantic}' {clustered} for one clip; what is clustered (`semantic`) must be (1, P)"
        )


def _call(what: str, function: Any, clip: Tensor) -> Any:
    try:
        return function(clip)
    except ProSLError:
        raise
    except Exception as error:  # whatever a class of the user's does
        first = (str(error).strip().splitlines() or [""])[0]
        raise UsageError(f"{what} fails on a clip {tuple(clip.shape)}: {type(error).__name__}: {first}") from error


def _shape(value: Any) -> tuple[int, ...]:
    """Empty where it is no tensor."""
    return tuple(value.shape) if isinstance(value, Tensor) else ()
