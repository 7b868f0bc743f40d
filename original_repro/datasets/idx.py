"""Files in the IDX format of MNIST and its successors: arrays of unsigned bytes, known by their MD5."""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .files import DatasetCorrupt


class IdxFile(NamedTuple):
    """What a file must hold: an array of unsigned bytes, and the MD5 of the file, uncompressed."""

    shape: tuple[int, ...]
    md5: str


def locate(folder, name):
    """The path of the file `name`, plain or with `.gz`, in `folder`, or None."""
    candidates = (Path(folder) / name, Path(folder) / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def has_files(folder, names):
    """Whether `folder` has all of these files, plain or with `.gz`; says nothing of what is in them."""
    return all(locate(folder, name) for name in names)


def read(folder, name, expected):
    """The array of the file `name`, which is in `folder`, if it is what the IdxFile `expected` says; else DatasetCorrupt."""
    path = locate(folder, name)
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetCorrupt(
                f"{path} does not decompress ({error}): its MD5 is {hashlib.md5(content).hexdigest()}, and that of what "
                f"it should hold is {expected.md5}. Remove it, or put the original in its place."
            ) from error
    return decode(content, expected, path, name)


def decode(content, expected, origin, name):
    """The array in an IDX file: two zero bytes, type 8 (unsigned byte), rank, big-endian 32-bit dimensions, the elements."""
    shape, md5 = expected
    start = header(shape)
    digest = hashlib.md5(content).hexdigest()
    if content[: len(start)] != start:
        fault = f"it begins with {content[: len(start)].hex()}, and {shape} unsigned bytes with {start.hex()}"
    elif len(content) != len(start) + np.prod(shape):
        fault = f"it has {len(content)} bytes, not {len(start) + np.prod(shape)}"
    else:
        fault = "its header is right, its elements are not"
    if digest != md5:
        raise DatasetCorrupt(
            f"{origin} is not the {name} that it should be: {fault}. Its MD5 is {digest}, and should be {md5}. "
            "Remove it, or put the original in its place."
        )
    return np.frombuffer(content, np.uint8, offset=len(start)).reshape(shape)


def encode(array):
    """The bytes of the IDX file of an array of unsigned bytes."""
    return header(array.shape) + np.asarray(array, np.uint8).tobytes()


def header(shape):
    """The bytes that an IDX file of unsigned bytes of this shape begins with."""
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
