"""`prosl transfer`: an encoder of one data set judged on another, also of another body model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prosl_lightning.commands.classify import Outcome, finish, milestones_of, train_heads
from prosl_lightning.commands.evaluate import DataOptions, at_least_one, load_inputs, warn_if_equal
from prosl_lightning.commands.parsing import gather_lists, resolve_config, run_function
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.commands.semi import tune
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.evaluation.features import FeatureTables, stored_recipe
from prosl_lightning.evaluation.linear import LINEAR
from prosl_lightning.evaluation.recipe import class_names_of
from prosl_lightning.evaluation.semi import FINE_TUNING
from prosl_lightning.evaluation.transfer import TransferEvaluation, classifier_tables


def transfer(
    *,
    ckpt: str,
    data: DataOptions,
    finetune: bool = False,
    epochs: int = 80,
    milestones: tuple[int, int] | None = None,
    seeds: int = 1,
    test_every: int = 5,
) -> None:
    """Transfer: an encoder trained on one data set is judged on another, by the linear protocol or fine-tuned.

    The target may have another body model: joints are matched by name. Those the target lacks are zero, those the
    encoder does not know are left out, and both are told. The reported accuracy is the last epoch's.

    Args:
        ckpt: Checkpoint of `prosl fit` on the source.
        data: The target.
        finetune: Whether the encoder trains too (`prosl semi`'s recipe on all labels); the paper's is linear.
        epochs: Passes over the target's training set; small sets need more, e.g. 1000 linear ones.
        milestones: Epochs at which the learning rate is divided by ten; 5/8 and 7/8 of all where it is not given.
        seeds: Number of runs with layers and orders of their own: mean and deviation are reported.
        test_every: Epochs between tests while fine-tuning, from which the best epoch on the test set is told.
    """
    recipe = replace(FINE_TUNING if finetune else LINEAR, epochs=epochs, milestones=milestones_of(epochs, milestones))
    at_least_one(seeds=seeds, test_every=test_every)
    silence_lightning()
    ((module, target),) = load_inputs([ckpt], data, any_layout=True)
    names = class_names_of(target.archive.class_names, target.archive.labels)
    outcomes: list[Outcome] = []
    tables: FeatureTables | None = None
    for seed in range(seeds):
        classifier = TransferEvaluation(
            module, names, layout=target.layout, num_bodies=target.num_bodies, finetune=finetune, recipe=recipe,
            seed=seed, data=target.recipe,
        )  # fmt: skip
        classifier.to(module.device)
        if seed == 0:
            first = classifier
            _describe(classifier, ckpt, target)
        if finetune:
            outcomes.append(tune(classifier, target, 1.0, "random", test_every)[0])
        else:
            if tables is None:
                tables = classifier_tables(classifier, target)
                warn_if_equal(ckpt, tables)
            outcomes += train_heads([classifier], [tables])
    protocol = recipe.to_plain() | {"finetune": finetune} | _mapping_of(first)
    finish("transfer", [ckpt], target, outcomes, protocol, first, tables)


def _mapping_of(classifier: TransferEvaluation) -> dict[str, Any]:
    """What the row says of joints and units that differ."""
    mapping, encoder, data = classifier.backbone.mapping, classifier.backbone.encoder_layout, classifier.layout
    told: dict[str, Any] = {}
    if mapping is not None:
        told |= {"absent_joints": list(mapping.absent), "unused_joints": list(mapping.dropped)}
        told |= {"renamed_joints": mapping.renamed} if mapping.renamed else {}
    if encoder.unit != data.unit:
        told["units"] = {"encoder": encoder.unit, "data": data.unit}
    return told


def _describe(classifier: TransferEvaluation, ckpt: str, target: SkeletonDataModule) -> None:
    """Say what matched, and whether the source has the target's normalisation and unit."""
    for line in classifier.describe_mapping():
        print(line)
    source = stored_recipe(ckpt).get("normalisation")
    recipes = [dict(each).get("normalize") if isinstance(each, dict) else None for each in (
        source, target.archive.meta.get("recipe"),
    )]  # fmt: skip
    units = [classifier.backbone.encoder_layout.unit, target.layout.unit]
    for what, (ours, theirs) in (("normalisation", recipes), ("unit", units)):
        if ours != theirs:
            print(f"{what} differs: the encoder's data '{ours}', the target '{theirs}'")


def _with_packaged_configs(arguments: Sequence[str]) -> list[str]:
    """Configurations first, by file or packaged name; options given beside them win."""
    options: list[str] = []
    configs: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--config" and (name := next(rest, None)) is not None:
            configs.append(f"--config={resolve_config(name)}")
        elif argument.startswith("--config="):
            configs.append(f"--config={resolve_config(argument.removeprefix('--config='))}")
        else:
            options.append(argument)
    return [*configs, *options]


def main(arguments: Sequence[str]) -> None:
    """Run `prosl transfer`."""
    run_function(transfer, list(gather_lists(_with_packaged_configs(arguments), {"--ckpt"})), "transfer")
