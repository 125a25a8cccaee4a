"""The contract of decoders: all steps at once, or one step at a time.

Axes in shape comments: B batch, T target steps, S source steps, K beams, D features,
U units.
"""

from kseq.layers.layer import Layer


class Decoder(Layer):
    """The base of all decoders: layers that write a sequence while they read a memory.

    A decoder does the same work in two ways, which agree at every position:

        outputs = decoder(inputs (B, T, D), memory, memory_mask, initial_state)

    takes all steps, as in training, and for a search

        state, constants = decoder.start(memory, memory_mask, initial_state,
                                         num_beams, max_length)
        outputs, state = decoder.step(inputs (B, K, D), state, constants)

    takes one step of each of K hypotheses. A decoder of one's own has these three
    methods; the builders take it as they take those of kseq. It stores nothing on
    itself: what has been written is in the state, and what has been read stands in
    `constants`, once for all hypotheses.

    Attributes:
        attends: Whether `call` and `step` take `return_attention_scores=True` and then
            return weights `(B, ..., T, S)` and `(B, ..., K, S)` besides; False.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`, the embedded target, shifted right (teacher forcing).
        memory: `(B, S, D_m)`, the encoder's outputs; None in a model without a source.
        memory_mask: Boolean `(B, S)`, True where the memory may be read. Defaults to
            the Keras mask of `memory`.
        initial_state: The final states of a recurrent encoder, a list for each layer,
            or None.

    Returns:
        Outputs `(B, T, U)`, of which each knows the inputs up to its own step alone.

    Example:

    The sum of what has been written, and the mean of what is read:

    >>> import keras
    >>> from keras import ops
    >>> from kseq.layers import Decoder, masked_softmax
    >>> @keras.saving.register_keras_serializable(package="own")
    ... class BagDecoder(Decoder):
    ...     def __init__(self, units, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.units = units
    ...         self.written = keras.layers.Dense(units, use_bias=False)
    ...         self.read = keras.layers.Dense(units)
    ...
    ...     def build(self, inputs_shape, memory_shape):
    ...         self.written.build(inputs_shape)
    ...         self.read.build((None, memory_shape[-1]))
    ...
    ...     def call(self, inputs, memory, memory_mask=None, initial_state=None):
    ...         _, constants = self.start(memory, memory_mask)
    ...         sums = ops.cumsum(self.written(inputs), axis=1)  # B T U
    ...         return ops.tanh(sums + constants["mean"])
    ...
    ...     def start(
    ...         self,
    ...         memory,
    ...         memory_mask=None,
    ...         initial_state=None,
    ...         num_beams=1,
    ...         max_length=None,
    ...     ):
    ...         weights = masked_softmax(ops.zeros_like(memory[..., 0]), memory_mask)
    ...         mean = self.read(ops.einsum("bs,bsd->bd", weights, memory))  # B U
    ...         sums = ops.repeat(ops.zeros_like(mean)[:, None], num_beams, axis=1)
    ...         return sums, {"mean": mean[:, None]}
    ...
    ...     def step(self, inputs, state, constants):
    ...         sums = state + self.written(inputs)  # B K U
    ...         return ops.tanh(sums + constants["mean"]), sums
    ...
    ...     def get_config(self):
    ...         return {**super().get_config(), "units": self.units}
    >>> import kseq
    >>> model = kseq.encoder_decoder(11, 13, decoder=BagDecoder(8), width=8)
    >>> search = kseq.decoding.BeamSearch(3)
    >>> model.generate([[4, 5, 6], [7]], search, max_length=5).token_ids.shape
    (2, 3, 5)
    """

    attends = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def start(
        self,
        memory,
        memory_mask=None,
        initial_state=None,
        num_beams=1,
        max_length=None,
    ):
        """Prepares the first state and what stays the same at every step.

        Args:
            memory: `(B, S, D_m)`, the encoder's outputs. Of a model without a source S
                is 0.
            memory_mask: Boolean `(B, S)`, True where the memory may be read.
            initial_state: The final states of a recurrent encoder, or None.
            num_beams: Number of hypotheses K that ride on each row.
            max_length: Most steps that will be taken; a state keeps its shape, so what
                grows needs its room from the beginning.

        Returns:
            `(state, constants)`: trees of tensors `(B, K, ...)`, which a search
            reorders with its hypotheses, and `(B, ...)`, which it leaves as they are.
            So it does with what stands under a key `"shared"` of the state.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method `start`.")

    def step(self, inputs, state, constants):
        """Writes one step for every hypothesis.

        Args:
            inputs: `(B, K, D)`, the embedded last token of each hypothesis.
            state: Tree of tensors, from `start` or the last step.
            constants: Tree of tensors `(B, ...)`, from `start`.

        Returns:
            `(outputs (B, K, U), state)`, the state in the form in which it came.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method `step`.")
