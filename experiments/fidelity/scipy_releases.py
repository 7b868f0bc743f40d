"""SciPy releases in virtual environments of their own, and what a release does with the solves that it is asked for."""

import json
import os
from pathlib import Path

from ..harness import environments

# Series of SciPy: NumPy, and the Pythons that have binaries of both, the preferred one first.
ENVIRONMENTS = {
    "1.1": ("1.14.5", ("3.6",)),
    **dict.fromkeys(("1.11", "1.12"), ("1.26.4", ("3.11", "3.12", "3.10"))),
    **dict.fromkeys(("1.13", "1.14", "1.15"), ("1.26.4", ("3.11", "3.12"))),
    **dict.fromkeys(("1.16", "1.17"), ("2.4.6", ("3.11", "3.12", "3.13"))),
    "1.18": ("2.4.6", ("3.12", "3.13", "3.14")),
}
PROBE = Path(__file__).with_name("fidelity_probe.py")


def probe(python, asked):
    """What the SciPy of an interpreter does with the tasks: fidelity_probe.py's answer."""
    done = environments.call([str(python), str(PROBE)], input=json.dumps(asked), env={**os.environ, **kernels()})
    return next(json.loads(line) for line in reversed(done.stdout.splitlines()) if line.startswith('{"python"'))


def kernels():
    """Environment variables for the same kernels of OpenBLAS on every machine."""
    return {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"}


def environment(release):
    """The interpreter of a virtual environment with this SciPy, made if it is not there. Raises Gap if it cannot be made."""
    series = release.rpartition(".")[0]
    if series not in ENVIRONMENTS:
        raise environments.Gap(f"no NumPy and Python are known for SciPy {series}; known are {', '.join(ENVIRONMENTS)}")
    numpy_release, pythons = ENVIRONMENTS[series]
    base = next(filter(None, map(environments.find_python, pythons)), None)
    if base is None:
        raise environments.Gap(f"no Python {' or '.join(pythons)} on PATH or in ~/.pyenv/versions")
    return environments.environment(
        f"scipy-{release}-numpy-{numpy_release}", base, [f"numpy=={numpy_release}", f"scipy=={release}"]
    )
