"""Sweeps: every combination a run of its own, here and on a Dask cluster, a worker of which is killed on the way."""

import json
import os
import signal
import threading
import time

import pytest

from experiments import Places, command_line
from experiments.harness import own_process, sweep
from experiments.harness.workers import run_tasks
from experiments.neural_ode import table1_mnist

OPTIONS = {option.name: option for option in table1_mnist.RunSettings.options()}


def records(folder, experiment):
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "runs" / experiment).glob("*.json"))
    }


@pytest.mark.parametrize(
    "name, text, values",
    [
        ("seed", "0-3", [0, 1, 2, 3]),
        ("seed", "7,1-2", [7, 1, 2]),
        ("model", "odenet,mlp", ["odenet", "mlp"]),
        ("rate", "0.1,1e-2", [0.1, 0.01]),
    ],
)
def test_lists_and_ranges(name, text, values):
    assert sweep.values_of(OPTIONS[name], text) == values


def test_every_combination_is_planned_as_the_settings_of_one_run():
    every = sweep.plan(table1_mnist.RunSettings, {"seed": [0, 1], "model": ["odenet", "mlp"]})
    assert [one.stem for one in every] == ["quick-seed0", "quick-seed0-model=mlp", "quick-seed1", "quick-seed1-model=mlp"]


@pytest.mark.parametrize(
    "words, match",
    [
        (["--seeds", "3-1"], "a range goes upwards"),
        (["--seeds", "a"], "--seed must be a list of ints"),
        (["--model", "odenet,nothing"], "--model must be one of"),
        (["--workers", "0"], "workers must be a whole number from 1"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_run(words, match, capsys, tmp_path):
    with pytest.raises(SystemExit):
        command_line.main(["sweep", "table1_mnist", *words, "--out", str(tmp_path)])
    assert match in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_sweep_leaves_the_records_of_single_runs_goes_on_and_tells_of_failures(tmp_path, capsys, monkeypatch):
    words = ["--model", "mlp", "--epochs", "1", "--preset", "quick", "--checkpoints", str(tmp_path / "checkpoints")]
    assert (
        command_line.main(["sweep", "table1_mnist", "--seeds", "0-1", *words, "--workers", "2", "--out", str(tmp_path / "swept")])
        == 0
    )
    assert "2 runs done, 0 were there, 0 failed" in capsys.readouterr().out
    for seed in "01":
        assert (
            command_line.main(
                ["run", "table1_mnist", "--seed", seed, *words[:-1], str(tmp_path / "alone"), "--out", str(tmp_path / "run")]
            )
            == 0
        )
    swept, alone = records(tmp_path / "swept", "table1_mnist"), records(tmp_path / "run", "table1_mnist")
    assert list(swept) == list(alone) == ["quick-seed0-epochs=1-model=mlp", "quick-seed1-epochs=1-model=mlp"]
    for stem, record in swept.items():
        assert record["metrics"]["error_rate"] == pytest.approx(alone[stem]["metrics"]["error_rate"], abs=0.01)
        assert record["configuration"] == alone[stem]["configuration"]
    capsys.readouterr()
    assert command_line.main(["sweep", "table1_mnist", "--seeds", "0-1", *words, "--out", str(tmp_path / "swept")]) == 0
    assert "0 runs done, 2 were there" in capsys.readouterr().out
    # Needs weights that nobody made there.
    failing = ["--checkpoints", str(tmp_path / "checkpoints"), "--out", str(tmp_path / "failed")]
    assert command_line.main(["sweep", "figures8to10_latent_ode", *failing]) == 1
    assert "failed with status" in capsys.readouterr().err


def note_and_wait(order):
    """A task that tells which process does it, and takes its time only where it is begun for the first time."""
    folder, number = order
    with open(f"{folder}/{number}.txt", "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {os.getppid()}\n")
    begun = len(open(f"{folder}/{number}.txt", encoding="utf-8").readlines())
    if begun == 1:
        time.sleep(20)
    return number**2


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_finishes_and_nothing_of_it_goes_on(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        killed = []

        def kill():
            deadline = time.monotonic() + 60
            while not (tmp_path / "0.txt").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            worker = int((tmp_path / "0.txt").read_text(encoding="utf-8").split()[1])
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

        threading.Thread(target=kill).start()
        assert run_tasks(note_and_wait, [(str(tmp_path), n) for n in range(3)], 2, scheduler=cluster.scheduler_address) == [
            0,
            1,
            4,
        ]
    assert killed
    attempts = [line.split()[0] for line in (tmp_path / "0.txt").read_text(encoding="utf-8").splitlines()]
    assert len(attempts) == 2 and not os.path.exists(f"/proc/{attempts[0]}")


@pytest.mark.slow
def test_a_sweep_on_a_cluster_one_of_whose_workers_is_killed(tmp_path, capsys):
    distributed = pytest.importorskip("distributed")
    words = ["sweep", "table1_mnist", "--seeds", "0-2", "--model", "mlp", "--epochs", "2"]
    words += ["--out", str(tmp_path / "out"), "--checkpoints", str(tmp_path / "checkpoints")]
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        victim = cluster.workers[0].pid

        def kill():
            deadline = time.monotonic() + 120
            while not list(tmp_path.glob("checkpoints/table1_mnist/**/*.npz")) and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(victim, signal.SIGKILL)

        threading.Thread(target=kill).start()
        assert command_line.main([*words, "--scheduler", cluster.scheduler_address]) == 0
        assert cluster.workers[0].pid != victim
    found = records(tmp_path / "out", "table1_mnist")
    assert len(found) == 3 and all(0 < record["metrics"]["error_rate"] < 1 for record in found.values())
    assert "3 runs done" in capsys.readouterr().out


def test_a_scheduler_without_dask_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ImportError, match="neural-ode-repro\\[cluster\\]"):
        run_tasks(note_and_wait, [(str(tmp_path), 0)], 1, scheduler="tcp://127.0.0.1:1")


def fail(task):
    print("what a task prints is no part of its answer")
    raise ValueError(f"{task} is too many")


def test_a_task_in_its_own_process_has_its_environment_and_its_error_comes_out():
    assert own_process.call(os.getenv, "OMP_NUM_THREADS", {"OMP_NUM_THREADS": "1"}) == "1"
    with pytest.raises(ValueError, match="two is too many"):
        own_process.call(fail, "two", {})
    with pytest.raises(RuntimeError, match="status 3 and no result"):
        own_process.call(os._exit, 3, {})


def test_places_of_a_sweep_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = table1_mnist.RunSettings(model="mlp")
    words = sweep._arguments(command_line.EXPERIMENTS["table1_mnist"], one, Places(out="here", fresh=True))
    assert f"--out={tmp_path}/here" in words and "--model=mlp" in words and words[-1] == "--fresh"
