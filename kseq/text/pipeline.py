"""Pipelines from text to text: a generative model with its vocabularies.

Axes in shape comments: B texts, N hypotheses, T target tokens, S source tokens.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import keras
import numpy as np

from kseq.text.copying import copied_words, copiers, readable_twice, spelled
from kseq.text.detokenizing import check_split
from kseq.text.exporting import (
    check_backend,
    export_from_texts,
    written_texts,
)
from kseq.text.hypothesis import Hypothesis
from kseq.text.loading import Loadable
from kseq.text.parts import (
    check_can,
    check_size,
    checked,
    deserialize_parts,
    serialize_parts,
    spelled_out,
)
from kseq.text.sources import (
    Attention,
    SourceRow,
    SourceTexts,
    as_numpy,
    as_source,
    attention_of,
    check_one_source,
    checked_sources,
    encode_sources,
    options_without_blank,
    spelled_source,
)
from kseq.text.streaming import text_pieces
from kseq.text.token_ids import text_positions
from kseq.text.unknown import without_unknown
from kseq.text.validation import one_of
from kseq.text.vocabulary import Vocabulary
from kseq.typing import Config, PathLike, Texts, Tree

if TYPE_CHECKING:
    from kseq.decoding import Search

PARTS = ("model", "source_vocabulary", "target_vocabulary")


@keras.saving.register_keras_serializable(package="kseq")
class TextToText(Loadable, keras.Model):
    """A text-to-text model and its two vocabularies, in one `.keras` file.

    `generate` translates texts, `generate_stream` does so token by token, `score`
    returns log-probabilities of given targets, and `export_generation` exports all of
    it.

    Args:
        model: A model with `generate(source_ids, search=None, max_length=40)`, such as
            from `kseq.encoder_decoder`.
        source_vocabulary: The `Vocabulary` of the source; a dictionary by name for a
            model of several sources.
        target_vocabulary: The `Vocabulary` of the target.
        **kwargs: `name` and the other arguments of `keras.Model`.

    Call arguments:
        inputs: The inputs of the inner model, passed on unchanged.

    Returns:
        The outputs of the inner model.

    Raises:
        ValueError: The model has no `generate`, does not take token ids, or has fewer
            tokens than a vocabulary; or a vocabulary is not a `Vocabulary`.

    Example:

    >>> import types
    >>> import keras, numpy as np
    >>> from kseq.text import TextToText, Vocabulary
    >>> class Parrot(keras.Model):
    ...     def generate(self, source_ids, search=None, max_length=40):
    ...         ids = np.array([[source_ids[0] + [3]]])  # 3 is the end token
    ...         return types.SimpleNamespace(token_ids=ids, log_probs=np.zeros((1, 1)),
    ...             lengths=np.array([[ids.shape[-1]]]), attention=None)
    >>> letters = Vocabulary("character").adapt(["polly"])
    >>> [[best]] = TextToText(Parrot(), letters, letters).generate(["polly"])
    >>> best.text, best.tokens, best.log_prob
    ('polly', ['p', 'o', 'l', 'l', 'y'], 0.0)

    References:
        - [Keras: save, serialize, and export](https://keras.io/guides/serialization_and_saving/)
    """

    def __init__(
        self,
        model: keras.Model,
        source_vocabulary: Vocabulary | dict[str, Vocabulary],
        target_vocabulary: Vocabulary,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(getattr(model, "generate", None)):
            raise ValueError(
                "`model` must have a method `generate`, as models of "
                f"`kseq.encoder_decoder` have. Received: model={model!r}."
            )
        self.model = model
        self.source_vocabulary = checked_sources(model, source_vocabulary)
        self.target_vocabulary = checked("target_vocabulary", target_vocabulary)
        check_size(model, "target", target_vocabulary)
        self.built = True

    def call(self, inputs: Tree, training: bool | None = None) -> Tree:
        return self.model(inputs, training=training)

    def generate(
        self,
        texts: SourceTexts,
        search: "Search | None" = None,
        max_length: int = 40,
        allow_blank: bool = False,
        ban_unknown: bool = False,
        **options: Any,
    ) -> list[list[Hypothesis]]:
        """Generate a target text for each source text.

        Args:
            texts: List of texts; for several sources a dictionary of lists,
                `{"lemma": [...], "tags": [...]}`.
            search: The search, such as `kseq.decoding.BeamSearch(5)`. None for the
                default of the model.
            max_length: Greatest number of tokens of a hypothesis.
            allow_blank: Whether to allow texts without tokens. Such a text gets one
                hypothesis, "" with log-probability 0, so lines stay aligned.
            ban_unknown: Whether to ban the unknown token, in favour of the next best
                token. Otherwise it appears as U+FFFD, or with `copy=True` as the
                unknown source word with the greatest attention.
            **options: Further arguments of the model's `generate`, such as
                `return_attention_scores=True`.

        Returns:
            For each text a list of `Hypothesis`, the best first.

        Raises:
            ValueError: A text has no token, and `allow_blank` is False.

        Example: see the class.
        """
        texts = readable_twice(texts)
        rows = encode_sources(self.source_vocabulary, texts, allow_blank)
        source_ids = [row for row in rows if row]
        if not source_ids:
            return [self._blank() for _ in rows]
        options = without_unknown(options_without_blank(options, rows), ban_unknown)
        result = self.model.generate(
            as_source(source_ids), search=search, max_length=max_length, **options
        )
        token_ids, log_probs, lengths, attention = map(
            as_numpy,
            (
                result.token_ids,  # B N T
                result.log_probs,  # B N
                result.lengths,  # B N
                result.attention,  # B N ... T S
            ),
        )
        numbers = [number for number, row in enumerate(rows) if row]
        words = copied_words(self, texts, numbers, source_ids, token_ids, attention)
        written = (
            [
                self._hypothesis(
                    source_ids[b],
                    token_ids[b, n, : lengths[b, n]],
                    log_probs[b, n],
                    attention,
                    (b, n),
                    words[b][n],
                )
                for n in range(token_ids.shape[1])
            ]
            for b in range(len(source_ids))
        )
        return [next(written) if row else self._blank() for row in rows]

    def generate_stream(
        self,
        texts: SourceTexts,
        search: "Search | None" = None,
        max_length: int = 40,
        allow_blank: bool = False,
        ban_unknown: bool = False,
        **options: Any,
    ) -> Iterator[list[str | list[str]]]:
        """Generate a target text for each source text, piece by piece.

        A piece never ends within a character or a Hangul syllable; text that a later
        token could still change is held back. The joined pieces of a text are the text
        of its best `Hypothesis` from `generate`.

        Args:
            texts: As for `generate`.
            search: `GreedySearch()`, the default, or `Sampling()` with one draw.
            max_length: As for `generate`.
            allow_blank: As for `generate`; all pieces of a blank text are "".
            ban_unknown: As for `generate`.
            **options: Further arguments of the model's `generate_stream`.

        Returns:
            An iterator of lists with the next piece of each text, "" if there is none.

        Raises:
            ValueError: A text has no token, or the model or the search cannot stream.

        Example:

        >>> import kseq
        >>> letters = kseq.text.Vocabulary("character").adapt(["hello"])
        >>> model = kseq.encoder_decoder(letters.size, letters.size, width=8)
        >>> writer = kseq.text.TextToText(model, letters, letters)
        >>> pieces = list(writer.generate_stream(["he"], max_length=5))
        >>> "".join(first for [first] in pieces) == writer.generate(
        ...     ["he"], max_length=5)[0][0].text
        True
        """
        texts = readable_twice(texts)
        rows = encode_sources(self.source_vocabulary, texts, allow_blank)
        source_ids = [row for row in rows if row]
        if not source_ids:
            return iter(())
        options = without_unknown(options_without_blank(options, rows), ban_unknown)
        tokens = check_can(self.model, "generate_stream").generate_stream(
            as_source(source_ids), search=search, max_length=max_length, **options
        )
        numbers = [number for number, row in enumerate(rows) if row]
        copies = copiers(self, texts, numbers, source_ids)
        pieces = text_pieces(self.target_vocabulary, tokens, copies)
        return self._with_blank(pieces, rows)

    def score(
        self, texts: SourceTexts, targets: Texts, batch_size: int = 128
    ) -> np.ndarray:
        """Return the log-probability of a given target text for each source text.

        Args:
            texts: List of B texts, as for `generate`.
            targets: List of B target texts.
            batch_size: Number of texts in a batch.

        Returns:
            Natural logarithms `(B,)` of the probabilities of the targets, including
            their end tokens. A token that the vocabulary lacks counts as the unknown
            token.

        Raises:
            ValueError: A text has no token, or texts and targets differ in number.

        Example:

        >>> import kseq
        >>> letters = kseq.text.Vocabulary("character").adapt(["hello"])
        >>> model = kseq.encoder_decoder(letters.size, letters.size, width=8)
        >>> writer = kseq.text.TextToText(model, letters, letters)
        >>> writer.score(["he", "hell"], ["lo", "o"]).shape
        (2,)
        """
        source_ids = encode_sources(self.source_vocabulary, texts)
        target_ids = self.target_vocabulary.encode(targets, end=True)
        if len(source_ids) != len(target_ids):
            raise ValueError(
                "There must be one target for each text. Received: "
                f"{len(source_ids)} texts, {len(target_ids)} targets."
            )
        model = check_can(self.model, "score")
        return model.score(as_source(source_ids), target_ids, batch_size)

    def export_generation(
        self,
        path: PathLike,
        search: "Search | None" = None,
        max_length: int = 40,
        format: Literal["tf_saved_model", "ctranslate2"] = "tf_saved_model",
        quantization: str | None = None,
    ) -> None:
        """Export a SavedModel from texts to texts that runs without kseq.

        It needs TensorFlow; if a vocabulary normalizes or has pieces, also
        `import tensorflow_text` before loading. Inputs: "texts", strings `(B,)`, and
        "seed", `(1,)`, for a `Sampling` without a seed. Several sources are passed by
        their names instead of "texts". With `split=None` in the source vocabulary,
        inputs are symbols `(B, S)`, rows padded with "". Outputs: "texts" and
        "log_probs", `(B, N)`, those of `generate`, the best first; a token that the
        target vocabulary lacks is U+FFFD, copied or not. A text that has no token,
        holds a NUL or is not UTF-8 raises an error with its position.

        With `format="ctranslate2"`, export a CTranslate2 folder from tokens to tokens
        in the spelling of the vocabularies; unknown tokens and other strings become
        `"<unk>"`. See `export_generation` of the model.

        Args:
            path: The folder.
            search: As for `generate`.
            max_length: As for `generate`.
            format: "tf_saved_model", or "ctranslate2" for a Transformer.
            quantization: As for the model, for "ctranslate2".

        Raises:
            ValueError: The backend is not TensorFlow, the model is not from kseq, or
                the target vocabulary has `split=None`; or CTranslate2 cannot run the
                model.

        Example:

        >>> import os, tempfile
        >>> import keras, kseq
        >>> letters = kseq.text.Vocabulary("character").adapt(["hello"])
        >>> model = kseq.encoder_decoder(letters.size, letters.size, width=8)
        >>> writer = kseq.text.TextToText(model, letters, letters)
        >>> path = os.path.join(tempfile.mkdtemp(), "writer")
        >>> if keras.backend.backend() == "tensorflow":
        ...     writer.export_generation(path, max_length=5)
        ...     import tensorflow as tf  # what follows needs no kseq
        ...     served = tf.saved_model.load(path).signatures["serving_default"]
        ...     outputs = served(texts=tf.constant(["hell", "hole"]))
        ...     assert outputs["texts"].shape == (2, 1)
        """
        one_of("format", format, ("tf_saved_model", "ctranslate2"))
        if format == "ctranslate2":
            check_one_source(self.source_vocabulary)
            options = {"quantization": quantization, "vocabularies": spelled_out(self)}
            model = check_can(self.model, "export_generation")
            return model.export_generation(path, search, max_length, format, **options)
        if quantization is not None:
            raise ValueError(
                '`quantization` is for format="ctranslate2". Received: quantization='
                f"{quantization!r} with format={format!r}. Leave it out."
            )
        check_split(self.target_vocabulary)
        check_backend()
        model = check_can(self.model, "generation_model").generation_model(
            search, max_length
        )
        target = self.target_vocabulary
        export_from_texts(
            path,
            "texts",
            self.source_vocabulary,
            model,
            search,
            finish=lambda texts, outputs: written_texts(target, outputs),
            resources=target.resources(),
        )

    def _with_blank(
        self, pieces: Iterable[list[Any]], rows: Sequence[SourceRow]
    ) -> Iterator[list[Any]]:
        """Yield the pieces of all texts, given those of texts that have tokens."""
        for some in map(iter, pieces):
            yield [next(some) if row else self._nothing() for row in rows]

    def _nothing(self) -> str | list[str]:
        return self.target_vocabulary.decode([[]])[0]

    def _blank(self) -> list[Hypothesis]:
        source_tokens = spelled_source(self.source_vocabulary, [])
        return [Hypothesis(self._nothing(), [], 0.0, source_tokens)]

    def _hypothesis(
        self,
        source_ids: SourceRow,
        token_ids: np.ndarray,
        log_prob: float,
        attention: Attention,
        place: tuple[int, int],
        words: Mapping[int, str],
    ) -> Hypothesis:
        chosen = text_positions(token_ids)
        tokens = spelled(self.target_vocabulary, token_ids, words)
        return Hypothesis(
            text=self.target_vocabulary.join(tokens),
            tokens=tokens,
            log_prob=float(log_prob),
            source_tokens=spelled_source(self.source_vocabulary, source_ids),
            attention=attention_of(attention, place, chosen, source_ids),  # ... T S
        )

    def get_config(self) -> Config:
        return {**super().get_config(), **serialize_parts(self, PARTS)}

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        return cls(**deserialize_parts(config, PARTS, custom_objects))
