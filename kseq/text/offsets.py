"""Character offsets of words in their texts, in a TensorFlow graph.

Axes in shape comments: B texts, C characters of a text, S words. An axis in parentheses
is ragged.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

ANY_SPACE = r"[\s\v\pZ\x{85}]"  # the spaces at which split="word" splits
ADD_SPACES = ("NFKC", "NFKD")


def word_offsets(
    texts: "tf.Tensor", split: str | None, normalization: str | None, lowercase: bool
) -> dict[str, "tf.Tensor"]:
    """Return the words of texts `(B,)` and their character offsets.

    The words are cut out of the original texts. The result is empty where offsets are
    not defined: where a normalization may change the number of characters, and for
    splits other than words and characters.

    Returns:
        "words", `(B, S)`, and "offsets", `(B, S, 2)`: the position of the first
        character, and the position after the last one.
    """
    import tensorflow as tf

    is_same = normalization is None and not lowercase
    characters = tf.strings.unicode_split(texts, "UTF-8")  # B (C)
    if split == "character" and is_same:
        words = characters
        first = tf.ragged.range(tf.cast(characters.row_lengths(), "int32"))  # B (C)
        last = first + 1
    elif split == "word" and normalization not in ADD_SPACES:
        characters = characters.to_tensor("")  # B C
        is_space = tf.strings.regex_full_match(characters, ANY_SPACE)
        is_inside = ~is_space & (characters != "")
        inside = tf.pad(is_inside, [[0, 0], [1, 1]])
        is_first = is_inside & ~inside[:, :-2]
        is_last = is_inside & ~inside[:, 2:]
        numbers = tf.ones_like(characters, "int32")
        numbers = tf.cumsum(numbers, axis=1, exclusive=True)  # B C
        first = tf.ragged.boolean_mask(numbers, is_first)  # B (S)
        last = tf.ragged.boolean_mask(numbers + 1, is_last)
        word = tf.cumsum(tf.cast(tf.boolean_mask(is_first, is_inside), "int32")) - 1
        letters = tf.boolean_mask(characters, is_inside)
        number = tf.shape(first.values)[0]
        words = tf.strings.unsorted_segment_join(letters, word, number)
        words = first.with_values(words)
    else:
        return {}
    offsets = tf.stack([first.to_tensor(), last.to_tensor()], axis=-1)
    return {"words": words.to_tensor(""), "offsets": offsets}
