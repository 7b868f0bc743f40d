"""Tiny ImageNet: 200 classes of ImageNet's pictures at 64 by 64 pixels, 500 of each for training and 50 for validation.

From Stanford's course CS231n; the ImageNet 64 x 64 of 200 classes in the paper's appendix is this set.
"""

from pathlib import Path

import numpy as np

from . import files
from .files import CACHE_VARIABLE, DatasetCorrupt, DatasetNotFound, read_only
from .jpeg import decode_jpeg

SIDE = 64
ARCHIVE_FOLDER = "tiny-imagenet-200"  # what the published archive unpacks to


def load(folder=None, per_class=None):
    """Training and validation images (64, 64, 3) of Tiny ImageNet, as `LabelledImages` with the latter as its test images.

    Reads the unpacked archive in `folder`, or in its subfolder tiny-imagenet-200; where none is given, from `cache_folder()`.
    Nothing is downloaded. Labels are places in wnids.txt. per_class: only that many training images of each class, the first by
    name; the whole set takes 1.4 GB of memory.
    Raises DatasetNotFound where files are missing; DatasetCorrupt where one is not what it should be; ValueError for a per_class
    that is no whole number from 1.
    """
    if per_class is not None and (type(per_class) is not int or per_class < 1):
        raise ValueError(f"per_class must be a whole number from 1, or None; got {per_class!r}")
    place = cache_folder() if folder is None else Path(folder)
    inner = place / ARCHIVE_FOLDER if (place / ARCHIVE_FOLDER).is_dir() else place
    names, annotations = inner / "wnids.txt", inner / "val" / "val_annotations.txt"
    missing = [str(path) for path in (names, annotations, inner / "train") if not path.exists()]
    if missing:
        raise DatasetNotFound(
            f"Tiny ImageNet was not found: {', '.join(missing)} missing. Unpack its archive (tiny-imagenet-200.zip of Stanford's "
            f"CS231n) there, name the folder with load(folder=...), or set {CACHE_VARIABLE} to a folder that has it in its "
            "subfolder tiny_imagenet."
        )
    labels = {name: label for label, name in enumerate(names.read_text(encoding="utf-8").split())}
    train = [
        (path, label) for name, label in labels.items() for path in _training_files(inner / "train" / name / "images", per_class)
    ]
    return read_only(*_decoded(train), *_decoded(_validation_files(inner / "val" / "images", annotations, labels)))


def cache_folder():
    """Where `load` looks for the files: `tiny_imagenet` in the cache, see `files.cache_folder`."""
    return files.cache_folder("tiny_imagenet")


def _training_files(folder, per_class):
    paths = sorted(folder.glob("*.JPEG"))
    if not paths or per_class is not None and len(paths) < per_class:
        raise DatasetNotFound(f"{folder} has {len(paths)} files *.JPEG; {per_class or 'some'} are needed")
    return paths[:per_class]


def _validation_files(folder, annotations, labels):
    pairs = []
    for number, line in enumerate(annotations.read_text(encoding="utf-8").splitlines(), 1):
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in labels:
            raise DatasetCorrupt(f"{annotations}, line {number}: {wnid!r} is no class of wnids.txt")
        pairs.append((folder / name, labels[wnid]))
    missing = [str(path) for path, _ in pairs if not path.is_file()]
    if missing:
        raise DatasetNotFound(f"{len(missing)} validation images are missing, the first of them {missing[0]}")
    return pairs


def _decoded(pairs):
    """(images (n, 64, 64, 3), labels (n,)) of pairs (path, label)."""
    images = np.empty((len(pairs), SIDE, SIDE, 3), np.uint8)
    for i, (path, _) in enumerate(pairs):
        images[i] = decode_jpeg(path.read_bytes(), SIDE, path)
    return images, np.array([label for _, label in pairs], np.uint8)
