"""Responsibility-sensitive safety (RSS): how far apart two vehicles must be.

The idea: for the response time everybody may do the worst that is reasonable, then those who must brake do, at least so
hard, while those ahead may brake harder. A distance is safe if that ends without contact; a pair is dangerous where
neither the distance along the road nor the one across it is safe.

Three sets of numbers circulate under the name of RSS, so results always name theirs: `AD_RSS` and `R157`.

Sources: Shalev-Shwartz, Shammah and Shashua, On a formal model of safe and scalable self-driving cars (2017),
definitions 1, 2 and 6; ad-rss-lib 5.0, module `structured`, whose distances these are. Where two drive apart sideways
the paper cuts the distance off at 0 before it adds the margin, ad-rss-lib and this module after.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RSSParameters:
    """A set of RSS's numbers.

    Attributes:
        name: as results name it.
        response_time: of the ego [s].
        response_time_other: of everybody else [s].
        acceleration: the most that a vehicle may accelerate while it responds [m/s2].
        brake_min: the least that who has to brake does brake [m/s2].
        brake_max: the most that a vehicle ahead may brake [m/s2].
        brake_min_correct: the least that who is on its own lane brakes for somebody who comes towards it [m/s2].
        lateral_acceleration: the most that the ego may accelerate sideways while it responds [m/s2].
        lateral_acceleration_other: the same of everybody else [m/s2].
        lateral_brake_min: the least that sideways movement is braked [m/s2].
        lateral_margin: what a vehicle may sway in its lane [m].
        margin: distance along that is left in the end [m].
        source: of the numbers.
    """

    name: str
    response_time: float
    response_time_other: float
    acceleration: float
    brake_min: float
    brake_max: float
    brake_min_correct: float
    lateral_acceleration: float
    lateral_acceleration_other: float
    lateral_brake_min: float
    lateral_margin: float
    margin: float
    source: str


AD_RSS = RSSParameters(
    name="ad-rss",
    response_time=1.0,
    response_time_other=2.0,
    acceleration=3.5,
    brake_min=4.0,
    brake_max=8.0,
    brake_min_correct=3.0,
    lateral_acceleration=0.2,
    lateral_acceleration_other=0.2,
    lateral_brake_min=0.8,
    lateral_margin=0.1,
    margin=0.0,
    source="ad-rss-lib, parameter discussion: suggested values",
)
# That model lets only the other vehicle move sideways: its ego keeps the middle of its lane.
R157 = RSSParameters(
    name="R157",
    response_time=0.75,
    response_time_other=0.75,
    acceleration=3.0,
    brake_min=6.0,
    brake_max=6.0,
    brake_min_correct=6.0,
    lateral_acceleration=0.0,
    lateral_acceleration_other=1.0,
    lateral_brake_min=1.0,
    lateral_margin=0.3,
    margin=0.0,
    source="RSS model among the UN R157 safety models, Joint Research Centre (2021)",
)


def stated_braking(speed: Tensor | float, response_time: float, acceleration: float, braking: float) -> Tensor:
    """How far a vehicle gets that accelerates for the response time, then brakes to a standstill [m].

    v rho + a rho^2 / 2 + (v + a rho)^2 / (2 b). One that moves backwards (v < 0) and still does after the response
    time is not followed further, as in ad-rss-lib. Shape: that of `speed`.
    """
    speed = torch.as_tensor(speed)
    reached = speed + acceleration * response_time
    responding = speed * response_time + 0.5 * acceleration * response_time**2
    return responding + reached.clamp(min=0) ** 2 / (2 * braking)


def longitudinal(
    v_rear: Tensor | float, v_front: Tensor | float, params: RSSParameters, response_time: float | None = None
) -> Tensor:
    """The least safe distance between two vehicles that drive the same way, bumper to bumper [m].

    max(0, stated braking distance of the rear one, at `brake_min`, - v_front^2 / (2 brake_max)) + margin.

    Args:
        v_rear, v_front: speeds along the lane, not negative [m/s]. Shape: (...,).
        params: the set of numbers.
        response_time: of the rear one [s]; the ego's if None.
    """
    rho = params.response_time if response_time is None else response_time
    rear = stated_braking(v_rear, rho, params.acceleration, params.brake_min)
    front = torch.as_tensor(v_front) ** 2 / (2 * params.brake_max)
    return (rear - front).clamp(min=0) + params.margin


def opposite(
    v_correct: Tensor | float, v_opposite: Tensor | float, params: RSSParameters, ego_correct: bool = True
) -> Tensor:
    """The least safe distance between two vehicles that drive towards each other, bumper to bumper [m].

    The sum of both stated braking distances, that of who is on its own lane at `brake_min_correct`, + margin.

    Args:
        v_correct: speed of who is on its own lane, not negative [m/s]. Shape: (...,).
        v_opposite: speed of who comes the wrong way, not negative [m/s]. Shape: (...,).
        params: the set of numbers.
        ego_correct: whether the ego is the one on its own lane: response times differ.
    """
    first, second = params.response_time, params.response_time_other
    if not ego_correct:
        first, second = second, first
    correct = stated_braking(v_correct, first, params.acceleration, params.brake_min_correct)
    opposite = stated_braking(v_opposite, second, params.acceleration, params.brake_min)
    return correct + opposite + params.margin


def lateral(v_ego: Tensor | float, v_other: Tensor | float, params: RSSParameters) -> Tensor:
    """The least safe distance between the ego and a vehicle beside it, side to side [m].

    Both speed up towards each other for their response times, then brake that movement: the sum of both stated braking
    distances, not below 0, with the margin in it.

    Args:
        v_ego: how fast the ego moves sideways towards the other; negative: away from it [m/s]. Shape: (...,).
        v_other: how fast the other moves sideways towards the ego; negative: away from it [m/s]. Shape: (...,).
        params: the set of numbers.
    """
    ego = stated_braking(v_ego, params.response_time, params.lateral_acceleration, params.lateral_brake_min)
    other = stated_braking(
        v_other, params.response_time_other, params.lateral_acceleration_other, params.lateral_brake_min
    )
    return (ego + other + params.lateral_margin).clamp(min=0)
