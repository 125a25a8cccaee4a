"""Words that a model cannot count on: token dropout."""

import keras
import numpy as np

from kseq.layers.arguments import integer, rate


class TokenDropout(keras.utils.PyDataset):
    """Makes some tokens of another data set unknown, others each time.

    A model that has learned from whole texts has never met an unknown word, and leans
    on rare words it has learned by heart. Each token but padding becomes the unknown
    one with the same probability, whenever a batch is asked for; labels are let be.

    Args:
        data: A `keras.utils.PyDataset` of batches `(token_ids (B, S), labels)`, such as
            `kseq.training.batches` gives.
        dropout: Share of the tokens to make unknown.
        seed: Non-negative integer that the random numbers follow from.
        unknown_token_id: The id that stands in their place.
        pad_token_id: The id of padding, which stays.

    Raises:
        ValueError: `dropout` is not in [0, 1), an id is no integer, or a batch is not
            of token ids.

    Example:

    >>> from kseq.training import TokenDropout, batches
    >>> data = TokenDropout(batches([[5, 6, 7], [8]], [0, 1], batch_size=2), 0.9)
    >>> inputs, labels = data[0]
    >>> inputs.shape, sorted(set(inputs.flatten().tolist()) - {5, 6, 7, 8})
    ((2, 3), [0, 1])

    References:
        - [Iyyer et al., 2015](https://aclanthology.org/P15-1162/), 2.3
        - [Dai and Le, 2015](https://arxiv.org/abs/1511.01432), 4.1
    """

    def __init__(self, data, dropout, seed=0, unknown_token_id=1, pad_token_id=0):
        super().__init__()
        self.data = data
        self.dropout = rate("dropout", dropout)
        self.unknown_token_id = integer("unknown_token_id", unknown_token_id)
        self.pad_token_id = integer("pad_token_id", pad_token_id)
        self._random = np.random.default_rng(seed)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        token_ids, *rest = self.data[index]
        if getattr(getattr(token_ids, "dtype", None), "kind", None) != "i":
            raise ValueError(
                "`data` must give batches (token_ids, labels), the ids as an integer "
                f"array. Received: a batch that begins with {type(token_ids).__name__}."
            )
        dropped = self._random.random(token_ids.shape) < self.dropout  # B S
        dropped &= token_ids != self.pad_token_id
        return np.where(dropped, self.unknown_token_id, token_ids), *rest

    def on_epoch_end(self):
        self.data.on_epoch_end()
