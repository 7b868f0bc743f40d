"""Deskewed digits: upright and in the middle, whatever they were."""

import numpy as np
import pytest

from original_repro.datasets import mnist
from original_repro.datasets.deskewing import deskewed


def covariance_and_centre(image):
    rows, columns = np.indices(image.shape)
    weights = image / image.sum()
    centre = (rows * weights).sum(), (columns * weights).sum()
    return ((rows - centre[0]) * (columns - centre[1]) * weights).sum(), centre


def test_a_slanted_stroke_becomes_upright():
    image = np.zeros((28, 28), np.float32)
    for i in range(4, 20):
        image[i, 3 + i // 2 : 5 + i // 2] = 1.0
    before, _ = covariance_and_centre(image)
    (made,) = deskewed(image[None, ..., None])[..., 0]
    after, centre = covariance_and_centre(made)
    assert before > 5 and abs(after) < 0.3 and made.dtype == np.float32
    assert centre == pytest.approx((13.5, 13.5), abs=0.3)
    # An upright stroke of 2 pixels, nothing lost.
    assert np.count_nonzero(made.sum(0) > 0.5) <= 4 and made.sum() == pytest.approx(image.sum(), rel=0.02)


def test_digits_lose_their_slant():
    images = mnist.load_sample().train_images[:50, ..., None] / np.float32(255)
    before, after = ([abs(covariance_and_centre(one[..., 0])[0]) for one in many] for many in (images, deskewed(images)))
    assert np.mean(after) < 0.1 * np.mean(before)


def test_what_has_no_slant_or_another_shape():
    nothing = np.zeros((1, 28, 28, 1), np.float32)
    np.testing.assert_array_equal(deskewed(nothing), nothing)
    line = nothing.copy()
    line[0, 5, 3:9] = 1.0
    assert deskewed(line).sum() == pytest.approx(line.sum(), rel=0.01)
    with pytest.raises(ValueError, match=r"must have shape \(N, height, width, 1\), got \(28, 28\)"):
        deskewed(np.zeros((28, 28)))
