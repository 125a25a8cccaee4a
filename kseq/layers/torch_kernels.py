"""PyTorch kernels: recurrent layers, attention, dropout and cross-entropy.

Layers call them on the PyTorch backend only.

Axes in shape comments: B batch, T steps, D features, U units, G gates; of attention
S key steps, N key heads, G query heads to each, H = N * G heads, C size of a head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from kseq.layers import backends
from kseq.typing import Tensor

if keras.backend.backend() == "torch":
    import torch
    from torch.nn import functional

# Added to a gate's input, this makes the gate 0 or 1 in any precision.
CLOSED = 1e4


def available() -> bool:
    """Tell whether the kernels can run: on PyTorch, and not while exporting a graph."""
    if keras.backend.backend() != "torch" or backends.is_portable():
        return False
    return not (torch.compiler.is_exporting() or torch.jit.is_tracing())


def _outside_of_graphs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Exclude a function from `torch.compile`, which would unroll it for minutes."""
    if keras.backend.backend() != "torch":
        return function
    return torch.compiler.disable(function)


@_outside_of_graphs
def run(
    name: str,
    sequences: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    mask: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Sequence[Tensor]]:
    """Run a recurrent layer over all steps.

    The kernels do not support masks. So the real steps of each sequence are moved to
    its front, which does not change their outputs, and each output is read from where
    its step was moved. Outputs behind the real steps are not read. But these steps
    would change the cell state of an LSTM, so its gates are closed there.

    Args:
        name: `"lstm"`, `"gru"`, `"rnn"` or `"mingru"`.
        sequences: `(B, T, D)`.
        states: Initial states, each `(B, U)`.
        weights: Kernel `(D, GU)`, recurrent kernel `(U, GU)`, and optionally the bias
            of each `(GU,)`, with gates in the order of Keras. For `"mingru"` only the
            kernel `(D, 2U)` and the bias `(2U,)`.
        mask: Boolean `(B, T)`. A masked step leaves the states, and so the output,
            unchanged.
        reverse: Whether to start with the last step. The outputs are then in that
            order, too.

    Returns:
        `(outputs (B, T, U), states)`.
    """
    if reverse:
        sequences = sequences.flip(1)
        mask = None if mask is None else mask.flip(1)
    if mask is None:
        return _run_kernel(name, sequences, states, weights)
    if sequences.is_meta:  # only shapes are computed
        return sequences.new_empty(*mask.shape, states[0].shape[-1]), states
    counts = mask.cumsum(1)  # B T, the real steps up to each
    lengths = counts[:, -1:]
    places = torch.arange(mask.shape[1], device=mask.device)  # T
    is_in_front = (places < lengths) == mask
    longest, shortest, in_front, has_begun = torch.stack(
        [lengths.max(), lengths.min(), is_in_front.all(), mask[:, 0].all()]
    ).tolist()  # all at once: each transfer waits for the GPU
    if not longest:
        return states[0][:, None].expand(-1, mask.shape[1], -1), states
    if not in_front:
        order = torch.argsort(~mask, dim=1, stable=True)
        sequences = take_steps(sequences, order[:, :longest])
    is_padding = places[:longest] >= lengths if shortest < longest else None  # B T
    sequences = sequences[:, :longest]
    outputs, last = _run_kernel(name, sequences, states, weights, is_padding)
    outputs = take_steps(outputs, (counts - 1).clamp(min=0))
    if not has_begun:
        outputs = torch.where(counts[..., None] > 0, outputs, states[0][:, None])
    return outputs, [outputs[:, -1], *last[1:]]


def take_steps(sequences: Tensor, steps: Tensor) -> Tensor:
    """Return the steps `(B, S)` of sequences `(B, T, D)`, as `(B, S, D)`.

    An embedding lookup has the fastest gradient of PyTorch's ways to do it.
    """
    batch, length, width = sequences.shape
    first = torch.arange(batch, device=steps.device)[:, None] * length
    return functional.embedding(first + steps, sequences.reshape(-1, width))


def _run_kernel(
    name: str,
    sequences: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    is_padding: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    if name == "mingru":
        return _run_min_gru(sequences, states[0], *weights)
    kernel, recurrent_kernel, *biases = weights
    if name == "gru":
        weights = [_reset_gate_first(w) for w in weights]
        kernel, recurrent_kernel, *biases = weights
    if name == "lstm" and is_padding is not None:
        column = is_padding[..., None].to(sequences.dtype)
        sequences = torch.cat([sequences, column], dim=-1)
        kernel = torch.cat([kernel, _closed_gates(kernel)])
    kernels = [each.t().contiguous() for each in (kernel, recurrent_kernel)]
    first = [state.contiguous()[None] for state in states]
    kernel_functions: dict[str, Callable[..., Any]]
    kernel_functions = {"lstm": torch.lstm, "gru": torch.gru, "rnn": torch.rnn_tanh}
    outputs, *last = kernel_functions[name](
        sequences,
        first if name == "lstm" else first[0],
        [*kernels, *biases],
        has_biases=bool(biases),
        num_layers=1,
        dropout=0.0,
        train=torch.is_grad_enabled(),
        bidirectional=False,
        batch_first=True,
    )
    return outputs, [state[0] for state in last]


def _run_min_gru(
    sequences: Tensor, state: Tensor, kernel: Tensor, bias: Tensor
) -> tuple[Tensor, list[Tensor]]:
    dtype = torch.promote_types(sequences.dtype, torch.float32)
    products = functional.linear(sequences, kernel.t(), bias).to(dtype)  # B T 2U
    gates, new = products.transpose(0, 1).chunk(2, dim=-1)  # T B U
    outputs = Interpolation.apply(gates.sigmoid(), new, state.to(dtype))
    outputs = outputs.transpose(0, 1).to(sequences.dtype)
    return outputs, [outputs[:, -1]]


def _reset_gate_first(weight: Tensor) -> Tensor:
    """Reorder a GRU's gates in `(..., 3U)` from Keras' `z r h` to torch's `r z h`."""
    update, reset, new = weight.chunk(3, dim=-1)
    return torch.cat([reset, update, new], dim=-1)


def _closed_gates(kernel: Tensor) -> Tensor:
    """Return a row for an LSTM's kernel `(D, 4U)` that keeps the cell state."""
    gates = kernel.new_tensor([-CLOSED, CLOSED, 0, 0])  # input, forget, cell, output
    return gates.repeat_interleave(kernel.shape[1] // 4)[None]


def attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Compute attention without materializing the weights.

    Args:
        queries: Scaled queries `(B, T, N, G, C)`.
        keys: `(B, N, S, C)`.
        values: `(B, N, S, C)`.
        mask: Boolean, broadcasts to `(B, T, S)`. A fully masked query gives zeros.
        bias: Float, broadcasts to `(B, N, G, T, S)`.

    Returns:
        `(B, T, N, G, C)`.
    """
    rows, length, *heads, size = queries.shape
    if mask is not None:
        mask = mask.reshape(-1, 1, *mask.shape[-2:])  # B 1 T S
    if bias is not None:
        bias = bias.flatten(1, 2).to(queries.dtype)  # B H T S
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    context = functional.scaled_dot_product_attention(
        queries.flatten(2, 3).transpose(1, 2),  # B H T C
        keys,
        values,
        attn_mask=mask,
        scale=1.0,
        enable_gqa=heads[1] > 1,
    )
    return context.transpose(1, 2).reshape(rows, length, *heads, size)


def dropout(inputs: Tensor, share: float, seed: keras.random.SeedGenerator) -> Tensor:
    """Drop a fraction of the numbers, and divide the others by `1 - share`.

    One random number of 64 bits is used for four elements, so the share is rounded to
    16 bits. On a CPU this takes a third of the time of PyTorch's own dropout.

    Args:
        inputs: Floats of any shape.
        share: Fraction of the numbers to drop, in [0, 1).
        seed: A `keras.random.SeedGenerator`.

    Returns:
        A tensor like `inputs`.
    """
    if inputs.is_meta:  # only shapes are computed
        return inputs
    first, count = seed.next().tolist()
    mixed = (first + 0x9E3779B9 * count) % 2**32  # a CPU's generator uses 32 bits
    generator = torch.Generator(inputs.device).manual_seed(mixed)
    drawn = torch.empty(
        -(-inputs.numel() // 4), dtype=torch.int64, device=inputs.device
    )
    drawn.random_(-(2**63), None, generator=generator)
    bits = drawn.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    is_kept = bits >= min(round(share * 2**16), 2**16 - 1) - 2**15
    return inputs * is_kept.to(inputs.dtype).mul_(1 / (1 - share))


if keras.backend.backend() == "torch":

    class Interpolation(torch.autograd.Function):
        """The states `h_t = h_(t-1) + z_t (g_t - h_(t-1))`, in one pass each way.

        Takes `z` and `g`, each `(T, B, U)`, and the first state `(B, U)`; returns
        `(T, B, U)`. A pass is one operation for each step.
        """

        @staticmethod
        def forward(context: Any, z: Tensor, g: Tensor, first: Tensor) -> Tensor:
            outputs, h = torch.empty_like(g), first
            for output, gate, new in zip(outputs, z, g, strict=True):
                h = torch.lerp(h, new, gate, out=output)
            context.save_for_backward(z, g, first, outputs)
            return outputs

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            z, g, first, outputs = context.saved_tensors
            kept = 1 - z
            slopes = upstream.clone()
            for t in range(len(slopes) - 1, 0, -1):
                slopes[t - 1].addcmul_(slopes[t], kept[t])
            before = torch.cat([first[None], outputs[:-1]])
            return slopes * (g - before), slopes * z, slopes[0] * kept[0]

    class CrossEntropy(torch.autograd.Function):
        """`cross_entropy` on PyTorch.

        It is faster than that of Keras, which moves the vocabulary axis in front of the
        steps, where PyTorch's gradient is three times as slow, and masks copies of the
        logits.
        """

        @staticmethod
        def forward(
            context: Any,
            token_ids: Tensor,
            logits: Tensor,
            is_real: Tensor,
            smoothing: float,
        ) -> Tensor:
            rows = logits.reshape(-1, logits.shape[-1])  # BT V
            places = token_ids.long().clamp(0, rows.shape[-1] - 1).reshape(-1, 1)
            losses = torch.empty_like(rows[:, 0])
            total = torch.empty_like(losses)
            for some in blocks(rows):
                z = rows[some]
                torch.logsumexp(z, -1, out=total[some])
                of_true = z.gather(-1, places[some])[:, 0]
                torch.sub(total[some], (1 - smoothing) * of_true, out=losses[some])
                if smoothing:
                    losses[some] -= smoothing * z.mean(-1)
            context.save_for_backward(places, rows, total, is_real)
            context.smoothing = smoothing
            return torch.where(is_real, losses.reshape(is_real.shape), 0.0)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context: Any, upstream: Tensor) -> tuple[None, Tensor, None, None]:
            places, rows, total, is_real = context.saved_tensors
            shape, smoothing = (*upstream.shape, -1), context.smoothing
            upstream, is_padding = upstream.reshape(-1, 1), ~is_real.reshape(-1)
            slopes = torch.empty_like(rows)
            for some in blocks(rows):
                slope = torch.sub(rows[some], total[some, None], out=slopes[some])
                slope.exp_()
                if smoothing:
                    slope -= smoothing / rows.shape[-1]
                slope *= upstream[some]
                slope.scatter_add_(-1, places[some], (smoothing - 1) * upstream[some])
                slope[is_padding[some]] = 0.0
            return None, slopes.reshape(shape), None, None


def blocks(rows: Tensor, size: int = 2**18) -> list[slice]:
    """Return slices of rows so small that, on a CPU, a block stays in the cache."""
    is_fused = rows.is_cuda or torch.compiler.is_compiling()
    count = len(rows) if is_fused else max(1, size // rows.shape[-1])
    return [slice(i, i + count) for i in range(0, len(rows), count)]
