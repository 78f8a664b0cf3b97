"""Settings that suit a scenario stand in for the defaults, and give way to what the user writes."""

import dataclasses
import json

import pytest

import envs
from train import common, distill, dqn, ppo, pqn, settings

COMMANDS = {"ppo": ppo.COMMAND, "dqn": dqn.COMMAND, "pqn": pqn.COMMAND, "distill": distill.COMMAND}
FILES = sorted(settings.FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_names_a_command_a_scenario_and_possible_settings(path):
    algorithm, scenario = path.stem.split("-", 1)
    command = COMMANDS[algorithm]
    assert scenario in envs.list_scenarios()
    content = json.loads(path.read_text())
    assert set(content) == {"settings", "why"} and content["why"]
    default = dataclasses.asdict(command.args())
    args = settings.suited(command.args, algorithm, scenario)
    changed = {name for name, value in dataclasses.asdict(args).items() if value != default[name]}
    assert changed - {"env"} == set(content["settings"])
    if algorithm == "distill":  # who teaches is the user's to say
        args = dataclasses.replace(args, teacher="idm")
    command.check(args)


def test_what_is_written_goes_first_and_other_scenarios_keep_the_defaults(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "FOLDER", tmp_path)
    (tmp_path / "ppo-merge.json").write_text(
        '{"settings": {"gamma": 0.9, "hidden": [64], "epochs": 2}, "why": "a test"}'
    )
    args = common.parse(ppo.COMMAND, ["--env", "merge", "--epochs", "3"])
    assert (args.env, args.gamma, args.hidden, args.epochs) == ("merge", 0.9, (64,), 3)
    assert common.parse(ppo.COMMAND, ["--env", "exit"]) == ppo.Args(env="exit")
    assert common.parse(pqn.COMMAND, ["--env", "merge"]) == pqn.Args(env="merge")
    assert common.parse(ppo.COMMAND, ["--resume", str(tmp_path)]) == ppo.Args(resume=tmp_path)
