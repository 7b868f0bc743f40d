"""Locks on files: they last until they are let go or their process ends, however that ends."""

import contextlib
import os

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing keeps two runs apart
    fcntl = None


class InUse(RuntimeError):
    """Another run, which is alive, has a path."""


@contextlib.contextmanager
def held(path, advice):
    """For a `with` statement: the path is this process's alone, by a lock beside it, <path>.lock.

    Raises InUse where another has it; its message names the path and the other process, and ends with `advice`.
    """
    file = take(path, advice)
    try:
        yield
    finally:
        let_go(file)


def take(path, advice):
    """A file beside `path`, locked until `let_go` or the end of this process; None where the system has no such locks."""
    if fcntl is None:
        return None
    while True:
        file = open(f"{path}.lock", "a+", encoding="utf-8")
        if not lock(file):
            with file:
                file.seek(0)
                raise InUse(f"{path} is in use by a run that is alive, of process {file.read() or 'unknown'}. {advice}")
        if is_at(file, file.name):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()  # whoever had it removed it after we had opened it


def let_go(file):
    """End what `take` began."""
    if file is not None:
        os.unlink(file.name)  # while it is held, see take
        file.close()


def lock(file, wait=False):
    """Whether an open file is now locked for this process; `wait` for whoever has it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def holder(path):
    """The process that has `path`, as text; None where nobody has."""
    try:
        with open(f"{path}.lock", encoding="utf-8") as file:
            return None if fcntl is None or lock(file) else file.read() or "unknown"
    except FileNotFoundError:
        return None


def is_at(file, path):
    """Whether an open file is the one that the path names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
