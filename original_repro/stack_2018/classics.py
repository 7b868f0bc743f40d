"""The classic test problems: DETEST's 25 and some of Hairer's, as text that a trace can carry.

T. E. Hull, W. H. Enright, B. M. Fellen, A. E. Sedgwick, "Comparing numerical methods for ordinary differential equations" (SIAM
J. Numer. Anal. 9, 1972): A1-E5 over [0, 20]. E. Hairer, S. P. Norsett, G. Wanner, "Solving Ordinary Differential Equations" I
(1993) and II (1996): the rest.

A right-hand side is a list of Python expressions of t, a list y, and sqrt, sin, cos of the module math: scalar arithmetic that
leaves nothing to NumPy.
"""
import math

FUNCTIONS = {name: getattr(math, name) for name in ("sqrt", "sin", "cos")}


def right_hand_side(expressions):
    """rhs(t, y: list) -> list, of the expressions."""
    return eval("lambda t, y: [%s]" % ", ".join(expressions), dict(FUNCTIONS))


def chain(decay, gain, n):
    """C1 and C2: a radioactive decay chain of n nuclides with the given rates."""
    middle = ["%s*y[%d] - %s*y[%d]" % (gain(i), i - 1, decay(i), i) for i in range(1, n - 1)]
    return ["-y[0]"] + middle + ["%s*y[%d]" % (gain(n - 1), n - 2)]


def heat(n):
    """C3 and C4: the heat equation on n points."""
    middle = ["y[%d] - 2*y[%d] + y[%d]" % (i - 1, i, i + 1) for i in range(1, n - 1)]
    return ["-2*y[0] + y[1]"] + middle + ["y[%d] - 2*y[%d]" % (n - 2, n - 1)]


def gravity(masses, dimension, scale, sun=None):
    """Newton's law for bodies with positions, then velocities, in y; sun: mass of a body at the origin (heliocentric, C5)."""
    count = len(masses)
    size = count * dimension

    def cubed_distance(i, j):
        squares = " + ".join("(y[{0}] - y[{1}])*(y[{0}] - y[{1}])".format(dimension * j + k, dimension * i + k)
                             for k in range(dimension))
        return "({0})*sqrt({0})".format(squares)

    def cubed_radius(i):
        squares = " + ".join("y[{0}]*y[{0}]".format(dimension * i + k) for k in range(dimension))
        return "({0})*sqrt({0})".format(squares)

    expressions = ["y[%d]" % (size + i) for i in range(size)]
    for i in range(count):
        for k in range(dimension):
            here = dimension * i + k
            terms = [] if sun is None else ["-%r*y[%d]/(%s)" % (sun + masses[i], here, cubed_radius(i))]
            for j in range(count):
                if j != i:
                    there = dimension * j + k
                    pull = "(y[%d] - y[%d])/(%s)" % (there, here, cubed_distance(i, j))
                    if sun is not None:
                        pull = "(%s - y[%d]/(%s))" % (pull, there, cubed_radius(j))
                    terms.append("%r*%s" % (masses[j], pull))
            expressions.append("%r*(%s)" % (scale, " + ".join(terms)))
    return expressions


def orbit(eccentricity):
    """D1-D5: a two-body orbit."""
    cube = "((y[0]*y[0] + y[1]*y[1])*sqrt(y[0]*y[0] + y[1]*y[1]))"
    return (["y[2]", "y[3]", "-y[0]/" + cube, "-y[1]/" + cube],
            [1 - eccentricity, 0.0, 0.0, math.sqrt((1 + eccentricity) / (1 - eccentricity))], 20.0)


FIVE_BODY_MASSES = [0.954786104043e-3, 0.285583733151e-3, 0.437273164546e-4, 0.517759138449e-4, 0.277777777778e-5]
FIVE_BODY_START = [
    3.42947415189, 3.35386959711, 1.35494901715, 6.64145542550, 5.97156957878, 2.18231499728, 11.2630437207, 14.6952576794,
    6.27960525067, -30.1552268759, 1.65699966404, 1.43785752721, -21.1238353380, 28.4465098142, 15.3882659679, -0.557160570446,
    0.505696783289, 0.230578543901, -0.415570776342, 0.365682722812, 0.169143213293, -0.325325669158, 0.189706021964,
    0.0877265322780, -0.0240476254170, -0.287659532608, -0.117219543175, -0.176860753121, -0.216393453025, -0.0148647893090]

B4_RADIUS = "sqrt(y[0]*y[0] + y[1]*y[1])"
MU = 0.012277471
ARENSTORF_1 = "(((y[0] + {mu})*(y[0] + {mu}) + y[1]*y[1])*sqrt((y[0] + {mu})*(y[0] + {mu}) + y[1]*y[1]))".format(mu=MU)
ARENSTORF_2 = "(((y[0] - {nu})*(y[0] - {nu}) + y[1]*y[1])*sqrt((y[0] - {nu})*(y[0] - {nu}) + y[1]*y[1]))".format(nu=1 - MU)

# name: (expressions, y0, end of time)
PROBLEMS = {
    "A1": (["-y[0]"], [1.0], 20.0),
    "A2": (["-y[0]*y[0]*y[0]/2"], [1.0], 20.0),
    "A3": (["y[0]*cos(t)"], [1.0], 20.0),
    "A4": (["y[0]/4*(1 - y[0]/20)"], [1.0], 20.0),
    "A5": (["(y[0] - t)/(y[0] + t)"], [4.0], 20.0),
    "B1": (["2*(y[0] - y[0]*y[1])", "-(y[1] - y[0]*y[1])"], [1.0, 3.0], 20.0),
    "B2": (["-y[0] + y[1]", "y[0] - 2*y[1] + y[2]", "y[1] - y[2]"], [2.0, 0.0, 1.0], 20.0),
    "B3": (["-y[0]", "y[0] - y[1]*y[1]", "y[1]*y[1]"], [1.0, 0.0, 0.0], 20.0),
    "B4": (["-y[1] - y[0]*y[2]/" + B4_RADIUS, "y[0] - y[1]*y[2]/" + B4_RADIUS, "y[0]/" + B4_RADIUS], [3.0, 0.0, 0.0], 20.0),
    "B5": (["y[1]*y[2]", "-y[0]*y[2]", "-0.51*y[0]*y[1]"], [0.0, 1.0, 1.0], 20.0),
    "C1": (chain(lambda i: 1, lambda i: 1, 10), [1.0] + 9 * [0.0], 20.0),
    "C2": (chain(lambda i: i + 1, lambda i: i, 10), [1.0] + 9 * [0.0], 20.0),
    "C3": (heat(10), [1.0] + 9 * [0.0], 20.0),
    "C4": (heat(51), [1.0] + 50 * [0.0], 20.0),
    "C5": (gravity(FIVE_BODY_MASSES, 3, 2.95912208286, sun=1.00000597682), FIVE_BODY_START, 20.0),
    "D1": orbit(0.1), "D2": orbit(0.3), "D3": orbit(0.5), "D4": orbit(0.7), "D5": orbit(0.9),
    "E1": (["y[1]", "-(y[1]/(t + 1) + (1 - 0.25/((t + 1)*(t + 1)))*y[0])"], [0.6713967071418030, 0.09540051444747446], 20.0),
    "E2": (["y[1]", "(1 - y[0]*y[0])*y[1] - y[0]"], [2.0, 0.0], 20.0),
    "E3": (["y[1]", "y[0]*y[0]*y[0]/6 - y[0] + 2*sin(2.78535*t)"], [0.0, 0.0], 20.0),
    "E4": (["y[1]", "0.032 - 0.4*y[1]*y[1]"], [30.0, 0.0], 20.0),
    "E5": (["y[1]", "sqrt(1 + y[1]*y[1])/(25 - t)"], [0.0, 0.0], 20.0),
    "brusselator": (["1 + y[0]*y[0]*y[1] - 4*y[0]", "3*y[0] - y[0]*y[0]*y[1]"], [1.5, 3.0], 20.0),
    "euler": (["-2*y[1]*y[2]", "1.25*y[0]*y[2]", "-0.5*y[0]*y[1] + (0.25*sin(t)*sin(t)/3 if 9.42477796076938 <= t <= "
               "12.566370614359172 else 0.0)"], [1.0, 0.0, 0.9], 20.0),
    "pleiades": (gravity([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 2, 1.0),
                 [3.0, 3.0, 3.0, -3.0, -1.0, 2.0, -3.0, 0.0, 2.0, 0.0, -2.0, -4.0, 2.0, 4.0,
                  0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.25, 0.0, 1.0, 1.75, 0.0, -1.5, 0.0], 3.0),
    "arenstorf": (["y[2]", "y[3]",
                   "y[0] + 2*y[3] - {nu}*(y[0] + {mu})/{d1} - {mu}*(y[0] - {nu})/{d2}".format(
                       nu=1 - MU, mu=MU, d1=ARENSTORF_1, d2=ARENSTORF_2),
                   "y[1] - 2*y[2] - {nu}*y[1]/{d1} - {mu}*y[1]/{d2}".format(
                       nu=1 - MU, mu=MU, d1=ARENSTORF_1, d2=ARENSTORF_2)],
                  [0.994, 0.0, 0.0, -2.00158510637908252240537862224], 17.0652165601579625588917206249),
    "lorenz": (["-10*y[0] + 10*y[1]", "-y[0]*y[2] + 28*y[0] - y[1]", "y[0]*y[1] - 8*y[2]/3"], [-8.0, 8.0, 27.0], 5.0),
    "van_der_pol": (["y[1]", "((1 - y[0]*y[0])*y[1] - y[0])/0.003"], [2.0, 0.0], 2.0),
    "robertson": (["-0.04*y[0] + 1e4*y[1]*y[2]", "0.04*y[0] - 1e4*y[1]*y[2] - 3e7*y[1]*y[1]", "3e7*y[1]*y[1]"],
                  [1.0, 0.0, 0.0], 40.0),
    "oregonator": (["77.27*(y[1] + y[0]*(1 - 8.375e-6*y[0] - y[1]))", "(y[2] - (1 + y[0])*y[1])/77.27",
                    "0.161*(y[0] - y[2])"], [1.0, 2.0, 3.0], 30.0),
}
# Only LSODA's Newton iteration gets through these in a sensible number of evaluations.
STIFF = ("robertson", "oregonator")
