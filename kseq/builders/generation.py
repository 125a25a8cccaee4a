"""Generative models: `generate` and related methods for any Keras model.

`generate` works in these steps. A `GenerateRequest` (`requests.py`) checks the
arguments and splits them into batches. A `GenerateLoop` (`generate_loop.py`), which
Keras compiles, starts the model for a batch and passes its `step` to the search
(`kseq/decoding/search.py`). The search calls `step` for each token
(`kseq/decoding/loop.py`). `EncoderDecoder.step` calls the `step` of its decoder.

Axes in shape comments: B batch, N hypotheses, K beams, T target steps, S source steps,
V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from kseq.builders.exporting import (
    Exported,
    check_export,
    export,
    input_specs,
    refuse_arguments,
)
from kseq.builders.generate_loop import GenerateLoop, ScoreLoop, cached_loop, run
from kseq.builders.requests import Batch, GenerateRequest, ScoreRequest
from kseq.builders.searches import as_search, refuse_options
from kseq.builders.streaming import StreamStart, StreamStep, stream
from kseq.builders.token_inputs import TokenInputs
from kseq.builders.trainable import TrainableModel
from kseq.decoding import Generation, Search
from kseq.decoding.constraints import Constraint
from kseq.decoding.loop import check_max_length
from kseq.layers.saving import WholeFiles
from kseq.layers.step_labels import StepLabels
from kseq.typing import PathLike, TensorLike, Tree


class GenerativeModel(TokenInputs, StepLabels, TrainableModel, WholeFiles, keras.Model):
    """Base class of models that generate token ids.

    A subclass sets `start_token_id`, `end_token_id` and `pad_token_id`. It also sets

    - `source_padding`, if sources are not padded token ids
    - `source_size` and `target_size`, the numbers of ids, if ids are to be checked
    - `source_length` and `target_length`, the maximum numbers of steps, if limited

    and defines these methods:

    - `start(source, num_beams, max_length) -> (state, constants)`. It may take
      `with_coverage=True`, to add up attention in the state for the coverage penalty of
      `BeamSearch`. If `can_be_guided` is true, it takes `without_source=True`, to start
      without a source.
    - `step(token_ids (B, K), state, constants) -> (logits (B, K, V), state)`
    - `read(source, target (B, T), return_attention_scores) -> logits (B, T, V)`, or
      `(logits, weights (B, ..., T, S))`
    """

    start_token_id: int
    end_token_id: int
    pad_token_id: int
    source_size: Any = None
    target_size: Any = None
    source_length: Any = None
    target_length: Any = None

    @property
    def can_be_guided(self) -> bool:
        """True if the model can generate without its source, as guidance requires."""
        return False

    @property
    def source_padding(self) -> Any:
        """Padding of short sources, or None if all must have the same shape."""
        return self.pad_token_id

    def generate(
        self,
        source: Any,
        search: Search | None = None,
        max_length: int | Callable[[int], int] = 40,
        batch_size: int = 128,
        return_attention_scores: bool = False,
        prefix: TensorLike | None = None,
        jit_compile: bool | None = None,
        constraints: Sequence[Constraint] = (),
        **options: Any,
    ) -> Generation:
        """Generate a target for each source.

        Args:
            source: Padded token ids `(B, S)`, or a list of lists of different lengths.
                For other embeddings their inputs, with a leading axis B. For a model
                without a source the number of sequences to generate. Also batches of
                any of these: a `tf.data.Dataset`, a `keras.utils.PyDataset` or a
                generator. Of training batches only the sources are read. Empty sources,
                `[]` or all padding, are allowed; their memory is empty. For several
                sources a dictionary by name, `{"lemma": rows, "tags": rows}`.
            search: A search object of `kseq.decoding`. Defaults to `GreedySearch()`.
            max_length: Maximum number of tokens, including the end token. Or a function
                from the number of source steps without padding to this maximum, such as
                `kseq.decoding.RelativeLength(1.5, 10)`.
            batch_size: Maximum number of sequences per batch. Sequences of similar
                length are batched together; results keep the order of the sources.
            return_attention_scores: Whether to also return the attention of every
                hypothesis. This reads each hypothesis once more.
            prefix: First tokens of each target, without the start token: `(B, P)`,
                padded at the end, or a list of lists.
            jit_compile: Whether to compile the loop with XLA. On TensorFlow this takes
                5 to 10 seconds for each search, `max_length` and batch shape, and pays
                off if a Transformer generates many batches. None follows Keras: always
                on JAX, and on TensorFlow with a GPU. PyTorch does not compile; after a
                few steps kseq records one and replays it without Keras in between.
            constraints: Constraints on the generated tokens, applied after those of the
                search.
            **options: Not used. For an option of a search, the error says which search
                to pass.

        Returns:
            A `kseq.decoding.Generation` of NumPy arrays with all hypotheses, best
            first.

        Raises:
            ValueError: There is no source, an id is not in the vocabulary, a number is
                not a positive integer, source and prefix differ in number, a prefix
                continues after an end token or padding, or a prefix is longer than
                `max_length`.
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
        source: Any,
        search: Search | None = None,
        max_length: int | Callable[[int], int] = 40,
        prefix: TensorLike | None = None,
        jit_compile: bool | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> Iterator[np.ndarray]:
        """Generate a target for each source and yield every token as it is generated.

        The stream yields the tokens of `generate` one by one, starting with the prefix.

        Args:
            source: As for `generate`. All sources form a single batch.
            search: A search that never revises tokens: `GreedySearch()`, the default,
                or `Sampling()` with one draw for each source.
            max_length: As for `generate`.
            prefix: As for `generate`.
            jit_compile: As for `generate`.
            constraints: As for `generate`.

        Returns:
            An iterator of integer arrays `(B,)`, the next token of each sequence, or
            padding after its end. It stops when all sequences have ended. A sequence
            also ends if constraints leave no token; `generate` returns no hypothesis in
            this case.

        Raises:
            ValueError: The search revises tokens, such as `BeamSearch`, or an argument
                is invalid, as for `generate`.

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
                "A stream needs a search that never revises tokens: `GreedySearch()`, "
                "or `Sampling()` with one draw for each source. Received: search="
                f"{request.search}. `generate` returns its hypotheses when all have "
                "ended."
            )
        batch = request.whole()
        start = self._search_loop(StreamStart, request, batch)
        step = self._search_loop(StreamStep, request, batch)
        return stream(start, step, batch.arrays(start.jit_compile), len(batch))

    def export_generation(
        self,
        path: PathLike,
        search: Search | None = None,
        max_length: int = 40,
        format: Literal[
            "tf_saved_model", "onnx", "litert", "ctranslate2"
        ] = "tf_saved_model",
        source_shape: Tree = None,
        prefix_shape: Sequence[int | None] | None = None,
        quantization: Literal[
            "int8", "int16", "float16", "bfloat16", "int8_float16", "int8_bfloat16"
        ]
        | None = None,
        vocabularies: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Export all of `generate`, including the loop, to files that do not need kseq.

        The exported function returns what `generate` returns for padded sources: the
        fields of `kseq.decoding.Generation` by name, without attention. Its inputs are
        "source", "prefix" if it has a shape (or if the model has no source), and
        "seed", `(1,)`, for a `Sampling` without a seed.

        "ctranslate2" writes a folder for [CTranslate2](https://opennmt.net/CTranslate2),
        an engine for Transformers on CPUs and GPUs. There, tokens are texts: the ids as
        decimal numbers, or those of `vocabularies`. Sources are not padded, and empty
        sources generate nothing. The search is saved beside the model in
        `generation.json`, as arguments of `translate_batch`, or of `generate_batch` for
        a model without a source. `generate_batch` reads the start token and a prefix,
        and counts neither into the length. With these arguments CTranslate2 generates
        the same tokens as `generate`, and a score is
        `log_prob / length ** length_penalty`. Padding, which no model learns to
        generate, has no probability. A beam search with a length penalty always runs to
        `max_length` there, to be sure of the best, unless `early_stopping=True`.

        Args:
            path: A folder for a SavedModel or CTranslate2, otherwise a file that ends
                with ".onnx" or ".tflite".
            search: As for `generate`. `Sampling` requires a SavedModel.
            max_length: Maximum number of tokens, including the end token.
            format: "tf_saved_model", for TensorFlow; "onnx", for ONNX Runtime, which
                needs `pip install kseq[export]`; "litert"; or, for Transformers of any
                backend, "ctranslate2", which also needs `pip install kseq[export]`.
            source_shape: Shape of the source, by name for several sources. None, the
                default, allows any size. "litert" needs every size. "ctranslate2" takes
                sources of up to 1,024 steps, or of the length given here.
            prefix_shape: Shape `(B, P)` of a prefix, or None for a model that has a
                source and takes no prefix. "ctranslate2" does not need it.
            quantization: Weights of "ctranslate2". "int8" and "int16" also quantize the
                products. "float16", "bfloat16", "int8_float16" and "int8_bfloat16" need
                `pip install kseq[torch]` for the export. Defaults to float32.
            vocabularies: Text of each token for "ctranslate2": a dictionary of lists,
                "target" and, if there is one, "source".

        Raises:
            ImportError: The converter of the format is not installed.
            ValueError: The backend is not TensorFlow, the format does not support the
                model, the search or the shapes, or an argument is invalid.

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

    def generation_model(
        self, search: Search | None = None, max_length: int = 40
    ) -> keras.Model:
        """Return a Keras model that runs all of `generate` on padded token ids.

        `export_generation` exports this model. Use it as part of a larger graph.

        Args:
            search: As for `generate`.
            max_length: As for `generate`.

        Returns:
            A `keras.Model` that maps `{"source": (B, S)}`, with "prefix" and "seed" as
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
        return Exported(cached_loop(self, GenerateLoop, search, max_length, None))

    def score(
        self,
        source: Any,
        target: TensorLike | Generation,
        batch_size: int = 128,
        return_attention_scores: bool = False,
    ) -> Any:
        """Return the log-probability of each target.

        Args:
            source: As for `generate`.
            target: Token ids without the start token, up to and including the end
                token: `(B, T)`, padded, or a list of lists. Also N hypotheses for each
                source, `(B, N, T)`, padded or as lists, or a `Generation`.
            batch_size: Maximum number of sequences per batch.
            return_attention_scores: Whether to also return the attention of the target.

        Returns:
            NumPy array `(B,)` or `(B, N)` of natural logarithms. With attention, a pair
            of this and the weights `(B, T, S)` or `(B, N, T, S)`, with the layers and
            heads of a Transformer before T.

        Raises:
            ValueError: Source and target differ in number, an id is not in the
                vocabulary, or a token follows the end token or padding.
        """
        token_ids = target.token_ids if isinstance(target, Generation) else target
        outputs = self._score(source, token_ids, batch_size, return_attention_scores)
        log_probs = outputs["log_probs"]
        if isinstance(target, Generation):
            log_probs = np.where(target.lengths > 0, log_probs, -np.inf)  # B N
        if return_attention_scores:
            return log_probs, outputs["attention"]
        return log_probs

    def _score(
        self,
        source: Any,
        target: Any,
        batch_size: int,
        return_attention_scores: bool = False,
    ) -> dict[str, Any]:
        request = ScoreRequest(self, source, target)
        loop = cached_loop(self, ScoreLoop, return_attention_scores)
        batches = request.batches(batch_size)
        return request.outputs([run(loop, batch) for batch in batches])

    def _search_loop(
        self, kind: type, request: GenerateRequest, batch: Batch
    ) -> keras.Model:
        options = request.search, batch.max_length, request.jit_compile
        return cached_loop(self, kind, *options)
