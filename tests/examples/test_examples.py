"""The scripts are run as a reader runs them, with less to do."""

import os
import re
import subprocess
import sys

import pytest

from experiments.harness.records import REPOSITORY


def run(script, *arguments):
    """What a script of examples/ prints."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, REPOSITORY / "examples" / script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_spiral_is_learned(tmp_path):
    text = run("fit_spiral.py", "--steps", 60, "--method", "dopri5", "--out", tmp_path / "spiral.png")
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", text)]
    assert len(losses) == 3 and losses[-1] < losses[0] / 5
    assert (tmp_path / "spiral.png").stat().st_size > 5_000


def test_the_gradient_of_the_stiff_problem_is_that_of_finite_differences():
    text = run("stiff_gradient.py", "--most", 400)
    differences = dict(re.findall(r"^(auto|interpolate)\s+(\S+)", text, flags=re.MULTILINE))
    assert len(differences) == 2 and all(float(value) < 1e-4 for value in differences.values())
    assert re.search(r"^solve\s+stopped at t = 39", text, flags=re.MULTILINE)


def test_the_odenet_learns_digits():
    text = run("odenet_digits.py", "--epochs", 1, "--images", 640, "--channels", 8)
    numbers = {name: float(value) for name, value in re.findall(r"(\w+) ([\d.]+)", text)}
    assert numbers["test_error"] < 0.6 and numbers["nfe_forward"] > 5 and numbers["nfe_backward"] > 5


@pytest.mark.slow
def test_the_odenet_in_keras_learns_digits(tmp_path):
    text = run("keras_odenet.py", "--epochs", 2, "--images", 640, "--channels", 8, "--out", tmp_path / "odenet.keras")
    best = re.search(r"test_accuracy ([\d.]+), nfe_forward ([\d.]+)", text)
    assert float(best[1]) > 0.4 and float(best[2]) > 5 and "ode_nfe_backward" in text


def test_solvers_are_compared(tmp_path):
    out = tmp_path / "solvers.png"
    text = run("compare_solvers.py", "--methods", "adams", "dop853", "--tolerances", "1e-6", "1e-10", "--out", out)
    errors = {
        (method, tolerance): float(error)
        for method, tolerance, error in re.findall(r"^(\w+) +(1e-\d+).* (\S+e-\d+) +\S+$", text, re.M)
    }
    assert len(errors) == 4 and all(errors[method, "1e-10"] < 1e-3 * errors[method, "1e-06"] for method in ("adams", "dop853"))
    assert out.stat().st_size > 5_000
