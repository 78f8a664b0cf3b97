"""Responsibility-Sensitive Safety: the distances from which a proper response still avoids a crash.

Shalev-Shwartz, Shammah and Shashua 2017, "On a formal model of safe and scalable self-driving cars": whoever is
surprised accelerates as hard as it may for its response time and only then brakes as it must ("stated braking"); a
distance is safe if that is still enough. Equal to `ad-rss-lib` 5, the open implementation of it by Intel, with one set
of parameters for both and with its limit on the speed left away.

With rho the response time, a the acceleration and u = v + rho a the speed after the response:

    same direction      v rho + a rho^2 / 2 + u^2 / (2 b_min) - v_front^2 / (2 b_max), not below 0
    opposite direction  v rho + a rho^2 / 2 + u^2 / (2 b_correct) + the same of the other with b_min
    lateral             the same with lateral accelerations towards each other

and a margin each; no distance is below 0. The paper cuts off the lateral one before it adds the margin, ad-rss-lib
and this module after: that matters for two that drive apart. A pair is dangerous where it is closer than its safe
distance along the road and across it.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RSSParameters:
    """How badly everybody may act, and how well each is sure to.

    Attributes:
        response_time: rho, from a danger to the response [s].
        acceleration: hardest acceleration while nothing is done yet [m/s2].
        brake_min: the braking that a response has at least [m/s2].
        brake_max: the hardest braking that one in front may surprise with [m/s2].
        brake_correct: the braking of one in its own lane when another comes towards it there [m/s2].
        lateral_acceleration: hardest acceleration towards each other while nothing is done yet [m/s2].
        lateral_brake: the lateral braking that a response has at least [m/s2].
        lateral_margin: what a lateral distance may fluctuate by without a meaning [m].
        distance_margin: least distance along the road [m].
    """

    response_time: float
    acceleration: float
    brake_min: float
    brake_max: float
    brake_correct: float
    lateral_acceleration: float
    lateral_brake: float
    lateral_margin: float
    distance_margin: float


# What the documentation of ad-rss-lib suggests for the ego.
AD_RSS = RSSParameters(1.0, 3.5, 4.0, 8.0, 3.0, 0.2, 0.8, 0.1, 0.0)
# What the models in the discussion of UN Regulation 157 were run with (Joint Research Centre of the EU).
R157 = RSSParameters(0.75, 3.0, 6.0, 6.0, 6.0, 1.0, 1.0, 0.3, 0.0)


def stated_braking(speed: Tensor, p: RSSParameters, brake: float) -> Tensor:
    """The way of a vehicle that accelerates for the response time and then brakes to a stop [m].

    Args:
        speed: at least 0 [m/s].
        p: parameters.
        brake: the braking after the response [m/s2].
    """
    rho, a = p.response_time, p.acceleration
    return speed * rho + 0.5 * a * rho**2 + (speed + rho * a) ** 2 / (2 * brake)


def longitudinal(rear_speed: Tensor, front_speed: Tensor, p: RSSParameters) -> Tensor:
    """The safe distance between bumpers of two in one direction [m].

    Args:
        rear_speed, front_speed: along the road; driving backwards counts as standing [m/s].
        p: parameters of both.
    """
    rear, front = rear_speed.clamp(min=0), front_speed.clamp(min=0)
    way = stated_braking(rear, p, p.brake_min) - front**2 / (2 * p.brake_max)
    return way.clamp(min=0) + p.distance_margin


def opposite(speed: Tensor, other_speed: Tensor, p: RSSParameters) -> Tensor:
    """The safe distance between bumpers of two that drive towards each other [m].

    Args:
        speed: of the one in its own lane, towards the other [m/s].
        other_speed: of the one in the wrong lane, towards the first [m/s].
        p: parameters of both.
    """
    own = stated_braking(speed.clamp(min=0), p, p.brake_correct)
    return own + stated_braking(other_speed.clamp(min=0), p, p.brake_min) + p.distance_margin


def lateral_way(speed: Tensor, p: RSSParameters) -> Tensor:
    """How far one gets towards the other side that accelerates there for the response time and then stops [m].

    Args:
        speed: towards that side, negative away from it [m/s].
        p: parameters.
    """
    rho, a = p.response_time, p.lateral_acceleration
    after = speed + rho * a
    return speed * rho + 0.5 * a * rho**2 + after * after.clamp(min=0) / (2 * p.lateral_brake)


def lateral(left_speed_right_positive: Tensor, right_speed: Tensor, p: RSSParameters) -> Tensor:
    """The safe distance between the sides of two beside each other [m].

    Args:
        left_speed_right_positive: lateral speed of the one on the left, to the right [m/s].
        right_speed: lateral speed of the one on the right, to the right [m/s].
        p: parameters of both.
    """
    way = lateral_way(left_speed_right_positive, p) + lateral_way(-right_speed, p)
    return (way + p.lateral_margin).clamp(min=0)
