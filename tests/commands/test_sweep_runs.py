"""What `prosl sweep` does of its plan, also after a stop; training and evaluation are stood in for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from prosl_lightning.commands import sweep_run
from prosl_lightning.commands.sweep_plan import Arm, keep_plan, plan_arms
from prosl_lightning.commands.sweep_run import SeedRuns, held
from prosl_lightning.errors import DataError, UsageError


class Stand:
    """Stands in for training and evaluation: writes what they would, and stops where it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.calls: list[tuple] = []
        self.stop_after = 10**9  # epochs of training before a kill
        monkeypatch.setattr(sweep_run.fit, "main", self.fit)
        monkeypatch.setattr(sweep_run, "_clean_up", lambda: None)  # there is nothing to free, and it takes a while
        monkeypatch.setattr(sweep_run, "knn", lambda ckpt, data: self.judge("knn", ckpt, {"k": 1}))
        monkeypatch.setattr(
            sweep_run, "linear", lambda ckpt, data, epochs: self.judge("linear", ckpt, {"epochs": epochs})
        )

    def fit(self, arguments: list[str]) -> None:
        given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments[2:])
        folder = Path(given["trainer.default_root_dir"])
        first = torch.load(given["ckpt_path"])["epoch"] + 1 if "ckpt_path" in given else 0
        last, every = int(given["trainer.max_epochs"]), int(given["checkpoint_every"])
        self.calls.append((folder.name, first, last))
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        for epoch in range(first, last):
            if self.stop_after == 0:
                raise KeyboardInterrupt
            self.stop_after -= 1
            names = ["last.ckpt"] + ([f"epoch-{epoch:04d}.ckpt"] if (epoch + 1) % every == 0 else [])
            for name in names:
                torch.save({"epoch": epoch, "optimizer_states": []}, folder / "checkpoints" / name)

    def judge(self, evaluation: str, ckpt: str, protocol: dict) -> None:
        self.calls.append((evaluation, Path(ckpt).parts[-3]))
        path = Path(ckpt).with_name("results.json")
        rows = json.loads(path.read_text()) if path.is_file() else []
        rows.append({
            "evaluation": evaluation, "numbers": {"top-1": 50.0}, "seeds": [], "versions": {}, "device": "cpu",
            "protocol": {"split": "x-sub", "train": 3, "test": 2, **protocol}, "date": "2026-01-01T00:00:00Z",
            "data": {"frames_sha256": "f", "index_sha256": "i", "recipe": {}},
            "checkpoints": [{
                "sha256": "s", "epochs": torch.load(ckpt)["epoch"] + 1, "semantic": "on", "stream": "joint",
                "trained_on": {},
            }],
        })  # fmt: skip
        path.write_text(json.dumps(rows))


@pytest.fixture
def stand(monkeypatch) -> Stand:
    return Stand(monkeypatch)


def _run(runs: SeedRuns, arms: list[Arm]) -> None:
    for arm in arms:
        runs.run(arm)


def test_a_killed_sweep_goes_on_where_it_was_and_repeats_nothing(stand, settings, tmp_path):
    settings["model"]["semantic_start"], settings["trainer"]["max_epochs"] = 4, 6
    runs, arms = SeedRuns(tmp_path, settings, 0, 80), plan_arms("modules", settings)
    stand.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        _run(runs, arms)
    assert stand.calls == [("warm-up-4", 0, 4)]
    assert (runs.warm_up_state(arms[0]), runs.state(arms[0])) == ("3 of 4 epochs", "to do")
    stand.calls.clear()
    stand.stop_after = 1 + 2 + 1  # the rest of the warm-up, all of `base`, half of the next arm
    with pytest.raises(KeyboardInterrupt):
        _run(runs, arms)
    assert stand.calls == [
        ("warm-up-4", 3, 4), ("base", 4, 6), ("knn", "base"), ("linear", "base"), ("third_branch-none", 4, 6),
    ]  # fmt: skip
    assert [runs.state(arm) for arm in arms] == ["done", "1 of 2 epochs", "to do", "to do"]
    stand.calls.clear()
    stand.stop_after = 10**9
    _run(runs, arms)
    assert stand.calls == [
        ("third_branch-none", 5, 6), ("knn", "third_branch-none"), ("linear", "third_branch-none"),
        ("third_branch-normal", 4, 6), ("knn", "third_branch-normal"), ("linear", "third_branch-normal"),
        ("prosl", 4, 6), ("knn", "prosl"), ("linear", "prosl"),
    ]  # fmt: skip
    stand.calls.clear()
    _run(runs, arms)
    assert stand.calls == []


def test_an_evaluation_that_is_missing_or_has_other_settings_is_made_up(stand, settings, tmp_path):
    settings["model"]["semantic_start"], settings["trainer"]["max_epochs"] = 1, 2
    (base,) = plan_arms("backbone", settings, only=["base"])
    runs = SeedRuns(tmp_path, settings, 0, 80)
    runs.run(base)
    path = tmp_path / "seed-0/base/checkpoints/results.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:1]))  # killed between the two
    assert runs.state(base) == "trained, lacks linear"
    stand.calls.clear()
    runs.run(base)
    assert stand.calls == [("linear", "base")]
    longer = SeedRuns(tmp_path, settings, 0, 1000)
    assert longer.state(base) == "trained, lacks linear"
    longer.run(base)
    assert stand.calls == [("linear", "base")] * 2
    assert [row["protocol"].get("epochs") for row in runs.rows(base)] == [None, 80]
    # results outlive the checkpoint
    path.with_name("last.ckpt").unlink()
    assert (longer.state(base), stand.calls) == ("done", [("linear", "base")] * 2)


def test_an_arm_with_damaged_results_is_left_as_it_is(stand, settings, tmp_path):
    settings["model"]["semantic_start"], settings["trainer"]["max_epochs"] = 1, 2
    runs, (base, prosl) = SeedRuns(tmp_path, settings, 0, 80), plan_arms("backbone", settings)
    path = tmp_path / "seed-0/base/checkpoints/results.json"
    path.parent.mkdir(parents=True)
    path.write_text("[{")
    assert runs.state(base) == "results.json is damaged"
    assert str(path) in runs.damage(base)
    _run(runs, [base, prosl])
    assert {call[-1] if call[0] in ("knn", "linear") else call[0] for call in stand.calls} == {"warm-up-1", "prosl"}
    assert (runs.damage(prosl), runs.state(prosl), path.read_text()) == ("", "done", "[{")


def test_warm_ups_lie_on_the_way_of_each_other(stand, settings, tmp_path):
    settings["model"]["semantic_start"], settings["trainer"]["max_epochs"] = 8, 10
    settings["checkpoint_every"] = 3
    runs = SeedRuns(tmp_path, settings, 0, 80)
    _run(runs, plan_arms("start", settings, [8]))
    assert stand.calls[0] == ("warm-up-8", 0, 8)
    stand.calls.clear()
    three, four, nine = (plan_arms("start", settings, [start])[1] for start in (3, 4, 9))
    assert [runs.warm_up_state(arm) for arm in (three, four, nine)] == ["done", "3 of 4 epochs", "8 of 9 epochs"]
    _run(runs, plan_arms("start", settings, [4, 9]))
    # 4 from the checkpoint that was kept after 3 epochs, 9 from the one after 8
    assert [call for call in stand.calls if call[0].startswith("warm")] == [("warm-up-4", 3, 4), ("warm-up-9", 8, 9)]
    assert ("semantic_start-4", 4, 10) in stand.calls
    assert ("semantic_start-9", 9, 10) in stand.calls
    stand.calls.clear()
    _run(runs, plan_arms("readings", settings, only=["bank_wrap-reference"]))
    assert stand.calls[:2] == [("warm-up-bank_wrap-reference-8", 0, 8), ("bank_wrap-reference", 8, 10)]


def test_no_warm_up_is_needed_for_a_start_in_the_first_epoch(stand, settings, tmp_path):
    settings["model"]["semantic_start"], settings["trainer"]["max_epochs"] = 1, 3
    _run(SeedRuns(tmp_path, settings, 0, 80), plan_arms("start", settings, [0], ["semantic_start-0"]))
    assert stand.calls[0] == ("semantic_start-0", 0, 3)


def test_a_cut_off_checkpoint_does_not_count(stand, settings, tmp_path):
    settings["model"]["semantic_start"], settings["trainer"]["max_epochs"] = 2, 4
    (base,) = plan_arms("backbone", settings, only=["base"])
    runs = SeedRuns(tmp_path, settings, 0, 80)
    stand.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        runs.run(base)
    file = tmp_path / "seed-0/base/checkpoints/last.ckpt"
    file.write_bytes(file.read_bytes()[:300])
    assert runs.state(base) == "to do"
    stand.calls.clear()
    stand.stop_after = 10**9
    runs.run(base)
    assert stand.calls[0] == ("base", 2, 4)


def test_a_run_that_ends_early_is_told(stand, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_run.fit, "main", lambda arguments: None)
    (base,) = plan_arms("backbone", settings, only=["base"])
    with pytest.raises(
        DataError, match="seed 3, warm-up-400 left no checkpoint in .*/seed-3/warm-up-400/checkpoints; "
    ):
        SeedRuns(tmp_path, settings, 3, 80).run(base)

    def end_early(arguments):
        folder = tmp_path / "seed-3/warm-up-400/checkpoints"
        folder.mkdir(parents=True)
        torch.save({"epoch": 4, "optimizer_states": []}, folder / "last.ckpt")

    monkeypatch.setattr(sweep_run.fit, "main", end_early)
    with pytest.raises(DataError, match="seed 3, warm-up-400 ended after 5 of 400 epochs; give the command again"):
        SeedRuns(tmp_path, settings, 3, 80).run(base)

    def fail(arguments):
        raise DataError("no such thing")

    monkeypatch.setattr(sweep_run.fit, "main", fail)
    with pytest.raises(DataError, match="seed 3, warm-up-400: no such thing"):
        SeedRuns(tmp_path, settings, 3, 80).run(base)


# --------------------------------------------------------------------------------------------------- other settings


def _hold_a_run(folder: Path) -> None:
    (folder / "seed-0/warm-up-400/checkpoints").mkdir(parents=True)
    (folder / "seed-0/warm-up-400/checkpoints/last.ckpt").touch()


def test_a_plan_without_a_run_blocks_nothing(settings, tmp_path):
    keep_plan(tmp_path, settings)
    settings["model"]["temperature"] = 0.1
    keep_plan(tmp_path, settings)
    assert json.loads((tmp_path / "plan.json").read_text())["settings"] == settings
    (tmp_path / "plan.json").write_text("{")
    keep_plan(tmp_path, settings)
    _hold_a_run(tmp_path)
    settings["model"]["temperature"] = 0.2
    with pytest.raises(UsageError, match="model.temperature was 0.1, is now 0.2"):
        keep_plan(tmp_path, settings)


def test_other_settings_in_the_same_folder_are_refused(settings, tmp_path, tiny_archive):
    keep_plan(tmp_path / "new", settings, write=False)
    assert not (tmp_path / "new").exists()
    keep_plan(tmp_path, settings)
    _hold_a_run(tmp_path)
    same = json.loads(json.dumps(settings))
    same["trainer"]["accelerator"] = "gpu"  # where it runs is free
    keep_plan(tmp_path, same)
    changed = json.loads(json.dumps(settings))
    changed["model"] |= {"temperature": 0.1, "base_args": {"hidden_size": 8}}
    changed["data"]["protocol"] = "x-view"
    with pytest.raises(UsageError) as error:
        keep_plan(tmp_path, changed)
    for told in (
        "model.temperature was 0.2, is now 0.1", "model.base_args was None, is now {'hidden_size': 8}",
        "data.protocol was x-sub, is now x-view", "give another folder: --out",
    ):  # fmt: skip
        assert told in str(error.value)
    added = json.loads(json.dumps(settings))
    added["model"]["new_option"] = 1  # of a later version
    keep_plan(tmp_path, added)


def test_other_data_in_the_same_folder_are_refused(settings, tmp_path, other_archive):
    keep_plan(tmp_path, settings)
    _hold_a_run(tmp_path)
    settings["data"]["root"] = str(other_archive)
    with pytest.raises(DataError, match="holds runs on other data than .*other\n"):
        keep_plan(tmp_path, settings)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(DataError, match="plan.json is damaged"):
        keep_plan(tmp_path, settings)


def test_two_sweeps_do_not_share_a_seed_at_a_time(tmp_path):
    with held(tmp_path / "seed-0"):
        with pytest.raises(UsageError, match="another sweep is at work in .*seed-0"), held(tmp_path / "seed-0"):
            pass
        with held(tmp_path / "seed-1"):
            pass
    with held(tmp_path / "seed-0"):
        pass
