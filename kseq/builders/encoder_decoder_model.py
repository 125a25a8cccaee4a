"""The encoder-decoder model: its graph, decoding steps and config.

Axes in shape comments: B batch, S source steps, T target steps, K beams, D features,
V vocabulary.
"""

import numbers
from collections.abc import Callable
from typing import Any, Literal, Self, TypeGuard

import keras
from keras import ops

from kseq.builders.copying import check_copying, steps_to_copy
from kseq.builders.generation import GenerativeModel
from kseq.builders.sampling import check_sampling
from kseq.builders.shorthands import as_head, checked_answers, encode
from kseq.builders.target_tokens import (
    PARTS,
    TargetTokens,
    check_graph,
    check_tokens,
)
from kseq.layers import (
    JoinedEncoders,
    PointerGenerator,
    ScheduledSampling,
    SequenceEmbedding,
    SourceDropout,
    TiedHead,
)
from kseq.layers.masking import mask_of
from kseq.layers.named_embeddings import each_embedding
from kseq.layers.validation import one_of, rate
from kseq.typing import Config, LayerLike, Tensor, Tree


@keras.saving.register_keras_serializable(package="kseq")
class EncoderDecoder(GenerativeModel):
    """Model that `kseq.encoder_decoder` and `kseq.one_to_many` return.

    Without `encoder` the decoder reads the embedded source itself. Without `source` the
    model generates without a condition. Two positional arguments are the inputs and
    outputs of a graph of such a model, as `keras.models.clone_model` passes them.

    A subclass may pass its own `TargetTokens` as `tokens`. It may also pass as `decode`
    a function of `(decoder, embedded, memory, inputs)` that calls the decoder in the
    graph.
    """

    source: keras.layers.Layer  # None without a source
    target: keras.layers.Layer
    encoder: keras.layers.Layer  # may be None
    decoder: keras.layers.Layer
    head: keras.layers.Layer
    source_dropout: keras.layers.Layer  # may be None
    pointer_generator: PointerGenerator | None
    scheduled_sampling: ScheduledSampling | None

    def __init__(
        self,
        *graph: Any,
        source: keras.layers.Layer | None = None,
        target: keras.layers.Layer | None = None,
        encoder: keras.layers.Layer | None = None,
        decoder: keras.layers.Layer = None,
        head: keras.layers.Layer | None = None,
        tie_embeddings: Literal["target", "all"] | None = None,
        start_token_id: int = 2,
        end_token_id: int = 3,
        source_dropout: float = 0.0,
        copy: PointerGenerator | None = None,
        scheduled_sampling: ScheduledSampling | None = None,
        tokens: TargetTokens | None = None,
        decode: Callable[..., Tensor] | None = None,
        name: str = "encoder_decoder",
        **kwargs: Any,
    ) -> None:
        if graph:
            super().__init__(*graph, name=name, **kwargs)
            self._find_parts()
            return
        if not is_of_tokens(target):
            raise ValueError(
                "`target` must be an embedding of tokens, the size of their "
                "vocabulary, or a `FeatureEmbedding` of numbers. Received: target="
                f"{target}. For a series of numbers, build the model with "
                "`target=kseq.layers.FeatureEmbedding(num_features, 64)`."
            )
        for part in each_embedding(source):
            if is_of_tokens(part) and part.padding != target.padding:
                raise ValueError(
                    "`source` and `target` must have the same padding. Received: "
                    f"source with pad_token_id={part.padding}, target with "
                    f"pad_token_id={target.padding}."
                )
        check_copying(copy, source, target, encoder, decoder, source_dropout)
        check_sampling(scheduled_sampling, copy)
        head = make_head(head, source, target, tie_embeddings)
        if tokens is None:
            tokens = TargetTokens(start_token_id, end_token_id, tie_embeddings)
        inputs = {"target": target.symbolic_input("target")}
        memory = states = None
        if source is not None:
            inputs = {"source": source.symbolic_input("source"), **inputs}
            read = source(inputs["source"])
            if rate("source_dropout", source_dropout):
                read = SourceDropout(source_dropout, name="source_dropout")(read)
            memory, states = encode(encoder, read)
        token_ids = tokens(inputs["target"])
        if scheduled_sampling is not None:
            token_ids = scheduled_sampling(token_ids)
        embedded = target(token_ids)
        if decode is not None:
            outputs = decode(decoder, embedded, memory, inputs)
        elif copy is None:
            outputs = decoder(embedded, memory, initial_state=states)
        else:
            outputs, weights = decoder(
                embedded, memory, initial_state=states, return_attention_scores=True
            )
        logits = checked_answers(
            head, head(outputs), target.vocabulary_size, "vocabulary_size"
        )
        if copy is not None:
            token_ids = steps_to_copy(source, inputs["source"], read)
            logits = copy(logits, outputs, embedded, memory, token_ids, weights)
        super().__init__(inputs=inputs, outputs=logits, name=name, **kwargs)
        tokens.note_places((source, target, encoder, decoder, head), self.operations)
        self._find_parts()

    def _find_parts(self) -> None:
        """Set the components used for decoding from the layers of the graph."""
        kinds = (x for x in self.operations if isinstance(x, TargetTokens))
        tokens: Any = next(kinds, None)
        check_graph(self, tokens and tokens.num_operations == len(self.operations))
        for part, place in tokens.places.items():
            setattr(self, part, None if place is None else self.operations[place])
        source, target = self.source, self.target
        dropouts = (x for x in self.operations if isinstance(x, SourceDropout))
        self.source_dropout = next(dropouts, None)
        copying = (x for x in self.operations if isinstance(x, PointerGenerator))
        self.pointer_generator = next(copying, None)
        samplings = (x for x in self.operations if isinstance(x, ScheduledSampling))
        self.scheduled_sampling = next(samplings, None)
        self.tie_embeddings = tokens.tie_embeddings
        self.start_token_id = tokens.start_token_id
        self.end_token_id = tokens.end_token_id
        self.pad_token_id = target.padding
        self.target_size = target.vocabulary_size
        self.target_length = target.num_positions
        if source is not None:
            self.source_size = source.vocabulary_size
            self.source_length = source.num_positions
        check_tokens(self, ("start_token_id", "end_token_id"))

    def call(
        self,
        inputs: Tree,
        training: bool | None = None,
        mask: Tree = None,
        **kwargs: Any,
    ) -> Tensor:
        call = super().call
        if training and self.scheduled_sampling is not None:
            target = self.scheduled_sampling.mix(
                inputs["target"],
                lambda ids: call({**inputs, "target": ids}, training=True, **kwargs),
                self.pad_token_id,
            )
            inputs = {**inputs, "target": target}
        return call(inputs, training=training, mask=mask, **kwargs)

    @property
    def can_be_guided(self) -> bool:
        """True if the model was trained with dropped sources."""
        return self.source_dropout is not None

    @property
    def source_padding(self) -> Any:
        """Padding of short sources, or None if all must have the same shape."""
        return self.pad_token_id if self.source is None else self.source.padding

    def start(
        self,
        source: Tree,
        num_beams: int = 1,
        max_length: int | None = None,
        with_coverage: bool = False,
        without_source: bool = False,
    ) -> tuple[Tree, Tree]:
        """Encode the source and return the first decoding state and the constants."""
        longest = self.target_length
        if longest is not None and max_length is not None and max_length > longest:
            raise ValueError(
                "A target with learned positions must not have more tokens than "
                f"positions. Received: max_length={max_length} with a target of "
                f"max_length={longest}. Generate less, or train with more "
                "positions."
            )
        if with_coverage and not self.decoder.attends:
            raise ValueError(
                "A coverage penalty needs a decoder with attention to the source. "
                f"Received: `coverage_penalty` with {type(self.decoder).__name__} "
                f"'{self.decoder.name}', which has none. Search without the penalty, "
                "or use a decoder with attention."
            )
        read, memory, mask, states = self._encode(source, without_source)
        state, constants = self.decoder.start(
            memory, mask, states, num_beams, max_length
        )
        first = ops.zeros((ops.shape(memory)[0], num_beams), "int32")  # B K
        state = {"positions": first, "decoder": state}
        if self.pointer_generator is not None:
            token_ids = steps_to_copy(self.source, source, read)
            copied = self.pointer_generator.start(memory, token_ids, mask)
            constants = {"decoder": constants, "copied": copied}
        if with_coverage:  # only padding counts as covered
            shape = ops.shape(memory)[:2]
            is_real = ops.ones(shape, "bool") if mask is None else mask
            padding = ops.cast(ops.logical_not(is_real), "float32")[:, None]  # B 1 S
            state["coverage"] = ops.repeat(padding, num_beams, axis=1)  # B K S
        return state, constants

    def step(
        self, token_ids: Tensor, state: Tree, constants: Tree
    ) -> tuple[Tensor, Tree]:
        """Decode one step: logits `(B, K, V)` and the next state."""
        positions = state["positions"]  # B K
        options = {"positions": positions} if self.target.takes_positions else {}
        inputs = self.target(token_ids, **options)  # B K D
        has_coverage, copies = "coverage" in state, self.pointer_generator is not None
        options = {"return_attention_scores": True} if has_coverage or copies else {}
        outputs, new, *weights = self.decoder.step(  # the weights B ... K S
            inputs,
            state["decoder"],
            constants["decoder"] if copies else constants,
            **options,
        )
        state = {**state, "positions": positions + 1, "decoder": new}
        if has_coverage:
            covered = over_heads(ops.cast(weights[0], "float32"))  # B K S
            state["coverage"] = state["coverage"] + covered
        logits = self.head(outputs)  # B K V
        if self.pointer_generator is not None:
            given = (outputs, inputs, *weights, constants["copied"])
            logits = self.pointer_generator.mix(logits, *given)
        return logits, state

    def read(
        self, source: Tree, target: Tensor, return_attention_scores: bool = False
    ) -> Any:
        """Return the logits of a target, and its attention if asked for."""
        read, memory, mask, states = self._encode(source)
        copies = self.pointer_generator is not None
        needs_weights = return_attention_scores or copies
        embedded = self.target(target)
        outputs = self.decoder(
            embedded,
            memory,
            memory_mask=mask,
            initial_state=states,
            **({"return_attention_scores": True} if needs_weights else {}),
        )
        weights: Any
        outputs, weights = outputs if needs_weights else (outputs, None)
        logits = self.head(outputs)
        if self.pointer_generator is not None:
            token_ids = steps_to_copy(self.source, source, read)
            given = (outputs, embedded, memory, token_ids, weights)
            logits = self.pointer_generator(logits, *given, memory_mask=mask)
        if not return_attention_scores:
            return logits
        # A prefix decoder also attends to its own steps, which follow the memory.
        weights = weights[..., : ops.shape(memory)[1]]
        if isinstance(self.encoder, JoinedEncoders):
            weights = self.encoder.split(weights, read)
        return logits, weights

    def _encode(
        self, source: Tree, without_source: bool = False
    ) -> tuple[Tree, Tensor, Tensor | None, Tree]:
        """Return the embedded source, the memory, its mask and the final states."""
        if self.source is None:  # an empty memory of the right batch size
            shape = (ops.shape(source)[0], 0, self.target.width)
            return None, ops.zeros(shape, self.compute_dtype), None, None
        read = self.source(source)
        if without_source:
            read = self.source_dropout(read, without_source=True)
        memory, states = encode(self.encoder, read)
        return read, memory, mask_of(memory), states  # the same mask as in training

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        parts = {name: getattr(self, name) for name in PARTS}
        if self.tie_embeddings is not None:
            parts["head"] = None  # created again, on the embedding of the target
        if self.source is self.target:
            parts["source"] = None
        return {
            **{name: part and serialize(part) for name, part in parts.items()},
            "one_embedding": self.source is self.target,
            "tie_embeddings": self.tie_embeddings,
            "start_token_id": self.start_token_id,
            "end_token_id": self.end_token_id,
            "source_dropout": getattr(self.source_dropout, "dropout", 0.0),
            "copy": self.pointer_generator and serialize(self.pointer_generator),
            "scheduled_sampling": self.scheduled_sampling
            and serialize(self.scheduled_sampling),
            "name": self.name,
            "trainable": self.trainable,
            "head_trainable": self.head.trainable,  # a tied head is created again
        }

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: dict[str, Any] | None = None
    ) -> Self:
        made = (*PARTS, "copy", "scheduled_sampling")
        parts: dict[str, Any] = {
            part: config.get(part)
            and keras.saving.deserialize_keras_object(
                config[part], custom_objects=custom_objects
            )
            for part in made
        }
        options = {name: value for name, value in config.items() if name not in made}
        is_tied = options["tie_embeddings"] == "all"
        if options.pop("one_embedding", is_tied):
            parts["source"] = parts["target"]
        is_head_trainable = options.pop("head_trainable")
        model = cls(**options, **parts)
        if not is_head_trainable:
            model.head.trainable = False
        return model


def over_heads(weights: Tensor) -> Tensor:
    """Return attention `(B, ..., T, S)` averaged over layers and heads, `(B, T, S)`."""
    while len(weights.shape) > 3:
        weights = ops.mean(weights, axis=1)
    return weights


def is_of_tokens(embedding: Any) -> TypeGuard[keras.layers.Layer]:
    """Return whether an embedding reads token ids and has a padding id."""
    return (
        isinstance(embedding, SequenceEmbedding)
        and isinstance(embedding.vocabulary_size, numbers.Integral)
        and embedding.padding is not None
    )


def make_head(
    head: LayerLike | None,
    source: keras.layers.Layer | None,
    target: keras.layers.Layer,
    tie_embeddings: str | None,
) -> keras.layers.Layer:
    """Return the given head, a dense one, or one that is tied to the target's table."""
    if tie_embeddings is None:
        return as_head(head, target.vocabulary_size)
    one_of("tie_embeddings", tie_embeddings, ("target", "all"))
    if head is not None or (tie_embeddings == "all" and source is not target):
        raise ValueError(
            "Tied embeddings must be used without `head`, which uses the table of the "
            'target, and "all" requires one embedding for source and target. '
            f"Received: tie_embeddings={tie_embeddings!r} with head={head}, "
            f"source={source}, target={target}. Leave `head` out, and pass the same "
            "layer twice."
        )
    return TiedHead(target, dtype="float32", name="head")
