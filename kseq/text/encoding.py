"""Encode texts as rows of token ids in small chunks, to save memory."""

from kseq.text.sentence_pieces import SentencePieces
from kseq.text.token_ids import Ids
from kseq.text.tokenizers import Tokenizer, chunks
from kseq.token_rows import TokenRows, smallest
from kseq.typing import Texts

CHUNK = 10_000  # texts that are in memory at a time


def encoded_rows(
    table: Ids,
    tokenizer: Tokenizer,
    texts: Texts,
    start: bool = False,
    end: bool = False,
) -> TokenRows:
    """Return the ids of any iterable of texts as `TokenRows`.

    Args:
        table: The `Ids` that map the symbols of the tokenizer to ids.
        tokenizer: A `Tokenizer`.
        texts: As `Vocabulary.encode` takes them.
        start: Whether to begin each row with the start token.
        end: Whether to end each row with the end token.
    """
    dtype = smallest(len(table))

    def rows(texts, first):
        if isinstance(table, SentencePieces):
            ids = table.rows(tokenizer.encoded(texts, first), start, end)
            return TokenRows.of_lists(ids, dtype)
        ids = table.ids(tokenizer.symbols(texts, first), start, end)
        return TokenRows(ids.values.numpy().astype(dtype), ids.row_splits.numpy())

    return TokenRows.join(rows(chunk, first) for first, chunk in chunks(texts, CHUNK))
