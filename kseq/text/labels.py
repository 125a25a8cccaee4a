"""Text in, labels out: a classifier or a tagger with its vocabulary and its labels.

Axes in shape comments: B texts, S tokens, L labels.
"""

import dataclasses
import functools

import keras
import numpy as np

from kseq.layers.backends import predict_on_batch
from kseq.text.exporting import Labelling, export_from_texts, labelled
from kseq.text.loading import Loadable
from kseq.text.parts import checked, deserialize_parts, encode_some, serialize_parts
from kseq.text.validation import at_least, shortened, strings
from kseq.text.word_characters import WordCharacterVocabulary

PARTS = ("model", "vocabulary")
LENGTH_MULTIPLE = 16  # so that a compiled model meets few shapes


@dataclasses.dataclass(frozen=True)
class Label:
    """What a model calls a text or a token.

    Attributes:
        name: The most probable label; of a model with a CRF that of the best path.
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
    `kseq.many_to_many`, is a tagger. One that ends with a `kseq.layers.CRF` gives each
    token its label on the best path, and the probability of that label over all paths.

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
            different strings, or not those of the model's CRF.

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
        # What decodes potentials has the weights of the model, and is saved with it.
        self.__dict__["decoding"] = decoding_of(model, self.labels)
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    @functools.wraps(keras.Model.predict)
    def predict(self, *args, **kwargs):
        return self.model.predict(*args, **kwargs)

    @functools.wraps(keras.Model.predict_on_batch)
    def predict_on_batch(self, x):
        return self.model.predict_on_batch(x)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if self.decoding is not None:
            raise ValueError(
                "A model with a CRF must be trained by itself, for it is its own loss. "
                f"Received: {self.name}, which holds one. Compile and fit the model "
                "within, `pipeline.model`."
            )
        return super().compute_loss(x, y, y_pred, sample_weight, training)

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
            best, probabilities = self._read(
                [rows[i] for i in chosen], longest=len(rows[order[-1]])
            )
            for i, numbers, row in zip(chosen, best, probabilities, strict=True):
                results[i] = self._labels(numbers, row, len(rows[i]))
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
        labelling = Labelling(self.decoding or self.model)
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

    def _read(self, rows, longest):
        """The numbers of the labels, B or B S, and probabilities, B L or B S L."""
        length = -(-len(rows[-1]) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        columns = np.shape(rows[0][0])  # several where words have their characters
        shape = len(rows), min(length, longest), *columns
        ids = np.full(shape, self.vocabulary.pad_token_id)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        model = self.decoding or self.model
        outputs = predict_on_batch(model, ids.astype("int32"))
        if self.decoding is not None:
            found = {k: keras.ops.convert_to_numpy(x) for k, x in outputs.items()}
            return found["best_scores"].argmax(axis=-1), found["marginals"]
        logits = np.asarray(keras.ops.convert_to_numpy(outputs), "float64")
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=-1, keepdims=True)
        return probabilities.argmax(axis=-1), probabilities

    def _labels(self, best, probabilities, length):
        if probabilities.ndim == 2:
            steps = zip(best[:length], probabilities[:length], strict=True)
            return [self._labels(number, step, length) for number, step in steps]
        name = self.labels[int(best)]
        return Label(name, float(probabilities[best]), probabilities)

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
    if hasattr(model, "ctc"):
        raise ValueError(
            "`model` must give a label for each text, or for each of its tokens. "
            f"Received: {model.name}, which ends with a CTC, whose labels belong to no "
            "token. Take `kseq.text.TextToText(model, vocabulary, labels)`, where the "
            "labels are a vocabulary."
        )
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
    has_characters = isinstance(vocabulary, WordCharacterVocabulary)
    if inputs and len(inputs[0].shape) != 2 + has_characters:
        source, axes = "`vocabulary.size`", "(B, S)"
        if has_characters:
            source, axes = "a `kseq.layers.WordCharacterEmbedding`", "(B, S, 1 + C)"
        raise ValueError(
            f"`model` must read token ids, of shape {axes}. Received: "
            f"{model!r}, which reads {inputs[0].shape}. Build it with "
            f"{source} as its source."
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


def decoding_of(model, labels):
    """What decodes the potentials of a model that ends with a CRF; else None."""
    crf = next((x for x in model.layers if hasattr(x, "best_scores")), None)
    if crf is None:
        return None
    if not hasattr(model, "decoding_model"):
        raise ValueError(
            "A `model` with a CRF must be a `kseq.builders.ManyToMany`, which decodes "
            f"what it gives. Received: model={model!r}. Make it of the same inputs and "
            "outputs: `kseq.builders.ManyToMany(inputs, outputs)`."
        )
    if crf.labels not in (None, labels):
        raise ValueError(
            "`labels` must be those of the model's CRF, in their order. Received: "
            f"{shortened(labels)} with a CRF of {shortened(crf.labels)}. Give "
            "both the same list."
        )
    return model.decoding_model()


def is_embedding(layer):
    return isinstance(getattr(layer, "vocabulary_size", None), int)
