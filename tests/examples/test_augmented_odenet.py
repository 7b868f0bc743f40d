"""The script is run as a reader runs it, with fewer epochs."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_example_trains_both_models_and_draws(tmp_path):
    out = tmp_path / "picture.png"
    command = [sys.executable, "examples/augmented_odenet.py", "--epochs", "2", "--points", "192", "--out", str(out)]
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"wrote {out}\n" and run.stderr.count("epoch 2/2 done") == 2
    picture = matplotlib.image.imread(out)
    assert picture.shape[:2] == (700, 1200) and picture.std() > 0.1
