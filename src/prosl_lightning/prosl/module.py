"""ProSLModule: the LightningModule that trains a skeleton encoder by progressive semantic learning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.bases import ViewOptions, build_base
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.prosl.branches import Projections, has_batch_norm, project_branches, unit_projections
from prosl_lightning.prosl.checks import RELATIVE_THRESHOLD, check_codebook, check_fit, check_options
from prosl_lightning.prosl.codebook import SemanticCodebook
from prosl_lightning.prosl.distributed import (
    EndTogether,
    all_reduce_sum,
    gather,
    gather_samples,
    leave_to_module,
    make_identical,
    prepare,
    world_size,
)
from prosl_lightning.prosl.initialise import load_initial_weights
from prosl_lightning.prosl.input_scale import measure_input_scale
from prosl_lightning.prosl.losses import KLDirection, mean_cosine_of_sum
from prosl_lightning.prosl.memory_bank import BankWrap, build_banks
from prosl_lightning.prosl.objective import Objective
from prosl_lightning.prosl.optimisation import follow_options, sgd_with_milestones
from prosl_lightning.prosl.step import SteppedModule
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.views import centre_view


class ProSLModule(SteppedModule):
    """Progressive semantic learning (Qin et al., Machine Learning, 2025) on top of a contrastive base method.

    Up to `semantic_start` the encoder learns by contrast: L_CL + L_KL (Eq. 11). From then on a codebook of semantic
    centroids, rebuilt after every epoch by :class:`CodebookCallback`, steers it: L_OptCL + L_KL + L_Sem + L_Sem'
    (Eq. 12), and the semantic branch masks joints by their importance. Defaults are the paper's; `docs/paper.md` lists
    what it leaves open. Works with any data module that yields :class:`SkeletonBatch` and offers `num_samples` and
    `feature_dataloader()` (the training set once, in order, not augmented).

    Args:
        base: Base contrastive method: `hico-lstm`, `hico-gru`, `hico-transformer`, `skeletonclr`, `isc`, `hiclr`, or
            the class path of your own, see `docs/own-method.md`.
        base_args: Its further arguments, e.g. `{hidden_size: 128}`.
        layout: Skeleton layout, a packaged name or a description as plain data.
        num_bodies: Persons per sequence.
        num_frames: Frames of a view, the encoder's clip length.
        stream: What the encoder sees: `joint`, `bone` or `motion`.
        scale_input: Whether what the encoder sees is divided by its standard deviation over the training set, measured
            before the first step. On small data the stream `motion` may not learn without it.
        bank_size: Samples each memory bank remembers.
        bank_wrap: `full`, or `reference` for the public HiCo code's write position.
        temperature: Of the contrast and of the KL loss.
        momentum: Of the key encoder's moving average.
        crop_ratio: Smallest and largest share of a sequence that a view covers.
        min_crop_frames: Shortest crop in frames.
        corrupted_joints: Joints zeroed or jittered in a corrupted view; None is 60 % (15 of 25).
        spatial_flip: Whether the semantic view may swap left and right; turn it off where classes are left/right twins.
        semantic: False trains the base method alone: no semantic branch, no codebook.
        semantic_start: First epoch (0-based) of the semantic stage.
        third_branch: Joints masked by importance (`semantic`), uniformly in both stages (`normal`), or no third branch
            and no KL loss (`none`).
        num_clusters: Number of semantic centroids.
        semantic_temperature: Of the softmax over centroids.
        confidence_threshold: Smallest confidence of a sample in the semantic loss, or `relative`: 1.755 / num_clusters.
        filtered_terms: Contrast terms whose same-label negatives are excluded: `all`, or the `instance` term only.
        masked_joints: Joints the semantic branch masks; None is 60 % (15 of 25).
        kl_direction: `semantic-to-query` as printed in the paper, or `query-to-semantic`.
        importance: Joint importance per `dataset` or per `sample`.
        importance_samples: Sequences drawn to measure the data set's importance.
        learning_rate: Of SGD.
        sgd_momentum: Of SGD.
        weight_decay: Of SGD, on all parameters.
        milestones: Epochs at which the learning rate is divided by ten.
        init_from: Checkpoint, the public HiCo code's or our own, to take the encoder's weights from.
        seed: Of every random draw in training; the initial weights come from torch's global generator.
        cuda_graph: Whether each training step is one CUDA graph, which frees it of the host. Manual optimisation, one
            GPU; results are those of an ordinary step.

    Raises:
        UsageError: An option is out of range or names something unknown.
    """

    def __init__(
        self,
        base: str = "hico-lstm",
        base_args: dict[str, Any] | None = None,
        layout: str | dict[str, Any] = "kinect-v2",
        num_bodies: int = 2,
        num_frames: int = 64,
        stream: Literal["joint", "bone", "motion"] = "joint",
        scale_input: bool = False,
        bank_size: int = 2048,
        bank_wrap: BankWrap = "full",
        temperature: float = 0.2,
        momentum: float = 0.999,
        crop_ratio: tuple[float, float] = (0.1, 1.0),
        min_crop_frames: int = 64,
        corrupted_joints: int | None = None,
        spatial_flip: bool = True,
        semantic: bool = True,
        semantic_start: int = 400,
        third_branch: Literal["semantic", "normal", "none"] = "semantic",
        num_clusters: int = 65,
        semantic_temperature: float = 1.0,
        confidence_threshold: float | Literal["relative"] = 0.027,
        filtered_terms: Literal["all", "instance"] = "all",
        masked_joints: int | None = None,
        kl_direction: KLDirection = "semantic-to-query",
        importance: Literal["dataset", "sample"] = "dataset",
        importance_samples: int = 1024,
        learning_rate: float = 0.01,
        sgd_momentum: float = 0.9,
        weight_decay: float = 1e-4,
        milestones: tuple[int, ...] = (350,),
        init_from: str | None = None,
        seed: int = 0,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__()
        self.layout = SkeletonLayout.of(layout)
        layout = self.layout.to_plain()  # what the checkpoint stores must not depend on a file of the user's
        crop_ratio, milestones = list(crop_ratio), list(milestones)  # type: ignore[assignment]
        self.save_hyperparameters()
        # Where a subclass passes them on, Lightning stores what that was given.
        self.hparams.update(layout=layout, crop_ratio=crop_ratio, milestones=milestones)
        sixty_percent = round(0.6 * self.layout.num_joints)
        self.masked_joints = sixty_percent if masked_joints is None else masked_joints
        corrupted = sixty_percent if corrupted_joints is None else corrupted_joints
        relative = confidence_threshold == "relative"
        self.confidence_threshold = RELATIVE_THRESHOLD / num_clusters if relative else float(confidence_threshold)
        check_options(self.hparams, self.layout, corrupted, self.masked_joints)
        self.base = build_base(base, layout=self.layout, num_bodies=num_bodies, num_frames=num_frames, args=base_args)
        views = ViewOptions((crop_ratio[0], crop_ratio[1]), min_crop_frames, corrupted, spatial_flip)
        self.contrastive_view = self.base.contrastive_view(views)
        self.semantic_view = self.base.semantic_view(views)
        self.stronger_views = self.base.stronger_views(views)
        self.query_encoder: Any = self.base.encoder
        self.key_encoder: Any = copy.deepcopy(self.query_encoder).requires_grad_(False)
        self._branches_apart = has_batch_norm(self.query_encoder)
        input_shape = (3, num_frames, self.layout.num_joints, num_bodies)
        keys = [term.key for term in self.base.terms]
        self.banks: Any = build_banks(self.query_encoder, input_shape, keys, bank_size, bank_wrap)
        self.codebook = SemanticCodebook()
        self.register_buffer("input_scale", torch.ones(()))
        self.objective = Objective(
            self.base, temperature, filtered_terms, semantic_temperature, self.confidence_threshold, kl_direction
        )
        self._update_average = get_ema_multi_avg_fn(momentum)

    # ---------------------------------------------------------------------------------------------- using the encoder

    def forward(self, joints: Tensor) -> Tensor:
        """Downstream features (N, D) of encoder inputs (N, C, T, V, M), T = `num_frames`, in the module's stream."""
        return self.query_encoder(joints)

    def prepare(self, batch: SkeletonBatch) -> Tensor:
        """The fixed view used to judge an encoder: centre crop of 95 %, resized, in the module's stream."""
        return self._stream(centre_view(batch.joints, batch.length, self.hparams["num_frames"]))

    def embed(self, batch: SkeletonBatch) -> Tensor:
        """Downstream features (N, D) of a batch of sequences, not normalised."""
        return self.query_encoder(self.prepare(batch))

    def key_features(self, joints: Tensor) -> Tensor:
        """Unit features (N, P) that the codebook clusters, of encoder inputs (N, C, T, V, M)."""
        return F.normalize(self.key_encoder.project(joints)[self.base.semantic], dim=-1)

    # --------------------------------------------------------------------------------------------------- one step

    def losses(
        self,
        query_view: Tensor,
        key_view: Tensor,
        semantic_view: Tensor | None,
        index: Tensor,
        stronger: Sequence[Tensor] = (),
    ) -> Projections:
        """Run the branches on given views, update the key encoder and the banks, and return the losses.

        The order is the public HiCo code's: query forward, moving average, key forward, losses against the banks as
        they were, enqueue. Of several processes each has its part of the batch, and the banks take the keys of all,
        those of rank 0 first: what one process does with the parts concatenated.

        Args:
            query_view: (N, C, T, V, M).
            key_view: Same shape.
            semantic_view: Same shape, or None without a third branch.
            index: Training rows, (N,).
            stronger: Same shape each, see :meth:`draw_stronger_views`.

        Returns:
            Scalars by name; `loss` is the total and carries the gradient.
        """
        views = [query_view, *stronger, *([] if semantic_view is None else [semantic_view])]
        query, *others = project_branches(self.query_encoder, views, apart=self._branches_apart)
        semantic = None if semantic_view is None else others.pop()
        with torch.no_grad():
            self._update_average(list(self.key_encoder.parameters()), list(self.query_encoder.parameters()), None)
            key = unit_projections(self.key_encoder, key_view)
        codebook = self.codebook if self.stage == "semantic" else None
        banks = {name: bank.snapshot() for name, bank in self.banks.items()}  # the enqueue below writes in place
        with torch.autocast(index.device.type, enabled=False):  # logits of mixed precision are too coarse
            metrics = self.objective.contrast(query, key, banks, codebook, index)
            metrics |= self.objective.chain(query, others, key, banks)
            total = torch.stack(list(metrics.values())).sum()
            metrics["contrast"] = total
            if semantic is not None or codebook is not None:
                extra, observed = self.objective.semantic(query, semantic, banks, codebook, index)
                total = total + torch.stack(list(extra.values())).sum()
                metrics |= extra | observed
        own = query[self.base.semantic].detach()
        metrics["mean_cosine"] = mean_cosine_of_sum(all_reduce_sum(own.sum(dim=0)), len(own) * world_size())
        keys, index = gather_samples({name: key[name] for name in self.banks}), gather(index)
        for name, bank in self.banks.items():
            bank.enqueue(keys[name], index)
        return {"loss": total} | metrics

    # ------------------------------------------------------------------------------------------------ Lightning hooks

    def configure_optimizers(self) -> Any:
        """SGD with momentum; the learning rate is divided by ten at each milestone."""
        return sgd_with_milestones(self.query_encoder.parameters(), self.hparams, whole_step=self.hparams["cuda_graph"])

    def configure_callbacks(self) -> Any:
        """The codebook callback, unless the trainer has one of the user's, and the end of all processes at a fault."""
        from prosl_lightning.prosl.callback import CodebookCallback

        present = any(isinstance(callback, CodebookCallback) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        own = [] if present or not self.hparams["semantic"] else [CodebookCallback()]
        return [*own, EndTogether()]

    def setup(self, stage: str) -> None:
        """Check that the data fit and, in a fresh run, take over the weights of `init_from`."""
        if stage != "fit":
            return
        check_fit(self)
        prepare(self.trainer)
        super().setup(stage)
        leave_to_module(self, "banks", "codebook")
        if self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        # A resumed run gets all of this from the checkpoint; the file it once started from may be gone.
        if self.trainer.ckpt_path is None:
            self.codebook.reset()
            for bank in self.banks.values():
                bank.forget_samples()
            self.input_scale.fill_(1)
            if self.hparams["init_from"]:
                load_initial_weights(self, self.hparams["init_from"])

    def on_fit_start(self) -> None:
        """Check a restored codebook, measure the input where that is due, and start alike in every process."""
        datamodule = getattr(self.trainer, "datamodule", None)
        check_codebook(self, datamodule)
        # Encoders that come with a scale, of a checkpoint or of `init_from`, go on with it.
        if self.hparams["scale_input"] and self.input_scale == 1:
            self.input_scale.copy_(measure_input_scale(self, datamodule))
        make_identical(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the recipe of the data beside the weights, so that evaluation needs only the checkpoint."""
        datamodule = getattr(self._trainer, "datamodule", None) if self._trainer is not None else None
        checkpoint["recipe"] = dict(getattr(datamodule, "recipe", {}))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run follows the options it was given, not those kept in the checkpoint's optimizer."""
        checkpoint["state_dict"].setdefault("input_scale", self.input_scale)  # runs from before the option
        follow_options(checkpoint, self.hparams)
