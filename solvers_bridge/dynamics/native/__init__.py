"""TensorFlow functions compiled ahead of time, which the Fortran integrators call with no Python in between."""

from ...integrators.compiled import EVALUATION_LIMIT, INTERRUPTED, NOT_FINITE, RUNNING
from .build import NativeError, check_tensorflow, cpp_compiler
from .cache import clear
from .library import Binding, NativeFunction

__all__ = [
    "NativeFunction", "Binding", "NativeError", "check_tensorflow", "cpp_compiler", "clear",
    "RUNNING", "NOT_FINITE", "INTERRUPTED", "EVALUATION_LIMIT",
]  # fmt: skip
