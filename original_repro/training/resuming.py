"""A run's checkpoint: one run alive has it at a time, goes on from it, and writes it anew."""

import time
from pathlib import Path

from .. import locks
from ..atomic_writes import remove_leftovers
from .checkpoints import CheckpointError, load_checkpoint, save_checkpoint, sessions_of
from .checks import check_at_least_one

# Parts of an identity that checkpoints of version 0.1.0 do not have; these go on all the same.
ADDED = ("sha256_of_initial_params", "sha256_of_data")


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
        self.before = []  # sessions that computed what was saved

    def __enter__(self):
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.lock = locks.take(self.path, "Wait for its end, or give another path for the checkpoint.")
            except locks.InUse as error:
                raise CheckpointError(str(error)) from None
            try:
                self.saved = self._load()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *exception):
        locks.let_go(self.lock)

    def _load(self):
        if self.lock is not None:
            remove_leftovers(self.path)
        if not self.path.exists():
            return None
        saved = load_checkpoint(self.path)
        if not isinstance(saved, dict) or saved.keys() != {"identity", "run"}:
            raise CheckpointError(f"{self.path} is a checkpoint, but not one that fit wrote")
        then, now = dict(_flat(saved["identity"])), dict(_flat(self.identity))
        other = [name for name in {**then, **now} if then.get(name) != now.get(name) and not (name in ADDED and name not in then)]
        # At a constant rate, at which the first step stands for a warm-up, the longer run begins as the shorter one.
        constant = len(set(self.identity["learning_rates"])) == 1
        longer = other == ["epochs"] and constant and saved["identity"]["epochs"] < self.identity["epochs"]
        if other and not longer:
            differences = [f"{name} was {then.get(name, 'absent')} and is {now.get(name, 'absent')}" for name in other]
            raise CheckpointError(
                f"{self.path} is of another configuration: {'; '.join(differences)}. "
                "Restore the configuration, or give another path for the checkpoint."
            )
        self.before = sessions_of(self.path)
        return saved["run"]

    def due(self, step):
        """Whether it is time to save after this step."""
        late = self.every_seconds is not None and time.monotonic() - self.saved_at >= self.every_seconds
        return late or step % self.every_steps == 0

    def save(self, run):
        """Write the run."""
        if self.path is not None:
            save_checkpoint(self.path, {"identity": self.identity, "run": run}, self.before)
            self.saved_at = time.monotonic()


def _flat(node, name=""):
    # repr, so that a NaN in a configuration equals itself, and 1 is not 1.0
    if type(node) is dict:
        branches = [(f"{name}.{key}" if name else str(key), value) for key, value in node.items()]
    elif type(node) in (list, tuple):
        branches = [(f"{name}[{place}]", value) for place, value in enumerate(node)]
    else:
        return [(name, repr(node))]
    return [pair for branch, value in branches for pair in _flat(value, branch)] or [(name, repr(node))]
