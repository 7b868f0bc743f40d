"""Experiments that judge claims from kept weights: what they compute of what was measured, and small runs."""

import json

import numpy as np
import pytest

from experiments import Places, command_line
from experiments.neural_ode import (
    figure3c_reverse,
    flow_scores,
    harder_inputs,
    inference_speed,
    section4_checks,
    solver_choice,
)
from original_repro import supervised, training
from original_repro.datasets import mnist


class Density:
    """A flow whose log-density at x (N, 2) is a function of x and of its tolerance."""

    def __init__(self, log_density):
        self.of, self.solver = log_density, {"rtol": 1e-5, "atol": 1e-5}

    def log_density(self, params, x):
        return self.of(x, self.solver["rtol"])


def test_a_gap_has_the_error_of_the_differences():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 2))
    noise = 0.1 * rng.normal(size=5000)
    at = {tuple(point): value for point, value in zip(x, noise)}
    cnf = Density(lambda x, tolerance: 3 * x[:, 0] + tolerance)
    nf = Density(lambda x, tolerance: 3 * x[:, 0] - 0.02 + np.array([at[tuple(point)] for point in x]))
    found = flow_scores.scores("two_moons", cnf, nf, {"cnf": None, "nf": None}, x)
    assert found["gap_two_moons"] == pytest.approx(0.02 - noise.mean(), abs=2e-5)
    assert found["gap_two_moons_se"] == pytest.approx(0.1 / np.sqrt(5000), rel=0.05)
    assert found["gap_two_moons_unpaired_se"] == pytest.approx(3 * np.sqrt(2 / 5000), rel=0.05)
    assert found["tolerance_loss_two_moons"] == pytest.approx(1e-5 - 1e-8, rel=1e-3)
    assert cnf.solver["rtol"] == 1e-5


def test_when_a_flow_reached_the_other():
    def rows(flow, *values):
        return [
            {
                "part": "training",
                "data": "two_moons",
                "flow": flow,
                "steps": 10 * (i + 1),
                "seconds": 2.0,
                "validation_log_likelihood": value,
            }
            for i, value in enumerate(values)
        ]

    history = [*rows("cnf", -3, -2, -1), *rows("nf", -4, -2.5, -2.2), {"part": "reversal", "data": "two_moons"}]
    assert flow_scores.reaching(history, "two_moons", "cnf") == "20 iterations, 4 s"
    assert flow_scores.reaching(history, "two_moons", "nf") == "not in 30 iterations, 6 s"
    assert flow_scores.reaching([], "two_moons", "nf") == ""


class Linear:
    """z exp(t a) for t from 0 to 1, with -trace in the change of log-density, times a factor that should be 1."""

    times = (0.0, 1.0)

    def __init__(self, rates, factor=1.0):
        self.rates, self.factor = np.array(rates), factor

    def solve(self, params, z, times):
        return (
            np.stack([z, z * np.exp(self.rates)]),
            np.stack([np.zeros(len(z)), np.full(len(z), -self.factor * self.rates.sum())]),
        )


@pytest.mark.parametrize("factor", [1.0, 0.9])
def test_both_determinants_of_a_linear_flow(factor):
    flow, points = Linear([0.5, -0.2, 0.4], factor), np.random.default_rng(0).normal(size=(4, 3))
    by_trace, by_differences = section4_checks.log_determinants(flow, None, points)
    np.testing.assert_allclose(by_differences, 0.7, rtol=1e-8)
    np.testing.assert_allclose(by_trace, 0.7 * factor, rtol=1e-12)


def test_derivatives_through_the_solver_are_those_of_the_solution(monkeypatch):
    monkeypatch.setattr(section4_checks, "SOLVERS", ("dop853",))
    rows = section4_checks.derivative_rows({"orders": (2,)})
    assert [(row["order"], row["variable"]) for row in rows] == [(2, "y0"), (2, "p")]
    assert all(row["error"] < 1e-6 for row in rows)


@pytest.mark.parametrize("slope, sign", [(-1.0, -1), (1.0, 1)])
def test_evaluations_rise_with_what_is_hard(slope, sign):
    rng = np.random.default_rng(0)
    margin = rng.uniform(0, 10, 500)
    rows = {
        "nfe": np.round(30 + slope * margin + rng.normal(size=500)),
        "margin": margin,
        "loss": np.exp(-margin),
        "digit": np.arange(500) % 10,
        "right": margin > 1,
    }
    found = harder_inputs.metrics(rows, [40, 44])
    assert np.sign(found["spearman_nfe_margin_low"]) == np.sign(found["spearman_nfe_margin_high"]) == sign
    assert np.sign(found["spearman_nfe_loss"]) == -sign
    assert found["minibatch_over_single"] == pytest.approx(42 / rows["nfe"].mean())
    assert sum(row["images"] for row in harder_inputs.by_digit(rows)) == 500


def test_tolerances_are_compared_answer_by_answer():
    rows = [
        {"part": "spiral", "seconds": 2.0, "loss": 0.1},
        {"part": "spiral", "seconds": 6.0, "loss": 0.2},
        {"part": "spiral", "seconds": 99.0, "reason": "stiff"},
        {"part": "digits", "seconds": 2.0, "loss": 0.1},
    ]
    found = solver_choice.metrics(rows, {1e-3: [1, 2, 3, 4], 1e-5: [1, 2, 3, 7]})
    assert found["answers_that_differ_1e-03_1e-05"] == 0.25
    assert found["spiral_seconds_spread"] == 3.0 and found["spiral_solvers_that_ended"] == 2


@pytest.fixture(scope="module")
def weights_of_a_small_network(tmp_path_factory):
    """A folder with initial weights of 8 channels where the quick preset of Table 1 leaves them."""
    out = tmp_path_factory.mktemp("weights")
    params = supervised.init_odenet(np.random.default_rng(0), mnist.FORMAT, channels=8)
    training.save_weights(Places(out).weights("table1_mnist", "quick-seed0"), params)
    return out


def small_run(experiment, out):
    assert command_line.main(["run", experiment, "--out", str(out), "--checkpoints", str(out / "checkpoints")]) == 0
    return json.loads((out / "runs" / experiment / "quick-seed0.json").read_text())


@pytest.mark.slow
def test_evaluations_over_the_reverse_tolerance(weights_of_a_small_network, monkeypatch):
    preset = {
        **figure3c_reverse.PRESETS["quick"],
        "methods": ("adams",),
        "tolerances": (1e-3,),
        "batch_size": 4,
        "channels": (8,),
    }
    monkeypatch.setitem(figure3c_reverse.PRESETS, "quick", preset)
    record = small_run("figure3c_reverse", weights_of_a_small_network)
    full = [row for row in record["history"] if row["weights"] == "trained" and row["batch_size"] == 4]
    assert [row["factor"] for row in full] == [1.0, 10.0]
    assert full[0]["nfe_forward"] == full[1]["nfe_forward"] and full[1]["nfe_backward"] < full[0]["nfe_backward"]
    assert full[0]["gradient_error"] < full[1]["gradient_error"] < 0.2
    assert {row["batch_size"] for row in record["history"]} == {1, 4}
    assert "× 10" in figure3c_reverse.table([(None, record)])


@pytest.mark.slow
def test_single_images_and_minibatches_and_time_at_test(weights_of_a_small_network, monkeypatch):
    monkeypatch.setitem(harder_inputs.PRESETS, "quick", {"data": "embedded sample", "images": 20, "batch_size": 10})
    record = small_run("harder_inputs", weights_of_a_small_network)
    assert record["metrics"]["nfe_single_least"] <= record["metrics"]["nfe_single"] <= record["metrics"]["nfe_single_greatest"]
    record = small_run("inference_speed", weights_of_a_small_network)
    assert record["metrics"]["odenet_over_resnet_seconds"] > 0 and len(record["history"]) == 3
    assert "ODE-Net" in inference_speed.table([(None, record)])


def test_missing_weights_name_their_command(tmp_path, capsys):
    for name in ("harder_inputs", "figure3c_reverse"):
        assert command_line.main(["run", name, "--seed", "7", "--out", str(tmp_path)]) == 1
        assert "`python -m experiments run table1_mnist --model odenet --preset quick --seed 7" in capsys.readouterr().err
