"""SciPy releases in virtual environments of their own, and what a release does with the solves that it is asked for."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

from original_repro import children

# Series of SciPy: NumPy, and the Pythons that have binaries of both, the preferred one first.
ENVIRONMENTS = {
    "1.1": ("1.14.5", ("3.6",)),
    **dict.fromkeys(("1.11", "1.12"), ("1.26.4", ("3.11", "3.12", "3.10"))),
    **dict.fromkeys(("1.13", "1.14", "1.15"), ("1.26.4", ("3.11", "3.12"))),
    **dict.fromkeys(("1.16", "1.17"), ("2.4.6", ("3.11", "3.12", "3.13"))),
    "1.18": ("2.4.6", ("3.12", "3.13", "3.14")),
}
PROBE = Path(__file__).with_name("fidelity_probe.py")
SECONDS = 900


class Gap(Exception):
    """A release that cannot be measured here; its text says why."""


def probe(python, asked):
    """What the SciPy of an interpreter does with the tasks: fidelity_probe.py's answer."""
    done = _call([str(python), str(PROBE)], input=json.dumps(asked), env={**os.environ, **kernels()})
    return next(json.loads(line) for line in reversed(done.stdout.splitlines()) if line.startswith('{"python"'))


def kernels():
    """Environment variables for the same kernels of OpenBLAS on every machine."""
    return {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"}


def environment(release):
    """The interpreter of a virtual environment with this SciPy, made if it is not there. Raises Gap if it cannot be made."""
    series = release.rpartition(".")[0]
    if series not in ENVIRONMENTS:
        raise Gap(f"no NumPy and Python are known for SciPy {series}; known are {', '.join(ENVIRONMENTS)}")
    numpy_release, pythons = ENVIRONMENTS[series]
    base = next(filter(None, map(find_python, pythons)), None)
    if base is None:
        raise Gap(f"no Python {' or '.join(pythons)} on PATH or in ~/.pyenv/versions")
    folder = environments_folder() / f"scipy-{release}-numpy-{numpy_release}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _call([base, "-m", "venv", str(folder)])
        # Binaries only: building a SciPy of 2018 from source would take an hour and a Fortran compiler.
        _call(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary",
                ":all:",
                f"numpy=={numpy_release}",
                f"scipy=={release}",
            ]
        )
        complete.touch()
    return python


def environments_folder():
    """$NEURAL_ODE_REPRO_CACHE/environments, or environments in the user's cache for neural-ode-repro."""
    root = os.environ.get("NEURAL_ODE_REPRO_CACHE") or platformdirs.user_cache_dir("neural-ode-repro", appauthor=False)
    return Path(root) / "environments"


def find_python(version):
    """An interpreter of a version like "3.6": the one that runs this, pyenv's or one on PATH; None if none runs."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    on_path = shutil.which(f"python{version}")
    for candidate in [sys.executable, *map(str, pyenv), *([on_path] if on_path else [])]:
        try:
            answer = children.run([candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if answer.stdout.strip() == version:
            return candidate
    return None


def _call(command, **options):
    """Run a command; a Gap with its last word if it fails. Addresses stay out of it: records are public, pip's set-up is not."""
    try:
        done = children.run(command, timeout=SECONDS, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Gap(f"{type(error).__name__} from {' '.join(command[1:4])}") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower() or "no matching" in line.lower()] or lines or ["no message"]
        raise Gap(re.sub(r"\w+://\S+", "(address)", errors[-1])[:200])
    return done
