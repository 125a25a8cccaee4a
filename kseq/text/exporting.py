"""Pipelines as SavedModels: a graph from texts on, which needs no kseq.

Axes in shape comments: B texts, S tokens of a text.
"""

import keras


def export_from_texts(path, name, vocabulary, model, search):
    """Writes a model of tensors as a SavedModel that takes texts.

    Args:
        path: The folder.
        name: What the texts are called in the signature.
        vocabulary: The vocabulary of the texts.
        model: Maps `{"source": (B, S)}`, and "seed" `(1,)`, to tensors by name.
        search: The search in the model. One that draws without a seed of its own makes
            "seed" an input.

    Raises:
        ValueError: The backend is not TensorFlow.
    """
    check_backend()
    import tensorflow as tf

    signature = {name: tf.TensorSpec((None,), "string", name=name)}
    if search is not None and search.is_random and search.seed is None:
        signature["seed"] = tf.TensorSpec((1,), "int32", name="seed")

    def serve(inputs):
        inputs = dict(inputs)
        ids = token_ids(vocabulary, inputs.pop(name), name)
        return model({"source": ids, **inputs})

    archive = keras.export.ExportArchive()
    archive.track(model)
    for table in vocabulary.resources():
        archive.track(table)
    archive.add_endpoint("serve", serve, [signature])
    archive.write_out(path, verbose=False)


def token_ids(vocabulary, texts, name):
    """Turn texts `(B,)` into ids `(B, S)`; the graph refuses wrong texts in words."""
    import tensorflow as tf

    replaced = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    has_nul = tf.strings.regex_full_match(texts, r"(?s).*\x00.*")
    with all_of(
        (replaced == texts) & ~has_nul,
        f"`{name}` must be texts in UTF-8 without a NUL.",
    ):
        ids = vocabulary(texts)  # B S
    with all_of(
        tf.reduce_any(ids != 0, axis=1), f"`{name}` must have at least one token each."
    ):
        return tf.identity(ids)


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
