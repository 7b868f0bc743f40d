import numpy as np
import pytest

from original_repro.training import CheckpointError, check_weights, load_weights, save_weights, tree_map
from tests.training_runs import same_bits


def test_weights_come_back_as_float32_in_their_nesting(tmp_path):
    rng = np.random.default_rng(12)
    params = {
        "stem": {"weight": rng.normal(size=(2, 3)), "bias": np.zeros(())},
        "blocks": [{"scale": np.full(1, float(i))} for i in range(11)],
        "pair": (np.ones(1), [np.ones(2)]),
    }
    path = tmp_path / "weights" / "w.npz"
    save_weights(path, params)
    expected = tree_map(lambda leaf: leaf.astype(np.float32), params | {"pair": list(params["pair"])})
    assert same_bits(load_weights(path), expected)
    with np.load(path) as arrays:
        assert {"stem/weight", "blocks/10/scale", "pair/1/0"} < set(arrays.files)
    assert [file.name for file in path.parent.iterdir()] == ["w.npz"]


@pytest.mark.parametrize("params", [np.ones(1), {}, {"a": []}, {"a/b": np.ones(1)}, {"1": np.ones(1)}, {1: np.ones(1)}])
def test_weights_that_would_not_come_back_are_refused(tmp_path, params):
    with pytest.raises(ValueError, match="params"):
        save_weights(tmp_path / "w.npz", params)
    assert not (tmp_path / "w.npz").exists()


def test_damaged_weights_are_refused(tmp_path):
    save_weights(tmp_path / "w.npz", {"a": np.ones(1000)})
    content = (tmp_path / "w.npz").read_bytes()
    for damaged in (content[:-20], b"weights", b""):
        (tmp_path / "w.npz").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="w.npz is not a whole file of weights"):
            load_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    save_weights(tmp_path / "w.npz", {"a": [np.ones(2), np.array([1.0, bad])]})
    with pytest.raises(CheckpointError, match="w.npz holds weights that are not finite, at a/1$"):
        load_weights(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "weights, place",
    [
        ({"a": np.ones((2, 3))}, "there is nothing at b/0, where shape \\(4,\\) belongs"),
        ({"a": np.ones((2, 3)), "b": [np.ones(4)], "c": np.ones(1)}, "there is shape \\(1,\\) at c, where nothing belongs"),
        ({"a": np.ones((3, 2)), "b": [np.ones(4)]}, "there is shape \\(3, 2\\) at a, where shape \\(2, 3\\) belongs"),
    ],
)
def test_weights_of_another_model_are_refused_by_file_and_place(weights, place):
    expected = {"a": np.zeros((2, 3)), "b": [np.zeros(4)]}
    check_weights("w.npz", expected, expected)
    with pytest.raises(ValueError, match=f"w.npz does not hold weights of this model: {place}"):
        check_weights("w.npz", weights, expected)
