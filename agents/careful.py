"""The careful driver: who it follows, lets pass and watches, and how it changes lanes, turns left and passes."""

import torch
from torch import Tensor

from agents import lane_changes, passing, rss
from agents.gap_acceptance import PASSING_ROOM, Gaps, accepts_turn, critical_gap, passing_gap, time_over
from agents.lane_changes import Need, Plan
from agents.lane_path import SETTLED, WALKING, Path
from agents.lane_view import FAR, OWN, View, pick
from agents.passing import Obstruction
from agents.reference_base import (
    COMFORT_ACCELERATION,
    COMFORT_BRAKING,
    HARDEST_BRAKING,
    MOVES,
    SIDE_ROOM,
    SLACK,
    STAND_OFF,
    ReferenceDriver,
    free_acceleration,
    obstacles,
)
from agents.shield import EGO_LENGTH, EGO_WIDTH, Surroundings, keeping, respond
from envs.scenarios import Scenario

FIRM_BRAKING = 3.0  # m/s2, the most that is braked for distances which are merely too short
GENTLE_BRAKING = 1.8  # m/s2, for what can be foreseen
HEADWAY, JAM_GAP = 1.4, 2.5  # s, m
MERGED_HEADWAY, RELAXATION = 0.56, 25.0  # s, headway just after a change of lane, and how slowly it grows: LMRS
ASIDE = 2.0  # m, that is left to whoever crosses
STEP_OUT = 1.5  # m/s, at which a person beside the road might step out
WATCHED = 4.0  # m, of people this near to our way
PREPARED = 4.0  # m/s2, that suffices for somebody who might step out
CROSSES = 0.25  # sine of the angle between ways from which on they cross
ON_LANE = 1.0  # m from the middle of its lane, within which somebody keeps to it
NEARBY = 60.0  # m, of those on the lane beside whose speed is taken over while there is no gap
SLOWER = 0.85  # share of that speed, so that gaps come by
ADAPTS = 2.0  # s, in which a speed is taken over, and time gap of a follower whose speed is kept
HALTS = 0.3  # s, in which the speed comes to one that still allows a halt in comfort
GIVE_UP = 0.5  # share of the accepted gap below which a change that has just begun is broken off
OVER_LINE = 0.5  # m, of our box, from which on it is finished in any case
SWUNG_OUT = 0.5  # m, from which on who passes goes on in any case
LONGEST_STEP = 0.25  # s, between two decisions, above which no path across lanes can be followed


class Careful(ReferenceDriver):
    """An attentive driver: IDM behind everybody who is in the way or about to be, and harder where that is needed.

    Braking that only mends a short distance stays below `FIRM_BRAKING`. It gets harder, up to `HARDEST_BRAKING`, as
    hard as it takes not to touch whoever is braked for, if they go on as they do. It changes lanes as
    `agents.lane_changes` has it, passes what stands in its lane as `agents.passing` has it, and turns left through gaps
    that `agents.gap_acceptance` accepts.
    """

    name = "careful"
    gaps = Gaps(ahead=critical_gap, behind=critical_gap, oncoming=passing_gap, aside=PASSING_ROOM)

    def __init__(self, scenario: Scenario, device: torch.device | str = "cpu"):
        super().__init__(scenario, device)
        self._path: Path | None = None

    def reset(self, done: Tensor | None = None) -> None:
        """Forget changes of lane."""
        if done is None:
            self._path = None
        elif self._path is not None:
            self._path = Path.straight(self._path.age).where(done, self._path)

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Throttle and steering. Shape: (N, 2) float32.

        Raises:
            UserError: the worlds do not say what is around.
        """
        view = View.of(obs)
        if self._path is None:
            self._path = Path.straight(view.speed)
        need, row = lane_changes.needs(view), self._path.lane(view, self.step)
        plan = lane_changes.plan(view, need, torch.maximum(view.lanes.limit[:, OWN], view.speed), self.gaps)
        blocked = passing.obstruction(view, self.gaps.aside)
        passes = passing.may_pass(view, blocked) & ~need.needed
        swing, free_way = passing.plan(view, blocked, self.gaps.oncoming)
        if self.step <= LONGEST_STEP:
            row = self._change(view, need, plan, row)
            self._pass(view, blocked, passes & swing.now, free_way)
        self._path = self._path.advance(view, row, self.step)

        waits = (need.needed | passes) & ~self._path.active
        plan = Plan(*(torch.where(passes, one, other) for one, other in zip(swing, plan, strict=True)))
        free = torch.where(waits, self._seeking(view, need, plan, row), self._free(view, row))
        wanted = torch.minimum(free, self._others(view, row, waits))
        wanted = torch.minimum(wanted, self._in_time(view, row))
        wanted = torch.where(waits, torch.minimum(wanted, self._halting(view)), wanted)
        return torch.stack([self.throttle(self._limited(view, wanted), view.speed), self._steering(view, row)], 1)

    def _limited(self, view: View, wanted: Tensor) -> Tensor:
        """The acceleration that is left of what is wanted [m/s2]. Shape: (N,)."""
        return wanted.clamp(min=-HARDEST_BRAKING)

    def _allowed(self, view: View) -> Tensor:
        """Whether nothing but gaps could forbid to move to the left and to the right now. Shape: (N, 2) bool."""
        return torch.ones((len(view.speed), 2), dtype=torch.bool, device=view.speed.device)

    # --- across the road ----------------------------------------------------------------------------------------------

    def _change(self, view: View, need: Need, plan: Plan, row: Tensor) -> Tensor:
        """Begin and break off changes of lane; returns the lane to which the path leads now, (N,) int64."""
        path, side, own = self._path, need.side, torch.zeros_like(need.side)
        begun = path.active & (row != OWN)
        ready, allowed = ~begun & (view.ego[:, 6] <= 0), self._allowed(view)

        needed = need.needed & plan.now & ready & self._gets_past(view, side) & pick(allowed, side - 1)
        needed &= pick(view.lanes.opens, side) <= 0
        wish, better = lane_changes.wants(view, free_acceleration(view.ego), self._law)
        rested = ready & ~path.active & ~need.needed & (path.age > lane_changes.RESTS)
        wanted = rested & wish & lane_changes.gaps_accepted(view, better, self.gaps) & self._gets_past(view, better)
        wanted &= pick(allowed, better - 1)
        begin, aim = needed | wanted, torch.where(needed, side, better)

        # Back, while nobody there has been cut off yet.
        offset = pick(view.lanes.offset, row)
        over = offset.abs() < (offset - view.lanes.offset[:, OWN]).abs() / 2 + EGO_WIDTH / 2 - OVER_LINE
        time_gap = need.time_gap[:, None]
        lost = begun & ~over & ~lane_changes.gaps_accepted(view, row.clamp(min=1), self.gaps, time_gap, GIVE_UP)
        none = torch.zeros_like(view.speed)
        self._path = path.towards(view, aim, none, begin).towards(view, own, none, lost)
        return torch.where(lost, own, torch.where(begin, aim, row))

    def _pass(self, view: View, blocked: Obstruction, accepted: Tensor, free_way: Tensor) -> None:
        """Begin, end and break off the way past what stands in our lane."""
        path, own = self._path, torch.zeros_like(accepted, dtype=torch.int64)
        out = path.shift < 0
        begin = accepted & ~path.active & (view.ego[:, 6] <= 0) & self._allowed(view)[:, 0]
        wider = out & blocked.there & (blocked.shift < path.shift - lane_changes.CLEAR)
        # Back behind it; or before anybody has been met, while that can still be done.
        early = out & ~free_way & (view.lanes.offset[:, OWN] < SWUNG_OUT) & (blocked.ahead > lane_changes.SWING / 2)
        home = (out & ~blocked.there) | early
        shift = torch.where(home, 0.0, blocked.shift)
        self._path = path.towards(view, own, shift, begin | wider | home)

    def _gets_past(self, view: View, side: Tensor) -> Tensor:
        """Whether a change to a side now gets us past everybody ahead in our lane. Shape: (N,) bool."""
        passes = lane_changes.clearing(view, pick(view.lanes.offset, side)) >= 0
        return (passes | ~view.on_own() | (view.seen.along <= 0)).all(1)

    def _steering(self, view: View, row: Tensor) -> Tensor:
        """The command that follows the path, or keeps the lane as the worlds' own drivers do. Shape: (N,)."""
        # Their law leads off the road where the route goes on beside our lane.
        astray = (view.ego[:, 3] + view.lanes.offset[:, OWN]).abs() > SETTLED
        own = self._path.active | astray | (view.lanes.changes[:, OWN] > 0) | (view.speed < WALKING)
        return torch.where(own, self._path.steering(view, row), keeping(view.ego))

    # --- along the road -----------------------------------------------------------------------------------------------

    def _free(self, view: View, row: Tensor) -> Tensor:
        """`free_acceleration`, with the flow after a change of lane, and towards lower limits ahead. Shape: (N,)."""
        seen, ego = view.seen, view.ego
        behind = view.on_own() & (seen.along < 0) & (seen.gap < ADAPTS * seen.own_speed)
        flow = torch.where(behind, seen.speed, 0.0).amax(1)
        flow = torch.where(self._path.age < RELAXATION, flow, 0.0)
        free = free_acceleration(torch.cat([ego[:, :2], torch.maximum(ego[:, 2], flow)[:, None], ego[:, 3:]], 1))
        past = COMFORT_ACCELERATION * (1 - (view.speed / passing.speed(view).clamp(min=1.0)) ** 4)
        free = torch.where(self._path.shift < 0, torch.minimum(free, past.clamp(min=-GENTLE_BRAKING)), free)
        lower, begins = pick(view.lanes.lower, row), pick(view.lanes.lower_from, row)
        needed = (view.speed**2 - lower**2) / (2 * begins.clamp(min=1.0))
        slows = torch.minimum(free, -needed.clamp(max=FIRM_BRAKING))
        return torch.where(needed > GENTLE_BRAKING, slows, free)

    def _seeking(self, view: View, need: Need, plan: Plan, row: Tensor) -> Tensor:
        """Drive by the plan; without one, a little slower than those among whom there may be a gap. Shape: (N,)."""
        free, side = self._free(view, row), need.side - 1
        beside = pick(view.on_side(), side) & (pick(view.side_gap(), side) < NEARBY) & ~view.standing
        flow = (view.seen.speed * beside).sum(1) / beside.sum(1).clamp(min=1)
        adapts = ((SLOWER * flow - view.speed) / ADAPTS).clamp(-GENTLE_BRAKING, COMFORT_ACCELERATION)
        adapts = torch.where(beside.any(1), torch.minimum(adapts, free.clamp(min=0)), free)
        return torch.where(plan.found, plan.acceleration, adapts) - view.ego[:, 6]

    def _halting(self, view: View) -> Tensor:
        """Come to rest where there is still room to swing out, in comfort as long as that is enough. Shape: (N,)."""
        ahead = view.halting_room()
        further = (view.lanes.changes[:, OWN] - 1).clamp(min=0) * lane_changes.PER_CHANGE
        room = (ahead - (lane_changes.SWING + 2 * STAND_OFF) - further).clamp(min=0)
        halt = (((2 * COMFORT_BRAKING * room).sqrt() - view.speed) / HALTS).clamp(-FIRM_BRAKING, COMFORT_ACCELERATION)
        last = view.speed**2 / (2 * (ahead - STAND_OFF).clamp(min=0.1))
        halt = torch.where(last > FIRM_BRAKING, torch.minimum(halt, -last), halt)
        return torch.where(ahead < FAR, halt, torch.inf)

    def _in_time(self, view: View, row: Tensor) -> Tensor:
        """Be slow enough for the changes that are still needed on the way, and for that under way. Shape: (N,)."""
        changes, room = pick(view.lanes.changes, row), view.lanes.room[:, OWN]
        slow = ((lane_changes.speed_for(room, changes) - view.speed) / ADAPTS).clamp(min=-GENTLE_BRAKING)
        slow = torch.where(changes > 0, slow, torch.inf)
        leaves = (row != OWN) & (view.lanes.changes[:, OWN] > 0)
        leaving = lane_changes.leaving(view, row, room).clamp(min=-FIRM_BRAKING)
        return torch.where(leaves, torch.minimum(slow, leaving), slow)

    def _others(self, view: View, row: Tensor, waits: Tensor) -> Tensor:
        """The acceleration that everybody around leaves to us [m/s2]. Shape: (N,)."""
        seen, path = view.seen, self._path
        found = obstacles(seen)
        # What stands ahead is `_halting`'s while a gap is sought; who drives where ours will join does not cut in.
        joined = ((view.lanes.opens[:, None, 1:] > 0) & (view.across.abs() < ON_LANE)).any(2)
        follow = found.follow & ~(waits[:, None] & view.standing & view.on_own()) & ~joined
        side = row.clamp(min=1) - 1
        leads = pick(view.on_side(), side) & (pick(view.along, side) > 0) & (seen.along > 0)
        follow = follow | ((path.active & (row != OWN))[:, None] & leads)
        # Who is passed is braked for as far as it takes to be beside them in time.
        recent = path.active | (path.age < lane_changes.RESTS)
        passes = torch.where(recent[:, None], lane_changes.clearing(view, path.goal), -torch.inf)
        following = torch.maximum(self._following(seen, free_acceleration(view.ego)[:, None]), passes)

        crosses = found.cross & ~(view.meetings.crossing > CROSSES)
        letting = _wait(seen.own_speed, (found.meeting - ASIDE).clamp(min=0.1), found.clears)
        wanted = torch.where(follow, following, torch.inf)
        wanted = torch.minimum(wanted, torch.where(crosses, letting, torch.inf))
        wanted = torch.minimum(wanted, self._turning(view))
        wanted = torch.minimum(wanted, torch.where(self._watched(seen), -FIRM_BRAKING, torch.inf))
        return wanted.amin(1)

    def _law(
        self, speed: Tensor, leader: Tensor, gap: Tensor, free: Tensor, headway: Tensor | float = HEADWAY
    ) -> Tensor:
        """IDM's acceleration behind a leader [m/s2]."""
        closing = speed - leader.clamp(min=0)
        desired = JAM_GAP + speed * headway + speed * closing / (2 * (COMFORT_ACCELERATION * COMFORT_BRAKING) ** 0.5)
        return free - COMFORT_ACCELERATION * (desired.clamp(min=0) / gap.clamp(min=0.1)) ** 2

    def _following(self, seen: Surroundings, free: Tensor) -> Tensor:
        speed, leader = seen.own_speed, seen.speed
        room = (seen.gap - STAND_OFF).clamp(min=0.1)
        closing = speed - leader.clamp(min=0)
        headway = HEADWAY - (HEADWAY - MERGED_HEADWAY) * torch.exp(-self._path.age / RELAXATION)
        law = self._law(speed, leader, seen.gap, free, headway[:, None])
        # Down to its speed; to a stop where it stops; half way where it comes towards us.
        needed = closing.clamp(min=0) ** 2 / (2 * room)
        stopping = leader.clamp(min=0) ** 2 / (2 * (-seen.acceleration).clamp(min=0.5))
        needed = torch.where(
            seen.acceleration < -0.5, torch.maximum(needed, speed**2 / (2 * (room + stopping))), needed
        )
        needed = torch.where(leader < -MOVES, speed * (speed - leader) / (2 * room), needed)
        return torch.maximum(law, -(1.2 * needed).clamp(min=FIRM_BRAKING))

    def _turning(self, view: View) -> Tensor:
        """Braking for those in front of whom we do not turn left, infinite for the others [m/s2]. Shape: (N, M)."""
        meets, seen = view.meetings, view.seen
        speed = seen.own_speed.clamp(min=0)
        theirs = torch.hypot(seen.speed, seen.sideways).clamp(min=0.1)
        top = torch.minimum(view.ego[:, 2:3], view.lanes.lower[:, :1])
        # We wait before the junction, or where that is behind us, before the crossing of the ways.
        line, room = view.lanes.end[:, :1] - EGO_LENGTH / 2 - STAND_OFF, meets.way_in - STAND_OFF
        room = torch.where(line > 0, torch.minimum(line, room), room)
        times = (time_over(way, speed, COMFORT_ACCELERATION, top) for way in (room, meets.way_in, meets.way_out))
        leaves = meets.other_out / theirs
        accepted = accepts_turn(meets.other_in / theirs, leaves, *times)
        # Who is there already, or cannot stop before it, goes on.
        late = (meets.way_in <= 0) | (speed**2 > 2 * HARDEST_BRAKING * meets.way_in)
        refused = (meets.meets > 0) & (meets.crossing > CROSSES) & ~accepted & ~late
        return torch.where(refused, _wait(speed, room.clamp(min=0.1), leaves), torch.inf)

    def _watched(self, seen: Surroundings) -> Tensor:
        """People beside the road whom we could not stop for in comfort, should they step out now."""
        near = seen.present & seen.person & (seen.gap > 0) & (seen.along > 0) & (seen.clearance < WATCHED)
        time = (seen.clearance - SIDE_ROOM).clamp(min=0) / STEP_OUT
        passing = (seen.gap + seen.length + EGO_LENGTH) / (seen.own_speed - seen.speed).clamp(min=0.1)
        needed = (seen.own_speed - seen.speed).clamp(min=0) ** 2 / (2 * (seen.gap - STAND_OFF).clamp(min=0.1))
        return near & (seen.approach > -MOVES) & (time < passing) & (needed > PREPARED)


def _wait(speed: Tensor, room: Tensor, leaves: Tensor) -> Tensor:
    """Stop within a room [m], or slow down to have covered it when somebody has left [s]: the gentler of both."""
    speed, until = speed.clamp(min=0), leaves + SLACK / 2
    return 1.2 * torch.maximum(-(speed**2) / (2 * room), 2 * (room - speed * until) / until**2).clamp(max=0)


def _safe(rear: Tensor, front: Tensor, time_gap: Tensor | float, response_time: float) -> Tensor:
    """The larger of what a careful driver accepts and RSS's safe distance [m]."""
    safe = rss.longitudinal(rear.clamp(min=0), front.clamp(min=0), rss.AD_RSS, response_time)
    return torch.maximum(critical_gap(rear, front, time_gap), safe)


class RSSLimited(Careful):
    """Drives like `Careful`, but never brakes less than RSS's proper response to the dangers around (`rss.AD_RSS`), and
    moves to another lane only where RSS finds its distances safe."""

    name = "rss"
    gaps = Gaps(
        ahead=lambda own, leader, time_gap: _safe(own, leader, time_gap, rss.AD_RSS.response_time),
        behind=lambda follower, own, time_gap: _safe(follower, own, time_gap, rss.AD_RSS.response_time_other),
        oncoming=lambda own, other: rss.opposite(other, own, rss.AD_RSS, ego_correct=False),
        aside=PASSING_ROOM,
    )

    def _limited(self, view: View, wanted: Tensor) -> Tensor:
        """See `Careful`."""
        braking = respond(view.seen, rss.AD_RSS).braking
        wanted = torch.where(braking > 0, torch.minimum(wanted, -braking), wanted)
        return super()._limited(view, wanted)

    def _allowed(self, view: View) -> Tensor:
        """See `Careful`."""
        response = respond(view.seen, rss.AD_RSS)
        return torch.stack([~response.change_left, ~response.change_right], 1)
