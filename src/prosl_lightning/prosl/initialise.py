"""Start training from the weights of another run: the public HiCo code's checkpoints or our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from prosl_lightning.encoders.public_hico import load_hico_checkpoint
from prosl_lightning.errors import DataError

if TYPE_CHECKING:
    from prosl_lightning.prosl.module import ProSLModule

_PREFIX = "query_encoder."


def load_initial_weights(module: ProSLModule, path: str) -> None:
    """Copy the encoder's weights from a checkpoint into both the query and the key encoder.

    Args:
        module: The module to change.
        path: A checkpoint of this library or of the public HiCo code.

    Raises:
        DataError: The file cannot be read, or its encoder is of another kind or size.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"init_from: {path} cannot be read as a checkpoint: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    _take_over_scale(module, path, state)
    if any(key.startswith(_PREFIX) for key in state):
        weights = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    else:
        heads = (module.hparams["base_args"] or {}).get("num_heads", 4)
        encoder = load_hico_checkpoint(state, heads, module.layout, module.hparams["num_bodies"])
        weights, found_base = encoder.state_dict(), f"hico-{encoder.kind}"
        if found_base != module.hparams["base"]:
            raise DataError(
                f"init_from: {path} holds a {found_base}: set base to it, not to '{module.hparams['base']}'"
            )
    own = module.query_encoder.state_dict()
    wrong = [key for key in own if key not in weights or weights[key].shape != own[key].shape]
    wrong += [key for key in weights if key not in own]
    if wrong:
        found = tuple(weights[wrong[0]].shape) if wrong[0] in weights else "nothing"
        expected = tuple(own[wrong[0]].shape) if wrong[0] in own else "nothing"
        raise DataError(
            f"init_from: the encoder in {path} does not fit base '{module.hparams['base']}' with layout "
            f"'{module.layout.name}': {len(wrong)} of {len(own)} entries differ, first {wrong[0]} "
            f"(found {found}, expected {expected})"
        )
    for encoder in (module.query_encoder, module.key_encoder):
        encoder.load_state_dict(weights)


def _take_over_scale(module: ProSLModule, path: str, state: Mapping[str, Any]) -> None:
    """An encoder trained on scaled inputs goes on with the same scale, any other without one."""
    scale = state.get("input_scale", module.input_scale)
    if (scale != 1) != module.hparams["scale_input"]:
        how, wanted = ("with", "true") if scale != 1 else ("without", "false")
        raise DataError(f"init_from: the encoder in {path} was trained {how} scale_input; set it to {wanted}")
    module.input_scale.copy_(scale)
