"""Checkpoints of the public HiCo code: names, prefixes, files, sizes read off the tensors, and readable refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prosl_lightning.encoders import HiCoEncoder, hico_state_dict, load_hico_checkpoint
from prosl_lightning.errors import DataError, UsageError


def tensors(weights: dict[str, np.ndarray], prefix: str = "", scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {prefix + name: scale * torch.as_tensor(value) for name, value in weights.items()}


def same(encoder: HiCoEncoder, weights: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(value.numpy(), weights[name]) for name, value in hico_state_dict(encoder).items())


def test_weights_come_back_under_the_public_names_and_in_their_order(reference: Any) -> None:
    encoder = load_hico_checkpoint(reference.weights)
    assert list(hico_state_dict(encoder)) == list(reference.weights)
    assert same(encoder, reference.weights)
    assert len(hico_state_dict(encoder)) == len(list(encoder.parameters()))
    assert not encoder.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in encoder.parameters())


def test_what_hico_state_dict_writes_loads_again(tmp_path: Path) -> None:
    encoder = HiCoEncoder(
        kind="transformer", num_joints=15, num_bodies=1, num_frames=32, hidden_size=12, num_layers=3, num_heads=2,
        granularity=3, projection_size=5, kernel_size=3,
    ).eval()  # fmt: skip
    torch.save(hico_state_dict(encoder), tmp_path / "back.pt")
    again = load_hico_checkpoint(tmp_path / "back.pt", num_heads=2, layout="sbu-15", num_bodies=1)
    x = torch.randn(2, 3, 32, 15, 1)
    assert torch.equal(again(x), encoder(x))
    assert torch.equal(again.project(x)["instance"], encoder.project(x)["instance"])


def test_hico_state_dict_shares_memory_like_a_state_dict(gru_weights: dict[str, np.ndarray]) -> None:
    encoder = load_hico_checkpoint(gru_weights)
    hico_state_dict(encoder)["td_proj.0.bias"].zero_()
    assert not encoder.projectors["temporal"][0].bias.any()


@pytest.mark.parametrize(
    "prefix", ["", "module.", "encoder_q.", "encoder_k.", "module.encoder_q.", "module.encoder_k."]
)
def test_prefixes(gru_weights: dict[str, np.ndarray], prefix: str) -> None:
    assert same(load_hico_checkpoint(tensors(gru_weights, prefix)), gru_weights)


def test_a_training_checkpoint_gives_the_query_encoder(gru_weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    queues = {"c_queue": torch.zeros(16, 64), "c_queue_ptr": torch.zeros(1, dtype=torch.long), "queue": torch.zeros(2)}
    both = tensors(gru_weights, "encoder_k.", scale=2.0) | queues | tensors(gru_weights, "encoder_q.")
    content = {"epoch": 451, "state_dict": both, "optimizer": {"state": {}, "param_groups": [{"lr": 0.01}]}}
    torch.save(content, tmp_path / "checkpoint_0450.pth.tar")
    assert same(load_hico_checkpoint(tmp_path / "checkpoint_0450.pth.tar"), gru_weights)
    assert same(load_hico_checkpoint(str(tmp_path / "checkpoint_0450.pth.tar")), gru_weights)


def test_half_precision_becomes_float32_and_the_random_state_stays(gru_weights: dict[str, np.ndarray]) -> None:
    halves = {name: value.half() for name, value in tensors(gru_weights).items()}
    before = torch.get_rng_state()
    encoder = load_hico_checkpoint(halves)
    assert torch.equal(torch.get_rng_state(), before)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.projectors["clip"][0].weight, halves["clip_proj.0.weight"].float())


def refusal(kind: type[Exception], *args: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load_hico_checkpoint(*args, **options)
    return str(caught.value)


def test_tensors_that_do_not_fit_are_reported_together(lstm_weights: dict[str, np.ndarray]) -> None:
    broken = dict(lstm_weights)
    for name in ("sd_proj.2.bias", "hi_encoder.s_encoder.weight_hh_l1"):
        del broken[name]
    broken["fc.weight"] = np.zeros((60, 128), np.float32)
    broken["instance_proj.0.weight"] = np.zeros((16, 127), np.float32)
    lines = refusal(DataError, broken).splitlines()
    assert lines == [
        "the state dict: the tensors do not fit a HiCo encoder",
        "missing (2): hi_encoder.s_encoder.weight_hh_l1, sd_proj.2.bias",
        "unexpected (1): fc.weight",
        "wrong shape (1): instance_proj.0.weight (16, 127) instead of (16, 128)",
    ]


def test_a_long_report_is_cut(lstm_weights: dict[str, np.ndarray]) -> None:
    extra = {f"fc{i}.weight": np.zeros(2, np.float32) for i in range(9)}
    assert refusal(DataError, lstm_weights | extra).endswith(
        "unexpected (9): fc0.weight, fc1.weight, fc2.weight, fc3.weight and 5 more"
    )


def test_widths_that_contradict_the_arguments_are_named(lstm_weights: dict[str, np.ndarray]) -> None:
    message = refusal(UsageError, lstm_weights, layout="kinect-v1", num_bodies=1)
    assert "width 150" in message
    assert "'kinect-v1' with num_bodies 1 gives 1 x 20 joints x 3 coordinates = 60" in message
    lstm_weights["hi_encoder.s_embedding.0.weight"] = np.zeros((16, 191), np.float32)
    assert "width 191, not frames x 3" in refusal(DataError, lstm_weights)


def test_heads_that_do_not_divide_the_width(reference: Any) -> None:
    if reference.kind == "transformer":
        assert "hidden_size 16 is not a multiple of num_heads 3" in refusal(UsageError, reference.weights, num_heads=3)
    else:
        assert same(load_hico_checkpoint(reference.weights, num_heads=3), reference.weights)


def test_recurrent_weights_of_neither_kind(lstm_weights: dict[str, np.ndarray]) -> None:
    lstm_weights["hi_encoder.t_encoder.weight_hh_l0"] = np.zeros((40, 8), np.float32)
    assert "(40, 8) are neither an LSTM's" in refusal(DataError, lstm_weights)


@pytest.mark.parametrize("content", [{}, {"conv1.weight": torch.zeros(3, 3)}, {"state_dict": {"epoch": 3}}])
def test_a_foreign_state_dict_is_refused(content: dict[str, Any]) -> None:
    assert "not a HiCo encoder, it has no tensor 'hi_encoder.t_embedding.0.weight'" in refusal(DataError, content)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing, text, number, truncated = (tmp_path / name for name in ("missing.pt", "text.pt", "number.pt", "cut.pt"))
    text.write_text("not a checkpoint")
    torch.save(3, number)
    torch.save({"a": torch.zeros(1000)}, truncated)
    truncated.write_bytes(truncated.read_bytes()[:500])
    assert refusal(DataError, missing) == f"{missing}: no such checkpoint file"
    assert refusal(DataError, number) == f"{number}: expected names and tensors, found int"
    for path in (text, truncated):
        message = refusal(DataError, path)
        assert message.startswith(f"{path}: not a checkpoint of tensors and plain data only")
        assert "\n" not in message


class Surprise:
    """An object that a checkpoint must not bring to life."""


def test_a_file_with_more_than_tensors_is_refused(gru_weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    torch.save({"state_dict": tensors(gru_weights), "args": Surprise()}, tmp_path / "unsafe.pt")
    message = refusal(DataError, tmp_path / "unsafe.pt")
    assert "unsafe.pt: not a checkpoint of tensors and plain data only (UnpicklingError)" in message
    assert "save its state dict alone" in message
