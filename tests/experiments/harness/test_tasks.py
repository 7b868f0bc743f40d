"""Lists of measurements: going on from a checkpoint, shared among processes."""

import os
import time
from pathlib import Path

import pytest

from experiments.harness.tasks import measure_all
from original_repro import computed, training


def test_measurements_go_on_from_a_checkpoint_and_only_from_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(computed, "commit", lambda: "a" * 40)
    checkpoint, tasks, measured = tmp_path / "run.npz", [{"part": "floor", "n": n} for n in range(4)], []

    def measure(task, rows):
        assert [row["n"] for row in rows] == list(range(task["n"]))
        if task["n"] == 2 and len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(task["n"])
        return {"value": 10 * task["n"]}

    with pytest.raises(KeyboardInterrupt):
        measure_all(tasks, measure, checkpoint, {"weights": "a"})
    measured.append("interrupted")
    monkeypatch.setattr(computed, "commit", lambda: "b" * 40)
    rows, seconds = measure_all(tasks, measure, checkpoint, {"weights": "a"})
    assert measured == [0, 1, "interrupted", 2, 3] and seconds > 0
    assert rows == [{"part": "floor", "n": n, "value": 10 * n} for n in range(4)]
    assert [one["commit"] for one in training.sessions_of(checkpoint)] == ["a" * 40, "b" * 40]
    with pytest.raises(training.CheckpointError, match="other weights"):
        measure_all(tasks, measure, checkpoint, {"weights": "b"})


def ten_times(task, rows):
    if "after" in task and rows == ():
        while not Path(task["after"]).exists():
            time.sleep(0.01)
        raise FloatingPointError("five is too many")
    return {"value": 10 * task["n"], "before": [row["n"] for row in rows], "process": os.getpid()}


def test_measurements_shared_among_processes_are_the_same_but_for_those_made_alone(tmp_path):
    tasks = [{"part": part, "n": n} for n, part in enumerate(("floor", "state", "forward", "test", "backward", "floor"))]
    rows, _ = measure_all(tasks, ten_times, tmp_path / "run.npz", {}, 2, alone=("floor", "forward"))
    assert [(row["part"], row["value"]) for row in rows] == [(task["part"], 10 * task["n"]) for task in tasks]
    assert [row["process"] == os.getpid() for row in rows] == [task["part"] in ("floor", "forward") for task in tasks]
    assert [row["before"] for row in rows] == [[], [], [0], [], [], [0, 2]]


def test_what_processes_measured_before_an_error_is_kept(tmp_path):
    checkpoint = tmp_path / "run.npz"
    tasks = [{"part": "test", "n": 3}, {"part": "test", "n": 4}, {"part": "test", "n": 5, "after": str(checkpoint)}]
    with pytest.raises(FloatingPointError, match="five is too many"):
        measure_all(tasks, ten_times, checkpoint, {}, 2)
    kept = training.load_checkpoint(checkpoint)["rows"]
    assert kept and all(kept[place]["value"] == 10 * tasks[place]["n"] for place in kept)
    rows, _ = measure_all(tasks, ten_times, checkpoint, {})  # alone, five is not too many
    assert [row["value"] for row in rows] == [30, 40, 50]


@pytest.mark.parametrize("count", [0, -2])
def test_a_number_of_processes_that_makes_no_sense(tmp_path, count):
    with pytest.raises(ValueError, match="workers must be a whole number from 1"):
        measure_all([], ten_times, tmp_path / "run.npz", {}, count)
