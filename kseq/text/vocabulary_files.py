"""Files of vocabularies: their own, those in saved models, and those of others."""

import base64
import os
import pathlib

from kseq.text.files import read_json, replace_json, write_json
from kseq.text.sentence_pieces import SentencePieces, with_special_ids
from kseq.text.token_ids import TokenIds
from kseq.text.tokenizers import FIXED
from kseq.text.validation import shortened

ASSET, MODEL_ASSET = "tokens.json", "sentencepiece.model"


class VocabularyFiles:
    """What a vocabulary can: be saved, and read from a file."""

    def save(self, path):
        """Writes options and tokens to one JSON file, whole or not at all.

        Example:

        >>> import os, tempfile
        >>> from kseq.text import Vocabulary
        >>> path = os.path.join(tempfile.mkdtemp(), "letters.json")
        >>> Vocabulary("character").adapt(["abc"]).save(path)
        >>> Vocabulary.load(path).encode(["cab"])
        [[6, 4, 5]]
        """
        table = self._known()
        kept = {"tokens": table.tokens}
        if self.split == "sentence_piece":
            kept = {MODEL_ASSET: base64.b64encode(table.proto).decode()}
        replace_json(path, {"kseq": "Vocabulary", **self._options(), **kept})

    @classmethod
    def load(cls, path):
        """Reads a vocabulary that `save` wrote.

        Raises:
            ValueError: The file is damaged, or is no vocabulary.

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

    def save_assets(self, directory):
        if self.split != "sentence_piece":
            write_json(os.path.join(directory, ASSET), self.tokens)
        elif self._table is not None:
            pathlib.Path(directory, MODEL_ASSET).write_bytes(self._table.proto)

    def load_assets(self, directory):
        if self.split != "sentence_piece":
            tokens = read_json(os.path.join(directory, ASSET))
            if tokens != []:  # what a vocabulary without tokens leaves
                self._set_tokens(tokens)
        elif (path := pathlib.Path(directory, MODEL_ASSET)).exists():
            self._use(SentencePieces(path.read_bytes()))

    @classmethod
    def from_sentence_piece(cls, model, normalization=None, lowercase=False, **kwargs):
        """Takes over a model that `sentencepiece` has learned elsewhere.

        Texts are cut as its own processor cuts them, by its own normalization; only the
        ids are others, as the special tokens come first, in the order of kseq.

        Args:
            model: The path of a `.model` file, or what is in it as bytes.
            normalization: As for the class; before that of the model.
            lowercase: As for the class.
            **kwargs: `name` and the other arguments of `keras.layers.Layer`.

        Returns:
            A `Vocabulary("sentence_piece")`.

        Raises:
            ImportError: `sentencepiece` is not installed.
            ValueError: The file is none of `sentencepiece`.

        Example: `Vocabulary.from_sentence_piece("spm.model")`
        """
        is_read = isinstance(model, bytes)
        proto = model if is_read else pathlib.Path(model).read_bytes()
        name = "`model`" if is_read else f"The model in {model}"
        table = SentencePieces(with_special_ids(proto, name))
        options = table.options()
        vocabulary = cls(
            "sentence_piece", normalization, lowercase, len(table), **options, **kwargs
        )
        vocabulary._use(table)
        return vocabulary

    def _set_tokens(self, tokens):
        if self.split not in FIXED:
            self._use(TokenIds(tokens))
        elif tokens != self.tokens:
            raise ValueError(
                f"`tokens` must be those of split={self.split!r}, which are always the "
                f"same. Received: tokens={shortened(tokens)}."
            )
