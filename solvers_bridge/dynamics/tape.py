"""autograd's own machinery, where its public functions cost more than small dynamics themselves.

The only file that uses names of autograd outside its public modules numpy, extend and tracer.
"""

from __future__ import annotations

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.tracer import isbox, new_box

try:
    from autograd.core import VJPNode, add_outgrads
    from autograd.tracer import toposort, trace_stack
except ImportError as error:
    raise ImportError(
        f"autograd {getattr(autograd, '__version__', '')} has no longer what solvers_bridge builds vector-Jacobian products "
        f"on ({error}); install 'autograd>=1.7,<2'"
    ) from error


def vjp(fun, *args):
    """fun(*args) and its pullback: cotangent -> tuple of cotangents, one for each of args.

    autograd.make_vjp with several separate arguments instead of one container, whose bookkeeping would cost more than
    small dynamics themselves. args may be boxes of an outer trace, so this nests as autograd does.
    """
    roots = [VJPNode.new_root() for _ in args]
    with trace_stack.new_trace() as trace:
        end = fun(*[new_box(arg, trace, root) for arg, root in zip(args, roots)])
    depends = isbox(end) and end._trace == trace

    def pullback(end_bar):
        bars = _backward_pass(end_bar, end._node) if depends else {}
        return tuple(bars[root] if root in bars else np.zeros(anp.shape(arg)) for root, arg in zip(roots, args))

    return (end._value if depends else end), pullback


def _backward_pass(end_bar, end_node):
    bars = {end_node: (end_bar, False)}
    root_bars = {}
    for node in toposort(end_node):
        bar = bars.pop(node)
        if not node.parents:
            root_bars[node] = bar[0]
        for parent, parent_bar in zip(node.parents, node.vjp(bar[0])):
            bars[parent] = add_outgrads(bars.get(parent), parent_bar)
    return root_bars
