"""A body of the 25-joint Kinect v2 model and its forward kinematics: channels over time in, joint positions out.

The performer's own frame has x to the right, y up and -z forward, which is also what a Kinect in front of a facing
performer reports; lengths are metres. Every channel is an angle in degrees or a length relative to the body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ARM = ("azimuth", "elevation", "reach", "flare")
_FOOT = ("foot_out", "foot_up", "foot_forward")
_TURN = ("yaw", "pitch", "roll")
CHANNELS: tuple[str, ...] = (
    *(f"{side}_{part}" for side in ("main", "other") for part in (*_ARM, *_FOOT)),
    *("root_side", "root_up", "root_forward"),
    *(f"{part}_{turn}" for part in ("hips", "chest", "head") for turn in _TURN),
    "heading",
)
"""What moves a body. `main` is the side of the preferred hand, `other` the opposite one.

* azimuth (0 forward, 90 outward, negative across the chest) and elevation (-90 down, 90 up, below -90 behind the back):
  direction from shoulder to wrist in the chest's frame; reach: their distance as a share of the arm; flare: how far
  outward the elbow points.
* foot_out, foot_up, foot_forward: the ankle's place relative to standing; root_side, root_up, root_forward: that of the
  pelvis; all in leg lengths. A foot stays where it is when the pelvis moves: the knee bends.
* yaw (positive towards the other side), pitch (positive forward), roll of hips, chest against hips, head against chest.
* heading: turn of the whole body about the vertical.
"""
INDEX = {name: i for i, name in enumerate(CHANNELS)}
_LATERAL = [INDEX[name] for name in CHANNELS if name == "root_side" or name.endswith(("_yaw", "_roll"))]

# metres, for a body of size 1
UPPER_ARM, FOREARM, HAND, TIP, THUMB = 0.27, 0.24, 0.075, 0.075, 0.055
THIGH, SHANK, FOOT, ANKLE_HEIGHT = 0.40, 0.38, 0.13, 0.08
LOWER_SPINE, UPPER_SPINE, NECK, HEAD = 0.28, 0.22, 0.08, 0.13
SHOULDER_WIDTH, SHOULDER_DROP, HIP_WIDTH, HIP_DROP = 0.165, 0.05, 0.085, 0.04
_STANDING = 0.985  # hip height over ankle in leg lengths: knees not quite locked
_SIDES = np.array([-1.0, 1.0])  # x of the left and the right side


@dataclass(frozen=True)
class Body:
    """Size and proportions of a performer; a body of size 1 is 1.7 m tall.

    Attributes:
        size: Overall scale of all bones.
        trunk: Further scale of spine, neck and head.
        arms: Further scale of the arms.
        legs: Further scale of the legs.
        width: Further scale of shoulders and hips.
    """

    size: float = 1.0
    trunk: float = 1.0
    arms: float = 1.0
    legs: float = 1.0
    width: float = 1.0

    @property
    def arm(self) -> float:
        """Length from shoulder to wrist, metres."""
        return (UPPER_ARM + FOREARM) * self.size * self.arms

    @property
    def leg(self) -> float:
        """Length from hip to ankle, metres."""
        return (THIGH + SHANK) * self.size * self.legs

    @property
    def hip_height(self) -> float:
        """Height of the spine's base above the floor when standing, metres."""
        return self.leg * _STANDING + (ANKLE_HEIGHT * self.legs + HIP_DROP * self.width) * self.size

    @property
    def shoulder_height(self) -> float:
        """Height of the shoulders above the floor when standing upright, metres."""
        return self.hip_height + (LOWER_SPINE + UPPER_SPINE - SHOULDER_DROP) * self.size * self.trunk


def pose(body: Body, track: Array, *, right_handed: bool = True) -> Array:
    """Forward kinematics: place all joints, from the floor below the pelvis outwards.

    Angles rotate the spine and the head; each arm and leg is a two-bone chain whose end is where its channels say, so
    that planted feet do not slide and hands meet. Bone lengths are exact whatever the channels are.

    Args:
        body: Size and proportions.
        track: Channels over time, ``(T, len(CHANNELS))``.
        right_handed: Whether the main side is the right one.

    Returns:
        Joints ``(T, 25, 3)``, metres, floor at y = 0, in the order of layout ``kinect-v2``.
    """
    track = track.copy()
    if not right_handed:
        track[:, _LATERAL] *= -1.0
    joints = np.empty((len(track), 25, 3))
    hips = _turned(track, "hips")
    turn = _columns(track, "chest", _TURN)
    trunk = body.size * body.trunk

    base = _columns(track, "root", ("side", "up", "forward")) * body.leg * np.array([1.0, 1.0, -1.0])
    base[:, 1] += body.hip_height
    middle = base + (hips @ rotation(0.5 * turn))[:, :, 1] * (LOWER_SPINE * trunk)
    chest = hips @ rotation(turn)
    top = middle + chest[:, :, 1] * (UPPER_SPINE * trunk)
    neck = top + chest @ np.array([0.0, NECK * trunk, -0.01 * trunk])
    head = neck + chest @ _turned(track, "head") @ np.array([0.0, HEAD * trunk, -0.03 * trunk])
    for joint, place in zip((0, 1, 20, 2, 3), (base, middle, top, neck, head), strict=True):
        joints[:, joint] = place

    order = ("other", "main") if right_handed else ("main", "other")  # left, right
    arms = _arms(body, np.stack([_columns(track, side, _ARM) for side in order], axis=1))
    arms = top[:, None, None] + arms @ chest.transpose(0, 2, 1)[:, None]
    joints[:, (4, 5, 6, 7, 21, 22)] = arms[:, 0]
    joints[:, (8, 9, 10, 11, 23, 24)] = arms[:, 1]
    width, drop = HIP_WIDTH * body.size * body.width, HIP_DROP * body.size * body.width
    sockets = np.stack([_SIDES * width, np.full(2, -drop), np.zeros(2)], axis=-1)
    legs = _legs(
        body, base[:, None] + sockets @ hips.transpose(0, 2, 1), np.stack([_columns(track, s, _FOOT) for s in order], 1)
    )
    joints[:, 12:16] = legs[:, 0]
    joints[:, 16:20] = legs[:, 1]
    return turned_about_vertical(joints, np.radians(track[:, INDEX["heading"]]))


def rotation(turn: Array) -> Array:
    """Rotation matrices ``(T, 3, 3)`` from yaw, pitch, roll ``(T, 3)`` in radians: roll first, then pitch, then yaw.

    Positive yaw turns to the left, positive pitch bends forward, positive roll tilts to the left.
    """
    (cy, cp, cr), (sy, sp, sr) = np.cos(turn).T, np.sin(-turn).T
    sy, sr = -sy, -sr
    matrix = np.empty((len(turn), 3, 3))
    matrix[:, 0] = np.stack([cy * cr + sy * sp * sr, sy * sp * cr - cy * sr, sy * cp], axis=-1)
    matrix[:, 1] = np.stack([cp * sr, cp * cr, -sp], axis=-1)
    matrix[:, 2] = np.stack([cy * sp * sr - sy * cr, sy * sr + cy * sp * cr, cy * cp], axis=-1)
    return matrix


def turned_about_vertical(points: Array, angle: Array | float) -> Array:
    """Turn points ``(T, V, 3)`` to the left about the y axis by `angle`, a number or ``(T,)``, radians."""
    cos, sin = np.atleast_1d(np.cos(angle))[:, None], np.atleast_1d(np.sin(angle))[:, None]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], axis=-1)


def _columns(track: Array, prefix: str, parts: tuple[str, ...]) -> Array:
    start = INDEX[f"{prefix}_{parts[0]}"]
    values = track[:, start : start + len(parts)]
    return np.radians(values) if parts is _TURN else values


def _turned(track: Array, part: str) -> Array:
    return rotation(_columns(track, part, _TURN))


def _two_bones(way: Array, distance: Array, upper: float, lower: float, pole: Array) -> tuple[Array, Array, Array]:
    """Middle and end of a chain ``(T, 2, 3)`` that ends at `distance` along `way` and bends towards `pole`."""
    along = (upper**2 - lower**2 + distance**2) / (2.0 * distance)
    across = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    aside = _unit(pole - (pole * way).sum(-1, keepdims=True) * way)
    return way * along[..., None] + aside * across[..., None], way * distance[..., None], aside


def _arms(body: Body, arm: Array) -> Array:
    """Shoulder, elbow, wrist, hand, tip, thumb of both arms ``(T, 2, 6, 3)`` in the chest's frame."""
    scale = body.size * body.arms
    azimuth, elevation = np.radians(arm[..., 0]), np.radians(arm[..., 1])
    flat = np.cos(elevation)
    way = np.stack([_SIDES * flat * np.sin(azimuth), np.sin(elevation), -flat * np.cos(azimuth)], axis=-1)
    pole = np.empty_like(way)
    pole[..., 0], pole[..., 1:] = _SIDES * arm[..., 3], (-0.6, 0.5)
    distance = np.clip(arm[..., 2], 0.3, 0.995) * body.arm
    elbow, wrist, aside = _two_bones(way, distance, UPPER_ARM * scale, FOREARM * scale, pole)
    along = (wrist - elbow) / (FOREARM * scale)
    palm = _SIDES[:, None] * _unit(np.cross(aside, way))
    hand = wrist + along * (HAND * scale)
    tip = hand + along * (TIP * scale)
    thumb = hand + (0.6 * along + 0.8 * _unit(palm - (palm * along).sum(-1, keepdims=True) * along)) * (THUMB * scale)
    width, drop = SHOULDER_WIDTH * body.size * body.width, SHOULDER_DROP * body.size * body.trunk
    shoulder = np.stack([_SIDES * width, np.full(2, -drop), np.zeros(2)], axis=-1)
    chain = np.stack([np.zeros_like(elbow), elbow, wrist, hand, tip, thumb], axis=2)
    return chain + shoulder[:, None]


def _legs(body: Body, hip: Array, foot: Array) -> Array:
    """Hip, knee, ankle, foot of both legs ``(T, 2, 4, 3)`` from hips and foot channels ``(T, 2, 3)``."""
    scale = body.size * body.legs
    ankle = foot * body.leg * np.stack([_SIDES, np.ones(2), -np.ones(2)], axis=-1)
    ankle += np.stack([_SIDES * HIP_WIDTH * body.size * body.width, np.full(2, ANKLE_HEIGHT * scale), np.zeros(2)], -1)
    line = ankle - hip
    length = np.linalg.norm(line, axis=-1)
    way, distance = line / length[..., None], np.clip(length, 0.3 * body.leg, 0.995 * body.leg)
    pole = np.stack([0.15 * _SIDES, np.full(2, 0.35), -np.ones(2)], axis=-1)
    knee, ankle, _ = _two_bones(way, distance, THIGH * scale, SHANK * scale, pole)
    shank = (ankle - knee) / (SHANK * scale)
    toes = np.stack([0.2 * _SIDES, np.full(2, 0.5), -np.ones(2)], axis=-1)
    lifted = 0.9 * _unit(toes - (toes * shank).sum(-1, keepdims=True) * shank) + 0.43 * shank
    flat = _unit(np.stack([0.2 * _SIDES, np.full(2, -0.5), -np.ones(2)], axis=-1))
    share = np.clip(foot[..., 1:2] / 0.15, 0.0, 1.0)
    toe = ankle + _unit(share * lifted + (1.0 - share) * flat) * (FOOT * scale)
    return hip[:, :, None] + np.stack([np.zeros_like(knee), knee, ankle, toe], axis=2)


def _unit(vectors: Array) -> Array:
    return vectors / np.sqrt((vectors * vectors).sum(-1, keepdims=True))
