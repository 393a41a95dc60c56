"""Transfer: an encoder trained on one data set is judged on another, also of another body model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.evaluation.backbone import Backbone
from prosl_lightning.evaluation.classifier import ClassifierEvaluation
from prosl_lightning.evaluation.features import FeatureTables, tables_of
from prosl_lightning.evaluation.linear import LINEAR
from prosl_lightning.evaluation.recipe import TrainingRecipe
from prosl_lightning.evaluation.semi import FINE_TUNING
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.skeleton import SkeletonLayout


class TransferEvaluation(ClassifierEvaluation):
    """Linear or fine-tuned evaluation on data of any body model; joints are matched by name.

    Args:
        encoder: A trained module (copied, never changed), or a :class:`Backbone`.
        class_names: Names of the target's classes in label order.
        layout: Body model of the target.
        num_bodies: Bodies of the target.
        finetune: Whether the encoder trains too; the paper's transfer is linear.
        recipe: Optimisation and crop; HiCo's linear or CMD's fine-tuning recipe where it is not given.
        seed: Of the layer's initial weights and the crops.
        data: What is known of the data (`SkeletonDataModule.recipe`): kept in the checkpoint.

    Raises:
        DataError: Target and encoder share no joint name.

    Example::

        model = TransferEvaluation(encoder, target.archive.class_names, layout=target.layout, num_bodies=1)
        print(model.describe_mapping())
        pl.Trainer(max_epochs=80).fit(model, labelled_loader(target, None, 1024))
    """

    def __init__(
        self,
        encoder: ProSLModule | Backbone,
        class_names: Sequence[str],
        *,
        layout: str | Mapping[str, Any] | SkeletonLayout,
        num_bodies: int,
        finetune: bool = False,
        recipe: TrainingRecipe | None = None,
        seed: int = 0,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        backbone = Backbone.of(encoder, data_layout=layout, data_bodies=num_bodies)
        recipe = recipe or (FINE_TUNING if finetune else LINEAR)
        super().__init__(backbone, class_names, recipe=recipe, frozen=not finetune, seed=seed, data=data)

    def describe_mapping(self) -> list[str]:
        """Which joints and bodies matched, a line each; empty where target and encoder have the same."""
        mapping = self.backbone.mapping
        return [] if mapping is None else mapping.describe(self.backbone.stream)


def classifier_tables(classifier: ClassifierEvaluation, data: SkeletonDataModule) -> FeatureTables:
    """Features of both parts as a classifier's own encoder sees them, with its joint mapping.

    Args:
        classifier: On the device that is to compute.
        data: After `setup`.

    Raises:
        DataError: There is no test set, or labels are missing there.
    """
    return tables_of(classifier, classifier.embed, data)
