"""The cross-entropy of token ids, with its gradient in closed form.

The logits of a batch are often the largest tensor of a model. Automatic differentiation
copies them five times; here they are read twice and written once.

Axes in shape comments: B batch, T steps, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from keras import ops

from kseq.layers import backends, torch_kernels
from kseq.typing import Tensor

# Below this size it does not pay that XLA compiles for each shape of a batch.
SMALLEST_VOCABULARY = 256


def cross_entropy(
    token_ids: Tensor, logits: Tensor, is_real: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Return `logsumexp(z) - (1 - e) z[y] - e mean(z)` for the logits `z` of each step.

    Args:
        token_ids: The true ids `y`, `(B, T)`. The loss of an id outside the vocabulary
            is meaningless.
        logits: `(B, T, V)`.
        is_real: Boolean `(B, T)`. Where it is False, the loss and its gradient are 0,
            whatever the logits are, even NaN.
        smoothing: The share `e` of label smoothing.

    Returns:
        `(B, T)`, without a second gradient.
    """
    if torch_kernels.available():
        return torch_kernels.CrossEntropy.apply(token_ids, logits, is_real, smoothing)
    token_ids = ops.clip(token_ids, 0, logits.shape[-1] - 1)

    @ops.custom_gradient
    def differentiable(logits):
        detached = ops.stop_gradient(logits)
        losses, normalizer = _forward(smoothing)(token_ids, is_real, detached)

        def gradient(upstream):
            @ops.custom_gradient
            def slope(*given):
                given = [ops.stop_gradient(x) for x in given]
                return _backward(smoothing)(token_ids, is_real, *given), _refuse

            return slope(logits, normalizer, upstream)

        return losses, gradient

    return differentiable(logits)


@functools.cache
def _forward(smoothing: float) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return a function for the losses and `logsumexp(z)`: `(B, T)` each."""

    def forward(token_ids, is_real, logits):
        normalizer = ops.logsumexp(logits, axis=-1)  # B T
        places = ops.expand_dims(token_ids, -1)  # B T 1
        of_true = ops.take_along_axis(logits, places, axis=-1)[..., 0]  # B T
        losses = normalizer - (1.0 - smoothing) * of_true
        if smoothing:
            losses = losses - smoothing * ops.mean(logits, axis=-1)
        return ops.where(is_real, losses, 0.0), normalizer

    return _compiled(forward)


@functools.cache
def _backward(smoothing: float) -> Callable[..., Tensor]:
    """Return a function for the gradient, `softmax(z) - (1 - e) onehot(y) - e / V`."""

    def backward(token_ids, is_real, logits, normalizer, upstream):
        size = logits.shape[-1]
        slopes = ops.exp(logits - ops.expand_dims(normalizer, -1)) - smoothing / size
        is_true = ops.arange(size, dtype="int32") == ops.expand_dims(token_ids, -1)
        slopes = ops.where(is_true, slopes - (1.0 - smoothing), slopes)
        slopes = slopes * ops.expand_dims(upstream, -1)
        return ops.where(ops.expand_dims(is_real, -1), slopes, 0.0)

    return _compiled(backward)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of `(token_ids, is_real, logits, ...)` where it pays."""
    fast = backends.compiled(function)

    def run(token_ids, is_real, logits, *rest):
        is_large = logits.shape[-1] >= SMALLEST_VOCABULARY
        is_fast = is_large and backends.available()
        return (fast if is_fast else function)(token_ids, is_real, logits, *rest)

    return run


def _refuse(*upstream: Tensor) -> NoReturn:
    raise NotImplementedError(
        "`SequenceCrossentropy` has no second gradient. Use a loss of Keras: "
        "`keras.losses.SparseCategoricalCrossentropy(from_logits=True, "
        "ignore_class=0)`."
    )
