"""Three cameras around the scene, and what their body trackers get wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.synthetic.body import Array, turned_about_vertical
from prosl_lightning.data.synthetic.motion import MIN_FRAMES

YAW = {1: 45.0, 2: 0.0, 3: -45.0}
_SIGMA = np.full(25, 0.004)
_SIGMA[[0, 1, 2, 3, 20]] = 0.002
_SIGMA[[6, 7, 10, 11, 15, 19]] = 0.008
_SIGMA[[21, 22, 23, 24]] = 0.012
_LIMBS = (
    (5, 6, 7, 21, 22),
    (9, 10, 11, 23, 24),
    (6, 7, 21, 22),
    (10, 11, 23, 24),
    (13, 14, 15),
    (17, 18, 19),
    (15,),
    (19,),
)
TRACKED, INFERRED, ABSENT = 2, 1, 0
_UNSYNCHRONISED = 15


@dataclass(frozen=True)
class Camera:
    """A camera's place: its direction from the scene, height, distance and downward tilt (degrees and metres)."""

    yaw: float
    height: float
    distance: float
    tilt: float

    @classmethod
    def draw(cls, rng: np.random.Generator, number: int) -> Camera:
        """Draw the place of camera 1, 2 or 3 of a setup."""
        height, distance = rng.uniform(0.9, 2.3), rng.uniform(2.6, 4.2)
        return cls(YAW[number] + rng.normal(0.0, 4.0), height, distance, np.degrees(np.arctan2(height - 1.0, distance)))

    def view(self, world: Array) -> Array:
        """World joints ``(T, V, 3)`` in camera space: x to the camera's left, y up, z away, metres."""
        points = turned_about_vertical(world, np.radians(self.yaw))
        y, z = points[..., 1] - self.height, points[..., 2] + self.distance
        cos, sin = np.cos(np.radians(self.tilt)), np.sin(np.radians(self.tilt))
        return np.stack([points[..., 0], cos * y + sin * z, cos * z - sin * y], axis=-1)

    def track(self, rng: np.random.Generator, points: Array) -> tuple[Array, NDArray[np.int8]]:
        """What a body tracker reports of true joints in camera space.

        White noise grows towards the ends of the limbs and with distance; joints behind the trunk are guessed, with an
        error that wanders; now and then a limb's end is somewhere else for a few frames.

        Args:
            rng: Source of the noise.
            points: True joints ``(T, V, 3)``, metres.

        Returns:
            Reported joints ``(T, V, 3)`` and tracking states ``(T, V)``, 2 = seen, 1 = inferred.
        """
        frames = len(points)
        tilt, offset = np.radians(self.tilt), points - points[:, 1:2]
        behind = np.sin(tilt) * offset[..., 1] + np.cos(tilt) * offset[..., 2]  # level distance, whatever the tilt
        hidden = 1.0 / (1.0 + np.exp(-np.clip((behind - 0.16) / 0.04, -30.0, 30.0)))
        far = (points[:, 1, 2] / 3.0)[:, None] ** 2
        noise = rng.standard_normal(points.shape, dtype=np.float32) * (_SIGMA * far * (1.0 + 2.0 * hidden))[..., None]
        knots = rng.standard_normal((frames // 8 + 2, *points.shape[1:]), dtype=np.float32)
        place = np.arange(frames) / 8.0
        left = place.astype(np.int64)
        part = (place - left)[:, None, None]
        wander = knots[left] * (1.0 - part) + knots[left + 1] * part
        reported = points + noise + wander * (2.0 * _SIGMA + 0.05 * hidden)[..., None]
        for _ in range(rng.poisson(frames / 70.0)):
            limb = list(_LIMBS[rng.integers(len(_LIMBS))])
            first = int(rng.integers(frames))
            reported[first : first + int(rng.integers(2, 9)), limb] += rng.normal(0.0, 0.12, 3)
        return reported, np.where(hidden > 0.5, INFERRED, TRACKED).astype(np.int8)


def recorded(rng: np.random.Generator, frames: int) -> slice:
    """Which frames of a motion a camera records: the three start and stop up to half a second apart."""
    spare = min(_UNSYNCHRONISED, (frames - MIN_FRAMES) // 2)
    first, missing = rng.integers(0, spare + 1, 2)
    return slice(int(first), frames - int(missing))


def gaps(rng: np.random.Generator, frames: int, body: int) -> NDArray[np.bool_]:
    """In which frames the tracker has a body ``(T,)``: a second one may be found late, any may be lost for a moment."""
    present = np.ones(frames, dtype=bool)
    if body and rng.random() < 0.15:
        present[: int(rng.integers(2, 13))] = False
    if rng.random() < 0.06:
        first = int(rng.integers(1, frames))
        present[first : first + int(rng.integers(1, 9))] = False
    return present
