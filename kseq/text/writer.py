"""Text out of nothing, or from its beginning: a language model with its vocabulary."""

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


@keras.saving.register_keras_serializable(package="kseq")
class TextWriter(Loadable, keras.Model):
    """A language model and its vocabulary, in one `.keras` file.

    A model that has learned from windows of a long text knows no more than a window. A
    longer text is written piece by piece: each piece begins with what was written last,
    half a window of it, and fills up the other half.

    Args:
        model: A model that writes from nothing, such as `kseq.one_to_many` builds.
        vocabulary: The `Vocabulary` of what it writes.
        window: Most tokens that the model reads at a time. None for any number.
        **kwargs: `name` and the other arguments of `keras.Model`.

    Call arguments:
        inputs: Whatever the inner model is called with; it goes there unchanged.

    Returns:
        What the inner model returns.

    Raises:
        ValueError: The model has no `generate`, or reads a source, or knows fewer
            tokens than the vocabulary has; the vocabulary is none, or `window` is less
            than 2.

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

    def __init__(self, model, vocabulary, window=None, **kwargs):
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

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def generate(self, prompts, search=None, max_length=200, ban_unknown=False):
        """Continues each of the prompts.

        Args:
            prompts: List of texts, each the beginning of a text to write; "" for one
                that has none.
            search: How to search: `kseq.decoding.Sampling(0.8)` and the like, of which
                the best hypothesis counts. None for the way of the model.
            max_length: Most tokens of a text, those of its prompt counted.
            ban_unknown: Whether never to write the unknown token, which reads U+FFFD.
                The model then takes what it finds most probable besides.

        Returns:
            A text for each prompt, which it begins with.

        Raises:
            ValueError: A prompt leaves no room, or `search` has a seed, and so the same
                random numbers for each piece, when there are several. Leave the seed
                out, and call `keras.utils.set_random_seed`.

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

    def generate_stream(self, prompts, search=None, max_length=200, ban_unknown=False):
        """Continues each of the prompts, and gives its pieces as they come.

        A piece is never a part of a character or of a syllable of Hangul. The first
        begins with the prompt; joined, the pieces are the text from `generate`.

        Args:
            prompts: As for `generate`.
            search: `GreedySearch()`, the default, or `Sampling()` with one draw.
            max_length: As for `generate`.
            ban_unknown: As for `generate`.

        Returns:
            An iterator of lists, the next piece of each text, "" where there is none.

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

    def score(self, texts, batch_size=128):
        """The log-probability that the model gives to each text.

        Args:
            texts: List of B texts, each of fewer tokens than the window.
            batch_size: Most texts to work on at a time.

        Returns:
            NumPy array `(B,)` of natural logarithms, of the tokens of each text and the
            end token behind them. A token that the vocabulary lacks counts as the
            unknown token.

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
        longest = max(rows, key=len, default=[])
        if not self._fits(len(longest)):
            raise ValueError(
                f"`texts` must be shorter than the window, {self.window} tokens. "
                f"Received: one of {len(longest) - 1} tokens. Cut it into several."
            )
        model = check_can(self.model, "score")
        return model.score(len(rows), rows, batch_size)

    def export_generation(self, path, search=None, max_length=200):
        """Writes all of it, from texts to texts, to a SavedModel that needs no kseq.

        The file needs TensorFlow, and tensorflow-text where the vocabulary normalizes
        or cuts into pieces: `import tensorflow_text` before it is loaded. It is called
        with "prompts", strings `(B,)`, "" for one that has none, and "seed", `(1,)`,
        for a `Sampling` without one. It gives "texts", `(B, N)`, of which the first are
        those of `generate`, and "log_probs", `(B, N)`. A prompt with a NUL, one that is
        not UTF-8 or one that leaves no room ends the call with an error.

        Args:
            path: The folder.
            search: As for `generate`.
            max_length: As for `generate`, but no more than the window, since a graph
                writes a text at once.

        Raises:
            ValueError: The backend is not TensorFlow, the model is none of kseq, the
                vocabulary has `split=None`, or `max_length` is more than the window.

        Example: see `TextToText.export_generation`.
        """
        check_split(self.vocabulary)
        if not self._fits(at_least("max_length", max_length, 1)):
            raise ValueError(
                "`max_length` must be no more than the window, as a graph writes texts "
                f"at once. Received: max_length={max_length} with window={self.window}."
                f" Export it with `max_length={self.window}`."
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

    def _stream(self, rows, search, max_length, ban_unknown):
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
            for i, length in enumerate(lengths):
                has_ended = length < piece or rows[i][-1] == self.model.end_token_id
                writing[i] = writing[i] and not has_ended and len(rows[i]) < max_length
        yield from _some([stream.close() for stream in streams])

    def _views(self, rows, max_length):
        """What the model sees of each row, and how many tokens it may fill up."""
        if self._fits(max_length):
            return [list(row) for row in rows], max_length
        return [row[-(self.window // 2) :] for row in rows], self.window

    def _fits(self, length):
        return self.window is None or length <= self.window

    def _check_lengths(self, rows, prompts, search, max_length):
        at_least("max_length", max_length, 1)
        longest = max(range(len(rows)), key=lambda i: len(rows[i]))
        if len(rows[longest]) >= max_length:
            raise ValueError(
                "`max_length` must be more than a prompt has already. Received: "
                f"max_length={max_length} with a prompt of {len(rows[longest])} "
                f"tokens: {shortened(prompts[longest])}."
            )
        has_seed = search is not None and search.seed is not None
        if has_seed and not self._fits(max_length):
            raise ValueError(
                "A text longer than the window is written in pieces, which need random "
                f"numbers of their own. Received: {search!r} with max_length="
                f"{max_length} and window={self.window}. Leave out the seed, and call "
                "`keras.utils.set_random_seed` before."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "vocabulary": keras.saving.serialize_keras_object(self.vocabulary),
            "window": self.window,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
            for name in ("model", "vocabulary")
        }
        return cls(**{**config, **parts})


def check_no_source(model):
    """Raises if a model of kseq has more to read than what it has written."""
    inputs = getattr(model, "input", None)
    if isinstance(inputs, dict) and "source" in inputs:
        raise ValueError(
            "`model` must write from nothing, as models of `kseq.one_to_many` do. "
            f"Received: model={model!r}, which reads a source. One that reads texts "
            "is for `kseq.text.TextToText`."
        )


def _some(pieces):
    """The pieces, if there is any."""
    if any(pieces):
        yield pieces
