import numpy as np
import pytest

from original_repro.training import tree_leaves, tree_map
from tests.training_runs import same_bits


def test_tree_map_keeps_the_nesting():
    tree = {"a": [np.ones(2), (np.zeros(1),)], "b": {}, "c": np.float64(2)}
    doubled = tree_map(lambda x, y: x + y, tree, {name: tree[name] for name in reversed(tree)})
    assert same_bits(doubled, {"a": [np.full(2, 2.0), (np.zeros(1),)], "b": {}, "c": np.float64(4)})
    assert [leaf.tolist() for leaf in tree_leaves(tree)] == [[1, 1], [0], 2]


@pytest.mark.parametrize("other", [[1.0, 2.0], (1.0,), {"a": 1.0, "b": 2.0}, 1.0, ([1.0], 2.0)])
def test_tree_map_refuses_another_nesting(other):
    with pytest.raises(ValueError, match="nestings differ"):
        tree_map(lambda x, y: x, (1.0, 2.0), other)


def test_what_is_no_array_is_named():
    with pytest.raises(TypeError, match=r"tree\['a'\]\[1\] must be real numbers"):
        tree_map(lambda leaf: leaf, {"a": [np.ones(1), None]})
