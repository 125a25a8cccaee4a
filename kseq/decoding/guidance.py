"""Guidance: what a condition adds to the next token, more than once.

Axes in shape comments: B batch, K beams, V vocabulary.
"""

import dataclasses

import keras

from kseq.decoding.validation import number

WITH, WITHOUT = PARTS = ("conditional", "unconditional")


@dataclasses.dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: the difference that a condition makes, enlarged.

    A model that has learned with and without its source tells at every step what the
    source adds. The logits become

        without + scale * (with - without)

    so 1 is the model as it is, 0 leaves the source out, and more than 1 writes what
    fits the source better, with less variety. The log-probabilities of a result are of
    these logits.

    A search takes it as `guidance`. A model of kseq must have been built with
    `source_dropout`, the share of the sources that it learned without
    (`condition_dropout` of `kseq.one_to_many`, `caption_dropout` of
    `kseq.text_to_image`); each row is then read and written twice, side by side in one
    loop.

    Args:
        scale: A number; 2 to 5 is usual for pictures.

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

    def __post_init__(self):
        what = "a finite number"
        number("scale", self.scale, what, lambda x: abs(x) < float("inf"))

    def guided(self, step):
        """A step function of both, `{"conditional": ..., "unconditional": ...}`.

        Args:
            step: Function of `(token_ids, state, constants)`, as a search takes it.

        Returns:
            A function of the same, whose state and constants are dictionaries of those
            with and without the condition.
        """

        def guided_step(token_ids, state, constants):
            logits, after = {}, {}
            for part in PARTS:
                scores, after[part] = step(token_ids, state[part], constants[part])
                logits[part] = keras.ops.cast(scores, "float32")  # B K V
            return self.mixed(logits[WITH], logits[WITHOUT]), after

        return guided_step

    def mixed(self, conditional, unconditional):
        """The guided logits; what is impossible under the condition stays so."""
        ops = keras.ops
        is_possible = conditional > -float("inf")
        difference = ops.where(is_possible, conditional - unconditional, 0.0)
        # What only the model without a source rules out counts as with it.
        difference = ops.where(unconditional > -float("inf"), difference, 0.0)
        base = ops.where(unconditional > -float("inf"), unconditional, conditional)
        guided = base + self.scale * difference
        return ops.where(is_possible, guided, -float("inf"))


def as_guidance(guidance):
    """The guidance that was given; a number is short for `Guidance(number)`."""
    if guidance is None or isinstance(guidance, Guidance):
        return guidance
    return Guidance(guidance)


def check_parts(name, tree):
    """Refuse a state, or constants, that are not those of both ways."""
    if not isinstance(tree, dict) or set(tree) != set(PARTS):
        raise ValueError(
            f'With guidance `{name}` must be a dictionary of "conditional" and '
            f'"unconditional", as two calls of `start` give them. Received: {name} of '
            f"type {type(tree).__name__}. A model of kseq makes them: "
            "`model.generate(source, search)`."
        )
