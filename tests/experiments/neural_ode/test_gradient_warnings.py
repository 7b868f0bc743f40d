"""gradient_warnings: outcomes of gradients that are known to be right or wrong, a tiny run."""

import json

import numpy as np
import pytest

from experiments import command_line
from experiments.neural_ode import gradient_warnings

LIMITS = gradient_warnings.LIMITS


def measured(problem, part, way, method, tolerance, limits=LIMITS):
    about = {"problem": problem, "time": part * gradient_warnings.classics.PROBLEMS[problem][2]}
    reference = {"part": "reference", **about}
    reference |= gradient_warnings.measure(LIMITS, reference, [])
    task = {"part": "gradient", **about, "way": way, "method": method, "tolerance": tolerance}
    return reference, gradient_warnings.measure(limits, task, [reference])


def test_a_reference_is_that_of_the_formula():
    """A1: y = exp(-k t) y0, at t = 5."""
    reference, row = measured("A1", 0.25, "auto", "adams", 1e-6)
    assert reference["gradient"] == pytest.approx(np.sin(1.0) * np.exp(-5.0) * np.array([1.0, -5.0]), rel=1e-6)
    assert row["outcome"] == "right" and row["error"] < 1e-3 and row["kinds"] == []


@pytest.mark.parametrize(
    "point, outcome, kinds",
    [
        (("brusselator", 0.5, "auto", "lsoda", 1e-3), "wrong, said", ["hardly_found"]),
        (("brusselator", 0.5, "auto", "lsoda", 1e-8), "right", []),
        (("brusselator", 0.5, "auto", "lsoda", 1e-3, {**LIMITS, "wrong": 1e3}), "right, with an alarm", ["hardly_found"]),
        (("brusselator", 0.5, "auto", "lsoda", 1e-3, {**LIMITS, "steps": 10}), "raised", None),
        (("A1", 0.25, "auto", "adams", 1e-6, {**LIMITS, "wrong": 1e-12}), "wrong in silence", []),
    ],
    ids=str,
)
def test_outcomes(point, outcome, kinds):
    row = measured(*point)[1]
    assert row["outcome"] == outcome and row.get("kinds") == kinds


def test_without_a_reference_nothing_is_judged():
    reference = {"part": "reference", "gradient": None}
    assert gradient_warnings.measure(LIMITS, {"part": "gradient"}, [reference]) == {"outcome": None}


def test_a_run(tmp_path):
    assert command_line.main(["run", "gradient_warnings", "--out", str(tmp_path), "--checkpoints", str(tmp_path / "c")]) == 0
    record = json.loads((tmp_path / "runs" / "gradient_warnings" / "quick-seed0.json").read_text())
    metrics = record["metrics"]
    outcomes = ("right", "right_with_an_alarm", "wrong_said", "wrong_in_silence", "raised")
    assert sum(metrics[name] for name in outcomes) == metrics["gradients"] == 16 and metrics["no_reference"] == 0
    table = gradient_warnings.table([("", record)])
    assert "off balance" in table and "discrete" in table
