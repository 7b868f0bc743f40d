"""The integrators: one file a family, one table of methods."""

from .base import DEFAULT_MAX_NUM_STEPS, Call, Integrator, Options, RightHandSide
from .dop import Dop
from .fixed_grid import FixedGrid
from .lsoda import Lsoda
from .provenance import provenance, warn_of_c_translations
from .radau import Radau
from .vode import Vode

__all__ = ["DEFAULT_MAX_NUM_STEPS", "INTEGRATORS", "Call", "Integrator", "Options", "RightHandSide", "provenance"]

INTEGRATORS: dict[str, Integrator] = {
    integrator.name: integrator
    for integrator in (
        Vode("adams"),
        Vode("bdf"),
        Lsoda("lsoda"),
        Dop("dopri5"),
        Dop("dop853"),
        Radau("radau"),
        FixedGrid("euler"),
        FixedGrid("midpoint"),
        FixedGrid("rk4"),
        FixedGrid("rk4_38"),
    )
}

warn_of_c_translations()
