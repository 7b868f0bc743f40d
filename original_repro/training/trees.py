"""Nested parameters, mapped over and listed; `solvers_bridge.nested` takes them apart, here as in the solver.

Only tensors inside TensorFlow's graphs are nested by TensorFlow's own `tf.nest`: tf.function, tf.while_loop and GradientTape
take their arguments apart with it themselves, and a symbolic tensor has no array for `flatten` to look at.
"""

from solvers_bridge.nested import flatten


def tree_map(function, tree, *others):
    """Apply `function` to the arrays of `tree`, and to those at the same places of `others`; returns the same nesting.

    Floating-point numbers count as arrays; integers and booleans that are none stay as they are. Raises ValueError where the
    nestings differ, TypeError where `tree` holds anything but numbers and arrays.
    """
    leaves, structure = flatten(tree, "tree")
    columns = [structure.leaves_of(other) for other in others]
    return structure.unflatten([function(*row) for row in zip(leaves, *columns)])


def tree_leaves(tree):
    """The arrays of a nesting, in its order, as a list; what counts as one is as in `tree_map`."""
    return flatten(tree, "tree")[0]
