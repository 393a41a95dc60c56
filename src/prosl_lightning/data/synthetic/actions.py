"""The action classes, each as a short script of key poses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from prosl_lightning.data.synthetic.body import FOREARM, SHOULDER_DROP, SHOULDER_WIDTH, UPPER_ARM, Body

Pose = dict[str, float]


class Key(NamedTuple):
    """A pose to reach: channels by name; a channel that is not named goes back to the performer's posture.

    Attributes:
        seconds: Time from the key before, at tempo 1.
        pose: The performer's channels.
        partner: The other person's channels, in a two-person action.
    """

    seconds: float
    pose: Pose
    partner: Pose = {}  # noqa: RUF012  never changed


@dataclass(frozen=True)
class Script:
    """What happens in one action: the keys before, the keys repeated `repeats` times, then back to the posture.

    Attributes:
        before: Keys played once, at the start.
        cycle: Keys of one repetition.
        repeats: Least and greatest number of repetitions.
        after: Seconds back to the posture at the end.
        exact: Whether hands or bodies meet, so that amplitude and pose vary little.
        distance: From performer to partner, metres; 0 for one person.
    """

    before: list[Key]
    cycle: list[Key]
    repeats: tuple[int, int] = (1, 1)
    after: float = 0.6
    exact: bool = False
    distance: float = 0.0


@dataclass(frozen=True)
class Action:
    """An action class: its name, and its script for given bodies.

    Attributes:
        name: The class name.
        people: Number of persons, 1 or 2.
        script: From performer's and partner's body to the keys.
    """

    name: str
    people: int
    script: Callable[[Body, Body], Script] = field(repr=False)


def arm(side: str, azimuth: float, elevation: float, reach: float, flare: float = 0.6) -> Pose:
    """Direction and share of the reach of an arm: `main`, `other` or `both`; see :data:`CHANNELS`."""
    values = {"azimuth": azimuth, "elevation": elevation, "reach": reach, "flare": flare}
    sides = ("main", "other") if side == "both" else (side,)
    return {f"{one}_{channel}": value for one in sides for channel, value in values.items()}


def hand(side: str, out: float, up: float, forward: float, flare: float = 0.6) -> Pose:
    """Put a wrist at a point: metres outward, above and in front of the spine's upper end, for a body of size 1."""
    x, y = out - SHOULDER_WIDTH, up + SHOULDER_DROP
    flat = math.hypot(x, forward)
    azimuth, elevation = math.degrees(math.atan2(x, forward)), math.degrees(math.atan2(y, flat))
    return arm(side, azimuth, elevation, math.hypot(flat, y) / (UPPER_ARM + FOREARM), flare)


def _wave(body: Body, partner: Body) -> Script:
    outer, inner = hand("main", 0.44, 0.20, 0.12, 0.9), hand("main", 0.10, 0.24, 0.20, 0.9)
    return Script([Key(0.7, outer)], [Key(0.28, inner), Key(0.28, outer)], (2, 5))


def _drink(body: Body, partner: Body) -> Script:
    mouth = hand("main", 0.10, 0.04, 0.20, 0.8)
    tilted = hand("main", 0.09, 0.10, 0.20, 1.4) | {"head_pitch": -22.0}
    return Script([Key(0.9, mouth)], [Key(0.4, tilted), Key(0.7, tilted), Key(0.4, mouth)], (1, 2), 0.8, exact=True)


def _throw(body: Body, partner: Body) -> Script:
    stance = {"other_foot_forward": 0.30, "other_foot_up": 0.0}
    wind = hand("main", 0.36, 0.20, -0.14, 1.0) | arm("other", 10, -5, 0.8)
    wind |= {"chest_yaw": -32.0, "hips_yaw": -15.0, "root_forward": 0.04} | stance
    release = arm("main", -8, 22, 0.98) | arm("other", 60, -55, 0.7)
    release |= {"chest_yaw": 22.0, "hips_yaw": 12.0, "chest_pitch": 16.0, "root_forward": 0.18} | stance
    follow = hand("main", -0.02, -0.32, 0.34) | {"chest_yaw": 32.0, "chest_pitch": 30.0, "root_forward": 0.20} | stance
    return Script([], [Key(0.65, wind), Key(0.32, release), Key(0.25, follow), Key(0.6, {})], (1, 2), 0.2)


def _clap(body: Body, partner: Body) -> Script:
    apart, together = hand("both", 0.20, -0.16, 0.27, 0.8), hand("both", 0.035, -0.16, 0.29, 0.8)
    return Script([Key(0.6, apart)], [Key(0.17, together), Key(0.19, apart)], (3, 8), exact=True)


def _raise_arms(body: Body, partner: Body) -> Script:
    level, up = arm("both", 88, -5, 0.97), arm("both", 80, 72, 0.97)
    return Script([], [Key(0.5, level), Key(0.5, up), Key(0.4, up), Key(0.5, level), Key(0.4, {})], (1, 3), 0.2)


def _cross_arms(body: Body, partner: Body) -> Script:
    lifted = hand("main", 0.05, -0.12, 0.26, 0.9) | hand("other", 0.05, -0.20, 0.22, 0.9)
    crossed = hand("main", -0.15, -0.20, 0.17, 0.9) | hand("other", -0.15, -0.25, 0.14, 0.9)
    return Script([Key(0.5, lifted), Key(0.4, crossed)], [Key(0.8, crossed)], (1, 3), 0.7, exact=True)


def _kick(body: Body, partner: Body) -> Script:
    stand = {"root_side": -0.06}
    back = stand | {"main_foot_forward": -0.30, "main_foot_up": 0.12, "chest_pitch": 8.0}
    strike = stand | {"main_foot_forward": 0.85, "main_foot_up": 0.50, "hips_pitch": -14.0, "root_forward": 0.05}
    strike |= arm("other", 5, -30, 0.8)
    return Script([Key(0.3, stand)], [Key(0.35, back), Key(0.28, strike), Key(0.45, stand)], (2, 4), 0.3)


def _march(body: Body, partner: Body) -> Script:
    swing = {"main": arm("other", 0, -38, 0.80), "other": arm("main", 0, -38, 0.80)}
    back = {"main": arm("main", 10, -114, 0.85), "other": arm("other", 10, -114, 0.85)}
    steps = []
    for leg, shift in (("main", -0.04), ("other", 0.04)):
        knee = {f"{leg}_foot_up": 0.34, f"{leg}_foot_forward": 0.16, "root_side": shift}
        steps += [Key(0.27, knee | swing[leg] | back[leg]), Key(0.23, arm("both", 10, -84, 0.95))]
    return Script([], steps, (2, 5), 0.1)


def _squat(body: Body, partner: Body) -> Script:
    low = {"root_up": -0.44, "root_forward": -0.16, "hips_pitch": 34.0, "chest_pitch": 6.0} | arm("both", 5, 5, 0.95)
    return Script([], [Key(0.8, low), Key(0.3, low), Key(0.7, {})], (1, 3), 0.1)


def _jump(body: Body, partner: Body) -> Script:
    crouch = {"root_up": -0.20, "root_forward": -0.05, "hips_pitch": 28.0} | arm("both", 12, -128, 0.92)
    lift = {
        f"{side}_foot_{way}": value for side in ("main", "other") for way, value in (("up", 0.34), ("forward", -0.12))
    }
    air = {"root_up": 0.26} | lift | arm("both", 15, 45, 0.9)
    land = {"root_up": -0.14, "root_forward": -0.04, "hips_pitch": 20.0} | arm("both", 30, -30, 0.8)
    return Script([], [Key(0.4, crouch), Key(0.34, air), Key(0.3, land), Key(0.35, {})], (1, 4), 0.1)


def _bow(body: Body, partner: Body) -> Script:
    low = {"hips_pitch": 48.0, "chest_pitch": 28.0, "head_pitch": 10.0, "root_forward": -0.12}
    return Script([], [Key(0.9, low), Key(0.5, low), Key(0.8, {})], (1, 2), 0.1)


def _twist(body: Body, partner: Body) -> Script:
    guard = hand("both", 0.16, -0.16, 0.24, 1.2)
    turned = [guard | {"chest_yaw": 45.0 * way, "hips_yaw": 14.0 * way, "head_yaw": 15.0 * way} for way in (1, -1)]
    return Script([Key(0.5, guard)], [Key(0.5, turned[0]), Key(0.7, turned[1])], (1, 4), 0.7)


def _nod(body: Body, partner: Body) -> Script:
    down, up = {"head_pitch": 42.0, "chest_pitch": 7.0}, {"head_pitch": -14.0}
    return Script([], [Key(0.32, down), Key(0.32, up)], (3, 6), 0.3)


def _push(body: Body, partner: Body) -> Script:
    own, other = body.leg, partner.leg
    distance = 0.80 * body.arm + 0.20 * own + 0.22
    drop = partner.shoulder_height - 0.10 * partner.size - body.shoulder_height
    aim = math.degrees(math.atan2(drop, 0.9 * body.arm))
    ready = hand("both", 0.17, -0.12, 0.16) | {"chest_pitch": -4.0}
    contact = arm("both", -10, aim - 8, 0.82) | {"root_forward": 0.12, "other_foot_forward": 0.3, "chest_pitch": 8.0}
    away = arm("both", -8, aim - 10, 0.96) | {"root_forward": 0.26, "other_foot_forward": 0.3, "chest_pitch": 18.0}
    back = 0.30 / other
    falling = {"root_forward": -back, "main_foot_forward": -back - 0.3, "chest_pitch": -22.0, "hips_pitch": -8.0}
    falling |= hand("both", 0.34, -0.14, 0.22)
    stepped = {"root_forward": -back, "main_foot_forward": -back, "other_foot_forward": -back}
    leave = {"root_forward": 0.1, "other_foot_forward": 0.2}
    cycle = [Key(0.28, contact), Key(0.22, away, falling), Key(0.35, away, falling), Key(0.5, leave, stepped)]
    return Script([Key(0.5, ready)], cycle, exact=True, distance=distance)


def _shake_hands(body: Body, partner: Body) -> Script:
    half = 0.62 * 0.5 * (body.arm + partner.arm) + 0.10
    height = 0.5 * (body.shoulder_height + partner.shoulder_height) - 0.26 * min(body.size, partner.size)

    def grip(who: Body, lift: float) -> Pose:
        forward = half - 0.11 * who.size
        up = height + lift - who.shoulder_height
        return hand("main", 0.03, up / who.size - SHOULDER_DROP, forward / who.size) | {"chest_pitch": 5.0}

    high, low = (Key(0.2, grip(body, lift), grip(partner, lift)) for lift in (0.07, -0.07))
    return Script([high._replace(seconds=0.8)], [low, high], (2, 5), 0.7, exact=True, distance=2.0 * half)


def _hug(body: Body, partner: Body) -> Script:
    step, open_arms = 0.30, hand("both", 0.36, -0.05, 0.30)
    first = {"root_forward": step / 2, "main_foot_forward": step, "main_foot_up": 0.04} | open_arms
    both = {"main_foot_forward": step, "other_foot_forward": step}
    second = {"root_forward": step, "chest_pitch": 6.0} | both | open_arms
    level = min(body.shoulder_height, partner.shoulder_height)

    def hold(who: Body) -> Pose:
        drop = (level - who.shoulder_height) / who.size
        arms = hand("main", 0.06, drop, 0.36, 1.3) | hand("other", 0.06, drop - 0.2, 0.36, 1.3)
        return {"root_forward": step, "chest_pitch": 9.0} | both | arms

    over, back = hold(body), hold(partner)
    distance = step * (body.leg + partner.leg) + 0.14 * (body.size + partner.size)
    before = [Key(0.45, first, first), Key(0.45, second, second), Key(0.5, over, back)]
    return Script(before, [Key(0.7, over, back)], (1, 3), 1.0, exact=True, distance=distance)


ACTIONS: tuple[Action, ...] = (
    Action("wave", 1, _wave),
    Action("drink", 1, _drink),
    Action("throw", 1, _throw),
    Action("clap", 1, _clap),
    Action("raise arms", 1, _raise_arms),
    Action("cross arms", 1, _cross_arms),
    Action("kick", 1, _kick),
    Action("march in place", 1, _march),
    Action("squat", 1, _squat),
    Action("jump", 1, _jump),
    Action("bow", 1, _bow),
    Action("twist", 1, _twist),
    Action("nod", 1, _nod),
    Action("push", 2, _push),
    Action("shake hands", 2, _shake_hands),
    Action("hug", 2, _hug),
)
