"""Work in shards: what is done where, in what order and how often must not show in the results."""

import errno
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from envs.errors import UserError
from evaluation import api, parts, recorder, shards, workers
from evaluation.recorder import HELD_OUT_SEED
from evaluation.results import Setting
from evaluation.shards import Task, split

# Three families of two cases each: a shard a family and policy.
COMMON = {"suite": "merge", "cases": 2, "baselines": ("idm",), "keep": 4, "like": "highway", "device": "cpu"}
CODE = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Blocks of two episodes, and no videos."""
    monkeypatch.setattr(recorder, "BLOCK", 2)
    monkeypatch.setattr(api, "write_video", lambda recording, path: path.write_bytes(b"film"))
    monkeypatch.setattr(sys, "argv", ["evaluation"])


def found_in(out: Path) -> dict:
    """results.json without what may differ, and the rest of the files that may not."""
    found = json.loads((out / "results.json").read_text())
    for name in ("created", "machine"):
        del found[name]
    for policy in found["policies"]:
        del policy["seconds"]
    same = [path for path in out.rglob("*") if path.is_file() and path.suffix in (".parquet", ".safetensors")]
    return {"results": found} | {str(path.relative_to(out)): path.read_bytes() for path in same}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What one process finds without anything in its way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "BLOCK", 2)
        patch.setattr(api, "write_video", lambda recording, path: path.write_bytes(b"film"))
        patch.setattr(sys, "argv", ["evaluation"])
        out = tmp_path_factory.mktemp("wanted") / "out"
        api.run("random", out=out, **COMMON)
    return found_in(out)


def test_recordings_are_spread_over_families(wanted):
    tested = wanted["results"]["policies"][0]
    failed = [row["episode"] for row in tested["episodes"] if row["failure"]]
    kept = [recording["episode"] for recording in tested["recordings"] if recording["episode"] in failed]
    assert failed == [0, 1, 2, 3, 4, 5]  # of which two are of each family
    assert sorted([k // 2 for k in kept].count(family) for family in range(3)) == [1, 1, 2]
    assert {name for name in wanted if name.startswith("replays")} == {
        f"replays/episode-{recording['episode']:05}.safetensors" for recording in tested["recordings"]
    }


def test_workers_that_are_killed_change_nothing(tmp_path, wanted, monkeypatch):
    chance, killed = random.Random(0), []

    def kill_one(bars, worlds):
        time.sleep(chance.random() * 0.3)
        children = multiprocessing.active_children()
        if len(killed) < 2 and children:
            killed.append(chance.choice(children).pid)
            os.kill(killed[-1], signal.SIGKILL)

    monkeypatch.setattr(api._Bars, "stepped", kill_one)
    api.run("random", out=tmp_path / "out", workers=2, **COMMON)
    assert len(killed) == 2
    assert found_in(tmp_path / "out") == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_evaluation_goes_on(tmp_path, wanted, monkeypatch):
    compute, done = shards.compute, []

    def interrupted(shard, on_step):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(shard.first)
        return compute(shard, on_step)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "compute", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"2 of 6 parts are kept in .*\.out\.parts, and the same command"):
            api.run("random", out=tmp_path / "out", **COMMON)
    assert not (tmp_path / "out").exists()

    # One of the parts is damaged: it is worked out again.
    damaged = sorted((tmp_path / ".out.parts").glob("part-*.safetensors"), key=lambda path: "episode" in path.name)[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)

    def counted(shard, on_step):
        done.append(shard.first)
        return compute(shard, on_step)

    done.clear()
    monkeypatch.setattr(shards, "compute", counted)
    api.run("random", out=tmp_path / "out", **COMMON)
    assert len(done) == 5
    assert found_in(tmp_path / "out") == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_sigterm_says_what_is_kept(tmp_path):
    command = [sys.executable, "-m", "evaluation", "--env", "highway", "--policy", "random", "--episodes", "100000"]
    command += ["--out", str(tmp_path / "out"), "--workers", "1", "--device", "cpu"]
    with subprocess.Popen(command, cwd=CODE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / ".out.parts").glob("part-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        try:
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    last = said.strip().splitlines()[-1]
    assert "Traceback" not in said and "of 3126 parts are kept" in last, said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_parts(tmp_path, wanted, monkeypatch, number):
    save, saved = parts.save, []

    def full(part, path):
        if len(saved) == 3:
            raise OSError(number, os.strerror(number), str(path))
        saved.append(path)
        save(part, path)

    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.json").write_text("earlier")
    with monkeypatch.context() as patch:
        patch.setattr(parts, "save", full)
        with pytest.raises(UserError) as error:
            api.run("random", out=tmp_path / "out", **COMMON)
    assert os.strerror(number) in str(error.value) and "3 of 6 parts are kept" in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "out/results.json").read_text() == "earlier"
    api.run("random", out=tmp_path / "out", **COMMON)
    assert found_in(tmp_path / "out") == wanted


def test_a_part_that_does_not_fit_on_the_disk_is_not_there(tmp_path):
    task = Task("idm", Setting("highway-fast", "lanewise", 2, HELD_OUT_SEED), keep=0)
    (shard,) = split(task)
    part = shards.compute(shard)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as error:
            parts.save(part, tmp_path / shard.name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno in api.FULL
    assert list(tmp_path.iterdir()) == []


def test_parts_come_back_as_they_were(tmp_path):
    (shard,) = split(Task("random", Setting("highway-fast", "lanewise", 2, HELD_OUT_SEED), keep=2))
    part = shards.compute(shard)
    parts.save(part, tmp_path / shard.name)
    read = parts.load(tmp_path / shard.name)
    for name in part.values:
        assert np.array_equal(read.values[name], part.values[name], equal_nan=True)
        assert np.array_equal(read.valid[name], part.valid[name])
    assert (read.status, read.errors, read.steps) == (part.status, part.errors, part.steps)
    for name, values in part.endings.arrays.items():
        assert np.array_equal(read.endings.arrays[name], values, equal_nan=values.dtype.kind == "f")
    assert read.failures.keys() == part.failures.keys() != set()
    next(iter(read.failures.values())).unlink()
    assert parts.load(tmp_path / shard.name) is None


def test_names_hold_all_that_matters():
    setting = Setting("highway-fast", "lanewise", 4, HELD_OUT_SEED)
    task = Task("idm", setting)
    names = [shard.name for shard in split(task)]
    assert len(set(names)) == 2 and names == [shard.name for shard in split(task)]
    longer = Task("idm", Setting("highway-fast", "lanewise", 5, HELD_OUT_SEED))
    assert [shard.name for shard in split(longer)][:2] == names
    others = [
        Task("random", setting),
        Task("idm", setting, keep=1),
        Task("idm", setting, shield="rss"),
        Task("idm", setting, device="cuda"),
        Task("idm", Setting("highway-fast", "lanewise", 4, HELD_OUT_SEED + 1)),
        Task("idm", Setting("highway", "lanewise", 4, HELD_OUT_SEED)),
        Task("idm", Setting("highway-fast", "highway-env", 4, HELD_OUT_SEED)),
        Task("idm", Setting("stage", "lanewise", 12, HELD_OUT_SEED, "r157"), count=2),
    ]
    everything = [shard.name for other in others for shard in split(other)]
    assert len({*everything, *names}) == len(everything) + len(names)


def test_shards_hold_cases_of_one_family_each_in_its_world(monkeypatch):
    monkeypatch.setattr(recorder, "BLOCK", 4)
    task = Task("idm", Setting("stage", "lanewise", 36, HELD_OUT_SEED, "r157"), count=6)
    work = split(task)
    assert [(shard.first, shard.count) for shard in work[:4]] == [(0, 4), (4, 2), (6, 4), (10, 2)]
    assert sum(shard.count for shard in work) == 36
    for shard in work:
        mine = task.cases[shard.first : shard.first + shard.count]
        assert len({case.family for case in mine}) == 1
        placed, number = shards.in_place(mine), int(mine[0].id[-4:])
        for k, case in enumerate(mine):
            assert placed[(number + k) % len(placed)] == case


def test_a_case_is_the_same_in_its_block_and_alone(monkeypatch):
    setting = Setting("stage", "lanewise", 30, HELD_OUT_SEED, "r157")
    found = []
    for block in (5, 2):
        monkeypatch.setattr(recorder, "BLOCK", block)
        work = [shard for shard in split(Task("idm", setting, count=5)) if shard.first // 5 == 1]
        found.append([shards.compute(shard) for shard in work])
    for name in found[0][0].values:
        together = found[0][0].values[name]
        apart = np.concatenate([part.values[name] for part in found[1]])
        assert np.allclose(together, apart, rtol=1e-6, atol=0, equal_nan=True), name


def test_a_shard_that_kills_its_workers_is_given_up():
    (shard,) = split(Task("idm", Setting("highway", "lanewise", 2, HELD_OUT_SEED)))
    process = SimpleNamespace(join=lambda seconds: None, exitcode=-9)
    deaths = Counter()
    for _ in range(workers.MAX_DEATHS - 1):
        assert workers._once_more(SimpleNamespace(shard=shard, process=process), deaths) is shard
    with pytest.raises(UserError, match=r"'idm' through episodes 0 to 1 was killed 3 times \(exit code -9\)"):
        workers._once_more(SimpleNamespace(shard=shard, process=process), deaths)


class FakeRay:
    """Ray's functions that are used, in this process."""

    def __init__(self):
        self.said, self.options = [], {}

    def init(self, **options):
        self.options = options
        if options["address"] == "nowhere":
            raise ConnectionError("Could not find any running Ray instance.")

    def remote(self, **options):
        return lambda function: SimpleNamespace(remote=lambda shard: (function, shard))

    def wait(self, tasks, num_returns):
        return tasks[-1:], tasks[:-1]

    def get(self, task):
        function, shard = task
        return function(shard)

    def cancel(self, task):
        self.said.append("cancelled")

    def shutdown(self):
        self.said.append("shut down")


def test_ray_finds_the_same(tmp_path, wanted, monkeypatch):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    api.run("random", out=tmp_path / "out", ray_address="auto", **COMMON)
    assert found_in(tmp_path / "out") == wanted
    assert ray.options["address"] == "auto" and ray.said == ["shut down"]
    with pytest.raises(UserError, match="no Ray cluster answers at 'nowhere'"):
        api.run("random", out=tmp_path / "other", ray_address="nowhere", **COMMON)


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'lanewise\[ray\]'"):
        api.run("random", out=tmp_path / "out", ray_address="auto", **COMMON)


def test_an_object_drives_in_its_own_process_only(tmp_path):
    with pytest.raises(UserError, match="name it MODULE:NAME"):
        api.run(lambda obs: np.ones(len(obs["state"]), int), out=tmp_path / "out", workers=2, **COMMON)
    assert list(tmp_path.iterdir()) == []
