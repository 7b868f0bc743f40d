"""Runs stopped at any moment and started again end as those left alone, bit for bit."""

import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from original_repro import atomic_writes, computed, locks, training
from original_repro.training import (
    CheckpointError,
    adam,
    constant,
    fit,
    load_checkpoint,
    minibatches,
    resuming,
    rmsprop,
    save_checkpoint,
    sessions_of,
    sgd,
)
from tests.training_runs import Killed, assert_same_run, killed_at, norm, same_bits, small_run, squares, without_times


def test_run_stopped_at_any_step_ends_the_same(tmp_path):
    expected = small_run()
    for count in range(1, 25):
        path = tmp_path / f"{count}.npz"
        with pytest.raises(Killed):
            small_run(path, killed_at(count, squares))
        calls = []

        def counted(*arguments):
            calls.append(1)
            return squares(*arguments)

        assert_same_run(small_run(path, counted), expected)
        assert len(calls) <= 24 - (count - 1) + 1  # at most checkpoint_every - 1 steps are done again


def test_run_stopped_in_any_evaluation_or_save_ends_the_same(tmp_path, monkeypatch):
    expected = small_run()
    for count in range(1, 5):
        with pytest.raises(Killed):
            small_run(tmp_path / f"evaluation {count}", evaluate=killed_at(count, norm))
        assert_same_run(small_run(tmp_path / f"evaluation {count}"), expected)
    for count in range(1, 17):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(atomic_writes.os, "replace", killed_at(count, os.replace))
            small_run(tmp_path / f"save {count}")
        assert_same_run(small_run(tmp_path / f"save {count}"), expected)


@pytest.mark.parametrize("optimiser", [sgd(), adam(), rmsprop(momentum=0.8)], ids=["sgd", "adam", "rmsprop"])
def test_every_optimiser_resumes_exactly(tmp_path, optimiser):
    with pytest.raises(Killed):
        small_run(tmp_path / "c", killed_at(10, squares), optimiser=optimiser)
    assert_same_run(small_run(tmp_path / "c", optimiser=optimiser), small_run(optimiser=optimiser))


def test_memory_order_of_the_parameters_does_not_tell_a_resumed_run_from_another(tmp_path):
    orders = []

    def spy(params, index):
        orders.append(params[0].flags.c_contiguous and params[1].flags.c_contiguous)
        return {"loss": 1.0}, [np.ones((4, 3)).T, np.ones((2, 3, 4)).transpose(1, 0, 2)]

    params = [np.zeros((4, 3)).T, np.zeros((2, 3, 4)).transpose(1, 0, 2)]
    fit(
        spy,
        params,
        batches=minibatches((np.arange(6),), 2),
        optimiser=adam(),
        schedule=constant(0.1),
        epochs=2,
        seed=0,
        progress=False,
    )
    assert orders == [True] * 6


def test_finished_run_returns_at_once(tmp_path):
    finished = small_run(tmp_path / "runs" / "c.npz")
    again = small_run(tmp_path / "runs" / "c.npz", killed_at(1, squares), evaluate=killed_at(1, dict))
    assert same_bits(again, finished)


def test_checkpoint_every_so_many_seconds(tmp_path, monkeypatch):
    saves = []
    monkeypatch.setattr(resuming, "save_checkpoint", lambda path, state, before: saves.append(state["run"]["step"]))
    small_run(tmp_path / "c", checkpoint_every=10**6, checkpoint_seconds=1e9)
    assert saves == [6, 12, 18, 24]
    saves.clear()
    small_run(tmp_path / "c", checkpoint_every=10**6, checkpoint_seconds=1e-9)
    assert sorted(set(saves)) == list(range(1, 25))
    saves.clear()
    small_run(tmp_path / "c", checkpoint_every=4, epochs=1)
    assert saves == [4, 6]


def test_a_longer_run_goes_on_from_a_shorter_one_at_a_constant_rate_only(tmp_path):
    whole = small_run(epochs=3, schedule=constant(0.1))
    shorter = small_run(tmp_path / "c", epochs=2, schedule=constant(0.1))
    longer = small_run(tmp_path / "c", epochs=3, schedule=constant(0.1))
    assert_same_run(longer, whole)
    assert len(shorter[1]) == 2
    with pytest.raises(CheckpointError, match="epochs was 3 and is 2"):
        small_run(tmp_path / "c", epochs=2, schedule=constant(0.1))
    # A warm-up to a constant rate, as long as a part of the run: equal at the quarters of both lengths, and not the same run.
    small_run(tmp_path / "warmed", epochs=2, schedule=lambda step: 0.1 * min(step, 2))
    with pytest.raises(CheckpointError, match="epochs was 2 and is 4"):
        small_run(tmp_path / "warmed", epochs=4, schedule=lambda step: 0.1 * min(step, 4) / 2)
    with pytest.raises(CheckpointError, match="epochs was 3 and is 4.*learning_rates"):
        small_run(tmp_path / "c", epochs=4, schedule=training.warmup_cosine(0.1, 24, 2))


@pytest.mark.parametrize(
    "changes, parts",
    [
        (dict(configuration={"network": {"width": 4}, "name": "small"}), ["configuration.network.width was 3 and is 4"]),
        (dict(configuration={"network": {"width": 3}}), ["configuration.name was 'small' and is absent"]),
        (dict(configuration=None), ["configuration.name was 'small' and is absent", "configuration.network"]),
        (dict(batch_size=5, seed=9), ["batch_size was 4 and is 5", "seed was 7 and is 9"]),
        (dict(epochs=5), ["epochs was 4 and is 5"]),
        (dict(drop_last=True), ["drop_last was False and is True"]),
        (dict(optimiser=adam(beta1=0.8)), ["optimiser.beta1 was 0.9 and is 0.8"]),
        (dict(optimiser=sgd()), ["optimiser.name was 'adam' and is 'sgd'"]),
        (dict(schedule=constant(0.1)), ["learning_rates[1]"]),
        (dict(params={"w": np.zeros(3, np.float32), "b": np.zeros(())}), ["params.w was 'float64 (3,)' and is 'float32 (3,)'"]),
        (dict(data=(np.ones((24, 3)), np.ones(24))), ["data[0]", "(24, 3)"]),
    ],
)
def test_resuming_with_another_configuration_says_what_differs(tmp_path, changes, parts):
    with pytest.raises(Killed):
        small_run(tmp_path / "c.npz", killed_at(9, squares))
    kept = (tmp_path / "c.npz").read_bytes()
    with pytest.raises(CheckpointError) as caught:
        small_run(tmp_path / "c.npz", **changes)
    assert all(part in str(caught.value) for part in ["c.npz", *parts])
    assert "name was 'small' and is 'small'" not in str(caught.value)
    assert (tmp_path / "c.npz").read_bytes() == kept


@pytest.mark.parametrize(
    "changes, part",
    [
        (dict(params={"w": np.ones(3), "b": np.zeros(())}), "sha256_of_initial_params"),
        (dict(data=(np.ones((23, 3)), np.ones(23))), "sha256_of_data"),
    ],
)
def test_parameters_and_data_of_the_same_shapes_are_others_by_their_content(tmp_path, changes, part):
    """A fit that begins with weights from a file is of that file."""
    with pytest.raises(Killed):
        small_run(tmp_path / "c.npz", killed_at(9, squares))
    with pytest.raises(CheckpointError, match=f"of another configuration: {part} was '[0-9a-f]*' and is '[0-9a-f]*'. Restore"):
        small_run(tmp_path / "c.npz", **changes)


def test_a_checkpoint_tells_which_sessions_computed_it(tmp_path, monkeypatch):
    for commit, killed in (("a" * 40, True), ("b" * 40, True), ("b" * 40, False)):
        monkeypatch.setattr(computed, "commit", lambda: commit)
        with pytest.raises(Killed) if killed else contextlib.nullcontext():
            small_run(tmp_path / "c.npz", killed_at(7, squares) if killed else squares)
    found = sessions_of(tmp_path / "c.npz")
    assert [one["commit"] for one in found] == ["a" * 40, "b" * 40]
    monkeypatch.setattr(computed, "commit", lambda: "c" * 40)
    small_run(tmp_path / "c.npz")  # computes nothing
    assert sessions_of(tmp_path / "c.npz") == found
    assert all(set(one) == {"commit", "environment", "from", "to"} and one["from"] <= one["to"] for one in found)


def test_same_configuration_is_the_same_however_it_is_written(tmp_path):
    small_run(tmp_path / "c", configuration={"sizes": (1, 2), "rate": math.nan, 3: None})
    small_run(tmp_path / "c", configuration={"3": None, "rate": math.nan, "sizes": [1, 2]})


def test_checkpoint_of_something_else_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c.npz", {"weights": np.ones(3)})
    with pytest.raises(CheckpointError, match="c.npz.*not one that fit wrote"):
        small_run(tmp_path / "c.npz")


def test_checkpoint_of_an_earlier_release_goes_on(tmp_path):
    """Written by small_run, stopped at its 15th step by version 0.1.0, when training was one module."""
    shutil.copy(Path(__file__).with_name("checkpoint_of_version_1.npz"), tmp_path / "c.npz")
    calls = []
    params, history = small_run(tmp_path / "c.npz", lambda *arguments: calls.append(1) or squares(*arguments))
    assert len(calls) == 10
    expected, expected_history = small_run()
    # Not bit for bit: the file's first steps may have been another processor's.
    np.testing.assert_allclose(params["w"], expected["w"], rtol=1e-12)
    for record, other in zip(without_times(history), without_times(expected_history), strict=True):
        assert record["train"] == pytest.approx(other["train"], rel=1e-12)


@pytest.mark.skipif(locks.fcntl is None, reason="no file locks on this system")
def test_checkpoint_of_a_live_run_is_refused_to_another_and_its_half_written_file_left_alone(tmp_path):
    temporary, refusals = tmp_path / "c.npz.0123456789abcdef.tmp", []

    def another_begins(params):
        if not refusals:
            temporary.touch()
            with pytest.raises(
                CheckpointError, match=f"c.npz is in use by a run that is alive, of process {os.getpid()}"
            ) as caught:
                small_run(tmp_path / "c.npz")
            refusals.append(caught.value)
            assert temporary.exists()
        return norm(params)

    assert_same_run(small_run(tmp_path / "c.npz", evaluate=another_begins), small_run())
    assert len(refusals) == 1
    strangers = [tmp_path / name for name in ("c.npz.tmp", "c.npz.b.0123456789abcdef.tmp", "d.npz.0123456789abcdef.tmp")]
    for stranger in strangers:
        stranger.touch()
    small_run(tmp_path / "c.npz")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "c.npz", *strangers])


PROGRAM = textwrap.dedent("""
    import itertools, pathlib, sys, time
    import numpy as np
    from original_repro.training import adam, fit, minibatches, random_crops, save_checkpoint, warmup_cosine

    folder, steps_before_the_end = pathlib.Path(sys.argv[1]), itertools.count(-int(sys.argv[2]))
    rng = np.random.default_rng(11)
    images, labels = rng.integers(0, 256, (90, 8, 8), np.uint8), rng.integers(0, 10, 90)
    params = {"hidden": (rng.normal(size=(16, 64)).astype(np.float32).T / 8, np.zeros(16, np.float32)),
              "head": [rng.normal(size=(16, 10)) / 4, np.zeros(10)]}

    def value_and_grad(params, x, y):
        if next(steps_before_the_end) == 0:
            time.sleep(600)
        (w, b), (v, c) = params["hidden"], params["head"]
        x = x.reshape(len(x), -1) / np.float32(255)
        h = np.tanh(x @ w + b)
        p = np.exp(h @ v + c)
        p /= p.sum(1, keepdims=True)
        rows = np.arange(len(y))
        loss, accuracy = -np.log(p[rows, y]).mean(), (p.argmax(1) == y).mean()
        p[rows, y] -= 1
        p /= len(y)
        dh = (p @ v.T) * (1 - h**2)
        return {"loss": loss, "accuracy": accuracy}, {"hidden": (x.T @ dh, dh.sum(0)), "head": [h.T @ p, p.sum(0)]}

    print("training", flush=True)
    batches = minibatches((images, labels), 8, drop_last=False,
                          augment=lambda batch, rng: (random_crops(batch[0], rng, 2), batch[1]))
    result = fit(value_and_grad, params, batches=batches, optimiser=adam(), schedule=warmup_cosine(0.02, 60, 5), epochs=5, seed=3,
                 evaluate=lambda params: {"size": abs(params["head"][0]).sum()},
                 checkpoint=folder / "run.npz", checkpoint_every=2, configuration={"program": "digits"}, progress=False)
    save_checkpoint(folder / "result.npz", result)
""")


def start(folder, steps=1000):
    """The program as a process, begun to train; after so many steps it waits to be killed."""
    environment = os.environ | {"PYTHONPATH": str(Path(training.__file__).parents[2]), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(steps)]
    program = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert program.stdout.readline() == b"training\n"
    return program


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_and_started_again_gives_the_same_weights(tmp_path):
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    alone.mkdir()
    stopped.mkdir()
    with start(alone) as program:
        assert program.wait(60) == 0
    # Eight steps at most each time, so that none of the four comes to the end of the 60, however late the kill.
    moments, steps = random.Random(), []
    for last in [False] * 3 + [True]:
        with start(stopped, 8) as program:
            time.sleep(moments.uniform(0.0, 0.05))
            while last and not (stopped / "run.npz").exists():
                time.sleep(0.01)
            program.kill()
            assert program.wait(60) == -signal.SIGKILL
        if (stopped / "run.npz").exists():
            steps.append(load_checkpoint(stopped / "run.npz")["run"]["step"])
    assert steps == sorted(steps) and any(0 < step < 60 for step in steps)
    with start(stopped) as program:
        assert program.wait(60) == 0
    assert_same_run(load_checkpoint(stopped / "result.npz"), load_checkpoint(alone / "result.npz"))
    assert sorted(path.name for path in stopped.iterdir()) == ["result.npz", "run.npz"]
