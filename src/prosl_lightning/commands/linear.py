"""`prosl linear`: linear evaluation of one or several trained encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prosl_lightning.commands.classify import Outcome, finish, milestones_of, train_head
from prosl_lightning.commands.evaluate import DataOptions, at_least_one, load_inputs
from prosl_lightning.commands.parsing import run_function
from prosl_lightning.evaluation.features import Precision, extract_tables
from prosl_lightning.evaluation.fusion import fuse, fusion_weights
from prosl_lightning.evaluation.linear import LINEAR, LinearEvaluation
from prosl_lightning.evaluation.recipe import class_names_of


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
        ckpt: Checkpoint of `prosl fit`, or a list of them: '[joint.ckpt, bone.ckpt]'.
        data: The data to evaluate on.
        epochs: Passes over the training set; small sets need more, e.g. 1000.
        milestones: Epochs at which the learning rate is divided by ten; 5/8 and 7/8 of all where it is not given.
        seeds: Number of runs with layers and orders of their own: mean and deviation are reported.
        weights: Of the checkpoints in the fusion; equal where they are not given.
        precision: Of the encoder while features are extracted: float32 or bfloat16.
    """
    recipe = replace(LINEAR, epochs=epochs, milestones=milestones_of(epochs, milestones))
    protocol = recipe.to_plain() | {"precision": precision}
    ckpts = [ckpt] if isinstance(ckpt, str) else ckpt
    shares = fusion_weights(weights, len(ckpts))
    at_least_one(seeds=seeds)
    inputs = load_inputs(ckpts, data)
    streams: list[list[Outcome]] = []
    for path, (module, source) in zip(ckpts, inputs, strict=True):
        names = class_names_of(source.archive.class_names, source.archive.labels)
        tables = extract_tables(module, source, precision)
        outcomes: list[Outcome] = []
        for seed in range(seeds):
            classifier = LinearEvaluation(module, names, recipe=recipe, seed=seed, data=source.recipe)
            outcomes.append(train_head(classifier, tables))
            if seed == 0:
                first = classifier
        finish("linear", [path], source, outcomes, protocol, first, tables)
        streams.append(outcomes)
    if len(ckpts) > 1:
        seen = "+".join(dict.fromkeys(module.hparams["stream"] for module, _ in inputs))
        protocol |= {"fusion": "sum of logits", "weights": shares, "stream": seen}
        finish("linear", ckpts, inputs[0][1], _fused(streams, shares), protocol)


def _fused(streams: Sequence[Sequence[Outcome]], shares: Sequence[float]) -> list[Outcome]:
    """Of each seed, what the streams say together."""
    return [
        Outcome(fuse([one.logits for one in each], shares), each[0].labels, None) for each in zip(*streams, strict=True)
    ]


def main(arguments: Sequence[str]) -> None:
    """Run `prosl linear`."""
    run_function(linear, arguments, "linear")
