"""Models that write sequences: `generate` and the like on top of any Keras model.

What `generate` is given goes this way: a `GenerateRequest` (`requests.py`) checks it
and cuts it into batches; a `GenerateLoop` (`generate_loop.py`), which Keras compiles,
starts the model for a batch and hands its `step` to the search
(`kseq/decoding/search.py`); the search calls `step` for each token
(`kseq/decoding/loop.py`), and `EncoderDecoder.step` calls the `step` of its decoder.

Axes in shape comments: B batch, N hypotheses, K beams, T target steps, S source steps,
V vocabulary.
"""

import keras
import numpy as np

from kseq.builders.exporting import (
    Exported,
    check_export,
    export,
    input_specs,
    refuse_arguments,
)
from kseq.builders.generate_loop import GenerateLoop, ScoreLoop, kept, run
from kseq.builders.requests import GenerateRequest, ScoreRequest
from kseq.builders.searches import as_search, refuse_options
from kseq.builders.streaming import StreamStart, StreamStep, stream
from kseq.builders.token_inputs import TokenInputs
from kseq.decoding import Generation
from kseq.decoding.loop import check_max_length
from kseq.layers.saving import WholeFiles
from kseq.layers.step_labels import StepLabels


class GenerativeModel(TokenInputs, StepLabels, WholeFiles, keras.Model):
    """A model that writes token ids, the base of those that the builders return.

    A subclass sets `start_token_id`, `end_token_id`, `pad_token_id` and, where the
    source is no padded rows of token ids, `source_padding`; where their ids are to be
    checked, `source_size` and `target_size`, how many there are; where they cannot be
    of any length, `source_length` and `target_length`, the most steps; and it says how
    it starts, steps and reads:

    - `start(source, num_beams, max_length) -> (state, constants)`; it may take
      `with_coverage=True`, and then adds up its attention in the state, as a coverage
      penalty of `BeamSearch` needs it; and where it says `can_be_guided`, it takes
      `without_source=True` and then starts as if there were none
    - `step(token_ids (B, K), state, constants) -> (logits (B, K, V), state)`
    - `read(source, target (B, T), return_attention_scores) -> logits (B, T, V)`, or
      `(logits, weights (B, ..., T, S))`
    """

    source_size = target_size = source_length = target_length = None
    can_be_guided = False

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
                padding, is a source like any other: its memory is empty. Of several
                sources a dictionary by name, `{"lemma": rows, "tags": rows}`.
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
                always on JAX, on TensorFlow with a GPU. PyTorch compiles nothing, but
                after some steps records one, and replays it without Keras between.
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
        request = GenerateRequest(
            self, source, search, max_length, prefix, jit_compile, constraints
        )
        results = []
        for batch in request.batches(batch_size):
            loop = self._search_loop(GenerateLoop, request, batch)
            results.append(run(loop, batch))
        outputs = request.outputs(results)
        if return_attention_scores:
            read = self._score(request.source, outputs["token_ids"], batch_size, True)
            outputs["attention"] = read["attention"]
        return Generation(**outputs)

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
        request = GenerateRequest(
            self, source, search, max_length, prefix, jit_compile, constraints
        )
        if not request.search.can_stream:
            raise ValueError(
                "A stream needs a search that takes no token back: `GreedySearch()`, or"
                " `Sampling()` with one draw for each row. Received: search="
                f"{request.search}. `generate` returns its hypotheses when all have "
                "ended."
            )
        batch = request.whole()
        start = self._search_loop(StreamStart, request, batch)
        step = self._search_loop(StreamStep, request, batch)
        return stream(start, step, batch.arrays(start.jit_compile), len(batch))

    def export_generation(
        self,
        path,
        search=None,
        max_length=40,
        format="tf_saved_model",
        source_shape=None,
        prefix_shape=None,
        quantization=None,
        vocabularies=None,
    ):
        """Writes the whole of `generate`, the loop too, to a file that needs no kseq.

        What the file computes is what `generate` returns, on sources that are padded to
        one length: the fields of `kseq.decoding.Generation`, but attention, by name. It
        is called with "source"; with "prefix" besides if it has a shape, or alone where
        the model has no source; and with "seed", `(1,)`, for a `Sampling` without one.

        "ctranslate2" writes a folder for [CTranslate2](https://opennmt.net/CTranslate2),
        an engine for Transformers on CPUs and GPUs. Tokens are texts there, the numbers
        of the ids unless `vocabularies` says other ones. A source has no padding, and
        for one without a token nothing is written. The search stands beside the model,
        in `generation.json`: the arguments of `translate_batch`, or for a model without
        a source of `generate_batch`, which reads the start token and a prefix, and
        counts neither into the length. With these it writes what `generate` writes; a
        score is `log_prob / length ** length_penalty`. Padding, which no model learns
        to write, has no probability. With a length penalty a beam search goes on to
        `max_length` there, to be sure of the best, unless it has `early_stopping=True`.

        Args:
            path: For a SavedModel and CTranslate2 a folder; else a file that ends with
                ".onnx" or ".tflite".
            search: As for `generate`. `Sampling` goes into a SavedModel alone.
            max_length: Most tokens to write, the end token counted.
            format: "tf_saved_model", run by TensorFlow; "onnx", which needs
                `pip install kseq[export]`, run by ONNX Runtime; "litert"; or, for
                Transformers and any backend, "ctranslate2", which needs
                `pip install kseq[export]` too.
            source_shape: Shape of the source, of several sources by name, with None for
                any size, which is the default. "litert" needs every size. "ctranslate2"
                takes sources of up to 1,024 steps, or as long as is said here.
            prefix_shape: Shape `(B, P)` of a prefix, or None for a model that has a
                source and takes no prefix. "ctranslate2" takes one without it.
            quantization: How "ctranslate2" keeps weights: "int8" and "int16", of which
                the products are quantized too, "float16", "bfloat16", "int8_float16" or
                "int8_bfloat16", which need `pip install kseq[torch]` to be written;
                float32 by default.
            vocabularies: The text of each token for "ctranslate2": a dictionary of
                lists, "target" and, where there is one, "source".

        Raises:
            ImportError: What converts to the format is not installed.
            ValueError: The backend is not TensorFlow, the model, the search or the
                shapes do not go with the format, or an argument is wrong.

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

        CTranslate2 takes Transformers, of any backend:

        >>> import importlib.util, json, pathlib
        >>> parts = "transformer", "transformer"
        >>> model = kseq.encoder_decoder(11, 13, *parts, width=8)
        >>> path = os.path.join(tempfile.mkdtemp(), "translator")
        >>> if importlib.util.find_spec("ctranslate2"):
        ...     model.export_generation(path, max_length=5, format="ctranslate2")
        ...     import ctranslate2  # what follows needs no kseq
        ...     options = json.loads(pathlib.Path(path, "generation.json").read_text())
        ...     translator = ctranslate2.Translator(path)
        ...     tokens = [["4", "5", "6"], ["7"]]
        ...     results = translator.translate_batch(tokens, **options)
        ...     written = model.generate([[4, 5, 6], [7]], max_length=5).token_ids[0, 0]
        ...     hypothesis = [int(token) for token in results[0].hypotheses[0]]
        ...     assert hypothesis == written[: len(hypothesis)].tolist()
        """
        search = as_search(search)
        check_max_length(max_length)
        if format == "ctranslate2":
            refuse_arguments(format, prefix_shape=prefix_shape)
            from kseq.builders.ctranslate2_export import export_to_ctranslate2

            own = source_shape, quantization, vocabularies
            return export_to_ctranslate2(self, path, search, max_length, *own)
        refuse_arguments(format, quantization=quantization, vocabularies=vocabularies)
        check_export(path, format, search)
        specs = input_specs(self, search, source_shape, prefix_shape)
        export(self.generation_model(search, max_length), path, format, specs)

    def generation_model(self, search=None, max_length=40):
        """The whole of `generate`, from padded token ids on, as a model of tensors.

        It is what `export_generation` writes, for a graph of one's own.

        Args:
            search: As for `generate`.
            max_length: As for `generate`.

        Returns:
            A `keras.Model` that maps `{"source": (B, S)}`, and "prefix" and "seed" as
            in an export, to the fields of `kseq.decoding.Generation` by name.

        Example:

        >>> import numpy as np
        >>> import kseq
        >>> model = kseq.encoder_decoder(source=11, target=13, width=8)
        >>> written = model.generation_model(max_length=5)
        >>> outputs = written({"source": np.array([[4, 5]])})
        >>> tuple(outputs["token_ids"].shape)
        (1, 1, 5)
        """
        search = as_search(search)
        check_max_length(max_length)
        return Exported(kept(self, GenerateLoop, search, max_length, None))

    def score(self, source, target, batch_size=128, return_attention_scores=False):
        """The log-probability that the model gives to each target.

        Args:
            source: As for `generate`.
            target: Token ids without the start token, up to and including the end
                token: `(B, T)`, padded, or a list of lists; or N hypotheses for each
                source, `(B, N, T)`, padded, or as lists, or a `Generation`.
            batch_size: Most rows to work on at a time.
            return_attention_scores: Whether to return what the model attends to while
                it reads the target as well.

        Returns:
            NumPy array `(B,)`, or `(B, N)`, of natural logarithms; or these and the
            attention `(B, T, S)`, or `(B, N, T, S)`, with the layers and heads of a
            Transformer before T.

        Raises:
            ValueError: Source and target have different numbers of rows, an id is none
                of the vocabulary, or a token stands behind the end token or padding.
        """
        is_result = isinstance(target, Generation)
        token_ids = target.token_ids if is_result else target
        outputs = self._score(source, token_ids, batch_size, return_attention_scores)
        log_probs = outputs["log_probs"]
        if is_result:
            log_probs = np.where(target.lengths > 0, log_probs, -np.inf)  # B N
        if return_attention_scores:
            return log_probs, outputs["attention"]
        return log_probs

    def _score(self, source, target, batch_size, return_attention_scores=False):
        request = ScoreRequest(self, source, target)
        loop = kept(self, ScoreLoop, return_attention_scores)
        batches = request.batches(batch_size)
        return request.outputs([run(loop, batch) for batch in batches])

    def make_train_function(self, force=False):
        # TensorFlow traces a step again that has made variables, Adam's for example.
        if self.built and self.optimizer and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def _search_loop(self, kind, request, batch):
        options = request.search, batch.max_length, request.jit_compile
        return kept(self, kind, *options)
