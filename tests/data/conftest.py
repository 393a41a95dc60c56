"""Raw text made up for the tests of the readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest


def _text(frames: Sequence[Sequence[np.ndarray]], newline: str = "\n") -> bytes:
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for number, joints in enumerate(bodies):
            lines += [f"7205759403793110{number} 0 1 1 1 1 0 0.02 -0.05 2", str(len(joints))]
            lines += [f"{x} {y} {z} 277.4 191.8 1036.2 519.1 -0.2 0.05 0.97 -0.12 2" for x, y, z in joints]
    return (newline.join(lines) + newline).encode()


@pytest.fixture(scope="session")
def skeleton_text() -> Callable[..., bytes]:
    """Write frames (lists of bodies (25, 3)) as the bytes of a `.skeleton` file."""
    return _text


@pytest.fixture(scope="session")
def walker() -> Callable[..., list[list[np.ndarray]]]:
    """Frames of one or more moving bodies with coordinates of seven decimals, as the sensor writes them."""

    def make(num_frames: int = 12, bodies: int = 1, seed: int = 0) -> list[list[np.ndarray]]:
        draw = np.random.default_rng(seed)
        rest = draw.normal(size=(bodies, 25, 3)) + np.array([0, 0, 3])
        motion = draw.normal(size=(num_frames, bodies, 25, 3)).cumsum(axis=0) * 0.03
        return [list(frame) for frame in np.round(rest + motion, 7)]

    return make


@pytest.fixture(scope="session")
def cut_clip() -> Callable[..., str]:
    """Write frames (T, 2, 25, 3) as a clip's text in AimCLR's layout: the second body without header lines."""

    def write(frames: np.ndarray, announced: int | None = None) -> str:
        lines = [str(announced or len(frames))]
        for frame in frames:
            bodies = [body for body in frame if body.any()]
            lines += [str(len(bodies)), "6 1 0 0 1 1 0 -0.437266 -0.117168 2", "25"]
            lines += [f"{x} {y} {z}" for body in bodies for x, y, z in body]
        return "\n".join(lines) + "\n"

    return write
