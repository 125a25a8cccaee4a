"""The base class of decoders: all steps at once, or one step at a time.

Axes in shape comments: B batch, T target steps, S source steps, K beams, D features,
U units.
"""

from typing import Any

from kseq.layers.layer import Layer
from kseq.typing import Tensor, Tree


class Decoder(Layer):
    """The base class of decoders: layers that generate a sequence from a memory.

    A decoder computes the same outputs in two ways. A call takes all steps at once, as
    in training:

        outputs = decoder(inputs (B, T, D), memory, memory_mask, initial_state)

    A search takes one step for each of K hypotheses at a time:

        state, constants = decoder.start(memory, memory_mask, initial_state,
                                         num_beams, max_length)
        outputs, state = decoder.step(inputs (B, K, D), state, constants)

    A custom decoder defines `call`, `start` and `step`; the builders then accept it
    like those of kseq. It must not store anything on itself. What depends on the
    generated tokens belongs to the state; what depends on the source belongs to
    `constants`, once for all hypotheses.

    Attributes:
        attends: Whether `call` and `step` accept `return_attention_scores=True`, and
            then also return weights `(B, ..., T, S)` and `(B, ..., K, S)`. Defaults to
            False.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`, the embedded target, shifted right (teacher forcing).
        memory: `(B, S, D_m)`, the outputs of the encoder; None without a source.
        memory_mask: Boolean `(B, S)`, True where the memory may be read. Defaults to
            the Keras mask of `memory`.
        initial_state: The final states of a recurrent encoder, a list for each layer,
            or None.

    Returns:
        Outputs `(B, T, U)`. Each depends only on the inputs up to its own step.

    Example:

    A decoder that adds up its inputs, and reads the mean of the memory:

    >>> import keras
    >>> from keras import ops
    >>> from kseq.layers import Decoder, masked_softmax
    >>> @keras.saving.register_keras_serializable(package="own")
    ... class BagDecoder(Decoder):
    ...     def __init__(self, units, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.units = units
    ...         self.input_dense = keras.layers.Dense(units, use_bias=False)
    ...         self.memory_dense = keras.layers.Dense(units)
    ...
    ...     def build(self, inputs_shape, memory_shape):
    ...         self.input_dense.build(inputs_shape)
    ...         self.memory_dense.build((None, memory_shape[-1]))
    ...
    ...     def call(self, inputs, memory, memory_mask=None, initial_state=None):
    ...         _, constants = self.start(memory, memory_mask)
    ...         sums = ops.cumsum(self.input_dense(inputs), axis=1)  # B T U
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
    ...         mean = ops.einsum("bs,bsd->bd", weights, memory)
    ...         mean = self.memory_dense(mean)  # B U
    ...         sums = ops.repeat(ops.zeros_like(mean)[:, None], num_beams, axis=1)
    ...         return sums, {"mean": mean[:, None]}
    ...
    ...     def step(self, inputs, state, constants):
    ...         sums = state + self.input_dense(inputs)  # B K U
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

    attends: bool = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def start(
        self,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        initial_state: Tree = None,
        num_beams: int = 1,
        max_length: int | None = None,
    ) -> tuple[Tree, Tree]:
        """Return the initial state, and the constants of all steps.

        Args:
            memory: `(B, S, D_m)`, the outputs of the encoder. In a model without a
                source, S is 0.
            memory_mask: Boolean `(B, S)`, True where the memory may be read.
            initial_state: The final states of a recurrent encoder, or None.
            num_beams: Number of hypotheses K for each example.
            max_length: Maximum number of steps. A state must keep its shape, so a
                cache that grows must be allocated in full.

        Returns:
            `(state, constants)`. The state is a tree of tensors `(B, K, ...)`, which a
            search reorders with its hypotheses. The constants are a tree of tensors
            `(B, ...)`, which it does not reorder; nor does it reorder what is under a
            key `"shared"` of the state.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method `start`.")

    def step(self, inputs: Tensor, state: Tree, constants: Tree) -> tuple[Tensor, Tree]:
        """Take one step for each hypothesis.

        Args:
            inputs: `(B, K, D)`, the embedded last token of each hypothesis.
            state: Tree of tensors, from `start` or the previous step.
            constants: Tree of tensors `(B, ...)`, from `start`.

        Returns:
            `(outputs (B, K, U), state)`. The state has the same structure as before.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method `step`.")
