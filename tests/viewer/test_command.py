import imageio.v3 as imageio
import pytest

from envs.errors import exit_on_user_error
from evaluation import replay as replays
from viewer.__main__ import main


def call(monkeypatch, *args: str) -> None:
    monkeypatch.setattr("sys.argv", ["viewer", *args])
    exit_on_user_error(main)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--env", "highwy"), "did you mean 'highway'"),
        (("--policy", "nobody"), "unknown policy 'nobody'"),
        (("--env", "parking", "--policy", "idm"), "'idm' cannot drive 'parking'"),
        (("--seed", "-1"), "--seed cannot be negative"),
        (("--replay", "nowhere.safetensors"), "there is no replay nowhere.safetensors"),
        (("--record", "film.gif"), "--record must be an mp4 file"),
        (("--record", "no/where/film.mp4"), "in a directory that exists"),
        (("--record", "film.mp4", "--seconds", "0"), "--seconds must be more than 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, says, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, *args)
    said = capsys.readouterr().err
    assert left.value.code == 2 and says in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_a_display_it_says_what_would_work(monkeypatch, capsys):
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "--env", "highway-fast")
    assert left.value.code == 2 and "--record FILE.mp4 needs none" in capsys.readouterr().err


def test_recording_a_live_world_and_a_replay(monkeypatch, tmp_path, replay):
    live, again = tmp_path / "live.mp4", tmp_path / "again.mp4"
    call(monkeypatch, "--env", "highway-fast", "--policy", "random", "--record", str(live), "--seconds", "0.5")
    assert len(imageio.imread(live)) == 15
    replays.save(replay, tmp_path / "r.safetensors")
    call(monkeypatch, "--replay", str(tmp_path / "r.safetensors"), "--record", str(again), "--seconds", "1")
    assert len(imageio.imread(again)) == 30


@pytest.mark.parametrize("policy", ["idm", "human"])
def test_highway_env_is_shown_as_well(monkeypatch, tmp_path, policy):
    film = tmp_path / "film.mp4"
    args = ("--env", "highway-fast", "--backend", "highway-env", "--policy", policy)
    call(monkeypatch, *args, "--record", str(film), "--seconds", "0.2")
    assert len(imageio.imread(film)) == 6
