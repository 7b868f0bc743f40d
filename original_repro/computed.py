"""When, at which commit and in which environment numbers are computed: what checkpoints and records say of that."""

import functools
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from . import children

# The folder of our packages: a checkout's root, or where a wheel was installed, whose results are inside experiments/ (setup.py).
REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGED = REPOSITORY / "experiments" / "results"
# Of environment variables that libraries of linear algebra, TensorFlow and its compilers read: some change numbers.
PREFIXES = ("OMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_", "NPY_", "TF_", "XLA_", "ONEDNN_", "DNNL_", "CUDA_VISIBLE_")
NO_NUMBERS = ("TF_CPP_",)  # what is logged
_BEGUN = datetime.now(UTC)


def session():
    """What this process computes, until now: {"commit", "environment", "from", "to"}."""
    return {"commit": commit(), "environment": environment(), "from": _text(_BEGUN), "to": _text(datetime.now(UTC))}


def merged(sessions):
    """Sessions in order, those of the same commit and environment as one."""
    found = {}
    for one in sessions:
        key = one["commit"], tuple(sorted(one["environment"].items()))
        other = found.setdefault(key, dict(one))
        other |= {"from": min(one["from"], other["from"]), "to": max(one["to"], other["to"])}
    return sorted(found.values(), key=lambda one: one["from"])


def environment():
    """The environment variables that may change numbers, so far as they are set."""
    return {
        name: os.environ[name] for name in sorted(os.environ) if name.startswith(PREFIXES) and not name.startswith(NO_NUMBERS)
    }


@functools.cache
def commit():
    """`git_commit` when it was first asked for, at the beginning of a run: the code that runs is what was loaded then."""
    return git_commit()


def git_commit():
    """The commit of this checkout, with "+changes" if the working tree differs; None outside one.

    A repository around an installed copy, or around a copy without a .git of its own, is not ours.
    """

    def git(*arguments):
        # Also of a checkout that is another user's: whoever runs its code may ask for its commit. Nothing is written there.
        command = ["git", "-c", f"safe.directory={REPOSITORY}", "--no-optional-locks", *arguments]
        return children.run(command, cwd=REPOSITORY, check=True).stdout.strip()

    try:
        if PACKAGED.is_dir() or Path(git("rev-parse", "--show-toplevel")).resolve() != REPOSITORY:
            return None
        head = git("rev-parse", "HEAD")
        # Results that are being written do not change what measured them.
        return head + ("+changes" if git("status", "--porcelain", "--", ".", ":!results") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _text(moment):
    return moment.isoformat(timespec="seconds")
