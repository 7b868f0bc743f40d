"""What the loaders of image data sets share: the arrays they return, their errors, the cache, digests, and Keras's door."""

import contextlib
import hashlib
import io
import os
import socket
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs

from ..folders import check_folder

CACHE_VARIABLE = "NEURAL_ODE_REPRO_CACHE"
_NETWORK_SILENCE = 10.0  # seconds without a byte before a download is given up


class LabelledImages(NamedTuple):
    """Images uint8, (examples, height, width) if grey and (examples, height, width, 3) if coloured; labels uint8 (examples,)
    from 0. All read-only."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class DatasetNotFound(RuntimeError):
    """A data set is neither on this machine nor to be had from outside."""


class DatasetCorrupt(RuntimeError):
    """A file bears a name of a data set's and holds something else."""


class NotAvailable(Exception):
    """One way to a data set is closed; the message says why."""


def read_only(*arrays):
    """`LabelledImages` of these four arrays as uint8, which are made read-only if they are not copied."""
    arrays = [np.ascontiguousarray(array, np.uint8) for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    return LabelledImages(*arrays)


def cache_folder(name):
    """Where files of the data set `name` are kept: in the user's cache for neural-ode-repro, or in $NEURAL_ODE_REPRO_CACHE."""
    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("neural-ode-repro", appauthor=False)
    return Path(root) / name


def check_cache(folder):
    """Raise FolderUnusable, an OSError, unless what is downloaded can be kept in a folder of the cache."""
    check_folder(folder, f"the cache, which ${CACHE_VARIABLE} names,")


def checked_bytes(path, md5):
    """The content of a file whose MD5 must be `md5`. Raises DatasetNotFound, DatasetCorrupt."""
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFound(f"{path} was not found.")
    content = path.read_bytes()
    digest = hashlib.md5(content).hexdigest()
    if digest != md5:
        raise DatasetCorrupt(f"{path} has the MD5 {digest}, and should have {md5}. Remove it, or put the original in its place.")
    return content


def from_keras(name):
    """The four arrays of `tf.keras.datasets.<name>` as a list, labels as they are there. Raises NotAvailable."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise NotAvailable(f"tf.keras.datasets: {error}.") from error
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_SILENCE)  # Keras sets none, and a network that swallows packets would hold us for ever
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            train, test = getattr(tf.keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise NotAvailable(f"tf.keras.datasets: {error}.") from error
    finally:
        socket.setdefaulttimeout(previous)
    return [np.asarray(array, np.uint8) for array in (*train, *test)]
