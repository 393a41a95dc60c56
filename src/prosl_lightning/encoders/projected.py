"""What most encoders share: one projection head on their features, and a check of the clips they are given."""

from __future__ import annotations

from torch import Tensor, nn

from prosl_lightning.errors import UsageError


class ProjectedEncoder(nn.Module):
    """An encoder with one projection, `instance`: linear layer, ReLU, linear layer on the features.

    A subclass calls this initialiser, builds its layers and defines ``forward(x)``: (N, C, T, V, M) ->
    (N, feature_size).

    Args:
        feature_size: Width D of the features.
        projection_size: Width P of the projection.

    Attributes:
        feature_size: As given.
        projection_size: As given.
        has_dropout: Whether the training mode draws random numbers; a step of one that does is seeded on its own.
            Leave it True where in doubt.

    Example:
        >>> import torch
        >>> class Mean(ProjectedEncoder):
        ...     def forward(self, x):
        ...         return x.mean((2, 3, 4))
        >>> Mean(feature_size=3, projection_size=8).project(torch.zeros(2, 3, 16, 25, 2))["instance"].shape
        torch.Size([2, 8])
    """

    has_dropout: bool = True

    def __init__(self, feature_size: int, projection_size: int = 128) -> None:
        super().__init__()
        self.feature_size, self.projection_size = feature_size, projection_size
        self.head = nn.Sequential(
            nn.Linear(feature_size, feature_size), nn.ReLU(), nn.Linear(feature_size, projection_size)
        )

    def project(self, x: Tensor) -> dict[str, Tensor]:
        """The projection that is contrasted, not normalised: `instance` (N, P) of clips (N, C, T, V, M)."""
        return {"instance": self.head(self(x))}


def check_clips(x: Tensor, num_channels: int, num_joints: int) -> None:
    """Refuse clips of another body model.

    Args:
        x: Should be (N, C, T, V, M) of any length T and any number of persons M.
        num_channels: C.
        num_joints: V.

    Raises:
        UsageError: Names the shapes.
    """
    if x.ndim != 5 or (x.shape[1], x.shape[3]) != (num_channels, num_joints):
        raise UsageError(
            f"the encoder expects clips (N, {num_channels}, T, {num_joints}, M) = (clip, coordinate, frame, joint, "
            f"person), found {tuple(x.shape)}"
        )


def check_sizes(**sizes: int) -> None:
    """Refuse sizes that are no positive whole numbers.

    Raises:
        UsageError: Names the first.
    """
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise UsageError(f"{name} must be a positive whole number, found {size!r}")


def check_dropout(dropout: float) -> None:
    """Refuse what is no probability below 1.

    Raises:
        UsageError: Says what was found.
    """
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise UsageError(f"dropout must be at least 0 and below 1, found {dropout!r}")
