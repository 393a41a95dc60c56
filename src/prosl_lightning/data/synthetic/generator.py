"""Enumerates recordings like NTU RGB+D's - setups, performers, repetitions, actions, three cameras - and makes each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prosl_lightning.data.synthetic.actions import ACTIONS
from prosl_lightning.data.synthetic.camera import ABSENT, Camera, gaps, recorded
from prosl_lightning.data.synthetic.motion import Performer, perform
from prosl_lightning.errors import UsageError

CLASS_NAMES: tuple[str, ...] = tuple(action.name for action in ACTIONS)
NUM_PERFORMERS = 40
NUM_CAMERAS = 3
PROTOCOLS: dict[str, dict[str, Any]] = {
    "x-sub": {"column": "subject", "train": [p for p in range(1, NUM_PERFORMERS + 1) if p % 4]},
    "x-view": {"column": "camera", "train": [2, 3], "test": [1]},
}
"""The splits: by performer (three quarters train) and by camera, as rules over the columns of the archive."""
_PERSON, _SETUP, _ORDER, _MOTION, _SENSOR = range(5)  # what a stream of random numbers is for


class SyntheticClip(NamedTuple):
    """One recording as one camera's body tracker reports it.

    Attributes:
        name: ``SsssCcccPpppRrrrAaaa`` as in NTU RGB+D, all numbers from 1.
        joints: Camera space, ``(T, V, M, 3)`` = frame, joint, person, coordinate, float32, metres; x to the camera's
            left, y up, z away from it; zeros where a person is absent.
        present: Which persons are reported in which frame, ``(T, M)``.
        tracking: Tracking states ``(T, V, M)``: 2 seen, 1 inferred, 0 absent.
        label: Class, from 0, into :data:`CLASS_NAMES`.
        subject: Performer, from 1.
        camera: 1, 2 or 3.
        setup: Heights and distances of the cameras, from 1.
        replication: 1 or 2.
    """

    name: str
    joints: NDArray[np.float32]
    present: NDArray[np.bool_]
    tracking: NDArray[np.int8]
    label: int
    subject: int
    camera: int
    setup: int
    replication: int

    def listed(self) -> NDArray[np.float32]:
        """The persons as a raw file lists them, ``(T, M, V, 3)``: in each frame those who are there come first."""
        order = np.argsort(~self.present, axis=1, kind="stable")[:, :, None, None]
        return np.take_along_axis(self.joints.transpose(0, 2, 1, 3), order, axis=1)


def generate(num_samples: int, *, seed: int = 0, noise: bool = True) -> Iterator[SyntheticClip]:
    """Make labelled skeleton sequences; equal arguments give equal sequences, and more samples only append.

    Classes and performers are balanced; every recording is seen by three cameras, one after another.

    Args:
        num_samples: How many sequences.
        seed: Which world: people, motions, cameras, noise.
        noise: Whether cameras start at different moments and their body trackers err: noise, guessed joints, lost
            persons. Without it the three views of a recording differ by nothing but a rigid motion.

    Yields:
        The sequences, 20 to 300 frames at 30 frames/s, with one or two persons.

    Raises:
        UsageError: `num_samples` is negative or `seed` is.

    Example:
        >>> clips = list(generate(6, seed=1))
        >>> clips[0].joints.shape[1:], CLASS_NAMES[clips[3].label], clips[5].name[4:8]
        ((25, 1, 3), 'drink', 'C003')
    """
    if num_samples < 0 or seed < 0:
        raise UsageError(f"num_samples is {num_samples} and seed {seed}; neither may be negative")
    for recording in range(-(-num_samples // NUM_CAMERAS)):
        yield from _record(recording, min(NUM_CAMERAS, num_samples - recording * NUM_CAMERAS), seed, noise)


def performer(number: int, *, seed: int = 0) -> Performer:
    """The person with this number in the world of `seed`."""
    return _performer(seed, number)


@lru_cache(maxsize=4 * NUM_PERFORMERS)
def _performer(seed: int, number: int) -> Performer:
    return Performer.draw(_rng(seed, _PERSON, number))


@lru_cache(maxsize=256)
def _camera(seed: int, setup: int, number: int) -> Camera:
    return Camera.draw(_rng(seed, _SETUP, setup, number), number)


@lru_cache(maxsize=256)
def _order(seed: int, label: int) -> NDArray[np.int64]:
    """The performers in the order in which they do an action: of every four, three train and one tests in `x-sub`."""
    numbers = np.arange(1, NUM_PERFORMERS + 1)
    train = np.isin(numbers, PROTOCOLS["x-sub"]["train"])
    rng = _rng(seed, _ORDER, label)
    tests = rng.permutation(numbers[~train])
    return np.concatenate([rng.permutation(numbers[train]).reshape(len(tests), -1), tests[:, None]], axis=1).ravel()


def _partner(seed: int, label: int, place: int) -> int:
    """Who does an action together with the performer at `place`: one from the same side of the split by performer."""
    order, train = _order(seed, label), PROTOCOLS["x-sub"]["train"]
    others = order[np.isin(order, train) == (order[place] in train)]
    return int(others[np.flatnonzero(others == order[place])[0] - 1])


def _record(recording: int, cameras: int, seed: int, noise: bool) -> Iterator[SyntheticClip]:
    turn, label = divmod(recording, len(ACTIONS))
    again, place = divmod(turn, NUM_PERFORMERS)
    setup, replication = again // 2 + 1, again % 2 + 1
    subject = int(_order(seed, label)[place])
    action = ACTIONS[label]
    key = (setup, subject, replication, label)
    cast = [_performer(seed, who) for who in (subject, _partner(seed, label, place))[: action.people]]
    people = perform(_rng(seed, _MOTION, *key), action, cast)
    for camera in range(1, cameras + 1):
        rng = _rng(seed, _SENSOR, *key, camera) if noise else None
        joints, present, tracking = _sense(rng, _camera(seed, setup, camera), people)
        name = f"S{setup:03}C{camera:03}P{subject:03}R{replication:03}A{label + 1:03}"
        yield SyntheticClip(name, joints, present, tracking, label, subject, camera, setup, replication)


def _sense(
    rng: np.random.Generator | None, camera: Camera, world: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int8]]:
    """What a camera's tracker reports of the people; the truth where there is no source of errors."""
    shutter = slice(None) if rng is None else recorded(rng, len(world[0]))
    views = [camera.view(joints[shutter]) for joints in world]
    frames, people = len(views[0]), len(views)
    joints = np.stack(views, axis=2).astype(np.float32)
    present = np.ones((frames, people), dtype=bool)
    tracking = np.full(joints.shape[:3], 2, dtype=np.int8)
    if rng is None:
        return joints, present, tracking
    for body, view in enumerate(views):
        joints[:, :, body], tracking[:, :, body] = camera.track(rng, view)
        present[:, body] = gaps(rng, frames, body)
    joints *= present[:, None, :, None]
    tracking[np.broadcast_to(~present[:, None], tracking.shape)] = ABSENT
    return joints, present, tracking


def _rng(*parts: int) -> np.random.Generator:
    return np.random.default_rng(parts)
