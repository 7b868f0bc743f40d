"""The integrators: one file a family, one table of methods."""

from .base import DEFAULT_MAX_NUM_STEPS, Integrator, Options, RightHandSide, check_options
from .dop import Dop
from .fixed_grid import FixedGrid
from .lsoda import Lsoda
from .provenance import provenance, warn_of_c_translations
from .radau import Radau
from .vode import Vode

__all__ = ["DEFAULT_MAX_NUM_STEPS", "INTEGRATORS", "Integrator", "Options", "RightHandSide", "check_options", "provenance"]

INTEGRATORS = {
    "adams": Vode(), "bdf": Vode(), "lsoda": Lsoda(), "dopri5": Dop(), "dop853": Dop(), "radau": Radau(),
    "euler": FixedGrid(), "midpoint": FixedGrid(), "rk4": FixedGrid(),
}  # fmt: skip

warn_of_c_translations()
