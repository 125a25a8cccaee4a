"""Token dropout: a data set whose tokens become unknown at random."""

from typing import Any

import keras
import numpy as np

from kseq.layers.validation import integer, rate
from kseq.training.batch_dataset import BatchDataset
from kseq.typing import TensorLike


class TokenDropout(BatchDataset):
    """A data set with random tokens replaced by the unknown token.

    A model trained on texts without unknown words relies on rare words that it has
    memorized. With token dropout, each token except padding becomes unknown with the
    same probability, and other tokens do so in each epoch. Labels are unchanged.

    With `name="target"`, the inputs of a decoder are dropped: it cannot rely on the
    tokens it has generated, and attends to the source. For words with their characters,
    as encoded by `kseq.text.WordCharacterVocabulary`, the words are dropped and the
    characters are kept.

    Args:
        data: A `keras.utils.PyDataset` of batches `(token_ids (B, S), labels)`, or with
            ids `(B, S, 1 + C)` of words and their characters, such as
            `kseq.training.batches` returns; or with several inputs by name, such as
            `teacher_forcing` returns. Two threads read its batches, so each batch must
            follow from its index and the epoch alone.
        dropout: Fraction of the tokens to drop.
        seed: Non-negative integer. Determines the random numbers.
        unknown_token_id: The id that replaces dropped tokens. Or an array with one
            replacement for each token of the vocabulary, for example the id shared by
            all words with the same ending.
        pad_token_id: The id of padding, which is kept.
        name: The input whose tokens are dropped, if a batch has several. The first
            token of "target", with which a decoder starts, is kept.

    Raises:
        ValueError: `dropout` is not in [0, 1); an id is not an integer; a batch is not
            of token ids, contains an id beyond the end of the array, or has no input of
            that name.

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
        data: keras.utils.PyDataset,
        dropout: float,
        seed: int = 0,
        unknown_token_id: TensorLike = 1,
        pad_token_id: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.data = data
        self.dropout = rate("dropout", dropout)
        self.unknown_token_id: Any = np.asarray(unknown_token_id)
        if self.unknown_token_id.ndim != 1 or self.unknown_token_id.dtype.kind != "i":
            self.unknown_token_id = integer("unknown_token_id", unknown_token_id)
        self.pad_token_id = integer("pad_token_id", pad_token_id)
        self.name, self.seed = name, seed

    def count(self) -> int:
        return len(self.data)

    def batch(self, index: int) -> tuple[Any, ...]:
        inputs, *rest = self.data[index]
        token_ids = inputs if self.name is None else self._named(inputs)
        if getattr(getattr(token_ids, "dtype", None), "kind", None) != "i":
            raise ValueError(
                "`data` must return batches (token_ids, labels) with the ids as an "
                "integer array. Received: a batch that begins with "
                f"{type(token_ids).__name__}. If there are several inputs, name one: "
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

    def _named(self, inputs: Any) -> np.ndarray:
        if not isinstance(inputs, dict) or self.name not in inputs:
            raise ValueError(
                "`name` must be the name of an input of the batches. Received: "
                f"name={self.name!r} with inputs "
                f"{sorted(inputs) if isinstance(inputs, dict) else 'without names'}."
            )
        return inputs[self.name]

    def _unknown(self, token_ids: np.ndarray) -> int | np.ndarray:
        """Return the id that replaces each token if it is dropped."""
        if isinstance(self.unknown_token_id, int):
            return self.unknown_token_id
        if token_ids.max(initial=0) >= len(self.unknown_token_id):
            raise ValueError(
                "`unknown_token_id` must have an id for each token. Received: "
                f"{len(self.unknown_token_id)} ids, and the token {token_ids.max()}."
            )
        return self.unknown_token_id[token_ids].astype(token_ids.dtype)

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        self.data.on_epoch_end()

    def position(self) -> Any:
        return [self._epoch, self.data.position()]

    def start_at(self, position: Any, first: int = 0) -> None:
        epoch, inner = position
        super().start_at(epoch, first)
        self.data.start_at(inner)
