"""Which integrators this SciPy holds: the Fortran ones, or their C translations."""

from __future__ import annotations

import warnings

import scipy

from .scipy_private import binaries


def provenance():
    """Which integrator binaries this SciPy holds: {"scipy": version, "vode": kind, "lsoda": kind, "dop": kind}.

    kind is "fortran" (f2py modules, SciPy before 1.17) or "c" (the C translations from 1.17 on).
    """
    kinds = {name: "fortran" if type(binary).__name__ == "fortran" else "c" for name, binary in binaries().items()}
    return {"scipy": scipy.__version__, **kinds}


def warn_of_c_translations():
    """One RuntimeWarning if this SciPy's integrators are not the Fortran ones that this package stands for."""
    found = provenance()
    translated = [name for name in ("vode", "lsoda", "dop") if found[name] != "fortran"]
    if translated:
        warnings.warn(
            f"SciPy {found['scipy']} has C translations of {', '.join(translated)} instead of the Fortran "
            "integrators of the paper; results may differ (dop853 takes other steps). "
            "Install 'scipy>=1.11,<1.17' for the Fortran.",
            RuntimeWarning,
            stacklevel=3,
        )
