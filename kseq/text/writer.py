"""Pipelines that generate or continue text: a language model with its vocabulary."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np

from kseq.text.detokenizing import check_split
from kseq.text.exporting import (
    Continued,
    check_backend,
    export_from_texts,
    written_texts,
)
from kseq.text.loading import Loadable
from kseq.text.parts import check_can, check_size, checked
from kseq.text.streaming import TextStream
from kseq.text.unknown import without_unknown
from kseq.text.validation import at_least, shortened
from kseq.text.vocabulary import Vocabulary
from kseq.typing import Config, PathLike, Texts, Tree

if TYPE_CHECKING:
    from kseq.decoding import Search


@keras.saving.register_keras_serializable(package="kseq")
class TextWriter(Loadable, keras.Model):
    """A language model and its vocabulary, in one `.keras` file.

    `generate` continues prompts, `generate_stream` does so token by token, `score`
    returns log-probabilities of texts, and `export_generation` exports all of it.

    A model that was trained on windows of a long text cannot use more context than a
    window. Longer texts are generated in pieces: the prefix of each piece is the last
    half window of the text so far, and the model fills the other half.

    Args:
        model: A model without a source, such as from `kseq.one_to_many`.
        vocabulary: The `Vocabulary` of the texts.
        window: Greatest number of tokens in the context of the model; None for no
            limit.
        **kwargs: `name` and the other arguments of `keras.Model`.

    Call arguments:
        inputs: The inputs of the inner model, passed on unchanged.

    Returns:
        The outputs of the inner model.

    Raises:
        ValueError: The model has no `generate`, has a source, or has fewer tokens than
            the vocabulary; `vocabulary` is not a `Vocabulary`; or `window` is less than
            2.

    Example:

    >>> import keras, kseq
    >>> letters = kseq.text.Vocabulary("character").adapt(["hello"])
    >>> writer = kseq.text.TextWriter(kseq.one_to_many(letters.size, width=8), letters)
    >>> no_marks = kseq.decoding.BannedTokens([1, 2, 3])  # unknown, start and end
    >>> search = kseq.decoding.Sampling(temperature=0.8, constraints=[no_marks])
    >>> [text] = writer.generate(["he"], search, max_length=7)
    >>> len(text), text[:2]
    (7, 'he')

    References:
        - [Graves, 2013](https://arxiv.org/abs/1308.0850), 2, 3
    """

    def __init__(
        self,
        model: keras.Model,
        vocabulary: Vocabulary,
        window: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(getattr(model, "generate", None)):
            raise ValueError(
                "`model` must have a method `generate`, as models of "
                f"`kseq.one_to_many` have. Received: model={model!r}."
            )
        self.model = model
        self.vocabulary = checked("vocabulary", vocabulary)
        check_no_source(model)
        check_size(model, "target", vocabulary)
        self.window = None if window is None else at_least("window", window, 2)
        self.built = True

    def call(self, inputs: Tree, training: bool | None = None) -> Tree:
        return self.model(inputs, training=training)

    def generate(
        self,
        prompts: Texts,
        search: "Search | None" = None,
        max_length: int = 200,
        ban_unknown: bool = False,
    ) -> list[str | list[str]]:
        """Generate a text from each prompt.

        Args:
            prompts: List of texts, the beginnings of the texts to generate; "" for no
                prompt.
            search: The search, such as `kseq.decoding.Sampling(0.8)`, of which the best
                hypothesis is used. None for the default of the model.
            max_length: Greatest number of tokens of a text, including its prompt.
            ban_unknown: Whether to ban the unknown token, in favour of the next best
                token. Otherwise it appears as U+FFFD.

        Returns:
            A text for each prompt, beginning with the prompt.

        Raises:
            ValueError: A prompt has `max_length` tokens or more; or `search` has a seed
                and the text is longer than the window, so each piece would get the same
                random numbers. Leave out the seed, and call
                `keras.utils.set_random_seed`.

        Example: see the class.
        """
        rows = list(self.vocabulary.encode(prompts))
        if not rows:
            return []
        self._check_lengths(rows, prompts, search, max_length)
        writing = [True] * len(rows)
        while any(writing):
            views, piece = self._views(rows, max_length)
            options = without_unknown({"prefix": views}, ban_unknown)
            result = self.model.generate(len(rows), search, piece, **options)
            for i, view in enumerate(views):
                length = result.lengths[i, 0] if writing[i] else 0
                rows[i] += result.token_ids[i, 0, len(view) : length].tolist()
                has_ended = length < piece or rows[i][-1] == self.model.end_token_id
                writing[i] = not has_ended and len(rows[i]) < max_length
        return self.vocabulary.decode([np.array(r[:max_length], int) for r in rows])

    def generate_stream(
        self,
        prompts: Texts,
        search: "Search | None" = None,
        max_length: int = 200,
        ban_unknown: bool = False,
    ) -> Iterator[list[str | list[str]]]:
        """Generate a text from each prompt, piece by piece.

        A piece never ends within a character or a Hangul syllable. The first piece
        begins with the prompt; the joined pieces are the text from `generate`.

        Args:
            prompts: As for `generate`.
            search: `GreedySearch()`, the default, or `Sampling()` with one draw.
            max_length: As for `generate`.
            ban_unknown: As for `generate`.

        Returns:
            An iterator of lists with the next piece of each text, "" if there is none.

        Raises:
            ValueError: As for `generate`; or the model or the search cannot stream.

        Example:

        >>> import kseq
        >>> letters = kseq.text.Vocabulary("character").adapt(["hello"])
        >>> model = kseq.one_to_many(letters.size, width=8)
        >>> writer = kseq.text.TextWriter(model, letters)
        >>> pieces = list(writer.generate_stream(["he"], max_length=7))
        >>> [text] = writer.generate(["he"], max_length=7)
        >>> "".join(first for [first] in pieces) == text
        True
        """
        rows = list(self.vocabulary.encode(prompts))
        if not rows:
            return iter(())
        self._check_lengths(rows, prompts, search, max_length)
        check_can(self.model, "generate_stream")
        return self._stream(rows, search, max_length, ban_unknown)

    def score(self, texts: Texts, batch_size: int = 128) -> np.ndarray:
        """Return the log-probability of each text.

        Args:
            texts: List of B texts, each with fewer tokens than the window.
            batch_size: Number of texts in a batch.

        Returns:
            Natural logarithms `(B,)` of the probabilities of the texts, including their
            end tokens. A token that the vocabulary lacks counts as the unknown token.

        Raises:
            ValueError: A text has as many tokens as the window, or more.

        Example:

        >>> import kseq
        >>> letters = kseq.text.Vocabulary("character").adapt(["hello"])
        >>> writer = kseq.text.TextWriter(kseq.one_to_many(letters.size, width=8),
        ...     letters)
        >>> writer.score(["hell", ""]).shape
        (2,)
        """
        rows = self.vocabulary.encode(texts, end=True)
        longest: list[int] = max(rows, key=len, default=[])
        if not self._fits(len(longest)):
            raise ValueError(
                f"`texts` must be shorter than the window, {self.window} tokens. "
                f"Received: one of {len(longest) - 1} tokens. Split it into several."
            )
        model = check_can(self.model, "score")
        return model.score(len(rows), rows, batch_size)

    def export_generation(
        self,
        path: PathLike,
        search: "Search | None" = None,
        max_length: int = 200,
    ) -> None:
        """Export a SavedModel from prompts to texts that runs without kseq.

        It needs TensorFlow; if the vocabulary normalizes or has pieces, also
        `import tensorflow_text` before loading. Inputs: "prompts", strings `(B,)`, ""
        for no prompt, and "seed", `(1,)`, for a `Sampling` without a seed. Outputs:
        "texts", `(B, N)`, of which the first are those of `generate`, and "log_probs",
        `(B, N)`. A prompt that holds a NUL, is not UTF-8, or has `max_length` tokens or
        more raises an error.

        Args:
            path: The folder.
            search: As for `generate`.
            max_length: As for `generate`, but at most the window, since a graph does
                not generate in pieces.

        Raises:
            ValueError: The backend is not TensorFlow, the model is not from kseq, the
                vocabulary has `split=None`, or `max_length` exceeds the window.

        Example: see `TextToText.export_generation`.
        """
        check_split(self.vocabulary)
        if not self._fits(at_least("max_length", max_length, 1)):
            raise ValueError(
                "`max_length` must be at most the window, as a graph does not generate "
                f"in pieces. Received: max_length={max_length} with "
                f"window={self.window}. Export it with `max_length={self.window}`."
            )
        check_backend()
        model = check_can(self.model, "generation_model").generation_model(
            search, max_length
        )
        export_from_texts(
            path,
            "prompts",
            self.vocabulary,
            Continued(model, max_length),
            search,
            finish=lambda texts, outputs: written_texts(self.vocabulary, outputs),
            check=False,
        )

    def _stream(
        self,
        rows: list[list[int]],
        search: "Search | None",
        max_length: int,
        ban_unknown: bool,
    ) -> Iterator[list[Any]]:
        """Yield the pieces of `generate_stream`, and extend the rows."""
        streams = [TextStream(self.vocabulary) for _ in rows]
        yield from _some([s.push(row) for s, row in zip(streams, rows, strict=True)])
        writing = [True] * len(rows)
        while any(writing):
            views, piece = self._views(rows, max_length)
            options = without_unknown({"prefix": views}, ban_unknown)
            tokens = self.model.generate_stream(len(rows), search, piece, **options)
            lengths = [0] * len(rows)
            for ids in tokens:
                is_there = ids != self.model.pad_token_id  # B
                pieces = [""] * len(rows)
                for i in np.flatnonzero(is_there & writing):
                    lengths[i] += 1
                    if lengths[i] > len(views[i]) and len(rows[i]) < max_length:
                        rows[i].append(int(ids[i]))
                        pieces[i] = streams[i].push(rows[i][-1:])
                yield from _some(pieces)
            for n, length in enumerate(lengths):
                has_ended = length < piece or rows[n][-1] == self.model.end_token_id
                writing[n] = writing[n] and not has_ended and len(rows[n]) < max_length
        yield from _some([stream.close() for stream in streams])

    def _views(
        self, rows: list[list[int]], max_length: int
    ) -> tuple[list[list[int]], int]:
        """Return the prefix of each row's next piece, and the greatest piece length."""
        if self._fits(max_length):
            return [list(row) for row in rows], max_length
        window: Any = self.window  # not None, as `max_length` does not fit
        return [row[-(window // 2) :] for row in rows], window

    def _fits(self, length: int) -> bool:
        """Tell whether a number of tokens fits in the window."""
        return self.window is None or length <= self.window

    def _check_lengths(
        self,
        rows: list[list[int]],
        prompts: Any,
        search: "Search | None",
        max_length: int,
    ) -> None:
        """Raise if a prompt is too long, or if pieces would share random numbers."""
        at_least("max_length", max_length, 1)
        longest = max(range(len(rows)), key=lambda i: len(rows[i]))
        if len(rows[longest]) >= max_length:
            raise ValueError(
                "`max_length` must exceed the length of every prompt. Received: "
                f"max_length={max_length} with a prompt of {len(rows[longest])} "
                f"tokens: {shortened(prompts[longest])}."
            )
        has_seed = search is not None and search.seed is not None
        if has_seed and not self._fits(max_length):
            raise ValueError(
                "A text longer than the window is generated in pieces, which need "
                f"different random numbers. Received: {search!r} with max_length="
                f"{max_length} and window={self.window}. Leave out the seed, and call "
                "`keras.utils.set_random_seed` before."
            )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "vocabulary": keras.saving.serialize_keras_object(self.vocabulary),
            "window": self.window,
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        parts = {
            name: keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
            for name in ("model", "vocabulary")
        }
        return cls(**{**config, **parts})


def check_no_source(model: keras.Model) -> None:
    """Raise if a kseq model has a source."""
    inputs = getattr(model, "input", None)
    if isinstance(inputs, dict) and "source" in inputs:
        raise ValueError(
            "`model` must have no source, as models of `kseq.one_to_many`. "
            f"Received: model={model!r}, which has one. Use `kseq.text.TextToText` "
            "for a model from text to text."
        )


def _some(pieces: list[Any]) -> Iterator[list[Any]]:
    """Yield the pieces unless all of them are empty."""
    if any(pieces):
        yield pieces
