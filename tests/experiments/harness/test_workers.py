"""Pieces of an experiment, and parts of mini-batches, in processes of their own."""

import functools
import multiprocessing.popen_fork
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.harness import workers
from experiments.harness.records import REPOSITORY
from tests.helpers import some_fast


def square_and_threads(number):
    return number**2, os.environ["OMP_NUM_THREADS"], os.getpid()


def fail_at_two(number):
    if number == 2:
        raise ValueError("two is too many")
    time.sleep(60)


@pytest.mark.parametrize("count", some_fast([1, 2], 2))
def test_results_come_in_the_order_of_the_tasks_from_other_processes_with_one_thread(count, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    results = workers.run_tasks(square_and_threads, [3, 1, 2], count)
    assert [square for square, *_ in results] == [9, 1, 4]
    assert {threads for _, threads, _ in results} == {"1"} and os.environ["OMP_NUM_THREADS"] == "7"
    assert os.getpid() not in {process for *_, process in results}


def test_the_first_error_stops_the_others_and_comes_out():
    begun = time.monotonic()
    with pytest.raises(ValueError, match="two is too many"):
        workers.run_tasks(fail_at_two, [1, 2], 2)
    assert time.monotonic() - begun < 30


def kill_itself(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_killed_for_want_of_memory_is_said_to_be():
    with pytest.raises(workers.WorkerDied, match="before its work, by SIGKILL; most often the system had no memory left"):
        workers.run_tasks(kill_itself, [1], 1)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_number_of_workers_that_makes_no_sense(count):
    with pytest.raises(ValueError, match="workers must be a whole number from 1"):
        workers.run_tasks(square_and_threads, [1], count)


def test_no_tasks_are_no_work():
    assert workers.run_tasks(square_and_threads, [], 2) == []


def tell_and_sleep(path):
    with open(path, "w") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(60)


def test_workers_end_with_a_run_that_is_killed(tmp_path):
    files = [tmp_path / "one", tmp_path / "two"]
    script = (
        "from experiments.harness import workers\nfrom tests.experiments.harness.test_workers import tell_and_sleep\n"
        f"if __name__ == '__main__': workers.run_tasks(tell_and_sleep, {[*map(str, files)]}, 2)"
    )
    (tmp_path / "script.py").write_text(script)
    run = subprocess.Popen([sys.executable, tmp_path / "script.py"], env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    deadline = time.monotonic() + 60
    while not all(path.exists() and path.read_text().endswith("\n") for path in files) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    processes = [int(path.read_text()) for path in files]
    while any(is_running(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(process) for process in processes)


def is_running(process):
    """Whether there is such a process, and not only what its parent has yet to ask for."""
    try:
        os.kill(process, 0)
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # ended in between, or a system without /proc
        return not Path("/proc/self").exists()


def make_quadratic(power):
    """A value_and_grad of the mean of (w x - y)^power + b over a batch; it also tells the threads of its process."""

    def value_and_grad(params, x, y):
        if np.isnan(x).any():
            raise FloatingPointError("x is not finite")
        if np.isinf(x).any():
            os._exit(3)
        error = params["w"] * x - y
        return (
            {"loss": np.mean(error**power) + params["b"][0], "threads": float(os.environ["OMP_NUM_THREADS"])},
            {"w": np.mean(power * error ** (power - 1) * x, 0), "b": [np.ones((), params["w"].dtype)]},
        )

    return value_and_grad


make_square = functools.partial(make_quadratic, 2)
PARAMS = {"w": np.array([0.3, -1.2]), "b": [np.array(0.5)]}


@pytest.mark.parametrize("processes", some_fast([1, 2, 3], 2))
@pytest.mark.parametrize("dtype", some_fast(["float32", "float64"], "float32"))
def test_parts_of_a_batch_add_up_to_it(processes, dtype, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, 2)).astype(dtype)
    params = {"w": PARAMS["w"].astype(dtype), "b": [PARAMS["b"][0].astype(dtype)]}
    with workers.data_parallel(make_square, processes) as value_and_grad:
        (metrics, grads), (again, grads_again) = (value_and_grad(params, x, y) for _ in range(2))
    alone, grads_alone = make_square()(params, x, y)
    rounding = 10 * float(np.finfo(dtype).eps)
    assert metrics["loss"] == again["loss"] == pytest.approx(alone["loss"], rel=rounding)
    assert metrics["threads"] == pytest.approx(1) and alone["threads"] == 7
    assert grads["w"].dtype == dtype
    np.testing.assert_allclose(grads["w"], grads_alone["w"], rtol=rounding, atol=rounding)
    np.testing.assert_array_equal(grads["w"], grads_again["w"])
    assert grads["b"][0] == pytest.approx(1, rel=rounding)


def test_an_error_in_a_part_comes_out():
    with pytest.raises(FloatingPointError, match="x is not finite"):
        with workers.data_parallel(make_square, 2) as value_and_grad:
            value_and_grad(PARAMS, np.array([[1.0, 1.0], [np.nan, 1.0]]), np.ones((2, 2)))


def test_the_end_of_a_process_comes_out():
    with pytest.raises(workers.WorkerDied, match="before its work, with status 3;.*the same command goes on"):
        with workers.data_parallel(make_square, 2) as value_and_grad:
            value_and_grad(PARAMS, np.array([[1.0, 1.0], [np.inf, 1.0]]), np.ones((2, 2)))


def test_the_end_of_a_process_comes_out_where_the_pool_asks_for_its_status_first(monkeypatch):
    def poll(self, flag=os.WNOHANG):
        ours = threading.current_thread() is threading.main_thread()
        if self.returncode is None:
            try:
                time.sleep(0.3 if ours else 0)
                pid, status = os.waitpid(self.pid, flag)
            except ChildProcessError:
                return self.returncode
            time.sleep(0 if ours else 2)
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    monkeypatch.setattr(multiprocessing.popen_fork.Popen, "poll", poll)
    test_the_end_of_a_process_comes_out()


def test_a_batch_that_does_not_go_round():
    with workers.data_parallel(make_square, 2) as value_and_grad:
        with pytest.raises(ValueError, match="an example for each of the 2 processes, got 1"):
            value_and_grad(PARAMS, np.ones((1, 2)), np.ones((1, 2)))


@pytest.mark.parametrize("count", [0, -1, 2.0, True])
def test_a_number_of_processes_that_makes_no_sense(count):
    with pytest.raises(ValueError, match="processes must be a whole number from 1"):
        with workers.data_parallel(make_square, count):
            pass
