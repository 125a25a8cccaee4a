"""Models that write sequences: `generate` and the like on top of any Keras model.

Axes in shape comments: B batch, N hypotheses, K beams, T target steps, S source steps,
V vocabulary.
"""

import functools

import keras
import numpy as np
from keras import ops

from kseq.builders.batching import (
    all_rows,
    as_batch,
    check_ends,
    check_ids,
    check_lengths,
    check_pairs,
    check_rank,
    check_room,
    in_batches,
    rounded_up,
    source_lengths,
    token_rows,
)
from kseq.builders.exporting import check_export, export, input_shapes
from kseq.builders.loops import Cache, GenerateLoop, ScoreLoop
from kseq.builders.searches import as_search, refuse_options
from kseq.builders.step_labels import StepLabels
from kseq.builders.streaming import StreamStart, StreamStep, stream
from kseq.builders.token_inputs import TokenInputs
from kseq.decoding import Generation
from kseq.decoding.loop import check_max_length
from kseq.layers.validation import one_of


class GenerativeModel(TokenInputs, StepLabels, keras.Model):
    """A model that writes token ids, the base of those that the builders return.

    A subclass sets `start_token_id`, `end_token_id`, `pad_token_id` and, where the
    source is no padded rows of token ids, `source_padding`; where their ids are to be
    checked, `source_size` and `target_size`, how many there are; where they cannot be
    of any length, `source_length` and `target_length`, the most steps; and it says how
    it starts, steps and reads:

    - `start(source, num_beams, max_length) -> (state, constants)`; it may take
      `with_coverage=True`, and then adds up its attention in the state, as a coverage
      penalty of `BeamSearch` needs it
    - `step(token_ids (B, K), state, constants) -> (logits (B, K, V), state)`
    - `read(source, target (B, T), return_attention_scores) -> logits (B, T, V)`, or
      `(logits, weights (B, ..., T, S))`
    """

    source_size = target_size = source_length = target_length = None

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
        constraints=(),
        **options,
    ):
        """Writes the target of each source.

        Args:
            source: Token ids `(B, S)`, padded, or a list of lists of different
                lengths; for other embeddings what they take, with the axis B in front.
                For a model without a source the number of sequences to write. Or
                batches of any of these, as a `tf.data.Dataset`, a
                `keras.utils.PyDataset` or a generator, also those of training, of
                which the sources are read. A source without a step, `[]` or all
                padding, is a source like any other: its memory is empty.
            search: A search object of `kseq.decoding`. Defaults to `GreedySearch()`.
            max_length: Most tokens to write, the end token counted. Or a function of
                the number of steps of a source, padding not counted, that gives this
                number, such as `kseq.decoding.RelativeLength(1.5, 10)`.
            batch_size: Most rows to work on at a time. Rows of like length are put
                together, and what they gave is put back in their order.
            return_attention_scores: Whether to read every hypothesis once more and
                return what it attended to.
            prefix: What the target of each source must begin with: token ids without
                the start token, `(B, P)`, padded behind, or a list of lists.
            jit_compile: Whether the loop is compiled by XLA. On TensorFlow that takes
                5 to 10 seconds for each search, `max_length` and shape of a batch, and
                pays where a Transformer writes many batches. None for what Keras does:
                always on JAX, on TensorFlow with a GPU.
            constraints: Constraints on what may be written, behind those of the search.
            **options: None. An option of a search is refused with the search to take.

        Returns:
            A `kseq.decoding.Generation` of NumPy arrays, every hypothesis, best first.

        Raises:
            ValueError: There is no source, or one holds an id that is none of the
                vocabulary, a number is not a positive integer, source and prefix have
                different numbers of rows, or a prefix goes on behind an end token or
                padding or is longer than `max_length`.
        """
        refuse_options(options)
        source = all_rows(source)
        search, rows, compiled = self._prepare(
            source, search, max_length, prefix, jit_compile, constraints
        )
        loop = functools.partial(compiled, GenerateLoop)
        outputs = in_batches(loop, rows, batch_size, self._paddings)
        if callable(max_length):
            written = max(outputs["lengths"].max(), 1)
            for name in ("token_ids", "token_log_probs"):
                outputs[name] = outputs[name][..., :written]
        result = Generation(**outputs)
        if not return_attention_scores:
            return result
        _, attention = self._score(source, result.token_ids, batch_size, True)
        return Generation(**{**outputs, "attention": attention})

    def generate_stream(
        self,
        source,
        search=None,
        max_length=40,
        prefix=None,
        jit_compile=None,
        constraints=(),
    ):
        """Writes the target of each source, and gives every token as it comes.

        What comes is what `generate` returns, token by token, the prefix first.

        Args:
            source: As for `generate`. All rows are worked on at a time.
            search: A search that takes no token back: `GreedySearch()`, the default, or
                `Sampling()` with one draw for each row.
            max_length: As for `generate`.
            prefix: As for `generate`.
            jit_compile: As for `generate`.
            constraints: As for `generate`.

        Returns:
            An iterator of integers `(B,)`, the next token of each row, padding where a
            row has ended. It ends when all rows have. A row to which constraints leave
            nothing, of which `generate` returns nothing, ends where it stands.

        Raises:
            ValueError: The search is one that takes tokens back, such as `BeamSearch`,
                or an argument is wrong, as for `generate`.

        Example:

        >>> import kseq, numpy as np
        >>> model = kseq.encoder_decoder(source=11, target=13, width=8)
        >>> source = [[4, 5, 6], [7]]
        >>> stream = model.generate_stream(source, max_length=5)
        >>> token_ids = np.stack(list(stream), axis=-1)  # B T
        >>> whole = model.generate(source, max_length=5).token_ids[:, 0]
        >>> bool((token_ids == whole[:, : token_ids.shape[1]]).all())
        True
        """
        search, rows, compiled = self._prepare(
            all_rows(source), search, max_length, prefix, jit_compile, constraints
        )
        if not search.can_stream:
            raise ValueError(
                "A stream needs a search that takes no token back: `GreedySearch()`, or"
                f" `Sampling()` with one draw for each row. Received: search={search}. "
                "`generate` returns its hypotheses when all have ended."
            )
        start, step = (compiled(kind, rows) for kind in (StreamStart, StreamStep))
        count = len(rows["source"])
        longest = 1 << (count - 1).bit_length()
        batch = as_batch(rows, longest, self._paddings, start.jit_compile)
        return stream(start, step, batch, count)

    def _prepare(self, source, search, max_length, prefix, jit_compile, constraints):
        """What a search needs.

        Returns:
            The search, the rows of the inputs by name, and a function of a kind of
            loop and a batch of rows that returns the compiled loop.
        """
        if not callable(max_length):
            check_max_length(max_length)
        if jit_compile is not None:
            one_of("jit_compile", jit_compile, (True, False))
        search = as_search(search, constraints)
        rows = {"source": self.source_rows(source)}
        if callable(max_length):
            rows["max_lengths"] = self._max_lengths(rows["source"], max_length)
        seeds = search.row_seeds(len(rows["source"]))
        if seeds is not None:  # for any batch in which a row will be
            rows["row_seeds"] = ops.convert_to_numpy(seeds)
        if prefix is not None:
            prefix = token_rows("prefix", prefix)
            rows["prefix"] = check_ids("prefix", prefix, self.target_size)
            check_ends("prefix", prefix, self.end_token_id, self.pad_token_id)
            check_pairs({name: rows[name] for name in ("source", "prefix")})
            limits = rows.get("max_lengths", [max_length] * len(prefix))
            check_room(prefix, limits, self.pad_token_id)

        def compiled(kind, batch):
            length = max_length
            if callable(max_length):
                length = self._buffer_length(max(batch["max_lengths"]))
            return self._compiled(kind, search, length, jit_compile)

        return search, rows, compiled

    @property
    def _paddings(self):
        """What fills up the rows of inputs and outputs; None for single numbers."""
        pad = self.pad_token_id
        ids = {"prefix": pad, "target": pad, "token_ids": pad}
        numbers = {"row_seeds": None, "max_lengths": None}
        return {"source": self.source_padding, **ids, **numbers}

    def _max_lengths(self, source, max_length):
        """The most tokens for each source, by its length: integers `(B,)`."""
        lengths = [max_length(n) for n in self.source_lengths(source)]
        for length in lengths:
            check_max_length(length)
        return np.array(lengths, "int32")

    def _buffer_length(self, longest):
        """Room for the longest target of a batch, one of few lengths."""
        length = rounded_up(int(longest), to_power_of_two=True)
        most = self.target_length
        return length if most is None else max(min(length, most), int(longest))

    def source_lengths(self, rows):
        """The number of steps of each source, padding not counted."""
        padding = self.source_padding
        if padding is None:
            symbol = self.input["source"]
            if len(symbol.shape) != 3:
                raise ValueError(
                    "`max_length` can be relative to sources that have a length. "
                    f"Received: max_length as a function, with sources {symbol.shape}. "
                    "Give it as a number."
                )
            return [len(row) for row in rows]
        return source_lengths(rows, padding)

    def export_generation(
        self,
        path,
        search=None,
        max_length=40,
        format="tf_saved_model",
        source_shape=None,
        prefix_shape=None,
    ):
        """Writes the whole of `generate`, the loop too, to a file that needs no kseq.

        What the file computes is what `generate` returns, on sources that are padded to
        one length: the fields of `kseq.decoding.Generation`, but attention, by name. It
        is called with "source"; with "prefix" besides if it has a shape, or alone where
        the model has no source; and with "seed", `(1,)`, for a `Sampling` without one.

        Args:
            path: For a SavedModel a folder; else a file that ends with ".onnx" or
                ".tflite".
            search: As for `generate`. `Sampling` goes into a SavedModel alone.
            max_length: Most tokens to write, the end token counted.
            format: "tf_saved_model", run by TensorFlow; "onnx", which needs
                `pip install kseq[export]`, run by ONNX Runtime; or "litert".
            source_shape: Shape of the source, with None for any size, which is the
                default. "litert" needs every size.
            prefix_shape: Shape `(B, P)` of a prefix, or None for a model that has a
                source and takes no prefix.

        Raises:
            ImportError: What converts to the format is not installed.
            ValueError: The backend is not TensorFlow, the search or the shapes do not
                go with the format, or an argument is wrong.

        Example:

        >>> import os, tempfile
        >>> import keras, kseq
        >>> model = kseq.encoder_decoder(source=11, target=13, width=8)
        >>> path = os.path.join(tempfile.mkdtemp(), "writer")
        >>> if keras.backend.backend() == "tensorflow":
        ...     model.export_generation(path, max_length=5)
        ...     import tensorflow as tf  # what follows needs no kseq
        ...     writer = tf.saved_model.load(path)
        ...     outputs = writer.serve({"source": tf.constant([[4, 5, 6], [7, 0, 0]])})
        ...     assert outputs["token_ids"].shape == (2, 1, 5)
        """
        search = as_search(search)
        check_max_length(max_length)
        check_export(path, format, search)
        shapes = input_shapes(self, search, source_shape, prefix_shape)
        loop = self._compiled(GenerateLoop, search, max_length, None)
        export(loop, path, format, shapes)

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
            ValueError: Source and target have different numbers of rows, an id is none
                of the vocabulary, or a token stands behind the end token or padding.
        """
        if not isinstance(target, Generation):
            return self._score(source, target, batch_size, False)[0]
        log_probs, _ = self._score(source, target.token_ids, batch_size, False)
        return np.where(target.lengths > 0, log_probs, -np.inf)  # those that exist

    def _score(self, source, target, batch_size, return_attention_scores):
        target = token_rows("target", target)
        source = self.source_rows(all_rows(source), len(target))
        check_pairs({"source": source, "target": target})
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
        check_rank("target", target, (None, None))
        check_ids("target", target, self.target_size)
        check_ends("target", target, self.end_token_id, self.pad_token_id)
        lengths = source_lengths(target, self.pad_token_id)
        check_lengths("target", lengths, self.target_length)
        loop = self._compiled(ScoreLoop, return_attention_scores)
        rows = {"source": source, "target": target}
        outputs = in_batches(lambda _: loop, rows, batch_size, self._paddings)
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
            rows = token_rows("source", source)
            check_rank("source", rows, self.input["source"].shape)
            if self.source_length is not None:
                lengths = self.source_lengths(rows)
                check_lengths("source", lengths, self.source_length)
            return check_ids("source", rows, self.source_size)
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
        if len(symbol.shape) == 3:
            check_lengths("source", [source.shape[1]], self.source_length)
        check_ids("source", source, self.source_size)
        return np.asarray(source, symbol.dtype)

    def make_train_function(self, force=False):
        # TensorFlow traces a step again that has made variables, Adam's for example.
        if self.built and self.optimizer and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def _compiled(self, kind, *options):
        """The Keras model that runs a loop, kept so that it is compiled only once."""
        cache = self.__dict__.setdefault("_compiled_loops", Cache())
        return cache.get(self, kind, options)
