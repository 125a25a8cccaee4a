"""Base class of embeddings, which convert a model's input to a sequence of vectors.

Axes in shape comments: B batch, S steps, D width.
"""

from typing import Any

from kseq.layers.composition import Composite
from kseq.typing import Tree


class SequenceEmbedding(Composite):
    """Base class of embeddings: layers from an input to vectors `(B, S, D)`.

    Builders call `symbolic_input` and read the attributes. A custom embedding sets the
    attributes that differ from the defaults.

    Attributes:
        width: Size D of the vectors.
        padding: Value that pads short inputs. None, the default, if all inputs must
            have one shape.
        vocabulary_size: Number of ids, counted from 0, if the input is ids. None by
            default. The embedding of a target needs both this and `padding`.
        num_positions: Maximum number of steps of an input, for learned positions. None,
            the default, for no maximum.
        takes_positions: Whether `call` takes `positions`, integers `(B, S)`: the
            position of each step, for an input that is a single step of a sequence.
            False by default.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Data of the shape and dtype of `symbolic_input`.

    Returns:
        Vectors `(B, S, D)`, with the Keras mask of the real steps.

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

    width: Any = None
    padding: Any = None
    vocabulary_size: Any = None
    num_positions: Any = None
    takes_positions: bool = False

    def symbolic_input(self, name: str) -> Tree:
        """Return the `keras.Input` of the embedding, with the given name."""
        raise NotImplementedError(
            f"{type(self).__name__} has no method `symbolic_input`."
        )
