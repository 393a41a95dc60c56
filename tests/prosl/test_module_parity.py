"""Whole optimisation steps of the base method against the public HiCo code: losses, weights, banks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prosl_lightning.encoders.public_hico import hico_state_dict, load_hico_checkpoint
from prosl_lightning.prosl.module import ProSLModule

# the public code's queue -> our bank (each named by the projection of the key it holds)
BANKS = {"c_queue": "clip", "p_queue": "part", "t_queue": "temporal", "s_queue": "spatial", "i_queue": "instance"}
TERMS = ("clip", "part", "temporal", "spatial", "instance")


def _state(data, flat: str) -> dict[str, np.ndarray]:
    shapes = [tuple(int(n) for n in shape.split(",")) for shape in data["param_shapes"]]
    parts = np.split(data[flat], np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    return {
        str(name): part.reshape(shape) for name, part, shape in zip(data["param_names"], parts, shapes, strict=True)
    }


def _module(data, wrap: str) -> ProSLModule:
    size = {key.removeprefix("size/"): value for key, value in data.items() if key.startswith("size/")}
    heads = int(size["num_head"])
    query, key = (load_hico_checkpoint(_state(data, name), heads) for name in ("q_init", "k_init"))
    module = ProSLModule(
        base=f"hico-{str(size['encoder']).lower()}",
        base_args={
            "hidden_size": int(size["hidden_size"]),
            "num_layers": int(size["num_layer"]),
            "num_heads": heads,
            "granularity": int(size["granularity"]),
            "projection_size": int(size["num_class"]),
            "dropout": 0.0,
        },
        bank_size=int(data["K"]),
        bank_wrap=wrap,
        temperature=float(data["temperature"]),
        momentum=float(data["ema_momentum"]),
        learning_rate=float(data["lr"]),
        sgd_momentum=float(data["sgd_momentum"]),
        weight_decay=float(data["weight_decay"]),
        semantic=False,
    )
    module.query_encoder.load_state_dict(query.state_dict())
    module.key_encoder.load_state_dict(key.state_dict())
    for queue, bank in BANKS.items():
        module.banks[bank].features = torch.tensor(data[f"queue_init/{queue}"]).T.contiguous()
    return module


@pytest.mark.parametrize("wrap", ["reference", "full"])
@pytest.mark.parametrize("name", ["hico_momentum_queue", "hico_momentum_queue_b4"])
def test_optimisation_steps_match_the_reference(fixture_arrays, name, wrap):
    data = fixture_arrays(name)
    module = _module(data, wrap)
    optimizer = module.configure_optimizers()["optimizer"]
    batch = int(data["batch"])
    for step in range(int(data["steps"])):
        query, key = torch.tensor(data["views_int8"][step]).float() * float(data["views_scale"])
        metrics = module.losses(query, key, None, torch.arange(batch) + step * batch)
        terms = [float(metrics[term].detach()) for term in TERMS]
        np.testing.assert_allclose(terms, data[f"{wrap}/loss_terms"][step], atol=2e-5, rtol=0)
        assert float(metrics["loss"].detach()) == pytest.approx(float(data[f"{wrap}/loss_total"][step]), abs=2e-5)
        optimizer.zero_grad()
        metrics["loss"].backward()
        optimizer.step()
    for encoder, flat in ((module.query_encoder, "q_final"), (module.key_encoder, "k_final")):
        expected = _state(data, f"{wrap}/{flat}")
        for parameter, value in hico_state_dict(encoder).items():
            np.testing.assert_allclose(value.detach(), expected[parameter], atol=5e-6, rtol=0, err_msg=parameter)
    for queue, bank in BANKS.items():
        expected_queue = data[f"{wrap}/queue_final/{queue}"].T
        np.testing.assert_allclose(module.banks[bank].features, expected_queue, atol=5e-6, rtol=0, err_msg=queue)
