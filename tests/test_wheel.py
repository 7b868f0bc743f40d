"""A wheel of this repository, installed elsewhere: the library alone, and the commands, in a folder that is another's repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
NOT_SOURCES = shutil.ignore_patterns(".*", "build", "mutants", "checkpoints", "*.egg-info", "__pycache__", "figures")
GIT = ["git", "-c", "user.name=another", "-c", "user.email=another@example.org"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Somebody else's repository, with a wheel of ours installed below it, in site/."""
    folder = tmp_path_factory.mktemp("elsewhere")
    sources = shutil.copytree(CHECKOUT, folder / "sources", ignore=NOT_SOURCES)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, sources], check=True)
    shutil.rmtree(sources)
    another = folder / "another"
    another.mkdir()
    (another / "readme.txt").write_text("not ours\n")
    for arguments in (["init", "--quiet"], ["add", "readme.txt"], ["commit", "--quiet", "--message", "another"]):
        subprocess.run([*GIT, *arguments], cwd=another, check=True)
    [wheel] = folder.glob("neural_ode_repro-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", another / "site", wheel], check=True)
    return another


def run(repository, cwd, *arguments):
    """What Python with these arguments does in cwd, with the installed wheel before everything else."""
    environment = {**os.environ, "PYTHONPATH": str(repository / "site"), "MPLBACKEND": "Agg"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def command(repository, cwd, *arguments):
    """What the console script of the wheel does in cwd."""
    return run(repository, cwd, repository / "site" / "bin" / "neural-ode-repro", *arguments)


def test_the_library_alone_solves_and_differentiates(repository, tmp_path):
    program = """
import sys
import autograd.numpy as np
from autograd import grad
import solvers_bridge
loss = lambda rate: solvers_bridge.odeint(lambda t, y, rate: -rate * y, np.array([2.0]), [0.0, 1.0], rate)[-1, 0]
print(solvers_bridge.__file__, "tensorflow" in sys.modules, loss(0.5), grad(loss)(0.5))
"""
    ran = run(repository, tmp_path, "-c", program)
    assert ran.returncode == 0, ran.stderr
    path, tensorflow, value, gradient = ran.stdout.split()
    assert Path(path).is_relative_to(repository / "site") and tensorflow == "False"
    assert float(value) == pytest.approx(1.2130613194252668, rel=1e-6)  # 2 exp(-1/2)
    assert float(gradient) == pytest.approx(-1.2130613194252668, rel=1e-6)


def files_of_packages(folder):
    packages = ("solvers_bridge", "original_repro", "experiments")
    found = (path.relative_to(folder) for name in packages for path in (folder / name).rglob("*") if path.is_file())
    return {path for path in found if "__pycache__" not in path.parts and path.parts[:2] != ("experiments", "results")}


def test_every_file_of_the_packages_is_in_the_wheel(repository):
    assert files_of_packages(repository / "site") == files_of_packages(CHECKOUT)


def test_a_report_of_nothing_and_one_of_our_records(repository, tmp_path):
    ran = command(repository, tmp_path, "report")
    assert ran.returncode == 1 and "results has no folder runs with records" in ran.stderr
    shutil.copytree(repository / "site" / "experiments" / "results", tmp_path / "ours")
    ran = command(repository, tmp_path, "report", "--out", "ours")
    assert ran.returncode == 0, ran.stderr
    ours, of_checkout = (folder / "README.md" for folder in (tmp_path / "ours", CHECKOUT / "results"))
    sentences = [line for line in of_checkout.read_text(encoding="utf-8").splitlines() if " numbers: " in line]
    found = ours.read_text(encoding="utf-8")
    assert len(sentences) == 2 and all(sentence in found for sentence in sentences)  # one a paper


def test_a_record_does_not_name_the_repository_around_it(repository):
    ran = command(repository, repository, "run", "integrator_fidelity", "--preset", "quick")
    assert ran.returncode == 0, ran.stderr
    record = json.loads((repository / "results" / "runs" / "integrator_fidelity" / "quick-seed0.json").read_text())
    assert record["git_commit"] is None
    assert record["configuration"]["compared_with"] == "the committed record"


def test_weights_come_with_the_wheel_where_the_folder_has_none(repository, tmp_path):
    arguments = ["evaluate", "table1_mnist", "--model", "mlp", "--preset", "paper", "--data", str(tmp_path)]
    ran = command(repository, tmp_path, *arguments)
    weights = repository / "site" / "experiments" / "results" / "weights" / "table1_mnist-paper-seed0-model=mlp.npz"
    assert f"taking what comes with the project, {weights}" in ran.stderr
    # The weights were taken in; what this empty folder lacks is MNIST.
    assert ran.returncode == 1 and "MNIST was not found" in ran.stderr
    ran = command(repository, tmp_path, *arguments, "--out", "mine")
    assert ran.returncode == 1 and "no weights at mine" in ran.stderr
