"""SciPy's Fortran integrators bridged to autograd, with TensorFlow graphs for dynamics and vector-Jacobian products.

odeint is the way in; see its docstring. Importing this package does not import TensorFlow.
"""

from typing import Any

from .odeint import odeint
from .statistics import SolverError, SolveStatistics, record_solves

__all__ = ["odeint", "record_solves", "SolverError", "SolveStatistics", "TensorFlowDynamics", "tensorflow_primitive"]


def __getattr__(name: str) -> Any:
    if name in ("TensorFlowDynamics", "tensorflow_primitive"):
        from . import tensorflow_graph

        return getattr(tensorflow_graph, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
