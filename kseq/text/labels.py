"""Pipelines from text to labels: a classifier or a tagger with its vocabulary.

Axes in shape comments: B texts, S tokens, L labels.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np

from kseq.few_shapes import rounded_up, rows_to_add
from kseq.layers.backends import predict_on_batch
from kseq.layers.labels_from_zero import LabelsFromZero, check_label_zero
from kseq.layers.sequence_embedding import SequenceEmbedding
from kseq.text.exporting import Labelling, export_from_texts, labelled
from kseq.text.loading import Loadable
from kseq.text.parts import checked, deserialize_parts, encode_some, serialize_parts
from kseq.text.validation import at_least, shortened, strings
from kseq.text.vocabulary import Vocabulary
from kseq.text.word_characters import WordCharacterVocabulary
from kseq.typing import Config, PathLike, Texts, Tree, wraps

PARTS = ("model", "vocabulary")


@dataclasses.dataclass(frozen=True)
class Label:
    """The predicted label of a text (classifier) or a token (tagger).

    Attributes:
        name: The most probable label; for a model with a CRF, the label on the best
            path.
        probability: The probability of that label.
        probabilities: The probabilities of all labels in their order, `(L,)`.

    Example:

    >>> import numpy as np
    >>> from kseq.text import Label
    >>> Label("good", 0.75, np.array([0.25, 0.75]))
    Label(name='good', probability=0.75)
    """

    name: str
    probability: float
    probabilities: np.ndarray = dataclasses.field(repr=False, compare=False)


@keras.saving.register_keras_serializable(package="kseq")
class TextToLabels(LabelsFromZero, Loadable, keras.Model):
    """A classifier or a tagger, its vocabulary and its labels, in one `.keras` file.

    The output shape of the model decides:

    - Classifier: one label for each text. The model returns logits `(B, L)`, as models
      of `kseq.many_to_one` do.
    - Tagger: one label for each token. The model returns logits `(B, S, L)`, as models
      of `kseq.many_to_many` do.
    - Tagger with a CRF: the model ends with a `kseq.layers.CRF`. Each token gets its
      label on the best path, and the probability of that label over all paths.

    Labels count from 0. A warning tells if the model was compiled with a loss or metric
    of `kseq.training` that ignores label 0 by default.

    Args:
        model: A model from token ids `(B, S)` to logits, `(B, L)` or `(B, S, L)`.
        vocabulary: The `Vocabulary` of the texts.
        labels: The names of the L labels, in the order of the logits.
        **kwargs: `name` and the other arguments of `keras.Model`.

    Call arguments:
        inputs: The inputs of the inner model, passed on unchanged.

    Returns:
        The outputs of the inner model.

    Raises:
        ValueError: The model does not return one logit for each label, or has fewer
            tokens than the vocabulary; `vocabulary` is not a `Vocabulary`; the labels
            are not distinct strings, or differ from those of the model's CRF.
    Example:

    A classifier:

    >>> import kseq
    >>> words = kseq.text.Vocabulary("word").adapt(["what a joy", "what a bore"])
    >>> model = kseq.many_to_one(words.size, num_outputs=2, width=8)
    >>> critic = kseq.text.TextToLabels(model, words, ["bad", "good"])
    >>> critic.label_ids(["good", "bad", "good"])  # to train with
    [1, 0, 1]
    >>> [label] = critic.label(["what a great joy"])
    >>> label.name in ("bad", "good"), label.probabilities.shape
    (True, (2,))

    A tagger:

    >>> model = kseq.many_to_many(words.size, num_outputs=3, width=8)
    >>> tagger = kseq.text.TextToLabels(model, words, ["noun", "article", "other"])
    >>> tagger.label_ids([["other", "article", "noun"]])
    [[2, 1, 0]]
    >>> [labels] = tagger.label(["what a joy"])
    >>> len(labels), labels[0].probabilities.shape
    (3, (3,))

    References:
        - [Keras: save, serialize, and export](https://keras.io/guides/serialization_and_saving/)
    """

    def __init__(
        self,
        model: keras.Model,
        vocabulary: Vocabulary,
        labels: Sequence[str],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary = checked("vocabulary", vocabulary)
        self.labels = checked_labels(labels)
        self.model = checked_model(model, self.labels, vocabulary)
        check_label_zero(model, self.labels[0])
        # Not tracked, as it shares the weights of the model.
        self.__dict__["decoding"] = decoding_of(model, self.labels)
        self.built = True

    def call(self, inputs: Tree, training: bool | None = None) -> Tree:
        return self.model(inputs, training=training)

    @wraps(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.predict(*args, **kwargs)

    @wraps(keras.Model.predict_on_batch)
    def predict_on_batch(self, x: Tree) -> Any:
        return self.model.predict_on_batch(x)

    def compute_loss(
        self,
        x: Tree = None,
        y: Tree = None,
        y_pred: Tree = None,
        sample_weight: Tree = None,
        training: bool = True,
    ) -> Any:
        if self.decoding is not None:
            raise ValueError(
                "A model with a CRF must be trained outside the pipeline, as it has "
                f"its own loss. Received: {self.name}, with such a model. Compile and "
                "fit the inner model, `pipeline.model`."
            )
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def label(
        self, texts: Texts, batch_size: int = 64, allow_blank: bool = False
    ) -> list[Any]:
        """Return the label of each text (classifier), or of each token (tagger).

        Texts of similar length are batched together, so they may come in any order.

        Args:
            texts: List of texts.
            batch_size: Number of texts in a batch.
            allow_blank: Whether to allow texts without tokens. A classifier returns
                None for such a text, a tagger an empty list, so lines stay aligned.

        Returns:
            A list with a `Label` for each text (classifier), or with a list of a
            `Label` for each token (tagger).

        Raises:
            ValueError: A text has no token, and `allow_blank` is False; or
                `batch_size` is less than 1.

        Example: see the class.
        """
        rows = encode_some(self.vocabulary, texts, allow_blank)
        size = at_least("batch_size", batch_size, 1)
        is_tagger = len(self.model.output_shape) == 3
        results: list[Any] = [[] if is_tagger else None for _ in rows]
        order = sorted(
            (i for i, row in enumerate(rows) if row), key=lambda i: len(rows[i])
        )
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            best, probabilities = self._predict(
                [rows[i] for i in chosen], len(rows[order[-1]]), size
            )
            for i, numbers, row in zip(chosen, best, probabilities, strict=True):
                results[i] = self._labels(numbers, row, len(rows[i]))
        return results

    def export_labels(self, path: PathLike) -> None:
        """Export a SavedModel from texts to labels that runs without kseq.

        It needs TensorFlow; if the vocabulary normalizes or has pieces, also
        `import tensorflow_text` before loading. Input: "texts", strings `(B,)`; with
        `split=None` symbols `(B, S)`, rows padded with "". A text that has no token,
        holds a NUL or is not UTF-8 raises an error with its position.

        Outputs of a classifier: "labels", `(B,)`, and "probabilities", `(B, L)`.

        Outputs of a tagger: "labels", `(B, S)`, padded with "", and "probabilities",
        `(B, S, L)`, padded with 0. Also "words", `(B, S)`, and "offsets", `(B, S, 2)`,
        the positions of the first character of each word and of the one after the last,
        with `split="word"`, unless the normalization is NFKC or NFKD; and with
        `split="character"`, unless texts are normalized or lowercased.

        Args:
            path: The folder.

        Raises:
            ValueError: The backend is not TensorFlow.

        Example:

        >>> import os, tempfile
        >>> import keras, kseq
        >>> words = kseq.text.Vocabulary("word").adapt(["Anna works"])
        >>> model = kseq.many_to_many(words.size, num_outputs=2, width=8)
        >>> tagger = kseq.text.TextToLabels(model, words, ["name", "verb"])
        >>> path = os.path.join(tempfile.mkdtemp(), "tagger")
        >>> if keras.backend.backend() == "tensorflow":
        ...     tagger.export_labels(path)
        ...     import tensorflow as tf  # what follows needs no kseq
        ...     served = tf.saved_model.load(path).signatures["serving_default"]
        ...     outputs = served(texts=tf.constant(["Anna works"]))
        ...     assert outputs["offsets"].numpy().tolist() == [[[0, 4], [5, 10]]]
        """
        labelling = Labelling(self.decoding or self.model)
        is_tagger = len(self.model.output_shape) == 3

        def finish(texts, outputs):
            return labelled(self.vocabulary, self.labels, is_tagger, texts, outputs)

        export_from_texts(path, "texts", self.vocabulary, labelling, finish=finish)

    def label_ids(self, names: Sequence[Any]) -> list[Any]:
        """Convert names of labels to integers, for training.

        Args:
            names: List of names, or a list of lists of names for a tagger.

        Returns:
            Integers from 0 to L - 1 in lists of the same form.

        Raises:
            ValueError: A name is not one of the labels.

        Example: see the class.
        """
        numbers = {name: number for number, name in enumerate(self.labels)}

        def find(name):
            if isinstance(name, (list, tuple)):
                return [find(part) for part in name]
            if name not in numbers:
                raise ValueError(
                    f"`names` must be labels of this model: {shortened(self.labels)}. "
                    f"Received: {name!r}. Build the model with this label, or leave "
                    "out the examples that have it."
                )
            return numbers[name]

        if isinstance(names, str):
            strings("names", names)  # raises, with a hint
        return find(list(names))

    def _predict(
        self, rows: list[Any], longest: int, most_rows: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return label ids, B or B S, and probabilities, B L or B S L.

        The last row of `rows` is the longest. `longest` is the length of the longest
        text of all batches.
        """
        model = self.decoding or self.model
        is_compiled = bool(self.decoding or model.jit_compile)
        length = rounded_up(len(rows[-1]), to_power_of_two=is_compiled)
        if not any(isinstance(x, SequenceEmbedding) for x in model.layers):
            length = min(length, longest)  # it may have no position for more padding
        columns = np.shape(rows[0][0])  # with characters, several per word
        count = len(rows) + rows_to_add(len(rows), most_rows)
        ids = np.full((count, length, *columns), self.vocabulary.pad_token_id, "int32")
        for row, tokens in zip(ids, rows, strict=False):
            row[: len(tokens)] = tokens
        ids[len(rows) :] = ids[len(rows) - 1]
        outputs = predict_on_batch(model, ids)
        outputs = keras.tree.map_structure(lambda x: x[: len(rows)], outputs)
        if self.decoding is not None:
            found = {k: keras.ops.convert_to_numpy(x) for k, x in outputs.items()}
            return found["best_scores"].argmax(axis=-1), found["marginals"]
        logits = np.asarray(keras.ops.convert_to_numpy(outputs), "float64")
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=-1, keepdims=True)
        return probabilities.argmax(axis=-1), probabilities

    def _labels(self, best: Any, probabilities: np.ndarray, length: int) -> Any:
        """Return the `Label` of a text, or a list with the `Label` of each token."""
        if probabilities.ndim == 2:
            steps = zip(best[:length], probabilities[:length], strict=True)
            return [self._labels(number, step, length) for number, step in steps]
        name = self.labels[int(best)]
        return Label(name, float(probabilities[best]), probabilities)

    def get_config(self) -> Config:
        parts = serialize_parts(self, PARTS)
        return {**super().get_config(), **parts, "labels": list(self.labels)}

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        return cls(**deserialize_parts(config, PARTS, custom_objects))


def checked_labels(labels: Any) -> list[str]:
    """Return the labels as a list; raise unless they are distinct strings."""
    labels = strings("labels", labels)
    is_text = all(isinstance(name, str) for name in labels)
    if not labels or not is_text or len(set(labels)) < len(labels):
        raise ValueError(
            "`labels` must be unique strings, at least one. Received: "
            f"labels={shortened(labels)}."
        )
    return labels


def checked_model(
    model: keras.Model, labels: list[str], vocabulary: Vocabulary
) -> keras.Model:
    """Return the model; raise unless it fits the labels and the vocabulary."""
    if hasattr(model, "ctc"):
        raise ValueError(
            "`model` must return a label for each text, or for each of its tokens. "
            f"Received: {model.name}, which ends with a CTC, whose labels belong to no "
            "token. Use `kseq.text.TextToText(model, vocabulary, labels)`, where the "
            "labels are a vocabulary."
        )
    shape: Any = getattr(model, "output_shape", None)
    is_shape = isinstance(shape, tuple) and len(shape) in (2, 3)
    if not is_shape or shape[-1] != len(labels):
        raise ValueError(
            "`model` must be a built Keras model that returns a logit for each of the "
            f"{len(labels)} labels, of shape (B, {len(labels)}) or for each token "
            f"(B, S, {len(labels)}). Received: {model!r}, output_shape={shape}. Build "
            f"it with num_outputs={len(labels)}."
        )
    inputs = getattr(model, "inputs", None)
    has_characters = isinstance(vocabulary, WordCharacterVocabulary)
    if inputs and len(inputs[0].shape) != 2 + has_characters:
        source, axes = "`vocabulary.size`", "(B, S)"
        if has_characters:
            source, axes = "a `kseq.layers.WordCharacterEmbedding`", "(B, S, 1 + C)"
        raise ValueError(
            f"`model` must take token ids of shape {axes}. Received: "
            f"{model!r}, which takes {inputs[0].shape}. Build it with "
            f"{source} as its source."
        )
    sizes = [layer.vocabulary_size for layer in model.layers if is_embedding(layer)]
    is_loading = not vocabulary.tokens  # tokens are loaded after the config
    if sizes and not is_loading and max(sizes) < vocabulary.size:
        raise ValueError(
            f"`model` must have every token of the vocabulary. Received: a model of "
            f"{max(sizes)} tokens, a vocabulary of {vocabulary.size}. Build it with "
            "`vocabulary.size`."
        )
    return model


def decoding_of(model: keras.Model, labels: list[str]) -> keras.Model | None:
    """Return the decoding model of a model with a CRF, or None without a CRF."""
    crf = next((x for x in model.layers if hasattr(x, "best_scores")), None)
    if crf is None:
        return None
    if not hasattr(model, "decoding_model"):
        raise ValueError(
            "A `model` with a CRF must be a `kseq.builders.ManyToMany`, which decodes "
            f"its outputs. Received: model={model!r}. Build it from the same inputs "
            "and outputs: `kseq.builders.ManyToMany(inputs, outputs)`."
        )
    if crf.labels not in (None, labels):
        raise ValueError(
            "`labels` must be those of the model's CRF, in their order. Received: "
            f"{shortened(labels)} with a CRF of {shortened(crf.labels)}. Pass "
            "the same list to both."
        )
    return model.decoding_model()


def is_embedding(layer: keras.layers.Layer) -> bool:
    """Tell whether a layer is an embedding of a known number of tokens."""
    return isinstance(getattr(layer, "vocabulary_size", None), int)
