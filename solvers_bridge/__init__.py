"""SciPy's Fortran integrators bridged to autograd, with TensorFlow graphs for dynamics and vector-Jacobian products.

odeint is the way in; see its docstring. Importing this package does not import TensorFlow.
"""

from typing import Any

from .events import odeint_event
from .odeint import odeint
from .statistics import GradientWarning, SolverError, SolveStatistics, record_solves

__all__ = [
    "odeint",
    "odeint_event",
    "record_solves",
    "GradientWarning",
    "SolverError",
    "SolveStatistics",
    "TensorFlowDynamics",
    "tensorflow_primitive",
]


def __getattr__(name: str) -> Any:
    if name == "TensorFlowDynamics":
        from .dynamics.tensorflow import TensorFlowDynamics

        return TensorFlowDynamics
    if name == "tensorflow_primitive":
        from .tensorflow_functions import tensorflow_primitive

        return tensorflow_primitive
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
