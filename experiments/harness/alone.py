"""A run has its places for itself, and finds out before its work whether it can write there."""

import contextlib

from original_repro import locks
from original_repro.folders import check_file


@contextlib.contextmanager
def alone(experiment, settings, places):
    """For a `with` statement around a run: FolderUnusable where it could not write what it makes, locks.InUse where another run
    of the experiment, with the same options and the same folder of checkpoints, is alive.
    """
    name, stem = experiment.name, settings.stem
    for path in (places.record(name, stem), places.figure(name, stem), places.weights(name, stem)):
        check_file(path, f"--out {places.out}")
    if not experiment.resumes:
        yield
        return
    lock = places.checkpoints / name / stem
    check_file(lock.with_name(f"{stem}.npz"), f"--checkpoints {places.checkpoints}")
    made = [folder for folder in lock.parents if not folder.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locks.held(lock, "Wait for its end, or give another folder with --checkpoints."):
            yield
    finally:
        # Its own folder too if it is empty: a run that was killed could not.
        for folder in dict.fromkeys([lock.parent, *made]):
            with contextlib.suppress(OSError):  # there are checkpoints in it
                folder.rmdir()
