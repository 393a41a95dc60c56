"""Using a trained encoder from the command line: features and classes of own files, results beside the paper's."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from prosl_lightning import ProSLModule, SkeletonDataModule, load_encoder
from prosl_lightning.evaluation.classifier import save_classifier
from prosl_lightning.evaluation.linear import LinearEvaluation
from prosl_lightning.evaluation.report import append_result, result_row


def test_files_and_their_archive_have_the_same_features(prosl, checkpoint, raw, archive):
    result = prosl("embed", "--ckpt", checkpoint, raw, "--layout", "kinect-v2", "--out", "files")
    assert result.code == 0, result.err
    assert result.out == "files.npz: features of 24 sequences, 128 each\n"
    assert prosl("embed", "--ckpt", checkpoint, "--data.root", archive, "--batch_size", 5, "--out", "all.npz").code == 0
    files, whole = np.load("files.npz"), np.load("all.npz")
    assert files["features"].shape == (24, 128)
    assert files["features"].dtype == np.float32
    np.testing.assert_allclose(files["features"], whole["features"], atol=1e-5)
    for each in (files, whole):
        assert each["labels"].tolist() == [0, 1, 2] * 8
        assert len(set(each["names"].tolist())) == 24
    assert whole["class_names"].tolist() == ["wave", "kick", "bow"]
    assert (
        prosl("embed", "--ckpt", checkpoint, "--data.root", archive, "--data.part", "test", "--out", "test.npz").code
        == 0
    )
    np.testing.assert_allclose(np.load("test.npz")["features"], whole["features"][18:], atol=1e-5)
    lengths = np.load(raw)["lengths"]
    first = np.load(raw)["joints"][: lengths[0]]
    np.testing.assert_allclose(load_encoder(checkpoint).embed(first), whole["features"][:1], atol=1e-5)


def test_what_cannot_be_read_is_listed_and_passed_over(prosl, checkpoint, raw, tmp_path):
    whole = dict(np.load(raw))
    whole["joints"][25] = np.nan  # in the second sequence
    np.savez("nan.npz", **whole)
    Path("text.npz").write_text("no arrays")
    result = prosl(
        "embed", "--ckpt", checkpoint, "text.npz", "nan.npz", "gone.npz", "--layout", "kinect-v2", "--out", "f.npz"
    )
    assert result.code == 0
    assert "warning: 3 could not be used:\n  text.npz: " in result.err
    assert "NaN or infinity in 1 of 21 frames" in result.err
    assert "  gone.npz: there is no such file" in result.err
    assert len(np.load("f.npz")["features"]) == 23
    result = prosl("embed", "--ckpt", checkpoint, "text.npz", "--out", "g.npz")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("prosl embed: error: nothing usable in the files given; the first: text.npz: ")
    assert not list(Path().glob("g.npz")) + list(Path().glob(".g*"))


def test_single_files_are_read_and_named_as_they_were_given(prosl, checkpoint, raw):
    whole = np.load(raw)
    starts = np.cumsum(whole["lengths"]) - whole["lengths"]
    Path("mine").mkdir()
    for i in range(3):
        clip = whole["joints"][starts[i] : starts[i] + whole["lengths"][i]]
        np.savetxt(f"mine/clip{i}.csv", clip.reshape(len(clip), -1), delimiter=",", fmt="%.7f")
    Path("mine/clip2.csv").write_text("1,2,3\n")
    files = [f"mine/clip{i}.csv" for i in (0, 2, 1)]
    result = prosl("embed", "--ckpt", checkpoint, *files, raw, "--layout", "kinect-v2", "--out", "f.npz")
    assert result.code == 0, result.err
    assert "warning: 1 could not be used:\n  clip2.csv: 3 numbers a line" in result.err
    found = np.load("f.npz")
    assert found["names"][:2].tolist() == ["clip0", "clip1"]
    np.testing.assert_allclose(found["features"][:2], found["features"][2:4], atol=1e-4)
    result = prosl("embed", "--ckpt", checkpoint, "mine/clip2.csv", "--layout", "kinect-v2", "--out", "g.npz")
    assert result.code == 1
    assert "nothing usable in the files given; the first: mine/clip2.csv: 3 numbers a line" in result.err


def test_single_raw_recordings(prosl, checkpoint, classifier, shared_folder, tmp_path):
    folder = shared_folder / "data" / "raw-samples" / "ntu-skeleton"
    whole = folder / "S017C003P020R002A058.skeleton"
    Path("S001C001P001R001A001.skeleton").write_bytes((folder / "S001C001P001R001A001.skeleton").read_bytes()[:3000])
    files = ("S001C001P001R001A001.skeleton", whole)
    result = prosl("embed", "--ckpt", checkpoint, *files, "--out", "f.npz")
    assert result.code == 0, result.err
    assert result.err.startswith("warning: 1 could not be used:\n  S001C001P001R001A001.skeleton: line 36")
    assert np.load("f.npz")["names"].tolist() == [whole.stem]
    assert np.load("f.npz")["labels"].tolist() == [57]
    result = prosl("predict", "--ckpt", classifier, *files, "--json")
    (found,) = json.loads(result.out)
    assert found["source"] == str(whole)


def test_another_body_model_is_refused_unless_joints_are_to_be_matched(prosl, checkpoint, other_archive):
    result = prosl("embed", "--ckpt", checkpoint, "--data.root", other_archive, "--out", "f.npz")
    assert result.code == 1
    assert "has layout 'kinect-v1' with 20 joints, the encoder takes 'kinect-v2' with 25\n--map_joints" in result.err
    result = prosl("embed", "--ckpt", checkpoint, "--data.root", other_archive, "--map_joints", "--out", "f.npz")
    assert result.code == 0, result.err
    assert "20 of the encoder's 25 joints are in the data" in result.out
    assert np.load("f.npz")["features"].shape == (24, 128)


def test_an_embedding_needs_files_or_an_archive(prosl, checkpoint, archive, raw):
    for arguments in ((), (raw, "--data.root", archive)):
        result = prosl("embed", "--ckpt", checkpoint, *arguments, "--out", "f.npz")
        assert result.code == 2
        assert "give files, or an archive with --data.root" in result.err
    assert prosl("embed", "--ckpt", "gone.ckpt", raw, "--out", "f.npz").code == 1
    result = prosl("embed", "--ckpt", checkpoint, "--data.root", archive, "--out", "gone/f.npz")
    assert (result.code, "gone/f.npz cannot be written" in result.err) == (1, True)


def test_files_get_classes_scores_and_neighbours(prosl, classifier, raw):
    result = prosl(
        "predict", "--ckpt", classifier, raw, "--layout", "kinect-v2", "--json", "--top", 2, "--out", "p.csv"
    )
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [each["classes"][0]["class"] for each in found] == ["wave", "kick", "bow"] * 8
    for each in found:
        scores = [entry["percent"] for entry in each["classes"]]
        assert len(scores) == 2
        assert 50 < scores[0] <= 100
        assert scores[1] <= 100 - scores[0] + 0.01
        assert each["neighbours"][0]["class"] == each["classes"][0]["class"]
        cosines = [entry["cosine"] for entry in each["neighbours"]]
        assert cosines == sorted(cosines, reverse=True)
        assert len(cosines) == 3
    # A sequence of the training set is its own neighbour.
    assert found[0]["neighbours"][0] == {"name": found[0]["name"], "class": "wave", "cosine": 1.0}
    rows = list(csv.DictReader(io.StringIO(Path("p.csv").read_text())))
    assert [row["class_1"] for row in rows] == ["wave", "kick", "bow"] * 8
    assert list(rows[0])[2:8] == ["class_1", "percent_1", "class_2", "percent_2", "neighbour_1", "neighbour_class_1"]
    assert float(rows[5]["percent_1"]) == found[5]["classes"][0]["percent"]
    assert rows[5]["neighbour_3"] == found[5]["neighbours"][2]["name"]


def test_predictions_on_the_screen(prosl, classifier, raw):
    result = prosl("predict", "--ckpt", classifier, raw, "--layout", "kinect-v2", "--neighbours", 1)
    header, _, first, *others = result.out.splitlines()
    assert header.split("  ")[0] == "sequence"
    assert header.endswith("nearest training samples")
    assert "wave" in first
    assert first.endswith("(wave, 1.00)")
    assert len(others) == 23


def test_an_encoder_or_other_data_cannot_be_classified(prosl, checkpoint, classifier, raw, tmp_path):
    result = prosl("predict", "--ckpt", checkpoint, raw)
    assert result.code == 2
    assert "is an encoder without a classifier\nmake one first: prosl linear --ckpt" in result.err
    assert prosl("predict", "--ckpt", "gone.pt", raw).err == "prosl predict: error: there is no classifier gone.pt\n"
    assert "give the files to classify" in prosl("predict", "--ckpt", classifier).err
    assert "top is 0; it must be at least 1" in prosl("predict", "--ckpt", classifier, raw, "--top", 0).err
    np.savez("small.npz", joints=np.ones((9, 1, 20, 3)) * np.arange(3), lengths=np.array([9]), labels=np.array([0]))
    result = prosl("predict", "--ckpt", classifier, "small.npz", "--layout", "kinect-v1")
    assert result.code == 1
    assert "layout 'kinect-v1' with 20 joints, the encoder takes 'kinect-v2' with 25" in result.err
    assert "prosl transfer" in result.err


@pytest.fixture
def results(checkpoint, archive) -> Path:
    data = SkeletonDataModule(str(archive), "x-sub", batch_size=8)
    data.setup()
    folder = Path("runs/a").absolute()
    folder.mkdir(parents=True)
    row = result_row("knn", [checkpoint], data, {"top-1": 66.66}, {"k": 1})
    append_result(folder / "last.ckpt", row)
    row["data"] |= {"recipe": {"importer": "ntu60"}, "frames_sha256": "of other frames"}
    return append_result(folder / "last.ckpt", row)


def test_results_are_set_beside_the_paper(prosl, results):
    result = prosl("table", 3)  # of the folder `runs`
    assert result.code == 0, result.err
    title, table, remarks, others, below = result.out.rstrip("\n").split("\n\n")
    assert title == "Table 3. Nearest neighbour (k = 1), top-1 accuracy in percent"
    lines = [line.split() for line in table.splitlines()]
    assert lines[-2] == ["ProSL", "Qin", "et", "al.,", "2025", "68.8", "84.2", "56.8", "59.5"]
    assert lines[-1][:2] == ["ours:", "ProSL"]
    assert lines[-1][-4:] == ["66.7†", "-", "-", "-"]
    assert "18 / 6 sequences instead of 40091 / 16487" in remarks
    assert others == "Other results"
    assert below.splitlines()[-1].split()[:2] == ["archive", "x-sub"]


def test_a_table_comes_as_markdown_or_csv(prosl, results):
    text = prosl("table", 3, results, "--style", "markdown").out
    assert "| HiCo-LSTM\\* | Dong et al., 2023 | 67.1 | 83.9 | 56.1 | 58.9 |\n" in text
    assert text.count("| --- ") == 6 + 8
    result = prosl("table", 3, results.parent, "--style", "csv")
    rows = list(csv.reader(io.StringIO(result.out)))
    assert rows[0][:3] == ["method", "source", "NTU-60 x-sub"]
    assert rows[-1][2] == "66.7†"
    assert "1 other results are not in the CSV" in result.err


def test_a_damaged_row_stops_its_own_file_only(prosl, results):
    rows = json.loads(results.read_text())
    other = Path("runs/b/results.json").absolute()
    other.parent.mkdir()
    other.write_text(json.dumps([rows[0], rows[1] | {"protocol": None}]))
    result = prosl("table", 3)
    assert (result.code, "66.7†" in result.out) == (0, True)
    assert "warning: passed over: runs/b/results.json: row 2 lacks protocol; it was not written" in result.err
    result = prosl("table", 3, other)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "results.json: row 2 lacks protocol; " in result.err


def test_a_classifier_that_knows_no_preparation_is_told_apart(prosl, checkpoint, raw):
    module = ProSLModule.load_from_checkpoint(checkpoint, map_location="cpu")
    save_classifier(LinearEvaluation(module, ("x", "y")), "bare.pt")
    result = prosl("predict", "--ckpt", "bare.pt", raw, "--layout", "kinect-v2")
    assert result.code == 2
    assert "bare.pt does not say how its training data were normalised" in result.err
    assert "give the classifier data=data.recipe" in result.err
    result = prosl("predict", "--ckpt", ".", raw)
    assert result.err == "prosl predict: error: . is a folder, not a classifier\n"


def test_the_paper_stands_alone_where_there_are_no_results(prosl):
    result = prosl("table", 1)
    assert result.code == 0
    assert "ProSL-3s" in result.out
    assert "no results in runs" in result.err
    assert prosl("table").code == prosl("table", 7).code == 2
    assert prosl("table", 1, "gone").err == "prosl table: error: there is no file or folder gone\n"


def test_foreign_results_are_passed_over_in_a_folder_and_refused_by_name(prosl, results):
    other = Path("runs/demo/results.json").absolute()
    other.parent.mkdir()
    other.write_text('{"accuracy": 1}')
    result = prosl("table", 3, "runs")
    assert result.code == 0
    assert "66.7†" in result.out
    assert "passed over: " in result.err
    result = prosl("table", 3, other)
    assert (result.code, "holds no list of results" in result.err) == (1, True)
