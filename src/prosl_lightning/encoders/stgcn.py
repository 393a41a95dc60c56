"""ST-GCN as SkeletonCLR uses it: graph convolutions over the joints, convolutions over time, for any body model."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from prosl_lightning.encoders.projected import ProjectedEncoder, check_clips, check_dropout, check_sizes
from prosl_lightning.skeleton import SkeletonLayout

_TEMPORAL_KERNEL = 9


def spatial_graph(layout: SkeletonLayout) -> Tensor:
    """Normalised adjacency of a skeleton in three partitions, A of shape (3, V, V).

    `A[p, v, w]` weighs what joint w takes from joint v: 1 / (number of w's neighbours, itself included). Partition 0
    is the joint itself; the neighbours are split by their distance in bones to the centre, the layout's root (of
    several roots the nearest): 1 holds those as far as w or further, 2 those nearer. As in the public code everything
    two or more bones away counts as equally far.

    Args:
        layout: Its bones are the edges. On `kinect-v2` this is the graph of SkeletonCLR.
    """
    count = layout.num_joints
    linked = torch.eye(count)
    for child, parent in layout.bones:
        linked[child, parent] = linked[parent, child] = 1
    roots = torch.tensor([parent == joint for joint, parent in enumerate(layout.parents)])
    distance = torch.where(roots, 0, torch.where(linked[roots].any(dim=0), 1, 2))
    weight, itself = linked / linked.sum(dim=0), torch.eye(count)
    nearer = (distance[:, None] < distance[None, :]).float()
    return torch.stack([weight * itself, weight * (1 - itself) * (1 - nearer), weight * nearer])


class STGCN(ProjectedEncoder):
    """Spatial-temporal graph convolutional network (Yan et al., AAAI 2018) in SkeletonCLR's size.

    Ten blocks of width h, h, h, h, 2h, 2h, 2h, 4h, 4h, D; blocks 4 and 7 (from 0) halve the number of frames. Every
    person goes through the network alone; features are the mean over frames and joints, then over the persons. Takes
    clips of any length and any number of persons. It has batch normalisation, so in training what comes out of a clip
    depends on the others in its batch.

    Args:
        layout: Body model.
        num_bodies: Persons per clip; not needed to build it, taken so that all encoders are built alike.
        num_frames: Frames per clip; likewise.
        hidden_channels: Width h: 16 in SkeletonCLR, 64 in the original ST-GCN.
        feature_size: Width D of the features.
        projection_size: Width P of the projection.
        dropout: Dropout probability, in every block but the first.
        num_channels: Coordinates C per joint.
        weight_std: Standard deviation of the initial weights, 0.02 in SkeletonCLR; None for torch's own, with which
            features are apart from the first steps on. Take None for small sets.

    Attributes:
        graph: Adjacency of :func:`spatial_graph`, (3, V, V).

    Raises:
        UsageError: A size is not positive, or the dropout no probability.
    """

    graph: Tensor

    def __init__(
        self,
        *,
        layout: SkeletonLayout,
        num_bodies: int,
        num_frames: int,
        hidden_channels: int = 16,
        feature_size: int = 256,
        projection_size: int = 128,
        dropout: float = 0.5,
        num_channels: int = 3,
        weight_std: float | None = 0.02,
    ) -> None:
        check_sizes(
            hidden_channels=hidden_channels, feature_size=feature_size, projection_size=projection_size,
            num_channels=num_channels, num_bodies=num_bodies, num_frames=num_frames,
        )  # fmt: skip
        check_dropout(dropout)
        super().__init__(feature_size, projection_size)
        self.num_channels, self.num_joints = num_channels, layout.num_joints
        self.has_dropout = dropout > 0
        self.register_buffer("graph", spatial_graph(layout), persistent=False)
        self.data_norm = nn.BatchNorm1d(layout.num_joints * num_channels)
        widths = [num_channels, *(hidden_channels * factor for factor in (1, 1, 1, 1, 2, 2, 2, 4, 4)), feature_size]
        self.blocks = nn.ModuleList(
            _Block(
                widths[i],
                widths[i + 1],
                layout.num_joints,
                2 if i in (4, 7) else 1,
                dropout if i else 0,
                residual=i > 0,
            )
            for i in range(len(widths) - 1)
        )
        if weight_std is not None:
            self.apply(partial(_initialise, std=weight_std))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, D), not normalised, of clips (N, C, T, V, M).

        Raises:
            UsageError: The clips are of another body model.
        """
        check_clips(x, self.num_channels, self.num_joints)
        n, c, t, v, m = x.shape
        people = x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t)
        people = self.data_norm(people).view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous()
        for block in self.blocks:
            people = block(people, self.graph)
        return people.mean(dim=(2, 3)).view(n, m, -1).mean(dim=1)


class _Block(nn.Module):
    """Graph convolution, convolution over time and a residual path: (B, C, T, V) -> (B, D, T / stride, V)."""

    def __init__(
        self, channels: int, width: int, num_joints: int, stride: int, dropout: float, *, residual: bool
    ) -> None:
        super().__init__()
        self.edge_importance = nn.Parameter(torch.ones(3, num_joints, num_joints))
        self.spatial = nn.Conv2d(channels, 3 * width, 1)
        padding = (_TEMPORAL_KERNEL // 2, 0)
        self.temporal = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, (_TEMPORAL_KERNEL, 1), (stride, 1), padding),
            nn.BatchNorm2d(width),
            nn.Dropout(dropout),
        )
        self.residual: nn.Module | None = None
        if residual and (channels, stride) == (width, 1):
            self.residual = nn.Identity()
        elif residual:
            self.residual = nn.Sequential(nn.Conv2d(channels, width, 1, (stride, 1)), nn.BatchNorm2d(width))

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        parts = self.spatial(x).unflatten(1, (3, -1))
        y = self.temporal(torch.einsum("npctv,pvw->nctw", parts, graph * self.edge_importance).contiguous())
        return (y if self.residual is None else y + self.residual(x)).relu()


def _initialise(module: nn.Module, std: float) -> None:
    """SkeletonCLR's weights: N(0, std), N(1, std) for batch normalisation; biases 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0, std)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, std)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
