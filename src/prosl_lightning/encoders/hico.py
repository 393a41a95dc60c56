"""The two-branch hierarchical encoder of HiCo: a clip as a sequence of frames and as a sequence of joints."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from prosl_lightning.encoders.projected import check_dropout, check_sizes
from prosl_lightning.encoders.recurrent import run_recurrent
from prosl_lightning.errors import UsageError

Kind = Literal["lstm", "gru", "transformer"]
KINDS: tuple[str, ...] = get_args(Kind)


def time_major(x: Tensor) -> Tensor:
    """Read a clip as one token per frame: (N, C, T, V, M) -> (N, T, M*V*C).

    Features are in the order person, joint, coordinate.
    """
    return x.permute(0, 2, 4, 3, 1).flatten(2)


def space_major(x: Tensor) -> Tensor:
    """Read a clip as one token per joint: (N, C, T, V, M) -> (N, M*V, T*C).

    Tokens are in the order person, joint; features in the order frame, coordinate.
    """
    return x.permute(0, 4, 3, 2, 1).flatten(3).flatten(1, 2)


class HiCoEncoder(nn.Module):
    """Encode skeleton clips at several granularities in time and in space (HiCo, Dong et al., AAAI 2023).

    Each branch embeds its tokens, runs one sequence encoder over them, takes the maximum over the tokens, then halves
    the number of tokens and repeats. Level 0 is the full sequence.

    Args:
        kind: The sequence encoder: ``lstm``, ``gru`` (both bidirectional) or ``transformer`` (post-norm, no positions).
        num_joints: Joints V per person.
        num_bodies: Persons M per clip.
        num_frames: Frames T per clip, after crop and resize.
        num_channels: Coordinates C per joint.
        hidden_size: Width H of tokens and levels; both directions of a recurrent encoder share it.
        num_layers: Layers of the sequence encoder; by default 2 (recurrent) or 1 (transformer).
        num_heads: Attention heads (transformer only).
        granularity: Number of levels G.
        projection_size: Width P of the projections.
        kernel_size: Width of the depth-wise convolution in front of each halving; odd.
        dropout: Dropout probability (transformer only).
        packed_levels: Whether on a GPU a recurrent encoder takes all levels of a branch in one call; results are the
            same. Turn it off where that cannot be recorded as a CUDA graph.

    Attributes:
        clip_shape: The clip this encoder takes, (C, T, V, M).
        feature_size: Width of the downstream feature, ``2 * G * H``.
        projection_size: Width P of each projection.
        has_dropout: Whether the training mode draws random numbers.

    Raises:
        UsageError: A size does not fit the others.

    Example:
        >>> encoder = HiCoEncoder(kind="gru", num_joints=15, num_bodies=2, hidden_size=8, projection_size=4)
        >>> clips = torch.zeros(2, 3, 64, 15, 2)
        >>> encoder(clips).shape, encoder.project(clips)["instance"].shape
        (torch.Size([2, 64]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        *,
        kind: Kind,
        num_joints: int,
        num_bodies: int,
        num_frames: int = 64,
        num_channels: int = 3,
        hidden_size: int = 512,
        num_layers: int | None = None,
        num_heads: int = 4,
        granularity: int = 4,
        projection_size: int = 128,
        kernel_size: int = 5,
        dropout: float = 0.1,
        packed_levels: bool = True,
    ) -> None:
        super().__init__()
        if num_layers is None:
            num_layers = 1 if kind == "transformer" else 2
        _check_kind(kind, hidden_size=hidden_size, num_heads=num_heads, kernel_size=kernel_size, dropout=dropout)
        check_sizes(
            num_joints=num_joints, num_bodies=num_bodies, num_frames=num_frames, num_channels=num_channels,
            num_layers=num_layers, granularity=granularity, projection_size=projection_size,
        )  # fmt: skip
        _check_tokens("num_frames", num_frames, granularity)
        _check_tokens("num_joints * num_bodies", num_joints * num_bodies, granularity)

        self.clip_shape = (num_channels, num_frames, num_joints, num_bodies)
        self.feature_size = 2 * granularity * hidden_size
        self.projection_size = projection_size
        self.kind = kind
        self.has_dropout = kind == "transformer" and dropout > 0

        def branch(input_size: int) -> _Branch:
            sequence = _sequence_encoder(kind, hidden_size, num_layers, num_heads, dropout)
            return _Branch(input_size, hidden_size, granularity, kernel_size, sequence, packed_levels)

        self.time_branch = branch(num_bodies * num_joints * num_channels)
        self.space_branch = branch(num_frames * num_channels)
        self.projectors = _projectors(hidden_size, granularity, projection_size)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Encode clips for downstream use.

        Args:
            x: Clips, (N, C, T, V, M).

        Returns:
            Features, (N, 2*G*H), not normalised: the G levels of the time branch, then those of the space branch.

        Raises:
            UsageError: The clips are not of the shape this encoder was built for.
        """
        time, space = self._levels(x)
        return torch.cat((time.flatten(1), space.flatten(1)), dim=1)

    def project(self, x: Tensor) -> dict[str, Tensor]:
        """Project clips into the spaces in which they are contrasted.

        Args:
            x: Clips, (N, C, T, V, M).

        Returns:
            Projections, not normalised: ``clip`` and ``part`` (N, G, P), one per level of the time and the space
            branch; ``temporal`` and ``spatial`` (N, P) of a whole branch; ``instance`` (N, P) of both.

        Raises:
            UsageError: The clips are not of the shape this encoder was built for.
        """
        time, space = self._levels(x)
        all_time, all_space = time.flatten(1), space.flatten(1)
        inputs = {
            "clip": time,
            "part": space,
            "temporal": all_time,
            "spatial": all_space,
            "instance": torch.cat((all_time, all_space), dim=1),
        }
        return {name: self.projectors[name](value) for name, value in inputs.items()}

    def _levels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Levels of the time and of the space branch, each (N, G, H)."""
        if x.ndim != 5 or x.shape[1:] != self.clip_shape:
            expected = ", ".join(str(size) for size in self.clip_shape)
            raise UsageError(
                f"the encoder expects clips (N, {expected}) = (clip, coordinate, frame, joint, person), "
                f"found {tuple(x.shape)}"
            )
        return self.time_branch(time_major(x)), self.space_branch(space_major(x))


class _Branch(nn.Module):
    """One view of the clip: tokens (N, L, input) -> one vector per level of granularity, (N, G, H)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        granularity: int,
        kernel_size: int,
        sequence: nn.Module,
        packed_levels: bool,
    ) -> None:
        super().__init__()
        self.embedding = nn.Sequential(
            nn.Linear(input_size, hidden_size),
            nn.LayerNorm(hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
        )
        self.downsampling = _Downsampling(hidden_size, kernel_size)
        self.sequence = sequence
        self.granularity = granularity
        self.packed_levels = packed_levels

    def forward(self, tokens: Tensor) -> Tensor:
        # What gets halved is the embedding, not the sequence encoder's output: the encoder sees every level anew.
        levels = [self.embedding(tokens)]
        for _ in range(1, self.granularity):
            levels.append(self.downsampling(levels[-1]))
        encode = self._encode_packed if self._packs(tokens.device) else self._encode_apart
        return torch.stack([encoded.amax(dim=0) for encoded in encode(levels)], dim=1)

    def _packs(self, device: torch.device) -> bool:
        """Whether all levels go through the sequence encoder in one call: recurrent ones on a GPU.

        There a call waits for its longest sequence, whatever else runs beside it. On the CPU a packed sequence misses
        the fast kernel.
        """
        return self.packed_levels and device.type == "cuda" and isinstance(self.sequence, nn.RNNBase)

    def _encode_apart(self, levels: list[Tensor]) -> list[Tensor]:
        """Run the sequence encoder over each level, (N, L, H) each, in a call of its own; (L, N, H) each."""
        recurrent = isinstance(self.sequence, nn.RNNBase)
        outputs = [run_recurrent(self.sequence, level) if recurrent else self.sequence(level) for level in levels]
        return [output.transpose(0, 1) for output in outputs]

    def _encode_packed(self, levels: list[Tensor]) -> list[Tensor]:
        """The same in one call of a recurrent encoder.

        A packed sequence holds, token by token, the rows of all sequences that are long enough, the longest first.
        Levels are in that order already, and their lengths are known beforehand, so nothing is read from the device.
        Splits and stacks are used throughout, as their gradients are single copies.
        """
        count = len(levels)
        lengths = [level.shape[1] for level in levels]
        # From one level's end to the next longer one's all longer levels are present: spans[i] tokens of count - i.
        spans = [length - shorter for shorter, length in zip([0, *lengths[:0:-1]], lengths[::-1], strict=True)]
        parts = [level.transpose(0, 1).split(spans[: count - g]) for g, level in enumerate(levels)]
        blocks = [torch.stack([parts[g][i] for g in range(count - i)], dim=1) for i in range(count)]
        sizes = [(count - i) * len(levels[0]) for i, span in enumerate(spans) for _ in range(span)]
        packed = PackedSequence(torch.cat([block.flatten(0, 2) for block in blocks]), torch.tensor(sizes))
        data = run_recurrent(self.sequence, packed).data.split(
            [span * (count - i) * len(levels[0]) for i, span in enumerate(spans)]
        )
        rows = [part.unflatten(0, (spans[i], count - i, -1)).unbind(1) for i, part in enumerate(data)]
        return [torch.cat([rows[i][g] for i in range(count - g)]) for g in range(count)]


class _Downsampling(nn.Module):
    """Halve the number of tokens, (N, L, H) -> (N, L // 2, H); shared by all levels of a branch."""

    def __init__(self, hidden_size: int, kernel_size: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(hidden_size, hidden_size, kernel_size, groups=hidden_size)
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        # As an image of one row whose pixels are the tokens, channels stay last in memory: nothing is transposed and
        # the convolution takes its fast kernel, on a CPU twice as fast as in one dimension.
        image = tokens.transpose(1, 2).unsqueeze(2)
        weight, bias = self.convolution.weight.unsqueeze(2), self.convolution.bias
        padding = (0, self.convolution.kernel_size[0] // 2)
        mixed = F.conv2d(image, weight, bias, padding=padding, groups=len(weight)).squeeze(2).transpose(1, 2)
        pairs = mixed.shape[1] // 2
        # `amax` rather than max-pooling, whose backward pass is not deterministic on a GPU. ReLU and maximum commute,
        # and after the maximum ReLU has half the work.
        return self.norm(mixed)[:, : 2 * pairs].unflatten(1, (pairs, 2)).amax(dim=2).relu()


def _sequence_encoder(kind: Kind, hidden_size: int, num_layers: int, num_heads: int, dropout: float) -> nn.Module:
    if kind == "transformer":
        layer = nn.TransformerEncoderLayer(
            hidden_size, num_heads, dim_feedforward=hidden_size, dropout=dropout, batch_first=True
        )
        return nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
    recurrent = nn.LSTM if kind == "lstm" else nn.GRU
    return recurrent(hidden_size, hidden_size // 2, num_layers, batch_first=True, bidirectional=True)


def _projectors(hidden_size: int, granularity: int, projection_size: int) -> nn.ModuleDict:
    # How many levels each space is projected from; clip and part project every level by itself, with shared weights.
    levels = {"clip": 1, "part": 1, "temporal": granularity, "spatial": granularity, "instance": 2 * granularity}
    return nn.ModuleDict(
        {
            name: nn.Sequential(
                nn.Linear(count * hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, projection_size)
            )
            for name, count in levels.items()
        }
    )


def _check_kind(kind: str, *, hidden_size: int, num_heads: int, kernel_size: int, dropout: float) -> None:
    if kind not in KINDS:
        raise UsageError(f"unknown kind of encoder '{kind}': it is one of {', '.join(KINDS)}")
    check_sizes(hidden_size=hidden_size, num_heads=num_heads, kernel_size=kernel_size)
    if kernel_size % 2 == 0:
        raise UsageError(f"kernel_size must be odd, so that the number of tokens stays; found {kernel_size}")
    if kind == "transformer" and hidden_size % num_heads:
        raise UsageError(f"hidden_size {hidden_size} is not a multiple of num_heads {num_heads}")
    if kind != "transformer" and hidden_size % 2:
        raise UsageError(f"hidden_size must be even, half for each direction of the {kind}; found {hidden_size}")
    check_dropout(dropout)


def _check_tokens(name: str, tokens: int, granularity: int) -> None:
    if tokens < 2 ** (granularity - 1):
        raise UsageError(
            f"{name} = {tokens} is too short for granularity {granularity}, which halves it {granularity - 1} times: "
            f"at least {2 ** (granularity - 1)} is needed, or a smaller granularity"
        )
