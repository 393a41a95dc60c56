"""HiCLR: growing augmentations on SkeletonCLR's encoder (Zhang et al., AAAI 2023, `net/hiclr.py`)."""

from __future__ import annotations

from prosl_lightning.bases.base import StrongerView, ViewOptions
from prosl_lightning.bases.skeletonclr import SkeletonCLR
from prosl_lightning.views import WindowView

_MASKED_SHARE = 0.1


class HiCLR(SkeletonCLR):
    """SkeletonCLR whose query is joined by two stronger views, each taught by the one before.

    The first adds the normal set to window and shear, the second a joint mask too: 10 % of the joints (2 of 25) in
    each frame. Half the cross entropy of either link is added to the contrast. Not taken over: mining the nearest
    neighbour as a second positive after epoch 150.
    """

    def stronger_views(self, options: ViewOptions) -> tuple[StrongerView, ...]:
        """Window, shear and normal set, without and with a joint mask."""
        normal = self.normal_set_after(WindowView(self.num_frames), options)
        return StrongerView(normal), StrongerView(normal, max(1, int(_MASKED_SHARE * self.layout.num_joints)))
