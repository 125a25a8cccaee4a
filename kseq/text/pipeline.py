"""Text in, text out: a model that writes, with the vocabularies it was trained on.

Axes in shape comments: B texts, N hypotheses, T target tokens, S source tokens.
"""

import keras

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
    as_numpy,
    as_source,
    attention_of,
    check_one_source,
    checked_sources,
    encode_sources,
    spelled_source,
)
from kseq.text.streaming import text_pieces
from kseq.text.token_ids import text_positions
from kseq.text.unknown import without_unknown
from kseq.text.validation import one_of, shortened

PARTS = ("model", "source_vocabulary", "target_vocabulary")


@keras.saving.register_keras_serializable(package="kseq")
class TextToText(Loadable, keras.Model):
    """A model that writes and its two vocabularies, in one `.keras` file.

    Args:
        model: A model with `generate(source_ids, search=None, max_length=40)`, such as
            `kseq.encoder_decoder` builds.
        source_vocabulary: The `Vocabulary` of what the model reads; of a model of
            several sources a dictionary of them.
        target_vocabulary: The `Vocabulary` of what it writes.
        **kwargs: `name` and the other arguments of `keras.Model`.

    Call arguments:
        inputs: Whatever the inner model is called with; it goes there unchanged.

    Returns:
        What the inner model returns.

    Raises:
        ValueError: The model has no `generate`, or reads no token ids, or knows fewer
            tokens than a vocabulary has; or a vocabulary is none.

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

    def __init__(self, model, source_vocabulary, target_vocabulary, **kwargs):
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

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def generate(
        self,
        texts,
        search=None,
        max_length=40,
        allow_blank=False,
        ban_unknown=False,
        **options,
    ):
        """Writes a text for each text.

        Args:
            texts: List of texts, as the source vocabulary takes them; of several
                sources a dictionary of lists, `{"lemma": [...], "tags": [...]}`.
            search: How to search: `kseq.decoding.BeamSearch(5)` and the like. None for
                the way of the model.
            max_length: Greatest number of tokens of a hypothesis.
            allow_blank: Whether a text may have no token. Nothing is written for it: it
                has one hypothesis, "" of log-probability 0, so lines stay aligned.
            ban_unknown: Whether never to write the unknown token, which reads U+FFFD,
                or with `copy=True` as the unknown word of the source that the model
                attends to most. The model then takes what else it finds most probable.
            **options: What else the model's `generate` takes, such as
                `return_attention_scores=True`.

        Returns:
            For each text a list of `Hypothesis`, the best first.

        Raises:
            ValueError: A text has no token at all, and `allow_blank` is False.

        Example: see the class.
        """
        texts = readable_twice(texts)
        rows = encode_sources(self.source_vocabulary, texts, allow_blank)
        source_ids = [row for row in rows if row]
        if not source_ids:
            return [self._blank() for _ in rows]
        options = without_unknown(self._for_some(options, rows), ban_unknown)
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
        texts,
        search=None,
        max_length=40,
        allow_blank=False,
        ban_unknown=False,
        **options,
    ):
        """Writes a text for each text, and gives its pieces as they come.

        A piece is never a part of a character or of a syllable of Hangul; what a later
        token could still change waits for it. Joined, the pieces of a text are the text
        of its best `Hypothesis` from `generate`.

        Args:
            texts: As for `generate`.
            search: `GreedySearch()`, the default, or `Sampling()` with one draw.
            max_length: As for `generate`.
            allow_blank: As for `generate`; all pieces of a blank text are "".
            ban_unknown: As for `generate`.
            **options: What else the model's `generate_stream` takes.

        Returns:
            An iterator of lists, the next piece of each text, "" where there is none.

        Raises:
            ValueError: A text has no token at all, or the model or the search cannot
                stream.

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
        options = without_unknown(self._for_some(options, rows), ban_unknown)
        tokens = check_can(self.model, "generate_stream").generate_stream(
            as_source(source_ids), search=search, max_length=max_length, **options
        )
        numbers = [number for number, row in enumerate(rows) if row]
        copies = copiers(self, texts, numbers, source_ids)
        pieces = text_pieces(self.target_vocabulary, tokens, copies)
        return self._in_place(pieces, rows)

    def score(self, texts, targets, batch_size=128):
        """The log-probability that the model gives to a target text for each text.

        Args:
            texts: List of B texts, as for `generate`.
            targets: List of B texts, as the target vocabulary takes them.
            batch_size: Most texts to work on at a time.

        Returns:
            NumPy array `(B,)` of natural logarithms, of the tokens of each target and
            the end token behind them. A token that the vocabulary lacks counts as the
            unknown token.

        Raises:
            ValueError: A text has no token at all, or there is not one target for each.

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
                "There must be a target for each text. Received: "
                f"{len(source_ids)} texts, {len(target_ids)} targets."
            )
        model = check_can(self.model, "score")
        return model.score(as_source(source_ids), target_ids, batch_size)

    def export_generation(
        self,
        path,
        search=None,
        max_length=40,
        format="tf_saved_model",
        quantization=None,
    ):
        """Writes all of it, from texts to texts, to a SavedModel that needs no kseq.

        The file needs TensorFlow, and tensorflow-text where a vocabulary normalizes or
        cuts into pieces: `import tensorflow_text` before it is loaded. It is called
        with "texts", strings `(B,)`, and "seed", `(1,)`, for a `Sampling` without one.
        It gives "texts", `(B, N)`, and "log_probs", `(B, N)`, those of `generate`, the
        best first. A source vocabulary with `split=None` takes symbols, `(B, S)`, rows
        filled up with "". Several sources are called by their names instead of "texts".
        A text without a token, with a NUL or one that is not UTF-8 ends the call with
        an error that names its place. What the target vocabulary lacks reads U+FFFD
        there, copied or not.

        With `format="ctranslate2"` it is a folder of CTranslate2, from tokens to tokens
        as the vocabularies spell them; a token that they lack is `"<unk>"`, as is any
        other text. See `export_generation` of the model.

        Args:
            path: The folder.
            search: As for `generate`.
            max_length: As for `generate`.
            format: "tf_saved_model", or "ctranslate2" for a Transformer.
            quantization: As for the model, for "ctranslate2".

        Raises:
            ValueError: The backend is not TensorFlow, the model is none of kseq, or the
                target vocabulary has `split=None`; or the model is none that
                CTranslate2 can run.

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

    def _for_some(self, options, rows):
        """Options without the prefixes of texts that have no token."""
        prefix = options.get("prefix")
        if prefix is None:
            return options
        if isinstance(prefix, (list, tuple)) and any(
            isinstance(p, str) for p in prefix
        ):
            raise ValueError(
                "`prefix` must be rows of token ids. Received: "
                f"prefix={shortened(prefix)}. Encode it: "
                "`target_vocabulary.encode(prefix)`."
            )
        if all(rows) or len(prefix) != len(rows):
            return options
        some = [p for p, row in zip(prefix, rows, strict=True) if row]
        return {**options, "prefix": some}

    def _in_place(self, pieces, rows):
        """Pieces of the texts that have tokens, with nothing where one has none."""
        for some in map(iter, pieces):
            yield [next(some) if row else self._nothing() for row in rows]

    def _nothing(self):
        return self.target_vocabulary.decode([[]])[0]

    def _blank(self):
        source_tokens = spelled_source(self.source_vocabulary, [])
        return [Hypothesis(self._nothing(), [], 0.0, source_tokens)]

    def _hypothesis(self, source_ids, token_ids, log_prob, attention, place, words):
        chosen = text_positions(token_ids)
        tokens = spelled(self.target_vocabulary, token_ids, words)
        return Hypothesis(
            text=self.target_vocabulary.join(tokens),
            tokens=tokens,
            log_prob=float(log_prob),
            source_tokens=spelled_source(self.source_vocabulary, source_ids),
            attention=attention_of(attention, place, chosen, source_ids),  # ... T S
        )

    def get_config(self):
        return {**super().get_config(), **serialize_parts(self, PARTS)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**deserialize_parts(config, PARTS, custom_objects))
