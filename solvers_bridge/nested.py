"""Nested parameters: lists, tuples and dicts of arrays, taken apart into leaves and put together again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from autograd.tracer import getval


class Structure(NamedTuple):
    """How leaves were nested. Hashable: two equal structures have equal containers, keys and constants.

    kind is "leaf", "constant", or a container type; content its constant, keys or length; children the nested structures.
    """

    kind: object
    content: object
    children: tuple[Structure, ...]
    count: int

    def unflatten(self, leaves):
        """The nesting again, with leaves (a sequence of count objects of any kind) in the places of the leaves."""
        return _build(self, iter(leaves))

    def leaves_of(self, tree):
        """The leaves of another nesting, in the order of these; a dict's keys may come in another.

        Raises ValueError where it is nested otherwise.
        """
        leaves = []
        _gather(self, tree, leaves)
        return leaves

    @property
    def constants(self):
        """The values of the constants, in order."""
        if self.kind == "constant":
            return [self.content.value]
        return [value for child in self.children for value in child.constants]


class _Constant(NamedTuple):
    """An integer or boolean leaf: handed to the dynamics as it is, with no gradient."""

    key: tuple
    value: object

    def __eq__(self, other):
        return isinstance(other, _Constant) and self.key == other.key

    def __hash__(self):
        return hash(self.key)


LEAF = Structure("leaf", None, (), 1)


def flatten(tree, name="params", integer_arrays_are_leaves=False):
    """(leaves, structure) of a nesting of lists, tuples and dicts of arrays, or of autograd's boxes of them.

    A leaf is a real floating-point array or number. Integers and booleans become constants of the structure, unless they are
    arrays and integer_arrays_are_leaves. Raises TypeError, naming where, for anything else.
    """
    leaves = []
    return leaves, _open(tree, leaves, name, integer_arrays_are_leaves)


def _open(tree, leaves, where, integer_leaves):
    # Boxed containers are opened by indexing the box, so that autograd sees which item was used.
    value = getval(tree)
    if isinstance(value, dict):
        children = tuple(_open(tree[key], leaves, f"{where}[{key!r}]", integer_leaves) for key in value)
        return Structure(dict, tuple(value), children, sum(child.count for child in children))
    if isinstance(value, (list, tuple)):
        children = tuple(_open(tree[i], leaves, f"{where}[{i}]", integer_leaves) for i in range(len(value)))
        return Structure(type(value), len(value), children, sum(child.count for child in children))
    array = np.asarray(value)
    if array.dtype.kind == "f" or (integer_leaves and array.dtype.kind in "iub" and isinstance(value, np.ndarray)):
        leaves.append(tree)
        return LEAF
    if array.dtype.kind in "iub":
        return Structure("constant", _Constant((array.dtype.str, array.shape, array.tobytes()), value), (), 0)
    hint = "; pass real and imaginary parts as two arrays" if array.dtype.kind == "c" else ""
    raise TypeError(f"{where} must be real numbers or an array of them, got {type(value).__name__} of dtype {array.dtype}{hint}")


def _build(structure, leaves):
    kind = structure.kind
    if kind == "leaf":
        return next(leaves)
    if kind == "constant":
        return structure.content.value
    if kind is dict:
        return {key: _build(child, leaves) for key, child in zip(structure.content, structure.children)}
    items = [_build(child, leaves) for child in structure.children]
    if kind is list:
        return items
    return kind(*items) if hasattr(kind, "_fields") else tuple(items)


def _gather(structure, tree, leaves):
    kind = structure.kind
    if kind == "leaf":
        same = not isinstance(tree, (dict, list, tuple))
        leaves.append(tree)
    elif kind is dict:
        same = isinstance(tree, dict) and len(tree) == len(structure.content) and all(key in tree for key in structure.content)
    else:
        same = kind == "constant" or type(tree) is kind and len(tree) == structure.content
    if not same:
        raise ValueError(f"nestings differ: {_outline(structure)} and {type(tree).__name__}{_keys(tree)}")
    places = structure.content if kind is dict else range(len(structure.children))
    for place, child in zip(places, structure.children):
        _gather(child, tree[place], leaves)


def _outline(structure):
    if structure.kind == "leaf":
        return "an array"
    return f"{structure.kind.__name__} of {list(structure.content) if structure.kind is dict else structure.content}"


def _keys(tree):
    if isinstance(tree, dict):
        return f" of {list(tree)}"
    return f" of {len(tree)}" if isinstance(tree, (list, tuple)) else ""
