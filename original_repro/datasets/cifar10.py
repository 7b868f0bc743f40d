"""CIFAR-10: 60,000 coloured pictures of ten classes of things, 32 by 32 pixels (Krizhevsky 2009)."""

import pickle
from pathlib import Path

import numpy as np

from . import files
from .files import CACHE_VARIABLE, DatasetCorrupt, DatasetNotFound, NotAvailable, checked_bytes, read_only
from .jpeg import decode_jpeg, jpeg_files

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_CLASS = {"train": 5000, "test": 1000}
SIDE = 32
# MD5 as torchvision has them.
TRAIN_BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST_BATCHES = {"test_batch": "40351d587109b95175f43aff81a1287e"}
ARCHIVE_FOLDER = "cifar-10-batches-py"  # what the published archive unpacks to


def load(folder=None):
    """The whole of CIFAR-10, 50,000 training and 10,000 test images (32, 32, 3), as `LabelledImages`.

    The six python batches are read from `folder`, or from its subfolder cifar-10-batches-py; where none is given, from
    `cache_folder()`, and else `tf.keras.datasets.cifar10` gives the arrays, which keeps files of its own.
    The MD5 of a batch is checked before it is unpickled.

    Raises DatasetNotFound where a file is missing from an explicit `folder`, or nothing could fetch it; DatasetCorrupt where one
    is not CIFAR-10's.
    """
    place = cache_folder() if folder is None else Path(folder)
    inner = place / ARCHIVE_FOLDER if (place / ARCHIVE_FOLDER).is_dir() else place
    if all((inner / name).is_file() for name in (*TRAIN_BATCHES, *TEST_BATCHES)):
        return _checked(read_only(*_read_batches(inner, TRAIN_BATCHES), *_read_batches(inner, TEST_BATCHES)), str(inner))
    if folder is not None:
        raise DatasetNotFound(_advice(place, "`folder` was given, so nothing was downloaded."))
    try:
        arrays = files.from_keras("cifar10")
    except NotAvailable as refusal:
        raise DatasetNotFound(_advice(place, str(refusal))) from refusal
    train_images, train_labels, test_images, test_labels = arrays
    labels = train_labels.reshape(-1), test_labels.reshape(-1)
    return _checked(read_only(train_images, labels[0], test_images, labels[1]), "tf.keras.datasets.cifar10")


def load_jpeg(source):
    """CIFAR-10 as `LabelledImages` from a folder, or a tar archive, of JPEG files train/CLASS/NNNN.jpg and test/CLASS/NNNN.jpg.

    JPEG loses some of the picture, so these are not the published pixels bit for bit. Images are in the order of the classes.
    Raises DatasetNotFound, DatasetCorrupt.
    """
    images = {part: [] for part in PER_CLASS}
    labels = {part: [] for part in PER_CLASS}
    for name, content in jpeg_files(source):
        part, *rest = name.split("/")
        if part not in images or len(rest) != 2 or rest[0] not in CLASSES:
            raise DatasetCorrupt(f"{name} in {source} is not train/CLASS/NNNN.jpg or test/CLASS/NNNN.jpg of CIFAR-10's classes")
        images[part].append(decode_jpeg(content, SIDE, f"{name} in {source}"))
        labels[part].append(CLASSES.index(rest[0]))
    shape = (0, SIDE, SIDE, 3)
    arrays = [np.array(part or np.empty(shape), np.uint8) for part in (images["train"], images["test"])]
    return _checked(read_only(arrays[0], labels["train"], arrays[1], labels["test"]), str(source))


def cache_folder():
    """Where `load` looks for the batches: `cifar10` in the cache, see `files.cache_folder`."""
    return files.cache_folder("cifar10")


def _read_batches(folder, batches):
    images, labels = [], []
    for name, md5 in batches.items():
        batch = pickle.loads(checked_bytes(folder / name, md5), encoding="bytes")
        images.append(np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
        labels.append(np.asarray(batch[b"labels"], np.uint8))
    return np.concatenate(images), np.concatenate(labels)


def _checked(data, origin):
    """`data`, if it has as many images of each class as CIFAR-10 has."""
    for part, images, labels in (("train", *data[:2]), ("test", *data[2:])):
        counts = np.bincount(labels, minlength=len(CLASSES))
        expected = PER_CLASS[part]
        if images.shape != (len(CLASSES) * expected, SIDE, SIDE, 3) or (counts != expected).any():
            raise DatasetCorrupt(
                f"{origin} has {part} images of shape {images.shape} with {counts.tolist()} of each class; "
                f"CIFAR-10 has {expected} of each, {SIDE} x {SIDE} x 3"
            )
    return data


def _advice(folder, reason):
    return (
        f"CIFAR-10 was not found. Searched {folder} for {', '.join((*TRAIN_BATCHES, *TEST_BATCHES))}. {reason} Unpack the python "
        f"version of the archive there, name the folder with load(folder=...), or set {CACHE_VARIABLE} to a folder that has "
        "them in its subfolder cifar10; load_jpeg(source) reads JPEG files instead."
    )
