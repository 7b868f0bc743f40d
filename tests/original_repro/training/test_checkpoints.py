"""What a checkpoint gives back, bit for bit, and which files are none."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from original_repro import atomic_writes
from original_repro.training import CheckpointError, load_checkpoint, save_checkpoint
from tests.training_runs import same_bits, small_run

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"))
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.complex128, ">f4"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
numbers = st.one_of(
    st.builds(np.float32, st.floats(width=32)), st.builds(np.float64, st.floats()), st.builds(np.int16, st.integers(-9, 9))
)
states = st.recursive(
    plain | arrays | numbers,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    ),
)


@settings(max_examples=40, deadline=None)
@given(state=states)
def test_checkpoint_round_trip_is_exact(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("checkpoint") / "any name"
    save_checkpoint(path, state)
    assert same_bits(load_checkpoint(path), state)
    assert [entry.name for entry in path.parent.iterdir()] == ["any name"]


def test_checkpoint_keeps_every_bit_of_what_is_not_a_number(tmp_path):
    bits = [0xFFF8000000000123, 0x7FF8000000000001, 0x8000000000000000, 0x7FF0000000000000, 1]
    odd = np.array(bits, np.uint64).view(np.float64)
    state = {"history": [{"loss": value} for value in odd.tolist()], "weights": odd, "generator": 2**127 + 1}
    save_checkpoint(tmp_path / "c.npz", state)
    assert same_bits(load_checkpoint(tmp_path / "c.npz"), state)


def test_checkpoint_keeps_memory_order(tmp_path):
    save_checkpoint(tmp_path / "c.npz", [np.asfortranarray(np.eye(3)[:, :2]), np.ones((2, 3))])
    fortran, c = load_checkpoint(tmp_path / "c.npz")
    assert fortran.flags.f_contiguous and c.flags.c_contiguous


@pytest.mark.parametrize(
    "state", [{"f": print}, [np.array([object()])], {(1, 2): 3}, {1.5: 2}, {b"bytes"}, b"bytes", np.zeros(2, [("x", float)])]
)
def test_checkpoint_refuses_what_it_could_not_give_back(tmp_path, state):
    with pytest.raises(TypeError, match="state must hold"):
        save_checkpoint(tmp_path / "c.npz", state)
    assert list(tmp_path.iterdir()) == []


def test_truncated_checkpoint_is_named(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, {"weights": np.arange(50.0), "loss": 0.5})
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="c.npz"):
            load_checkpoint(path)


def test_flipped_bits_never_pass_for_the_truth(tmp_path):
    path = tmp_path / "c.npz"
    state = {"weights": np.arange(50.0), "loss": 0.5}
    save_checkpoint(path, state)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            assert same_bits(load_checkpoint(path), state)  # a date in the archive's directory may differ
        except CheckpointError as error:
            assert "c.npz" in str(error)


def foreign_files():
    plain_array, archive, other_format, pickled = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(plain_array, np.ones(3))
    np.savez(archive, weights=np.ones(3))
    structure = json.dumps({"format": "version 0", "state": None}).encode()
    np.savez(other_format, structure=np.frombuffer(structure, np.uint8), floats=np.zeros(0))
    np.savez(pickled, structure=np.array([{}], object), floats=np.zeros(0))
    return [b"", b"Dear diary", plain_array.getvalue(), archive.getvalue(), other_format.getvalue(), pickled.getvalue()]


@pytest.mark.parametrize("content", foreign_files(), ids=["empty", "text", "npy", "npz", "other format", "pickle"])
def test_foreign_file_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="c.npz"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="c.npz"):
        small_run(tmp_path / "c.npz")
    assert path.read_bytes() == content


def test_missing_checkpoint_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="c.npz"):
        load_checkpoint(tmp_path / "c.npz")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failed_save_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path, monkeypatch, failing):
    def fail(*arguments):
        raise OSError("the disk is full")

    save_checkpoint(tmp_path / "c.npz", 1)
    monkeypatch.setattr(atomic_writes.os, failing, fail)
    with pytest.raises(OSError, match="disk is full"):
        save_checkpoint(tmp_path / "c.npz", 2)
    assert load_checkpoint(tmp_path / "c.npz") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]
