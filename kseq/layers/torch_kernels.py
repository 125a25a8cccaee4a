"""Kernels of PyTorch: recurrent layers, attention, dropout and cross-entropy.

Called on that backend alone; the layers say when.

Axes in shape comments: B batch, T steps, D features, U units, G gates; of attention
S key steps, N key heads, G query heads to each, H = N * G heads, C size of a head.
"""

import keras

from kseq.layers import backends

if keras.backend.backend() == "torch":
    import torch
    from torch.nn import functional

# A gate at this number, in any precision, is 0 or 1, whatever is added to it.
CLOSED = 1e4


def available():
    """Tell whether the kernels run: on torch, and in no graph for another engine."""
    if keras.backend.backend() != "torch" or backends.is_portable():
        return False
    return not (torch.compiler.is_exporting() or torch.jit.is_tracing())


def _outside_of_graphs(function):
    """Keep a function from `torch.compile`, which would unroll it for minutes."""
    if keras.backend.backend() != "torch":
        return function
    return torch.compiler.disable(function)


@_outside_of_graphs
def run(name, sequences, states, weights, mask=None, reverse=False):
    """Runs a recurrent layer over all steps.

    A kernel knows no mask. So the real steps of each row go to its front, which leaves
    their outputs as they are, and each output is read where its step went. What comes
    behind the real steps is not read; of an LSTM it would still change the cell state,
    and is kept from that by closed gates.

    Args:
        name: `"lstm"`, `"gru"` or `"rnn"`.
        sequences: `(B, T, D)`.
        states: The first states, each `(B, U)`.
        weights: The kernel `(D, GU)`, the recurrent kernel `(U, GU)`, and the bias of
            each `(GU,)`, or nothing, as Keras orders the gates.
        mask: Boolean `(B, T)`; a masked step leaves the states, and with them the
            output, as they were.
        reverse: Whether to begin with the last step; so do the outputs.

    Returns:
        `(outputs (B, T, U), states)`.
    """
    if reverse:
        sequences = sequences.flip(1)
        mask = None if mask is None else mask.flip(1)
    if mask is None:
        return _run_kernel(name, sequences, states, weights)
    if sequences.is_meta:  # only shapes are asked for
        return sequences.new_empty(*mask.shape, states[0].shape[-1]), states
    counts = mask.cumsum(1)  # B T, the real steps up to each
    lengths = counts[:, -1:]
    places = torch.arange(mask.shape[1], device=mask.device)  # T
    is_in_front = (places < lengths) == mask
    longest, shortest, in_front, has_begun = torch.stack(
        [lengths.max(), lengths.min(), is_in_front.all(), mask[:, 0].all()]
    ).tolist()  # at once, for a GPU is waited for
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


def take_steps(sequences, steps):
    """Steps `(B, S)` of `(B, T, D)`: `(B, S, D)`.

    A look-up in a table has the fastest gradient of all that torch has for it.
    """
    batch, length, width = sequences.shape
    first = torch.arange(batch, device=steps.device)[:, None] * length
    return functional.embedding(first + steps, sequences.reshape(-1, width))


def _run_kernel(name, sequences, states, weights, is_padding=None):
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
    function = {"lstm": torch.lstm, "gru": torch.gru, "rnn": torch.rnn_tanh}[name]
    outputs, *last = function(
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


def _reset_gate_first(weight):
    """Keras' order of a GRU's gates, `z r h`, as torch's `r z h`, in `(..., 3U)`."""
    update, reset, new = weight.chunk(3, dim=-1)
    return torch.cat([reset, update, new], dim=-1)


def _closed_gates(kernel):
    """A row of an LSTM's kernel `(D, 4U)` that keeps the cell state as it is."""
    gates = kernel.new_tensor([-CLOSED, CLOSED, 0, 0])  # input, forget, cell, output
    return gates.repeat_interleave(kernel.shape[1] // 4)[None]


def attention(queries, keys, values, mask=None, bias=None):
    """Read the values by the queries, without making the weights.

    Args:
        queries: `(B, T, N, G, C)`, scaled.
        keys: `(B, N, S, C)`.
        values: `(B, N, S, C)`.
        mask: Boolean, broadcasts to `(B, T, S)`; a query with nothing to read gives 0.
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


def dropout(inputs, share, seed):
    """Drops a share of the numbers, and divides what is left by `1 - share`.

    One random number of 64 bits decides on four places, so the share is rounded to
    16 bits. That is a third of the time of torch's own dropout on a CPU.

    Args:
        inputs: Floats of any shape.
        share: Share of the numbers to drop, in [0, 1).
        seed: A `keras.random.SeedGenerator`.

    Returns:
        A tensor like `inputs`.
    """
    if inputs.is_meta:  # only shapes are asked for
        return inputs
    first, count = seed.next().tolist()
    mixed = (first + 0x9E3779B9 * count) % 2**32  # all that a CPU's generator reads
    generator = torch.Generator(inputs.device).manual_seed(mixed)
    drawn = torch.empty(
        -(-inputs.numel() // 4), dtype=torch.int64, device=inputs.device
    )
    drawn.random_(-(2**63), None, generator=generator)
    bits = drawn.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    is_kept = bits >= min(round(share * 2**16), 2**16 - 1) - 2**15
    return inputs * is_kept.to(inputs.dtype).mul_(1 / (1 - share))


if keras.backend.backend() == "torch":

    class CrossEntropy(torch.autograd.Function):
        """`cross_entropy` on PyTorch.

        Keras moves the vocabulary in front of the steps, where PyTorch's own gradient
        is three times as slow, and masks copies of the logits.
        """

        @staticmethod
        def forward(context, token_ids, logits, is_real, smoothing):
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
        def backward(context, upstream):
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


def blocks(rows, size=2**18):
    """Cut rows so that on a CPU a block stays in the cache between operations."""
    is_fused = rows.is_cuda or torch.compiler.is_compiling()
    count = len(rows) if is_fused else max(1, size // rows.shape[-1])
    return [slice(i, i + count) for i in range(0, len(rows), count)]
