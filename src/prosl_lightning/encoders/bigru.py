"""The sequence encoder of ISC: a clip as one token per frame, a bidirectional GRU over them."""

from __future__ import annotations

from torch import Tensor, nn

from prosl_lightning.encoders.projected import ProjectedEncoder, check_clips, check_sizes
from prosl_lightning.encoders.recurrent import run_recurrent
from prosl_lightning.errors import UsageError
from prosl_lightning.skeleton import SkeletonLayout


class BiGRUEncoder(ProjectedEncoder):
    """Stacked bidirectional GRU whose output at the last frame is the feature (ISC, Thoker et al., ACM MM 2021).

    Takes clips of any length.

    Args:
        layout: Body model.
        num_bodies: Persons M per clip.
        num_frames: Frames per clip; not needed to build it, taken so that all encoders are built alike.
        hidden_size: Width of each direction; features have twice that.
        num_layers: Stacked layers.
        projection_size: Width P of the projection.
        num_channels: Coordinates C per joint.

    Raises:
        UsageError: A size is not positive.
    """

    has_dropout = False

    def __init__(
        self,
        *,
        layout: SkeletonLayout,
        num_bodies: int,
        num_frames: int,
        hidden_size: int = 1024,
        num_layers: int = 3,
        projection_size: int = 128,
        num_channels: int = 3,
    ) -> None:
        check_sizes(
            hidden_size=hidden_size, num_layers=num_layers, projection_size=projection_size, num_channels=num_channels,
            num_bodies=num_bodies, num_frames=num_frames,
        )  # fmt: skip
        super().__init__(2 * hidden_size, projection_size)
        self.num_channels, self.num_joints, self.num_bodies = num_channels, layout.num_joints, num_bodies
        width = layout.num_joints * num_channels * num_bodies
        self.sequence = nn.GRU(width, hidden_size, num_layers, batch_first=True, bidirectional=True)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, 2 * hidden_size), not normalised, of clips (N, C, T, V, M).

        Raises:
            UsageError: The clips are of another body model or number of persons.
        """
        check_clips(x, self.num_channels, self.num_joints)
        if x.shape[4] != self.num_bodies:
            raise UsageError(f"the encoder was built for {self.num_bodies} person(s), the clips have {x.shape[4]}")
        # ISC's order within a frame: joint, coordinate, person.
        return run_recurrent(self.sequence, x.permute(0, 2, 3, 1, 4).flatten(2))[:, -1]
