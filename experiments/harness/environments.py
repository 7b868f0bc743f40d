"""Virtual environments of their own for what this one cannot hold, made by a command in the user's cache."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

from original_repro import children

SECONDS = 1800


class Gap(Exception):
    """What cannot be measured here; its text says why."""


def environment(name, base, requirements):
    """The interpreter of the environment of that name, made by the Python `base` with the requirements if it is not there.

    Raises Gap if it cannot be made; one that was left half made is made again.
    """
    folder = environments_folder() / name
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        call([base, "-m", "venv", str(folder)])
        # Binaries only: building a SciPy of 2018 from source would take an hour and a Fortran compiler.
        options = ["--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        call([str(python), "-m", "pip", "install", *options, *requirements])
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


def call(command, **options):
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
