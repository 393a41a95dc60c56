"""Base methods by name and by class path: what is built, and what is refused before it is called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from prosl_lightning.bases import BASES, BaseMethod, ContrastTerm, build_base
from prosl_lightning.encoders import STGCN, BiGRUEncoder, HiCoEncoder
from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout

SHAPE = {"layout": SkeletonLayout.of("kinect-v1"), "num_bodies": 1, "num_frames": 16}

OWN = """
import pathlib
from torch import nn
from prosl_lightning.bases import BaseMethod, ContrastTerm
from prosl_lightning.encoders import ProjectedEncoder

class Flat(ProjectedEncoder):
    def __init__(self, *, layout, num_bodies, num_frames, width=8):
        super().__init__(width, projection_size=4)
        self.layer = nn.Linear(3 * num_frames * layout.num_joints * num_bodies, width)
    def forward(self, x):
        return self.layer(x.flatten(1))

class Method(BaseMethod):
    def __init__(self, *, layout, num_bodies, num_frames, width):
        encoder = Flat(layout=layout, num_bodies=num_bodies, num_frames=num_frames, width=width)
        super().__init__(encoder, layout=layout, num_frames=num_frames)

class Elsewhere(Method):
    semantic = "nowhere"

class NoProjection(nn.Linear):
    def __init__(self, *, layout, num_bodies, num_frames):
        super().__init__(2, 2)

class Forgot(BaseMethod):
    def __init__(self, *, layout, num_bodies, num_frames):
        pass

class Other:
    def __init__(self, **args):
        pathlib.Path("called").touch()

def function(**args):
    pathlib.Path("called").touch()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A module `mine_abc` outside the package."""
    (tmp_path / "mine_abc.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine_abc", None)


def test_names_stand_for_methods_and_their_encoders():
    assert list(BASES) == ["hico-lstm", "hico-gru", "hico-transformer", "skeletonclr", "isc", "hiclr"]
    small = {"hico-lstm": {"hidden_size": 8}, "skeletonclr": {"hidden_channels": 2}, "isc": {"hidden_size": 4}}
    found = {name: build_base(name, args=args, **SHAPE).encoder for name, args in small.items()}
    assert [type(encoder) for encoder in found.values()] == [HiCoEncoder, STGCN, BiGRUEncoder]
    assert found["hico-lstm"].kind == "lstm"
    assert build_base("hico-gru", args={"hidden_size": 8}, **SHAPE).encoder.kind == "gru"
    names = [term.name for term in BASES["hico-gru"].terms]
    assert names == ["clip", "part", "temporal", "spatial", "instance"]
    crossed = {term.query: term.key for term in BASES["hico-gru"].terms}
    assert (crossed["temporal"], crossed["spatial"], crossed["clip"]) == ("spatial", "temporal", "clip")
    assert BASES["hiclr"].terms == (ContrastTerm("instance", "instance", "instance"),)


def test_a_method_of_the_users_is_built_by_its_path(mine):
    method = build_base("mine_abc.Method", args={"width": 6}, **SHAPE)
    assert isinstance(method, BaseMethod)
    assert method.encoder(torch.zeros(2, 3, 16, 20, 1)).shape == (2, 6)


def test_an_encoder_of_the_users_is_contrasted_by_one_term(mine):
    method = build_base("mine_abc.Flat", **SHAPE)
    assert type(method) is BaseMethod
    assert method.encoder.feature_size == 8
    assert method.terms == (ContrastTerm("instance", "instance", "instance"),)


@pytest.mark.parametrize(
    ("base", "args", "message"),
    [
        ("skeletonclrr", {}, "unknown base method 'skeletonclrr': known are hico-lstm, .*, or a class path such as"),
        (
            "nowhere_abc.Method",
            {},
            "'nowhere_abc' cannot be imported .*No module named.* PYTHONPATH, also where a chec",
        ),
        (
            "mine_abc.Missing",
            {},
            "base 'mine_abc.Missing' must be a class derived from .* there is nothing of that name",
        ),
        (
            "mine_abc.function",
            {},
            "must be a class derived from prosl_lightning.bases.BaseMethod or .*<function function",
        ),
        ("mine_abc.Other", {}, "must be a class derived from .*<class 'mine_abc.Other'>"),
        ("os.system", {}, "must be a class derived from .*<built-in function system>"),
        ("mine_abc.Method", {}, "base 'mine_abc.Method' needs the argument 'width'"),
        ("mine_abc.Method", {"width": 4, "depth": 1}, "has no argument 'depth': known are width"),
        ("mine_abc.Method", {"width": 4, "layout": 1}, "has no argument 'layout'"),
        ("torch.nn.Linear", {}, "must take the arguments layout, num_bodies, num_frames; it takes in_features"),
        ("mine_abc.Elsewhere", {"width": 4}, "'nowhere' is to be clustered, but no term has it as its key: instance"),
        ("mine_abc.NoProjection", {}, "the encoder NoProjection has no project and no feature_size; derive it from"),
        ("mine_abc.Forgot", {}, "its encoder is None, not a torch.nn.Module; call super"),
        ("skeletonclr", {"hidden": 4}, "encoder 'st-gcn' has no argument 'hidden': known are dropout"),
    ],
)
def test_what_cannot_be_a_base_is_named_and_not_called(mine, base, args, message):
    with pytest.raises(UsageError, match=message):
        build_base(base, args=args, **SHAPE)
    assert not Path("called").exists()
