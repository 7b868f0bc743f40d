"""Three densities of the plane, known up to a factor: the targets of Figure 4, p(z) = exp(-U(z)) / Z.

U1, U2 and U3 of Rezende and Mohamed, "Variational inference with normalizing flows" (2015), table 1. As printed there U2 and U3
are densities of no distribution: they depend on z1 through a wave only, and extend without end; the figures show |z1| <= 4. A
term that is zero there, and outside ((|z1| - 4) / 0.4)^2 / 2, ends them softly.
"""

import math

import autograd.numpy as anp
import numpy as np

NAMES = ("u1", "u2", "u3")
EDGE, EDGE_WIDTH = 4.0, 0.4
QUADRATURE_SIDE = 8.0  # exp(-U) is below 1e-20 outside |z1|, |z2| <= 8


def energy(name, z1, z2, xp=anp):
    """U of the density `name`, "u1", "u2" or "u3", at coordinates z1 and z2, arrays of one shape; the same shape.

    xp: the library of the arrays, autograd.numpy or tensorflow.experimental.numpy. Raises ValueError for another name.
    """
    if name == "u1":
        ring = 0.5 * ((xp.sqrt(z1**2 + z2**2) - 2.0) / 0.4) ** 2
        return ring - xp.logaddexp(-0.5 * ((z1 - 2.0) / 0.6) ** 2, -0.5 * ((z1 + 2.0) / 0.6) ** 2)
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    outside = xp.abs(z1) - EDGE
    edge = 0.5 * ((outside + xp.abs(outside)) / (2 * EDGE_WIDTH)) ** 2
    height = z2 - xp.sin(0.5 * math.pi * z1)
    if name == "u2":
        return 0.5 * (height / 0.4) ** 2 + edge
    second = height + 3.0 * xp.exp(-0.5 * ((z1 - 1.0) / 0.6) ** 2)
    return edge - xp.logaddexp(-0.5 * (height / 0.35) ** 2, -0.5 * (second / 0.35) ** 2)


def log_normaliser(name, nodes=2000):
    """log Z = log of the integral of exp(-U) over the plane, by the trapezoidal rule with nodes^2 points; float.

    The integrand vanishes at the border, so that the rule converges faster than any power but for U2's and U3's soft edge.
    """
    side = np.linspace(-QUADRATURE_SIDE, QUADRATURE_SIDE, nodes)
    return float(np.log(np.exp(-energy(name, side[:, None], side)).sum()) + 2 * math.log(side[1] - side[0]))
