"""Models that write sequences: `generate` and `score` on top of any Keras model.

Axes in shape comments: B batch, N hypotheses, K beams, T target steps, S source steps,
V vocabulary.
"""

import keras
import numpy as np
from keras import ops

from kseq.decoding import Generation, GreedySearch
from kseq.decoding.loop import check_max_length
from kseq.layers.arguments import one_of, positive_integer

LENGTH_MULTIPLE = 8


class WritingModel(keras.Model):
    """A model that writes token ids, the base of those that the builders return.

    A subclass sets `start_token_id`, `end_token_id`, `pad_token_id` and, where the
    source is no padded rows of token ids, `source_padding`; where their ids are to be
    checked, `source_size` and `target_size`, how many there are; and it says how it
    starts, steps and reads:

    - `start(source, num_beams, max_length) -> (state, constants)`
    - `step(token_ids (B, K), state, constants) -> (logits (B, K, V), state)`
    - `read(source, target (B, T), return_attention_scores) -> logits (B, T, V)`, or
      `(logits, weights (B, ..., T, S))`
    """

    source_size = target_size = None

    @property
    def source_padding(self):
        """What fills up short sources; None where all must have the same shape."""
        return self.pad_token_id

    def generate(
        self,
        source,
        search=None,
        max_length=40,
        batch_size=128,
        return_attention_scores=False,
        prefix=None,
        jit_compile=None,
    ):
        """Writes the target of each source.

        Args:
            source: Token ids `(B, S)`, padded, or a list of lists of different
                lengths; for other embeddings what they take, with the axis B in front.
                For a model without a source the number of sequences to write.
            search: A search object of `kseq.decoding`. Defaults to `GreedySearch()`.
            max_length: Most tokens to write, the end token counted.
            batch_size: Most rows to work on at a time.
            return_attention_scores: Whether to read every hypothesis once more and
                return what it attended to.
            prefix: What the target of each source must begin with: token ids without
                the start token, `(B, P)`, padded behind, or a list of lists.
            jit_compile: Whether the loop is compiled by XLA. On TensorFlow that takes
                5 to 10 seconds for each search, `max_length` and shape of a batch, and
                pays where a Transformer writes many batches. None for what Keras does:
                always on JAX, on TensorFlow with a GPU.

        Returns:
            A `kseq.decoding.Generation` of NumPy arrays, every hypothesis, best first.

        Raises:
            ValueError: The source is empty, or holds an id that is none of the
                vocabulary, a number is not a positive integer, or source and prefix
                have different numbers of rows.
        """
        check_max_length(max_length)
        if jit_compile is not None:
            one_of("jit_compile", jit_compile, (True, False))
        search = GreedySearch() if search is None else search
        if isinstance(search, type) or not hasattr(search, "num_beams"):
            raise ValueError(
                "`search` must be a search object, such as `kseq.decoding.BeamSearch("
                f"num_beams=5)`, or None. Received: search={search!r}."
            )
        loop = self._compiled(_Writing, search, max_length, jit_compile)
        rows = {"source": self.source_rows(source)}
        if hasattr(search, "row_seeds"):  # for any batch in which a row will be
            seeds = search.row_seeds(len(rows["source"]))
            rows["row_seeds"] = ops.convert_to_numpy(seeds)
        if prefix is not None:
            prefix = _rows("prefix", prefix)
            rows["prefix"] = _check_ids("prefix", prefix, self.target_size)
            _check_pairs({name: rows[name] for name in ("source", "prefix")})
        outputs = _in_batches(loop, rows, batch_size)
        result = Generation(**outputs)
        if not return_attention_scores:
            return result
        _, attention = self._score(source, result.token_ids, batch_size, True)
        return Generation(**{**outputs, "attention": attention})

    def score(self, source, target, batch_size=128):
        """The log-probability that the model gives to each target.

        Args:
            source: As for `generate`.
            target: Token ids without the start token, up to and including the end
                token: `(B, T)`, padded, or a list of lists; or N hypotheses for each
                source, `(B, N, T)`, padded, or as lists, or a `Generation`.
            batch_size: Most rows to work on at a time.

        Returns:
            NumPy array `(B,)`, or `(B, N)`, of natural logarithms.

        Raises:
            ValueError: Source and target have different numbers of rows, or an id is
                none of the vocabulary.
        """
        if not isinstance(target, Generation):
            return self._score(source, target, batch_size, False)[0]
        log_probs, _ = self._score(source, target.token_ids, batch_size, False)
        return np.where(target.lengths > 0, log_probs, -np.inf)  # those that exist

    def _score(self, source, target, batch_size, return_attention_scores):
        source = self.source_rows(source, len(target))
        target = _rows("target", target)
        _check_pairs({"source": source, "target": target})
        hypotheses = None
        if any(len(row) and np.ndim(row[0]) for row in target):
            hypotheses = len(target), len(target[0])  # B N
            if any(len(row) != hypotheses[1] for row in target):
                raise ValueError(
                    "Every source needs the same number of hypotheses. Received: "
                    f"targets of {[len(row) for row in target]} hypotheses."
                )
            target = [hypothesis for row in target for hypothesis in row]  # BN T
            source = [row for row in source for _ in range(hypotheses[1])]
        _check_ids("target", target, self.target_size)
        reading = self._compiled(_Reading, return_attention_scores)
        outputs = _in_batches(reading, {"source": source, "target": target}, batch_size)
        if return_attention_scores:
            steps = max(len(row) for row in target)
            attention = outputs["attention"][..., :steps, :]  # BN ... T S
            if self.source_padding is not None:
                attention = attention[..., : max(len(row) for row in source)]
            outputs["attention"] = attention
        if hypotheses is not None:
            outputs = {
                name: value.reshape(*hypotheses, *value.shape[1:])
                for name, value in outputs.items()
            }
        return outputs["log_probs"], outputs.get("attention")

    def source_rows(self, source, num_rows=None):
        """The source as something with a length, and a row for each of its items."""
        if self.source_padding is not None:
            return _check_ids("source", _rows("source", source), self.source_size)
        symbol = self.input["source"]
        try:
            source = ops.convert_to_numpy(source)
        except ValueError:
            source = np.empty((len(source), 0))  # rows of different shapes
        if source.ndim != len(symbol.shape) or not len(source):
            raise ValueError(
                "`source` must have at least one row, shape (B, ...) = "
                f"{symbol.shape}, all of one shape. Received: source of shape "
                f"{source.shape}. A `FeatureEmbedding` with a `mask_value` takes rows "
                "of different lengths."
            )
        _check_ids("source", source, self.source_size)
        return np.asarray(source, symbol.dtype)

    def _compiled(self, kind, *options):
        """The Keras model that runs a loop, kept so that it is compiled only once."""
        cache = self.__dict__.setdefault("_compiled_loops", _Cache())
        if (kind, options) not in cache.models:
            cache.models[kind, options] = kind(self, *options)
        return cache.models[kind, options]


class _Cache:
    """Hides compiled loops from Keras, which would save them with the model."""

    def __init__(self):
        self.models = {}


class _Writing(keras.Model):
    """A search over a writing model, as a Keras model, so that Keras compiles it."""

    def __init__(self, writer, search, max_length, jit_compile):
        super().__init__(name="writing")
        self.writer, self.search, self.max_length = writer, search, max_length
        if jit_compile is not None:
            self.jit_compile = jit_compile
        self.built = True

    def call(self, inputs):
        source, writer = inputs["source"], self.writer
        state, constants = writer.start(source, self.search.num_beams, self.max_length)
        start_token_ids = ops.full((ops.shape(source)[0],), writer.start_token_id)
        result = self.search(
            writer.step,
            state,
            constants,
            ops.cast(start_token_ids, "int32"),
            end_token_id=writer.end_token_id,
            max_length=self.max_length,
            pad_token_id=writer.pad_token_id,
            **{name: value for name, value in inputs.items() if name != "source"},
        )
        return {k: v for k, v in vars(result).items() if v is not None}


class _Reading(keras.Model):
    """The log-probabilities of given targets, as a Keras model."""

    def __init__(self, writer, return_attention_scores):
        super().__init__(name="reading")
        self.writer, self.with_scores = writer, return_attention_scores
        self.built = True

    def call(self, inputs):
        source, target = inputs["source"], inputs["target"]
        start = ops.full_like(target[:, :1], self.writer.start_token_id)
        shifted = ops.concatenate([start, target[:, :-1]], axis=1)  # B T
        outputs = self.writer.read(source, shifted, self.with_scores)
        logits = outputs[0] if self.with_scores else outputs
        log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)  # B T V
        log_probs = ops.take_along_axis(log_probs, target[..., None], axis=-1)[..., 0]
        is_real = ops.cast(target != self.writer.pad_token_id, "float32")  # B T
        result = {"log_probs": ops.sum(log_probs * is_real, axis=-1)}
        if self.with_scores:
            attention = outputs[1]  # B ... T S
            axes = list(range(1, len(attention.shape) - 2))
            result["attention"] = attention * ops.expand_dims(is_real[..., None], axes)
        return result


def _rows(name, ids):
    """Rows of token ids: an array as it is, or a list of lists."""
    if hasattr(ids, "shape"):
        ids = ops.convert_to_numpy(ids)
    if (
        not hasattr(ids, "__len__")
        or len(ids) == 0
        or not hasattr(ids[0], "__len__")
        or isinstance(ids[0], str)
    ):
        raise ValueError(
            f"`{name}` must hold at least one row of token ids: shape (B, T), or a "
            f"list of lists. Received: {name}={ids!r}."
        )
    return ids


def _check_ids(name, rows, size):
    """Returns the rows if all are ids below the size, which a backend may not check."""
    if size is None:
        return rows
    filled = [row for row in map(np.ravel, rows) if row.size]
    ids = np.concatenate(filled) if filled else np.zeros(0, "int32")
    is_id = (ids >= 0) & (ids < size) if ids.dtype.kind in "iu" else np.zeros(len(ids))
    if not is_id.all():
        raise ValueError(
            f"`{name}` must hold integers from 0 to {size - 1}, the ids that the model "
            f"knows. Received: {name} with {ids[is_id == 0][0]}. Encode it with the "
            "vocabulary that the model was made for."
        )
    return rows


def _check_pairs(rows):
    """Refuses a target, or a prefix, for other than every source."""
    (first, firsts), (second, seconds) = rows.items()
    if len(firsts) != len(seconds):
        raise ValueError(
            f"Every {first} needs its {second}. Received: {len(firsts)} rows of "
            f"{first} and {len(seconds)} of {second}."
        )


def _in_batches(model, inputs, batch_size):
    """Runs the model over rows of similar lengths, in few different shapes.

    The first input decides the order. Lengths are rounded up, to a multiple of
    `LENGTH_MULTIPLE`, or to a power of two where XLA takes seconds for each; and so is
    the number of rows, by repeating the last row. A compiled model meets few shapes.
    """
    positive_integer("batch_size", batch_size)
    padding = model.writer.pad_token_id
    paddings = {"source": model.writer.source_padding, "row_seeds": None}
    first = next(iter(inputs.values()))
    lengths = [len(row) if np.ndim(row) else 0 for row in first]
    order = np.argsort(lengths, kind="stable")
    results = []
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        num_rows = min(1 << (len(chosen) - 1).bit_length(), batch_size)
        repeated = np.pad(chosen, (0, num_rows - len(chosen)), mode="edge")
        batch = {
            name: _pad(
                [rows[i] for i in repeated],
                paddings.get(name, padding),
                model.jit_compile,
            )
            for name, rows in inputs.items()
        }
        outputs = model.predict_on_batch(batch)
        results.append({k: v[: len(chosen)] for k, v in outputs.items()})
    restored = np.argsort(order, kind="stable")
    return {
        name: _concatenate([result[name] for result in results])[restored]
        for name in results[0]
    }


def _pad(rows, padding, to_power_of_two):
    """Rows of different lengths as one array, filled up behind."""
    if padding is None:
        return np.stack(rows)
    length = max(max(len(row) for row in rows), 1)
    length = -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    if to_power_of_two:
        length = 1 << (length - 1).bit_length()
    features = max((np.shape(row)[1:] for row in rows), key=len)
    padded = np.full(
        (len(rows), length, *features), padding, "float32" if features else "int32"
    )
    for target, row in zip(padded, rows, strict=True):
        if len(row):
            target[: len(row)] = row
    return padded


def _concatenate(arrays):
    """Joins arrays of batches, which may differ in length, along the first axis."""
    shape = np.max([array.shape[1:] for array in arrays], axis=0)
    return np.concatenate(
        [
            np.pad(
                array,
                [(0, 0)]
                + [
                    (0, size - own)
                    for size, own in zip(shape, array.shape[1:], strict=True)
                ],
            )
            for array in arrays
        ]
    )
