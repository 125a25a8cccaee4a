"""Save and load vocabularies: JSON files, assets of models, `sentencepiece` models."""

import base64
import os
import pathlib
import re
from typing import TYPE_CHECKING, Any, Self

from kseq.text.files import read_json, replace_json, write_json
from kseq.text.punctuation import SPACING
from kseq.text.sentence_pieces import SentencePieces, with_special_ids
from kseq.text.token_ids import Ids, TokenIds, VocabularyIds
from kseq.text.tokenizers import FIXED
from kseq.text.validation import shortened
from kseq.typing import Config, PathLike

ASSET, MODEL_ASSET = "tokens.json", "sentencepiece.model"
SPECIAL_PIECE = re.compile(r"\[[^]]+\]")  # `[CLS]`: never a piece, as `[` is a mark


class VocabularyFiles(VocabularyIds):
    """A mixin of vocabularies that saves and loads them."""

    if TYPE_CHECKING:  # defined by `Vocabulary`
        split: str | None

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def _options(self) -> Config: ...

        def _use(self, table: Ids) -> None: ...

    def save(self, path: PathLike) -> None:
        """Write options and tokens to one JSON file, atomically.

        Args:
            path: The file to write.

        Example:

        >>> import os, tempfile
        >>> from kseq.text import Vocabulary
        >>> path = os.path.join(tempfile.mkdtemp(), "letters.json")
        >>> Vocabulary("character").adapt(["abc"]).save(path)
        >>> Vocabulary.load(path).encode(["cab"])
        [[6, 4, 5]]
        """
        table = self._known()
        kept: Config = {"tokens": table.tokens}
        if isinstance(table, SentencePieces):
            kept = {MODEL_ASSET: base64.b64encode(table.proto).decode()}
        replace_json(path, {"kseq": "Vocabulary", **self._options(), **kept})

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Load a vocabulary that was written by `save`.

        Args:
            path: The JSON file.

        Returns:
            The vocabulary.

        Raises:
            ValueError: The file is damaged, or does not hold a vocabulary.

        Example: see `save`.
        """
        content = read_json(path)
        if not isinstance(content, dict) or content.pop("kseq", None) != "Vocabulary":
            raise ValueError(
                f"`path` must be a file that `Vocabulary.save` wrote. Received: {path}."
            )
        tokens, proto = content.pop("tokens", None), content.pop(MODEL_ASSET, None)
        try:
            vocabulary = cls(**content)
            if vocabulary.split == "sentence_piece":
                vocabulary._use(SentencePieces(base64.b64decode(proto)))
            else:
                vocabulary._set_tokens(tokens)
        except (TypeError, ValueError) as error:
            raise ValueError(f"The vocabulary in {path} is damaged: {error}") from error
        return vocabulary

    def save_assets(self, directory: str) -> None:
        if self.split != "sentence_piece":
            write_json(os.path.join(directory, ASSET), self.tokens)
        elif isinstance(self._table, SentencePieces):
            pathlib.Path(directory, MODEL_ASSET).write_bytes(self._table.proto)

    def load_assets(self, directory: str) -> None:
        if self.split != "sentence_piece":
            tokens = read_json(os.path.join(directory, ASSET))
            if tokens != []:  # saved by a vocabulary without tokens
                self._set_tokens(tokens)
        elif (path := pathlib.Path(directory, MODEL_ASSET)).exists():
            self._use(SentencePieces(path.read_bytes()))

    @classmethod
    def from_sentence_piece(
        cls,
        model: PathLike | bytes,
        normalization: str | None = None,
        lowercase: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Return a vocabulary for a `sentencepiece` model that was trained elsewhere.

        Texts are normalized and split as by the original processor. Only the ids
        differ: the special tokens come first, in the order of kseq.

        Args:
            model: The path of a `.model` file, or its content as bytes.
            normalization: As for the class; applied before that of the model.
            lowercase: As for the class.
            **kwargs: `name` and the other arguments of `keras.layers.Layer`.

        Returns:
            A `Vocabulary("sentence_piece")`.

        Raises:
            ImportError: `sentencepiece` is not installed.
            ValueError: The file is not a `sentencepiece` model.

        Example: `Vocabulary.from_sentence_piece("spm.model")`
        """
        if isinstance(model, bytes):
            proto, name = model, "`model`"
        else:
            proto, name = pathlib.Path(model).read_bytes(), f"The model in {model}"
        table = SentencePieces(with_special_ids(proto, name))
        options = table.options()
        vocabulary = cls(
            "sentence_piece", normalization, lowercase, len(table), **options, **kwargs
        )
        vocabulary._use(table)
        return vocabulary

    @classmethod
    def from_word_pieces(
        cls,
        path: PathLike,
        normalization: str | None = None,
        lowercase: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Return a vocabulary for a file of word pieces, such as BERT's `vocab.txt`.

        The tokens keep their order, but not their ids: the special tokens of kseq and
        two tokens for spaces come first, and tokens in brackets, such as `[CLS]` and
        `[unused0]`, are left out. Words are split into the longest pieces, as in BERT.
        Unlike BERT, kseq does not strip accents or split Chinese text into characters.

        Args:
            path: A text file in UTF-8 with one piece in each line; a piece that
                continues a word begins with `##`.
            normalization: As for the class.
            lowercase: As for the class; True for an "uncased" file.
            **kwargs: `name` and the other arguments of `keras.layers.Layer`.

        Returns:
            A `Vocabulary("word_piece")`.

        Raises:
            ValueError: The file is not UTF-8, holds no piece, or repeats one.

        Example:

        >>> import pathlib, tempfile
        >>> from kseq.text import Vocabulary
        >>> path = pathlib.Path(tempfile.mkdtemp(), "vocab.txt")
        >>> _ = path.write_text("[PAD]\\n[UNK]\\n[CLS]\\nplay\\n##ing\\n.\\n")
        >>> vocabulary = Vocabulary.from_word_pieces(path, lowercase=True)
        >>> vocabulary.spell(vocabulary.encode(["Playing."])[0])
        ['play', '##ing', '.']
        """
        try:
            lines = pathlib.Path(path).read_bytes().decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                "A file of word pieces must be UTF-8, with one piece in each line. "
                f"Received: {path}, which is not UTF-8: {error}."
            ) from error
        pieces = [line.removesuffix("\r") for line in lines]
        pieces = [p for p in pieces if p and not SPECIAL_PIECE.fullmatch(p)]
        try:
            table = TokenIds([*SPACING, *pieces] if pieces else [])
        except ValueError as error:
            raise ValueError(
                f"The word pieces in {path} are damaged: {error}"
            ) from error
        vocabulary = cls("word_piece", normalization, lowercase, len(table), **kwargs)
        vocabulary._use(table)
        return vocabulary

    def _set_tokens(self, tokens: list[str]) -> None:
        if self.split not in FIXED:
            self._use(TokenIds(tokens))
        elif tokens != self.tokens:
            raise ValueError(
                f"`tokens` must be those of split={self.split!r}, which are always the "
                f"same. Received: tokens={shortened(tokens)}."
            )
