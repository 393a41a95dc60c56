"""`prosl predict`: classes of a user's own files, with scores and the training samples that are nearest."""

from __future__ import annotations

import csv
import json as json_format
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from prosl_lightning.commands.user_files import Sample, UserFiles, refuse_other_layout, run_with_list
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.classifier import ClassifierEvaluation, load_classifier
from prosl_lightning.evaluation.encoder import Features, SkeletonEncoder, checkpoint_kind
from prosl_lightning.evaluation.knn import nearest
from prosl_lightning.tables import table

_REMEDY = "train a classifier on data of that body model: `prosl transfer`"

Prediction = dict[str, Any]


def predict(
    *,
    ckpt: str,
    files: Sequence[str] = (),
    top: int = 3,
    neighbours: int = 3,
    json: bool = False,
    out: str | None = None,
    format: str | None = None,
    layout: str | None = None,
    batch_size: int = 256,
) -> None:
    """Classes of files of any format the package reads: prosl predict --ckpt CLASSIFIER FILES.

    Shows for every sequence the most probable classes, their probability in percent, and the training samples whose
    features are nearest, with their class and cosine. Files that cannot be read are listed and passed over; those of
    other formats in a folder are counted.

    Args:
        ckpt: A classifier: what `prosl linear`, `prosl semi` or `prosl transfer` has written.
        files: Files or folders.
        top: Classes to show for each sequence.
        neighbours: Training samples to show for each sequence.
        json: Print a JSON list instead of a table.
        out: A CSV file to write as well.
        format: Format of the files; found out where it is not given.
        layout: Body model of the files, where they do not say.
        batch_size: Sequences per forward pass.
    """
    for name, value, least in (("top", top, 1), ("neighbours", neighbours, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise UsageError(f"{name} is {value}; it must be at least {least}")
    if not files:
        raise UsageError("give the files to classify")
    classifier = _load(ckpt)
    encoder = _encoder(classifier, ckpt)
    with UserFiles(files, format, layout, "give the files it was made from: predict takes no archives") as opened:
        refuse_other_layout(opened.layout, encoder, opened.first, _REMEDY)
        predictions = list(_predictions(classifier, encoder, opened, top, neighbours, batch_size))
        if not predictions:
            raise opened.nothing_usable()
    if out is not None:
        _write_csv(Path(out), predictions)
    if json:
        print(json_format.dumps(predictions, indent=2, ensure_ascii=False))
    else:
        print(_screen(predictions))
    opened.report_bad()


def _load(ckpt: str) -> ClassifierEvaluation:
    if checkpoint_kind(ckpt) == "encoder":
        raise UsageError(
            f"{ckpt} is an encoder without a classifier\nmake one first: prosl linear --ckpt {ckpt} --data.root DIR"
        )
    return load_classifier(ckpt).to("cuda" if torch.cuda.is_available() else "cpu")


def _encoder(classifier: ClassifierEvaluation, ckpt: str) -> SkeletonEncoder:
    encoder = SkeletonEncoder(classifier.backbone, classifier.data_recipe)
    if encoder.normalization is None:
        raise UsageError(
            f"{ckpt} does not say how its training data were normalised, so files cannot be prepared alike\n"
            "in Python give the classifier data=data.recipe (of the SkeletonDataModule) before it is trained"
        )
    return encoder


def _predictions(
    classifier: ClassifierEvaluation,
    encoder: SkeletonEncoder,
    opened: UserFiles,
    top: int,
    neighbours: int,
    batch_size: int,
) -> Iterator[Prediction]:
    waiting: list[tuple[str, str]] = []

    def joints(samples: Iterator[Sample]) -> Iterator[Any]:
        for sample in samples:
            waiting.append((sample.name, sample.source))
            yield sample.joints

    for features in encoder.embed_prepared(joints(opened.samples(encoder)), batch_size):
        named, waiting[:] = waiting[: len(features)], waiting[len(features) :]
        classes = _classes(classifier, features, top)
        near = _neighbours(classifier, features, neighbours)
        for (name, source), best, samples in zip(named, classes, near, strict=True):
            yield {"name": name, "source": source, "classes": best, "neighbours": samples}


@torch.no_grad()
def _classes(classifier: ClassifierEvaluation, features: Features, top: int) -> list[list[dict[str, Any]]]:
    scores = 100 * classifier.head(torch.from_numpy(features).to(classifier.device)).softmax(dim=1)
    best = scores.topk(min(top, scores.shape[1]), dim=1)
    return [
        [{"class": classifier.class_names[i], "percent": round(p, 2)} for p, i in zip(values, rows, strict=True)]
        for values, rows in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _neighbours(classifier: ClassifierEvaluation, features: Features, count: int) -> list[list[dict[str, Any]]]:
    gallery, names, labels = classifier.gallery_features, classifier.gallery_names, classifier.gallery_labels
    if gallery is None or names is None or labels is None or count == 0:
        return [[] for _ in features]
    queries, table_ = torch.from_numpy(features), gallery.float()
    rows = nearest(table_, queries, min(count, len(table_)))
    cosines = F.cosine_similarity(queries.unsqueeze(1), table_[rows], dim=2)
    return [
        [
            {"name": names[i], "class": classifier.class_names[int(labels[i])], "cosine": round(cosine, 4)}
            for i, cosine in zip(found, values, strict=True)
        ]
        for found, values in zip(rows.tolist(), cosines.tolist(), strict=True)
    ]


def _screen(predictions: Sequence[Prediction]) -> str:
    near = any(prediction["neighbours"] for prediction in predictions)
    header = ["sequence", "class", "%", "next"] + (["nearest training samples"] if near else [])
    rows = []
    for prediction in predictions:
        first, *others = prediction["classes"]
        row = [prediction["name"], first["class"], first["percent"]]
        row.append(", ".join(f"{each['class']} {each['percent']:.1f}" for each in others))
        if near:
            found = [f"{each['name']} ({each['class']}, {each['cosine']:.2f})" for each in prediction["neighbours"]]
            row.append(", ".join(found))
        rows.append(row)
    return table(header, rows)


def _write_csv(path: Path, predictions: Sequence[Prediction]) -> None:
    first = predictions[0]
    header = ["name", "source"]
    header += [f"{field}_{i + 1}" for i in range(len(first["classes"])) for field in ("class", "percent")]
    near = ("neighbour", "neighbour_class", "neighbour_cosine")
    header += [f"{field}_{i + 1}" for i in range(len(first["neighbours"])) for field in near]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for each in predictions:
                ranked = [value for entry in each["classes"] + each["neighbours"] for value in entry.values()]
                writer.writerow([each["name"], each["source"], *ranked])
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def main(arguments: Sequence[str]) -> None:
    """Run `prosl predict`."""
    run_with_list(predict, arguments, "predict", "files", "files or folders of any format the package reads")
