"""What SciPy keeps private and the bridge cannot do without: its Fortran modules, their locks, and ode's inner integrator.

Nothing else in this package names a private part of SciPy. One that is gone is said in a sentence, at the import of the package.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import scipy
from scipy.integrate import ode

try:
    from scipy.integrate import _dop, _ode, _odepack_py, _vode
except ImportError as error:
    raise ImportError(
        f"SciPy {scipy.__version__} no longer has the modules behind scipy.integrate.ode and odeint that solvers_bridge drives "
        f"({error}); install 'scipy>=1.15,<1.17'"
    ) from error

# Module and name of the lock with which SciPy guards each routine.
VODE_LOCK = (_ode, "VODE_LOCK")
LSODA_LOCK = (_ode, "LSODA_LOCK")
ODEPACK_LOCK = (_odepack_py, "ODE_LOCK")


def binaries():
    """The compiled routines behind "vode", "lsoda" and "dop", or None for one that this SciPy does not have."""
    return {
        "vode": getattr(_vode, "dvode", None),
        "lsoda": getattr(_ode.lsoda, "runner", None),
        "dop": getattr(_dop, "dopri5", None),
    }


def inner_integrator(name, **parameters):
    """The object inside scipy.integrate.ode that runs a Fortran code; its reset(size, has_jacobian) lays out the work space."""
    integrator = _integrator_class(name)(**parameters)
    # We hold SciPy's lock for the whole solve; a thread that waits for it has taken the handle that would be checked.
    integrator.check_handle = _nothing
    return integrator


def with_rows_below(integrator, jacobian):
    """jacobian(t, z) of LSODA, packed by bands, with the rows of zeros that f2py's wrapper expects below them.

    SciPy adds them from 1.16 on, where its integrator knows the bands: it forgets them here, when its work space is laid out.
    """
    lower, integrator.ml = integrator.ml, None
    if not lower or jacobian is None:
        return jacobian
    return lambda t, z: np.pad(jacobian(t, z), ((0, lower), (0, 0)))


@functools.cache
def _integrator_class(name):
    """The class of it, which ode looks for among all by regular expressions each time."""
    integrator = getattr(ode(None).set_integrator(name), "_integrator", None)
    if integrator is None or not hasattr(integrator, "run"):
        raise RuntimeError(f"SciPy {scipy.__version__} has no integrator {name!r} of the form that solvers_bridge drives")
    return type(integrator)


def _nothing():
    return None


@functools.cache
def fortran_address(routine):
    """The address of the Fortran subroutine behind one of f2py's functions; None if there is none, as of a C translation."""
    capsule = getattr(routine, "_cpointer", None)
    if capsule is None:
        return None
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
    return get(capsule, None)
