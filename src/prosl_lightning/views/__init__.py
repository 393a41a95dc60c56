"""A padded batch of clips to augmented views, batched, on whatever device the batch is on."""

from prosl_lightning.views.contrastive import ContrastiveView
from prosl_lightning.views.crop import centre_crop, centre_view, crop_resize, draw_crop
from prosl_lightning.views.joint_mask import choose_joints, draw_joints, mask_frames, mask_joints
from prosl_lightning.views.semantic import SemanticView
from prosl_lightning.views.streams import to_stream
from prosl_lightning.views.window import ChainedView, View, WindowView

__all__ = [
    "ChainedView",
    "ContrastiveView",
    "SemanticView",
    "View",
    "WindowView",
    "centre_crop",
    "centre_view",
    "choose_joints",
    "crop_resize",
    "draw_crop",
    "draw_joints",
    "mask_frames",
    "mask_joints",
    "to_stream",
]
