"""Where compiled graphs are kept: one shared library a graph, in the user's cache directory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs


def directory():
    """The cache directory (Path); platformdirs says where, on Linux below $XDG_CACHE_HOME or ~/.cache."""
    return Path(platformdirs.user_cache_dir("solvers_bridge")) / "native"


def library_path(key):
    """Path of the library of a key, whether or not it is there."""
    return directory() / f"{key}.so"


def provide(key, build):
    """Path of the library of a key; if it is not there, build(folder) -> Path makes it in a temporary folder.

    Several processes may build one key at once: each library appears whole, by a rename, and the last one stays.
    """
    path = library_path(key)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as folder:
            os.replace(build(Path(folder)), path)
    return path


def entries():
    """Paths of the libraries in the cache."""
    return sorted(directory().glob("*.so"))


def clear():
    """Delete all compiled graphs and return how many there were. Processes that have loaded them keep them."""
    found = entries()
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
