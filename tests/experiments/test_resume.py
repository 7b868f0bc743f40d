"""A real ODE-Net training, killed with SIGKILL and started again, ends with the weights of one left alone, bit for bit."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.harness.records import REPOSITORY
from original_repro.training import load_checkpoint, tree_leaves


def training(folder, options):
    """One epoch of the quick preset, 100 steps with a checkpoint every 50, as a process of its own."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "experiments",
            "run",
            "table1_mnist",
            "--epochs",
            "1",
            *options,
            "--out",
            str(folder),
            "--checkpoints",
            str(folder),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, stem", [((), "quick-seed0-epochs=1"), (("--processes", "2"), "quick-seed0-epochs=1-processes=2")]
)
def test_a_killed_training_ends_with_the_same_weights(tmp_path, options, stem):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    name = f"table1_mnist/{stem}.npz"
    assert training(alone, options).wait(timeout=600) == 0

    process, begun = training(killed, options), time.monotonic()
    while not (killed / name).exists():
        assert process.poll() is None and time.monotonic() - begun < 600
        time.sleep(0.1)
    process.kill()
    assert process.wait() != 0
    assert load_checkpoint(killed / name)["run"]["step"] == 50
    assert training(killed, options).wait(timeout=600) == 0

    one, other = (load_checkpoint(folder / name)["run"] for folder in (alone, killed))
    for weights, again in zip(tree_leaves(one["params"]), tree_leaves(other["params"]), strict=True):
        np.testing.assert_array_equal(weights, again)
    record = f"runs/table1_mnist/{stem}.json"
    first, second = (json.loads((folder / record).read_text())["history"][0] for folder in (alone, killed))
    assert {**first, "wall_seconds": 0} == {**second, "wall_seconds": 0}
