"""SVHN, Street View House Numbers: coloured pictures of digits, 32 by 32 pixels (Netzer et al. 2011), format 2."""

import io
from pathlib import Path

import numpy as np
import scipy.io

from . import files
from .files import CACHE_VARIABLE, DatasetCorrupt, DatasetNotFound, checked_bytes, read_only

# MD5 as torchvision has them.
FILES = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def load(folder=None):
    """SVHN without its extra images, 73,257 for training and 26,032 for testing (32, 32, 3), as `LabelledImages`.

    Reads train_32x32.mat and test_32x32.mat from `folder` or, where none is given, from `cache_folder()`. Nothing is downloaded:
    the files are at http://ufldl.stanford.edu/housenumbers. The files' label 10, of the digit zero, becomes 0.
    Raises DatasetNotFound where a file is missing; DatasetCorrupt where one is not SVHN's.
    """
    place = cache_folder() if folder is None else Path(folder)
    missing = [name for name in FILES if not (place / name).is_file()]
    if missing:
        raise DatasetNotFound(
            f"SVHN was not found. Searched {place}, which lacks {' and '.join(missing)}. Put {' and '.join(FILES)} from "
            f"http://ufldl.stanford.edu/housenumbers there, name a folder that has them with load(folder=...), or set "
            f"{CACHE_VARIABLE} to a folder that has them in its subfolder svhn."
        )
    return read_only(*(array for name, md5 in FILES.items() for array in _read(place / name, md5)))


def cache_folder():
    """Where `load` looks for the files: `svhn` in the cache, see `files.cache_folder`."""
    return files.cache_folder("svhn")


def _read(path, md5):
    content = checked_bytes(path, md5)
    try:
        arrays = scipy.io.loadmat(io.BytesIO(content), variable_names=("X", "y"))
        images, labels = np.asarray(arrays["X"]), np.asarray(arrays["y"]).reshape(-1)
    except (KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise DatasetCorrupt(f"{path} is no MATLAB file with the arrays X and y: {error}") from error
    if images.shape != (32, 32, 3, len(labels)) or not np.isin(labels, np.arange(1, 11)).all():
        raise DatasetCorrupt(f"{path} has X of shape {images.shape} and y of {labels.shape}, labels {np.unique(labels)[:12]}")
    return images.transpose(3, 0, 1, 2), labels % 10
