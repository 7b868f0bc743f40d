"""Checkpoints: the state of a run in an .npz file, whole or not there at all, equal bit for bit when it comes back."""

import io
import json
from pathlib import Path

import numpy as np

from .. import computed
from ..atomic_writes import write_atomically

CHECKPOINT_FORMAT = "neural-ode-repro checkpoint, version 1"


class CheckpointError(RuntimeError):
    """A file is no checkpoint, or not one of this run."""


def save_checkpoint(path, state, before=()):
    """Write `state` to `path`, an .npz file, in one atomic step: whoever reads it finds all of it or what was there before.

    before: `sessions_of` the checkpoint from which this process went on, to which its own is added.
    state: nested dicts (keys: str or int), lists and tuples of None, bool, int, float, str, NumPy numbers and arrays. Raises
    TypeError where it holds anything else. Nothing is pickled.
    """
    members, floats = {}, []
    sessions = computed.merged([*before, computed.session()])
    structure = json.dumps({"format": CHECKPOINT_FORMAT, "computed": sessions, "state": _encode(state, members, floats)})
    members["structure"] = np.frombuffer(structure.encode(), np.uint8)
    members["floats"] = np.array(floats, np.float64)
    content = io.BytesIO()
    np.savez(content, **members)
    write_atomically(path, content.getvalue())


def load_checkpoint(path):
    """The state that `save_checkpoint` wrote to `path`, equal bit for bit; arrays are in C order unless Fortran-contiguous.

    Raises CheckpointError where the file is cut short, damaged or foreign; OSError where it cannot be read at all.
    """
    return _read(path, lambda structure, members: _decode(structure["state"], members, members["floats"].tolist()))


def sessions_of(path):
    """When, at which commit and in which environment a checkpoint was computed: a list as of `computed.merged`.

    Empty for those of version 0.1.0, which do not tell. Errors as of `load_checkpoint`.
    """
    return _read(path, lambda structure, members: structure.get("computed", []))


def _read(path, take):
    """take(structure, arrays) of a checkpoint."""
    content = Path(path).read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as members:
            structure = json.loads(members["structure"].tobytes())
            if structure["format"] != CHECKPOINT_FORMAT:
                raise ValueError(f"its format is {structure['format']!r}, not {CHECKPOINT_FORMAT!r}")
            return take(structure, members)
    except Exception as error:  # a damaged archive can fail anywhere in zipfile, numpy or json, in as many ways
        raise CheckpointError(
            f"{path} is not a whole checkpoint of this program ({type(error).__name__}: {error}); remove it to begin anew"
        ) from error


def _encode(node, members, floats):
    # Floats go into an array, not into the JSON text, which has no infinities and forgets the bits of a NaN.
    if node is None or type(node) in (bool, int, str):
        return node
    if type(node) is float:
        floats.append(node)
        return ["float", len(floats) - 1]
    if isinstance(node, (np.ndarray, np.generic)) and node.dtype.kind in "biufc":
        name = f"array_{len(members)}"
        members[name] = np.asarray(node)
        return ["array" if isinstance(node, np.ndarray) else "number", name]
    if type(node) is dict and all(type(key) in (str, int) for key in node):
        return ["dict", [[key, _encode(value, members, floats)] for key, value in node.items()]]
    if type(node) in (list, tuple):
        return [type(node).__name__, [_encode(value, members, floats) for value in node]]
    raise TypeError(
        f"state must hold dicts with str or int keys, lists, tuples, plain values and numeric arrays; "
        f"got a {type(node).__name__}: {node!r:.80}"
    )


def _decode(node, members, floats):
    if not isinstance(node, list):
        return node
    kind, content = node
    if kind == "float":
        return floats[content]
    if kind in ("array", "number"):
        return members[content] if kind == "array" else members[content][()]
    if kind == "dict":
        return {key: _decode(value, members, floats) for key, value in content}
    return {"list": list, "tuple": tuple}[kind](_decode(value, members, floats) for value in content)
