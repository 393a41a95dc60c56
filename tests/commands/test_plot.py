"""`prosl plot`: every figure from the command line, on tiny data, and what it says where something is missing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from PIL import Image

from prosl_lightning import ArchiveWriter, ProSLModule, SkeletonDataModule, SkeletonLayout
from prosl_lightning.commands.parsing import gather_lists
from prosl_lightning.commands.plot_inputs import trained_epochs
from prosl_lightning.figures import maps

OPTIONS = {
    "base": "hico-gru", "base_args": {"hidden_size": 16, "num_layers": 1, "projection_size": 8}, "num_frames": 16,
    "min_crop_frames": 8, "bank_size": 32, "momentum": 0.9, "semantic_start": 1, "num_clusters": 4,
    "confidence_threshold": "relative", "importance_samples": 8, "milestones": (2,), "learning_rate": 0.02,
}  # fmt: skip


@pytest.fixture(scope="session")
def run(tiny_archive, tmp_path_factory):
    """A run of three epochs with a checkpoint after one and after three, and its log."""
    folder = tmp_path_factory.mktemp("plot") / "run"
    pl.seed_everything(0, verbose=False)
    data = SkeletonDataModule(str(tiny_archive), batch_size=8, protocol="x-sub")
    checkpoints = pl.callbacks.ModelCheckpoint(
        folder / "checkpoints", "epoch-{epoch:04d}", every_n_epochs=2, save_top_k=-1, save_on_train_epoch_end=True,
        auto_insert_metric_name=False,
    )  # fmt: skip
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=3, accelerator="cpu", log_every_n_steps=1, enable_progress_bar=False,
        logger=pl.loggers.CSVLogger(folder, name="logs"), callbacks=[checkpoints], enable_model_summary=False,
    )  # fmt: skip
    model = ProSLModule(**OPTIONS)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / "checkpoints" / "untrained.ckpt", weights_only=True)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory):
    """16 unlabelled sequences of the tiny archive's layout, all for training."""
    root = tmp_path_factory.mktemp("plot") / "unlabelled"
    draw = np.random.default_rng(0)
    with ArchiveWriter(root, layout=SkeletonLayout.of("kinect-v2"), num_bodies=2) as writer:
        for number in range(16):
            writer.add(f"clip{number}", draw.normal(size=(12, 25, 2, 3)))
    return root


@pytest.fixture
def saved(monkeypatch):
    """The figures that a command writes."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (figures.append(self), save(self, path)))
    return figures


def test_lists_may_be_given_bare():
    given = ["tsne", "--ckpt", "a", "b c", "--out", "x", "--baseline=d", "--classes", "5", "--show", "a"]
    expected = ["tsne", "--ckpt", '["a", "b c"]', "--out", "x", "--baseline=d", "--classes", "5", "--show", "a"]
    assert list(gather_lists(given, {"--ckpt"}, {"--classes"})) == expected
    alone = [["--classes", "[a, b]"], ["--classes", "wave"], ["--ckpt", "wave"], ["--classes"]]
    assert [list(gather_lists(each, {"--ckpt"}, {"--classes"})) for each in alone] == [
        ["--classes", "[a, b]"], ["--classes", '["wave"]'], ["--ckpt", "wave"], ["--classes"]
    ]  # fmt: skip


def test_help_names_every_figure_and_each_has_options(prosl):
    result = prosl("plot", "--help")
    assert all(
        name in result.out for name in ("streams", "tsne", "importance", "codebook", "nearest", "curves", "animate")
    )
    assert "--baseline" in prosl("plot", "tsne", "--help").out
    assert prosl("plot", "tsen", "--out", "x.png").code == 2


def test_epochs_are_those_trained(run):
    files = ("untrained", "epoch-0001", "last")
    assert [trained_epochs(str(run / "checkpoints" / f"{name}.ckpt")) for name in files] == [0, 2, 3]


def test_maps_of_two_methods(prosl, run, tiny_archive, saved):
    files = [run / "checkpoints" / f"{name}.ckpt" for name in ("untrained", "epoch-0001", "last")]
    result = prosl(
        "plot", "tsne", "--ckpt", *files[1:], "--baseline", *files[:2], "--data.root", tiny_archive, "--classes", "a",
        "c", "--per_class", 3, "--out", "maps.png",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "4 maps of 6 sequences" in result.out
    (figure,) = saved
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes]
    assert titles == ["0 epochs", "2 epochs, with codebook", "2 epochs, with codebook", "3 epochs, with codebook"]
    np.testing.assert_allclose(figure.axes[1].collections[0].get_offsets(), figure.axes[2].collections[0].get_offsets())
    assert figure.axes[2].get_ylabel().startswith("ProSL (HiCo-GRU")
    assert figure.axes[0].get_ylabel().endswith("(baseline)")
    told = figure.get_supxlabel().replace("\n", " ")
    assert "tiny, x-sub, test side: 6 of 12 sequences, 2 of 3 classes" in told
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "c"]


def test_maps_without_labels_or_test_side_say_so(prosl, run, unlabelled, saved):
    ckpt = run / "checkpoints" / "last.ckpt"
    result = prosl(
        "plot", "tsne", "--ckpt", ckpt, "--data.root", unlabelled, "--data.protocol", "all", "--out", "m.svg"
    )
    assert result.code == 0, result.err
    assert "training side: all 16 sequences, without labels" in saved[0].get_supxlabel().replace("\n", " ")
    assert "DBI" not in saved[0].axes[0].get_title()
    assert f"note: {ckpt} was trained on another data set" in result.err


@pytest.mark.parametrize(
    ("by", "titles"),
    [
        ("dataset", ["Semantic coefficients: ProSL (HiCo-GRU, hidden_size 16,\nnum_layers 1, projection_size 8)"]),
        ("class", ["a\n12 sequences", "b\n12 sequences", "c\n12 sequences"]),
        ("sequence", ["clip003\na", "clip000\na"]),
    ],
)
def test_importance(prosl, run, tiny_archive, saved, by, titles):
    ckpt = run / "checkpoints" / "last.ckpt"
    show = ["--which", "clip003", "0"] if by == "sequence" else []
    result = prosl(
        "plot",
        "importance",
        "--ckpt",
        ckpt,
        "--data.root",
        tiny_archive,
        "--by",
        by,
        "--samples",
        2,
        *show,
        "--out",
        "i.png",
    )
    assert result.code == 0, result.err
    assert [axes.get_title() for axes in saved[0].axes if axes.get_title()] == titles
    if by == "dataset":
        stored = torch.load(ckpt, weights_only=True)["state_dict"]["codebook.importance"].double().numpy()
        (dots,) = (each for each in saved[0].axes[0].collections if len(each.get_offsets()))
        np.testing.assert_allclose(dots.get_array(), np.sort(stored) / stored.max())
        assert "from the codebook built after 2 epochs" in result.out


def test_importance_of_clusters_names_their_size_and_main_class(prosl, run, tiny_archive, saved):
    ckpt = run / "checkpoints" / "last.ckpt"
    result = prosl(
        "plot", "importance", "--ckpt", ckpt, "--data.root", tiny_archive, "--by", "cluster", "--which", 2, "--samples",
        2, "--out", "i.png",
    )  # fmt: skip
    assert result.code == 0, result.err
    assignment = torch.load(ckpt, weights_only=True)["state_dict"]["codebook.assignment"]
    sizes = torch.bincount(assignment, minlength=4)
    order = torch.argsort(sizes, descending=True, stable=True)[:2].tolist()
    titles = [axes.get_title().split("\n")[0] for axes in saved[0].axes if axes.get_title()]
    assert titles == [f"cluster {number}: {sizes[number]} sequences" for number in order]
    assert "measuring: 4 sequences, 104 forward passes" in result.err


def test_importance_of_an_untrained_encoder_is_measured(prosl, run, tiny_archive):
    ckpt = run / "checkpoints" / "untrained.ckpt"
    told = prosl("plot", "importance", "--ckpt", ckpt, "--out", "i.png")
    assert told.code == 2
    assert "importance without a codebook is measured on data: give --data.root" in told.err
    told = prosl("plot", "importance", "--ckpt", ckpt, "--data.root", tiny_archive, "--out", "i.png")
    assert told.code == 2
    assert "the checkpoint names none): give --data.protocol" in told.err
    result = prosl(
        "plot", "importance", "--ckpt", ckpt, "--data.root", tiny_archive, "--data.protocol", "x-sub", "--samples", 1,
        "--out", "i.png",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "measured on 4 of 36 training sequences after 0 epochs" in result.out


def test_codebook_with_and_without_data_and_log(prosl, run, tiny_archive, saved, tmp_path):
    ckpt = run / "checkpoints" / "last.ckpt"
    assert prosl("plot", "codebook", "--ckpt", ckpt, "--data.root", tiny_archive, "--out", "c.pdf").code == 0
    sizes, matrix, change, _ = saved[0].axes
    assert sum(bar.get_height() for bar in sizes.patches) == 36
    assert matrix.images[0].get_array().shape == (3, 4)
    assert {line.get_label().split(":")[0] for line in change.lines} >= {"churn"}
    assert change.lines[0].get_xdata().tolist()[-1] == 2
    alone = tmp_path / "alone.ckpt"
    shutil.copy(ckpt, alone)
    result = prosl("plot", "codebook", "--ckpt", alone, "--out", "c.png")
    assert "classes not known: give --data.root; no log of the run, so nothing about changes: give --run" in result.out
    assert len(saved[1].axes) == 1
    assert prosl("plot", "codebook", "--ckpt", alone, "--run", run, "--out", "c.png").code == 0
    assert len(saved[2].axes) == 2
    assert prosl("plot", "codebook", "--ckpt", alone, "--run", "nowhere", "--out", "c.png").code == 1


def test_nearest_sequences(prosl, run, tiny_archive, saved):
    ckpt = run / "checkpoints" / "last.ckpt"
    result = prosl("plot", "nearest", "--ckpt", ckpt, "--data.root", tiny_archive, "--clusters", 2, "--out", "n.png")
    assert result.code == 0, result.err
    texts = [text.get_text() for text in saved[0].axes[0].texts]
    assert sum(text.startswith("cluster ") for text in texts) == 2
    assert all(text.split(",")[0] in ("a", "b", "c") for text in texts if "cosine" in text)
    assert saved[0].get_supxlabel() == "left side blue, right side orange"
    result = prosl(
        "plot", "nearest", "--ckpt", ckpt, "--data.root", tiny_archive, "--clusters", 4, "--count", 50, "--out", "n.png"
    )
    assert "n.png: 4 clusters, 36 sequences" in result.out  # all there are
    result = prosl("plot", "nearest", "--ckpt", ckpt, "--data.root", tiny_archive, "--clusters", 1, 9, "--out", "n.png")
    assert (result.code, "there is no cluster 9; the codebook has 0 to 3" in result.err) == (2, True)


def test_curves(prosl, run, saved):
    result = prosl("plot", "curves", "--run", run, "--out", "deep/curves.png")
    assert result.code == 0, result.err
    assert result.out.startswith("deep/curves.png: 3 epochs, ")
    assert any("semantic stage, from epoch 1" in text.get_text() for text in saved[0].axes[0].get_legend().get_texts())


def test_streams(prosl, run, tiny_archive, saved):
    ckpt = run / "checkpoints" / "last.ckpt"
    assert prosl("knn", "--ckpt", ckpt, "--data.root", tiny_archive).code == 0
    results = run / "checkpoints" / "results.json"
    try:
        (row,) = json.loads(results.read_text())
        result = prosl("plot", "streams", "--results", run, "--evaluation", "knn", "--out", "s.png")
        assert result.code == 0, result.err
        assert "1 bar of 1 data set and split" in result.out
        (bar,) = saved[0].axes[0].patches
        assert bar.get_height() == row["numbers"]["top-1"]
        empty = prosl("plot", "streams", "--results", run, "--out", "s.png")
        assert (empty.code, "no result of `prosl linear` among 1 results" in empty.err) == (1, True)
    finally:
        results.unlink()


@pytest.mark.parametrize(("show", "panels"), [("sequence", 1), ("views", 4), ("mask", 4)])
def test_animations(prosl, run, tiny_archive, show, panels):
    ckpt = ["--ckpt", run / "checkpoints" / "last.ckpt"] if show != "sequence" else []
    result = prosl(
        "plot", "animate", "--data.root", tiny_archive, "--sequence", "clip002", "--show", show, *ckpt, "--out", "a.gif"
    )
    assert result.code == 0, result.err
    frames = 16 if panels == 4 else int(result.out.split(" of ")[1].split()[0])
    assert f"a.gif: clip002, c, {panels} panel" in result.out
    with Image.open("a.gif") as image:
        assert image.n_frames == frames
        assert image.width == pytest.approx(80 * (2.9 * panels + 0.2), abs=1)


def test_a_users_file_is_animated_as_recorded_or_as_the_encoder_sees_it(prosl, run, tmp_path):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(2, 3, 20, 25, 2)).astype(np.float32))
    result = prosl("plot", "animate", "--file", "mine.npy", "--layout", "kinect-v2", "--sequence", 1, "--out", "f.gif")
    assert result.code == 0, result.err
    with Image.open("f.gif") as image:
        assert image.n_frames == 20
    wrong = prosl("plot", "animate", "--file", "mine.npy", "--layout", "kinect-v2", "--sequence", 7, "--out", "f.gif")
    assert (wrong.code, "mine.npy has no sequence '7' among 2" in wrong.err) == (2, True)
    masked = ["plot", "animate", "--file", "mine.npy", "--layout", "kinect-v2", "--show", "mask", "--out", "f.gif"]
    result = prosl(*masked, "--ckpt", run / "checkpoints" / "last.ckpt")
    assert (result.code, "does not say how its training data were normalised" in result.err) == (2, True)
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    content["recipe"]["normalisation"] = {"normalize": "upright"}
    torch.save(content, "knows.ckpt")
    result = prosl(*masked, "--ckpt", "knows.ckpt")
    assert result.code == 0, result.err
    assert "4 panels of 16 frames" in result.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tsne", "--out", "x.bmp"], 2, "--out x.bmp: a figure is written as .png, .pdf, .svg"),
        (["tsne", "--classes", "jump", "a", "--out", "x.png"], 2, "there is no class 'jump'; there are a, b, c"),
        (["tsne", "--classes", "33", "--out", "x.png"], 2, "at most 32 can be told apart"),
        (["tsne", "--per_class", "0", "--out", "x.png"], 2, "per_class is 0; it must be at least 1"),
        (
            ["importance", "--by", "sequence", "--which", "nobody", "--out", "x.png"],
            2,
            "no sequence 'nobody'; give a name",
        ),
        (["importance", "--by", "cluster", "--which", "[9]", "--out", "x.png"], 2, "cluster 9 does not exist"),
        (["nearest", "--data.protocol", "x-view", "--out", "x.png"], 1, "divides 36 sequences, protocol 'x-view'"),
        (["animate", "--out", "x.png"], 2, "an animation is written as .gif or .mp4"),
        (["animate", "--file", "x", "--out", "x.gif"], 2, "not both"),
        (["animate", "--sequence", "99", "--out", "x.gif"], 2, "has no sequence '99'"),
    ],
)
def test_wrong_input_is_told_in_a_line_or_two(prosl, run, tiny_archive, arguments, code, message):
    options = ["--data.root", tiny_archive, "--ckpt", run / "checkpoints" / "last.ckpt"]
    result = prosl("plot", arguments[0], *options, *arguments[1:])
    assert message in result.err
    assert result.code == code
    assert "Traceback" not in result.err
    assert len([line for line in result.err.splitlines() if not line.startswith("note")]) <= 3


def test_missing_parts_are_told(prosl, run, tiny_archive, other_archive, monkeypatch):
    untrained, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("untrained", "last"))
    result = prosl("plot", "codebook", "--ckpt", untrained, "--out", "x.png")
    assert result.code == 1
    assert "has no codebook after 0 epochs: give one of the semantic stage (from epoch 1)" in result.err
    result = prosl("plot", "animate", "--data.root", tiny_archive, "--show", "views", "--out", "x.gif")
    assert (result.code, "--show views needs a checkpoint: --ckpt FILE" in result.err) == (2, True)
    result = prosl("plot", "animate", "--data.root", other_archive, "--ckpt", last, "--show", "mask", "--out", "x.gif")
    assert (result.code, "the sequence has layout 'kinect-v1' with 20 joints" in result.err) == (1, True)
    result = prosl("plot", "curves", "--run", "nowhere", "--out", "x.png")
    assert (result.code, "nowhere does not exist" in result.err) == (1, True)
    monkeypatch.setattr(maps, "find_spec", lambda name: None)
    result = prosl("plot", "tsne", "--ckpt", last, "--data.root", tiny_archive, "--method", "umap", "--out", "x.png")
    assert (result.code, "pip install 'prosl-lightning[umap]'" in result.err) == (1, True)
