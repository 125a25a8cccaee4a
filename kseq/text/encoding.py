"""Texts to rows of token ids, few at a time."""

from kseq.text.tokenizers import chunks
from kseq.token_rows import TokenRows, smallest

CHUNK = 10_000  # texts that are in memory at a time


def encoded_rows(table, tokenizer, texts, start=False, end=False):
    """The ids of any iterable of texts, as `TokenRows`.

    Args:
        table: The `Ids` that number what the tokenizer gives.
        tokenizer: A `Tokenizer`.
        texts: As `Vocabulary.encode` takes them.
        start: Whether to begin each row with the start token.
        end: Whether to finish each row with the end token.
    """
    dtype = smallest(len(table))

    def rows(texts, first):
        if tokenizer.split == "sentence_piece":
            ids = table.rows(tokenizer.encoded(texts, first), start, end)
            return TokenRows.of_lists(ids, dtype)
        ids = table.ids(tokenizer.symbols(texts, first), start, end)
        return TokenRows(ids.values.numpy().astype(dtype), ids.row_splits.numpy())

    return TokenRows.join(rows(chunk, first) for first, chunk in chunks(texts, CHUNK))
