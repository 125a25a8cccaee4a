"""PyTorch: the step of a loop is recorded once, and replayed without Keras between.

Called on that backend alone, where nothing compiles a loop: half of the time of a step
goes into Keras' calls, and much of the rest into what is the same at every step.
"""

import collections
import operator

import keras

if keras.backend.backend() == "torch":
    import torch
    from torch.fx import Graph, GraphModule, Node
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils import _pytree as trees  # that of Keras sorts some dictionaries

# A recording costs as much as so many steps, which are taken first.
STEPS_BEFORE = 40
MOST_RECORDINGS = 8  # of a loop, each for other shapes


class Recorder:
    """The recordings of a step, one for each form of what it is given."""

    def __init__(self):
        self.entries = collections.OrderedDict()  # form: [steps taken, recording]

    def steps_of(self, function):
        """The steps of one loop.

        Args:
            function: A function `(token_ids, state, constants)` of trees of tensors.
                It may write into its state, but does the same if called again.

        Returns:
            A function of the same.
        """
        loop = []  # recordings, constants, and what they make of these

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
            if not recording.is_checked:  # at the step behind the one recorded
                expected = function(*inputs)
                recording.is_checked = True
                if not are_equal(expected, outputs):
                    entry[1] = False  # it reads what no tensor tells
                return expected
            return outputs

        return step

    def entry(self, leaves, form):
        key = form, *((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
        entry = self.entries.setdefault(key, [0, None])
        self.entries.move_to_end(key)
        while len(self.entries) > MOST_RECORDINGS:
            self.entries.popitem(last=False)
        return entry


def prepared(loop, recording, leaves):
    """Return what is the same at every step with these constants."""
    constants = leaves[recording.num_changing :]
    for known, seen, results in loop:
        if known is recording and all(map(operator.is_, seen, constants)):
            return results
    del loop[:-1]  # with guidance two take turns
    loop.append((recording, constants, recording.once(*leaves)))
    return loop[-1][-1]


def recorded(function, leaves, form):
    """A `Recording`, or False where the step asks for the values of its tensors."""
    forms = []

    def flat(*leaves):
        outputs, form_of_outputs = trees.tree_flatten(
            function(*trees.tree_unflatten(leaves, form))
        )
        forms.append(form_of_outputs)
        return outputs

    try:
        module = make_fx(flat)(*leaves)
    except Exception:  # of many kinds, by what the step does with a value
        return False
    ids, state, _ = trees.tree_unflatten(leaves, form)
    num_changing = len(trees.tree_leaves((ids, state)))
    return Recording(module, num_changing, forms[-1])


class Recording:
    """The operations of a step: those once for a loop, and those at each step."""

    def __init__(self, module, num_changing, form):
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
        self.once = part_of(module, leaves, constant, handed_on)
        [output] = [node for node in nodes if node.op == "output"]
        changing = [n for n in nodes if n in changing and n.op == "call_function"]
        inputs = leaves[:num_changing] + handed_on
        self.each_step = part_of(module, inputs, changing, output.args[0])
        self.num_changing = num_changing

    def replay(self, leaves, results_of_once):
        outputs = self.each_step(*leaves[: self.num_changing], *results_of_once)
        return trees.tree_unflatten(outputs, self.form)


def changing_nodes(nodes, inputs):
    """The nodes that depend on some inputs, or are written into."""
    changing = set(inputs)
    for node in nodes:
        if node.op == "call_function" and is_writing(node):
            changing.add(node)
            written = node.args[0]
            while written.op == "call_function":  # a view of what it was made of
                changing.add(written)
                written = next(iter(written.all_input_nodes), written)
                if written in changing:
                    break
    for node in nodes:  # in the order in which they run
        if node.op == "output" or any(n in changing for n in node.all_input_nodes):
            changing.add(node)
    return changing


def is_writing(node):
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def part_of(module, inputs, nodes, outputs):
    """A module that computes some nodes of another one, from others."""
    graph, copies = Graph(), {}
    for number, node in enumerate(inputs):
        copies[node] = graph.placeholder(f"input_{number}")
    for node in nodes:
        if node not in copies:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output([copies[node] if isinstance(node, Node) else node for node in outputs])
    graph.eliminate_dead_code()
    return GraphModule(module, graph)


def are_equal(expected, outputs):
    expected, outputs = map(trees.tree_leaves, (expected, outputs))
    return len(expected) == len(outputs) and all(
        torch.allclose(x, y, rtol=1e-5, atol=1e-5, equal_nan=True)
        if x.is_floating_point()
        else torch.equal(x, y)
        for x, y in zip(expected, outputs, strict=True)
    )
