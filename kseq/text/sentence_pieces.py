"""Subword pieces that are learned and split by the package `sentencepiece`.

The models of this package begin with the four special ids of kseq, so ids need no
conversion. `sentencepiece` marks spaces by U+2581. If a text contains that character,
it is replaced by a NUL, which no text contains, and restored from the byte 0.

Axes in shape comments: B texts, L tokens of a text. An L in parentheses is ragged.
"""

import functools
import hashlib
import io
import re
import threading
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from kseq.text.pieces import tensorflow_text
from kseq.text.token_ids import END, PADDING, REPLACEMENT, START, UNKNOWN, Ids
from kseq.text.validation import checked_share, one_of, shortened
from kseq.typing import Config

if TYPE_CHECKING:
    import tensorflow as tf

MODELS = ("unigram", "bpe")
PIECE_OPTIONS = ("model", "byte_fallback", "character_coverage")
SPACE, NUL = "\N{LOWER ONE EIGHTH BLOCK}", "\0"
NUL_PATTERN = r"\x00"
BORDER = "\N{LOWER FIVE EIGHTHS BLOCK}"  # the trainer skips lines with this character
UNLEARNED = re.compile(f"[{SPACE}{BORDER}]".encode())
MOST_TEXTS = 400_000  # to learn from; a random sample of more texts
LONGEST_LINE = 1000  # bytes
SPECIAL = {"pad": PADDING, "unk": UNKNOWN, "bos": START, "eos": END}
NAMES = {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"}
SAMPLING = threading.Lock()  # its random generator is shared by the process


class SentencePieces(Ids):
    """Ids of the pieces of a `sentencepiece` model.

    Args:
        proto: A serialized `sentencepiece` model with the special ids of kseq.
    """

    def __init__(self, proto: bytes) -> None:
        self.proto = proto
        self.model = parsed(proto)
        self.processor = sentencepiece().SentencePieceProcessor(model_proto=proto)
        spec = self.model.trainer_spec
        special = {name: getattr(spec, f"{name}_id") for name in SPECIAL}
        if special != SPECIAL:
            raise ValueError(
                f"A model that kseq saved must have the special ids {SPECIAL}. "
                f"Received: {special}."
            )
        super().__init__([piece.piece for piece in self.model.pieces][END + 1 :])
        pieces = self.model.pieces
        has_bytes = any(piece.type == piece.BYTE for piece in pieces)
        is_identity = self.model.normalizer_spec.name == "identity"
        self.is_exact = has_bytes and is_identity

    def options(self) -> Config:
        """Return the `Vocabulary` options with which the model was learned."""
        spec = self.model.trainer_spec
        kinds = type(spec).ModelType
        return {
            "model": kinds.Name(spec.model_type).lower(),
            "byte_fallback": spec.byte_fallback,
            "character_coverage": round(spec.character_coverage, 6),
        }

    @functools.cached_property
    def operation(self) -> Any:
        """The same model as a TensorFlow operation, for graphs.

        In an exported graph all operations of the same name share one model, also with
        those of other exports in the process. So the name is a digest of the model.
        """
        import tensorflow as tf

        name = f"sentencepiece_{hashlib.sha256(self.proto).hexdigest()}"
        with tf.init_scope():
            return tensorflow_text().SentencepieceTokenizer(self.proto, name=name)

    def resources(self) -> list[Any]:
        return [self.operation]

    def numbers(self, texts: "tf.Tensor") -> "tf.RaggedTensor":
        """Return ids `B (L)` of texts `(B,)`."""
        import tensorflow as tf

        if tf.executing_eagerly():
            rows = self.rows(texts.numpy().tolist())
            return tf.ragged.constant(rows, "int32", ragged_rank=1)
        if self.is_exact:
            texts = tf.strings.regex_replace(texts, SPACE, NUL)
        return self.operation.tokenize(texts)

    def rows(
        self,
        texts: list[bytes],
        start: bool = False,
        end: bool = False,
        **options: Any,
    ) -> list[list[int]]:
        """Return lists of ids for a list of texts in UTF-8."""
        if self.is_exact:
            texts = [text.replace(SPACE.encode(), NUL.encode()) for text in texts]
        return self.processor.encode(texts, add_bos=start, add_eos=end, **options)

    def sampled_rows(
        self,
        texts: list[bytes],
        start: bool,
        end: bool,
        alpha: float,
        seed: tuple[int, int],
    ) -> list[list[int]]:
        """Return lists of ids for texts in UTF-8, from one sampled split of each."""
        module = sentencepiece()
        [number] = np.random.SeedSequence(seed).generate_state(1) >> 1
        options = {"enable_sampling": True, "alpha": alpha, "nbest_size": -1}
        with SAMPLING:
            module.set_random_generator_seed(int(number))
            return self.rows(texts, start, end, num_threads=1, **options)

    def unknown(self, texts: "tf.Tensor") -> list[bytes]:
        """Return the parts of texts, in UTF-8, that have no id of their own."""
        texts = [text.replace(SPACE.encode(), b" ") for text in texts.numpy().tolist()]
        ids = self.processor.encode(texts)
        pieces = self.processor.encode(texts, out_type=bytes)
        return [
            piece
            for row, spelled in zip(ids, pieces, strict=True)
            for number, piece in zip(row, spelled, strict=True)
            if number == UNKNOWN
        ]

    def join(self, symbols: list[str]) -> str:
        """Return the text of symbols; bytes that are not UTF-8 become U+FFFD."""
        if not symbols:
            return ""
        text = self.processor.decode(symbols)
        return text.replace(NUL, SPACE) if self.is_exact else text

    def joined(self, ids: "tf.RaggedTensor") -> "tf.Tensor":
        """Return texts `(B,)` of ids `B (L)` in a graph, as `join` does."""
        import tensorflow as tf

        spec = self.model.normalizer_spec
        if spec.add_dummy_prefix and not spec.remove_extra_whitespaces:
            texts = self._joined_without_dummy_prefix(ids)
        else:
            texts = self.operation.detokenize(ids)
        if self.is_exact:
            texts = tf.strings.regex_replace(texts, NUL_PATTERN, SPACE)
        return texts

    def _joined_without_dummy_prefix(self, ids: "tf.RaggedTensor") -> "tf.Tensor":
        """Return texts without the space that was added before the first word.

        The operation contains an older `sentencepiece`, which removes all leading
        spaces instead of one. So a guard token is put before the text, and then removed
        together with one space.
        """
        import tensorflow as tf

        guard = tf.fill([ids.nrows(), 1], UNKNOWN)
        texts = self.operation.detokenize(tf.concat([guard, ids], axis=1))
        has_space = [symbol.startswith(SPACE) for symbol in self.symbols]
        first = ids.to_tensor(PADDING, shape=(None, 1))[:, 0]
        skipped = len(REPLACEMENT.encode()) + tf.cast(
            tf.gather(has_space, first), "int32"
        )
        return tf.strings.substr(texts, skipped, tf.strings.length(texts) - skipped)


def checked_piece_options(split: str | None, *options: Any) -> tuple[str, bool, float]:
    """Return checked options in the order of `PIECE_OPTIONS`.

    Args:
        split: The split of the vocabulary.
        *options: The options in the same order; None for the default of each.

    Raises:
        ValueError: An option is given with another split, or has an invalid value.
    """
    given = dict(zip(PIECE_OPTIONS, options, strict=True))
    given = {name: value for name, value in given.items() if value is not None}
    if given and split != "sentence_piece":
        name, value = next(iter(given.items()))
        raise ValueError(
            f'`{name}` is only for split="sentence_piece". Received: {name}='
            f"{value!r} with split={split!r}. Leave it out."
        )
    covered = given.get("character_coverage", 0.9995)
    return (
        one_of("model", given.get("model", "unigram"), MODELS),
        one_of("byte_fallback", given.get("byte_fallback", True), (True, False)),
        checked_share("character_coverage", covered, 0.98),
    )


def learn_sentence_pieces(
    texts: Iterable[bytes],
    size: int,
    model: str,
    byte_fallback: bool,
    character_coverage: float,
) -> SentencePieces:
    """Learn pieces from an iterator of texts in UTF-8.

    Returns:
        `SentencePieces`.

    Raises:
        ValueError: No text has a symbol, or `size` is too small for the letters.
    """
    module, writer = sentencepiece(), io.BytesIO()
    failed: list[Exception] = []

    def lines():
        try:
            for text in texts:
                for part in filter(None, UNLEARNED.split(text)):
                    yield from short_lines(part)
        except Exception as error:  # the trainer would replace it with its own
            failed.append(error)

    try:
        module.SentencePieceTrainer.train(
            sentence_iterator=lines(),
            model_writer=writer,
            vocab_size=size,
            hard_vocab_limit=False,  # fewer if the texts do not have enough
            model_type=model,
            byte_fallback=byte_fallback,
            character_coverage=character_coverage,
            input_sentence_size=MOST_TEXTS,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            unk_surface=REPLACEMENT,
            minloglevel=3,
            **{f"{name}_id": number for name, number in SPECIAL.items()},
        )
    except RuntimeError as error:
        if failed:
            raise failed[0] from None
        if "sentences_.empty()" in str(error):
            raise ValueError(
                "`texts` must hold a symbol. Received: none, or only U+2581 and "
                "U+2585, which sentencepiece reserves."
            ) from None
        too_few = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        if not too_few:
            raise
        raise ValueError(
            f"`max_tokens` must be at least {too_few[1]} for these texts, for the "
            "special tokens, the letters, and with byte_fallback=True 256 bytes. "
            f"Received: max_tokens={size}. 8000 suits many languages; a smaller "
            "`character_coverage` leaves rare letters out."
        ) from None
    if failed:
        raise failed[0]
    return SentencePieces(writer.getvalue())


def short_lines(text: bytes) -> Iterator[bytes]:
    """Split a text in UTF-8 into short lines, at spaces if possible.

    The trainer is slow for long lines with many repetitions.
    """
    first = 0
    while len(text) - first > LONGEST_LINE:
        last = text.rfind(b" ", first + 1, first + LONGEST_LINE)
        is_space = last > 0
        if not is_space:
            last = first + LONGEST_LINE
            while text[last] & 0xC0 == 0x80:  # inside a character
                last -= 1
        yield text[first:last]
        first = last + is_space
    yield text[first:]


def parsed(proto: bytes, name: str = "The model") -> Any:
    """Return a `sentencepiece` model as a protobuf message; raise if it is invalid."""
    sentencepiece()
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2 as messages

    try:
        model = messages.ModelProto.FromString(proto)  # type: ignore[attr-defined]
    except DecodeError:
        model = None
    if model is None or not model.pieces:
        raise ValueError(
            f"{name} must be one of `sentencepiece`. Received: {shortened(proto)}, "
            "which is damaged or of another kind."
        )
    return model


def with_special_ids(proto: bytes, name: str) -> bytes:
    """Return a model in which the special tokens of kseq come first, in their order.

    Other pieces and all scores are unchanged, so texts are split as before.
    """
    model, pieces = parsed(proto, name), list(parsed(proto, name).pieces)
    names = {piece.piece for piece in pieces}
    first: list[Any] = []
    for role, number in SPECIAL.items():
        old = getattr(model.trainer_spec, f"{role}_id")
        if 0 <= old < len(pieces) and pieces[old] not in first:
            piece = pieces[old]
        else:
            piece = type(pieces[0])(piece=NAMES[role], type=pieces[0].CONTROL)
            while piece.piece in names:
                piece.piece = f"<{piece.piece}>"
        first.append(piece)
        setattr(model.trainer_spec, f"{role}_id", number)
        setattr(model.trainer_spec, f"{role}_piece", piece.piece)
    rest = [piece for piece in pieces if piece not in first]
    del model.pieces[:]
    model.pieces.extend(first + rest)
    model.trainer_spec.unk_surface = REPLACEMENT
    return model.SerializeToString()


def sentencepiece() -> ModuleType:
    """Return the package `sentencepiece`; raise if it is not installed."""
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError(
            "This vocabulary needs sentencepiece. Install it with "
            "`pip install kseq[pieces]`."
        ) from error
    return sentencepiece
