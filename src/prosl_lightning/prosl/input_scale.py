"""The size of what an encoder sees, measured over the training set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prosl_lightning.errors import DataError
from prosl_lightning.prosl.distributed import all_reduce_sum
from prosl_lightning.prosl.extract import divide, iterate

if TYPE_CHECKING:
    from prosl_lightning.prosl.module import ProSLModule


@torch.no_grad()
def measure_input_scale(module: ProSLModule, datamodule: Any) -> Tensor:
    """What turns a module's inputs into ones of unit deviation: a factor for all joints, axes and frames.

    The streams of a body are of different sizes: on NW-UCLA the motion between two of 32 frames has a sixth of the
    joints' deviation. The bias of a first layer outweighs it, and the features stay in one direction for a long time.

    Args:
        module: Gives the inputs, see :meth:`ProSLModule.prepare`; not scaled yet.
        datamodule: With `feature_dataloader()`. Each process reads its part of it.

    Returns:
        1 / standard deviation of the inputs, absent bodies (zeros) included; a float32 scalar.

    Raises:
        DataError: All inputs are equal.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=module.device)
    for batch in iterate(module, divide(datamodule.feature_dataloader())):
        x = module.prepare(batch).double()
        sums += torch.stack([x.sum(), x.square().sum(), x.new_tensor(x.numel())])
    total, squares, count = all_reduce_sum(sums)
    deviation = (squares / count - (total / count).square()).clamp_min(0).sqrt()
    if not deviation > 0:
        raise DataError(f"scale_input: all {module.hparams['stream']} inputs of the training set are the same")
    return (1 / deviation).float()
