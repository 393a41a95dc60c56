"""A trained encoder as evaluations use it: from sequences, of its own body model or of another, to features."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from prosl_lightning.bases import build_base
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.errors import DataError
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.views import centre_view, crop_resize, draw_crop, to_stream


class JointMapping(nn.Module):
    """Clips of one body model and number of bodies as clips of another, joint by joint, matched by name.

    A few places that sensors name differently match too, see :data:`~prosl_lightning.skeleton.SAME_PLACE`.

    A joint or body that the source lacks is zero, as absent ones are everywhere; one that the target lacks is dropped.

    Args:
        source: Layout of the data.
        source_bodies: Bodies of the data.
        target: Layout the encoder was trained on.
        target_bodies: Bodies of the encoder.

    Attributes:
        found: Names of the joints in both.
        absent: Joints of the target that the source lacks.
        dropped: Joints of the source that the target lacks.
        renamed: Name in the target -> name in the source, of the joints that are called differently.

    Raises:
        DataError: Not one joint has the same name.
    """

    order: Tensor
    bones: Tensor

    def __init__(self, source: SkeletonLayout, source_bodies: int, target: SkeletonLayout, target_bodies: int) -> None:
        super().__init__()
        self.source_bodies, self.target_bodies = source_bodies, target_bodies
        known = source.places
        places = sorted(target.places, key=target.places.__getitem__)
        order = torch.tensor([known.get(place, source.num_joints) for place in places])
        here = order < source.num_joints
        self.found = tuple(name for name, there in zip(target.joints, here, strict=True) if there)
        self.absent = tuple(name for name, there in zip(target.joints, here, strict=True) if not there)
        self.dropped = tuple(name for index, name in enumerate(source.joints) if index not in order)
        pairs = zip(target.joints, order.tolist(), strict=True)
        names = {name: source.joints[index] for name, index in pairs if index < source.num_joints}
        self.renamed = {name: other for name, other in names.items() if name != other}
        if not self.found:
            raise DataError(
                f"layout '{source.name}' of the data and layout '{target.name}' of the encoder share no joint name "
                f"({', '.join(source.joints[:4])}, ... and {', '.join(target.joints[:4])}, ...)"
            )
        # Absent joints read a column of zeros behind the last joint.
        self.register_buffer("order", order, persistent=False)
        # A bone is there where both of its ends are; the difference to an absent (zero) end would be a position.
        self.register_buffer("bones", (here & here[list(target.parents)]).float(), persistent=False)
        self._lost_bones = tuple(
            name for i, name in enumerate(target.joints) if here[i] and not here[target.parents[i]]
        )

    def forward(self, clips: Tensor) -> Tensor:
        """(N, C, F, V, M) of the source to (N, C, F, V', M') of the target."""
        clips = torch.cat([clips, torch.zeros_like(clips[:, :, :, :1])], dim=3).index_select(3, self.order)
        clips = clips[..., : self.target_bodies]
        missing = self.target_bodies - clips.shape[-1]
        return torch.nn.functional.pad(clips, (0, missing)) if missing else clips

    def describe(self, stream: str) -> list[str]:
        """What matched and what did not, a line each."""
        lines = [f"{len(self.found)} of the encoder's {len(self.order)} joints are in the data, by name"]
        if self.renamed:
            named = ", ".join(f"{name} is {other} in the data" for name, other in self.renamed.items())
            lines.append(f"the same place under another name: {named}")
        if self.absent:
            lines.append(f"absent in the data, zero for the encoder: {', '.join(self.absent)}")
        if self.dropped:
            lines.append(f"unknown to the encoder, not used: {', '.join(self.dropped)}")
        if stream == "bone" and self._lost_bones:
            lines.append(f"bones that are zero because their other end is absent: {', '.join(self._lost_bones)}")
        if self.source_bodies != self.target_bodies:
            rest = "the others are zero" if self.source_bodies < self.target_bodies else "further ones are not used"
            lines.append(f"bodies: {self.source_bodies} in the data, {self.target_bodies} in the encoder; {rest}")
        return lines


class Backbone(nn.Module):
    """Everything a downstream task needs of a pre-trained encoder: network, views and body model.

    Args:
        network: Clips (N, C, F, V, M) -> features (N, D), D its `feature_size`.
        layout: Body model the network was trained on.
        num_bodies: Bodies of its clips.
        num_frames: Frames F of its clips.
        stream: What it sees: `joint`, `bone` or `motion`.
        input_scale: What that is multiplied by.
        min_crop_frames: Shortest random crop, where a task trains on such.
        data_layout: Body model of the data, where it is another; joints are matched by name, see :class:`JointMapping`.
        data_bodies: Bodies of the data, where they are others.
        build: How :meth:`rebuild` makes the network again: `name` and `args` of a base method, see
            :func:`~prosl_lightning.bases.build_base`; without it a checkpoint can only be loaded into an object that
            has its network already.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        layout: str | Mapping[str, Any] | SkeletonLayout,
        num_bodies: int,
        num_frames: int = 64,
        stream: str = "joint",
        input_scale: float = 1.0,
        min_crop_frames: int = 64,
        data_layout: str | Mapping[str, Any] | SkeletonLayout | None = None,
        data_bodies: int | None = None,
        build: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.encoder_layout = SkeletonLayout.of(layout)
        self.layout = self.encoder_layout if data_layout is None else SkeletonLayout.of(data_layout)
        self.num_bodies = num_bodies if data_bodies is None else data_bodies
        self.num_frames, self.stream, self.min_crop_frames = num_frames, stream, min_crop_frames
        self.input_scale = input_scale
        same = (self.layout.joints, self.num_bodies) == (self.encoder_layout.joints, num_bodies)
        self.mapping = None if same else JointMapping(self.layout, self.num_bodies, self.encoder_layout, num_bodies)
        self.options: dict[str, Any] = {
            "layout": self.encoder_layout.to_plain(),
            "num_bodies": num_bodies,
            "num_frames": num_frames,
            "stream": stream,
            "input_scale": input_scale,
            "min_crop_frames": min_crop_frames,
            "data_layout": self.layout.to_plain(),
            "data_bodies": self.num_bodies,
            "build": None if build is None else dict(build),
        }

    @classmethod
    def of(cls, encoder: ProSLModule | Backbone, **changes: Any) -> Backbone:
        """A copy of a trained module's query encoder; what is done with it leaves the module as it is.

        Args:
            encoder: A trained module of any base method, or a backbone.
            **changes: `data_layout` and `data_bodies`, where the data are of another body model.
        """
        if isinstance(encoder, Backbone):
            return cls(copy.deepcopy(encoder.network), **encoder.options | changes)
        options = encoder.hparams
        names = ("num_bodies", "num_frames", "stream", "min_crop_frames")
        build = {"name": options["base"], "args": dict(options["base_args"] or {})}
        kept = {name: options[name] for name in names} | {"input_scale": encoder.scale}
        return cls(copy.deepcopy(encoder.query_encoder), layout=encoder.layout, build=build, **kept, **changes)

    @classmethod
    def rebuild(cls, options: Mapping[str, Any]) -> Backbone:
        """A backbone with fresh weights from :attr:`options`, i.e. from what a checkpoint stores.

        Raises:
            DataError: The options do not say how the network is built.
            UsageError: The base method's class is not to be found here.
        """
        if options.get("build") is None:
            raise DataError("the checkpoint's network is not one of this library's: load it with load_from_checkpoint")
        build = dict(options["build"])
        name = build.pop("name")
        args = build.pop("args", build)  # version 0.1 stored a HiCo encoder's arguments side by side with its name
        layout = SkeletonLayout.of(options["layout"])
        shape = {key: options[key] for key in ("num_bodies", "num_frames")}
        return cls(build_base(name, layout=layout, args=args, **shape).encoder, **options)

    def prepare(
        self, batch: SkeletonBatch, crop: tuple[float, float] | None = None, draw: Generator | None = None
    ) -> Tensor:
        """The network's input (N, C, F, V, M): centre crop of 95 %, or a random crop, resized, in its stream.

        Args:
            batch: Sequences of the data's body model.
            crop: Smallest and largest share of a sequence in a random crop.
            draw: Source of the random crops.
        """
        if crop is None or draw is None:
            view = centre_view(batch.joints, batch.length, self.num_frames)
        else:
            start, kept = draw_crop(batch.length, ratio=crop, min_frames=self.min_crop_frames, generator=draw)
            view = crop_resize(batch.joints, start, kept, self.num_frames)
        view = to_stream(view if self.mapping is None else self.mapping(view), self.stream, self.encoder_layout.parents)
        if self.mapping is not None and self.stream == "bone":
            view = view * self.mapping.bones[:, None]
        return view if self.input_scale == 1 else view * self.input_scale

    def forward(self, clips: Tensor) -> Tensor:
        """Features (N, D) of network inputs (N, C, F, V, M)."""
        return self.network(clips)
