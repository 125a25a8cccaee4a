"""Places of words in their texts, in a graph of TensorFlow.

Axes in shape comments: B texts, C characters of a text, S words. An axis in brackets is
ragged.
"""

ANY_SPACE = r"[\s\v\pZ\x{85}]"  # as the split into words takes it
ADD_SPACES = ("NFKC", "NFKD")


def places(texts, split, normalization, lowercase):
    """The words of texts `(B,)` and where they stand, by name; or nothing.

    Words are cut out of the texts as they came. Characters whose number a normalization
    may change, and splits that give more or less than words, have no places.

    Returns:
        "words", `(B, S)`, and "offsets", `(B, S, 2)`: the number of the first character
        and that of the one behind the last.
    """
    import tensorflow as tf

    is_same = normalization is None and not lowercase
    if split == "character" and is_same:
        first = tf.ragged.range(tf.strings.length(texts, "UTF8_CHAR"))  # B (C)
        last = first + 1
    elif split == "word" and normalization not in ADD_SPACES:
        characters = tf.strings.unicode_split(texts, "UTF-8").to_tensor("")  # B C
        is_space = tf.strings.regex_full_match(characters, ANY_SPACE)
        is_inside = ~is_space & (characters != "")
        inside = tf.pad(is_inside, [[0, 0], [1, 1]])
        numbers = tf.ones_like(characters, "int32")
        numbers = tf.cumsum(numbers, axis=1, exclusive=True)  # B C
        first = tf.ragged.boolean_mask(numbers, is_inside & ~inside[:, :-2])  # B (S)
        last = tf.ragged.boolean_mask(numbers + 1, is_inside & ~inside[:, 2:])
    else:
        return {}
    whole = tf.gather(texts, first.value_rowids())
    length = last.values - first.values
    words = tf.strings.substr(whole, first.values, length, unit="UTF8_CHAR")
    offsets = tf.stack([first.to_tensor(), last.to_tensor()], axis=-1)
    return {"words": first.with_values(words).to_tensor(""), "offsets": offsets}
