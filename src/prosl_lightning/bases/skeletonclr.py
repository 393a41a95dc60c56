"""SkeletonCLR: one contrast on ST-GCN (Li et al., CVPR 2021, `net/skeletonclr.py`)."""

from __future__ import annotations

from typing import Any

from prosl_lightning.bases.base import BaseMethod, ViewOptions
from prosl_lightning.encoders import build_encoder
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.views import ChainedView, SemanticView, View, WindowView

_WHOLE = (1.0, 1.0)


class SkeletonCLR(BaseMethod):
    """One contrast of ST-GCN features, under a temporal window and shear.

    Clips are resized to `num_frames`, 50 in the original; `crop_ratio`, `min_crop_frames` and `corrupted_joints` are
    HiCo's and not read here.

    Args:
        layout: Body model.
        num_bodies: Persons per clip.
        num_frames: Frames of a view.
        **args: Further arguments of :class:`~prosl_lightning.encoders.STGCN`.
    """

    def __init__(self, *, layout: SkeletonLayout, num_bodies: int, num_frames: int, **args: Any) -> None:
        encoder = build_encoder("st-gcn", layout=layout, num_bodies=num_bodies, num_frames=num_frames, **args)
        super().__init__(encoder, layout=layout, num_frames=num_frames)

    def contrastive_view(self, options: ViewOptions) -> View:
        """The window and shear of CrosSCLR."""
        return WindowView(self.num_frames)

    def semantic_view(self, options: ViewOptions) -> View:
        """The same window without shear, then the normal set."""
        return self.normal_set_after(WindowView(self.num_frames, shear=0), options)

    def normal_set_after(self, view: View, options: ViewOptions) -> View:
        """HiCLR's normal set (flip, rotation, noise, blur, axis mask) on top of a view."""
        flip = options.spatial_flip
        return ChainedView(view, SemanticView(self.layout.mirror, self.num_frames, _WHOLE, spatial_flip=flip))
