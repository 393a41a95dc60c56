"""Configurations: packaged ones by bare name, overriding, precedence, and verbs that must answer without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from prosl_lightning.cli import VERBS, main
from prosl_lightning.commands.parsing import packaged_configs
from prosl_lightning.version import __version__

FIT = ("demo", "irds", "ntu120", "ntu60", "ntu60-skeletonclr", "nw-ucla", "pku1", "pku2", "utd-mhad")
TRANSFER = ("transfer-ntu60-pku2", "transfer-pku1-pku2")
NAMES = tuple(sorted(FIT + TRANSFER))


def test_the_packaged_configurations_are_listed_and_printed(prosl):
    assert tuple(packaged_configs()) == NAMES
    result = prosl("configs")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == list(NAMES)
    assert all(len(line.split()) > 3 for line in result.out.splitlines())
    for name in ("ntu120", "ntu120.yaml"):
        printed = yaml.safe_load(prosl("configs", name).out)
        assert printed["model"]["num_clusters"] == 130
        assert printed["trainer"]["max_epochs"] == 450


@pytest.mark.parametrize("name", FIT)
def test_a_packaged_configuration_trains(prosl, tiny_archive, name):
    parsed = prosl("fit", "--config", name, "--data.root", "x", "--print_config")
    assert parsed.code == 0, parsed.err
    wanted, found = yaml.safe_load(packaged_configs()[name].read_text()), yaml.safe_load(parsed.out)
    given, taken = wanted["trainer"].pop("callbacks", []), found["trainer"].pop("callbacks") or []
    assert [callback["class_path"] for callback in given] == [callback["class_path"] for callback in taken]
    for ours, read in zip(given, taken, strict=True):
        assert ours["init_args"].items() <= read["init_args"].items()
    for section in ("model", "trainer"):
        assert wanted[section].items() <= found[section].items()
    result = prosl(
        "fit", "--config", f"{name}.yaml", "--config", "tiny.yaml", "--data.root", tiny_archive,
        "--trainer.max_epochs", 2, "--trainer.limit_train_batches", 2,
    )  # fmt: skip
    assert result.code == 0, result.err
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (1, 4)
    assert checkpoint["recipe"]["protocol"] == wanted["data"]["protocol"]
    assert checkpoint["hyper_parameters"]["temperature"] == wanted["model"].get("temperature", 0.2)
    assert len(checkpoint["state_dict"]["codebook.centroids"]) == 4


def test_a_packaged_transfer_runs(prosl, fit, tiny_archive):
    assert fit("--trainer.max_epochs", 1).code == 0
    for name in TRANSFER:
        parsed = prosl("transfer", "--config", name, "--print_config")
        wanted, found = yaml.safe_load(packaged_configs()[name].read_text()), yaml.safe_load(parsed.out)
        assert wanted["data"].items() <= found["data"].items()
        assert {key: found[key] for key in wanted if key != "data"} == {k: v for k, v in wanted.items() if k != "data"}
        assert (found["epochs"], found["milestones"], found["finetune"]) == (80, None, False)
        # What stands beside the configuration wins, wherever it stands.
        result = prosl(
            "transfer", "--ckpt", "run/checkpoints/last.ckpt", "--epochs", 3, f"--config={name}.yaml",
            "--data.root", tiny_archive,
        )  # fmt: skip
        assert result.code == 0, result.err
    first, second = json.loads(Path("run/checkpoints/results.json").read_text())
    assert first["protocol"] == second["protocol"]
    assert (first["evaluation"], first["protocol"]["split"], first["protocol"]["epochs"]) == ("transfer", "x-sub", 3)
    assert first["protocol"]["milestones"] == [1, 2]  # they follow from the epochs
    assert "no configuration 'transfer-ntu61'" in prosl("transfer", "--config", "transfer-ntu61").err


def _printed(prosl, *arguments) -> dict:
    result = prosl("fit", *arguments, "--print_config")
    assert result.code == 0, result.err
    return yaml.safe_load(result.out)


def test_a_file_in_the_working_directory_wins(prosl, tmp_path):
    (tmp_path / "ntu60.yaml").write_text("data: {root: mine}\nmodel: {num_clusters: 7}\n")
    assert _printed(prosl, "--config", "ntu60.yaml")["model"]["num_clusters"] == 7
    assert _printed(prosl, "--config=ntu60.yaml")["data"]["root"] == "mine"
    assert _printed(prosl, "--config", "ntu60")["model"]["num_clusters"] == 65


def test_precedence_of_defaults_configurations_environment_and_command_line(prosl, monkeypatch, tmp_path):
    def temperature(*arguments):
        return _printed(prosl, "--data.root", "x", *arguments)["model"]["temperature"]

    for name, value in (("low", 0.3), ("high", 0.4)):
        (tmp_path / f"{name}.yaml").write_text(f"model: {{temperature: {value}}}\n")
    assert temperature() == 0.2
    monkeypatch.setenv("PROSL_FIT__CONFIG", "low.yaml")
    assert temperature() == 0.3
    assert temperature("-c", "high.yaml") == 0.4
    assert temperature("--config", "high.yaml", "--config", "low.yaml") == 0.3
    monkeypatch.setenv("PROSL_FIT__MODEL__TEMPERATURE", "0.5")
    assert temperature() == 0.5
    assert temperature("--config", "high.yaml") == 0.5
    assert temperature("--config", "high.yaml", "--model.temperature", "0.6") == 0.6
    assert temperature("--model.temperature", "0.6", "--config", "high.yaml") == 0.6


def test_the_environment_names_configuration_data_and_epochs(prosl, monkeypatch, tiny_archive):
    monkeypatch.setenv("PROSL_FIT__CONFIG", "nw-ucla")
    monkeypatch.setenv("PROSL_FIT__DATA__ROOT", str(tiny_archive))
    monkeypatch.setenv("PROSL_FIT__TRAINER__MAX_EPOCHS", "7")
    found = _printed(prosl)
    assert found["data"]["root"] == str(tiny_archive)
    assert (found["trainer"]["max_epochs"], found["model"]["num_clusters"]) == (7, 40)
    monkeypatch.setenv("PROSL_FIT__CONFIG", "nowhere")
    assert "no configuration 'nowhere'" in prosl("fit").err


def test_an_unknown_configuration_names_the_packaged_ones(prosl):
    for arguments in (("fit", "--config", "ntu61.yaml"), ("fit", "--config=ntu61.yaml"), ("configs", "ntu61.yaml")):
        code, out, err = prosl(*arguments)
        assert (code, out) == (2, "")
        assert err == (
            f"prosl {arguments[0]}: error: there is no configuration 'ntu61.yaml': no such file, "
            f"and packaged are {', '.join(NAMES)}\n"
        )


def test_help_explains_the_options(prosl):
    code, text, _ = prosl("fit", "--help")
    assert code == 0
    assert text.startswith("usage: prosl fit [options]\n")
    for line in ("--data.root", "--model.num_clusters", "Number of semantic centroids.", "PROSL_FIT__DATA__ROOT"):
        assert line in text
    assert "default: from the archive" in " ".join(text.split())
    code, text, _ = prosl("knn", "--help")
    assert code == 0
    assert "Neighbours that vote;" in text
    assert "--data.root" in text


def test_help_version_and_configurations_need_no_torch():
    script = (
        "import sys\nfrom prosl_lightning.cli import main\n"
        "for line in ('--help', '--version', 'configs', 'configs ntu120'): assert main(line.split()) == 0\n"
        "heavy = {'torch', 'numpy', 'pytorch_lightning', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr
    assert all(f"\n  {verb} " in found.stdout for verb in VERBS)
    assert f"prosl-lightning {__version__}\n" in found.stdout


def test_an_unknown_verb_gets_a_suggestion(capsys):
    assert main(["kn"]) == 2
    assert capsys.readouterr().err == "prosl: error: unknown verb 'kn'; did you mean 'knn'?\n"
