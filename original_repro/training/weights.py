"""Weights: parameters in an .npz file of float32 arrays that any NumPy program can read, each named by its place."""

import io
from pathlib import Path

import numpy as np

from ..atomic_writes import write_atomically
from .checkpoints import CheckpointError


def save_weights(path, params):
    """Write nested dicts and lists of arrays to `path`, an .npz file, atomically: float32, compressed, no pickles.

    An array's name in the file is its way through the nesting: "stem/conv1/weight", "blocks/0/norm1/scale". Keys are therefore
    strings without a slash that are not whole numbers, and nothing in the nesting is empty: ValueError otherwise.
    """
    content = io.BytesIO()
    np.savez_compressed(content, **{name: np.asarray(leaf, np.float32) for name, leaf in _named_leaves(params)})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())


def load_weights(path):
    """The nested dicts and lists of float32 arrays that `save_weights` wrote to `path`; tuples come back as lists.

    Raises CheckpointError where the file is cut short, damaged or foreign, or holds what is not finite; OSError where it cannot
    be read at all.
    """
    content = Path(path).read_bytes()
    nesting = {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            for name in arrays.files:
                *branches, leaf = name.split("/")
                place = nesting
                for branch in branches:
                    place = place.setdefault(branch, {})
                place[leaf] = arrays[name]
            if not arrays.files:
                raise ValueError("it holds no arrays")
            bad = [name for name in arrays.files if not np.isfinite(arrays[name]).all()]
    except Exception as error:  # as in load_checkpoint
        raise CheckpointError(f"{path} is not a whole file of weights ({type(error).__name__}: {error})") from error
    if bad:
        raise CheckpointError(f"{path} holds weights that are not finite, at {', '.join(bad)}")
    return _with_lists(nesting)


def check_weights(path, weights, expected, model="this model"):
    """Raise ValueError, naming file and place, unless the weights of a file have the nesting and the shapes of `expected`."""
    found, wanted = ({name: np.shape(leaf) for name, leaf in _named_leaves(tree)} for tree in (weights, expected))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            has, needs = ("nothing" if one.get(name) is None else f"shape {one[name]}" for one in (found, wanted))
            raise ValueError(f"{path} does not hold weights of {model}: there is {has} at {name}, where {needs} belongs")


def _named_leaves(tree, name=""):
    if name and type(tree) not in (dict, list, tuple):
        return [(name, tree)]
    branches = list(tree.items()) if type(tree) is dict else list(enumerate(tree)) if type(tree) in (list, tuple) else []
    if not branches or type(tree) is dict and any(type(key) is not str or "/" in key or key.isdigit() for key in tree):
        raise ValueError(
            f"params must have string keys without a slash that are not whole numbers, and nothing empty; "
            f"got a {type(tree).__name__}{f' of {list(tree)}' if type(tree) is dict else ''} at {name or 'the top'!r}"
        )
    return [pair for key, branch in branches for pair in _named_leaves(branch, f"{name}/{key}" if name else str(key))]


def _with_lists(nesting):
    if not isinstance(nesting, dict):
        return nesting
    branches = {key: _with_lists(branch) for key, branch in nesting.items()}
    return list(branches.values()) if all(key.isdigit() for key in branches) else branches
