"""What `prosl sweep` plans: arms, seeds and the command line."""

from __future__ import annotations

import pytest

from prosl_lightning.commands.sweep import _numbers, _split
from prosl_lightning.commands.sweep_plan import Arm, plan_arms
from prosl_lightning.errors import UsageError


def _options(arms: list[Arm]) -> list[dict]:
    return [dict(arm.changes) for arm in arms]


BASE = {"semantic": False}


def test_modules_are_the_lines_of_table_5(settings):
    arms = plan_arms("modules", settings)
    assert [arm.name for arm in arms] == ["base", "third_branch-none", "third_branch-normal", "prosl"]
    assert _options(arms) == [BASE, {"third_branch": "none"}, {"third_branch": "normal"}, {}]
    assert {arm.warm_up_name for arm in arms} == {"warm-up-400"}


def test_a_backbone_is_compared_with_prosl_on_it(settings):
    assert _options(plan_arms("backbone", settings)) == [BASE, {}]


def test_centroids_are_multiples_of_the_configured_number(settings):
    arms = plan_arms("clusters", settings)
    assert [arm.changes.get("num_clusters") for arm in arms] == [None, 22, 43, None, 87, 130]
    assert arms[3].name == "prosl"
    assert _options(plan_arms("clusters", settings, [130, 65, 130])) == [BASE, {"num_clusters": 130}, {}]


def test_starts_lie_before_and_after_the_configured_one_and_go_on_from_checkpoints_of_their_own(settings):
    arms = plan_arms("start", settings)
    assert [arm.start for arm in arms] == [400, 200, 300, 350, 400, 425]
    assert [arm.name for arm in arms][-3:] == ["semantic_start-350", "prosl", "semantic_start-425"]
    assert arms[1].warm_up_name == "warm-up-200"
    settings["model"]["semantic_start"], settings["trainer"]["max_epochs"] = 250, 300
    assert sorted(arm.start for arm in plan_arms("start", settings)[1:]) == [125, 188, 219, 250, 275]
    with pytest.raises(UsageError, match="semantic_start is 300; it must lie between 0 and 299, the last epoch"):
        plan_arms("start", settings, [100, 300])


def test_readings_change_one_option_each(settings):
    arms = plan_arms("readings", settings)
    assert _options(arms) == [
        BASE, {}, {"semantic_temperature": 0.2}, {"confidence_threshold": 0.0}, {"filtered_terms": "instance"},
        {"masked_joints": 2}, {"masked_joints": 5}, {"masked_joints": 10}, {"kl_direction": "query-to-semantic"},
        {"importance": "sample"}, {"bank_wrap": "reference"},
    ]  # fmt: skip
    # the bank's position concerns the base method, so its arm has a warm-up of its own
    assert [arm.warm_up_name for arm in arms if arm.warm_up] == ["warm-up-bank_wrap-reference-400"]
    assert arms[-1].warm_up == {"bank_wrap": "reference"}


def test_readings_that_change_nothing_are_left_out(settings):
    # at k = 15 the printed 0.027 lies below 1 / k and asks for nothing, so it is one arm with 0
    settings["model"] |= {"num_clusters": 15, "confidence_threshold": "relative", "masked_joints": 5}
    options = _options(plan_arms("readings", settings))
    assert [each["confidence_threshold"] for each in options if "confidence_threshold" in each] == [0.027]
    assert [each["masked_joints"] for each in options if "masked_joints" in each] == [2, 10, 15]
    settings["model"] |= {"base": "skeletonclr", "semantic_temperature": 0.2, "kl_direction": "query-to-semantic"}
    options = _options(plan_arms("readings", settings))
    assert {"kl_direction": "semantic-to-query"} in options
    assert not any({"filtered_terms", "bank_wrap", "semantic_temperature"} & set(each) for each in options)


def test_arms_are_chosen_by_name(settings):
    assert [arm.name for arm in plan_arms("modules", settings, only=["prosl", "base"])] == ["base", "prosl"]
    with pytest.raises(UsageError, match=r"there is no arm none; the arms of modules are base, third_branch-none, "):
        plan_arms("modules", settings, only=["none"])
    with pytest.raises(UsageError, match="--points is for the sweeps clusters and start, not for modules"):
        plan_arms("modules", settings, [1])


def test_the_command_line_is_divided():
    names, own, rest = _split(
        ["start", "--points", "3,5", "9", "--config=c", "--data.root", "d", "--only=[base, prosl]"]
    )
    assert names == ["start"]
    assert own == ["--points=3,5,9", "--only=base,prosl"]
    assert rest == ["--config=c", "--data.root", "d"]
    # the name may stand anywhere; an option takes one value, be it named like a sweep, a negative number is one too
    for arguments in (
        ["--config", "modules", "clusters", "--model.x", "-1", "--points", "-3", "4"],
        ["--config", "modules", "--model.x", "-1", "--points", "-3", "4", "clusters"],
        ["--points=-3", "4", "--config", "modules", "--model.x", "-1", "clusters"],
    ):
        assert _split(arguments) == (["clusters"], ["--points=-3,4"], ["--config", "modules", "--model.x", "-1"])
    assert _split(["start", "--dry_run", "clusters"])[0] == ["start", "clusters"]
    for empty in (["--only"], ["--only", "--dry_run"], ["--only="]):
        with pytest.raises(UsageError, match="--only has nothing after it: give names of arms"):
            _split(["modules", *empty])


def test_seeds_are_numbers_and_ranges():
    assert _numbers("0-2,5, 1") == [0, 1, 2, 5]
    for wrong in ("", "a", "3-1", "1-"):
        with pytest.raises(UsageError, match="expected numbers and ranges"):
            _numbers(wrong)
