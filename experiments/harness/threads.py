"""How many threads this process's libraries compute with, which changes last bits."""

import contextlib
import ctypes
import sys
from pathlib import Path

from solvers_bridge.integrators.blas_threads import loaded_libraries

# OpenBLAS's function, as it is called in NumPy's wheels, in SciPy's, and in a system's library.
_NAMES = [f"{prefix}openblas_get_num_threads{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")]


def threads():
    """{name of a loaded OpenBLAS: its threads}, TensorFlow's two pools', 0 for one a core, and PyTorch's, where loaded."""
    found = {}
    for path in loaded_libraries("openblas"):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(path)
            name = next((name for name in _NAMES if hasattr(library, name)), None)
            if name is not None:
                found[Path(path).name.partition("-")[0]] = getattr(library, name)()
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        pools = tensorflow.config.threading
        found |= {
            "tensorflow_intra_op": pools.get_intra_op_parallelism_threads(),
            "tensorflow_inter_op": pools.get_inter_op_parallelism_threads(),
        }
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    return found
