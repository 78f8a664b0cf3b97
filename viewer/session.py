"""What is shown: live worlds with somebody at the wheel, or a recorded episode, played in simulation time.

A session plays clips, one after the other. A clip is a row of moments, one simulation frame apart: of a live world
what one decision leads to, of a recording all of it. Between two moments the picture is interpolated.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from agents.familiarity import Watch
from agents.policies import Policy, Tensors
from agents.saliency import sees_pictures
from envs.scene import Scene, interpolate
from evaluation.metrics.time_headway import time_headway
from evaluation.metrics.time_to_collision import time_to_collision
from evaluation.overlay import overlay
from evaluation.recorder import Frames, newest_picture
from evaluation.replay import Replay
from perception.saliency import METHODS
from viewer.attention import Attention

HOLD = 1.5  # [s], for which the end of an episode stays
# How fast a pedal or the wheel goes to its end while a key is held [1/s].
KEY_RATE = 1.5


@dataclass(frozen=True)
class Moment:
    """One moment of an episode and what is said about it.

    Attributes:
        scene: the world; `camera` is what the policy acted upon.
        step: policy steps since the episode began.
        episode_return: sum of the rewards until now.
        target_speed: of the ego [m/s], or None where it is not recorded.
        action: index of what is being carried out, continuous actions [K], or None where the ego takes no actions.
        probabilities: of the actions, where the policy has them. Shape: (A,).
        value: discounted return that the policy expects, if it does.
        ttc: time to collision with the leader [s], infinite without.
        headway: time headway [s], infinite without a leader.
        ended: how the episode ended at this moment, or "".
        life: seed, world and episode, which decide on the colours of the cars.
        seen: what the policy was shown when it decided, or None where nobody asked it. Shape: (1, ...).
        look: the picture under what spoke for and against the decision, where that is recorded. Shape: (H, W, 3).
        unfamiliar: share of familiar frames that are more familiar than what the policy was shown, or None where that
            is not known.
    """

    scene: Scene
    step: int = 0
    episode_return: float = 0.0
    target_speed: float | None = None
    action: int | np.ndarray | None = None
    probabilities: np.ndarray | None = None
    value: float | None = None
    ttc: float = np.inf
    headway: float = np.inf
    ended: str = ""
    life: tuple[int, int, int] = (0, 0, 0)
    seen: Tensors | None = None
    look: np.ndarray | None = None
    unfamiliar: float | None = None


def own_action(actions: np.ndarray) -> int | np.ndarray:
    """The ego's part of a world's actions: a meta-action, or continuous ones [K]."""
    if actions.dtype.kind == "f":
        return actions.reshape(-1, actions.shape[-1])[0]
    return int(actions.flat[0])


class Session:
    """What live worlds and recordings have in common: a clip, and how far it has been played.

    Attributes:
        title: what is shown.
        scenario: name of its scenario.
        action_names: by action, empty where they are continuous.
        dt: time between two moments of a clip [s].
        frames_per_step: moments that a decision lasts.
        recorded: whether all of it is known from the start.
        human: whether a person is at the wheel.
        methods: of saliency that can be shown.
        unwatched: why it is not known how unfamiliar what the policy sees is, or "".
        wish: index of the action that a person wants next, where actions are not continuous.
        clip: what is being played.
        position: how far, in moments.
    """

    title: str
    scenario: str
    action_names: tuple[str, ...]
    dt: float
    frames_per_step: int
    recorded = False
    human = False
    methods: tuple[str, ...] = ()
    unwatched = "it is not known what is familiar here"

    @property
    def idle(self) -> int:
        """Index of the action that changes nothing."""
        return self.action_names.index("IDLE") if "IDLE" in self.action_names else 0

    def __init__(self):
        self.wish = 0
        self.clip: list[Moment] = []
        self.position = 0.0
        self._held = 0.0

    @property
    def last(self) -> int:
        """Position of the clip's last moment."""
        return len(self.clip) - 1

    def now(self) -> Moment:
        """The present moment, interpolated."""
        index = min(int(self.position), self.last)
        here = self.clip[index]
        if index == self.last or self.position == index:
            return here
        share = self.position - index
        return replace(here, scene=interpolate(here.scene, self.clip[index + 1].scene, share))

    def speeds(self) -> np.ndarray:
        """Speed of the ego at every moment of the episode until now [m/s]."""
        return np.array([moment.scene.speed[0] for moment in self.clip[: int(self.position) + 1]], dtype=float)

    def advance(self, seconds: float) -> None:
        """Play on, in simulation time; the end of an episode stays for a while."""
        self.position += seconds / self.dt
        while self.position >= self.last:
            surplus = (self.position - self.last) * self.dt
            self.position = float(self.last)
            if self.clip[-1].ended:
                self._held += surplus
                surplus = self._held - HOLD
                if surplus < 0:
                    return
            if not self._turn():
                return
            self._held = 0.0
            self.position = surplus / self.dt

    def step(self, unit: int, forward: bool = True) -> None:
        """Go to the next or the last whole multiple of `unit` moments; at a clip's end, on to the next clip."""
        self._held = 0.0
        if forward and self.position >= self.last:
            over = self.clip[-1].ended
            if not self._turn():
                return
            self.position = 0.0
            if over:
                return
        whole = int(self.position) // unit + 1 if forward else (int(np.ceil(self.position)) - 1) // unit
        self.position = float(np.clip(whole * unit, 0, self.last))

    def _turn(self) -> bool:
        """Put the next clip in, from its start; False where there is none."""
        return False

    def look(self, moment: Moment, method: str) -> np.ndarray | None:
        """The picture that was decided upon under what spoke for and against the decision, by one of `methods`; None
        where nobody knows, or not yet. Shape: (H, W, 3), uint8."""
        return moment.look

    def restart(self) -> None:
        """Begin the episode anew."""
        self.position = self._held = 0.0

    def next_world(self) -> None:
        """Go to another world."""

    def close(self) -> None:
        """Let go of what simulates."""


class Live(Session):
    """A world with a policy or a person at the wheel.

    Decisions of a policy are worked out ahead on a thread of their own, so that the picture does not wait for them. A
    person's take effect when the present one is done.

    Args:
        worlds: one world, an `envs.api.VecWorlds` or anything with its interface.
        policy: see `agents.policies.Policy`; None where only a person drives.
        seed: of the worlds.
        world: identity of the first world in the random streams.
        patient: whether a picture waits for what it is to show, as a film's does and a window's does not.

    Attributes:
        held: throttle and steering that the keys held down ask for, each -1, 0 or 1; for continuous actions.
        watch: says how unfamiliar what the policy sees is; None where nobody knows.
    """

    def __init__(self, worlds, policy: Policy | None, seed: int, world: int = 0, patient: bool = False):
        super().__init__()
        self.held = (0.0, 0.0)
        self.watch: Watch | None = None
        self.worlds, self.policy, self.seed = worlds, policy, seed
        self.scenario, self.action_names = worlds.scenario.name, worlds.action_names
        self.frames_per_step = worlds.scenario.frames_per_step
        self.dt = 1.0 / worlds.scenario.simulation_frequency
        self.world = world
        self.human = policy is None
        self._attention = Attention(policy, patient) if sees_pictures(policy) else None
        if self._attention is not None:
            self.methods = tuple(METHODS)
        self._worker = ThreadPoolExecutor(1)
        self._ahead: Future | None = None
        self.restart()

    @property
    def title(self) -> str:
        """See `Session`."""
        driver = "you" if self.human else self.policy.name
        return f"{self.worlds.scenario.name} · {driver} · world {self.world}"

    def restart(self) -> None:
        """See `Session`."""
        super().restart()
        self._drop_ahead()
        self._obs, _ = self.worlds.reset(seed=self.seed, first_world=self.world)
        if self.policy is not None:
            self.policy.reset(None)
        self.wish, self._step, self._return, self._episode = self.idle, 0, 0.0, 0
        self._pedals = np.zeros(2)
        self._past: list[float] = []
        self.clip = []
        self._turn()

    def next_world(self) -> None:
        """See `Session`."""
        self.world += 1
        self.restart()

    def look(self, moment: Moment, method: str) -> np.ndarray | None:
        """See `Session`; one that is not worked out yet is None, or an earlier one."""
        if self._attention is None or moment.seen is None:
            return None
        return self._attention.look(moment.seen, method)

    def take_wheel(self, human: bool) -> None:
        """Hand the wheel to a person or back to the policy; what has been worked out ahead is still driven."""
        self.human = human
        self.wish, self._pedals = self.idle, np.zeros(2)

    def speeds(self) -> np.ndarray:
        """See `Session`."""
        return np.concatenate([self._past, super().speeds()])

    def close(self) -> None:
        """See `Session`."""
        self._drop_ahead()
        self._worker.shutdown()
        if self._attention is not None:
            self._attention.close()
        self.worlds.close()

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.result()
            self._ahead = None

    def _turn(self) -> bool:
        if self.clip and not self.clip[-1].ended:
            self._past += [moment.scene.speed[0] for moment in self.clip[:-1]]
        else:
            self._past = []
        ahead, self._ahead = self._ahead, None
        self.clip = ahead.result() if ahead else self._decide()
        if not self.human:
            self._ahead = self._worker.submit(self._decide)
        return True

    def _ending(self) -> str:
        """How the episode ended that has just ended by its own rules, in words."""
        state = self.worlds.state
        if state.ego_crashed[0]:
            return "collision"
        return "goal reached" if state.success[0] > 0 else "end of the episode"

    def _wished(self) -> torch.Tensor:
        """The action that a person wants, of all agents alike. Shape: (1, ...)."""
        space, agents = self.worlds.single_action_space, self.worlds.scenario.agents
        if self.action_names:
            wish, self.wish = self.wish, self.idle
            return torch.full((1, *space.shape), wish, dtype=torch.int64)
        offered = self.worlds.scenario.actions
        # Keys know no half way: what they move goes there in time, and back at once.
        held = np.array(self.held)
        reach = KEY_RATE * self.dt * self.frames_per_step
        self._pedals = np.where(held == 0, 0.0, np.clip(self._pedals * (self._pedals * held > 0) + reach * held, -1, 1))
        pedals = self._pedals[[offered.throttle, offered.steering]]
        return torch.tensor(np.tile(pedals, agents), dtype=torch.float32).reshape(1, *space.shape)

    def _decide(self) -> list[Moment]:
        """One decision, and the moments from the one before it to the one after it."""
        worlds, obs = self.worlds, self._obs
        camera = None
        if "camera" in obs:
            camera = newest_picture(obs["camera"])[0].permute(1, 2, 0).cpu().numpy().copy()
        explained = seen = None
        if self.human:
            actions = self._wished().to(worlds.device)
        else:
            explained = self.policy.explain(obs)
            actions = self.policy.act(obs)
            if self._attention is not None:  # the worlds will write over it
                seen = {name: tensor.clone() for name, tensor in obs.items()}
        told: dict = {"action": own_action(actions[0].cpu().numpy()) if worlds.ego != "idm" else None}
        if explained is not None:
            told["value"] = float(explained["value"][0])
            if "probabilities" in explained:
                told["probabilities"] = explained["probabilities"][0].cpu().numpy()
        told |= {"life": (self.seed, self.world, self._episode), "seen": seen}
        if self.watch is not None:
            told["unfamiliar"] = self.watch(obs, fresh=self._step == 0)
            self.watch.acted(told["action"])

        scenes, target_speeds = [], []
        frames = Frames(worlds, 1 + self.frames_per_step)

        def keep() -> None:
            frames.capture()
            time = (self._step * self.frames_per_step + len(scenes)) * self.dt
            scenes.append(replace(Scene.of(worlds, 0, camera), time=time))
            target_speeds.append(float(worlds.state.target_speed[0, 0]))

        keep()
        self._obs, reward, terminated, truncated, _ = worlds.step(actions, on_frame=keep)
        driven = frames.trajectory(
            frames=torch.tensor([len(scenes)], device=worlds.device),
            actions=actions[None],
            rewards=reward[None],
            steps=torch.ones(1, dtype=torch.int64),
            dt=self.dt,
            frames_per_step=self.frames_per_step,
        )
        ttc, headway = (figure(driven)[:, 0].tolist() for figure in (time_to_collision, time_headway))
        moments = [
            Moment(scene, self._step, self._return, target, ttc=t, headway=h, **told)
            for scene, target, t, h in zip(scenes, target_speeds, ttc, headway, strict=True)
        ]
        self._step += 1
        self._return += float(reward[0])
        ended = self._ending() if terminated[0] else "time limit" if truncated[0] else ""
        moments[-1] = replace(moments[-1], step=self._step, episode_return=self._return, ended=ended)
        if ended:
            self._step, self._return = 0, 0.0
            self._episode += 1
        if self.policy is not None:
            self.policy.reset(terminated | truncated)
        return moments


class Recording(Session):
    """A recorded episode."""

    recorded = True

    def __init__(self, replay: Replay):
        super().__init__()
        self.title, self.scenario, self.action_names = replay.title, replay.scenario, replay.action_names
        self.dt, self.frames_per_step = replay.dt, replay.frames_per_step
        scenes = [replace(replay.scene(frame), caption="") for frame in range(len(replay))]
        if replay.shares is not None:
            self.methods = (replay.about["saliency"],)
        shares = [replay.shares_at(step) for step in range(len(replay.actions))]
        looks = [None if found is None else overlay(replay.camera[k], found) for k, found in enumerate(shares)]
        returns = np.concatenate([[0.0], np.cumsum(replay.rewards)])
        driven = replay.about.get("policy") != "idm"
        life = (int(replay.about.get("seed", 0)), int(replay.about.get("episode", 0)), 0)
        self.clip = [
            Moment(
                scene,
                step=frame // replay.frames_per_step,
                episode_return=float(returns[frame // replay.frames_per_step]),
                action=own_action(replay.actions[replay.step(frame)]) if driven else None,
                ttc=float(replay.ttc[frame]),
                headway=float(replay.headway[frame]),
                life=life,
                look=looks[replay.step(frame)],
            )
            for frame, scene in enumerate(scenes)
        ]
        ended = "collision" if scenes[-1].crashed[0] else replay.about.get("end", "end of the recording")
        self.clip[-1] = replace(self.clip[-1], ended=ended)

    def seek(self, share: float) -> None:
        """Go to a place in the recording, 0 its start and 1 its end."""
        self.position = float(np.clip(share, 0.0, 1.0)) * self.last
