"""Report of where the padding mask of a model is created, used and lost.

Axes in shape comments: B batch, S steps, D features.
"""

import dataclasses
import inspect
import numbers
import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal

import keras
from keras import ops, tree

from kseq.typing import Tensor, Tree

# Long enough for a stack of convolutions, short enough to be fast.
NUM_STEPS = 16


@dataclasses.dataclass(frozen=True)
class MaskRow:
    """One call of a layer, or of an operation such as `x * 2`.

    Attributes:
        layer: Name of the layer. A layer that is called twice has two rows.
        class_name: Name of its class.
        mask_in: Whether an input has a mask, or a mask is passed as an argument.
        mask_out: Whether an output has a mask.
        verdict: `"makes"`, `"keeps"`, `"uses"`, `"loses"` or `"has none"`.
    """

    layer: str
    class_name: str
    mask_in: bool
    mask_out: bool
    verdict: Literal["makes", "keeps", "uses", "loses", "has none"]


@dataclasses.dataclass(frozen=True)
class MaskReport:
    """Result of `mask_report`; `print` shows it as a table.

    Attributes:
        rows: A `MaskRow` for each call, in the order of the calls.
    """

    rows: tuple[MaskRow, ...]

    @property
    def lost_at(self) -> tuple[str, ...]:
        """Names of the layers that lose the mask, in the order of the calls."""
        names = [row.layer for row in self.rows if row.verdict == "loses"]
        return tuple(dict.fromkeys(names))

    def __str__(self) -> str:
        yes_no = {True: "yes", False: "-"}
        cells = [("layer", "class", "mask in", "mask out", "the layer")]
        for row in self.rows:
            masks = yes_no[row.mask_in], yes_no[row.mask_out]
            cells.append((row.layer, row.class_name, *masks, row.verdict))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
        return "\n".join([*lines, self._summary()])

    def _summary(self) -> str:
        if self.lost_at:
            return f"The mask is lost at: {', '.join(self.lost_at)}."
        if any(row.mask_in or row.mask_out for row in self.rows):
            return "The mask is lost nowhere."
        return "No layer makes a mask."


def mask_report(model: keras.Model, inputs: Tree = None) -> MaskReport:
    """Report where a model creates, uses and loses its padding mask.

        ids ──embedding──> (B,S,D) ──x * 2──> (B,S,D) ──gru──> ...
                 makes               loses             has none

    Keras passes the mask of padded steps from layer to layer. A layer that does not
    pass it on loses it silently. Then padding is read like data, and the loss counts
    it. `mask_report` runs the model once, in inference mode as `predict` does, and
    records for each call whether a mask comes in and whether one goes out:

    - `makes`: No mask comes in, one goes out.
    - `keeps`: A mask comes in, one goes out.
    - `uses`: A mask comes in and ends here by design. The layer takes a mask and its
      output has no steps (a pooling, `return_sequences=False`), the mask belongs to
      another input (the memory of a decoder), or one step is picked (`x[:, 0]`).
    - `loses`: A mask comes in and none goes out, although the output still has steps.
      Or the layer does not support a mask, and mixes padding into its output
      (`Flatten`, `GlobalMaxPooling1D`, `keras.ops.mean`).
    - `has none`: No mask comes in, none goes out.

    Args:
        model: Functional or built Sequential `keras.Model`, such as a builder returns.
            A model inside it is one row.
        inputs: Inputs to run the model on: an array for each input, or a dictionary by
            name. Defaults to a batch of one example of ones, with 16 steps where the
            length is open, and class 0 for an input of one number per example.

    Returns:
        A `MaskReport` with `rows` and `lost_at`, the names of the layers that lose the
        mask. Inputs have no rows, since they have no masks. Operations that return
        booleans have none either, since they compute the mask itself.

    Raises:
        ValueError: `model` is not a Keras model, has no graph of layers, or does not
            run on the default inputs; or `inputs` do not match those of the model.

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
            # Before the call: `MultiHeadAttention` removes the mask of its inputs.
            arguments = CallArguments(operation, args, kwargs)
            outputs = tree.flatten(operation(*args, **kwargs))
            if not computes_a_mask(operation, outputs):
                rows.append(row_of(operation, arguments, outputs))
            return outputs

        return call

    # Symbolic tensors have masks too, but not those of a run: a nested model loses them
    # when it is built and keeps them when it runs. This uses a private method, because
    # no public one shows each call of a run. `Function.call` consists of it.
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
                    f"{error} Pass a batch that the model runs on as `inputs`."
                ) from error
        else:
            graph._run_through_graph(given_inputs(graph, inputs), observed)
    return MaskReport(tuple(rows))


class CallArguments:
    """Tensors and masks that a call received."""

    def __init__(
        self, operation: keras.Operation, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        signature = inspect.signature(operation.call)
        given = dict(signature.bind(*args, **kwargs).arguments)
        self.takes_mask = isinstance(operation, keras.layers.Layer) and any(
            is_mask_argument(name, signature.parameters)
            for name in signature.parameters
        )
        # Keras passes on the mask of a layer's first argument. Operations pass on none,
        # whichever argument it came with.
        first = next(iter(given), "")
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


def row_of(
    operation: keras.Operation, arguments: CallArguments, outputs: Sequence[Tensor]
) -> MaskRow:
    """Return the row of one call, with its verdict."""
    mask_in, mask_out = arguments.masked, any_masked(outputs)
    verdict: Literal["makes", "keeps", "uses", "loses", "has none"]
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


def computes_a_mask(operation: keras.Operation, outputs: Sequence[Tensor]) -> bool:
    """Return whether this is part of the mask, such as the `not_equal` of Keras."""
    return not isinstance(operation, keras.layers.Layer) and all(
        keras.backend.standardize_dtype(x.dtype) == "bool" for x in outputs
    )


def is_mask_argument(name: str, names: Container[str]) -> bool:
    """Return whether Keras would fill in an argument: `mask`, or `<name>_mask`."""
    return name == "mask" or (name.endswith("_mask") and name[:-5] in names)


def is_one_step(key: Any) -> bool:
    """Return whether `x[key]` picks one step, as `x[:, 0]`, which has no mask."""
    has_step = isinstance(key, tuple) and len(key) > 1 and isinstance(key[0], slice)
    return has_step and isinstance(key[1], numbers.Integral)


def any_masked(tensors: Tree) -> bool:
    # Keras has no public function that returns the mask of a tensor.
    return any(
        getattr(x, "_keras_mask", None) is not None for x in tree.flatten(tensors)
    )


def ranks(tensors: Tree) -> list[int]:
    return [len(x.shape) for x in tree.flatten(tensors) if hasattr(x, "shape")]


def graph_of(model: Any) -> keras.Function:
    """Return the graph of a model, from its flat inputs to its flat outputs."""
    has_graph = isinstance(model, (keras.Function, keras.Sequential))
    if not has_graph or not hasattr(model, "inputs"):
        raise ValueError(
            "`model` must be a Keras model with a graph of layers: functional, from a "
            f"builder of kseq, or a built Sequential. Received: model={model!r}. Build "
            "a Sequential with `model.build(input_shape)`; wire the layers of a "
            "subclassed model with `keras.Input` and `keras.Model(inputs, outputs)`."
        )
    return keras.Function(model.inputs, model.outputs, name=model.name)


def shape_to_run(x: keras.KerasTensor) -> tuple[int, ...]:
    return (1, *(NUM_STEPS if size is None else size for size in x.shape[1:]))


def default_inputs(graph: keras.Function) -> list[Tensor]:
    """Return inputs without padding: ones, or the class 0, which always exists."""
    return [
        (ops.ones if len(x.shape) > 1 else ops.zeros)(shape_to_run(x), dtype=x.dtype)
        for x in graph.inputs
    ]


def given_inputs(graph: keras.Function, inputs: Tree) -> list[Tensor]:
    """Return the user's inputs as flat tensors; a dictionary is matched by names."""
    names = [x.name for x in graph.inputs]
    by_name = isinstance(inputs, dict)
    values = list(inputs.values()) if by_name else tree.flatten(inputs)
    if len(values) != len(names) or (by_name and set(inputs) != set(names)):
        received = sorted(inputs) if by_name else f"{len(values)} values"
        raise ValueError(
            "`inputs` must have one array for each input of the model. Received: "
            f"{received}, for the inputs {names}. Pass an array, a list in this order, "
            "or a dictionary with these names."
        )
    values = [inputs[name] for name in names] if by_name else values
    return [
        ops.convert_to_tensor(value, dtype=x.dtype)
        for value, x in zip(values, graph.inputs, strict=True)
    ]
