"""`prosl semi`: fine-tuning with a labelled fraction of the training set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from prosl_lightning.commands.classify import Outcome, finish, milestones_of
from prosl_lightning.commands.evaluate import DataOptions, at_least_one, load_inputs
from prosl_lightning.commands.parsing import gather_lists, run_function
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.evaluation.classifier import ClassifierEvaluation
from prosl_lightning.evaluation.linear import top1
from prosl_lightning.evaluation.recipe import class_names_of
from prosl_lightning.evaluation.semi import (
    FINE_TUNING,
    Sampling,
    SemiSupervisedEvaluation,
    few_steps,
    fine_tune,
    keep_labelled_gallery,
    labelled_subset,
)


def semi(
    *,
    ckpt: str,
    data: DataOptions,
    fraction: float,
    sampling: Sampling = "random",
    seeds: int = 5,
    epochs: int = 80,
    milestones: tuple[int, int] | None = None,
    test_every: int = 5,
) -> None:
    """Semi-supervised evaluation: encoder and linear layer are fine-tuned on a labelled fraction of the training set.

    SGD with learning rate 0.01 and batches of 64, random crops of 50 to 100 % (CMD's recipe); tested under the centre
    crop of 95 %. The reported accuracy is the last epoch's, mean and deviation over the seeds.

    Args:
        ckpt: Checkpoint of `prosl fit`.
        data: The data to evaluate on.
        fraction: Share of the training set whose labels are used, e.g. 0.01 or 0.1; 1 is supervised fine-tuning.
        sampling: `random` draws from all sequences that have a label, `stratified` the same share of every class.
        seeds: Number of runs, each with labels, layer, order and crops of its own.
        epochs: Passes over the labelled sequences.
        milestones: Epochs at which the learning rate is divided by ten; 5/8 and 7/8 of all where it is not given.
        test_every: Epochs between tests during training, from which the best epoch on the test set is told.
    """
    recipe = replace(FINE_TUNING, epochs=epochs, milestones=milestones_of(epochs, milestones))
    at_least_one(seeds=seeds, test_every=test_every)
    silence_lightning()
    ((module, source),) = load_inputs([ckpt], data)
    names = class_names_of(source.archive.class_names, source.archive.labels)
    outcomes: list[Outcome] = []
    for seed in range(seeds):
        classifier = SemiSupervisedEvaluation(module, names, recipe=recipe, seed=seed, data=source.recipe)
        outcome, labelled = tune(classifier, source, fraction, sampling, test_every)
        outcomes.append(outcome)
        if seed == 0:
            first = classifier
    protocol = {
        **recipe.to_plain(), "fraction": fraction, "sampling": sampling, "labelled": labelled, "test_every": test_every,
    }  # fmt: skip
    finish("semi", [ckpt], source, outcomes, protocol, first)


def tune(
    classifier: ClassifierEvaluation, data: SkeletonDataModule, fraction: float, sampling: Sampling, test_every: int
) -> tuple[Outcome, int]:
    """Fine-tune on the labelled sequences that the classifier's seed chooses; say how it went, and on how many."""
    labels = data.archive.labels[data.train_rows]
    chosen = labelled_subset(labels, fraction, sampling, classifier.seed)
    if classifier.seed == 0:
        missing = len(classifier.class_names) - len(set(labels[chosen].tolist()))
        lacking = f"; {missing} of {len(classifier.class_names)} classes are not among them" if missing else ""
        print(f"{len(chosen)} of {len(labels)} training sequences are labelled{lacking}", flush=True)
        if hint := few_steps(classifier.recipe, len(chosen)):
            print(hint, flush=True)
    found = fine_tune(classifier, data, chosen, test_every=test_every, progress_bar=sys.stderr.isatty())
    print(f"seed {classifier.seed}: top-1 {top1(found.logits, found.labels):.2f}", flush=True)
    if classifier.seed == 0:
        keep_labelled_gallery(classifier, data, chosen)
    return Outcome(*found), len(chosen)


def main(arguments: Sequence[str]) -> None:
    """Run `prosl semi`."""
    run_function(semi, list(gather_lists(arguments, {"--ckpt"})), "semi")
