"""The layout of docs/wandb.md: every entry is found in an offline run; the sweep file runs a command of fit."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from prosl_lightning import Archive, ProSLModule, tracking
from prosl_lightning.errors import DataError, MissingExtraError

ROOT = Path(__file__).parents[2]
LAYOUT = (ROOT / "docs" / "wandb.md").read_text(encoding="utf-8")


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _merged(records: list[Any], kind: str) -> dict[str, Any]:
    """The last value of every key of the records of one kind; config also stands in the run's own record."""
    found: dict[str, Any] = {}
    for record in records:
        if record.WhichOneof("record_type") == kind:
            part = getattr(record, kind)
            found |= _items(part.item if kind == "history" else part.update)
        elif record.WhichOneof("record_type") == "run" and kind == "config":
            found |= _items(record.run.config.update)
    return found


def _by_key(folder: Path) -> dict[str, Any]:
    """Tables of a folder's runs by the last part of their key."""
    files = folder.glob("wandb/offline-run-*/files/media/table/**/*.table.json")
    return {file.name.split("_")[0]: json.loads(file.read_text(encoding="utf-8")) for file in files}


WANDB = ("--trainer.logger", "WandbLogger", "--trainer.logger.save_dir", "run", "--trainer.logger.project", "skeletons")
CALLBACK = ("--trainer.callbacks", "prosl_lightning.tracking.WandbRun")


def test_an_offline_run_holds_every_entry_of_the_documented_layout(fit, offline, tmp_path):
    online = ("--trainer.callbacks+", "prosl_lightning.evaluation.online.OnlineEvaluation")
    result = fit(*WANDB, *online, "--trainer.callbacks.every_n_epochs", 3)
    assert result.code == 0, result.err
    records = offline(tmp_path / "run")
    config, summary = _merged(records, "config"), _merged(records, "summary")

    assert (config["base"], config["num_clusters"], config["semantic_start"]) == ("hico-gru", 4, 1)
    assert (config["data"]["archive"], config["data"]["protocol"], config["data"]["batch_size"]) == ("tiny", "x-sub", 8)
    assert config["data"]["num_samples"] == 36
    assert config["data"]["class_names"] == ["a", "b", "c"]
    assert (config["trainer"]["max_epochs"], config["trainer"]["precision"]) == (3, "32-true")
    assert {"torch", "prosl-lightning"} <= set(config["versions"])

    history = _merged(records, "history")
    named = {key for key in re.findall(r"`((?:epoch|codebook|train|online)/\w+)`", LAYOUT)}
    tables = {"codebook/clusters", "codebook/joints"}
    assert len(named) > 20
    assert named - tables <= set(history)
    for name in named - tables:
        assert summary[name] == pytest.approx(history[name])
    assert summary["stage"] == 2
    for name in set(re.findall(r"`figures/(\w+)`", LAYOUT)):
        assert list((tmp_path / "run/wandb").glob(f"offline-run-*/files/media/images/figures/{name}_*.png"))


def test_tables_and_artifacts_are_the_codebook_and_the_checkpoint(fit, offline, tmp_path, tiny_archive):
    assert fit(*WANDB).code == 0
    run, records = tmp_path / "run", offline(tmp_path / "run")
    module = ProSLModule.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    artifacts = {record.artifact.type: record.artifact for record in records if record.HasField("artifact")}
    number = next(record.run.run_id for record in records if record.HasField("run"))

    model = artifacts["model"]
    assert model.name == f"checkpoint-{number}"
    assert json.loads(model.metadata) == {"epochs": 3}
    assert [entry.path for entry in model.manifest.contents] == ["last.ckpt"]
    stored = Path(model.manifest.contents[0].local_path).read_bytes()
    assert stored == (run / "checkpoints" / "last.ckpt").read_bytes()

    codebook = artifacts["codebook"]
    assert codebook.name == f"codebook-{number}"
    assert json.loads(codebook.metadata) == {"clusters": 4, "sequences": 36, "epoch": 2}
    arrays = np.load(codebook.manifest.contents[0].local_path)  # refuses pickles
    assert set(arrays) == set(re.findall(r"`(\w+)`", LAYOUT.split("`codebook.npz`: ")[1].split("|")[0]))
    np.testing.assert_array_equal(arrays["centroids"], module.codebook.centroids)
    np.testing.assert_array_equal(arrays["assignment"], module.codebook.assignment)
    np.testing.assert_array_equal(arrays["importance"], module.codebook.importance)
    archive = Archive.open(tiny_archive)
    rows = archive.split("x-sub")[0]
    assert arrays["names"].tolist() == [archive.names[row] for row in rows]
    assert arrays["labels"].tolist() == archive.labels[rows].tolist()

    tables = _by_key(run)
    assert tables["clusters"]["columns"] == ["cluster", "sequences", "commonest class", "its share"]
    sizes = np.bincount(arrays["assignment"], minlength=4)
    for cluster, size, name, share in tables["clusters"]["data"]:
        members = arrays["labels"][arrays["assignment"] == cluster]
        assert size == sizes[cluster]
        assert share == np.mean(members == archive.class_names.index(name)) == np.bincount(members).max() / size
    assert [row[0] for row in tables["joints"]["data"]] == list(module.layout.joints)
    assert sum(row[2] for row in tables["joints"]["data"]) == pytest.approx(1)


def test_evaluations_are_added_to_the_run_that_trained_the_encoder(
    fit, prosl, offline, tmp_path, tiny_archive, monkeypatch
):
    assert fit(*WANDB, *CALLBACK, "--trainer.max_epochs", 1).code == 0
    first = offline(tmp_path / "run")
    with pytest.raises(DataError, match="evaluate first"):
        tracking.log_results("run")
    assert prosl("knn", "--ckpt", "run/checkpoints/last.ckpt", "--data.root", tiny_archive).code == 0
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "wandb", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'prosl-lightning\[wandb\]'"):
            tracking.log_results("run")
    assert tracking.log_results("run") == 1
    second = offline(tmp_path / "run", number=1)
    numbers = json.loads((tmp_path / "run/checkpoints/results.json").read_text(encoding="utf-8"))[0]["numbers"]
    summary = _merged(second, "summary")
    for measure, value in numbers.items():
        assert summary[f"knn/tiny-x-sub/{measure}"] == value
    rows = _by_key(tmp_path / "run")["evaluations"]["data"]
    assert [row[:7] for row in rows] == [
        ["knn", "last.ckpt", 1, "tiny", "x-sub", measure, value] for measure, value in numbers.items()
    ]
    ids = [next(record.run.run_id for record in records if record.HasField("run")) for records in (first, second)]
    assert ids[0] == ids[1]


def _run_id(records: list[Any]) -> str:
    return next(record.run.run_id for record in records if record.HasField("run"))


def test_a_resumed_run_goes_on_in_its_wandb_run_and_a_fresh_one_does_not(fit, offline, tmp_path, monkeypatch):
    logger = ("--trainer.logger", "WandbLogger", "--trainer.logger.project", "skeletons")
    assert fit(*logger, "--trainer.max_epochs", 1).code == 0
    first = offline(tmp_path / "run")  # in the run's folder by itself
    assert not (tmp_path / "wandb").exists()
    note = json.loads((tmp_path / "run/wandb-run.json").read_text(encoding="utf-8"))
    assert note["id"] == _run_id(first)

    resumed = fit(*logger, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert resumed.code == 0, resumed.err
    second = offline(tmp_path / "run", number=1)
    assert _run_id(second) == note["id"]
    assert json.loads((tmp_path / "run/wandb-run.json").read_text(encoding="utf-8")) == note
    steps = [_merged(records, "history")["trainer/global_step"] for records in (first, second)]
    assert steps[0] < steps[1]  # the second folder continues the first
    saved = (tmp_path / "run/logs/version_1/config.yaml").read_text(encoding="utf-8")
    assert note["id"] not in saved  # a fresh run with this file is a W&B run of its own

    assert fit(*logger, "--trainer.max_epochs", 1).code == 0
    assert _run_id(offline(tmp_path / "run", number=2)) != note["id"]


@pytest.mark.parametrize(
    ("given", "checkpoint", "expected"),
    [
        ({}, "run/checkpoints/last.ckpt", ("noted", "run")),
        ({"project": "p", "save_dir": "."}, "run/checkpoints/last.ckpt", ("noted", "run")),
        ({"project": "another"}, "run/checkpoints/last.ckpt", (None, "run")),
        ({"id": "mine", "save_dir": "there"}, "run/checkpoints/last.ckpt", ("mine", "there")),
        ({"version": "mine", "dir": "there"}, "run/checkpoints/last.ckpt", (None, "there")),
        ({}, "elsewhere/last.ckpt", (None, "run")),  # a warm-up of another run
        ({}, "run/checkpoints-1/last.ckpt", (None, "run")),  # of an earlier run, put aside
        ({}, None, (None, "run")),
    ],
)
def test_what_a_user_gives_the_logger_stays(tmp_path, monkeypatch, given, checkpoint, expected):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/wandb-run.json").write_text('{"project": "p", "entity": null, "id": "noted"}')
    for name in ("WANDB_RUN_ID", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    logger = SimpleNamespace(
        class_path="WandbLogger",
        init_args=dict.fromkeys(("id", "version", "project", "dir")) | {"save_dir": "."} | given,
    )
    other = SimpleNamespace(class_path="CSVLogger", init_args={"save_dir": "."})
    tracking.complete_wandb([other, logger], Path("run"), checkpoint)
    assert (logger.init_args.get("id"), logger.init_args.get("save_dir")) == expected
    assert other.init_args == {"save_dir": "."}


def test_a_codebook_without_importance_is_logged_too(fit, offline, tmp_path):
    assert fit(*WANDB, "--model.third_branch", "none").code == 0
    records = offline(tmp_path / "run")
    codebook = next(r.artifact for r in records if r.HasField("artifact") and r.artifact.type == "codebook")
    arrays = np.load(codebook.manifest.contents[0].local_path)
    assert arrays["importance"].size == arrays["mask_probability"].size == 0
    assert set(_by_key(tmp_path / "run")) == {"clusters"}


def test_folders_without_a_run_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no wandb-run\.json"):
        tracking.log_results(tmp_path)


def test_other_loggers_are_left_alone_and_wandb_is_not_needed(fit, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert fit(*CALLBACK, "--trainer.max_epochs", 1).code == 0
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["checkpoints", "logs"]


def test_the_sweep_runs_a_command_of_fit_with_the_swept_values(prosl):
    sweep = yaml.safe_load((ROOT / "docs" / "wandb-sweep.yaml").read_text(encoding="utf-8"))
    assert {"method", "metric", "parameters", "command"} <= set(sweep)
    assert sweep["metric"]["name"] in set(re.findall(r"`(online/\w+)`", LAYOUT))
    shell, dash_c, script, _, rest = sweep["command"]
    assert (shell, dash_c, rest) == ("sh", "-c", "${args}")
    for pick in (min, max):
        values = {name: pick(each.get("values", (each.get("min"), each.get("max"))))
                  for name, each in sweep["parameters"].items()}  # fmt: skip
        words = shlex.split(script.replace("$WANDB_RUN_ID", "abc123"))
        assert words[:3] == ["exec", "prosl", "fit"]
        assert words.pop() == "$@"
        swept = [f"--{name}={value}" for name, value in values.items()]  # as wandb's agent writes ${args}
        result = prosl("fit", *words[3:], *swept, "--print_config")
        assert result.code == 0, result.err
        config = yaml.safe_load(result.out)
        for name, value in values.items():
            found = config
            for part in name.split("."):
                found = found[part]
            assert found == value, name
        assert config["trainer"]["default_root_dir"] == "runs/sweep/abc123"
        callbacks = [each["class_path"].rsplit(".", 1)[1] for each in config["trainer"]["callbacks"]]
        assert callbacks == ["CodebookCallback", "OnlineEvaluation", "WandbRun"]
