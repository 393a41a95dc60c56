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
import torch
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

class Wider(Flat):
    def forward(self, x):
        return self.layer(x.flatten(1)).repeat(1, 2)

class Breaks(Flat):
    def forward(self, x):
        return self.layer(x.flatten(2))

class Levels(Flat):
    def project(self, x):
        return {"instance": self.head(self(x))[:, None].expand(-1, 2, -1)}

class NoMapping(Flat):
    def project(self, x):
        return self.head(self(x))

class OtherName(Flat):
    def project(self, x):
        return {"clip": self.head(self(x))}

class Drawing(Flat):
    # draws in every forward, and counts where it trains
    def __init__(self, **shape):
        super().__init__(**shape)
        self.norm = nn.BatchNorm1d(8)
        self.still = nn.Dropout(0.5).eval()
    def forward(self, x):
        return self.norm(self.layer(x.flatten(1)) + torch.rand(8))

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
        ("mine_abc.Wider", {}, r"Wider.forward gives \(1, 16\) for a clip \(1, 3, 16, 20, 1\); expected .*= \(1, 8\)"),
        ("mine_abc.Breaks", {}, r"Breaks.forward fails on a clip \(1, 3, 16, 20, 1\): RuntimeError: mat1 and mat2"),
        ("mine_abc.Levels", {}, r"Levels.project gives 'instance' \(1, 2, 4\) for one clip; what is clustered"),
        ("mine_abc.NoMapping", {}, "NoMapping.project gives Tensor; expected a mapping from names to projections"),
        ("mine_abc.OtherName", {}, "OtherName.project gives clip; a contrast term of the base method needs 'instance'"),
        ("mine_abc.Flat", {"width": "a"}, "'mine_abc.Flat' cannot be built with {'width': 'a'}: TypeError in .*line "),
        ("hico-lstm", {"hidden_size": "a"}, "hidden_size must be a positive whole number, found 'a'"),
        ("hico-lstm", {"dropout": "a"}, "dropout must be at least 0 and below 1, found 'a'"),
        ("skeletonclr", {"dropout": "a"}, "dropout must be at least 0 and below 1, found 'a'"),
        ("isc", {"num_layers": "a"}, "num_layers must be a positive whole number, found 'a'"),
        ("skeletonclr", {"hidden_size": 4}, "known are dropout.*\narguments are model.base_args, .* '{}' clears them"),
        ("skeletonclr", {"hidden": 4}, "encoder 'st-gcn' has no argument 'hidden': known are dropout"),
    ],
)
def test_what_cannot_be_a_base_is_named_and_not_called(mine, base, args, message):
    with pytest.raises(UsageError, match=message):
        build_base(base, args=args, **SHAPE)
    assert not Path("called").exists()


@pytest.mark.parametrize(
    ("text", "message", "cause"),
    [
        ("class Method(\n", r"fails when it is imported: SyntaxError in .*broken_abc.py, line 1: ", SyntaxError),
        ("x = 1\ny = x / 0\n", r"ZeroDivisionError in .*broken_abc.py, line 2: division by zero", ZeroDivisionError),
        ("import nowhere_abc\n", r"cannot be imported \(No module named 'nowhere_abc'\)", ImportError),
    ],
)
def test_a_module_that_fails_is_told_with_file_and_line(mine, text, message, cause):
    (mine / "broken_abc.py").write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        build_base("broken_abc.Method", **SHAPE)
    assert isinstance(error.value.__cause__, cause)


def test_the_look_at_one_clip_leaves_no_trace(mine):
    torch.manual_seed(0)
    encoder = build_base("mine_abc.Drawing", **SHAPE).encoder
    drawn = torch.rand(3)
    torch.manual_seed(0)
    again = sys.modules["mine_abc"].Drawing(**SHAPE)
    assert torch.equal(drawn, torch.rand(3))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert encoder.norm.num_batches_tracked == 0
    assert [module.training for module in encoder.modules()] == [module.training for module in again.modules()]
    assert (encoder.training, encoder.still.training) == (True, False)
