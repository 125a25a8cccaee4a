"""Classifier-free guidance.

Axes in shape comments: B batch, K beams, V vocabulary.
"""

import dataclasses

import keras

from kseq.decoding.validation import number
from kseq.typing import StepFunction, Tensor, Tree

WITH, WITHOUT = PARTS = ("conditional", "unconditional")


@dataclasses.dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance.

    A model that was trained with and without its source predicts the next token both
    ways at every step. The logits become

        without + scale * (with - without)

    A scale of 1 is the model as it is, and 0 ignores the source. A scale above 1 gives
    outputs that fit the source better but vary less. The log-probabilities of a result
    are those of the guided logits.

    Pass it to a search as `guidance`. A model of kseq must have been built with
    `source_dropout`, the fraction of sources left out in training
    (`condition_dropout` of `kseq.one_to_many`, `caption_dropout` of
    `kseq.text_to_image`). Each example is then encoded and decoded twice, side by side
    in one loop.

    Args:
        scale: A number. 2 to 5 is usual for images.

    Raises:
        ValueError: The scale is not a finite number.

    Example:

    >>> import kseq
    >>> from kseq.decoding import GreedySearch, Guidance
    >>> model = kseq.encoder_decoder(11, 13, width=8, source_dropout=0.1)
    >>> search = GreedySearch(guidance=Guidance(3.0))
    >>> model.generate([[4, 5, 6], [7]], search, max_length=5).token_ids.shape
    (2, 1, 5)

    References:
        - [Ho and Salimans, 2022](https://arxiv.org/abs/2207.12598), 3.2, equation 6
          (where `scale` is 1 + w)
    """

    scale: float

    def __post_init__(self) -> None:
        what = "a finite number"
        number("scale", self.scale, what, lambda x: abs(x) < float("inf"))

    def guided(self, step: StepFunction) -> StepFunction:
        """Return a step function of both states, with and without the condition.

        Args:
            step: Function of `(token_ids, state, constants)`, as a search takes it.

        Returns:
            A function of the same arguments. Its state and its constants are
            dictionaries `{"conditional": ..., "unconditional": ...}`.
        """

        def guided_step(token_ids, state, constants):
            logits, after = {}, {}
            for part in PARTS:
                scores, after[part] = step(token_ids, state[part], constants[part])
                logits[part] = keras.ops.cast(scores, "float32")  # B K V
            return self.mixed(logits[WITH], logits[WITHOUT]), after

        return guided_step

    def mixed(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """Return the guided logits.

        Tokens that are impossible under the condition stay impossible.
        """
        ops = keras.ops
        is_possible = conditional > -float("inf")
        difference = ops.where(is_possible, conditional - unconditional, 0.0)
        # A token that is impossible only without the condition keeps its logit.
        difference = ops.where(unconditional > -float("inf"), difference, 0.0)
        base = ops.where(unconditional > -float("inf"), unconditional, conditional)
        guided = base + self.scale * difference
        return ops.where(is_possible, guided, -float("inf"))


def as_guidance(guidance: Guidance | float | None) -> Guidance | None:
    """Return a `Guidance` from a `Guidance` or its scale. None stays None."""
    if guidance is None or isinstance(guidance, Guidance):
        return guidance
    return Guidance(guidance)


def check_parts(name: str, tree: Tree) -> None:
    """Raise unless a state, or constants, are a dictionary with both parts."""
    if not isinstance(tree, dict) or set(tree) != set(PARTS):
        raise ValueError(
            f'With guidance, `{name}` must be a dictionary with "conditional" and '
            f'"unconditional", one from each of two calls of `start`. Received: {name} '
            f"of type {type(tree).__name__}. A model of kseq creates them: "
            "`model.generate(source, search)`."
        )
