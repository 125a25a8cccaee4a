"""The base of embeddings: how a model's input becomes a sequence of vectors.

Axes in shape comments: B batch, S steps, D width.
"""

from kseq.layers.composition import Composite


class SequenceEmbedding(Composite):
    """The base of all embeddings: layers that make vectors `(B, S, D)` of an input.

    A builder reads the attributes, which an embedding of one's own sets or leaves as
    they are, and calls `symbolic_input`.

    Attributes:
        width: Size D of the vectors.
        padding: What fills up short inputs; None, the default, where all inputs must
            have one shape.
        vocabulary_size: How many ids there are, from 0 on, if the input is ids; None by
            default. The embedding of a target has both this and `padding`.
        num_positions: Most steps of an input, as many as there are learned positions;
            None, the default, for any number.
        takes_positions: Whether `call` takes `positions`, integers `(B, S)`: where each
            step stands, for an input that is a single step of a sequence; False.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: What `symbolic_input` says.

    Returns:
        Vectors `(B, S, D)`, with the Keras mask of the steps that are no padding.

    Example:

    One-hot vectors:

    >>> import keras
    >>> from keras import ops
    >>> from kseq.layers import SequenceEmbedding
    >>> @keras.saving.register_keras_serializable(package="own")
    ... class OneHotEmbedding(SequenceEmbedding):
    ...     padding = 0
    ...
    ...     def __init__(self, vocabulary_size, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.vocabulary_size = self.width = vocabulary_size
    ...         self.supports_masking = True
    ...
    ...     def symbolic_input(self, name):
    ...         return keras.Input((None,), dtype="int32", name=name)
    ...
    ...     def compute_mask(self, token_ids, previous_mask=None):
    ...         return token_ids != self.padding
    ...
    ...     def call(self, token_ids):
    ...         return ops.one_hot(token_ids, self.width)
    ...
    ...     def get_config(self):
    ...         return {**super().get_config(), "vocabulary_size": self.vocabulary_size}
    >>> import kseq
    >>> model = kseq.encoder_decoder(OneHotEmbedding(11), OneHotEmbedding(13), width=8)
    >>> model.generate([[4, 5, 6], [7]], max_length=5).token_ids.shape
    (2, 1, 5)
    """

    width = padding = vocabulary_size = num_positions = None
    takes_positions = False

    def symbolic_input(self, name):
        """The `keras.Input` of this name that the embedding reads."""
        raise NotImplementedError(
            f"{type(self).__name__} has no method `symbolic_input`."
        )
