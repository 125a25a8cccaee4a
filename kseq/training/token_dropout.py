"""Words that a model cannot count on: token dropout."""

import numpy as np

from kseq.layers.validation import integer, rate
from kseq.training.batch_dataset import BatchDataset


class TokenDropout(BatchDataset):
    """Makes some tokens of another data set unknown, others in each epoch.

    A model that has learned from whole texts has never met an unknown word, and leans
    on rare words it has learned by heart. Each token but padding becomes the unknown
    one with the same probability; labels are let be.

    With `name="target"`, tokens that a decoder reads are dropped: it cannot count on
    what it has written, and attends to its source. Of words with their characters, as a
    `kseq.text.WordCharacterVocabulary` encodes them, the words are dropped, and the
    characters stay.

    Args:
        data: A `keras.utils.PyDataset` of batches `(token_ids (B, S), labels)`, or with
            ids `(B, S, 1 + C)` of words and their characters, such as
            `kseq.training.batches` gives, or with several inputs by name, as
            `teacher_forcing` does. Two threads ask for its batches, so each must follow
            from its index and the epoch alone.
        dropout: Share of the tokens to make unknown.
        seed: Non-negative integer that the random numbers follow from.
        unknown_token_id: The id that stands in their place; or an array with an id for
            each token of the vocabulary, which says what becomes of it, such as that
            of all words with the same ending.
        pad_token_id: The id of padding, which stays.
        name: The input whose tokens are dropped, where a batch has several. Of
            "target" the first token stays, with which a decoder starts.

    Raises:
        ValueError: `dropout` is not in [0, 1), an id is no integer, or a batch is not
            of token ids, or holds one that the array has no place for, or has no input
            of that name.

    Example:

    >>> from kseq.training import TokenDropout, batches
    >>> data = TokenDropout(batches([[5, 6, 7], [8]], [0, 1], batch_size=2), 0.9)
    >>> inputs, labels = data[0]
    >>> inputs.shape, sorted(set(inputs.flatten().tolist()) - {5, 6, 7, 8})
    ((2, 3), [0, 1])

    References:
        - [Iyyer et al., 2015](https://aclanthology.org/P15-1162/), 2.3
        - [Dai and Le, 2015](https://arxiv.org/abs/1511.01432), 4.1
        - [Bowman et al., 2016](https://arxiv.org/abs/1511.06349), 3.1 (of a decoder)
    """

    def __init__(
        self,
        data,
        dropout,
        seed=0,
        unknown_token_id=1,
        pad_token_id=0,
        name=None,
    ):
        super().__init__()
        self.data = data
        self.dropout = rate("dropout", dropout)
        self.unknown_token_id = np.asarray(unknown_token_id)
        if self.unknown_token_id.ndim != 1 or self.unknown_token_id.dtype.kind != "i":
            self.unknown_token_id = integer("unknown_token_id", unknown_token_id)
        self.pad_token_id = integer("pad_token_id", pad_token_id)
        self.name, self.seed = name, seed

    def count(self):
        return len(self.data)

    def batch(self, index):
        inputs, *rest = self.data[index]
        token_ids = inputs if self.name is None else self._named(inputs)
        if getattr(getattr(token_ids, "dtype", None), "kind", None) != "i":
            raise ValueError(
                "`data` must give batches (token_ids, labels), the ids as an integer "
                "array. Received: a batch that begins with "
                f"{type(token_ids).__name__}. Of several inputs name one: "
                '`name="target"`.'
            )
        has_characters = token_ids.ndim == 3
        words = token_ids[..., 0] if has_characters else token_ids  # B S
        random = np.random.default_rng([self.seed, self._epoch, index])
        dropped = random.random(words.shape) < self.dropout
        dropped &= words != self.pad_token_id
        if self.name == "target":
            dropped[:, 0] = False
        words = np.where(dropped, self._unknown(words), words)
        if has_characters:
            words = np.concatenate([words[..., None], token_ids[..., 1:]], axis=-1)
        token_ids = words
        if self.name is not None:
            token_ids = {**inputs, self.name: token_ids}
        return token_ids, *rest

    def _named(self, inputs):
        if not isinstance(inputs, dict) or self.name not in inputs:
            raise ValueError(
                "`name` must be that of an input of the batches. Received: "
                f"name={self.name!r} with inputs "
                f"{sorted(inputs) if isinstance(inputs, dict) else 'without names'}."
            )
        return inputs[self.name]

    def _unknown(self, token_ids):
        """What stands in the place of each token, if it is dropped."""
        if isinstance(self.unknown_token_id, int):
            return self.unknown_token_id
        if token_ids.max(initial=0) >= len(self.unknown_token_id):
            raise ValueError(
                "`unknown_token_id` must have an id for each token. Received: "
                f"{len(self.unknown_token_id)} ids, and a token {token_ids.max()}."
            )
        return self.unknown_token_id[token_ids].astype(token_ids.dtype)

    def on_epoch_end(self):
        super().on_epoch_end()
        self.data.on_epoch_end()

    def position(self):
        return [self._epoch, self.data.position()]

    def start_at(self, position, first=0):
        epoch, inner = position
        super().start_at(epoch, first)
        self.data.start_at(inner)
