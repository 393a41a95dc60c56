"""Wrong input to `prosl`: one clear error of one to three lines, the right exit code, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prosl_lightning.data.synthetic.raw import write_skeleton_files

HELP = "`prosl fit --help` lists all options"


def _check(result, code: int, *wanted: str) -> None:
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert 1 <= len(result.err.splitlines()) <= 3, result.err
    for text in wanted:
        assert text in result.err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model.temprature 0.1", "unrecognized arguments: --model.temprature 0.1; did you mean model.temperature?"),
        ("--trainer.max_epocs 1", "did you mean trainer.max_epochs?"),
        ("--model.temperature hot", "--model.temperature: expected float, found hot"),
        ("--data.stream joints", "--data.stream: expected Literal['joint', 'bone', 'motion'], found joints"),
        ("--model.stream bone", "--model.stream follows from --data.stream: give only that one"),
        ("--trainer.logger WandbLogger --trainer.logger.ofline 1", "Option 'ofline' is not accepted"),
        ("--config", "argument -c/--config: expected one argument"),
    ],
)
def test_options_that_do_not_parse(fit, arguments, message):
    _check(fit(*arguments.split()), 2, "prosl fit: error: ", message, HELP)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {temprature: 0.1}", "does not accept option 'model.temprature'; did you mean model.temperature?"),
        ("modle: {temperature: 0.1}", "does not accept option 'modle.temperature'; did you mean model.temperature?"),
        ("model: {temperature: [", "Problems parsing config"),
        ("- 1", "Unexpected config"),
    ],
)
def test_a_wrong_configuration_file(fit, tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    _check(fit("--config", "mine.yaml"), 2, message, HELP)


def test_no_data_are_named(prosl):
    _check(prosl("fit"), 2, "prosl fit: error: the following arguments are required: data.root", HELP)
    _check(prosl("knn", "--ckpt", "x"), 2, "prosl knn: error: the following arguments are required: data.root")


@pytest.mark.parametrize(
    ("verb", "option", "message"),
    [
        ("knn", "--clusters foo", "--clusters: expected int, 'classes' or null, found foo\n"),
        ("knn", "--weights a", "--weights: expected list or null, found a\n"),
        ("knn", "--weights [a,b]", "--weights: expected float or null, found ['a', 'b']\n"),
        ("linear", "--weights [2,1] 3", "unrecognized arguments: 3; several values of one option are one list"),
    ],
)
def test_values_that_fit_no_type_of_several(prosl, verb, option, message):
    result = prosl(verb, "--ckpt", "x", "--data.root", "y", *option.split())
    _check(result, 2, f"prosl {verb}: error: {message}", f"`prosl {verb} --help` lists all options")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            "--data.root nowhere",
            1,
            "there is no archive nowhere\nmake one: `prosl prepare ntu60 RAW_DIR --out nowhere` for NTU RGB+D 60",
        ),
        ("--data.root .", 1, "is not an archive"),
        ("--data.protocol x-foo", 2, "has no protocol 'x-foo'; it has x-sub, x-view, all"),
        ("--data.batch_size 64", 2, "batch_size is 64 on 1 process(es), but the training set of protocol 'x-sub'"),
        ("--data.batch_size 33", 2, "batch_size is 33, more than bank_size 32"),
        ("--model.num_clusters 40", 2, "num_clusters is 40 but the training set has only 36"),
        ("--model.layout kinect-v1", 1, "model.layout is kinect-v1, the archive"),
        ("--model.num_bodies 1", 1, "model.num_bodies is 1, the archive"),
        ("--model.temperature -1", 2, "temperature is -1.0; it must be greater than 0"),
        ("--model.base hico-lstn", 2, "unknown base method 'hico-lstn'"),
        ("--model.base_args.hiden_size 3", 2, "has no argument 'hiden_size': known are"),
        ("--model.init_from nofile.ckpt", 1, "init_from: nofile.ckpt cannot be read"),
        ("--checkpoint_every 0", 2, "checkpoint_every is 0; it must be at least 1"),
        ("--trainer.accelerator foo", 2, "invalid accelerator name"),
        ("--ckpt_path last", 1, "--ckpt_path last: no complete checkpoint in run (found nothing)"),
        ("--ckpt_path gone.ckpt", 1, "--ckpt_path: there is no checkpoint gone.ckpt"),
        ("--ckpt_path tiny.yaml", 1, "--ckpt_path: tiny.yaml is not a complete checkpoint"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(fit, arguments, code, message):
    _check(fit(*arguments.split()), code, "prosl fit: error: ", message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ntu61", "prosl prepare: error: there is no 'ntu61'; did you mean ntu60?"),
        ("xyz", "prosl prepare: error: there is no 'xyz'; choose ntu60, ntu120, pku1, pku2, arrays, pool"),
    ],
)
def test_a_misspelt_subcommand(prosl, name, message):
    _check(prosl("prepare", name, "raw", "--out", "o"), 2, message, "`prosl prepare --help` lists all options")


def test_a_body_model_that_the_files_cannot_have(prosl, tmp_path):
    write_skeleton_files(tmp_path / "raw", num_samples=2)
    result = prosl("prepare", "arrays", "raw", "--layout", "sbu-15", "--out", "o")
    _check(result, 2, "layout 'sbu-15' does not fit raw: format ntu60 has 'kinect-v2'; leave it out")
    _check(prosl("prepare", "arrays", "raw", "--num_bodies", 10**9, "--out", "o"), 2, "expected 1 to 100")
    assert not (tmp_path / "o").exists()


@pytest.fixture
def checkpoint(fit, tmp_path) -> Path:
    """A checkpoint of one epoch, outside the run's folder."""
    assert fit("--trainer.max_epochs", 1, "--trainer.default_root_dir", "before").code == 0
    return tmp_path / "before" / "checkpoints" / "last.ckpt"


def test_a_new_run_cannot_start_from_a_file_that_it_puts_aside(fit, checkpoint):
    own = ("--trainer.default_root_dir", "before", "--trainer.max_epochs", 2)
    message = f"--model.init_from: {checkpoint} is in the run's own folder"
    _check(fit("--model.init_from", checkpoint, *own), 2, message, "go on with --ckpt_path last")
    assert checkpoint.is_file()
    assert fit("--model.init_from", checkpoint, *own, "--ckpt_path", "last").code == 0  # nothing is put aside
    assert fit("--model.init_from", checkpoint, "--trainer.max_epochs", 1).code == 0


def test_a_checkpoint_that_does_not_fit_is_refused(fit, prosl, checkpoint, tiny_archive, other_archive, tmp_path):
    advice = "to start a new run from its encoder, use --model.init_from instead of --ckpt_path"
    _check(
        fit("--ckpt_path", checkpoint, "--model.bank_size", 64),
        1, "does not fit this run: model.bank_size was 32, is now 64", advice,
    )  # fmt: skip
    _check(fit("--ckpt_path", checkpoint, "--model.base_args.hidden_size", 8), 1, "'hidden_size': 16", advice)
    other = ("--data.root", other_archive, "--model.semantic", "false")
    changes = ("model.layout was kinect-v2, is now kinect-v1", "model.num_bodies was 2, is now 1")
    _check(fit("--ckpt_path", checkpoint, *other), 1, *changes, advice)
    view = fit("--ckpt_path", checkpoint, "--data.protocol", "x-view")
    _check(view, 1, "was trained on 36 sequences, protocol 'x-view' of", "has 24", advice)
    _check(fit("--model.init_from", checkpoint, *other), 1, "init_from: the encoder in", "does not fit base 'hico-gru'")
    knn = prosl("knn", "--ckpt", checkpoint, "--data.root", other_archive)
    _check(knn, 1, "layout 'kinect-v2' with 25 joints and 2 bodies", "layout 'kinect-v1' with 20 joints and 1 bodies")

    truncated, weights = tmp_path / "truncated.ckpt", tmp_path / "weights.pt"
    truncated.write_bytes(checkpoint.read_bytes()[:20000])
    _check(fit("--ckpt_path", truncated), 1, f"--ckpt_path: {truncated} is not a complete checkpoint")
    torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], weights)
    _check(fit("--ckpt_path", weights), 1, f"{weights} holds no training run", "--model.init_from")
    _check(prosl("knn", "--ckpt", truncated, "--data.root", tiny_archive), 1, "is not a complete checkpoint")


def test_the_traceback_is_there_for_who_asks(fit, monkeypatch):
    from prosl_lightning.errors import DataError, UsageError

    monkeypatch.setenv("PROSL_DEBUG", "1")
    with pytest.raises(DataError, match="there is no archive nowhere"):
        fit("--data.root", "nowhere")
    with pytest.raises(UsageError, match="temprature"):
        fit("--model.temprature", 1)
