"""Fashion-MNIST: 70,000 grey pictures of clothes, 28 by 28 pixels, in the files and sizes of MNIST.

Made by Han Xiao, Kashif Rasul and Roland Vollgraf (2017, arXiv 1708.07747), MIT licence. Debian has it as the package
dataset-fashion-mnist. Labels: T-shirt, trousers, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot.
"""

from pathlib import Path

from ..atomic_writes import write_atomically
from . import files, idx
from .files import CACHE_VARIABLE, DatasetNotFound, LabelledImages, NotAvailable
from .idx import IdxFile

# In the order of LabelledImages. MD5 of the files in Debian's package, uncompressed.
FILES = {
    "train-images-idx3-ubyte": IdxFile((60000, 28, 28), "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "train-labels-idx1-ubyte": IdxFile((60000,), "9018921c3c673c538a1fc5bad174d6f9"),
    "t10k-images-idx3-ubyte": IdxFile((10000, 28, 28), "8181f5470baa50b63fa0f6fddb340f0a"),
    "t10k-labels-idx1-ubyte": IdxFile((10000,), "15d484375f8d13e6eb1aabb0c3f46965"),
}
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def load(folder=None):
    """The whole of Fashion-MNIST, 60,000 training and 10,000 test images (28, 28), as `LabelledImages`.

    The four IDX files, plain or with `.gz`, are read from `folder` or, where none is given, from `cache_folder()` or Debian's
    package; else fetched with `tf.keras.datasets.fashion_mnist` and kept in the cache. Digests are checked either way.

    Raises DatasetNotFound where a file is missing from an explicit `folder`, or nothing could fetch it; DatasetCorrupt where a
    file is not Fashion-MNIST's; OSError where the cache has to be written and cannot be.
    """
    if folder is not None:
        place = Path(folder)
        if not idx.has_files(place, FILES):
            raise DatasetNotFound(_advice(place, "`folder` was given, so nothing was downloaded."))
    else:
        place = cache_folder()
        if not idx.has_files(place, FILES):
            place = DEBIAN_FOLDER if idx.has_files(DEBIAN_FOLDER, FILES) else _fetched_into(place)
    return LabelledImages(*(idx.read(place, name, expected) for name, expected in FILES.items()))


def cache_folder():
    """Where `load` keeps the files: `fashion_mnist` in the cache, see `files.cache_folder`."""
    return files.cache_folder("fashion_mnist")


def _fetched_into(folder):
    files.check_cache(folder)
    try:
        contents = {name: idx.encode(array) for name, array in zip(FILES, files.from_keras("fashion_mnist"))}
    except NotAvailable as refusal:
        raise DatasetNotFound(_advice(folder, str(refusal))) from refusal
    for name, content in contents.items():
        idx.decode(content, FILES[name], f"{name} from keras", name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return folder


def _advice(folder, reason):
    return (
        f"Fashion-MNIST was not found. Searched {folder} for {', '.join(FILES)} (each plain or with .gz). {reason} "
        f"Put the four files there, name a folder that has them with load(folder=...), install Debian's dataset-fashion-mnist, "
        f"or set {CACHE_VARIABLE} to a folder that has them in its subfolder fashion_mnist."
    )
