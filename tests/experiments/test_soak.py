"""Runs killed at random moments, again and again, end as those left alone: records, weights, no process and no file too many.

NEURAL_ODE_REPRO_SOAK="table1_mnist figure4_flows" chooses experiments, NEURAL_ODE_REPRO_SOAK_KILLS=50 how many kills there are
in all; by default all that go on from checkpoints, and fifty.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import command_line
from experiments.harness.records import REPOSITORY
from original_repro.training import load_weights, tree_leaves
from tests.experiments.harness.test_process import descendants, living

# The ODE-Net would take four minutes on two idle cores; the MLP is trained by the same code, shared among processes too.
OPTIONS = {"table1_mnist": ["--model", "mlp", "--processes", "2"]}
RESUMED = [name for name, experiment in command_line.EXPERIMENTS.items() if experiment.resumes]
CHOSEN = os.environ.get("NEURAL_ODE_REPRO_SOAK", "").split() or RESUMED
KILLS = int(os.environ.get("NEURAL_ODE_REPRO_SOAK_KILLS", "50"))
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
ENDING = 120.0  # seconds: a signal waits for the end of a compilation or a solve, which a busy machine makes long
SHORTEST = 2.0  # seconds until a kill: Python has hardly begun


def start(name, folder):
    """A run, with weights of experiments that it needs from the project's own."""
    needs = command_line.EXPERIMENTS[name].needs
    weights = ["--weights", str(REPOSITORY / "results" / "weights" / f"{needs}-paper-seed0.npz")] if needs else []
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments", "run", name, *OPTIONS.get(name, []), *weights),
            *("--out", str(folder / "out"), "--checkpoints", str(folder / "checkpoints")),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(name, folder):
    run, begun = start(name, folder), time.monotonic()
    _, errors = run.communicate(timeout=3600)
    assert run.returncode == 0, errors.decode()
    return time.monotonic() - begun


def kill(name, folder, seconds, number):
    """Start a run and end it by a signal after so many seconds; whether it was not done by then."""
    run = start(name, folder)
    try:
        _, errors = run.communicate(timeout=seconds)
        assert run.returncode == 0, errors.decode()
        return False
    except subprocess.TimeoutExpired:
        pass
    everyone = descendants(run.pid)
    run.send_signal(number)
    run.communicate(timeout=ENDING)
    time.sleep(2)
    assert not living(everyone), f"{name} left processes after {number.name}"
    return True


def without_times(node):
    """A part of a record without what clocks decide: times, and how many solves fill a time."""
    if isinstance(node, dict):
        kept = {
            key: value for key, value in node.items() if key != "solves" and not any(word in key for word in ("second", "time"))
        }
        return {key: without_times(value) for key, value in kept.items()}
    return [without_times(one) for one in node] if isinstance(node, list) else node


def result(folder):
    """(record's numbers, arrays of the weights) of a run."""
    (path,) = folder.glob("out/runs/*/*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    weights = [leaf for path in sorted(folder.glob("out/weights/*.npz")) for leaf in tree_leaves(load_weights(path))]
    return {part: without_times(record[part]) for part in ("configuration", "metrics", "history")}, weights


@pytest.mark.slow
@pytest.mark.parametrize("place, name", list(enumerate(CHOSEN)))
def test_a_run_killed_again_and_again_ends_as_one_left_alone(tmp_path, place, name):
    alone, disturbed = tmp_path / "alone", tmp_path / "disturbed0"
    takes = finish(name, alone)
    kills = KILLS // len(CHOSEN) + (place < KILLS % len(CHOSEN))
    moments, done = random.Random(), 0
    while done < kills:
        # On the whole as long as the run, since each goes on from about where the one before was killed.
        seconds = moments.uniform(SHORTEST, max(2 * SHORTEST, 2 * takes / kills))
        if kill(name, disturbed, seconds, moments.choice(SIGNALS)):
            done += 1
            print(f"{name}: killed after {seconds:.1f} s, {done} of {kills}", flush=True)
        else:
            assert_same(alone, disturbed, name)
            disturbed = tmp_path / f"disturbed{done}"
    assert_same(alone, disturbed, name)


def assert_same(alone, disturbed, name):
    """The disturbed run, once it has come to its end, left what the other one did."""
    finish(name, disturbed)
    (numbers, weights), (expected, expected_weights) = result(disturbed), result(alone)
    assert numbers == expected
    for one, other in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(one, other)
    left = [path for path in disturbed.rglob("*") if path.name.endswith((".tmp", ".lock"))]
    assert not left
    assert tree(disturbed) == tree(alone)


def tree(folder):
    """Names of all that is in it, but for the folder of checkpoints itself: one that is there already is not ours to remove."""
    return sorted({path.relative_to(folder).as_posix() for path in folder.rglob("*")} - {"checkpoints"})
