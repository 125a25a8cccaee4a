"""Where the padding mask of a model is made, used and lost.

Axes in shape comments: B batch, S steps, D features.
"""

import dataclasses
import inspect
import numbers
import warnings

import keras
from keras import ops, tree

# Long enough for a stack of convolutions, short enough to cost nothing.
NUM_STEPS = 16


@dataclasses.dataclass(frozen=True)
class MaskRow:
    """One call of a layer, or of an operation such as `x * 2`.

    Attributes:
        layer: Name of the layer. A layer that is called twice has two rows.
        class_name: Name of its class.
        mask_in: Whether a mask came in, with any input or as an argument.
        mask_out: Whether an output carries a mask.
        verdict: `"makes"`, `"keeps"`, `"uses"`, `"loses"` or `"has none"`.
    """

    layer: str
    class_name: str
    mask_in: bool
    mask_out: bool
    verdict: str


@dataclasses.dataclass(frozen=True)
class MaskReport:
    """What `mask_report` returns; `print` shows it as a table.

    Attributes:
        rows: A `MaskRow` for each call, in the order of the calls.
    """

    rows: tuple

    @property
    def lost_at(self):
        """The names of the layers that lose the mask, in the order of the calls."""
        names = [row.layer for row in self.rows if row.verdict == "loses"]
        return tuple(dict.fromkeys(names))

    def __str__(self):
        yes_no = {True: "yes", False: "-"}
        cells = [("layer", "class", "mask in", "mask out", "the layer")]
        for row in self.rows:
            masks = yes_no[row.mask_in], yes_no[row.mask_out]
            cells.append((row.layer, row.class_name, *masks, row.verdict))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
        return "\n".join([*lines, self._summary()])

    def _summary(self):
        if self.lost_at:
            return f"The mask is lost at: {', '.join(self.lost_at)}."
        if any(row.mask_in or row.mask_out for row in self.rows):
            return "The mask is lost nowhere."
        return "No layer makes a mask."


def mask_report(model, inputs=None):
    """Tells where a model makes, uses and loses its padding mask.

        ids ──embedding──> (B,S,D) ──x * 2──> (B,S,D) ──gru──> ...
                 makes               loses             has none

    Keras hands the mask of padded steps from layer to layer, and what does not hand it
    on loses it in silence: then padding is read as if it were data, and counted by the
    loss. The model is run once, without training, as `predict` would run it, and each
    call is asked whether a mask came in and whether one went out:

    - `makes`: none came in, one goes out.
    - `keeps`: one came in, one goes out.
    - `uses`: one came in and ends here by design, since the layer takes a mask and its
      output has no steps (a pooling, `return_sequences=False`), or since it is the
      mask of something that the layer looks at (the memory of a decoder); or one step
      is picked (`x[:, 0]`).
    - `loses`: one came in and none goes out, though the output still has steps; or the
      layer cannot take a mask, so that it has mixed padding into what it returns
      (`Flatten`, `GlobalMaxPooling1D`, `keras.ops.mean`).
    - `has none`: none came in, none goes out.

    Args:
        model: Functional or built Sequential `keras.Model`, such as a builder returns.
            A model inside it is one row.
        inputs: What to run the model on, an array for each input, or a dictionary by
            name. Defaults to one row of ones, 16 long where the model leaves a length
            open, and to class 0 where a row is one number.

    Returns:
        A `MaskReport` with `rows` and `lost_at`, the names of the layers that lose the
        mask. Inputs have no row, for none has a mask, nor do operations that return
        booleans, for they compute the mask itself.

    Raises:
        ValueError: `model` is no Keras model, or has no graph of layers, or does not
            run on the default inputs; or `inputs` are not those of the model.

    Example:

    >>> import keras
    >>> import kseq
    >>> ids = keras.Input((None,), dtype="int32")
    >>> x = keras.layers.Embedding(11, 6, mask_zero=True, name="embedding")(ids)
    >>> x = keras.ops.multiply(x, 2)  # `keras.layers.Rescaling(2)` would keep the mask
    >>> model = keras.Model(ids, keras.layers.GRU(5, name="gru")(x))
    >>> report = kseq.mask_report(model)
    >>> print(report)
    layer      class      mask in  mask out  the layer
    embedding  Embedding  -        yes       makes
    multiply   Multiply   yes      -         loses
    gru        GRU        -        -         has none
    The mask is lost at: multiply.
    >>> report.lost_at
    ('multiply',)

    References:
        - [Keras: masking and padding](https://keras.io/guides/understanding_masking_and_padding/)
    """
    graph = graph_of(model)
    rows = []

    def observed(operation):
        def call(*args, **kwargs):
            # Now, for `MultiHeadAttention` takes the mask off its inputs.
            arguments = CallArguments(operation, args, kwargs)
            outputs = tree.flatten(operation(*args, **kwargs))
            if not computes_a_mask(operation, outputs):
                rows.append(row_of(operation, arguments, outputs))
            return outputs

        return call

    # Symbolic tensors have masks too, but not those of a run: a nested model loses them
    # when it is wired and keeps them when it runs. A private method, because nothing
    # public shows each call of a run; it is the one that `Function.call` consists of.
    with keras.StatelessScope(), warnings.catch_warnings():  # the model stays as it was
        warnings.filterwarnings("ignore", ".*does not support masking")
        if inputs is None:
            try:
                graph._run_through_graph(default_inputs(graph), observed)
            except Exception as error:
                raise ValueError(
                    "The model must run on its default inputs, of shape "
                    f"{[shape_to_run(x) for x in graph.inputs]}. Received: "
                    f"model={model.name}, which raises {type(error).__name__}: "
                    f"{error} Give `mask_report` a batch that it runs on as `inputs`."
                ) from error
        else:
            graph._run_through_graph(given_inputs(graph, inputs), observed)
    return MaskReport(tuple(rows))


class CallArguments:
    """What a call was given: its tensors and their masks."""

    def __init__(self, operation, args, kwargs):
        signature = inspect.signature(operation.call)
        given = dict(signature.bind(*args, **kwargs).arguments)
        self.takes_mask = isinstance(operation, keras.layers.Layer) and any(
            is_mask_argument(name, signature.parameters)
            for name in signature.parameters
        )
        # Keras hands on the mask of a layer's first argument; an operation has none to
        # hand on, whichever argument it came with.
        first = next(iter(given), None)
        self.masked, self.first_is_masked = False, False
        for name, value in given.items():
            if is_mask_argument(name, signature.parameters):
                is_masked = any(x is not None for x in tree.flatten(value))
                is_first = name in ("mask", f"{first}_mask")
            else:
                is_masked, is_first = any_masked(value), name == first
            self.masked |= is_masked
            self.first_is_masked |= is_masked and is_first
        self.picks_step = type(operation).__name__ == "GetItem" and is_one_step(
            given["key"]
        )
        self.first_rank = max(ranks(given.get(first)), default=0)


def row_of(operation, arguments, outputs):
    """Judges one call."""
    mask_in, mask_out = arguments.masked, any_masked(outputs)
    has_steps = max(ranks(outputs), default=0) >= arguments.first_rank
    if mask_out:
        verdict = "keeps" if mask_in else "makes"
    elif not mask_in:
        verdict = "has none"
    elif (
        arguments.picks_step
        or arguments.takes_mask
        and not (arguments.first_is_masked and has_steps)
    ):
        verdict = "uses"
    else:
        verdict = "loses"
    class_name = type(operation).__name__
    return MaskRow(operation.name, class_name, mask_in, mask_out, verdict)


def computes_a_mask(operation, outputs):
    """Whether it is a part of the mask, as the `not_equal` that Keras wires itself."""
    return not isinstance(operation, keras.layers.Layer) and all(
        keras.backend.standardize_dtype(x.dtype) == "bool" for x in outputs
    )


def is_mask_argument(name, names):
    """Whether Keras would fill it in: `mask`, or `value_mask` beside a `value`."""
    return name == "mask" or (name.endswith("_mask") and name[:-5] in names)


def is_one_step(key):
    """Whether `x[key]` picks one step, `x[:, 0]`, so that none has a mask any more."""
    has_step = isinstance(key, tuple) and len(key) > 1 and isinstance(key[0], slice)
    return has_step and isinstance(key[1], numbers.Integral)


def any_masked(tensors):
    # Keras offers users no function that reads the mask of a tensor.
    return any(
        getattr(x, "_keras_mask", None) is not None for x in tree.flatten(tensors)
    )


def ranks(tensors):
    return [len(x.shape) for x in tree.flatten(tensors) if hasattr(x, "shape")]


def graph_of(model):
    """The graph of a model, from its flat inputs to its flat outputs."""
    has_graph = isinstance(model, (keras.Function, keras.Sequential))
    if not has_graph or not hasattr(model, "inputs"):
        raise ValueError(
            "`model` must be a Keras model with a graph of layers: functional, from a "
            f"builder of kseq, or a built Sequential. Received: model={model!r}. Build "
            "a Sequential with `model.build(input_shape)`; wire the layers of a "
            "subclassed model with `keras.Input` and `keras.Model(inputs, outputs)`."
        )
    return keras.Function(model.inputs, model.outputs, name=model.name)


def shape_to_run(x):
    return (1, *(NUM_STEPS if size is None else size for size in x.shape[1:]))


def default_inputs(graph):
    """Ones, which are no padding; class 0, which there always is."""
    return [
        (ops.ones if len(x.shape) > 1 else ops.zeros)(shape_to_run(x), dtype=x.dtype)
        for x in graph.inputs
    ]


def given_inputs(graph, inputs):
    """The user's inputs as flat tensors; those in a dictionary go by their names."""
    names = [x.name for x in graph.inputs]
    by_name = isinstance(inputs, dict)
    values = list(inputs.values()) if by_name else tree.flatten(inputs)
    if len(values) != len(names) or (by_name and set(inputs) != set(names)):
        received = sorted(inputs) if by_name else f"{len(values)} values"
        raise ValueError(
            "`inputs` must have one array for each input of the model. Received: "
            f"{received}, for the inputs {names}. Give an array, a list of them in "
            "this order, or a dictionary by these names."
        )
    values = [inputs[name] for name in names] if by_name else values
    return [
        ops.convert_to_tensor(value, dtype=x.dtype)
        for value, x in zip(values, graph.inputs, strict=True)
    ]
