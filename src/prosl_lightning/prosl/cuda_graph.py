"""The whole training step as one CUDA graph: recorded once, then replayed with one launch instead of thousands."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from prosl_lightning._lightning import pl
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import UsageError
from prosl_lightning.prosl.branches import Projections
from prosl_lightning.seeds import derive_seed, seeded

if TYPE_CHECKING:
    from prosl_lightning.prosl.step import SteppedModule

Step = Callable[[], Projections]

# Libraries choose and load what they need in their first calls, which cannot be recorded.
WARM_UP = 3


class Recorder(Protocol):
    """What records a step and runs it again."""

    def run(self, step: Step) -> Projections:
        """Run a step as it is, where it would be recorded."""

    def record(self, step: Step, draw: torch.Generator) -> Step:
        """What repeats a step whose random numbers come from `draw`; it is not run here."""


class CudaRecorder:
    """Records on one stream of its own, on which steps must have run before: gradients remember their stream."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def run(self, step: Step) -> Projections:
        """Run a step on the recording stream, after all that was queued and before all that will be."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            metrics = step()
        current.wait_stream(self._stream)
        return metrics

    def record(self, step: Step, draw: torch.Generator) -> Step:
        """Record a step; a replay follows the seed that `draw` has by then.

        Raises:
            UsageError: The step does something that cannot be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        if hasattr(graph, "register_generator_state"):  # a later torch finds generators by itself
            graph.register_generator_state(draw)
        try:
            # Other threads may copy or allocate meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                metrics = step()
        except RuntimeError as error:
            # What went wrong first: ending a recording that has failed raises a second error.
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if isinstance(cause, torch.cuda.OutOfMemoryError):
                raise cause from None
            raise UsageError(
                f"this training step cannot be recorded as a CUDA graph ({str(cause).splitlines()[0]}): "
                "set cuda_graph to false, or, with HiCo's LSTM or GRU, base_args.packed_levels to false"
            ) from error

        def replay() -> Projections:
            graph.replay()
            return metrics

        return replay


_LAST_REPLAY: dict[torch.device, torch.cuda.Event] = {}


def one_after_another(replay: Step, device: torch.device) -> Step:
    """A replay that begins on the device when the one before it that went through here has ended there.

    Graphs that draw from torch's own generator share, up to torch 2.12, the tensors which hold its seed; models on
    streams of their own would overwrite each other's.
    """

    def run() -> Projections:
        stream = torch.cuda.current_stream(device)
        if device in _LAST_REPLAY:
            stream.wait_event(_LAST_REPLAY[device])
        metrics = replay()
        _LAST_REPLAY[device] = stream.record_event()
        return metrics

    return run


RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CudaRecorder}
"""Type of device -> what records on it."""


class _Kind(NamedTuple):
    """What is written into a graph; as long as it stays, the graph can be replayed.

    Attributes:
        shapes: Of the batch; they change from one batch to the next and back.
        lasting: What, once it has changed, does not come back.
    """

    shapes: Hashable
    lasting: Hashable


class CapturedStep:
    """Runs training steps: draws, losses, backward pass, SGD, moving average and banks, recorded and replayed.

    What a graph reads and writes keeps its address: a batch is copied into fixed tensors, its sequences padded to the
    longest there are. A step is recorded anew when something changes that is written into the graph: learning rate,
    stage, shapes, where the codebook lies. The first steps of each kind run without being recorded, on the same
    tensors, and so does a kind that never comes often enough, such as an incomplete last batch; the recorded step is
    kept for the next full one, and given up where what has changed does not come back.

    Args:
        module: Offers `step(batch, draw)`.
        optimizer: Its optimizer.
        longest: Frames of the longest training sequence; 0 where it is not known.
    """

    def __init__(self, module: SteppedModule, optimizer: torch.optim.Optimizer, longest: int = 0) -> None:
        self._module, self._optimizer, self._longest = module, optimizer, longest
        self._recorder = RECORDERS[module.device.type](module.device)
        self._draw = torch.Generator(module.device)
        self._has_dropout = getattr(module.query_encoder, "has_dropout", True)
        self._inputs: dict[Hashable, SkeletonBatch] = {}
        self._replay: Step | None = None
        self._recorded: _Kind | None = None
        self._waiting: _Kind | None = None
        self._runs = 0

    def __call__(self, batch: SkeletonBatch, *seeds: int) -> Projections:
        """Train on one batch.

        Args:
            batch: On the module's device.
            seeds: All random numbers follow from them, as in an ordinary step.

        Returns:
            The step's metrics, without gradient; the next call may overwrite them.
        """
        inputs = self._load(batch)
        with seeded(self._module.device, *seeds) if self._has_dropout else nullcontext():
            run = self._choose(self._kind(inputs), lambda: self._train(inputs))
            self._draw.manual_seed(derive_seed(*seeds))
            return run()

    def _choose(self, kind: _Kind, step: Step) -> Step:
        """The recorded step where it is of this kind, else the step itself, recorded first when it is warm."""
        if self._replay is not None and kind == self._recorded:
            return self._replay
        self._runs = self._runs + 1 if kind == self._waiting else 1
        self._waiting = kind
        is_over = self._recorded is not None and self._recorded.lasting != kind.lasting
        if is_over or self._runs > WARM_UP:
            self._replay = None  # its memory is free for what comes
        if self._runs <= WARM_UP:
            return lambda: self._recorder.run(step)
        self._replay, self._recorded = self._recorder.record(step, self._draw), kind
        if self._has_dropout and self._module.device.type == "cuda":
            self._replay = one_after_another(self._replay, self._module.device)
        return self._replay

    def _train(self, inputs: SkeletonBatch) -> Projections:
        self._optimizer.zero_grad(set_to_none=True)
        metrics = self._module.step(inputs, self._draw)
        # As Lightning does: only the forward pass is in mixed precision, the backward pass follows it.
        with torch.autocast(self._module.device.type, enabled=False):
            metrics["loss"].backward()
        self._optimizer.step()
        return {name: value.detach() for name, value in metrics.items()}

    def _load(self, batch: SkeletonBatch) -> SkeletonBatch:
        """Copy a batch into fixed tensors of its size; what they hold beyond its frames is never read."""
        n, c, t, v, m = batch.joints.shape
        size = (n, c, v, m, batch.joints.dtype)
        if size not in self._inputs or self._inputs[size].joints.shape[2] < t:
            if size in self._inputs:
                self._replay = None  # it may read the tensors that are given up here
            self._longest = max(self._longest, t)
            # Frame after frame, as an archive has them.
            joints = batch.joints.new_zeros(n, self._longest, c, v, m).permute(0, 2, 1, 3, 4)
            self._inputs[size] = SkeletonBatch(joints, *(torch.empty_like(field) for field in batch[1:]))
        inputs = self._inputs[size]
        inputs.joints[:, :, :t].copy_(batch.joints)
        for fixed, field in zip(inputs[1:], batch[1:], strict=True):
            fixed.copy_(field)
        return inputs

    def _kind(self, inputs: SkeletonBatch) -> _Kind:
        groups = [
            tuple((name, value) for name, value in group.items() if name != "params" and isinstance(value, Hashable))
            for group in self._optimizer.param_groups
        ]
        shapes = tuple((field.shape, field.dtype) for field in inputs)
        codebook = tuple(
            (name, buffer.shape, buffer.data_ptr()) for name, buffer in self._module.codebook.named_buffers()
        )
        return _Kind(shapes, (self._module.stage, self._module.training, tuple(groups), codebook))


def longest_sequence(datamodule: Any) -> int:
    """Frames of the longest training sequence of a data module; 0 where it does not tell."""
    archive, rows = getattr(datamodule, "archive", None), getattr(datamodule, "train_rows", None)
    return 0 if archive is None or rows is None else int(archive.lengths[rows].max())


_PRECISIONS = ("32-true", "bf16-mixed")
# What Lightning calls between the parts of an ordinary step; a replay has no parts.
_HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
_MODULE_HOOKS = (*_HOOKS, "backward", "configure_gradient_clipping", "optimizer_step", "optimizer_zero_grad")


def check_trainer(trainer: Any) -> None:
    """Refuse options of a trainer that a recorded step cannot serve.

    Raises:
        UsageError: Names the first of them.
    """
    device, anomaly = trainer.strategy.root_device.type, getattr(trainer, "_detect_anomaly", False)
    refused = {
        f"a CUDA device, the trainer runs on {device}": device not in RECORDERS,
        f"one process, the trainer has {trainer.world_size}": trainer.world_size != 1,
        "a strategy for one device": hasattr(trainer.strategy, "parallel_devices"),
        f"accumulate_grad_batches 1, it is {trainer.accumulate_grad_batches}": trainer.accumulate_grad_batches != 1,
        f"no gradient clipping, gradient_clip_val is {trainer.gradient_clip_val}": bool(trainer.gradient_clip_val),
        f"precision 32-true or bf16-mixed, it is {trainer.precision}": trainer.precision not in _PRECISIONS,
        "detect_anomaly to be off": anomaly,
    }
    for needed, is_refused in refused.items():
        if is_refused:
            raise UsageError(f"cuda_graph needs {needed}: change that, or set cuda_graph to false")


def check_hooks(trainer: Any, module: pl.LightningModule) -> None:
    """Refuse callbacks, and subclasses of the module, that take part in the backward pass or the update.

    Raises:
        UsageError: Names the first of them and its hook.
    """
    from prosl_lightning.prosl.step import SteppedModule

    watched = [(callback, pl.Callback, _HOOKS) for callback in trainer.callbacks]
    for one, base, hooks in [*watched, (module, SteppedModule, _MODULE_HOOKS)]:
        for hook in hooks:
            # An instance may have a hook of its own, such as Lightning's LambdaCallback.
            if hook in vars(one) or getattr(type(one), hook) is not getattr(base, hook):
                raise UsageError(
                    f"{hook} of {type(one).__name__} belongs between the parts of a step, and with cuda_graph a step "
                    "has none: leave it out, or set cuda_graph to false"
                )


def check_optimizers(trainer: Any) -> None:
    """Refuse optimizers and schedules, of a subclass, that a recorded step cannot serve.

    Raises:
        UsageError: Names what was found.
    """
    from prosl_lightning.prosl.optimisation import WholeStepSGD

    found = [type(optimizer).__name__ for optimizer in trainer.optimizers]
    if found != [WholeStepSGD.__name__]:
        raise UsageError(
            f"cuda_graph trains with the module's own optimizer, found {', '.join(found) or 'none'}: set cuda_graph to "
            "false"
        )
    for config in trainer.lr_scheduler_configs:
        if config.interval != "epoch" or config.reduce_on_plateau:
            raise UsageError(
                "cuda_graph needs a learning rate that changes between epochs; that of "
                f"{type(config.scheduler).__name__} follows steps or a metric: set cuda_graph to false"
            )
