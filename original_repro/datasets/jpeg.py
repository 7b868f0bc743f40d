"""JPEG pictures as arrays, from folders and archives of them, with Pillow."""

import contextlib
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .files import DatasetCorrupt, DatasetNotFound


def decode_jpeg(content, side, origin):
    """A picture (side, side, 3), uint8, of the bytes of a JPEG file, grey ones made coloured; DatasetCorrupt for others."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DatasetCorrupt(f"{origin} is not a whole JPEG picture: {error}") from error
    if pixels.shape != (side, side, 3):
        raise DatasetCorrupt(f"{origin} has {pixels.shape[1]} x {pixels.shape[0]} pixels, not {side} x {side}")
    return pixels


def jpeg_files(source):
    """Yield (name, content) of the JPEG files under the folder `source`, or in the tar archive of that name (.tar, .gz, .xz).

    Names are relative, with slashes, and sorted. Raises DatasetNotFound, DatasetCorrupt.
    """
    source = Path(source)
    if source.is_dir():
        names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if _is_jpeg(path.name))
        for name in names:
            yield name, (source / name).read_bytes()
    elif source.is_file():
        with _reading(source), tarfile.open(source) as archive:
            contents = {
                member.name.removeprefix("./"): archive.extractfile(member).read()
                for member in archive
                if member.isfile() and _is_jpeg(member.name)
            }
        yield from sorted(contents.items())
    else:
        raise DatasetNotFound(f"{source} is neither a folder nor an archive.")


@contextlib.contextmanager
def _reading(source):
    try:
        yield
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetCorrupt(f"{source} is not a whole tar archive: {error}") from error


def _is_jpeg(name):
    return name.lower().endswith((".jpg", ".jpeg"))
