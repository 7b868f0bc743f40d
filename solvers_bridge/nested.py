"""Nested parameters and states: lists, tuples and dicts of arrays, taken apart into leaves and put together again."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
from autograd.tracer import getval, isbox


class Structure(NamedTuple):
    """How leaves were nested. Hashable: two equal structures have equal containers, keys and constants.

    kind is "leaf", "constant", or a container type; content its constant, keys or length; children the nested structures.
    """

    kind: object
    content: object
    children: tuple[Structure, ...]
    count: int  # type: ignore[assignment]  # (a tuple's own count is of no use here)

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
    """A single integer or boolean: handed to the dynamics as it is, with no gradient."""

    key: tuple
    value: object

    def __eq__(self, other):
        return isinstance(other, _Constant) and self.key == other.key

    def __hash__(self):
        return hash(self.key)


LEAF = Structure("leaf", None, (), 1)


class Layout(NamedTuple):
    """How a state of n numbers is shaped and nested: one array of a shape, or several in a structure, laid end to end."""

    structure: Structure
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, leaves, structure=LEAF):
        """That of leaves (arrays) nested as structure says."""
        return cls(structure, tuple(np.shape(getval(leaf)) for leaf in leaves))

    @classmethod
    def flat(cls, size):
        """That of one vector."""
        return cls(LEAF, ((size,),))

    @property
    def size(self):
        """n, the number of unknowns."""
        return sum(prod(shape) for shape in self.shapes)

    def pack(self, leaves, reshape, concatenate):
        """One vector (n,) from leaves, by the reshape and concatenate of their framework."""
        if len(self.shapes) == 1:
            return reshape(leaves[0], (-1,))
        return concatenate([reshape(leaf, (-1,)) for leaf in leaves])

    def unpack(self, flat, reshape, leading=()):
        """The nesting of arrays of a vector flat (n,), or with leading axes (*leading, n)."""
        if self.structure is LEAF:
            return reshape(flat, (*leading, *self.shapes[0]))
        parts, start = [], 0
        for shape in self.shapes:
            parts.append(reshape(flat[..., start : start + prod(shape)], (*leading, *shape)))
            start += prod(shape)
        return self.structure.unflatten(parts)

    def leaves_of(self, tree, name="func's value"):
        """The leaves of what func returned. Raises TypeError, naming where, if it is not nested like the state."""
        if self.structure is LEAF:
            return [tree]
        leaves = []
        _open_like(tree, self.structure, leaves, name)
        return leaves


def flatten(tree, name="params"):
    """(leaves, structure) of a nesting of lists, tuples and dicts of arrays, or of autograd's boxes of them.

    A leaf is a real array or floating-point number; is_differentiable tells those of integers and booleans, which have no
    gradient. Single integers and booleans become constants of the structure. Raises TypeError, naming where, for anything else.
    """
    leaves = []
    return leaves, _open(tree, leaves, name)


def flatten_state(tree, name="y0"):
    """(leaves, structure) of a state: as flatten, but a list or tuple that holds only numbers, at any depth, is one array.

    Dicts hold states; so does a list or tuple with an array, a dict or a state in it.
    """
    if not _is_nesting(tree):
        return [tree], LEAF
    value = getval(tree)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    leaves, children = [], []
    for key in keys:
        more, child = flatten_state(tree[key], f"{name}[{key!r}]")
        leaves += more
        children.append(child)
    content = tuple(value) if isinstance(value, dict) else len(value)
    kind = dict if isinstance(value, dict) else type(value)
    return leaves, Structure(kind, content, tuple(children), sum(child.count for child in children))


def _is_nesting(tree):
    value = getval(tree)
    if isinstance(value, dict):
        return True
    return isinstance(value, (list, tuple)) and any(_holds_array(tree[i]) for i in range(len(value)))


def _holds_array(tree):
    value = getval(tree)
    if isinstance(value, (list, tuple)):
        return any(_holds_array(tree[i]) for i in range(len(value)))
    return isinstance(value, dict) or np.ndim(value) > 0


def bare(tree):
    """tree out of autograd's boxes, those of nested traces too."""
    while isbox(tree):
        tree = getval(tree)
    return tree


def is_differentiable(leaf):
    """Whether a leaf is floating-point: integers and booleans are handed to the dynamics with no gradient."""
    dtype = getattr(getval(leaf), "dtype", None)
    if dtype is None:
        return isinstance(getval(leaf), float)
    # TensorFlow's dtypes have is_floating, NumPy's a kind.
    return bool(getattr(dtype, "is_floating", None)) if hasattr(dtype, "is_floating") else np.dtype(dtype).kind == "f"


def _open_like(tree, structure, leaves, where):
    if structure.kind == "leaf":
        leaves.append(tree)
        return
    value, is_dict = getval(tree), structure.kind is dict
    keys = structure.content if is_dict else range(structure.content)
    if not isinstance(value, dict if is_dict else (list, tuple)) or (
        set(value) != set(keys) if is_dict else len(value) != len(keys)
    ):
        what = f"a dict of {list(keys)}" if is_dict else f"a {structure.kind.__name__} of {len(keys)}"
        got = f"{type(value).__name__}{_keys(value)}"
        raise TypeError(f"{where} must be nested like y0, as {what}; got {got}")
    for key, child in zip(keys, structure.children):
        _open_like(tree[key], child, leaves, f"{where}[{key!r}]")


def _open(tree, leaves, where):
    value = bare(tree)
    if isinstance(value, dict):
        children = tuple(_open(_item(tree, value, key), leaves, f"{where}[{key!r}]") for key in value)
        return Structure(dict, tuple(value), children, sum(child.count for child in children))
    if isinstance(value, (list, tuple)):
        children = tuple(_open(_item(tree, value, i), leaves, f"{where}[{i}]") for i in range(len(value)))
        return Structure(type(value), len(value), children, sum(child.count for child in children))
    array = np.asarray(value)
    if array.dtype.kind == "f":
        leaves.append(tree)
        return LEAF
    if array.dtype.kind in "iub" and not isinstance(value, (int, np.integer, np.bool_)):
        leaves.append(value)
        return LEAF
    if array.dtype.kind in "iub":
        return Structure("constant", _Constant((array.dtype.str, array.shape, array.tobytes()), value), (), 0)
    hint = "; pass real and imaginary parts as two arrays" if array.dtype.kind == "c" else ""
    raise TypeError(f"{where} must be real numbers or an array of them, got {type(value).__name__} of dtype {array.dtype}{hint}")


def _item(tree, value, key):
    """tree[key], of a container that is value out of its boxes: through them, so that autograd sees which item was used.

    Integers and booleans come without: autograd would add up gradients for them, which they cannot hold.
    """
    if tree is value:
        return tree[key]
    item = bare(value[key])
    nested = isinstance(item, (dict, list, tuple))
    return item if not nested and np.asarray(item).dtype.kind in "iub" else tree[key]


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
