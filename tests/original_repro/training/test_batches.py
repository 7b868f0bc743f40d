import numpy as np
import pytest

from original_repro.training import (
    drawn_batches,
    fit,
    index_batches,
    load_checkpoint,
    minibatches,
    random_crops,
    save_checkpoint,
    sgd,
)
from tests.training_runs import Killed, assert_same_run, killed_at, small_run, squares


def test_minibatches_partition_the_order():
    order = np.random.default_rng(0).permutation(10)

    def parts(size, drop_last=True):
        batches = minibatches((np.arange(10),), size, drop_last=drop_last)
        cut = batches.parts(order)
        assert len(cut) == batches.steps
        return [part.tolist() for part in cut]

    assert parts(4) == [order[:4].tolist(), order[4:8].tolist()]
    assert sum(parts(4, False), []) == order.tolist()
    assert [len(part) for part in parts(5)] == [5, 5]
    assert [len(part) for part in parts(20, False)] == [10]


@pytest.mark.parametrize(
    "make, error, name",
    [
        (lambda: minibatches((np.ones(3),), 0), ValueError, "batch_size"),
        (lambda: minibatches((np.ones(3),), 4), ValueError, "batch_size"),
        (lambda: minibatches((np.ones(0),), 1, drop_last=False), ValueError, "batch_size"),
        (lambda: minibatches(np.ones((23, 3)), 4), TypeError, "data"),
        (lambda: minibatches((), 4), TypeError, "data"),
        (lambda: minibatches((np.ones(3), np.ones(4)), 2), ValueError, "data"),
        (lambda: index_batches(None, 0, 1, 1), ValueError, "examples"),
        (lambda: index_batches(None, 1, 2.0, 1), ValueError, "batch_size"),
        (lambda: drawn_batches(None, 0), ValueError, "steps"),
    ],
)
def test_senseless_batches_are_refused_by_name(make, error, name):
    with pytest.raises(error, match=name):
        make()


def test_index_batches_take_every_example_as_often_as_any_other():
    batches, rng = index_batches(lambda indices, rng: (indices,), 5, 4, 3), np.random.default_rng(0)
    taken = np.concatenate([batches.make(part, rng)[0] for part in batches.parts(rng.permutation(batches.count))])
    assert sorted(np.bincount(taken).tolist()) == [2, 2, 2, 3, 3] and len(taken) == 12


def drawn(rng):
    x = rng.normal(size=(5, 3))
    return x, x @ [1.0, -2.0, 0.5]


def test_drawn_batches_are_those_of_a_data_set_of_nothing_but_steps(tmp_path):
    """Runs from before there were drawn ones wrote checkpoints as the latter do, and go on as the former."""
    ours = dict(batches=drawn_batches(drawn, 6))
    earlier = dict(data=(np.arange(6),), batch_size=1, drop_last=True, augment=lambda batch, rng: drawn(rng))
    with pytest.raises(Killed):
        small_run(tmp_path / "c", killed_at(10, squares), **earlier)
    saved = load_checkpoint(tmp_path / "c")
    del saved["identity"]["sha256_of_data"]  # which they did not have
    save_checkpoint(tmp_path / "c", saved)
    resumed = small_run(tmp_path / "c", **ours)
    assert_same_run(resumed, small_run(**ours))
    assert_same_run(resumed, small_run(**earlier))
    assert resumed[1][-1]["train"]["loss"] < resumed[1][0]["train"]["loss"]


@pytest.mark.parametrize("trailing", [(), (1,), (3,)])
def test_random_crops_are_crops_of_the_padded_image_each_by_its_own_draw(trailing):
    images = np.random.default_rng(0).integers(1, 256, (400, 5, 7, *trailing), np.uint8)
    images[:] = images[:1]
    kept = images.copy()
    cropped = random_crops(images, np.random.default_rng(1), padding=2)
    assert cropped.dtype == images.dtype and cropped.shape == images.shape
    np.testing.assert_array_equal(images, kept)
    padded = np.pad(images[0], [(2, 2), (2, 2)] + [(0, 0)] * len(trailing))
    possible = {padded[top : top + 5, left : left + 7].tobytes(): (top, left) for top in range(5) for left in range(5)}
    counts = dict.fromkeys(possible.values(), 0)
    for image in cropped:
        counts[possible[image.tobytes()]] += 1
    assert min(counts.values()) > 4  # 16 expected of each of the 25, and 5 or more all but surely


def test_random_crops_follow_the_generator():
    images = np.arange(2 * 36, dtype=np.float32).reshape(2, 6, 6)
    first, second, other = (random_crops(images, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)
    np.testing.assert_array_equal(random_crops(images, np.random.default_rng(3), padding=0), images)
    with pytest.raises(ValueError, match="images"):
        random_crops(images[0], np.random.default_rng(3))
    with pytest.raises(ValueError, match="padding"):
        random_crops(images, np.random.default_rng(3), padding=-1)


def test_numbered_batches_come_with_the_number_of_the_step():

    seen = []

    def value_and_grad(params, array, step):
        seen.append(step)
        return {"loss": 1.0}, params

    fit(
        value_and_grad,
        {"x": np.zeros(1)},
        batches=drawn_batches(lambda rng: (rng.normal(size=2),), 3, numbered=True),
        optimiser=sgd(momentum=0.0),
        schedule=lambda step: 0.1,
        epochs=2,
        seed=0,
        progress=False,
    )
    assert seen == list(range(6))
