"""Replay of loop steps on PyTorch: a step is recorded once and run without Keras.

Used on the PyTorch backend only, where loops are not compiled. Half of the time of a
step is spent in calls of Keras, and much of the rest on results that are the same at
every step.
"""

import collections
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import keras

from kseq.typing import Tensor, Tree

if keras.backend.backend() == "torch":
    import torch
    from torch.fx import Graph, GraphModule, Node
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils import _pytree as trees  # `keras.tree` sorts some dictionaries

# A recording costs as much as about this many steps, so they are run first.
STEPS_BEFORE = 40
MOST_RECORDINGS = 8  # of one loop, for different shapes


class Recorder:
    """Recordings of a step, one for each structure and shape of its inputs."""

    def __init__(self) -> None:
        # Structure and layouts: [number of steps run, recording].
        self.entries: collections.OrderedDict[Any, list[Any]]
        self.entries = collections.OrderedDict()

    def steps_of(self, function: Callable[..., Tree]) -> Callable[..., Tree]:
        """Return a step function for one loop, which is replayed once it is recorded.

        Args:
            function: A function `(token_ids, state, constants)` of trees of tensors.
                It may write into its state, but must return the same if called again.

        Returns:
            A function with the same arguments and results.
        """
        loop: list[Any] = []  # recordings, constants, and results computed from these

        def step(*inputs):
            leaves, form = trees.tree_flatten(inputs)
            if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
                return function(*inputs)
            entry = self.entry(leaves, form)
            entry[0] += 1
            if not entry[1]:
                if entry[1] is None and entry[0] > STEPS_BEFORE:
                    entry[1] = recorded(function, leaves, form)
                return function(*inputs)
            recording = entry[1]
            outputs = recording.replay(leaves, prepared(loop, recording, leaves))
            if not recording.is_checked:  # at the step after the recorded one
                expected = function(*inputs)
                recording.is_checked = True
                if not are_equal(expected, outputs):
                    entry[1] = False  # the step depends on more than its tensors
                return expected
            return outputs

        return step

    def entry(self, leaves: Sequence[Tensor], form: Any) -> list[Any]:
        # A recording contains views, which depend on the strides of their inputs.
        layouts = ((x.shape, x.stride(), x.dtype, x.device) for x in leaves)
        key = form, *layouts
        entry = self.entries.setdefault(key, [0, None])
        self.entries.move_to_end(key)
        while len(self.entries) > MOST_RECORDINGS:
            self.entries.popitem(last=False)
        return entry


def prepared(
    loop: list[Any], recording: "Recording", leaves: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Return the results that are the same at every step with these constants."""
    constants = leaves[recording.num_changing :]
    for known, seen, results in loop:
        if known is recording and all(map(operator.is_, seen, constants)):
            return results
    del loop[:-1]  # guidance alternates between two sets of constants
    loop.append((recording, constants, recording.once(*leaves)))
    return loop[-1][-1]


def recorded(
    function: Callable[..., Tree], leaves: Sequence[Tensor], form: Any
) -> "Recording | Literal[False]":
    """Return a `Recording`, or False if the step needs the values of its tensors."""
    forms: list[Any] = []

    def flat(*leaves):
        outputs, form_of_outputs = trees.tree_flatten(
            function(*trees.tree_unflatten(leaves, form))
        )
        forms.append(form_of_outputs)
        return outputs

    try:
        module = make_fx(flat)(*leaves)
    except Exception:  # of various types, depending on the use of a value
        return False
    ids, state, _ = trees.tree_unflatten(leaves, form)
    num_changing = len(trees.tree_leaves((ids, state)))
    return Recording(module, num_changing, forms[-1])


class Recording:
    """Operations of a step: those run once for a loop, and those run at each step."""

    def __init__(self, module: "GraphModule", num_changing: int, form: Any) -> None:
        self.form, self.is_checked = form, False
        module.graph.eliminate_dead_code()
        nodes = list(module.graph.nodes)
        leaves = [node for node in nodes if node.op == "placeholder"]
        changing = changing_nodes(nodes, leaves[:num_changing])
        handed_on = [
            node
            for node in nodes
            if node not in changing and any(user in changing for user in node.users)
        ]
        constant = [node for node in nodes if node not in changing]
        self.once = submodule(module, leaves, constant, handed_on)
        [output] = [node for node in nodes if node.op == "output"]
        each_step = [n for n in nodes if n in changing and n.op == "call_function"]
        inputs = leaves[:num_changing] + handed_on
        self.each_step = submodule(module, inputs, each_step, output.args[0])
        self.num_changing = num_changing

    def replay(
        self, leaves: Sequence[Tensor], results_of_once: Sequence[Tensor]
    ) -> Tree:
        outputs = self.each_step(*leaves[: self.num_changing], *results_of_once)
        return trees.tree_unflatten(outputs, self.form)


def changing_nodes(nodes: Sequence["Node"], inputs: Iterable["Node"]) -> set["Node"]:
    """Return the nodes that depend on some inputs, or are written into."""
    changing = set(inputs)
    for node in nodes:
        if node.op == "call_function" and is_writing(node):
            changing.add(node)
            written: Any = node.args[0]
            while written.op == "call_function":  # a view of its own input
                changing.add(written)
                written = next(iter(written.all_input_nodes), written)
                if written in changing:
                    break
    for node in nodes:  # in order of execution
        if node.op == "output" or any(n in changing for n in node.all_input_nodes):
            changing.add(node)
    return changing


def is_writing(node: "Node") -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def submodule(
    module: "GraphModule",
    inputs: Iterable["Node"],
    nodes: Iterable["Node"],
    outputs: Iterable[Any],
) -> "GraphModule":
    """Return a module that computes some nodes of another module from given inputs."""
    graph, copies = Graph(), {}
    for number, node in enumerate(inputs):
        copies[node] = graph.placeholder(f"input_{number}")
    for node in nodes:
        if node not in copies:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output([copies[node] if isinstance(node, Node) else node for node in outputs])
    graph.eliminate_dead_code()
    return GraphModule(module, graph)


def are_equal(expected: Tree, outputs: Tree) -> bool:
    expected, outputs = map(trees.tree_leaves, (expected, outputs))
    return len(expected) == len(outputs) and all(
        torch.allclose(x, y, rtol=1e-5, atol=1e-5, equal_nan=True)
        if x.is_floating_point()
        else torch.equal(x, y)
        for x, y in zip(expected, outputs, strict=True)
    )
