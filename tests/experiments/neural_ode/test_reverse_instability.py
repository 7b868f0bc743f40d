"""reverse_instability: its references, the limits of a point, a tiny run with every kind of outcome that it tells apart."""

import json

import numpy as np
import pytest
from autograd import jacobian

from experiments import Places, command_line
from experiments.neural_ode import reverse_instability
from experiments.neural_ode.reverse_instability import points, problems

LIMITS = {**reverse_instability.LIMITS, "checkpoints": 10, "sizes": {}}


@pytest.mark.parametrize("name, value", [("relaxation", 30.0), ("van_der_pol", 4.0), ("robertson", 1.0)])
def test_derivatives_by_hand(name, value):
    """Beside autograd's of the function that is solved."""
    problem = problems.SMALL[name](value)
    func = problems.autograd_function(problem)
    point = 0.3, np.array([0.9, 2e-5, 0.1])[: len(problem.y0)], problem.params
    f, by_y, by_p = problems.derivatives(name, *point)
    np.testing.assert_allclose(f, func(*point), rtol=1e-13)
    np.testing.assert_allclose(by_y, jacobian(func, 1)(*point), rtol=1e-13)
    np.testing.assert_allclose(by_p, jacobian(func, 2)(*point), rtol=1e-13)


def test_a_reference_is_that_of_the_formula():
    """dy/dlambda of y = A cos t + B sin t + (1.2 - A) exp(-lambda t), A = l^2/(1 + l^2), B = l/(1 + l^2)."""
    rate, h = 30.0, 1e-3

    def y(rate):
        n = 1 + rate**2
        return rate**2 / n * np.cos(1.0) + rate / n * np.sin(1.0) + (1.2 - rate**2 / n) * np.exp(-rate)

    row = points.measure(LIMITS, Places(), {"part": "reference", "problem": "relaxation", "value": rate}, [])
    assert row["gradient"] == pytest.approx((y(rate + h) - y(rate - h)) / (2 * h), rel=1e-7)
    assert row["second_way"] < 1e-8


def test_a_run(tmp_path, monkeypatch):
    """Where z(t) is lost, the paper's way is told from those that are right; evaluations have a limit, and no method hides."""
    tiny = {
        "problems": {"relaxation": {"values": [1000.0], "methods": ["lsoda"]}},
        "limits": {**LIMITS, "checkpoints": 4},
        "forward": {"relaxation": 1000.0},
    }
    monkeypatch.setattr(reverse_instability, "PRESETS", {"quick": tiny, "paper": tiny})
    monkeypatch.setattr(reverse_instability, "torchdiffeq_is_installed", lambda: False)
    assert command_line.main(["run", "reverse_instability", "--out", str(tmp_path), "--checkpoints", str(tmp_path / "c")]) == 0
    record = json.loads((tmp_path / "runs" / "reverse_instability" / "quick-seed0.json").read_text())
    outcome = {row["way"]: row["outcome"] for row in record["history"] if row["part"] == "gradient"}
    assert outcome["interpolate"] == outcome["auto"] == outcome["checkpoints"] == "right"
    assert outcome["solve"] in ("raised", "wrong, said")
    metrics = record["metrics"]
    assert metrics["lost"] == metrics["cured_by_checkpoints"] == metrics["right_auto"] == 1
    assert 0 < metrics["over_forward_relaxation_1000_lsoda_auto"]
    assert record["configuration"]["not_measured"] == ["torch and torchdiffeq are not installed: their adjoint was not measured"]
    assert "contraction, λT = 1000" in reverse_instability.table([("", record)])
    assert (tmp_path / "figures" / "reverse_instability-quick-seed0.png").stat().st_size > 5_000


def test_what_takes_too_long_is_a_result():
    rows = [{"part": "reference", "problem": "relaxation", "value": 30.0, "gradient": np.ones(1)}]
    task = {"part": "gradient", "problem": "relaxation", "value": 30.0, "method": "lsoda", "way": "interpolate"}
    few = points.measure({**LIMITS, "evaluations": 300}, Places(), task, rows)
    assert few["outcome"] == "raised" and few["reason"].startswith("TooManyEvaluations")
    fewer = points.measure({**LIMITS, "evaluations": 100}, Places(), task, rows)
    assert fewer["outcome"] == "no forward solve"
    # The reference above is wrong on purpose.
    assert points.measure(LIMITS, Places(), task, rows)["outcome"] == "wrong in silence"
