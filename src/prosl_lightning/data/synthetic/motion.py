"""From a script to a recorded motion: who performs it, how, with what posture, pauses and idle movement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prosl_lightning.data.synthetic.actions import Action, Key, Script, hand
from prosl_lightning.data.synthetic.body import CHANNELS, INDEX, Array, Body, pose, turned_about_vertical

RATE = 30.0
MIN_FRAMES, MAX_FRAMES = 20, 300


def _scale(**values: float) -> Array:
    """One number per channel, by the ends of the channels' names; 0 where none fits."""
    return np.array([next((v for end, v in values.items() if name.endswith(end)), 0.0) for name in CHANNELS])


_JITTER = _scale(azimuth=8, elevation=7, reach=0.04, flare=0.2, foot_out=0.02, foot_up=0.02, foot_forward=0.04,
                 root_up=0.02, yaw=4, pitch=4, roll=3)  # fmt: skip
_SWAY = _scale(azimuth=7, elevation=3, reach=0.02, flare=0.1, root_side=0.015, root_up=0.004, root_forward=0.015,
               head_yaw=10, yaw=4, pitch=2.5, roll=2, heading=14)  # fmt: skip
_HABIT = _scale(foot_out=0.03, foot_forward=0.04, root_side=0.02, head_pitch=5, head_yaw=5, chest_yaw=4, chest_pitch=4,
                hips_pitch=3, yaw=3, roll=2)  # fmt: skip
_SETTLING = _scale(heading=75, hips_pitch=25, hips_roll=15, chest_yaw=15)
_IDLE_ARMS = (
    hand("main", 0.26, -0.40, 0.02, 1.6),  # on the hip
    hand("main", 0.10, -0.46, 0.15, 1.0),  # folded in front
    hand("main", 0.08, -0.44, -0.15, 1.2),  # behind the back
    hand("main", 0.16, -0.30, 0.22, 0.6),  # bent
)


@dataclass(frozen=True)
class Performer:
    """A person: a body and the way it moves.

    Attributes:
        body: Size and proportions.
        tempo: Speed of all actions, 1 = as scripted.
        amplitude: How far movements go, 1 = as scripted.
        right_handed: The side that does what the script gives to the main side.
    """

    body: Body
    tempo: float = 1.0
    amplitude: float = 1.0
    right_handed: bool = True

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Performer:
        """Draw a person: size +-20 %, proportions +-8 %, tempo 0.7 to 1.4."""
        parts = rng.uniform(0.92, 1.08, 4)
        body = Body(rng.uniform(0.8, 1.2), *parts)
        return cls(body, np.exp(rng.uniform(np.log(0.7), np.log(1.4))), rng.uniform(0.8, 1.2), bool(rng.random() < 0.5))


def perform(rng: np.random.Generator, action: Action, cast: list[Performer]) -> list[Array]:
    """Let people perform an action once.

    Args:
        rng: Source of all draws.
        action: The action class.
        cast: The performer, and the partner of a two-person action.

    Returns:
        World joints ``(T, 25, 3)`` of each person, metres, floor at y = 0; 20 to 300 frames at 30 frames/s.
    """
    lead, other = cast[0], cast[-1]
    script = action.script(lead.body, other.body)
    tempo = np.clip(lead.tempo * rng.uniform(0.85, 1.15), 0.6, 1.6)
    keys, times, started = _timeline(rng, script, tempo)
    seconds = _frame_times(rng, times, started)
    facing = rng.normal(0.0, 20.0) if action.people == 1 else rng.choice([-90.0, 90.0]) + rng.normal(0.0, 20.0)
    people = []
    for role, who in enumerate(cast):
        track = _track(rng, script, [key.partner if role else key.pose for key in keys], times, seconds, lead.amplitude)
        track += _settling(rng, seconds)
        joints = pose(who.body, track, right_handed=lead.right_handed)
        if action.people == 2:
            joints = turned_about_vertical(joints, np.pi * role)
            joints[..., 2] += (0.5 - role) * script.distance
        people.append(turned_about_vertical(joints, np.radians(facing)))
    return people


def _timeline(rng: np.random.Generator, script: Script, tempo: float) -> tuple[list[Key], Array, float]:
    """The keys of the whole clip, their times in seconds, and when the action itself starts."""
    repeats = int(rng.integers(script.repeats[0], script.repeats[1] + 1))
    body = script.before + script.cycle * repeats + [Key(script.after, {})]
    idle = rng.uniform(0.0, 3.4, 2) * (rng.random(2) < 0.8)
    steps = np.array([key.seconds for key in body]) / tempo * rng.uniform(0.85, 1.18, len(body))
    times = np.cumsum(np.concatenate([[0.0, idle[0]], steps, [idle[1]]]))
    return [Key(0.0, {}), Key(0.0, {}), *body, Key(0.0, {})], times, float(idle[0])


def _frame_times(rng: np.random.Generator, times: Array, started: float) -> Array:
    """When each frame is taken: some recordings start late, some stop early, all have 20 to 300 frames."""
    first = started + rng.uniform(0.0, 0.35) if rng.random() < 0.3 else 0.0
    last = times[-1] - (rng.uniform(0.0, 0.4) if rng.random() < 0.3 else 0.0)
    count = int(np.clip(round((last - first) * RATE), MIN_FRAMES, MAX_FRAMES))
    first = max(first, min(started, last - count / RATE))  # a recording that is too long loses idle time first
    return first + np.arange(count) / RATE


def _track(
    rng: np.random.Generator,
    script: Script,
    poses: list[dict[str, float]],
    times: Array,
    seconds: Array,
    amplitude: float,
) -> Array:
    """Channels over time ``(T, len(CHANNELS))``: minimum-jerk moves between the keys, over posture and sway."""
    loose = 0.25 if script.exact else 1.0
    habit, later = _posture(rng), _posture(rng)
    manner = rng.normal(0.0, 1.0, len(CHANNELS)) * _JITTER * loose
    size = 1.0 + (amplitude * rng.uniform(0.9, 1.1) - 1.0) * loose
    active = np.zeros((len(poses), len(CHANNELS)))
    target = np.zeros_like(active)
    for k, named in enumerate(poses):
        for name, value in named.items():
            active[k, INDEX[name]], target[k, INDEX[name]] = 1.0, value
    target += rng.normal(0.0, 0.4, target.shape) * _JITTER * loose + manner
    target = active * (habit + size * (target - habit))

    key = np.clip(np.searchsorted(times, seconds, side="right") - 1, 0, len(times) - 2)
    eased = _ease((seconds - times[key]) / np.maximum(times[key + 1] - times[key], 1e-6))[:, None]
    share = active[key] + eased * (active[key + 1] - active[key])
    moved = target[key] + eased * (target[key + 1] - target[key])
    change = _ease((seconds - rng.uniform(seconds[0] - 1.0, seconds[-1] + 1.0)) / rng.uniform(0.5, 1.2))[:, None]
    track = (1.0 - share) * (habit + change * (later - habit)) + moved
    frequency, phase = rng.uniform(0.1, 0.7, len(CHANNELS)), rng.uniform(0.0, 2.0 * np.pi, len(CHANNELS))
    sway = _SWAY * rng.uniform(0.3, 2.2, len(CHANNELS)) * (0.4 if script.exact else 1.0)
    return track + sway * np.sin(2.0 * np.pi * frequency * seconds[:, None] + phase)


def _settling(rng: np.random.Generator, seconds: Array) -> Array:
    """Channels over time to add: people turn to their place and straighten up while the recording starts."""
    start = np.clip(rng.normal(0.0, 1.0, len(CHANNELS)), -2.0, 2.0) * _SETTLING
    pitch = INDEX["hips_pitch"]
    start[pitch] = max(start[pitch], -0.4 * abs(start[pitch]))  # nobody leans back as far as forward
    eased = _ease((seconds - seconds[0] - rng.uniform(0.0, 0.4)) / rng.uniform(0.6, 2.0))
    return start * (1.0 - eased[:, None])


def _posture(rng: np.random.Generator) -> Array:
    """A way of standing, as channels: where idle arms are, stance, lean."""
    posture = rng.normal(0.0, 1.0, len(CHANNELS)) * _HABIT
    for side in ("main", "other"):
        values = np.array([rng.normal(65, 20), rng.normal(-82, 3), rng.uniform(0.95, 0.99), 0.35])
        idle = int(rng.integers(4 * len(_IDLE_ARMS)))
        if idle < len(_IDLE_ARMS):
            values = np.array(list(_IDLE_ARMS[idle].values())) + rng.normal(0, 1, 4) * (8, 5, 0.03, 0.1)
        first = INDEX[f"{side}_azimuth"]
        posture[first : first + 4] = values
        posture[INDEX[f"{side}_foot_out"]] = abs(posture[INDEX[f"{side}_foot_out"]])
    return posture


def _ease(share: Array) -> Array:
    """Minimum-jerk course from 0 to 1."""
    share = np.clip(share, 0.0, 1.0)
    return share**3 * (10.0 - 15.0 * share + 6.0 * share**2)
