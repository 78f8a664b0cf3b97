"""Moments shown again: against worlds in which things were different from the start, and policies that are known."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, Normal, kl_divergence

from agents import policies
from envs import scenarios
from envs.errors import UserError, exit_on_user_error
from envs.scenarios import stage
from envs.scenarios.stage import Actor, Case, Segment
from envs.sensors.surfaces import SIGNAL, VEHICLE
from evaluation import backends, counterfactual
from evaluation.counterfactual_changes import BRAKES, REMOVED, SCENE, Change, changes
from evaluation.counterfactual_changes import SIGNAL as SIGNALS
from evaluation.counterfactual_episode import at
from evaluation.counterfactual_influence import Answers, ask, partial_rank_correlation, rank_correlation
from evaluation.counterfactual_studio import Studio, drive
from tests.evaluation.test_report_browser import CHROMIUM, browse

CAMERA = {"observation": "camera", "channels": ("rgb", "semantic")}
AHEAD = (14, 48)  # row and column of the front camera's pixel a little below the horizon, straight ahead


def actor(x: float, y: float, speed: float = 22.0, **more) -> Actor:
    """Who keeps its speed, whatever happens."""
    return Actor("scripted", x, y, speed=speed, script=(Segment(1.0),), look=3, **more)


LEAD, ASIDE, BACK, BRAKING = (
    actor(130.0, 3.5),
    actor(125.0, 0.0, 24.0),
    actor(85.0, 7.0, 25.0),
    replace(actor(140.0, 7.0), script=(Segment(99.0, acceleration=-2.0),)),
)


def case(*actors: Actor) -> Case:
    return Case("test/1-0001", "test", "road", 100.0, 3.5, 0.0, 22.0, 22.0, actors=actors, duration=6.0)


def maker(scene, options):
    """Makes worlds of a scenario, or of a case with the actions of highway."""
    if isinstance(scene, Case):
        scene = stage.of([scene], scenarios.get("highway"))
    return lambda count: backends.make_worlds("lanewise", scene, count, "cpu", options)


def studio_of(scene, options) -> Studio:
    make_worlds = maker(scene, options)
    worlds = make_worlds(1)
    worlds.close()
    return Studio(worlds, make_worlds)


class Reader:
    """Brakes for what is straight ahead, and reads nothing else."""

    name, env_options = "reader", CAMERA
    FREE, BLOCKED = torch.tensor([0.1, 0.6, 0.1, 0.15, 0.05]), torch.tensor([0.1, 0.1, 0.1, 0.05, 0.65])

    def explain(self, obs):
        blocked = obs["semantic"][:, *AHEAD] == VEHICLE
        return {"probabilities": torch.where(blocked[:, None], self.BLOCKED, self.FREE)}

    def act(self, obs):
        return self.explain(obs)["probabilities"].argmax(1)

    def reset(self, done=None):
        """It remembers nothing."""


class Idle(Reader):
    """Does nothing, so that two episodes are the same road."""

    def act(self, obs):
        return torch.ones(len(obs["camera"]), dtype=torch.int64)


def moments(scene, policy, steps: int):
    """The first moments of an episode."""
    worlds = maker(scene, policy.env_options)(1)
    found = [moment for moment, _ in zip(drive(worlds, policy, seed=7), range(steps), strict=False)]
    worlds.close()
    return found


@pytest.fixture(scope="module")
def staged():
    """Four cars, and a studio for them."""
    scene = case(LEAD, ASIDE, BACK, BRAKING)
    studio = studio_of(scene, CAMERA)
    yield scene, studio
    studio.close()


@pytest.mark.parametrize("frames", [1, 3])
def test_a_removed_car_was_never_there(frames):
    """Against worlds without it, driven with the same actions: the whole stack of frames, to the bit."""
    options = CAMERA | {"frames": frames}
    policy = type("", (Idle,), {"env_options": options})()
    scene = case(ASIDE, BACK, LEAD)
    studio = studio_of(scene, options)
    differing = 0
    for with_lead, without in zip(moments(scene, policy, 5), moments(case(ASIDE, BACK), policy, 5), strict=True):
        gone = next(change for change in changes(with_lead.state, with_lead.road) if change.slot == 3)
        shown = studio.show(with_lead, [gone])
        for name in ("camera", "semantic", "speed"):
            assert torch.equal(shown[name][1], without.obs[name][0])
        stack = shown["camera"].unflatten(1, (frames, 3))
        differing += (stack[0] != stack[1]).flatten(1).any(1)
    assert (differing == 5).all()  # every frame of every stack
    studio.close()


def test_who_reads_only_the_lead_is_influenced_by_nobody_else(staged):
    scene, studio = staged
    (moment,) = moments(scene, Reader(), 1)
    instant, kind = at(moment, studio, Reader())
    removed = {effect.change.slot: effect for effect in instant.effects if effect.change.kind == REMOVED}
    assert kind == "probabilities" and set(removed) == {1, 2, 3, 4}  # all are seen
    assert removed[1].influence == pytest.approx(0.6) and removed[1].changes_action
    assert (removed[1].ahead, removed[1].right) == (30.0, 0.0) and removed[1].bin == ("ahead, in line", 2)
    for effect in instant.effects:
        if effect.change is not removed[1].change:
            assert effect.influence == 0.0 and not effect.changes_action


def test_nothing_changed_changes_nothing_and_the_hidden_has_no_influence():
    """With the shipped policy, whose arithmetic may round in many ways."""
    bus, hidden = actor(118.0, 3.5, form="bus", size=(12.0, 2.6, 3.2)), actor(150.0, 3.5)
    scene, policy = case(hidden, bus), policies.load("zoo/highway-ppo")
    studio = studio_of(scene, policy.env_options)
    (moment,) = moments(scene, policy, 1)
    nothing = Change(REMOVED, "nobody", "removed", ())
    car, bus_gone = (
        next(c for c in changes(moment.state, moment.road) if c.slot == slot and c.kind == REMOVED) for slot in (1, 2)
    )
    shown = studio.show(moment, [nothing, car, bus_gone])
    assert torch.equal(shown["camera"][0], shown["camera"][1]) and torch.equal(shown["camera"][0], shown["camera"][2])
    answers = ask(policy, shown)
    assert answers.seen.tolist() == [False, False, True]
    for figures in answers.measures().values():
        assert figures[0] == figures[1] == 0.0 and figures[2] != 0.0
    studio.close()


def test_a_light_changes_its_own_pixels_only():
    studio = studio_of("intersection-signals", CAMERA)
    turned = both = 0
    for moment in moments("intersection-signals", Idle(), 6):
        wanted = [change for change in changes(moment.state, moment.road) if change.kind == SIGNALS]
        shown = studio.show(moment, wanted)
        stack = shown["camera"].unflatten(1, (2, 3))
        for row in range(1, 1 + len(wanted)):
            differs = (stack[row] != stack[0]).any(1)  # (frames, H, W)
            if differs[-1].any():
                turned += 1
                # A far lamp takes a whole row, where the housing of another colour may end above it.
                lamps = (shown["semantic"][[0, row]] == SIGNAL).any(0)
                assert lamps[differs[-1]].all()
                both += int(differs[0].any())
            assert (shown["semantic"][0] == shown["semantic"][row])[~differs[-1]].all()
            assert torch.equal(shown["speed"][0], shown["speed"][row])
    assert turned >= 6 and both >= 4
    studio.close()


def test_brake_lights_are_within_the_car(staged):
    scene, studio = staged
    *_, moment = moments(scene, Idle(), 3)
    wanted = [change for change in changes(moment.state, moment.road) if change.slot == 4]
    assert [change.what for change in wanted] == ["removed", "brake lights off"]
    shown = studio.show(moment, wanted)
    before, gone, off = shown["camera"][:, -3:].int()
    lamps = (off != before).any(0)
    assert lamps.any() and (gone != before).any(0)[lamps].all()
    assert (off[0] < before[0])[lamps].all()  # less red


def test_asking_leaves_everything_as_it_is(staged):
    """Live worlds, recorded states and every random generator; and the episode goes on as if nobody had asked."""
    scene, studio = staged
    unasked = moments(scene, Reader(), 4)
    worlds = maker(scene, CAMERA)(1)

    def generators():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    asked = []
    for moment, _ in zip(drive(worlds, Reader(), seed=7), range(4), strict=False):
        before, drawn = worlds.get_state(), generators()
        kept = [{name: tensor.clone() for name, tensor in state.items()} for state in moment.past]
        at(moment, studio, Reader())
        after = worlds.get_state()
        assert all(torch.equal(before[name], after[name]) for name in before) and drawn == generators()
        for state, copy in zip(moment.past, kept, strict=True):
            assert all(torch.equal(state[name], copy[name]) for name in copy)
        asked.append(moment)
    for one, other in zip(unasked, asked, strict=True):
        assert torch.equal(one.action, other.action)
        assert all(torch.equal(one.obs[name], other.obs[name]) for name in one.obs)
    worlds.close()


@pytest.mark.parametrize("name", ["intersection", "crossing"])
def test_every_kind_of_world_is_shown_again_to_the_bit(name):
    """Also with traffic that comes and goes, people, noise and weather: `show` compares, and raises otherwise."""
    policy = policies.load("random", name)
    policy.env_options = {"observation": "camera", "randomize": True}
    studio = studio_of(name, policy.env_options)
    for moment in moments(name, policy, 5):
        shown = studio.show(moment, [])
        assert torch.equal(shown["camera"], moment.obs["camera"])
    tampered = replace(moment, obs=moment.obs | {"speed": moment.obs["speed"] + 0.1})
    with pytest.raises(UserError, match="'speed' is not observed from the state alone"):
        studio.show(tampered, [])
    studio.close()


# --- figures ----------------------------------------------------------------------------------------------------------


def answers(kind: str, told: torch.Tensor, **more) -> Answers:
    actions = told if kind == "mean" else told.argmax(1)
    return Answers(kind, {kind: told, **more}, actions, np.ones(len(told) - 1, bool))


def test_measures_of_distributions():
    p = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    found = answers("probabilities", p, value=torch.arange(5.0)).measures()
    expected = kl_divergence(Categorical(p[0].expand(4, 4)), Categorical(p[1:]))
    np.testing.assert_allclose(found["KL divergence"], expected, rtol=1e-4, atol=1e-7)
    # Total variation is the greatest difference in the probability of any set of actions.
    subsets = torch.tensor([[bool(s >> k & 1) for k in range(4)] for s in range(16)])
    events = (subsets[:, None] * (p[1:] - p[0])).sum(2).abs().amax(0)
    np.testing.assert_allclose(found["total variation"], events, rtol=1e-5)
    assert found["change of the value"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_measures_of_continuous_actions_and_action_values():
    mean, wide = torch.tensor([[0.0, 0.5], [0.3, 0.5], [0.0, -0.5]]), torch.tensor([[0.1, 0.5]] * 2 + [[0.2, 0.5]])
    found = answers("mean", mean, deviation=wide)
    np.testing.assert_allclose(found.influence, [3.0, 2.0], rtol=1e-5)
    assert found.changes_action.tolist() == [True, True]
    expected = kl_divergence(Normal(mean[0], wide[0]), Normal(mean[1:], wide[1:])).sum(1)
    np.testing.assert_allclose(found.measures()["KL divergence"], expected, rtol=1e-5)

    values = torch.tensor([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [1.0, 2.0, 6.0]])
    found = answers("action_values", values)
    np.testing.assert_allclose(found.influence, [0.0, 2.0], atol=1e-6)  # a shift of all prefers nothing
    assert found.measures()["change of an action value"].tolist() == [1.0, 3.0]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=20))
def test_rank_correlation_is_scipys(pairs):
    x, y = np.array(pairs, dtype=float).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert rank_correlation(x, y) is None
    else:
        assert rank_correlation(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-9)


def test_partial_correlation_is_that_of_residuals():
    """Of the ranks, after a line through the third ones."""
    x, y, z = np.random.default_rng(0).normal(size=(3, 40)) + np.linspace(0, 3, 40)
    ranks = [scipy.stats.rankdata(values) for values in (x, y, z)]
    left = [each - np.polyval(np.polyfit(ranks[2], each, 1), ranks[2]) for each in ranks[:2]]
    assert partial_rank_correlation(x, y, z) == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-9)
    assert partial_rank_correlation(x, y, x) is None


def test_who_cannot_be_asked(staged):
    scene, studio = staged
    (moment,) = moments(scene, Reader(), 1)
    silent = type("", (Reader,), {"explain": lambda self, obs: None})()
    with pytest.raises(UserError, match="does not say what its actions come from"):
        at(moment, studio, silent)
    with pytest.raises(UserError, match="of one agent a world"):
        studio_of("intersection-multi-agent", {"observation": "camera"})


# --- the command ------------------------------------------------------------------------------------------------------


def command(monkeypatch, *arguments) -> None:
    monkeypatch.setattr("sys.argv", ["counterfactual", *map(str, arguments)])
    exit_on_user_error(counterfactual.main)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page and the JSON of a case, with saliency."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        policy = ["--policy", "zoo/highway-ppo", "--device", "cpu", "--saliency", "gradcam"]
        command(patch, "--case", "cut-in/1000000-0003", *policy, "--out", folder)
    return folder / "cut-in-1000000-0003.html", json.loads((folder / "cut-in-1000000-0003.json").read_text())


def test_the_file_holds_every_decision(written):
    page, found = written
    assert found["case"] == "cut-in/1000000-0003" and found["influence"]["measure"] == "total variation"
    names = found["action_names"]
    for k, step in enumerate(found["steps"]):
        assert (step["step"], step["action"]) == (k, names[int(np.argmax(step["probabilities"]))])
        for effect in step["effects"]:
            moved = np.abs(np.subtract(effect["probabilities"], step["probabilities"])).sum() / 2
            assert effect["total variation"] == pytest.approx(moved, abs=1e-6)
            assert 0.0 < effect["pixels"] <= 1.0
            assert (effect["saliency"] is None) == (effect["kind"] == SCENE)
    kinds = {row["kind"] for row in found["changes"]}
    assert {REMOVED, SCENE} <= kinds <= {REMOVED, SCENE, BRAKES}
    seen = {row["change"]: row["seen"] for row in found["kinds"]}
    assert seen["dusk"] == len(found["steps"])
    assert sum(row["seen"] for row in found["places"]) == found["agreement"]["objects"] == seen["removed"]
    text = page.read_text()
    assert text.count("data:image/png") >= 8 and "Influence over time" in text and "gradcam" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser")
@pytest.mark.parametrize(("width", "dark"), [(360, True), (1280, False)])
def test_the_page_fits(width, dark, written, tmp_path):
    found, console = browse(written[0], tmp_path, width, dark)
    assert console == "" and found["loads"] <= 1
    assert found["wide"] == [] and found["scrolled"] == 0 and found["scroll_width"] == found["width"]
    assert set(found["boxes"]) == {"auto"}


def test_bad_input(monkeypatch, capsys, tmp_path):
    for arguments, message in (
        (["--policy", "idm"], "'idm' drives by the simulator's state"),
        (["--policy", "random"], "does not say what its actions come from"),
        (["--policy", "zoo/highway-ppo", "--saliency", "gradcan"], "did you mean 'gradcam'"),
        (["--policy", "zoo/highway-ppo", "--env", "highway", "--case", "cut-in/1-0001"], "--case goes without --env"),
        (["--policy", "zoo/highway-ppo", "--episode", "-1"], "from 0 on"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command(monkeypatch, *arguments, "--device", "cpu", "--out", tmp_path / "out")
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
