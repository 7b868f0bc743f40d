"""make notices an environment that is damaged."""

import shutil
import subprocess

import pytest

from tests.helpers import ROOT


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this system")
@pytest.mark.parametrize("python", [None, "#!/bin/sh\nexit 1\n", "#!/no/such/python\n"])
def test_a_damaged_environment_is_named_with_the_way_out(tmp_path, python):
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    if python is not None:
        (environment / "bin" / "python").write_text(python)
        (environment / "bin" / "python").chmod(0o755)
    (environment / ".installed").touch()
    done = subprocess.run(["make", "lint", f"VENV={environment}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and f"{environment} is damaged: 'make clean' removes it" in done.stderr
    assert "ruff" not in done.stdout
