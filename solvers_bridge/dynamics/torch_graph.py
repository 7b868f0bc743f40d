"""Gradients in PyTorch's graph of functions whose inputs were made of one another, and functions in a graph of their own."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property

import torch


class Used:
    """Tensors that a function uses, and which of them were made of which others."""

    def __init__(self, tensors):
        self.tensors = tuple(tensors)

    @cached_property
    def made_of(self):
        """{i: the numbers of those of which tensor i was made}, for those made of any; what was made of the most comes first."""
        made = [i for i, tensor in enumerate(self.tensors) if tensor.grad_fn is not None]
        made_of = {}
        if _reached_from([self.tensors[i] for i in made], self.tensors):
            made_of = {i: sorted(_reached_from([self.tensors[i]], self.tensors) - {i}) for i in made}
        return {i: made_of[i] for i in sorted(made_of, key=lambda i: len(made_of[i]), reverse=True) if made_of[i]}

    def gradients(self, f, own, cotangent, *, traced, wanted=None):
        """[d<f, cotangent>/dx for x in (*own, *tensors)], each with all others held; None where f does not use x.

        own: further inputs, of which no tensor was made. wanted: of which x (default: all that need one). traced: whether the
        gradients are differentiated in turn.
        """
        inputs = (*own, *self.tensors)
        if wanted is None:
            wanted = [i for i, value in enumerate(inputs) if value.requires_grad]
        if not (wanted and f.requires_grad):
            return [None] * len(inputs)

        def pulled_back(output, onto, bar):
            asked = [inputs[i] for i in onto]
            found = torch.autograd.grad(output, asked, bar, allow_unused=True, retain_graph=True, create_graph=traced)
            return dict(zip(onto, found))

        with self._without_hooks():
            # Of a tensor of which another was made, PyTorch gives the gradient through that one, too.
            bars, first = pulled_back(f, wanted, cotangent), len(own)
            for i, above in self.made_of.items():
                if bars.get(first + i) is not None:
                    through = pulled_back(inputs[first + i], [first + j for j in above if first + j in bars], bars[first + i])
                    for j, bar in through.items():
                        bars[j] = bars[j] if bar is None else bars[j] - bar
        return [bars.get(i) for i in range(len(inputs))]

    @contextmanager
    def _without_hooks(self):
        """Keep the hooks that were registered on tensors for their whole gradients, which are not known here."""
        kept = [(tensor._backward_hooks, dict(tensor._backward_hooks)) for tensor in self.tensors if tensor._backward_hooks]
        for hooks, _ in kept:
            hooks.clear()
        try:
            yield
        finally:
            for hooks, items in kept:
                hooks.update(items)


def _reached_from(tensors, others):
    """The numbers of those of others from which any of tensors was made."""
    leaves = {id(other): i for i, other in enumerate(others) if other.grad_fn is None}
    inner = {(other.grad_fn, other.output_nr): i for i, other in enumerate(others) if other.grad_fn is not None}
    nodes, reached = [tensor.grad_fn for tensor in tensors], set()
    seen = set(nodes)
    while nodes:
        for node, output in nodes.pop().next_functions:
            leaf = getattr(node, "variable", None)
            reached.add(inner.get((node, output)) if leaf is None else leaves.get(id(leaf)))
            if node is not None and node not in seen:
                seen.add(node)
                nodes.append(node)
    return reached - {None}


def other_leaves(f, used):
    """Leaves of the graph of f that are reached by none of used: what a function that is not PyTorch's own was given."""
    ends = {tensor.grad_fn for tensor in used if tensor.grad_fn is not None}
    known = {id(tensor) for tensor in used}
    nodes, seen, leaves = [f.grad_fn], set(), []
    while nodes:
        node = nodes.pop()
        if node is None or node in seen or node in ends:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            leaves.append(leaf)
        nodes += [parent for parent, _ in node.next_functions]
    return leaves


class Linked(torch.autograd.Function):
    """The output of a graph of its own leaves and of used tensors, as the same function of inputs: differentiable to any order.

    inputs have the values of leaves, and stand in their places in the graph around it; then the used tensors follow.
    """

    @staticmethod
    def forward(ctx, local, *inputs):
        output, leaves, ctx.used = local
        # As saved tensors they are freed when PyTorch frees its graph; which params must not have changed, output's graph knows.
        ctx.save_for_backward(output, *leaves, *inputs[: len(leaves)])
        return output.detach()

    @staticmethod
    def backward(ctx, bar):
        output, *tensors = ctx.saved_tensors
        leaves, inputs = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        used, is_traced = ctx.used, torch.is_grad_enabled()
        wanted = [i for i, is_needed in enumerate(ctx.needs_input_grad[1:]) if is_needed]
        own = bar.detach().requires_grad_(is_traced)
        with torch.enable_grad():
            bars = used.gradients(output, leaves, own, traced=is_traced, wanted=wanted)
        for i in wanted:
            if bars[i] is not None and bars[i].requires_grad:
                bars[i] = Linked.apply((bars[i], (own, *leaves), used), bar, *inputs, *used.tensors)
        return None, *bars
