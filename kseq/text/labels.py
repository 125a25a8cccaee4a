"""Text in, labels out: a classifier or a tagger with its vocabulary and its labels.

Axes in shape comments: B texts, S tokens, L labels.
"""

import dataclasses

import keras
import numpy as np

from kseq.text.exporting import Labelling, export_from_texts, labelled
from kseq.text.loading import Loadable
from kseq.text.parts import checked, deserialize_parts, encode_some, serialize_parts
from kseq.text.validation import at_least, shortened, strings

PARTS = ("model", "vocabulary")
LENGTH_MULTIPLE = 16  # so that a compiled model meets few shapes


@dataclasses.dataclass(frozen=True)
class Label:
    """What a model calls a text or a token.

    Attributes:
        name: The most probable label.
        probability: Its probability.
        probabilities: `(L,)`, those of all labels in their order.

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
class TextToLabels(Loadable, keras.Model):
    """A classifier or a tagger, its vocabulary and its labels, in one `.keras` file.

    A model that gives one answer for each text, as those of `kseq.many_to_one`, is a
    classifier; one that gives an answer for each token, as those of
    `kseq.many_to_many`, is a tagger.

    Args:
        model: A model that maps token ids `(B, S)` to logits, `(B, L)` or `(B, S, L)`.
        vocabulary: The `Vocabulary` of what it reads.
        labels: The names of the L labels, in the order of the logits.
        **kwargs: `name` and the other arguments of `keras.Model`.

    Call arguments:
        inputs: Whatever the inner model is called with; it goes there unchanged.

    Returns:
        What the inner model returns.

    Raises:
        ValueError: The model does not give a logit for each label, or knows fewer
            tokens than the vocabulary has; the vocabulary is none; the labels are not
            different strings.

    Example:

    >>> import kseq
    >>> words = kseq.text.Vocabulary("word").adapt(["what a joy", "what a bore"])
    >>> model = kseq.many_to_one(words.size, num_outputs=2, width=8)
    >>> critic = kseq.text.TextToLabels(model, words, ["bad", "good"])
    >>> critic.label_ids(["good", "bad", "good"])
    [1, 0, 1]
    >>> [label] = critic.label(["what a great joy"])
    >>> label.name in ("bad", "good"), label.probabilities.shape
    (True, (2,))

    References:
        - [Keras: save, serialize, and export](https://keras.io/guides/serialization_and_saving/)
    """

    def __init__(self, model, vocabulary, labels, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary = checked("vocabulary", vocabulary)
        self.labels = checked_labels(labels)
        self.model = checked_model(model, self.labels, vocabulary)
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def label(self, texts, batch_size=64, allow_blank=False):
        """Finds the most probable label of each text, or of each of its tokens.

        Texts of like length are read together, so any number may come in any order.

        Args:
            texts: List of texts, as the vocabulary takes them.
            batch_size: How many texts are read together.
            allow_blank: Whether a text may have no token. A classifier gives None for
                it, and a tagger an empty list, so lines stay aligned.

        Returns:
            For each text its `Label`; of a tagger a list with one for each token.

        Raises:
            ValueError: A text has no token at all, and `allow_blank` is False; or
                `batch_size` is less than 1.

        Example: see the class.
        """
        rows = encode_some(self.vocabulary, texts, allow_blank)
        size = at_least("batch_size", batch_size, 1)
        is_tagger = len(self.model.output_shape) == 3
        results = [[] if is_tagger else None for _ in rows]
        order = sorted(
            (i for i, row in enumerate(rows) if row), key=lambda i: len(rows[i])
        )
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            probabilities = self._probabilities(
                [rows[i] for i in chosen], longest=len(rows[order[-1]])
            )
            for i, row in zip(chosen, probabilities, strict=True):
                results[i] = self._labels(row, len(rows[i]))
        return results

    def export_labels(self, path):
        """Writes all of it, from texts to labels, to a SavedModel that needs no kseq.

        The file needs TensorFlow, and tensorflow-text where the vocabulary normalizes
        or cuts into pieces: `import tensorflow_text` before it is loaded. It is called
        with "texts", strings `(B,)`; with `split=None` symbols, `(B, S)`, rows filled
        up with "". A text without a token, with a NUL or one that is not UTF-8 ends the
        call with an error that names its place.

        A classifier gives "labels", `(B,)`, and "probabilities", `(B, L)`. A tagger
        gives "labels", `(B, S)`, filled up with "", and "probabilities", `(B, S, L)`,
        filled up with 0. Where words or characters stand in the text besides:
        "words", `(B, S)`, and "offsets", `(B, S, 2)`, the characters from which and to
        which each extends; so with `split="word"`, unless a normalization is NFKC or
        NFKD, and with `split="character"` without normalization.

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
        labelling = Labelling(self.model)
        is_tagger = len(self.model.output_shape) == 3

        def finish(texts, outputs):
            return labelled(self.vocabulary, self.labels, is_tagger, texts, outputs)

        export_from_texts(path, "texts", self.vocabulary, labelling, finish=finish)

    def label_ids(self, names):
        """Turns names of labels into numbers, to train with.

        Args:
            names: List of names, or for a tagger of lists of names.

        Returns:
            Integers from 0 to L - 1 in lists of the same form.

        Raises:
            ValueError: A name is none of the labels.

        Example: see the class.
        """
        numbers = {name: number for number, name in enumerate(self.labels)}

        def find(name):
            if isinstance(name, (list, tuple)):
                return [find(part) for part in name]
            if name not in numbers:
                raise ValueError(
                    f"`names` must be labels of this model: {shortened(self.labels)}. "
                    f"Received: {name!r}. Make the model with this label, or leave "
                    "out what has it."
                )
            return numbers[name]

        if isinstance(names, str):
            strings("names", names)  # which says how to mend it
        return find(list(names))

    def _probabilities(self, rows, longest):
        length = -(-len(rows[-1]) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        ids = np.full((len(rows), min(length, longest)), self.vocabulary.pad_token_id)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        logits = self.model.predict_on_batch(ids.astype("int32"))
        logits = np.asarray(keras.ops.convert_to_numpy(logits), "float64")
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponents / exponents.sum(axis=-1, keepdims=True)  # B L or B S L

    def _labels(self, probabilities, length):
        if probabilities.ndim == 2:
            return [self._labels(step, length) for step in probabilities[:length]]
        best = int(probabilities.argmax())
        return Label(self.labels[best], float(probabilities[best]), probabilities)

    def get_config(self):
        parts = serialize_parts(self, PARTS)
        return {**super().get_config(), **parts, "labels": list(self.labels)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**deserialize_parts(config, PARTS, custom_objects))


def checked_labels(labels):
    """Returns the labels as a list, if they are different strings."""
    labels = strings("labels", labels)
    is_text = all(isinstance(name, str) for name in labels)
    if not labels or not is_text or len(set(labels)) < len(labels):
        raise ValueError(
            "`labels` must be different strings, one at least. Received: "
            f"labels={shortened(labels)}."
        )
    return labels


def checked_model(model, labels, vocabulary):
    """Returns the model, if it fits the labels and the vocabulary."""
    shape = getattr(model, "output_shape", None)
    is_shape = isinstance(shape, tuple) and len(shape) in (2, 3)
    if not is_shape or shape[-1] != len(labels):
        raise ValueError(
            "`model` must be a built Keras model that gives a logit for each of the "
            f"{len(labels)} labels, of shape (B, {len(labels)}) or for each token "
            f"(B, S, {len(labels)}). Received: {model!r}, output_shape={shape}. Build "
            f"it with num_outputs={len(labels)}."
        )
    inputs = getattr(model, "inputs", None)
    if inputs and len(inputs[0].shape) != 2:
        raise ValueError(
            "`model` must read token ids, of shape (B, S). Received: "
            f"{model!r}, which reads {inputs[0].shape}. Build it with "
            "`vocabulary.size` as its source."
        )
    sizes = [layer.vocabulary_size for layer in model.layers if is_embedding(layer)]
    is_loading = not vocabulary.tokens  # its tokens are read after its config
    if sizes and not is_loading and max(sizes) < vocabulary.size:
        raise ValueError(
            f"`model` must know every token of the vocabulary. Received: a model of "
            f"{max(sizes)} tokens, a vocabulary of {vocabulary.size}. Build it with "
            "`vocabulary.size`."
        )
    return model


def is_embedding(layer):
    return isinstance(getattr(layer, "vocabulary_size", None), int)
