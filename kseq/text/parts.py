"""Checks of the models and vocabularies of pipelines, and their configs."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import keras

from kseq.text.vocabulary import Vocabulary
from kseq.token_rows import TokenRows
from kseq.typing import Config, Texts

if TYPE_CHECKING:
    from kseq.text.pipeline import TextToText


def encode_some(
    vocabulary: Vocabulary, texts: Texts, allow_blank: bool | None = None
) -> TokenRows:
    """Return the token ids of texts; raise if a text has no token.

    Args:
        vocabulary: The vocabulary.
        texts: The texts.
        allow_blank: Whether to allow texts without tokens; None, as False, for callers
            that have no such option.
    """
    ids = vocabulary.encode(texts)
    if [] in ids and not allow_blank:
        more = ", or pass `allow_blank=True` for an empty result in its place"
        raise ValueError(
            "`texts` must have at least one token each. Received: "
            f"texts[{ids.index([])}], which has none. Leave it out"
            f"{'' if allow_blank is None else more}."
        )
    return ids


def check_can(model: keras.Model, method: str) -> Any:
    """Return the model; raise unless it has a method."""
    if not callable(getattr(model, method, None)):
        raise ValueError(
            f"`model` must have a method `{method}`, as models of "
            f"`kseq.encoder_decoder` have. Received: model={model!r}. Use `generate`."
        )
    return model


def spelled_out(pipeline: "TextToText") -> dict[str, list[str]]:
    """Return the spelling of every "source" and "target" id, including special ids."""
    source: Any = pipeline.source_vocabulary  # one, as for CTranslate2
    own = {
        "source": source.tokens,
        "target": pipeline.target_vocabulary.tokens,
    }
    words = {word for tokens in own.values() for word in tokens}
    special = []
    for name in ("<blank>", "<unk>", "<s>", "</s>"):
        while name in words:  # distinct from every token
            name = f"<{name}>"
        special.append(name)
    spelled = {}
    for role, tokens in own.items():
        tokens = special + tokens
        size = getattr(pipeline.model, f"{role}_size")
        more = range(len(tokens), size)  # ids that only the model has
        spelled[role] = tokens + [f"{special[1]}{number}" for number in more]
    return spelled


def serialize_parts(whole: keras.Model, names: Iterable[str]) -> Config:
    """Return serialized Keras objects of a pipeline, for its config."""
    return {n: keras.saving.serialize_keras_object(getattr(whole, n)) for n in names}


def deserialize_parts(
    config: Config,
    names: Iterable[str],
    custom_objects: Mapping[str, Any] | None = None,
) -> Config:
    """Return a config with its Keras objects deserialized."""
    parts = {
        name: keras.saving.deserialize_keras_object(
            config[name], custom_objects=custom_objects
        )
        for name in names
    }
    return {**config, **parts}


def check_has_source(model: keras.Model) -> None:
    """Raise if the source of a kseq model is missing, or is not token ids."""
    inputs = getattr(model, "input", None)
    if not isinstance(inputs, dict) or not hasattr(model, "source_size"):
        return
    if "source" not in inputs or model.source_size is None:
        raise ValueError(
            "`model` must take token ids as its source, as models of "
            f"`kseq.encoder_decoder` do. Received: model={model!r}. Use "
            "`kseq.text.TextWriter` for a language model."
        )


def check_size(model: keras.Model, role: str, vocabulary: Vocabulary) -> None:
    """Raise if a model has a known size, and fewer ids than the vocabulary."""
    check_least(getattr(model, f"{role}_size", None), role, vocabulary)


def check_least(size: Any, role: str, vocabulary: Vocabulary) -> None:
    """Raise if a size is a number less than the size of the vocabulary."""
    is_loading = not vocabulary.tokens  # tokens are loaded after the config
    if isinstance(size, int) and not is_loading and size < vocabulary.size:
        raise ValueError(
            f"`model` must have every token of the {role} vocabulary. Received: a "
            f"model of {size} {role} tokens, a vocabulary of {vocabulary.size}. Build "
            f"it with the `size` of the {role} vocabulary."
        )


def checked(name: str, vocabulary: Any) -> Vocabulary:
    """Return the vocabulary; raise unless it is a `Vocabulary`."""
    if not isinstance(vocabulary, Vocabulary):
        raise ValueError(
            f"`{name}` must be a `kseq.text.Vocabulary`. "
            f"Received: {name}={vocabulary!r}."
        )
    return vocabulary
