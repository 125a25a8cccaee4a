"""Differences between TensorFlow, JAX and PyTorch, and functions that XLA compiles.

No other file of the layers names a backend, but `torch_kernels.py` and
`torch_replay.py`, which are PyTorch's. On JAX alone runs what asks for "jax" here.
"""

import contextlib
import contextvars
import functools

import keras
from keras import ops

from kseq.layers import torch_replay

# On TensorFlow, smaller layers are not worth the second that XLA compiles for.
SMALLEST_UNITS = 32

_IS_PORTABLE = contextvars.ContextVar("is_portable", default=False)
_OVERWRITES = contextvars.ContextVar("overwrites", default=False)
_SHARED = contextvars.ContextVar("shared", default=None)


def compiled(function):
    """Lets XLA compile a function of tensors, anew for every shape; not on torch.

    On TensorFlow a model on a CPU is not compiled by XLA unless the user says so, and a
    loop of small products takes twice as long without it.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


@contextlib.contextmanager
def sharing():
    """Make what does the same inside, and so compile it, once; see `once`."""
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def once(key, make):
    """Return what `make` gives: inside `sharing` once for each key that is not None."""
    shared = _SHARED.get()
    if shared is None or key is None:
        return make()
    if key not in shared:
        shared[key] = make()
    return shared[key]


def available():
    """Tell whether `compiled` compiles, for a CPU, which is where it was measured."""
    if keras.backend.backend() not in ("tensorflow", "jax") or _IS_PORTABLE.get():
        return False
    return _on_cpu()


def is_worth_compiling(units):
    """Tell whether a loop is compiled: on a CPU, and where it is not over before."""
    is_small = keras.backend.backend() == "tensorflow" and units < SMALLEST_UNITS
    return available() and not is_small


@functools.cache
def _on_cpu():
    kinds = [device.split(":")[0] for device in keras.distribution.list_devices()]
    return set(kinds) == {"cpu"}


def pull_back(function, arguments, gradients):
    """The gradients of all arguments, from those of what a function returns first.

    Returns:
        `(gradients, rest)`, of which the rest is what the function returns second.
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


def multiplies_as_fast_in_loops():
    """Tell whether products are as fast inside of `compiled` as outside: on JAX.

    There what is outside is compiled too, while TensorFlow has the library oneDNN.
    """
    return keras.backend.backend() == "jax"


def has_loops():
    """Tell whether a `while_loop` is one of a graph; PyTorch takes step after step."""
    return keras.backend.backend() != "torch"


def is_traced(tensor):
    """Tell whether a tensor stands for those of many calls, of a graph or of `jit`."""
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def has_cudnn(dtype):
    """Tell whether cuDNN's recurrent layers take a dtype; JAX's are float32 alone."""
    return keras.backend.backend() != "jax" or dtype == "float32"


def has_unsigned_integers():
    """Tell whether there is arithmetic of uint32, which PyTorch lacks."""
    return keras.backend.backend() != "torch"


def matmul(x, y):
    """The matrix product, in the precision of its factors.

    That of Keras on PyTorch makes float32 of float64.
    """
    if keras.backend.backend() != "torch":
        return ops.matmul(x, y)
    import torch

    return torch.matmul(x, y)


def num_replicas(model=None):
    """Return among how many replicas of a model a batch is divided.

    Those of a `tf.distribute` strategy, of the model's own if it has one, or the
    devices along the batch axis of a distribution of Keras, which is JAX's.
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


def array_of(variable):
    """Return the value of a variable as an array; of a metric the sum over replicas."""
    if keras.backend.backend() == "tensorflow":
        return variable.numpy()
    return ops.convert_to_numpy(variable.value)


def predict_on_batch(model, inputs):
    """Predict one batch, with one row of outputs for each row of inputs.

    A strategy of TensorFlow runs the whole batch on every replica, and Keras joins what
    they return.
    """
    outputs = model.predict_on_batch(inputs)
    count = num_replicas(model) if keras.backend.backend() == "tensorflow" else 1
    return keras.tree.map_structure(lambda x: x[: len(x) // count], outputs)


def predict(model, rows, batch_size):
    """Predict an array of one or more rows, a batch at a time.

    The last batch is filled up so that every replica has as many rows: JAX divides no
    other, and convolutions of TensorFlow fail without a row.
    """
    count, replicas = len(rows), num_replicas(model)
    batch_size = -(-batch_size // replicas) * replicas
    if more := -count % replicas:
        more = ops.repeat(rows[:1], more, axis=0)
        rows = ops.convert_to_numpy(ops.concatenate([rows, more]))
    return model.predict(rows, batch_size=batch_size, verbose=0)[:count]


def is_building_replicas():
    """Tell whether Keras is building a model under a strategy, outside its replicas."""
    if keras.backend.backend() != "tensorflow" or num_replicas() == 1:
        return False
    import tensorflow as tf

    return not tf.executing_eagerly() and tf.distribute.in_cross_replica_context()


def share_of_replica(weight):
    """Return `n w / (w_1 + ... + w_n)` in a replica that has the weight `w`; else 1.

    Keras takes the mean of what n replicas of `tf.distribute` compute, each on its part
    of a batch, as if each part weighed the same. On JAX all arrays are whole.
    """
    if keras.backend.backend() != "tensorflow":
        return 1.0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 1.0
    total = context.all_reduce("sum", weight)
    return tf.math.divide_no_nan(context.num_replicas_in_sync * weight, total)


def require(condition, message):
    """Stops a compiled function of TensorFlow, unless by XLA, with a message."""
    if keras.backend.backend() == "tensorflow" and not _IS_PORTABLE.get():
        import tensorflow as tf

        tf.debugging.Assert(condition, [message])


def is_portable():
    """Tell whether what is traced shall run on other engines too: see `portable`."""
    return _IS_PORTABLE.get()


@contextlib.contextmanager
def portable():
    """Trace inside without operations that only XLA and TensorFlow know."""
    token = _IS_PORTABLE.set(True)
    try:
        yield
    finally:
        _IS_PORTABLE.reset(token)


@contextlib.contextmanager
def choices_as_choices():
    """Makes tf2onnx write `where` as ONNX's Where.

    It would else multiply what is not chosen by 0, which makes minus infinity NaN.
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


def recorder():
    """Return what replays steps on PyTorch, or None where loops are compiled."""
    return torch_replay.Recorder() if keras.backend.backend() == "torch" else None


@contextlib.contextmanager
def overwriting():
    """Let `put` write into its buffer on PyTorch: inside, nobody reads the old one."""
    token = _OVERWRITES.set(True)
    try:
        yield
    finally:
        _OVERWRITES.reset(token)


def beginning(num_axes, axis, place):
    """Return the begin of a slice that is whole but for one axis, of one dtype."""
    start = [ops.zeros_like(place)] * num_axes
    start[axis] = place
    return start


def put(buffer, values, first, axis):
    """The buffer with these values from `first` on, a multiple of their number."""
    if _OVERWRITES.get() and keras.backend.backend() == "torch":
        places = ops.arange(values.shape[axis], dtype="int64") + first
        return buffer.index_copy_(axis, places, values)
    if not _IS_PORTABLE.get():
        start = beginning(len(buffer.shape), axis, first)
        return ops.slice_update(buffer, start, values)
    count, length = values.shape[axis], buffer.shape[axis]
    positions = ops.arange(length, dtype="int32")
    is_there = positions // count == first // count  # L
    repeats = [1] * len(buffer.shape)
    repeats[axis] = length // count
    behind = [1] * (len(buffer.shape) - 1 - axis % len(buffer.shape))
    is_there = ops.reshape(is_there, (length, *behind))
    return ops.where(is_there, ops.tile(values, repeats), buffer)


def sum_by_id(weights, token_ids, size):
    """The sum of the weights of each id, `(B, T, size)`, where few of many ids occur.

    Args:
        weights: `(B, T, S)`.
        token_ids: Integers `(B, S)`, below 0 where a weight counts for nothing.
        size: How many ids there are.
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


def random_states():
    """The states of generators that Keras does not keep, byte tensors by device.

    PyTorch draws what has no seed from its own generators, as `Dropout` of Keras does.
    """
    if keras.backend.backend() != "torch":
        return {}
    import torch

    states = {"cpu": torch.get_rng_state()}
    for number in range(torch.cuda.device_count()):
        states[f"cuda:{number}"] = torch.cuda.get_rng_state(number)
    return states


def set_random_states(states):
    """Sets what `random_states` gave, also as arrays; of devices that are there."""
    if keras.backend.backend() != "torch":
        return
    import torch

    for device, state in states.items():
        state = torch.as_tensor(state, dtype=torch.uint8)
        if device == "cpu":
            torch.set_rng_state(state)
        elif int(device.partition(":")[2]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, device)
