"""`prosl linear`: linear evaluation of one or several trained encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prosl_lightning.commands.classify import Outcome, finish, milestones_of, train_heads
from prosl_lightning.commands.evaluate import DataOptions, at_least_one, load_inputs, warn_if_equal
from prosl_lightning.commands.parsing import gather_lists, run_function
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.evaluation.features import FeatureTables, Precision, extract_tables
from prosl_lightning.evaluation.fusion import fusion_weights
from prosl_lightning.evaluation.linear import LINEAR, LinearEvaluation
from prosl_lightning.evaluation.recipe import TrainingRecipe, class_names_of
from prosl_lightning.prosl.module import ProSLModule


def linear(
    *,
    ckpt: str | list[str],
    data: DataOptions,
    epochs: int = 80,
    milestones: tuple[int, int] | None = None,
    seeds: int = 1,
    weights: list[float] | None = None,
    precision: Precision = "float32",
) -> None:
    """Linear evaluation: one layer on frozen features, SGD with learning rate 2 and batches of 1024, centre crop 0.95.

    Several checkpoints, e.g. of joint, bone and motion stream, are judged one by one and fused: the sum of their
    layers' logits. The reported accuracy is the last epoch's. A folder beside each checkpoint gets the confusion
    matrix, the accuracy of each class and the classifier, which `prosl predict` takes.

    Args:
        ckpt: Checkpoint of `prosl fit`, or several: --ckpt joint.ckpt bone.ckpt, or '[joint.ckpt, bone.ckpt]'.
        data: The data to evaluate on.
        epochs: Passes over the training set; small sets need more, e.g. 1000.
        milestones: Epochs at which the learning rate is divided by ten; 5/8 and 7/8 of all where it is not given.
        seeds: Number of runs with layers and orders of their own: mean and deviation are reported.
        weights: Of the checkpoints in the fusion; equal where they are not given.
        precision: Of the encoder while features are extracted: float32 or bfloat16.
    """
    recipe = replace(LINEAR, epochs=epochs, milestones=milestones_of(epochs, milestones))
    ckpts = [ckpt] if isinstance(ckpt, str) else ckpt
    shares = fusion_weights(weights, len(ckpts))
    at_least_one(seeds=seeds)
    inputs = load_inputs(ckpts, data)
    tables = []
    for path, (module, source) in zip(ckpts, inputs, strict=True):
        tables.append(extract_tables(module, source, precision))
        warn_if_equal(path, tables[-1])
    outcomes, first = _train(inputs, tables, recipe, seeds, shares)
    protocol, source = recipe.to_plain() | {"precision": precision}, inputs[0][1]
    for path, each, classifier, own in zip(ckpts, outcomes[: len(ckpts)], first, tables, strict=True):
        finish("linear", [path], source, each, protocol, classifier, own)
    if len(ckpts) > 1:
        seen = "+".join(dict.fromkeys(module.hparams["stream"] for module, _ in inputs))
        protocol |= {"fusion": "sum of logits", "weights": shares, "stream": seen}
        finish("linear", ckpts, source, outcomes[-1], protocol)


def _train(
    inputs: Sequence[tuple[ProSLModule, SkeletonDataModule]],
    tables: Sequence[FeatureTables],
    recipe: TrainingRecipe,
    seeds: int,
    shares: Sequence[float],
) -> tuple[list[list[Outcome]], list[LinearEvaluation]]:
    """Outcomes of each stream, and of their fusion last, one for each seed; and the first seed's classifiers."""
    names = class_names_of(inputs[0][1].archive.class_names, inputs[0][1].archive.labels)
    rounds: list[list[Outcome]] = []
    first: list[LinearEvaluation] = []
    for seed in range(seeds):
        classifiers = [
            LinearEvaluation(module, names, recipe=recipe, seed=seed, data=source.recipe) for module, source in inputs
        ]
        rounds.append(train_heads(classifiers, tables, shares))
        first = first or classifiers
    return [list(outcomes) for outcomes in zip(*rounds, strict=True)], first


def main(arguments: Sequence[str]) -> None:
    """Run `prosl linear`."""
    run_function(linear, list(gather_lists(arguments, {"--ckpt"})), "linear")
