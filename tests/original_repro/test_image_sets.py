"""Fashion-MNIST, CIFAR-10, SVHN and Tiny ImageNet from small files of their formats, with digests of their own."""

import gzip
import hashlib
import io
import pickle
import sys
import tarfile
import types

import numpy as np
import pytest
import scipy.io
from PIL import Image

from original_repro.datasets import cifar10, fashion_mnist, files, idx, svhn, tiny_imagenet
from original_repro.datasets.files import DatasetCorrupt, DatasetNotFound, LabelledImages


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """An empty cache, and neither Keras nor Debian's files."""
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")


def fake_keras(monkeypatch, name, load_data):
    data = types.SimpleNamespace(datasets=types.SimpleNamespace(**{name: types.SimpleNamespace(load_data=load_data)}))
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(keras=data))


def put(folder, contents):
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def assert_same(got, expected):
    assert type(got) is LabelledImages
    for have, want in zip(got, expected, strict=True):
        assert have.dtype == np.uint8 and not have.flags.writeable
        np.testing.assert_array_equal(have, want)


def md5(content):
    return hashlib.md5(content).hexdigest()


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


# Fashion-MNIST


@pytest.fixture
def clothes(monkeypatch):
    rng = np.random.default_rng(0)
    arrays = (rng.integers(0, 256, (6, 28, 28), np.uint8), np.arange(6, dtype=np.uint8)) * 2
    contents = {name: idx.encode(array) for name, array in zip(fashion_mnist.FILES, arrays)}
    table = {name: idx.IdxFile(array.shape, md5(contents[name])) for name, array in zip(contents, arrays)}
    monkeypatch.setattr(fashion_mnist, "FILES", table)
    return types.SimpleNamespace(arrays=arrays, contents=contents)


def test_fashion_mnist_from_a_folder_the_cache_and_debians_package(clothes, tmp_path):
    packed = {f"{name}.gz": gzip.compress(content) for name, content in clothes.contents.items()}
    assert_same(fashion_mnist.load(put(tmp_path / "given", packed)), clothes.arrays)
    with pytest.raises(DatasetNotFound, match="dataset-fashion-mnist"):
        fashion_mnist.load()
    put(fashion_mnist.DEBIAN_FOLDER, packed)
    assert_same(fashion_mnist.load(), clothes.arrays)
    put(fashion_mnist.cache_folder(), clothes.contents)
    (fashion_mnist.DEBIAN_FOLDER / next(iter(packed))).write_bytes(b"")
    assert_same(fashion_mnist.load(), clothes.arrays)


def test_fashion_mnist_from_keras_is_checked_and_kept(clothes, monkeypatch):
    wrong = (clothes.arrays[0], clothes.arrays[1][::-1])
    fake_keras(monkeypatch, "fashion_mnist", lambda: (clothes.arrays[:2], wrong))
    with pytest.raises(DatasetCorrupt, match="elements are not"):
        fashion_mnist.load()
    assert not fashion_mnist.cache_folder().exists()
    fake_keras(monkeypatch, "fashion_mnist", lambda: (clothes.arrays[:2], clothes.arrays[2:]))
    assert_same(fashion_mnist.load(), clothes.arrays)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert_same(fashion_mnist.load(), clothes.arrays)


def test_fashion_mnist_refuses_a_folder_without_it_and_mnists_own_files(clothes, tmp_path):
    with pytest.raises(DatasetNotFound, match="nothing was downloaded"):
        fashion_mnist.load(tmp_path)
    other = {**clothes.contents, "train-labels-idx1-ubyte": idx.encode(np.zeros(6))}
    with pytest.raises(DatasetCorrupt, match="train-labels-idx1-ubyte"):
        fashion_mnist.load(put(tmp_path / "given", other))


# CIFAR-10


@pytest.fixture
def pictures(monkeypatch):
    """A CIFAR-10 of ten training and ten test images, in two training batches."""
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (2, 10, 32, 32, 3), np.uint8), [rng.permutation(10) for _ in range(2)]

    def batch(images, labels):
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return pickle.dumps({b"data": rows, b"labels": [int(label) for label in labels], b"filenames": []})

    contents = {
        "data_batch_1": batch(images[0][:5], labels[0][:5]),
        "data_batch_2": batch(images[0][5:], labels[0][5:]),
        "test_batch": batch(images[1], labels[1]),
    }
    monkeypatch.setattr(cifar10, "PER_CLASS", {"train": 1, "test": 1})
    monkeypatch.setattr(cifar10, "TRAIN_BATCHES", {name: md5(contents[name]) for name in ("data_batch_1", "data_batch_2")})
    monkeypatch.setattr(cifar10, "TEST_BATCHES", {"test_batch": md5(contents["test_batch"])})
    return types.SimpleNamespace(arrays=(images[0], labels[0], images[1], labels[1]), contents=contents)


def test_cifar10_from_python_batches(pictures, tmp_path):
    assert_same(cifar10.load(put(tmp_path / "given", pictures.contents)), pictures.arrays)
    put(cifar10.cache_folder() / cifar10.ARCHIVE_FOLDER, pictures.contents)
    assert_same(cifar10.load(), pictures.arrays)


def test_cifar10_never_unpickles_a_file_of_another_digest(pictures, tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    with pytest.raises(DatasetCorrupt, match="data_batch_2 has the MD5"):
        cifar10.load(put(tmp_path, {**pictures.contents, "data_batch_2": pickle.dumps(Bomb())}))


def test_cifar10_from_keras_whose_labels_are_a_column(pictures, monkeypatch, tmp_path):
    with pytest.raises(DatasetNotFound, match="load_jpeg"):
        cifar10.load()
    train_images, train_labels, test_images, test_labels = pictures.arrays
    columns = (train_images, train_labels[:, None]), (test_images, test_labels[:, None])
    fake_keras(monkeypatch, "cifar10", lambda: columns)
    assert_same(cifar10.load(), pictures.arrays)
    with pytest.raises(DatasetNotFound, match="nothing was downloaded"):
        cifar10.load(tmp_path / "nowhere")
    fake_keras(monkeypatch, "cifar10", lambda: (columns[0], (test_images, np.zeros((10, 1)))))
    with pytest.raises(DatasetCorrupt, match="test images"):
        cifar10.load()


@pytest.fixture
def jpegs(pictures):
    flat = np.arange(10, dtype=np.uint8)[:, None, None, None] * 20 + np.zeros((1, 32, 32, 3), np.uint8)
    return {
        f"{part}/{name}/0000.jpg": jpeg(flat[label]) for part in ("train", "test") for label, name in enumerate(cifar10.CLASSES)
    }


def test_cifar10_from_jpeg_files_in_a_folder_and_an_archive(jpegs, tmp_path):
    from_folder = cifar10.load_jpeg(put(tmp_path / "given", jpegs))
    assert from_folder.train_labels.tolist() == from_folder.test_labels.tolist() == list(range(10))
    assert np.abs(from_folder.train_images.mean((1, 2, 3)) - 20 * np.arange(10)).max() < 3
    with tarfile.open(tmp_path / "made.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "given", ".")
    assert_same(cifar10.load_jpeg(tmp_path / "made.tar.xz"), from_folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train/cat/0000.jpg": b"no picture"}, "train/cat/0000.jpg .* is not a whole JPEG picture"),
        ({"train/cat/0000.jpg": jpeg(np.zeros((16, 32, 3), np.uint8))}, "32 x 16 pixels, not 32 x 32"),
        ({"train/unicorn/0000.jpg": b""}, "train/unicorn/0000.jpg .* is not train/CLASS"),
        ({"train/cat/0001.jpg": jpeg(np.zeros((32, 32, 3), np.uint8))}, "train images of shape"),
    ],
)
def test_wrong_jpeg_files_are_named(jpegs, tmp_path, change, message):
    with pytest.raises(DatasetCorrupt, match=message):
        cifar10.load_jpeg(put(tmp_path, {**jpegs, **change}))


def test_jpeg_sources_that_are_missing_empty_or_damaged_are_named(pictures, tmp_path):
    with pytest.raises(DatasetNotFound, match="neither a folder nor an archive"):
        cifar10.load_jpeg(tmp_path / "nowhere")
    with pytest.raises(DatasetCorrupt, match=r"train images of shape \(0, 32, 32, 3\)"):
        cifar10.load_jpeg(tmp_path)
    (tmp_path / "bad.tar.xz").write_bytes(b"no archive")
    with pytest.raises(DatasetCorrupt, match="is not a whole tar archive"):
        cifar10.load_jpeg(tmp_path / "bad.tar.xz")


# SVHN


def matlab(images, labels, **names):
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None]}, do_compression=True)
    return file.getvalue()


@pytest.fixture
def numbers():
    rng = np.random.default_rng(2)
    arrays = rng.integers(0, 256, (12, 32, 32, 3), np.uint8), np.arange(12) % 10 + 1
    return types.SimpleNamespace(arrays=arrays, contents={name: matlab(*arrays) for name in svhn.FILES})


def test_svhn_reads_matlab_files_and_calls_ten_zero(numbers, monkeypatch, tmp_path):
    monkeypatch.setattr(svhn, "FILES", {name: md5(content) for name, content in numbers.contents.items()})
    with pytest.raises(DatasetNotFound, match="train_32x32.mat and test_32x32.mat"):
        svhn.load()
    images, labels = numbers.arrays
    data = svhn.load(put(tmp_path, numbers.contents))
    assert_same(data, (images, labels % 10) * 2)
    assert data.train_labels[9] == 0
    put(svhn.cache_folder(), numbers.contents)
    assert_same(svhn.load(), data)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda images, labels: matlab(images, labels + 1), "labels"),
        (lambda images, labels: matlab(images[:, :16], labels), r"X of shape \(16, 32, 3, 12\)"),
        (lambda images, labels: b"no matrix at all, but enough of it " * 9, "no MATLAB file"),
    ],
)
def test_svhn_refuses_what_is_not_its_own(numbers, monkeypatch, tmp_path, make, message):
    folder = put(tmp_path, numbers.contents)
    with pytest.raises(DatasetCorrupt, match="train_32x32.mat has the MD5"):
        svhn.load(folder)
    content = make(*numbers.arrays)
    monkeypatch.setattr(svhn, "FILES", dict.fromkeys(svhn.FILES, md5(content)))
    with pytest.raises(DatasetCorrupt, match=message):
        svhn.load(put(tmp_path, dict.fromkeys(svhn.FILES, content)))


# Tiny ImageNet


@pytest.fixture
def tiny():
    """Two classes with two training images and one validation image each; every image of one grey level, one file grey."""

    def picture(level):
        return jpeg(np.full((64, 64, 3), level, np.uint8))

    return {
        "wnids.txt": b"n02\nn01\n",
        "train/n01/images/n01_0.JPEG": picture(50),
        "train/n01/images/n01_1.JPEG": jpeg(np.full((64, 64), 60, np.uint8)),
        "train/n02/images/n02_0.JPEG": picture(100),
        "train/n02/images/n02_1.JPEG": picture(110),
        "val/val_annotations.txt": b"val_0.JPEG\tn01\t0\t0\t63\t63\nval_1.JPEG\tn02\t0\t0\t63\t63\n",
        "val/images/val_0.JPEG": picture(150),
        "val/images/val_1.JPEG": picture(200),
    }


def test_tiny_imagenet_from_its_folders(tiny, tmp_path):
    data = tiny_imagenet.load(put(tmp_path / tiny_imagenet.ARCHIVE_FOLDER, tiny).parent)
    assert type(data) is LabelledImages and data.train_images.shape == (4, 64, 64, 3) and data.test_images.shape == (2, 64, 64, 3)
    assert data.train_labels.tolist() == [0, 0, 1, 1] and data.test_labels.tolist() == [1, 0]
    np.testing.assert_allclose(data.train_images.mean((1, 2, 3)), [100, 110, 50, 60], atol=2)
    np.testing.assert_allclose(data.test_images.mean((1, 2, 3)), [150, 200], atol=2)
    put(tiny_imagenet.cache_folder(), tiny)
    assert tiny_imagenet.load(per_class=1).train_labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "without, change, error, message",
    [
        ("wnids.txt", {}, DatasetNotFound, "wnids.txt missing"),
        ("val/images/val_1.JPEG", {}, DatasetNotFound, "1 validation images are missing"),
        ("train/n01/images/n01_0.JPEG", {}, DatasetNotFound, "has 1 files"),
        (None, {"val/val_annotations.txt": b"val_0.JPEG\tn09\n"}, DatasetCorrupt, "line 1: 'n09' is no class"),
        (None, {"val/val_annotations.txt": b"\n"}, DatasetCorrupt, "line 1: '' is no class"),
        (None, {"train/n01/images/n01_0.JPEG": b"x"}, DatasetCorrupt, "n01_0.JPEG is not a whole JPEG"),
    ],
)
def test_tiny_imagenet_names_what_is_missing_or_wrong(tiny, tmp_path, without, change, error, message):
    with pytest.raises(error, match=message):
        tiny_imagenet.load(put(tmp_path, {name: c for name, c in {**tiny, **change}.items() if name != without}), per_class=2)


def test_tiny_imagenet_checks_its_argument(tmp_path):
    with pytest.raises(ValueError, match="per_class must be a whole number from 1"):
        tiny_imagenet.load(tmp_path, per_class=0)
