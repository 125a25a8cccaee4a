"""Shared checks of layers and decoders, and oracles of several tests.

The checks use seeded random weights, biases included: a constant hides swapped gates.

Axes in shape comments: B batch, T target steps, S source steps, K beams, D features,
U units.
"""

import contextlib
import functools
import inspect
import itertools
import math
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops, tree

from kseq.decoding.loop import reorder
from kseq.layers import Dropout
from kseq.layers.composition import own_parts

GARBAGE = 37.0


# The shared contract of layers ------------------------------------------------------


def check_layer(layer_class, init_args, inputs, options=None):
    """Check the contract of all layers.

    Args:
        layer_class: The class.
        init_args: A value other than the default for every argument of `__init__`. For
            an argument that is a layer, give a function that makes it.
        inputs: Call arguments that are arrays, or lists of arrays, by name. A mask
            should have a row of False.
        options: Call arguments that are not arrays, by name.
    """
    check_config_keeps_every_argument(layer_class, init_args)
    check_seeded_weights(layer_class, init_args, inputs, options)
    check_frozen_layers_stay_frozen(layer_class, init_args, inputs, options)
    check_layer_runs(layer_class, init_args, inputs, options)


def check_layer_runs(layer_class, init_args, inputs, options=None):
    """Check all but the config, seeds and freezing of a layer.

    Use it where some arguments have no value other than the default.
    """
    layer = make_layer(layer_class, init_args)
    model = functional_model(layer, inputs, options)
    check_initial_weights_differ(layer)
    check_every_sublayer_is_built(layer)
    randomize(layer)
    with recorded_calls() as called:
        expected = check_call_stores_nothing_on_the_layer(layer, inputs, options)
    for name in init_args:  # an argument may be called elsewhere
        if isinstance(given := getattr(layer, name, None), keras.layers.Layer):
            called.update(map(id, given._flatten_layers()))
    check_every_sublayer_is_called(layer, called)
    check_outputs_survive_saving(model, inputs, expected)
    check_compiled_equals_eager(model, inputs, expected)
    check_other_precisions(layer, init_args, inputs, options, expected)
    if layer.trainable_weights:
        check_training_reaches_every_weight(model, inputs)  # changes the weights


def check_config_keeps_every_argument(layer_class, init_args):
    """Check that a layer made from the config of another has all of its arguments."""
    parameters = dict(inspect.signature(layer_class.__init__).parameters)
    for name in inspect.signature(keras.layers.Layer.__init__).parameters:
        parameters.pop(name, None)  # `self`, and those in `**kwargs`
    values = {name: make_value(value) for name, value in init_args.items()}
    assert set(values) == set(parameters), "give every argument of __init__ a value"
    for name, value in values.items():
        assert value != parameters[name].default, f"{name} has its default value"

    layer = layer_class(**values, name="a_name", dtype="mixed_bfloat16")
    config = layer.get_config()
    serialize = keras.saving.serialize_keras_object
    for name, value in values.items():
        assert name in config, f"get_config lacks {name}"
        assert serialize(config[name]) == serialize(value), f"config changes {name}"
    copy = keras.saving.deserialize_keras_object(serialize(layer))
    assert type(copy) is layer_class
    assert copy.get_config() == config
    assert (copy.name, copy.dtype_policy.name) == ("a_name", "mixed_bfloat16")
    registered = keras.saving.get_registered_name(layer_class)
    assert registered == f"kseq>{layer_class.__name__}"


def check_initial_weights_differ(layer):
    """Check that no two random weights are equal, proportional or part of another."""
    weights = [w for w in layer.weights if np.unique(array(w)).size > 2]
    for one, other in itertools.permutations(weights, 2):
        start, whole = array(one).ravel()[:8], array(other).ravel()
        if len(start) > len(whole):
            continue
        windows = np.lib.stride_tricks.sliding_window_view(whole, len(start))
        windows = windows if len(start) == 8 else windows[:1]  # few may agree by chance
        lengths = np.linalg.norm(windows, axis=1) * np.linalg.norm(start)
        cosines = np.abs(windows @ start) / np.maximum(lengths, 1e-30)
        assert cosines.max() < 0.9999, f"{one.path} is part of {other.path}"


def check_every_sublayer_is_built(layer):
    """Check that building a layer builds all of its sublayers."""
    build_config = layer.get_build_config()
    if build_config is None:
        return  # built only by a call
    copy = type(layer).from_config(layer.get_config())
    copy.build_from_config(build_config)
    unbuilt = [x.name for x in copy._flatten_layers() if not x.built]
    assert not unbuilt, f"{unbuilt} are not built"
    names, copied = ([n for n, x in own_parts(y) if x.weights] for y in (layer, copy))
    assert set(copied) <= set(names), "its sublayers have names that Keras numbers"


def check_every_sublayer_is_called(layer, called):
    """Check that every sublayer without weights is called.

    The others are covered by `check_training_reaches_every_weight`.
    """
    on_torch = keras.backend.backend() == "torch"
    idle = [
        sublayer.name
        for sublayer in layer._flatten_layers()
        if not sublayer.weights
        and id(sublayer) not in called
        and not isinstance(sublayer, keras.layers.InputLayer)
        # Without dropout, PyTorch's attention does not compute the weights.
        and not (on_torch and isinstance(sublayer, Dropout))
    ]
    assert not idle, f"{idle} are never called"


def check_seeded_weights(layer_class, init_args, inputs, options=None):
    """Check that equal seeds give equal layers, and no seed different ones.

    Within each layer, no two weights are equal.
    """
    names = [name for name in init_args if name.endswith("_initializer")]
    if not names:
        return
    init_args = dict(init_args)
    for name in {"positions", "relative_bias"} & init_args.keys():
        init_args[name] = None  # has its own initializer
        init_args.pop("max_length", None)

    def weights(initializer):
        layer = make_layer(layer_class, init_args | dict.fromkeys(names, initializer))
        functional_model(layer, inputs, options)
        check_initial_weights_differ(layer)
        return [array(weight) for weight in layer.weights]

    seeded = (keras.initializers.HeNormal(seed=5) for _ in range(2))
    assert_close(*map(weights, seeded))
    unseeded = keras.initializers.HeNormal()
    for one, other in zip(*map(weights, [unseeded] * 2), strict=True):
        assert not np.unique(one).size > 2 or (one != other).any()


def check_frozen_layers_stay_frozen(layer_class, init_args, inputs, options=None):
    """Check that `trainable=False` reaches every sublayer, also from a config."""
    values = {name: make_value(value) for name, value in init_args.items()}
    frozen = layer_class(**values, trainable=False)
    config = frozen.get_config()
    for layer in (frozen, layer_class.from_config(config)):
        model = functional_model(layer, inputs, options)
        assert not model.trainable_weights
    layer.trainable = True
    learned = [weight for weight in layer.weights if weight.trainable]
    assert len(model.trainable_weights) == len(learned)


def check_call_stores_nothing_on_the_layer(layer, inputs, options=None):
    """Check that a call changes no attribute of the layer and its sublayers."""
    layers = [x for x in layer._flatten_layers() if type(x).__module__[:4] == "kseq"]

    def attributes():
        return {
            (each.name, name): list(value) if isinstance(value, list) else [value]
            for each in layers
            for name, value in vars(each).items()
            if name not in ("_called", "_losses")  # set by Keras
        }

    before = attributes()
    outputs = call(layer, inputs, options)
    after = attributes()
    added = after.keys() ^ before.keys()
    assert not added, f"a call adds {added}"
    for name, values in before.items():
        assert len(values) == len(after[name]), f"a call changes {name}"
        for old, new in zip(values, after[name], strict=True):
            assert old is new, f"a call changes {name}"
    return outputs


def check_outputs_survive_saving(model, inputs, expected):
    """Check that a model loaded from a `.keras` file has the same outputs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
    inputs = [ops.convert_to_tensor(x) for x in tree.flatten(inputs)]
    assert_close(loaded(inputs, training=False), expected)


def check_compiled_equals_eager(model, inputs, expected):
    """Check that a model compiled by XLA or `jax.jit` computes the same outputs."""
    if keras.backend.backend() != "torch":
        model.compile(jit_compile=True)
        assert_close(model.predict_on_batch(tree.flatten(inputs)), expected)


def check_other_precisions(layer, init_args, inputs, options, expected):
    """Check the outputs in half and double precision, up to the coarser rounding."""
    tolerances = {"mixed_float16": 0.02, "mixed_bfloat16": 0.1, "float64": 1e-4}
    if keras.backend.backend() == "jax":  # has no float64, and takes seconds
        tolerances = {"mixed_float16": 0.02}
    for policy, tolerance in tolerances.items():
        with dtype_policy(policy):
            other = make_layer(type(layer), init_args)
        dtype = other.compute_dtype
        build_config = layer.get_build_config()
        if build_config is None:
            call(other, inputs, options)
        else:
            other.build_from_config(build_config)
        other.set_weights(layer.get_weights())
        check_output_spec_matches_the_outputs(other, inputs, options, dtype)
        outputs = compiled_on_jax(functools.partial(call, other, options=options))(
            inputs
        )
        for output, reference in zip(outputs, expected, strict=True):
            assert keras.backend.standardize_dtype(output.dtype) == dtype
            output = ops.cast(output, "float32")
            assert_close(output, reference, atol=tolerance, rtol=tolerance)


def check_output_spec_matches_the_outputs(layer, inputs, options, dtype):
    """Check that `compute_output_spec` gives the shapes and dtypes of the outputs."""

    def symbol(x):
        is_float = x.dtype.kind == "f" and layer.autocast
        return keras.KerasTensor(x.shape, dtype if is_float else x.dtype.name)

    symbols = tree.map_structure(symbol, inputs)
    spec = tree.flatten(layer.compute_output_spec(**symbols, **(options or {})))
    for tensor, output in zip(spec, call(layer, inputs, options), strict=True):
        assert tensor.shape == tuple(output.shape)
        assert tensor.dtype == keras.backend.standardize_dtype(output.dtype)


def check_training_reaches_every_weight(model, inputs):
    """Check that one step of SGD changes every weight, and that all stay finite."""

    def loss(y_true, y_pred):
        return ops.mean(ops.sin(5 * y_pred), axis=-1)

    before = [array(weight) for weight in model.trainable_weights]
    model.compile(
        keras.optimizers.SGD(10.0),
        loss=[loss] * len(model.outputs),
        run_eagerly=keras.backend.backend() == "tensorflow",  # tracing takes longer
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    inputs = tree.flatten(inputs)
    targets = [np.zeros((len(inputs[0]), 1), "float32") for _ in model.outputs]
    model.train_on_batch(inputs, targets)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(array(weight)).all(), f"{weight.path} is not finite"
        if weight.path.endswith("key/bias"):
            continue  # softmax cancels a number added to all scores
        assert (array(weight) != old).any(), f"no gradient reaches {weight.path}"


# Laws -------------------------------------------------------------------------------


def check_padding_changes_nothing(apply, sequence, mask):
    """Check that padding, left or right, with any content, changes no valid output.

    Args:
        apply: Function of `(sequence, mask)` that returns `(steps, whole)`: lists of
            outputs with the steps of the sequence on axis 1, which are compared where
            the mask is True, and of other outputs, which are compared as a whole.
        sequence: `(B, S, D)`.
        mask: Boolean `(B, S)`.
    """
    length = sequence.shape[1]
    apply = compiled_on_jax(apply)
    steps, whole = apply(sequence, mask)
    for left, right in ((0, 0), (0, 3), (3, 0), (1, 2)):
        widths = ((0, 0), (left, right))
        padded_mask = np.pad(mask, widths)
        padded = np.pad(sequence, (*widths, (0, 0)))
        noise = np.random.default_rng(left).normal(size=padded.shape)
        garbage = (GARBAGE * noise).astype(padded.dtype)
        if left == 1:
            garbage[...] = np.nan
        padded = np.where(padded_mask[..., None], padded, garbage)
        padded_steps, padded_whole = apply(padded, padded_mask)
        assert_close(
            [array(x)[:, left : left + length][mask] for x in padded_steps],
            [array(x)[mask] for x in steps],
        )
        assert_close(padded_whole, whole)


def check_padding_has_no_gradient(layer, inputs, masks):
    """Check that the content of padding, even NaN, changes no gradient.

    Args:
        layer: The layer, whose weights are randomized.
        inputs: Sequences `(B, S, D)` by name.
        masks: Boolean `(B, S)` by name, for all mask arguments of the layer.
    """
    inputs = dict(inputs)
    layer(**inputs, **masks)
    randomize(layer)
    slopes = []
    for garbage in (0.0, np.nan):
        for name, x in inputs.items():
            mask = mask_for(name, masks)
            if mask is not None:
                inputs[name] = np.where(mask[..., None], x, garbage).astype("float32")
        slopes.append(layer_gradients(layer, inputs, masks))
    assert np.isfinite(slopes[1]).all()
    assert (slopes[1] != 0).any()
    assert_close(*slopes)


def mask_for(name, masks):
    """Return the mask of a sequence, following the naming of Keras."""
    return masks.get(f"{name}_mask", masks.get("mask"))


def layer_gradients(layer, inputs, masks, loss=lambda y: ops.mean(ops.sin(3 * y))):
    """Return the gradient of all inputs and weights as one flat array, in float32.

    Masked outputs are ignored. The mask of an output is the one of the same length.
    """
    arrays = [*inputs.values(), *(array(w) for w in layer.trainable_weights)]
    ends = np.cumsum([x.size for x in arrays])

    def total(flat):
        parts = [
            ops.reshape(flat[end - x.size : end], x.shape)
            for end, x in zip(ends, arrays, strict=True)
        ]
        given = dict(zip(inputs, parts[: len(inputs)], strict=True))
        pairs = zip(layer.trainable_weights, parts[len(inputs) :], strict=True)
        tensors = {name: ops.convert_to_tensor(mask) for name, mask in masks.items()}
        with keras.StatelessScope(state_mapping=list(pairs)):
            outputs = keras.tree.flatten(layer(**given, **tensors))
        sums = []
        for y in outputs:
            y = ops.cast(y, "float32")
            for mask in masks.values():
                if len(y.shape) == 3 and y.shape[1] == mask.shape[1]:
                    y = ops.where(mask[..., None], y, 0.0)
                    break
            sums.append(loss(y))
        return sum(sums)

    return gradient(total, np.concatenate([x.ravel() for x in arrays]))


def check_batch_equals_rows(apply, *inputs):
    """Check that `apply(*inputs)` gives the same for a batch and for each row alone."""
    apply = compiled_on_jax(apply)
    batch = tree.flatten(apply(*inputs))
    for row in range(len(tree.flatten(inputs)[0])):
        alone = apply(*tree.map_structure(lambda x, i=row: x[i : i + 1], inputs))
        assert_close(tree.flatten(alone), [x[row : row + 1] for x in batch])


def check_fully_masked_rows_are_finite(apply, sequence, mask, zeros=False):
    """Check that a fully masked row and its gradient are finite, and the others equal.

    Args:
        apply: Function of `(sequence, mask)` that returns a list of outputs.
        sequence: `(B, S, D)`.
        mask: Boolean `(B, S)`, True somewhere in each row.
        zeros: Whether the outputs of a fully masked row must be zeros.
    """
    masked = mask.copy()
    masked[1] = False
    apply = compiled_on_jax(apply)
    outputs = apply(sequence, masked)
    for output, expected in zip(outputs, apply(sequence, mask), strict=True):
        output, expected = array(output), array(expected)
        assert np.isfinite(output).all()
        assert_close(np.delete(output, 1, axis=0), np.delete(expected, 1, axis=0))
        assert not zeros or (output[1] == 0).all()

    def total(sequence):
        return sum(ops.sum(ops.sin(5 * output)) for output in apply(sequence, masked))

    slope = gradient(total, sequence)
    assert np.isfinite(slope).all()
    assert (slope[0][mask[0]] != 0).any()


def check_steps_equal_sequence(decoder, inputs, memory, memory_masks, initial_state):
    """Check that `start` and single `step`s equal a call with all steps.

    Args:
        decoder: The decoder.
        inputs: `(B, K, T, D)`, different for each beam.
        memory: `(B, S, D)`.
        memory_masks: List of masks, each boolean `(B, S)` or None.
        initial_state: A list of states for each encoder layer, or None.
    """
    batch, num_beams, length, _ = inputs.shape
    first = {"initial_state": initial_state}
    run = compiled_on_jax(lambda x, mask: decoder(x, memory, memory_mask=mask, **first))
    for mask in memory_masks:
        whole = [array(run(inputs[:, k], mask)) for k in range(num_beams)]
        whole = np.stack(whole, axis=1)  # B K T U
        state, constants = decoder.start(
            memory, mask, **first, num_beams=num_beams, max_length=length
        )
        for t in range(length):
            outputs, state = decoder.step(inputs[:, :, t], state, constants)
            assert_close(outputs, whole[:, :, t])
            for path, part in tree.flatten_with_path(state):
                axes = (batch,) if "shared" in path else (batch, num_beams)
                assert tuple(part.shape[: len(axes)]) == axes
            for part in tree.flatten(constants):
                assert part.shape[0] == batch


def check_reordered_steps_equal_sequence(decoder, inputs, memory, mask, initial_state):
    """Check that reordered hypotheses continue from the inputs of their parents.

    Args:
        decoder: The decoder.
        inputs: `(B, K, T, D)`, different for each beam.
        memory: `(B, S, D)`.
        mask: Boolean `(B, S)`.
        initial_state: A list of states for each encoder layer, or None.
    """
    batch, num_beams, length, _ = inputs.shape
    random, rows = np.random.default_rng(5), np.arange(batch)[:, None]
    first = {"initial_state": initial_state}
    options = {"num_beams": num_beams, "max_length": length}
    state, constants = decoder.start(memory, mask, **first, **options)
    read = inputs[:, :, :0]  # B K t D
    for t in range(length):
        if t:
            parents = random.integers(0, num_beams, (batch, num_beams), "int32")
            state = reorder(state, ops.convert_to_tensor(parents))
            read = read[rows, parents]
        read = np.concatenate([read, inputs[:, :, t : t + 1]], axis=2)
        outputs, state = decoder.step(inputs[:, :, t], state, constants)
    for k in range(num_beams):
        whole = decoder(read[:, k], memory, memory_mask=mask, **first)
        assert_close(outputs[:, k], array(whole)[:, -1])


# Oracles: the papers' equations in loops over rows without padding --------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step_cell(cell, x, states):
    """Return the states `(U,)` of a Keras cell after one step `x` of shape `(D,)`."""
    kernel, recurrent = array(cell.kernel), array(cell.recurrent_kernel)
    bias, h = array(cell.bias), states[0]
    if isinstance(cell, keras.layers.SimpleRNNCell):
        return [np.tanh(x @ kernel + h @ recurrent + bias)]
    if isinstance(cell, keras.layers.LSTMCell):
        i, f, c, o = np.split(x @ kernel + h @ recurrent + bias, 4)
        memory = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(c)
        return [sigmoid(o) * np.tanh(memory), memory]
    x_z, x_r, x_h = np.split(x @ kernel + bias[0], 3)
    h_z, h_r, h_h = np.split(h @ recurrent + bias[1], 3)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return [z * h + (1 - z) * np.tanh(x_h + r * h_h)]


def attend(attention, query, keys, values):
    """Return the context `(D_v,)` and weights `(S,)` of one query `(D_q,)`.

    The keys have shape `(S, D_k)`, the values `(S, D_v)`.
    """
    kernels = {weight.name: array(weight) for weight in attention.weights}
    scores = []
    for key in keys:
        if "score_kernel" in kernels:  # Bahdanau's, and Luong's "concat"
            joint = np.concatenate([query, key])
            matrix = np.concatenate([kernels["query_kernel"], kernels["key_kernel"]])
            scores.append(np.tanh(joint @ matrix) @ kernels["score_kernel"][:, 0])
        elif "key_kernel" in kernels:
            scores.append(query @ (key @ kernels["key_kernel"]))
        else:
            scores.append(query @ key)
    if getattr(attention, "scaled", False):
        scores = np.array(scores) / np.sqrt(keys.shape[-1])
    exponentials = np.exp(scores - np.max(scores))
    weights = exponentials / exponentials.sum()
    return sum(w * v for w, v in zip(weights, values, strict=True)), weights


def dense(layer, x):
    """Apply a Keras `Dense` layer, with tanh."""
    return np.tanh(x @ array(layer.kernel) + array(layer.bias))


# Tools ------------------------------------------------------------------------------


def random_array(*shape, seed=0):
    """Return seeded normal numbers, none of them zero."""
    seed = [seed, *shape]
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def length_mask(*lengths, size):
    """Return a boolean mask `(B, size)` that allows the first `lengths[b]` steps."""
    return np.arange(size) < np.array(lengths)[:, None]


def randomize(layer, seed=3):
    """Set every weight, biases included, to seeded random numbers.

    They are so small that a recurrent layer is not chaotic, which would amplify
    rounding errors.
    """
    for index, weight in enumerate(layer.weights):
        rows = tuple(weight.shape)[:-1]
        fan_in = math.prod(rows) if len(rows) == 3 else sum(rows[:1])  # 3: convolution
        scale = fan_in**-0.5 if rows else 0.5
        weight.assign(scale * random_array(*weight.shape, seed=seed + index))


def make_value(value):
    """Return the value, or the result of a function that makes it."""
    return value() if inspect.isfunction(value) else value


def make_layer(layer_class, init_args):
    return layer_class(**{name: make_value(value) for name, value in init_args.items()})


def call(layer, inputs, options=None):
    """Return the outputs of a layer as a flat list."""
    inputs = tree.map_structure(ops.convert_to_tensor, inputs)
    return tree.flatten(layer(**inputs, **(options or {})))


def functional_model(layer, inputs, options=None):
    """Return a model of the layer alone, with unknown lengths of sequences."""

    def symbol(x):
        is_sequence = x.ndim == 3 or (x.ndim == 2 and x.dtype != np.float32)
        shape = (None, *x.shape[2:]) if is_sequence else x.shape[1:]
        return keras.Input(shape, dtype=x.dtype.name)

    symbols = tree.map_structure(symbol, inputs)
    outputs = layer(**symbols, **(options or {}))
    return keras.Model(tree.flatten(symbols), tree.flatten(outputs))


def array(tensor):
    return ops.convert_to_numpy(tensor)


def assert_close(actual, expected, rtol=1e-5, atol=1e-5):
    """Compare tensors, or lists of tensors."""
    actual, expected = tree.flatten(actual), tree.flatten(expected)
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(array(x), array(y), rtol=rtol, atol=atol)


def with_keras_mask(x, mask):
    """Return a tensor that carries its mask, like the outputs of Keras layers."""
    x = ops.copy(ops.convert_to_tensor(x))
    x._keras_mask = ops.convert_to_tensor(mask)
    return x


def gradient(function, x):
    """Return the gradient of a scalar function of one array, as an array."""
    backend = keras.backend.backend()
    x = ops.convert_to_tensor(x)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return array(tape.gradient(y, x))
    if backend == "jax":
        import jax

        return array(jax.jit(jax.grad(function))(x))
    x = x.clone().requires_grad_()
    function(x).backward()
    return array(x.grad)


def gradient_of_gradient(function, x):
    """Return the gradient of the sum of squares of a scalar function's gradient."""

    def squares(x):
        if keras.backend.backend() == "jax":
            import jax

            return ops.sum(jax.grad(function)(x) ** 2)
        if keras.backend.backend() == "torch":
            import torch

            [slopes] = torch.autograd.grad(function(x), x, create_graph=True)
            return ops.sum(slopes**2)
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return ops.sum(tape.gradient(y, x) ** 2)

    return gradient(squares, x)


def recurrent_gradient(layer, sequences, states, mask, training, all_outputs=False):
    """Return the gradient of inputs, states and weights as one flat array.

    The layer must return sequences and states. Masked outputs are ignored, unless
    `all_outputs` is set.
    """
    arrays = [sequences, *states, *(array(w) for w in layer.weights)]
    places = np.cumsum([x.size for x in arrays])[:-1]

    def total(flat):
        parts = [
            ops.reshape(part, x.shape)
            for part, x in zip(ops.split(flat, places), arrays, strict=True)
        ]
        first, weights = parts[1 : 1 + len(states)], parts[1 + len(states) :]
        pairs = list(zip(layer.weights, weights, strict=True))
        given = None if mask is None else ops.convert_to_tensor(mask)
        with keras.StatelessScope(state_mapping=pairs):
            outputs, *last = layer(
                parts[0], mask=given, initial_state=first, training=training
            )
        if mask is not None and not all_outputs:
            real = mask[:, ::-1] if layer.go_backwards else mask
            outputs = outputs * ops.convert_to_tensor(real[..., None], "float32")
        return sum(ops.sum(ops.sin(3 * y)) for y in (outputs, *last))

    return gradient(total, np.concatenate([x.ravel() for x in arrays]))


def set_dropout_masks(cell, sequences, units):
    """Set known dropout masks on a cell, as many as Keras would sample."""
    count, width = getattr(cell, "dropout_mask_count", None), sequences.shape[-1]
    shape = (count or 1, len(sequences), width + units)
    sampled = np.random.default_rng(4).choice([0.0, 1.0, 2.0], shape).astype("float32")
    masks = {"dropout": sampled[..., :width], "recurrent_dropout": sampled[..., width:]}
    for name, each in masks.items():
        each = [ops.convert_to_tensor(x) for x in each]
        mask = each if count else each[0]
        mask = mask if getattr(cell, name) else None
        setattr(cell, f"get_{name}_mask", lambda _, mask=mask: mask)


def compiled(function):
    """Return the function under `tf.function` or `jax.jit`, unchanged on PyTorch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function


def compiled_on_jax(function):
    """Return the function under `jax.jit` on JAX, unchanged elsewhere.

    JAX compiles a loop anew in every eager call, so that a check with several calls
    would take minutes.
    """
    return compiled(function) if keras.backend.backend() == "jax" else function


def without_jit():
    """Return a context in which Python runs every step of a loop."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.disable_jit()


@contextlib.contextmanager
def recorded_calls():
    """Yield the set of ids of all layers that are called in the context."""
    called, original = set(), keras.layers.Layer.__call__

    def recording(layer, *args, **kwargs):
        called.add(id(layer))
        return original(layer, *args, **kwargs)

    keras.layers.Layer.__call__ = recording
    try:
        yield called
    finally:
        keras.layers.Layer.__call__ = original


@contextlib.contextmanager
def dtype_policy(name):
    """Set the dtype policy of layers made in the context."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
