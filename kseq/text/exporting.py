"""Pipelines as SavedModels: a graph from texts on, which needs no kseq.

Axes in shape comments: B texts, N hypotheses, S tokens of a text, T of a hypothesis,
L labels.
"""

import keras

from kseq.layers.backends import portable
from kseq.text.offsets import places


def export_from_texts(
    path, name, vocabulary, model, search=None, finish=None, resources=(), check=True
):
    """Writes a model of tensors as a SavedModel that takes texts.

    Args:
        path: The folder.
        name: What the texts are called in the signature.
        vocabulary: The vocabulary of the texts; of several sources a dictionary, whose
            names the texts have then.
        model: Maps `{"source": (B, S)}`, and "seed" `(1,)`, to tensors by name.
        search: The search in the model. One that draws without a seed of its own makes
            "seed" an input.
        finish: Makes the outputs from the texts and from what the model gives; None for
            those of the model.
        resources: What `finish` needs besides, for `ExportArchive.track`.
        check: Whether each text must have a token.

    Raises:
        ValueError: The backend is not TensorFlow.
    """
    check_backend()
    import tensorflow as tf

    vocabularies = vocabulary if isinstance(vocabulary, dict) else {name: vocabulary}
    signature = {
        key: tf.TensorSpec((None,) if each.split else (None, None), "string", name=key)
        for key, each in vocabularies.items()
    }
    if search is not None and search.is_random and search.seed is None:
        signature["seed"] = tf.TensorSpec((1,), "int32", name="seed")

    def serve(inputs):
        inputs = dict(inputs)
        texts = {key: inputs.pop(key) for key in vocabularies}
        if isinstance(vocabulary, dict):
            source = source_ids(vocabulary, texts)
        else:
            texts = texts[name]
            source = token_ids(vocabulary, texts, name, check)
        outputs = model({"source": source, **inputs})
        return outputs if finish is None else finish(texts, outputs)

    archive = keras.export.ExportArchive()
    archive.track(model)
    tables = [table for each in vocabularies.values() for table in each.resources()]
    for table in [*tables, *resources]:
        archive.track(table)
    archive.add_endpoint("serve", serve, [signature])
    archive.write_out(path, verbose=False)


def written_texts(vocabulary, outputs):
    """The texts that a search has written, and their scores, by name."""
    import tensorflow as tf

    ids = outputs["token_ids"]  # B N T
    shape = tf.shape(ids)
    texts = vocabulary.detokenize(tf.reshape(ids, [-1, shape[2]]))
    texts = tf.reshape(texts, shape[:2])  # B N
    return {"texts": texts, "log_probs": outputs["log_probs"]}


class Continued(keras.Model):
    """A search that begins with what it is given, in an exported graph."""

    def __init__(self, writing, max_length):
        super().__init__(name="continued", autocast=False)
        self.writing, self.max_length = writing, max_length
        self.built = True

    def call(self, inputs):
        import tensorflow as tf

        inputs = dict(inputs)
        prefix = inputs.pop("source")  # B P
        lengths = tf.reduce_sum(tf.cast(prefix != 0, "int32"), axis=1)
        message = f"`prompts` must leave room for a token within {self.max_length}."
        with all_of(lengths < self.max_length, message):
            return self.writing({"prefix": tf.identity(prefix), **inputs})


class Labelling(keras.Model):
    """The best labels, their probabilities, and which ids were read.

    The model within gives logits, or the "best_scores" and the "marginals" of a CRF.
    """

    def __init__(self, reading):
        super().__init__(name="labelling", autocast=False)
        self.reading = reading
        self.built = True

    def call(self, inputs):
        ids = inputs["source"]  # B S
        with portable():
            outputs = self.reading(ids, training=False)
        if not isinstance(outputs, dict):
            logits = keras.ops.cast(outputs, "float32")
            outputs = {"best_scores": logits, "marginals": keras.ops.softmax(logits)}
        best = keras.ops.argmax(outputs["best_scores"], axis=-1)
        return {"ids": ids, "best": best, "probabilities": outputs["marginals"]}


def labelled(vocabulary, labels, is_tagger, texts, outputs):
    """What an exported model gives, in a graph of TensorFlow."""
    import tensorflow as tf

    ids, probabilities = outputs["ids"], outputs["probabilities"]  # B S, B S L or B L
    names = tf.gather(labels, outputs["best"])
    if not is_tagger:
        return {"labels": names, "probabilities": probabilities}
    options = vocabulary.split, vocabulary.normalization, vocabulary.lowercase
    is_token = first_ids(ids) != vocabulary.pad_token_id
    return {
        "labels": tf.where(is_token, names, ""),
        "probabilities": tf.where(is_token[..., None], probabilities, 0.0),
        **places(texts, *options),
    }


def token_ids(vocabulary, texts, name, check=True):
    """Turn texts `(B,)` into ids `(B, S)`; the graph refuses wrong texts in words."""
    import tensorflow as tf

    replaced = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    has_nul = tf.strings.regex_full_match(texts, r"(?s).*\x00.*")
    are_right = (replaced == texts) & ~has_nul
    if texts.shape.rank == 2:  # symbols
        are_right = tf.reduce_all(are_right, axis=1)
    with all_of(are_right, f"`{name}` must be texts in UTF-8 without a NUL."):
        ids = vocabulary(texts)  # B S
    if not check:
        return ids
    has_tokens = tf.reduce_any(first_ids(ids) != 0, axis=1)
    with all_of(has_tokens, f"`{name}` must have at least one token each."):
        return tf.identity(ids)


def source_ids(vocabularies, texts):
    """Token ids `(B, S)` of texts by name, of which each row has a token somewhere."""
    import tensorflow as tf

    ids = {
        key: token_ids(each, texts[key], key, check=False)
        for key, each in vocabularies.items()
    }
    has_tokens = [tf.reduce_any(first_ids(x) != 0, axis=1) for x in ids.values()]
    message = f"`{'`, `'.join(ids)}` must have at least one token each, of some source."
    with all_of(tf.reduce_any(tf.stack(has_tokens), axis=0), message):
        return {key: tf.identity(x) for key, x in ids.items()}


def first_ids(ids):
    """The ids `(B, S)`, of words that have their characters those of the words."""
    return ids[..., 0] if len(ids.shape) == 3 else ids


def all_of(are_right, message):
    """Compute what stands inside only if every text is right.

    The error names the places of wrong texts and does not show them, since bytes that
    are not UTF-8 cannot be part of a message.
    """
    import tensorflow as tf

    wrong = tf.where(~are_right)[:, 0]
    told = [message, "Received others at these places, from 0:", wrong]
    check = tf.debugging.Assert(tf.reduce_all(are_right), told)
    return tf.control_dependencies([check])


def check_backend():
    """Raises where the backend is not TensorFlow."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            "A pipeline is exported by TensorFlow. Received: the backend "
            f"{backend}. Save the model, and load and export it in a process with "
            "KERAS_BACKEND=tensorflow."
        )
