"""HiCo: hierarchical contrast of clip, part, domain and instance (Dong et al., AAAI 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

from prosl_lightning.bases.base import BaseMethod, ContrastTerm
from prosl_lightning.encoders import build_encoder
from prosl_lightning.skeleton import SkeletonLayout


class HiCo(BaseMethod):
    """Five contrasts of one two-branch encoder.

    Clip and part contrast the finest level with every level of the key; the domain terms are crossed, time against
    space.

    Args:
        layout: Body model.
        num_bodies: Persons per clip.
        num_frames: Frames of a view.
        **args: Further arguments of :class:`~prosl_lightning.encoders.HiCoEncoder`.
    """

    kind: ClassVar[str] = "lstm"
    terms = (
        ContrastTerm("clip", query="clip", key="clip"),
        ContrastTerm("part", query="part", key="part"),
        ContrastTerm("temporal", query="temporal", key="spatial"),
        ContrastTerm("spatial", query="spatial", key="temporal"),
        ContrastTerm("instance", query="instance", key="instance"),
    )

    def __init__(self, *, layout: SkeletonLayout, num_bodies: int, num_frames: int, **args: Any) -> None:
        name = f"hico-{self.kind}"
        encoder = build_encoder(name, layout=layout, num_bodies=num_bodies, num_frames=num_frames, **args)
        super().__init__(encoder, layout=layout, num_frames=num_frames)


class HiCoLSTM(HiCo):
    """HiCo on a bidirectional LSTM, ProSL's base."""


class HiCoGRU(HiCo):
    """HiCo on a bidirectional GRU."""

    kind = "gru"


class HiCoTransformer(HiCo):
    """HiCo on a transformer without positions."""

    kind = "transformer"
