"""Nested parameters: lists, tuples and dicts of arrays, taken apart into leaves and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from autograd.tracer import getval


class Structure(NamedTuple):
    """How leaves were nested. Hashable: two equal structures have equal containers, keys and constants.

    kind is "leaf", "constant", or a container type; content its constant, keys or length; children the nested structures.
    """

    kind: Any
    content: Any
    children: tuple[Structure, ...]
    count: int  # type: ignore[assignment]  # (a tuple's own count is of no use here)

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """The nesting again, with leaves (a sequence of count objects of any kind) in the places of the leaves."""
        return _build(self, iter(leaves))


class _Constant(NamedTuple):
    """An integer or boolean leaf: handed to the dynamics as it is, with no gradient."""

    key: tuple[str, tuple[int, ...], bytes]
    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


LEAF = Structure("leaf", None, (), 1)


def flatten(tree: Any, name: str = "params", integer_arrays_are_leaves: bool = False) -> tuple[list[Any], Structure]:
    """(leaves, structure) of a nesting of lists, tuples and dicts of arrays, or of autograd's boxes of them.

    A leaf is a real floating-point array or number. Integers and booleans become constants of the structure, unless they are
    arrays and integer_arrays_are_leaves. Raises TypeError, naming where, for anything else.
    """
    leaves: list[Any] = []
    return leaves, _open(tree, leaves, name, integer_arrays_are_leaves)


def _open(tree: Any, leaves: list[Any], where: str, integer_leaves: bool) -> Structure:
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


def _build(structure: Structure, leaves: Iterator[Any]) -> Any:
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
