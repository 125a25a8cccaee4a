"""Export pipelines as SavedModels: graphs that take texts and run without kseq.

Axes in shape comments: B texts, N hypotheses, S tokens of a text, T tokens of a
hypothesis, P tokens of a prompt, L labels.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import keras

from kseq.layers.backends import portable
from kseq.layers.saving import SAVED_MODEL_FILE, SUFFIXES, replaced_folder
from kseq.text.offsets import word_offsets
from kseq.typing import PathLike, Tensor, Tree

if TYPE_CHECKING:
    import tensorflow as tf

    from kseq.decoding import Search
    from kseq.text.vocabulary import Vocabulary


def export_from_texts(
    path: PathLike,
    name: str,
    vocabulary: "Vocabulary | dict[str, Vocabulary]",
    model: keras.Model,
    search: "Search | None" = None,
    finish: Callable[[Any, Any], dict[str, Any]] | None = None,
    resources: Iterable[Any] = (),
    check: bool = True,
) -> None:
    """Export a model of tensors as a SavedModel that takes texts.

    Args:
        path: The folder.
        name: The name of the texts in the signature.
        vocabulary: The vocabulary of the texts. For several sources a dictionary, whose
            names are then the names of the texts.
        model: A model from `{"source": (B, S)}`, and "seed" `(1,)`, to tensors by name.
        search: The search in the model. A random search without a seed adds the input
            "seed".
        finish: A function from the texts and the outputs of the model to the outputs of
            the graph. None for the outputs of the model.
        resources: The resources of `finish`, for `ExportArchive.track`.
        check: Whether each text must have a token.

    Raises:
        ValueError: The backend is not TensorFlow.
    """
    check_backend()
    check_folder(path)
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

    with replaced_folder(path, SAVED_MODEL_FILE) as folder:
        archive = keras.export.ExportArchive()
        archive.track(model)
        tables = [table for each in vocabularies.values() for table in each.resources()]
        for table in [*tables, *resources]:
            archive.track(table)
        archive.add_endpoint("serve", serve, [signature])
        archive.write_out(folder, verbose=False)


def written_texts(
    vocabulary: "Vocabulary", outputs: dict[str, Any]
) -> dict[str, "tf.Tensor"]:
    """Return the texts that a search generated, and their log-probabilities."""
    import tensorflow as tf

    ids = outputs["token_ids"]  # B N T
    shape = tf.shape(ids)
    texts = vocabulary.detokenize(tf.reshape(ids, [-1, shape[2]]))
    texts = tf.reshape(texts, shape[:2])  # B N
    return {"texts": texts, "log_probs": outputs["log_probs"]}


class Continued(keras.Model):
    """A model that continues prompts, in an exported graph.

    Args:
        writing: The generation model.
        max_length: Greatest number of tokens, including those of the prompt.
    """

    def __init__(self, writing: keras.Model, max_length: int) -> None:
        super().__init__(name="continued", autocast=False)
        self.writing, self.max_length = writing, max_length
        self.built = True

    def call(self, inputs: dict[str, Tensor]) -> Tree:
        import tensorflow as tf

        inputs = dict(inputs)
        prefix = inputs.pop("source")  # B P
        lengths = tf.reduce_sum(tf.cast(prefix != 0, "int32"), axis=1)
        message = f"`prompts` must leave room for a token within {self.max_length}."
        with require_all(lengths < self.max_length, message):
            return self.writing({"prefix": tf.identity(prefix), **inputs})


class Labelling(keras.Model):
    """A model that returns ids, their best labels and the probabilities of all labels.

    Args:
        reading: A model that returns logits, or "best_scores" and "marginals" of a CRF.
    """

    def __init__(self, reading: keras.Model) -> None:
        super().__init__(name="labelling", autocast=False)
        self.reading = reading
        self.built = True

    def call(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        ids = inputs["source"]  # B S
        with portable():
            outputs = self.reading(ids, training=False)
        if not isinstance(outputs, dict):
            logits = keras.ops.cast(outputs, "float32")
            outputs = {"best_scores": logits, "marginals": keras.ops.softmax(logits)}
        best = keras.ops.argmax(outputs["best_scores"], axis=-1)
        return {"ids": ids, "best": best, "probabilities": outputs["marginals"]}


def labelled(
    vocabulary: "Vocabulary",
    labels: list[str],
    is_tagger: bool,
    texts: "tf.Tensor",
    outputs: dict[str, Any],
) -> dict[str, "tf.Tensor"]:
    """Return the outputs of an exported classifier or tagger."""
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
        **word_offsets(texts, *options),
    }


def token_ids(
    vocabulary: "Vocabulary", texts: "tf.Tensor", name: str, check: bool = True
) -> "tf.Tensor":
    """Return the ids `(B, S)` of texts `(B,)`; invalid texts raise in the graph.

    Args:
        vocabulary: The vocabulary.
        texts: The texts.
        name: The name of the texts in error messages.
        check: Whether each text must have a token.
    """
    import tensorflow as tf

    replaced = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    has_nul = tf.strings.regex_full_match(texts, r"(?s).*\x00.*")
    are_right = (replaced == texts) & ~has_nul
    if texts.shape.rank == 2:  # symbols
        are_right = tf.reduce_all(are_right, axis=1)
    with require_all(are_right, f"`{name}` must be texts in UTF-8 without a NUL."):
        ids = vocabulary(texts)  # B S
    if not check:
        return ids
    has_tokens = tf.reduce_any(first_ids(ids) != 0, axis=1)
    with require_all(has_tokens, f"`{name}` must have at least one token each."):
        return with_a_step(ids)


def source_ids(
    vocabularies: "dict[str, Vocabulary]", texts: dict[str, Any]
) -> dict[str, "tf.Tensor"]:
    """Return the ids `(B, S)` of texts by name; each example needs a token in one."""
    import tensorflow as tf

    ids = {
        key: token_ids(each, texts[key], key, check=False)
        for key, each in vocabularies.items()
    }
    has_tokens = [tf.reduce_any(first_ids(x) != 0, axis=1) for x in ids.values()]
    message = f"`{'`, `'.join(ids)}` must have at least one token each, in some source."
    with require_all(tf.reduce_any(tf.stack(has_tokens), axis=0), message):
        return {key: with_a_step(x) for key, x in ids.items()}


def with_a_step(ids: "tf.Tensor") -> "tf.Tensor":
    """Return the ids of no texts with one step, since a recurrent layer needs one."""
    import tensorflow as tf

    lacking = tf.maximum(1 - tf.shape(ids)[1], 0)
    paddings = [[0, 0], [0, lacking]] + [[0, 0]] * (len(ids.shape) - 2)
    return tf.pad(ids, paddings)


def first_ids(ids: "tf.Tensor") -> "tf.Tensor":
    """Return the ids `(B, S)`; of words with their characters, those of the words."""
    return ids[..., 0] if len(ids.shape) == 3 else ids


def require_all(are_right: "tf.Tensor", message: str) -> AbstractContextManager[Any]:
    """Return a context of operations that run only if every text is valid.

    The error shows the positions of invalid texts but not the texts, as a message
    cannot hold bytes that are not UTF-8.
    """
    import tensorflow as tf

    wrong = tf.where(~are_right)[:, 0]
    told = [message, "Received others at these positions, from 0:", wrong]
    check = tf.debugging.Assert(tf.reduce_all(are_right), told)
    return tf.control_dependencies([check])


def check_folder(path: PathLike) -> None:
    """Raise if a path ends like a file of another format."""
    if str(path).endswith(tuple(SUFFIXES.values())):
        raise ValueError(
            "A pipeline is exported as a SavedModel, which is a folder. Received: "
            f"path={str(path)!r}, which ends like a file. Use "
            "`pipeline.model.export_generation` for a file from token ids to token ids."
        )


def check_backend() -> None:
    """Raise unless the backend is TensorFlow."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            "A pipeline can only be exported with the TensorFlow backend. Received: "
            f"the backend {backend}. Save the model, and load and export it in a "
            "process with KERAS_BACKEND=tensorflow."
        )
