"""Differences between TensorFlow, JAX and PyTorch, and compilation with XLA.

No other file in `kseq/layers` names a backend, except `torch_kernels.py` and
`torch_replay.py`, which are for PyTorch only.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import keras
from keras import ops

from kseq.layers import torch_replay
from kseq.typing import Tensor, TensorLike, Tree

# On TensorFlow, smaller layers are not worth the second that XLA takes to compile.
SMALLEST_UNITS = 32

Made = TypeVar("Made")
Shared: TypeAlias = dict[Hashable, Any]

_IS_PORTABLE = contextvars.ContextVar("is_portable", default=False)
_OVERWRITES = contextvars.ContextVar("overwrites", default=False)
_SHARED = contextvars.ContextVar[Shared | None]("shared", default=None)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors with XLA, anew for every shape; not on PyTorch.

    TensorFlow compiles a model on a CPU only if the user asks for it, and a loop of
    small products takes twice as long without XLA.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Within this context, make and compile equal functions only once; see `once`."""
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def once(key: Hashable, make: Callable[[], Made]) -> Made:
    """Return `make()`; within `sharing`, call it once for each key but None."""
    shared = _SHARED.get()
    if shared is None or key is None:
        return make()
    if key not in shared:
        shared[key] = make()
    return shared[key]


def available() -> bool:
    """Return whether `compiled` compiles: on CPUs only, where it was measured."""
    if keras.backend.backend() not in ("tensorflow", "jax") or _IS_PORTABLE.get():
        return False
    return _on_cpu()


def is_worth_compiling(units: int) -> bool:
    """Return whether compiling a loop of layers this wide pays; on CPUs only."""
    is_small = keras.backend.backend() == "tensorflow" and units < SMALLEST_UNITS
    return available() and not is_small


@functools.cache
def _on_cpu() -> bool:
    kinds = [device.split(":")[0] for device in keras.distribution.list_devices()]
    return set(kinds) == {"cpu"}


def pull_back(
    function: Callable[..., tuple[Tree, Tree]],
    arguments: Sequence[Tree],
    gradients: Tree,
) -> tuple[Sequence[Tree], Tree]:
    """Return the gradients of all arguments, given those of a function's results.

    Args:
        function: Returns `(results, rest)`.
        arguments: The tensors that it is called with.
        gradients: The gradients of `results`.

    Returns:
        `(gradients, rest)`: the gradients of the arguments, and the function's `rest`.
    """
    if keras.backend.backend() == "jax":
        import jax

        _, pull, rest = jax.vjp(function, *arguments, has_aux=True)
        return pull(gradients), rest
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(arguments)
        results, rest = function(*arguments)
    slopes = tape.gradient(
        results,
        arguments,
        output_gradients=gradients,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return slopes, rest


def multiplies_as_fast_in_loops() -> bool:
    """Return whether products are as fast inside `compiled` as outside: on JAX.

    JAX compiles the code outside too; TensorFlow uses the oneDNN library there.
    """
    return keras.backend.backend() == "jax"


def has_loops() -> bool:
    """Return whether a `while_loop` runs in the graph; PyTorch runs it in Python."""
    return keras.backend.backend() != "torch"


def is_traced(tensor: Tensor) -> bool:
    """Return whether a tensor is symbolic: an argument of a graph or of `jit`."""
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def has_cudnn(dtype: str) -> bool:
    """Return whether cuDNN's recurrent layers take a dtype; on JAX only float32."""
    return keras.backend.backend() != "jax" or dtype == "float32"


def has_unsigned_integers() -> bool:
    """Return whether the backend computes with uint32; PyTorch does not."""
    return keras.backend.backend() != "torch"


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix product, in the precision of its factors.

    `keras.ops.matmul` turns float64 into float32 on PyTorch.
    """
    if keras.backend.backend() != "torch":
        return ops.matmul(x, y)
    import torch

    return torch.matmul(x, y)


def num_replicas(model: keras.Model | None = None) -> int:
    """Return the number of replicas that a batch is divided among.

    On TensorFlow these are the replicas of a `tf.distribute` strategy, which is the
    model's own if it has one. On JAX they are the devices along the batch axis of a
    Keras distribution.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        strategy = model.distribute_strategy if model else tf.distribute.get_strategy()
        return strategy.num_replicas_in_sync
    distribution = keras.distribution.distribution()
    if distribution is None or distribution.batch_dim_name is None:
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]


def array_of(variable: keras.Variable) -> Any:
    """Return a variable as a NumPy array; for a metric, the sum over replicas."""
    if keras.backend.backend() == "tensorflow":
        return variable.numpy()
    return ops.convert_to_numpy(variable.value)


def predict_on_batch(model: keras.Model, inputs: Tree) -> Tree:
    """Predict one batch, with one output for each example.

    A TensorFlow strategy runs the whole batch on every replica, and Keras concatenates
    their outputs.
    """
    outputs = model.predict_on_batch(inputs)
    count = num_replicas(model) if keras.backend.backend() == "tensorflow" else 1
    return keras.tree.map_structure(lambda x: x[: len(x) // count], outputs)


def predict(model: keras.Model, rows: Any, batch_size: int) -> Any:
    """Predict an array of one or more examples, batch by batch.

    The last batch is padded so that all replicas get the same number of examples. JAX
    cannot divide a batch otherwise, and TensorFlow's convolutions fail on empty ones.
    """
    count, replicas = len(rows), num_replicas(model)
    batch_size = -(-batch_size // replicas) * replicas
    if more := -count % replicas:
        more = ops.repeat(rows[:1], more, axis=0)
        rows = ops.convert_to_numpy(ops.concatenate([rows, more]))
    return model.predict(rows, batch_size=batch_size, verbose=0)[:count]


def is_building_replicas() -> bool:
    """Return whether Keras builds a model under a strategy, outside its replicas."""
    if keras.backend.backend() != "tensorflow" or num_replicas() == 1:
        return False
    import tensorflow as tf

    return not tf.executing_eagerly() and tf.distribute.in_cross_replica_context()


def share_of_replica(weight: Tensor) -> Tensor | float:
    """Return `n w / (w_1 + ... + w_n)` in a replica with the weight `w`; otherwise 1.

    Each of the n replicas of `tf.distribute` computes on a part of the batch, and Keras
    averages the results as if all parts had the same weight. On JAX arrays are whole.
    """
    if keras.backend.backend() != "tensorflow":
        return 1.0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 1.0
    total = context.all_reduce("sum", weight)
    return tf.math.divide_no_nan(context.num_replicas_in_sync * weight, total)


def require(condition: Tensor, message: str) -> None:
    """Raise inside a compiled TensorFlow function unless a condition holds.

    XLA ignores the check, and so does a graph that `portable` traces.
    """
    if keras.backend.backend() == "tensorflow" and not _IS_PORTABLE.get():
        import tensorflow as tf

        tf.debugging.Assert(condition, [message])


def is_portable() -> bool:
    """Return whether to trace for other engines too: see `portable`."""
    return _IS_PORTABLE.get()


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Within this context, trace only operations that other engines support too."""
    token = _IS_PORTABLE.set(True)
    try:
        yield
    finally:
        _IS_PORTABLE.reset(token)


@contextlib.contextmanager
def onnx_where() -> Iterator[None]:
    """Within this context, let tf2onnx export `where` as the ONNX operator Where.

    Otherwise it multiplies the values not chosen by 0, which turns minus infinity into
    NaN.
    """
    from tf2onnx.onnx_opset.controlflow import Select

    by_product = Select.version_7

    def choice(ctx, node, **kwargs):
        if node.type == "SelectV2":
            node.type = "Where"
        else:
            by_product(ctx, node, **kwargs)

    Select.version_7 = choice
    try:
        yield
    finally:
        Select.version_7 = by_product


def recorder() -> torch_replay.Recorder | None:
    """Return a recorder that replays steps on PyTorch; None on other backends."""
    return torch_replay.Recorder() if keras.backend.backend() == "torch" else None


@contextlib.contextmanager
def overwriting() -> Iterator[None]:
    """Within this context, let `put` change its buffer in place on PyTorch.

    The caller must not need the old buffer.
    """
    token = _OVERWRITES.set(True)
    try:
        yield
    finally:
        _OVERWRITES.reset(token)


def slice_start(num_axes: int, axis: int, place: Tensor) -> list[Tensor]:
    """Return the start indices of a slice at `place` of an axis, 0 of the others."""
    start = [ops.zeros_like(place)] * num_axes
    start[axis] = place
    return start


def put(buffer: Tensor, values: Tensor, first: Tensor, axis: int) -> Tensor:
    """Return the buffer with values written from index `first` on along an axis.

    `first` must be a multiple of the number of values.
    """
    if _OVERWRITES.get() and keras.backend.backend() == "torch":
        places = ops.arange(values.shape[axis], dtype="int64") + first
        return buffer.index_copy_(axis, places, values)
    if not _IS_PORTABLE.get():
        start = slice_start(len(buffer.shape), axis, first)
        return ops.slice_update(buffer, start, values)
    count, length = values.shape[axis], buffer.shape[axis]
    positions = ops.arange(length, dtype="int32")
    is_there = positions // count == first // count  # L
    repeats = [1] * len(buffer.shape)
    repeats[axis] = length // count
    behind = [1] * (len(buffer.shape) - 1 - axis % len(buffer.shape))
    is_there = ops.reshape(is_there, (length, *behind))
    return ops.where(is_there, ops.tile(values, repeats), buffer)


def sum_by_id(weights: Tensor, token_ids: Tensor, size: int) -> Tensor:
    """Return the sum of the weights of each id, `(B, T, size)`.

    It is meant for many possible ids of which few occur.

    Args:
        weights: `(B, T, S)`.
        token_ids: Integers `(B, S)`, below 0 where a weight is ignored.
        size: Number of ids.
    """
    is_id = ops.expand_dims(token_ids >= 0, 1)  # B 1 S
    weights = ops.where(is_id, weights, 0.0)
    token_ids = ops.maximum(token_ids, 0)
    if _IS_PORTABLE.get():
        return matmul(weights, ops.one_hot(token_ids, size, dtype=weights.dtype))
    rows, steps = ops.shape(weights)[:2]
    if keras.backend.backend() == "torch":
        sums = weights.new_zeros((rows, steps, size))
        places = token_ids[:, None].expand(weights.shape).long()
        return sums.scatter_add(2, places, weights)
    places = token_ids + size * ops.arange(rows, dtype="int32")[:, None]  # B S
    count = rows * ops.shape(weights)[2]
    each = ops.reshape(ops.swapaxes(weights, 1, 2), (count, steps))  # BS T
    sums = ops.segment_sum(each, ops.reshape(places, (count,)), rows * size)
    return ops.swapaxes(ops.reshape(sums, (rows, size, steps)), 1, 2)


def random_states() -> dict[str, Tensor]:
    """Return the states of generators that Keras does not save: bytes by device.

    On PyTorch, sampling without a seed uses the generators of PyTorch, in
    `keras.layers.Dropout` too. Other backends have none.
    """
    if keras.backend.backend() != "torch":
        return {}
    import torch

    states = {"cpu": torch.get_rng_state()}
    for number in range(torch.cuda.device_count()):
        states[f"cuda:{number}"] = torch.cuda.get_rng_state(number)
    return states


def set_random_states(states: Mapping[str, TensorLike]) -> None:
    """Restore the states from `random_states`, tensors or arrays.

    States of devices that do not exist are skipped.
    """
    if keras.backend.backend() != "torch":
        return
    import torch

    for device, state in states.items():
        state = torch.as_tensor(state, dtype=torch.uint8)
        if device == "cpu":
            torch.set_rng_state(state)
        elif int(device.partition(":")[2]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, device)
