"""Which integrators this SciPy holds: the Fortran ones, or their C translations."""

from __future__ import annotations

import scipy

from ..statistics import warn_user
from .scipy_private import binaries


def provenance() -> dict[str, str]:
    """Which integrator binaries this SciPy holds: {"scipy": version, "vode": kind, "lsoda": kind, "dop": kind}.

    kind is "fortran" (f2py modules, SciPy before 1.17) or "c" (the C translations from 1.17 on).
    """
    kinds = {name: "fortran" if type(binary).__name__ == "fortran" else "c" for name, binary in binaries().items()}
    return {"scipy": scipy.__version__, **kinds}


def is_translated(name: str) -> bool:
    """Whether this SciPy's "vode", "lsoda" or "dop" is the C translation."""
    return provenance()[name] != "fortran"


def warn_of_c_translations() -> None:
    """One RuntimeWarning, at the user's line that imported this package, if the integrators are not the Fortran ones."""
    found = provenance()
    translated = [name for name in ("vode", "lsoda", "dop") if found[name] != "fortran"]
    if translated:
        warn_user(
            f"SciPy {found['scipy']} has C translations of {', '.join(translated)} instead of the Fortran "
            "integrators of the paper; results may differ: dopri5 and dop853 take other steps, and so do adams and "
            "bdf with a Jacobian. Install 'scipy>=1.15,<1.17' for the Fortran.",
            RuntimeWarning,
        )
