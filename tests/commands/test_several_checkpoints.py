"""Several checkpoints on one command line: how they are written, and what is refused before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from prosl_lightning.commands.parsing import gather_lists


@pytest.fixture
def second(ckpt) -> Path:
    """Another checkpoint of the same data, whose features are shorter."""
    content = torch.load(ckpt, weights_only=True)
    content["state_dict"] = {name: 0.5 * weight for name, weight in content["state_dict"].items()}
    path = ckpt.parent.with_name("other") / "last.ckpt"
    path.parent.mkdir()
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("given", "gathered"),
    [
        ("--ckpt a --ckpt b", '--ckpt ["a", "b"]'),
        ("--ckpt a --k 3 --ckpt=b c", '--ckpt ["a", "b"] --k 3 c'),
        ("--ckpt a b --k 3", '--ckpt ["a", "b"] --k 3'),
        ("--ckpt [a, b]", "--ckpt [a, b]"),
        ("--ckpt [a,b] --ckpt ['c',d]", '--ckpt ["a", "b", "c", "d"]'),
        ("--ckpt=[a,b]", "--ckpt [a,b]"),
        ("--ckpt a --k 3", "--ckpt a --k 3"),
        ("--k 3 --ckpt", "--k 3 --ckpt"),
    ],
)
def test_a_list_may_be_written_in_several_ways(given, gathered):
    assert " ".join(gather_lists(given.split(), {"--ckpt"})) == gathered


@pytest.mark.parametrize("verb", ["knn", "linear"])
def test_a_repeated_option_fuses(prosl, ckpt, second, tiny_archive, verb):
    epochs = ("--epochs", 2) if verb == "linear" else ()
    result = prosl(verb, "--ckpt", ckpt, "--ckpt", second, "--data.root", tiny_archive, *epochs)
    assert result.code == 0, result.err
    paths = [
        [each["path"] for each in row["checkpoints"]]
        for path in (ckpt, second)
        for row in json.loads(path.with_name("results.json").read_text())
    ]
    assert paths == [[str(ckpt)], [str(ckpt), str(second)], [str(second)]]


@pytest.mark.parametrize("more", [("semi", "--fraction", 0.1), ("transfer",)])
def test_a_verb_of_one_checkpoint_does_not_pick_one(prosl, ckpt, second, tiny_archive, more):
    code, _, err = prosl(*more, "--ckpt", ckpt, "--ckpt", second, "--data.root", tiny_archive)
    assert (code, err.endswith("this evaluation takes one checkpoint\n"), err.count("\n")) == (2, True, 1), err
    code, _, err = prosl("plot", "codebook", "--ckpt", ckpt, "--out", "x.png", "--ckpt", second)
    assert code != 0
    assert not Path("x.png").exists()


@pytest.mark.parametrize("verb", ["knn", "linear"])
def test_all_are_checked_before_anything_is_computed(
    prosl, fit, ckpt, second, tiny_archive, other_archive, monkeypatch, verb
):
    def never(*_):
        raise AssertionError("features were extracted")

    monkeypatch.setattr(f"prosl_lightning.commands.{verb}.extract_tables", never)
    small = ("--model.semantic", "false", "--model.bank_size", 16, "--model.milestones", "[1]")
    made = fit("--data.root", other_archive, "--trainer.max_epochs", 1, "--trainer.default_root_dir", "thin", *small)
    assert made.code == 0, made.err
    thin = Path("thin/checkpoints/last.ckpt")
    code, _, err = prosl(verb, "--ckpt", ckpt, thin, "--data.root", tiny_archive)
    assert (code, err.count("\n")) == (1, 2), err
    assert f"error: {thin}: the checkpoint was trained on layout 'kinect-v1' with 20 joints and 1 bodies" in err
    code, _, err = prosl(verb, "--ckpt", ckpt, ckpt, "--data.root", tiny_archive)
    remedy = "give each checkpoint once; --weights says how much it counts\n"
    assert (code, err) == (2, f"prosl {verb}: error: {ckpt} is given twice: {remedy}")
    copy = second.with_name("copy.ckpt")
    copy.write_bytes(second.read_bytes())
    code, _, err = prosl(verb, "--ckpt", second, copy, "--data.root", tiny_archive)
    assert (code, err) == (2, f"prosl {verb}: error: {second} and {copy} are the same: {remedy}")
    assert [path.name for path in ckpt.parent.iterdir()] == ["last.ckpt"]
