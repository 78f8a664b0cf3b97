import pytest
import torch

from evaluation import recorder
from evaluation.recorder import record, record_episodes


def gap(episode: int, seed: int = 0) -> float:
    """Centre-to-centre distance at which the fake world of this episode begins."""
    return 20.0 + (seed + episode) % 40


def crash_frame(episode: int, seed: int = 0) -> int | None:
    """The cars close by 1 m a frame, and overlap below 5 m; the time limit comes after 40 frames."""
    frame = int(gap(episode, seed)) - 5 + 1
    return frame if frame <= 40 else None


def test_frames_are_those_of_the_first_episode(make_worlds, policy):
    trajectory = record(make_worlds(40), policy, seed=0)
    for world in range(40):
        crash = crash_frame(world)
        steps = 8 if crash is None else -(-crash // 5)
        assert trajectory.steps[world] == steps
        assert trajectory.frames[world] == 1 + 5 * steps
        assert trajectory.hit[world] == (crash is not None)
        assert trajectory.hit_frame[world] == (5 * steps if crash is None else crash)
        frames = torch.arange(1 + 5 * steps)
        assert torch.allclose(trajectory.x[frames, world, 0], 5.0 * frames)
        assert torch.allclose(trajectory.x[frames, world, 1], gap(world) + 4.0 * frames)
    assert trajectory.present[0, 0].tolist() == [True, True, False]
    assert policy.resets[0] is None
    assert sum(policy.resets[1:]) >= 40


def test_episodes_do_not_depend_on_the_block(make_worlds, policy, monkeypatch):
    def returns(block: int, episodes: int) -> list[float]:
        monkeypatch.setattr(recorder, "BLOCK", block)
        found = []
        for first, _, trajectory in record_episodes(make_worlds, policy, episodes, seed=7):
            assert first == len(found)
            found += trajectory.steps.tolist()
        return found

    everything = returns(64, 50)
    assert everything == [8 if (c := crash_frame(e, seed=7)) is None else -(-c // 5) for e in range(50)]
    assert returns(7, 50) == everything
    assert returns(64, 20) == everything[:20]


def test_worlds_are_closed_and_steps_reported(make_worlds, policy, monkeypatch):
    monkeypatch.setattr(recorder, "BLOCK", 8)
    made, counts = [], []

    def make(count):
        made.append(make_worlds(count))
        return made[-1]

    for _ in record_episodes(make, policy, 20, seed=0, on_step=counts.append):
        pass
    assert [worlds.num_worlds for worlds in made] == [8, 4]
    assert all(worlds.closed for worlds in made)
    assert set(counts) == {8, 4}


def test_an_episode_that_never_ends_is_an_error(make_worlds, policy):
    worlds = make_worlds(2)
    never = torch.zeros(2, dtype=torch.bool)
    worlds.step = lambda actions, on_frame: ({"speed": torch.zeros(2, 1)}, torch.zeros(2), never, never, {})
    with pytest.raises(RuntimeError, match="outlasted its 8.0 s"):
        record(worlds, policy, seed=0)


def test_the_newest_picture_is_kept(make_worlds, policy):
    class Filmed(make_worlds):
        taken = 0

        def film(self, obs):
            old, new = torch.full((self.num_worlds, 3, 2, 4), 99), torch.full((self.num_worlds, 3, 2, 4), self.taken)
            self.taken += 1
            return obs | {"camera": torch.cat([old, new], 1).to(torch.uint8)}

        def reset(self, **options):
            obs, info = super().reset(**options)
            return self.film(obs), info

        def step(self, *arguments, **options):
            obs, *rest = super().step(*arguments, **options)
            return self.film(obs), *rest

    trajectory = record(Filmed(2), policy, seed=35)
    assert trajectory.camera.shape == (8, 2, 3, 2, 4)
    assert trajectory.camera[:, 1, 2, 1, 3].tolist() == list(range(8))
