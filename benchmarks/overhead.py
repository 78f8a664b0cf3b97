"""What our PPO costs beyond a bare loop: the same networks, worlds and settings, with nothing around them.

    python -m benchmarks.overhead

The loop below is PPO as one would write it by hand for one task: no class, no callbacks, no log, no checks. It and
`agents.ppo.PPO`, without callbacks too, have worlds and networks of their own, begin alike, and take turns.
"""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.logger import Logger
from torch.nn import functional as F

from agents.extractors import VectorExtractor
from agents.ppo import PPO
from benchmarks import machine
from envs import files
from envs.errors import UserError, exit_on_user_error
from train import ppo


@dataclass(frozen=True)
class Args:
    """Compare the pace of our PPO with that of a bare loop over the same networks and worlds."""

    env: str = "highway-fast"
    """Scenario."""
    observations: tuple[str, ...] = ("state", "camera")
    """Observations; "camera" through the shipped frozen encoder."""
    num_worlds: int = 256
    """Worlds simulated at once."""
    rollouts: int = 4
    """Rollouts, and updates, of a turn."""
    rounds: int = 7
    """Turns each takes."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: Path | None = None
    """JSON file to write."""


class BareLoop:
    """PPO without anything around it.

    Args:
        model: whose networks, worlds and settings it takes.
    """

    def __init__(self, model: PPO):
        self.worlds, self.policy, self.settings = model.env.worlds, model.policy, model
        self.optimizer = model.policy.optimizer
        shape = (model.n_steps, self.worlds.num_worlds)
        device = model.device
        self.seen = {
            name: torch.zeros((*shape, *part.shape), dtype=getattr(torch, part.dtype.name), device=device)
            for name, part in self.worlds.single_observation_space.items()
        }
        self.actions = torch.zeros(shape, dtype=torch.int64, device=device)
        floats = (torch.zeros(shape, device=device) for _ in range(4))
        self.rewards, self.values, self.log_probs, self.advantages = floats
        self.dones = torch.zeros(shape, dtype=torch.bool, device=device)
        self.obs, _ = self.worlds.reset(model.seed)

    def run(self, rollouts: int) -> None:
        """So many rollouts, with an update after each."""
        for _ in range(rollouts):
            self._roll_out()
            self._update()

    @torch.no_grad()
    def _roll_out(self) -> None:
        s, policy = self.settings, self.policy
        for step in range(s.n_steps):
            for name, stored in self.seen.items():
                stored[step] = self.obs[name]
            action, value, log_prob = policy(self.obs)
            self.actions[step], self.values[step], self.log_probs[step] = action, value.squeeze(1), log_prob
            self.obs, reward, terminated, truncated, info = self.worlds.step(action)
            reward, late = reward.clone(), truncated & ~terminated
            if late.any():
                last = policy.predict_values({name: final[late] for name, final in info["final_obs"].items()})
                reward[late] += s.gamma * last.squeeze(1)
            self.rewards[step], self.dones[step] = reward, terminated | truncated
        following, advantage = policy.predict_values(self.obs).squeeze(1), torch.zeros_like(reward)
        for step in reversed(range(s.n_steps)):
            on = s.gamma * ~self.dones[step]
            delta = self.rewards[step] + on * following - self.values[step]
            advantage = delta + on * s.gae_lambda * advantage
            self.advantages[step], following = advantage, self.values[step]

    def _update(self) -> None:
        s = self.settings
        seen = {name: stored.flatten(0, 1) for name, stored in self.seen.items()}
        returns = (self.advantages + self.values).flatten()
        actions, log_probs, advantages = self.actions.flatten(), self.log_probs.flatten(), self.advantages.flatten()
        clip = s.clip_range(1.0)
        for _ in range(s.n_epochs):
            divergences = []
            for rows in torch.randperm(len(actions), device=actions.device).split(s.batch_size):
                obs = {name: stored[rows] for name, stored in seen.items()}
                value, log_prob, entropy = self.policy.evaluate_actions(obs, actions[rows])
                log_ratio = log_prob - log_probs[rows]
                ratio, advantage = log_ratio.exp(), advantages[rows]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                gain = torch.min(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)).mean()
                value_loss = F.mse_loss(value.squeeze(1), returns[rows])
                loss = s.vf_coef * value_loss - gain - s.ent_coef * entropy.mean()
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), s.max_grad_norm)
                self.optimizer.step()
                divergences.append((ratio - 1 - log_ratio).detach().mean())
            if torch.stack(divergences).mean() > 1.5 * s.target_kl:
                break
        if isinstance(self.policy.features_extractor, VectorExtractor):
            self.policy.features_extractor.update(seen)


def measure(args: Args, observation: str) -> dict[str, list[float]]:
    """Steps a second of ours and of the bare loop, of every turn."""
    settings = ppo.Args(env=args.env, observation=observation, num_worlds=args.num_worlds, device=args.device)
    ours, _ = ppo.build(settings)
    ours.set_logger(Logger(None, []))
    bare = BareLoop(ppo.build(settings)[0])
    steps = args.rollouts * ours.n_steps * args.num_worlds

    def learn(rollouts: int) -> None:
        ours.learn(rollouts * ours.n_steps * args.num_worlds, reset_num_timesteps=False)

    speeds: dict[str, list[float]] = {"ours": [], "bare loop": []}
    for turn in range(args.rounds + 1):
        contestants = [("ours", learn), ("bare loop", bare.run)]
        for name, run in contestants if turn % 2 else contestants[::-1]:
            start = time.perf_counter()
            run(args.rollouts)
            if ours.device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first is to warm up
                speeds[name].append(steps / (time.perf_counter() - start))
    return speeds


def main(args: Args) -> None:
    """Measure, print a table and write the file that was asked for."""
    for name in ("num_worlds", "rollouts", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    console = Console()
    console.print(machine.sentence())
    title = f"PPO in {args.env}, {args.num_worlds} worlds: policy steps/s, medians of {args.rounds} turns"
    table = Table("observation", "ours", "bare loop", "ours takes longer by", title=title)
    found = {}
    for observation in args.observations:
        found[observation] = speeds = measure(args, observation)
        slower = statistics.median(b / a - 1 for a, b in zip(speeds["ours"], speeds["bare loop"], strict=True))
        medians = (f"{statistics.median(speeds[name]):,.0f}" for name in ("ours", "bare loop"))
        table.add_row(observation, *medians, f"{slower:.1%}")
    console.print(table)
    if args.out:
        report = {"machine": machine.describe(), "settings": vars(args) | {"out": str(args.out)}, "steps/s": found}
        files.write(args.out, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Args)))
