"""A run's checkpoint: one run alive has it at a time, goes on from it, and writes it anew."""

import glob
import os
import time
from pathlib import Path

from .checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from .checks import check_at_least_one

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing keeps two runs apart
    fcntl = None


class Resumable:
    """For a `with` statement: a run's checkpoint, when to write it, and what run it must be of; without a path, nothing.

    Within the statement no other run has the path, in whatever process. saved: the run as it was saved, or None.
    """

    def __init__(self, path, every_steps, every_seconds, identity):
        check_at_least_one("checkpoint_every", every_steps)
        if every_seconds is not None and not every_seconds > 0:
            raise ValueError(f"checkpoint_seconds must be above 0, or None; got {every_seconds}")
        self.path = None if path is None else Path(path)
        self.every_steps, self.every_seconds, self.identity = every_steps, every_seconds, identity
        self.saved, self.saved_at, self.lock = None, time.monotonic(), None

    def __enter__(self):
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.lock = _take_lock(self.path)
            try:
                self.saved = self._load()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *exception):
        if self.lock is not None:
            os.unlink(self.lock.name)  # while it is held, see _take_lock
            self.lock.close()

    def _load(self):
        if self.lock is not None:
            # Of saves that a kill cut short: their runs have ended, or they would have the lock.
            for leftover in self.path.parent.glob(f"{glob.escape(self.path.name)}.{'[0-9a-f]' * 16}.tmp"):
                leftover.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        saved = load_checkpoint(self.path)
        if not isinstance(saved, dict) or saved.keys() != {"identity", "run"}:
            raise CheckpointError(f"{self.path} is a checkpoint, but not one that fit wrote")
        then, now = dict(_flat(saved["identity"])), dict(_flat(self.identity))
        differences = [
            f"{name} was {then.get(name, 'absent')} and is {now.get(name, 'absent')}"
            for name in {**then, **now}
            if then.get(name) != now.get(name)
        ]
        if differences:
            raise CheckpointError(
                f"{self.path} is of another configuration: {'; '.join(differences)}. "
                "Restore the configuration, or give another path for the checkpoint."
            )
        return saved["run"]

    def due(self, step):
        """Whether it is time to save after this step."""
        late = self.every_seconds is not None and time.monotonic() - self.saved_at >= self.every_seconds
        return late or step % self.every_steps == 0

    def save(self, run):
        """Write the run."""
        if self.path is not None:
            save_checkpoint(self.path, {"identity": self.identity, "run": run})
            self.saved_at = time.monotonic()


def _take_lock(path):
    """A file beside `path`, locked until it is closed or this process ends; None where the system has no such locks.

    Raises CheckpointError where another run has it.
    """
    if fcntl is None:
        return None
    while True:
        file = open(f"{path}.lock", "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                raise CheckpointError(
                    f"{path} is in use by a run that is alive, of process {file.read() or 'unknown'}. "
                    "Wait for its end, or give another path for the checkpoint."
                ) from None
        if _is_at(file, file.name):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()  # whoever had it removed it after we had opened it


def _is_at(file, path):
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _flat(node, name=""):
    # repr, so that a NaN in a configuration equals itself, and 1 is not 1.0
    if type(node) is dict:
        branches = [(f"{name}.{key}" if name else str(key), value) for key, value in node.items()]
    elif type(node) in (list, tuple):
        branches = [(f"{name}[{place}]", value) for place, value in enumerate(node)]
    else:
        return [(name, repr(node))]
    return [pair for branch, value in branches for pair in _flat(value, branch)] or [(name, repr(node))]
