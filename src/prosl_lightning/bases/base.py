"""What a contrastive method supplies to ProSL: an encoder, its contrast terms, its views, where the codebook lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.views import ContrastiveView, SemanticView, View


@dataclass(frozen=True)
class ContrastTerm:
    """One term of the contrastive loss.

    Attributes:
        name: Its name in logs.
        query: Projection of the query branch that is the anchor; of one with several levels, the first (finest).
        key: Projection of the key branch whose levels are all positives. It also names the memory bank that holds the
            negatives.
    """

    name: str
    query: str
    key: str


@dataclass(frozen=True)
class ViewOptions:
    """The options of the module that views may follow.

    Attributes:
        crop_ratio: Smallest and largest share of a sequence that a crop covers.
        min_crop_frames: Shortest crop in frames.
        corrupted_joints: Joints zeroed or jittered in a corrupted view.
        spatial_flip: Whether a view may swap left and right.
    """

    crop_ratio: tuple[float, float] = (0.1, 1.0)
    min_crop_frames: int = 64
    corrupted_joints: int = 15
    spatial_flip: bool = True


class StrongerView(NamedTuple):
    """One link of a chain of stronger and stronger augmentations.

    Attributes:
        view: Makes it.
        masked_joints: Joints hidden in each frame, drawn anew for every frame, after the stream was derived.
    """

    view: View
    masked_joints: int = 0


class BaseMethod:
    """A contrastive method. As it stands: one contrast of `instance` projections, HiCo's views, any encoder.

    A method of your own is a subclass whose initialiser takes `layout`, `num_bodies`, `num_frames` and, as plain data,
    whatever else it needs, builds an encoder and gives it to this one. All that is learnt belongs into the encoder: it
    is what is copied to the key branch, trained, stored and evaluated. See `docs/own-method.md`.

    Args:
        encoder: Module with `forward(x)`: clips (N, C, T, V, M) -> features (N, feature_size); `project(x)`: a mapping
            from names to projections, not normalised, (N, P) or, with levels, (N, G, P); and `feature_size`. If its
            training mode draws no random numbers it may say so by `has_dropout = False`.
        layout: Body model.
        num_frames: Frames of a view.

    Attributes:
        terms: Its contrast terms; they are added with equal weights.
        semantic: Projection (N, P) that is clustered, pulled to centroids and compared by the KL loss; also a term's
            key.
        stronger_weight: Of each link in the chain of :meth:`stronger_views`.
    """

    terms: tuple[ContrastTerm, ...] = (ContrastTerm("instance", query="instance", key="instance"),)
    semantic: str = "instance"
    stronger_weight: float = 0.5

    def __init__(self, encoder: nn.Module, *, layout: SkeletonLayout, num_frames: int) -> None:
        self.encoder: Any = encoder
        if isinstance(encoder, nn.Module) and not hasattr(encoder, "has_dropout"):
            encoder.has_dropout = True  # type: ignore[assignment]  # one that does not say is seeded
        self.layout, self.num_frames = layout, num_frames

    def contrastive_view(self, options: ViewOptions) -> View:
        """What makes query and key views, drawn independently: crop-resize, then joint corruption or shear (HiCo)."""
        return ContrastiveView(
            self.num_frames, options.crop_ratio, options.min_crop_frames, options.corrupted_joints
        )  # fmt: skip

    def semantic_view(self, options: ViewOptions) -> View:
        """What makes the view of ProSL's third branch, before joints are masked: crop-resize and the normal set."""
        return SemanticView(
            self.layout.mirror, self.num_frames, options.crop_ratio, options.min_crop_frames, options.spatial_flip
        )

    def stronger_views(self, options: ViewOptions) -> tuple[StrongerView, ...]:
        """A chain of stronger augmentations, weakest first, each taught by the one before; none by default.

        The first is taught by the query view. Taught means: cross entropy of the similarities to positive and bank.
        """
        return ()
