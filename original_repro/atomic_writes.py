"""Files that are whole or not there at all."""

import contextlib
import glob
import os
import secrets
from pathlib import Path

from . import locks


def write_atomically(path, content):
    """Write the bytes `content` to `path` so that no reader, and no end of this process, ever finds a part of them there.

    What earlier writes of the path left, whose processes were killed in the middle, is removed.
    """
    path = Path(path)
    file = _temporary(path)
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise
    remove_leftovers(path)


def _temporary(path):
    """A new file beside `path`, locked while it is open, so that it is known for one that is being written."""
    while True:
        file = open(path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp"), "xb")
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                locks.lock(file, wait=True)
            if locks.is_at(file, file.name):
                return file
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise
        file.close()  # taken for a leftover before it was locked


def remove_leftovers(path):
    """Remove temporary files of writes of `path` that ended with their process; those of living ones are locked."""
    path = Path(path)
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 16}.tmp"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:
            if locks.lock(file):
                leftover.unlink(missing_ok=True)
