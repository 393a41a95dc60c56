"""Weights of the public HiCo code: read a published checkpoint into our encoder, or write ours under its names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prosl_lightning.encoders.hico import HiCoEncoder, Kind
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout

_CHANNELS = 3
_SHOWN = 4


def load_hico_checkpoint(
    path_or_state_dict: str | Path | Mapping[str, Any],
    num_heads: int = 4,
    layout: str | Path | Mapping[str, Any] | SkeletonLayout = "kinect-v2",
    num_bodies: int = 2,
) -> HiCoEncoder:
    """Read an encoder with its projectors from a checkpoint of the public code (github.com/HuiGuanLab/HiCo).

    Kind, widths, depth and granularity are read off the tensors; stride 1 and pooling by 2 are assumed.
    The query encoder is preferred where the checkpoint holds both. Queues and their pointers are ignored.

    Args:
        path_or_state_dict: A checkpoint file, or its names and tensors (numpy arrays will do).
        num_heads: Attention heads, which no tensor reveals (transformer only).
        layout: Body model the encoder was trained on.
        num_bodies: Persons per clip it was trained on.

    Returns:
        The encoder in float32 on the CPU, in eval mode.

    Raises:
        DataError: The file cannot be read, or its names or shapes are not those of a HiCo encoder.
        UsageError: Its widths contradict ``layout``, ``num_bodies`` or ``num_heads``.
    """
    if isinstance(path_or_state_dict, Mapping):
        source, content = "the state dict", path_or_state_dict
    else:
        source, content = str(path_or_state_dict), _read(Path(path_or_state_dict))
    nested = content.get("state_dict")
    tensors = _encoder_tensors(nested if isinstance(nested, Mapping) else content)
    sizes = _sizes(tensors, source, SkeletonLayout.of(layout), num_bodies)
    # On the meta device nothing is initialised for nothing and the global random state stays as it was.
    try:
        with torch.device("meta"):
            encoder = HiCoEncoder(num_heads=num_heads, **sizes)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    encoder.to_empty(device="cpu")
    own = hico_state_dict(encoder)
    _check_fit(tensors, own, source)
    for name, parameter in own.items():
        parameter.copy_(tensors[name])
    return encoder.eval()


def hico_state_dict(encoder: HiCoEncoder) -> dict[str, Tensor]:
    """Weights of an encoder under the names of the public code, in its order.

    Like ``state_dict()`` the tensors share memory with the encoder: clone them to keep the values.
    """
    time, space, projectors = encoder.time_branch, encoder.space_branch, encoder.projectors
    modules: dict[str, nn.Module] = {
        "hi_encoder.t_embedding": time.embedding,
        "hi_encoder.s_embedding": space.embedding,
        "hi_encoder.t_downsample.conv.dw_conv": time.downsampling.convolution,
        "hi_encoder.t_downsample.norm": time.downsampling.norm,
        "hi_encoder.s_downsample.conv.dw_conv": space.downsampling.convolution,
        "hi_encoder.s_downsample.norm": space.downsampling.norm,
        "hi_encoder.t_encoder": time.sequence,
        "hi_encoder.s_encoder": space.sequence,
        "clip_proj": projectors["clip"],
        "part_proj": projectors["part"],
        "td_proj": projectors["temporal"],
        "sd_proj": projectors["spatial"],
        "instance_proj": projectors["instance"],
    }
    return {
        f"{prefix}.{name}": tensor for prefix, module in modules.items() for name, tensor in module.state_dict().items()
    }


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here, depending on where the bytes stop making sense
        raise DataError(
            f"{path}: not a checkpoint of tensors and plain data only ({type(error).__name__}); if it holds other "
            "objects and you trust it, save its state dict alone"
        ) from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: expected names and tensors, found {type(content).__name__}")
    return content


def _encoder_tensors(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of one encoder under bare names; what is neither this encoder nor a queue stays, to be reported."""
    tensors = {
        str(name).removeprefix("module."): torch.as_tensor(value)
        for name, value in state_dict.items()
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiu")
    }
    for prefix, other in (("encoder_q.", "encoder_k."), ("encoder_k.", "encoder_q.")):
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if not name.startswith(other)}
            break
    return {name: t for name, t in tensors.items() if not re.search(r"queue(_ptr)?$", name)}


def _sizes(tensors: Mapping[str, Tensor], source: str, layout: SkeletonLayout, num_bodies: int) -> dict[str, Any]:
    """Arguments of :class:`HiCoEncoder` that give these tensors their shapes."""

    def shape(name: str, ndim: int) -> torch.Size:
        found = tensors.get(name)
        if found is None or found.ndim != ndim:
            what = "has no tensor" if found is None else f"has shape {tuple(found.shape)} for"
            some = _some(tensors) if tensors else "none"
            raise DataError(f"{source}: not a HiCo encoder, it {what} '{name}'; tensors found: {some}")
        return found.shape

    hidden_size, time_width = shape("hi_encoder.t_embedding.0.weight", 2)
    _, space_width = shape("hi_encoder.s_embedding.0.weight", 2)
    expected = num_bodies * layout.num_joints * _CHANNELS
    if time_width != expected:
        raise UsageError(
            f"{source}: a frame has width {time_width}, but layout '{layout.name}' with num_bodies {num_bodies} gives "
            f"{num_bodies} x {layout.num_joints} joints x {_CHANNELS} coordinates = {expected}"
        )
    if space_width % _CHANNELS:
        raise DataError(f"{source}: a joint has width {space_width}, not frames x {_CHANNELS} coordinates")
    kind, num_layers = _kind_and_depth(tensors, source, shape)
    return {
        "kind": kind,
        "num_joints": layout.num_joints,
        "num_bodies": num_bodies,
        "num_frames": space_width // _CHANNELS,
        "num_channels": _CHANNELS,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "granularity": shape("td_proj.0.weight", 2)[1] // hidden_size,
        "projection_size": shape("clip_proj.2.weight", 2)[0],
        "kernel_size": shape("hi_encoder.t_downsample.conv.dw_conv.weight", 3)[2],
    }


def _kind_and_depth(tensors: Mapping[str, Tensor], source: str, shape: Any) -> tuple[Kind, int]:
    pattern = re.compile(r"hi_encoder\.t_encoder\.(?:layers\.(\d+)\.|weight_ih_l(\d+)$)")
    found = [match for match in map(pattern.match, tensors) if match]
    depth = 1 + max((int(match[1] or match[2]) for match in found), default=0)
    if any(match[1] for match in found):
        return "transformer", depth
    gates, width = shape("hi_encoder.t_encoder.weight_hh_l0", 2)
    if gates == 4 * width:
        return "lstm", depth
    if gates == 3 * width:
        return "gru", depth
    raise DataError(
        f"{source}: recurrent weights of shape {(gates, width)} are neither an LSTM's (4:1) nor a GRU's (3:1)"
    )


def _check_fit(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "wrong shape": wrong}
    lines = [f"{what} ({len(names)}): {_some(names)}" for what, names in problems.items() if names]
    if lines:
        raise DataError(f"{source}: the tensors do not fit a HiCo encoder\n" + "\n".join(lines))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
