"""Training steps in every form: do they compute the same, and how long do they take?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from gpu_common import STAGES, GpuBench, fill_codebook
from harness import tf32
from reference_step import ReferenceStep
from torch import Tensor, nn

from prosl_lightning import ProSLModule
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.prosl.cuda_graph import WARM_UP, CapturedStep
from prosl_lightning.seeds import generator

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3  # relative, float32 without TF32
TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "bf16": 5e-2, "fp16": 5e-2}  # of losses over several steps
SIDE_BY_SIDE_TOLERANCE = 1e-3  # of the same step, alone and beside others
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Variant:
    """One form of the same step.

    Attributes:
        precision: float32 without TF32, with it, or mixed with a half precision (fp16 with a loss scaler). Mixed
            precision allows TF32, and on a GPU the recurrent layers are TF32 in it, too: rows say what they found.
        packed: Whether all granularities of a branch go through the recurrent layers in one call.
        form: `eager`, as a CUDA `graph`, or `reference`: in the shape of the public code.
    """

    precision: Literal["float32", "tf32", "bf16", "fp16"]
    packed: bool = True
    form: Literal["eager", "graph", "reference"] = "eager"

    def __str__(self) -> str:
        shape = "" if self.form == "reference" else ", packed" if self.packed else ", separate"
        return f"{self.form}, {self.precision}{shape}"


# The first is what all others must agree with. Those of most interest come early, in case the time is short.
VARIANTS = (
    Variant("float32", packed=False), Variant("float32"), Variant("bf16", form="graph"), Variant("bf16"),
    Variant("tf32", form="reference"), Variant("float32", form="reference"), Variant("tf32"),
    Variant("float32", form="graph"), Variant("tf32", form="graph"), Variant("bf16", packed=False),
    Variant("bf16", packed=False, form="graph"), Variant("tf32", packed=False), Variant("fp16"),
)  # fmt: skip


def available(bench: GpuBench) -> list[Variant]:
    """The variants that this device has."""
    cuda = bench.device.type == "cuda"
    return [
        v for v in VARIANTS if (cuda or v.precision in ("float32", "bf16")) and (bench.records or v.form != "graph")
    ]


class Stepper:
    """Trains a model of its own in one form, step by step, without Lightning.

    Args:
        bench: Model and device.
        stage: A name of :data:`STAGES`.
        variant: The form.
    """

    def __init__(self, bench: GpuBench, stage: str, variant: Variant) -> None:
        self.device, self.variant = bench.device, variant
        self.module = bench.model(**STAGES[stage], confidence_threshold=0.0)
        if stage == "stage 2":
            bench.fill_codebook(self.module)
        self.module.to(bench.device).train()
        for encoder in (self.module.query_encoder, self.module.key_encoder):
            for branch in (encoder.time_branch, encoder.space_branch):
                branch._packs = lambda _: variant.packed
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=variant.precision == "fp16")
        self.captured, self.reference = None, None
        if variant.form == "graph":
            self.captured = CapturedStep(self.module, self.optimizer, longest=300)
        elif variant.form == "reference":
            self.reference = ReferenceStep(self.module)
            for layer in self.reference.query.modules():
                if isinstance(layer, nn.RNNBase):
                    layer.flatten_parameters()  # as a model that was moved to its device has them
        self.metrics: dict[str, Tensor] = {}
        self.recurrent: torch.dtype | None = None
        for layer in (self.reference.query if self.reference else self.module.query_encoder).modules():
            if isinstance(layer, nn.RNNBase):
                layer.register_forward_hook(self._watch)

    def _watch(self, _: nn.Module, __: Any, outputs: Any) -> None:
        self.recurrent = outputs[0].data.dtype

    @property
    def recurrent_precision(self) -> str:
        """In what the recurrent layers ran."""
        with_tf32 = self.device.type == "cuda" and self.variant.precision != "float32"
        return "tf32" if with_tf32 and self.recurrent is torch.float32 else str(self.recurrent).removeprefix("torch.")

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision of the forward pass, as Lightning sets it."""
        dtype = HALVES.get(self.variant.precision)
        return torch.autocast(self.device.type, dtype, cache_enabled=False) if dtype else nullcontext()

    def __call__(self, batch: SkeletonBatch, number: int) -> Tensor | float:
        """Step number `number` on a batch; returns its loss."""
        with tf32(self.variant.precision != "float32"):
            if self.captured is not None:
                with self.autocast():
                    self.metrics = self.captured(batch, 0, 0, number)
                return self.metrics["loss"]
            draw = generator(self.device, 0, 0, number)
            if self.reference is not None:
                views = self.module.draw_views(batch, draw)
                return self.reference.train(views, batch.index, self.variant.precision == "bf16")
            with self.autocast():
                self.metrics = self.module.step(batch, draw)
            loss = self.metrics["loss"]
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return loss.detach()


@contextmanager
def reported(bench: GpuBench, part: str, what: str) -> Iterator[None]:
    """Record what fails, so that a form which a device or its libraries lack does not hide the others."""
    try:
        yield
    except Exception as error:
        bench.record(part, what, error=f"{type(error).__name__}: {error}"[:300])


def one_step(module: ProSLModule, views: list[Tensor], index: Tensor) -> dict[str, Tensor]:
    """What one training step computes from given views, on the CPU in float64."""
    semantic = views[2] if module.hparams["semantic"] else None
    found = module.losses(views[0], views[1], semantic, index)
    found["loss"].backward()
    found["gradient"] = torch.cat([p.grad.flatten() for p in module.query_encoder.parameters() if p.grad is not None])
    found["banks"] = torch.cat([bank.features.flatten() for bank in module.banks.values()])
    return {name: value.detach().cpu().double() for name, value in found.items()}


def agreement(bench: GpuBench) -> None:
    """Losses, gradient and banks of one step on fixed views: the device against the CPU."""
    check_recurrent(bench)
    # Without a CUDA device there is nothing to compare float32 with but float64.
    reference = torch.float32 if bench.device.type == "cuda" else torch.float64
    draw, index = torch.Generator().manual_seed(2), torch.arange(bench.batch_size)
    for stage, changes in STAGES.items():
        results = []
        for device, dtype in ((bench.device, torch.float32), (torch.device("cpu"), reference)):
            module = bench.model(**changes, confidence_threshold=0.0)
            if not results:
                shape = (3, bench.batch_size, 3, module.hparams["num_frames"], module.layout.num_joints, 2)
                views = torch.randn(shape, generator=draw) * 0.4
            if stage == "stage 2":
                with torch.no_grad():
                    features = F.normalize(module.query_encoder.project(views[0])[module.base.semantic], dim=1)
                fill_codebook(module, 8 * bench.batch_size, features, torch.arange(len(features)))
            module.to(device, dtype)
            with tf32(False):
                results.append(one_step(module, list(views.to(device, dtype)), index.to(device)))
        errors = {n: float((results[0][n] - e).norm() / e.norm().clamp_min(1e-6)) for n, e in results[1].items()}
        gradient = errors.pop("gradient")
        worst = max(errors, key=lambda name: errors[name])
        bench.record(
            "agreement", f"{stage}, cpu {str(reference).removeprefix('torch.')}", loss=float(results[1]["loss"]),
            worst=worst, worst_error=errors[worst], gradient_error=gradient,
        )  # fmt: skip
        if errors[worst] > LOSS_TOLERANCE or gradient > GRADIENT_TOLERANCE:
            bench.record("agreement", stage, error=f"{worst} is off by {errors[worst]:.1e}, gradient {gradient:.1e}")


def check_recurrent(bench: GpuBench) -> None:
    """Under autocast to bfloat16 a GPU must not run recurrent layers in float16, as it would by itself."""
    expected = torch.float32 if bench.device.type == "cuda" else torch.bfloat16
    for packed in (True, False):
        stepper, what = Stepper(bench, "baseline", Variant("bf16", packed=packed)), f"recurrent layers, {packed=}"
        stepper(bench.batch(), 0)
        bench.record("agreement", what, precision=str(stepper.recurrent))
        if stepper.recurrent is not expected:
            bench.record("agreement", what, error=f"under autocast they are in {stepper.recurrent}, not {expected}")


def variants(bench: GpuBench) -> None:
    """Losses of several steps in every form, drawn alike, against the eager float32 step of separate levels."""
    batch, steps = bench.batch(), WARM_UP + 4  # a graph is replayed from the fourth step on
    for stage in STAGES:
        expected: list[float] = []
        for variant in available(bench):
            what = f"{stage}, {variant}"
            if bench.seconds_left <= 0:
                bench.record("variants", what, skipped="out of time")
                continue
            with reported(bench, "variants", what):
                stepper = Stepper(bench, stage, variant)
                found = [float(stepper(batch, number)) for number in range(steps)]
                expected = expected or found
                worst = largest_difference(found, expected)
                confident = [float(v) for name, v in stepper.metrics.items() if name == "confident_share_query"]
                bench.record(
                    "variants", what, losses=[found[0], found[-1]], worst_difference=worst,
                    recurrent=stepper.recurrent_precision, confident_share=confident[0] if confident else None,
                )  # fmt: skip
                if not worst <= TOLERANCES[variant.precision]:
                    bench.record("variants", what, error=f"losses are off by {worst:.1e}")


def largest_difference(found: list[float], expected: list[float]) -> float:
    """Relative; NaN where a loss is."""
    return float(torch.tensor([abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True)]).max())


def step(bench: GpuBench) -> None:
    """Time of a whole step on a batch that lies on the device, in every form; peak memory."""
    batch = bench.batch()
    for variant in available(bench):
        for stage in reversed(STAGES):
            what = f"{stage}, {variant}"
            if bench.seconds_left <= 0:
                bench.record("step", what, skipped="out of time")
                continue
            with reported(bench, "step", what):
                time_step(bench, what, Stepper(bench, stage, variant), batch)


def time_step(bench: GpuBench, what: str, stepper: Stepper, batch: SkeletonBatch) -> None:
    """Time one form, and its views alone."""
    cuda = bench.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
    draw = torch.Generator(bench.device).manual_seed(0)
    whole = bench.milliseconds(_numbered(stepper, batch), **bench.effort)
    memory = torch.cuda.max_memory_allocated(bench.device) / 2**20 if cuda else None
    views = bench.milliseconds(lambda: stepper.module.draw_views(batch, draw), **bench.effort)
    bench.record(
        "step", what, milliseconds=whole, views_alone=views, samples_per_second=1e3 * len(batch.index) / whole,
        peak_mebibytes=memory, recurrent=stepper.recurrent_precision,
    )  # fmt: skip


def _numbered(stepper: Stepper, batch: SkeletonBatch) -> Callable[[], Any]:
    numbers = iter(range(10**9))
    return lambda: stepper(batch, next(numbers))


def side_by_side(bench: GpuBench) -> None:
    """One step each of 1, 2 and 4 models at once, each on a stream of its own; each must train as it does alone."""
    variant = Variant("bf16", form="graph" if bench.records else "eager")
    cuda = bench.device.type == "cuda"
    batch, checked = bench.batch(), WARM_UP + 4
    expected: list[float] = []
    for count in (1, 2, 4):
        what = f"{count} models, stage 2, {variant.form}, bf16"
        if bench.seconds_left <= 0:
            bench.record("side_by_side", what, skipped="out of time")
            continue
        with reported(bench, "side_by_side", what):
            streams = [torch.cuda.Stream(bench.device) if cuda else None for _ in range(count)]
            steps = [_numbered(Stepper(bench, "stage 2", variant), batch) for _ in range(count)]
            bench.synchronize()

            def together(steps: Any = steps, streams: Any = streams) -> list[Tensor]:
                losses = []
                for one, stream in zip(steps, streams, strict=True):
                    with torch.cuda.stream(stream) if stream is not None else nullcontext():
                        losses.append(one().clone())  # the next replay overwrites it
                return losses

            rows = [together() for _ in range(checked)]
            bench.synchronize()
            found = [float(losses[number]) for number in range(count) for losses in rows]  # model after model
            expected = expected or found[:checked]
            worst = largest_difference(found, expected * count)
            whole = bench.milliseconds(together, **bench.effort)
            bench.record(
                "side_by_side", what, milliseconds=whole, milliseconds_per_model=whole / count, worst_difference=worst
            )
            if not worst <= SIDE_BY_SIDE_TOLERANCE:
                bench.record("side_by_side", what, error=f"losses are off by {worst:.1e} from those of one model")
