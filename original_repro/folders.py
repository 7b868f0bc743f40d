"""Whether files can be written where they are to be, before the work that makes them."""

import os
import tempfile
from pathlib import Path

_BESIDE = 22  # characters that a temporary file's name has more than the file's
_TRIED = 2**16  # bytes, so that a full disk shows


class FolderUnusable(OSError):
    """A file cannot be written; its text names the argument and says why."""


def check_file(path, what):
    """Raise FolderUnusable unless a file can be written at `path`, whose folders may not be there yet; makes nothing.

    what: the argument that says so, for the message.
    """
    path = Path(path).absolute()
    for length, limit, name in ((_bytes(part), "PC_NAME_MAX", part) for part in path.parts):
        _check_length(length + _BESIDE * (name == path.name), limit, f"the name {name!r}", what)
    _check_length(_bytes(path) + _BESIDE, "PC_PATH_MAX", f"the path {str(path)!r}", what)
    if path.is_dir():
        raise FolderUnusable(f"{what} cannot be used: {path} is a folder, where a file is to be written")
    check_folder(path.parent, what)


def check_folder(folder, what):
    """Raise FolderUnusable unless files can be written into a folder, which may not be there yet; makes nothing."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(_TRIED))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = f"{place} is a file" if place.is_file() else f"nothing can be written in {place}: {error.strerror}"
        raise FolderUnusable(f"{what} cannot be used: {reason}") from error


def _check_length(length, limit, name, what):
    try:
        most = os.pathconf("/", limit)
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return
    if length > most:
        raise FolderUnusable(
            f"{what} cannot be used: {name} is too long: {length} bytes with a temporary file's ending, of {most}"
        )


def _bytes(path):
    return len(os.fsencode(path))
