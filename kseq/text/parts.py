"""The parts of pipelines: what a model and a vocabulary must be, and their configs."""

import keras

from kseq.text.vocabulary import Vocabulary


def encode_some(vocabulary, texts, allow_blank=None):
    """Token ids of texts, each of which has a token unless a blank one is allowed.

    None is for callers that cannot allow it.
    """
    ids = vocabulary.encode(texts)
    if [] in ids and not allow_blank:
        more = ", or give `allow_blank=True` for a result in its place"
        raise ValueError(
            "`texts` must have at least one token each. Received: "
            f"texts[{ids.index([])}], which has none. Leave it out"
            f"{'' if allow_blank is None else more}."
        )
    return ids


def check_can(model, method):
    """Returns the model if it has a method that not every model with `generate` has."""
    if not callable(getattr(model, method, None)):
        raise ValueError(
            f"`model` must have a method `{method}`, as models of "
            f"`kseq.encoder_decoder` have. Received: model={model!r}. Use `generate`."
        )
    return model


def spelled_out(pipeline):
    """The text of each token id of both vocabularies, the special ones too, by name."""
    own = {
        "source": pipeline.source_vocabulary.tokens,
        "target": pipeline.target_vocabulary.tokens,
    }
    words = {word for tokens in own.values() for word in tokens}
    special = []
    for name in ("<blank>", "<unk>", "<s>", "</s>"):
        while name in words:  # as no text is mistaken for it
            name = f"<{name}>"
        special.append(name)
    spelled = {}
    for role, tokens in own.items():
        tokens = special + tokens
        size = getattr(pipeline.model, f"{role}_size")
        more = range(len(tokens), size)  # ids of the model alone
        spelled[role] = tokens + [f"{special[1]}{number}" for number in more]
    return spelled


def serialize_parts(whole, names):
    """The Keras objects that a pipeline holds, for its config."""
    return {n: keras.saving.serialize_keras_object(getattr(whole, n)) for n in names}


def deserialize_parts(config, names, custom_objects=None):
    """A config in which the Keras objects are objects again."""
    parts = {
        name: keras.saving.deserialize_keras_object(
            config[name], custom_objects=custom_objects
        )
        for name in names
    }
    return {**config, **parts}


def check_has_source(model):
    """Raises if a model of kseq reads nothing or a series in place of token ids."""
    inputs = getattr(model, "input", None)
    if not isinstance(inputs, dict) or not hasattr(model, "source_size"):
        return
    if "source" not in inputs or model.source_size is None:
        raise ValueError(
            "`model` must read token ids, as models of `kseq.encoder_decoder` do. "
            f"Received: model={model!r}. A language model is for "
            "`kseq.text.TextWriter`."
        )


def check_size(model, role, vocabulary):
    """Raises if a model is known to have fewer ids than the vocabulary."""
    check_least(getattr(model, f"{role}_size", None), role, vocabulary)


def check_least(size, role, vocabulary):
    """Raises if ids are known to be fewer than the vocabulary has."""
    is_loading = not vocabulary.tokens  # its tokens are read after its config
    if isinstance(size, int) and not is_loading and size < vocabulary.size:
        raise ValueError(
            f"`model` must know every token of the {role} vocabulary. Received: a "
            f"model of {size} {role} tokens, a vocabulary of {vocabulary.size}. Build "
            f"it with the `size` of the {role} vocabulary."
        )


def checked(name, vocabulary):
    if not isinstance(vocabulary, Vocabulary):
        raise ValueError(
            f"`{name}` must be a `kseq.text.Vocabulary`. "
            f"Received: {name}={vocabulary!r}."
        )
    return vocabulary
