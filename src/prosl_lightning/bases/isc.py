"""ISC's sequence encoder as a base: one contrast of BiGRU features (Thoker et al., ACM MM 2021)."""

from __future__ import annotations

from typing import Any

from prosl_lightning.bases.base import BaseMethod
from prosl_lightning.encoders import build_encoder
from prosl_lightning.skeleton import SkeletonLayout


class ISC(BaseMethod):
    """One contrast of a bidirectional GRU's features, under the views that HiCo took over from ISC.

    The original contrasts this encoder with a graph or an image encoder of the same clip; here it is contrasted with
    itself, its intra-skeleton form.

    Args:
        layout: Body model.
        num_bodies: Persons per clip.
        num_frames: Frames of a view.
        **args: Further arguments of :class:`~prosl_lightning.encoders.BiGRUEncoder`.
    """

    def __init__(self, *, layout: SkeletonLayout, num_bodies: int, num_frames: int, **args: Any) -> None:
        encoder = build_encoder("bigru", layout=layout, num_bodies=num_bodies, num_frames=num_frames, **args)
        super().__init__(encoder, layout=layout, num_frames=num_frames)
