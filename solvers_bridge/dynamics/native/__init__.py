"""TensorFlow functions compiled ahead of time, which the Fortran integrators call with no Python in between."""

from .build import NativeError, check_tensorflow, cpp_compiler
from .cache import clear
from .library import EVALUATION_LIMIT, INTERRUPTED, NOT_FINITE, RUNNING, Binding, NativeFunction

__all__ = [
    "NativeFunction", "Binding", "NativeError", "check_tensorflow", "cpp_compiler", "clear",
    "RUNNING", "NOT_FINITE", "INTERRUPTED", "EVALUATION_LIMIT",
]  # fmt: skip
