"""Nested parameters: taken apart, put together, compared."""

from collections import OrderedDict, namedtuple

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.builtins import dict as box_dict
from autograd.builtins import list as box_list
from autograd.builtins import tuple as box_tuple
from hypothesis import given
from hypothesis import strategies as st

from solvers_bridge import odeint
from solvers_bridge.nested import flatten, is_differentiable

Layer = namedtuple("Layer", "weights bias")

TREES = {
    "leaf": np.ones(2),
    "number": 2.5,
    "zero_dimensional": np.array(1.0),
    "float32": np.ones(2, np.float32),
    "list": [1.0, np.ones(3)],
    "tuple": (np.ones(1), (2.0,)),
    "dict": {"b": 1.0, "a": [np.ones((2, 2))]},
    "empty": (),
    "empties": [[], (), {}, 1.0],
    "namedtuple": Layer(np.ones(2), [1.0]),
    "constants": {"size": 3, "flags": np.array([True, False]), "w": np.ones(2)},
    "empty_array": [np.zeros((0, 3))],
    "integer_keys": {0: 1.0, (1, 2): 2.0},
}


def same(a, b):
    assert type(a) is type(b) or isinstance(a, (np.ndarray, float)), (type(a), type(b))
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            same(x, y)
    else:
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype


@pytest.mark.parametrize("name", TREES)
def test_there_and_back(name):
    leaves, structure = flatten(TREES[name])
    assert structure.count == len(leaves)
    assert all(is_differentiable(leaf) == (np.asarray(leaf).dtype.kind == "f") for leaf in leaves)
    same(structure.unflatten(leaves), TREES[name])
    same(structure.unflatten(tuple(leaves)), TREES[name])


trees = st.recursive(
    st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.integers(0, 3).map(np.zeros),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(trees)
def test_there_and_back_for_any_nesting(tree):
    leaves, structure = flatten(tree)
    same(structure.unflatten(leaves), tree)
    again = flatten(tree)[1]
    assert structure == again and hash(structure) == hash(again)


def test_leaves_are_in_order_and_not_copied():
    a, b, c = np.ones(1), np.ones(2), np.ones(3)
    leaves, _ = flatten({"z": a, "a": [b, (c, 4.0)]})
    assert leaves[0] is a and leaves[1] is b and leaves[2] is c and leaves[3] == 4.0


@pytest.mark.parametrize("name", TREES)
def test_structures_are_equal_and_hashable_whatever_the_leaves(name):
    leaves, structure = flatten(TREES[name])
    other = flatten(structure.unflatten([np.asarray(leaf) + 1.0 for leaf in leaves]))[1]
    assert structure == other and hash(structure) == hash(other) and {structure: 1}[other] == 1


@pytest.mark.parametrize(
    "a, b",
    [
        ([1.0], (1.0,)),
        ([1.0], [1.0, 1.0]),
        ({"a": 1.0}, {"b": 1.0}),
        ({"a": 1.0, "b": 2.0}, {"b": 1.0, "a": 2.0}),
        ([1], [2]),
        ([1], [1.0]),
        ([1], [True]),
        ([np.int32(1)], [np.int64(1)]),
        ((1.0, 1.0), Layer(1.0, 1.0)),
        ([], ()),
        ([[], 1.0], [1.0, []]),
    ],
)
def test_structures_that_differ(a, b):
    assert flatten(a)[1] != flatten(b)[1]


def test_integer_arrays_are_leaves():
    tree = {"labels": np.array([1, 2]), "count": 3, "x": np.ones(2)}
    leaves, structure = flatten(tree)
    assert [leaf.dtype.kind for leaf in leaves] == ["i", "f"]
    same(structure.unflatten(leaves), tree)
    assert [is_differentiable(leaf) for leaf in leaves] == [False, True]
    assert flatten({**tree, "labels": np.array([7, 8])})[1] == structure


def test_ordered_dicts_keep_their_order():
    leaves, structure = flatten(OrderedDict([("b", 1.0), ("a", 2.0)]))
    assert leaves == [1.0, 2.0] and list(structure.unflatten(leaves)) == ["b", "a"]


@pytest.mark.parametrize(
    "tree, where",
    [
        ({"a": [1.0, "x"]}, r"theta\['a'\]\[1\]"),
        ((1.0, None), r"theta\[1\]"),
        (Layer(1.0, 1j), r"theta\[1\].*imaginary"),
        (object(), "theta "),
        ([np.array(["a"])], r"theta\[0\]"),
        ({1: {2: {3.0}}}, r"theta\[1\]\[2\]"),
    ],
)
def test_what_is_no_parameter(tree, where):
    with pytest.raises(TypeError, match=f"{where}.*|must be real numbers"):
        flatten(tree, "theta")
    with pytest.raises(TypeError, match=where):
        flatten(tree, "theta")


def loss(params):
    """Final state of dy/dt = -(a b + c d) y, with a nesting of every kind."""

    def func(t, y, params):
        rate = params["list"][0] * params["tuple"][1]["deep"] + anp.sum(params["layer"].weights) * params["layer"].bias[0]
        return -rate * y * params["count"]

    return odeint(func, 1.0, [0.0, 1.0], params)[-1]


def test_gradients_come_back_in_the_nesting():
    params = {
        "list": [0.2, np.ones((0, 2))],
        "tuple": (1.0, {"deep": 0.5}),
        "layer": Layer(np.array([0.1, 0.2]), [0.3]),
        "count": 2,
        "empty": (),
    }
    rate = 2 * (0.2 * 0.5 + 0.3 * 0.3)
    leaves, structure = flatten(params)
    bars = grad(lambda leaves: loss(structure.unflatten([leaves[i] for i in range(len(leaves))])))(leaves)
    factor = -2 * np.exp(-rate)
    assert loss(params) == pytest.approx(np.exp(-rate))
    for bar, expected in zip(bars, (0.5, np.ones((0, 2)), 0.0, 0.2, [0.3, 0.3], 0.3)):
        np.testing.assert_allclose(bar, factor * np.asarray(expected), rtol=1e-6, atol=1e-12)


def test_boxed_containers_are_opened():
    def func(t, y, params):
        return -params["rates"][0] * params["rates"][1][0] * y * params["scale"]

    def final(params):
        return odeint(func, 1.0, [0.0, 1.0], params)[-1]

    bars = grad(final)({"rates": [0.5, (0.4,)], "scale": 3.0})
    factor = -np.exp(-0.6)
    assert type(bars) is dict and type(bars["rates"]) is list and type(bars["rates"][1]) is tuple
    np.testing.assert_allclose(
        [bars["rates"][0], bars["rates"][1][0], bars["scale"]], factor * np.array([1.2, 1.5, 0.2]), rtol=1e-6
    )


@pytest.mark.parametrize("again", [False, True], ids=["the whole", "item by item"])
def test_integer_arrays_are_passed_on_where_the_nesting_is_differentiated(again):
    def final(params):
        params = {"rates": params["rates"], "which": params["which"], "on": params["on"]} if again else params
        assert flatten(params)[0][1] is which and flatten(params)[0][2] is on[0]
        return odeint(lambda t, y, p: -p["rates"][p["which"][1]] * p["on"][0][1] * y, 1.0, [0.0, 1.0], params)[-1]

    which, on = np.array([1, 0]), [np.array([False, True])]
    params = {"rates": np.array([0.5, 0.7]), "which": which, "on": on}
    bars = grad(final)(params)
    np.testing.assert_allclose(bars["rates"], [-np.exp(-0.5), 0.0], rtol=1e-6)
    assert not bars["which"].any() and not bars["on"][0].any()
    slopes = grad(lambda params: grad(final)(params)["rates"][0])(params)
    assert slopes["rates"][0] == pytest.approx(np.exp(-0.5), rel=1e-6)


def test_containers_built_during_a_trace():
    def final(a):
        params = box_dict({"rates": box_list([a, box_tuple((2 * a,))])})
        return odeint(lambda t, y, p: -p["rates"][0] * p["rates"][1][0] * y, 1.0, [0.0, 1.0], params)[-1]

    def final_plain(a):
        params = {"rates": [a, (2 * a,)]}
        return odeint(lambda t, y, p: -p["rates"][0] * p["rates"][1][0] * y, 1.0, [0.0, 1.0], params)[-1]

    for function in (final, final_plain):
        assert grad(function)(0.5) == pytest.approx(-2 * np.exp(-0.5), rel=1e-6)


def test_gradients_of_constants_are_no_ones_business():
    bars = grad(
        lambda w: odeint(
            lambda t, y, p: -p["w"] * y * p["mask"], np.ones(2), [0.0, 1.0], {"w": w, "mask": np.array([True, False])}
        )[-1, 0]
    )(0.5)
    assert bars == pytest.approx(-np.exp(-0.5), rel=1e-6)


def test_float32_parameters_get_float32_gradients():
    bar = grad(lambda w: odeint(lambda t, y, w: -anp.sum(w) * y, 1.0, [0.0, 1.0], w)[-1])(np.array([0.25, 0.25], np.float32))
    assert bar.dtype == np.float32
    np.testing.assert_allclose(bar, -np.exp(-0.5), rtol=1e-5)
