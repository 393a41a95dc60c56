"""How a recurrent network runs within a mixed-precision step."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

# PyTorch's autocast wrapper of cuDNN's recurrent networks casts input, weights and states to float16, whatever the
# autocast type. Half of the gradients at their outputs lie below float16's normal range, and bfloat16 mixed precision
# has no loss scaler. cuDNN itself takes bfloat16 only since 9.13. So on a GPU they run in float32, with TF32 products
# where the user allows them; on the CPU autocast keeps to its own type.
_WITHOUT_AUTOCAST = frozenset({"cuda"})

_Sequences = TypeVar("_Sequences", Tensor, PackedSequence)


def run_recurrent(network: nn.Module, sequences: _Sequences) -> _Sequences:
    """Outputs of a recurrent network, on a GPU in float32 also where autocast is on.

    Args:
        network: An `nn.LSTM` or `nn.GRU`.
        sequences: Its input: (N, L, D) where it is batch-first, or packed.

    Returns:
        The last layer's output at every token, without the states; packed where the input is.
    """
    device = sequences.data.device.type
    if device not in _WITHOUT_AUTOCAST or not torch.is_autocast_enabled(device):
        outputs: _Sequences = network(sequences)[0]
        return outputs
    with torch.autocast(device, enabled=False):
        outputs = network(sequences.float())[0]
        return outputs
