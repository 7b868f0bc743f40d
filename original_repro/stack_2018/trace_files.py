"""Trace files: JSON, one solve a line, with numbers whose text gives back the same double; .npz for arrays of float32."""
import json
import os

import numpy as np


def plain(value):
    """value with NumPy's arrays and numbers turned into lists, floats and integers, for JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value


def write_json(path, trace):
    """Write trace, a dict; its lists of dicts get a line for each member, so that a difference is one line long."""
    entries = []
    for key, value in plain(trace).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(item, allow_nan=False) for item in value) + "\n ]"
        else:
            text = json.dumps(value, allow_nan=False)
        entries.append(" %s: %s" % (json.dumps(key), text))
    write_bytes(path, ("{\n" + ",\n".join(entries) + "\n}\n").encode())


def read_json(path):
    """The dict in a trace file."""
    with open(path) as file:
        return json.load(file)


def write_arrays(path, arrays):
    """Write a dict of arrays as .npz."""
    temporary = path + ".part.npz"
    np.savez_compressed(temporary, **arrays)
    os.rename(temporary, path)


def write_bytes(path, content):
    """Write a file that is there whole or not at all."""
    with open(path + ".part", "wb") as file:
        file.write(content)
    os.rename(path + ".part", path)


def differences(name, old, new):
    """Lines that say where two traces differ, down to the last bit; empty if nowhere."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = ["%s: only in one of the two: %s" % (name, key) for key in sorted(set(old) ^ set(new))]
        for key in sorted(set(old) & set(new)):
            lines += differences("%s/%s" % (name, key), old[key], new[key])
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        lines = []
        for i, (a, b) in enumerate(zip(old, new)):
            label = "%s[%s]" % (name, a["name"] if isinstance(a, dict) and "name" in a else i)
            lines += differences(label, a, b)
        return lines
    if old == new:
        return []
    return ["%s: was %r, is %r" % (name, old, new)]
