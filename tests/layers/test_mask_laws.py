"""Laws of masks, on masks and scores that hypothesis draws.

Shapes are few, so that no example costs a compilation.

Axes in shape comments: B batch, T query steps, S steps, D features.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kseq import layers
from kseq.layers import masked_softmax
from tests.helpers import array, assert_close, random_array

B, T, S, D = 2, 3, 5, 4
masks = arrays.arrays(bool, (B, S))
scores = arrays.arrays("float32", (B, T, S), elements=st.floats(-1e4, 1e4, width=32))


@given(scores, arrays.arrays(bool, (B, T, S)))
def test_a_softmax_is_that_of_what_may_be_used(scores, mask):
    weights = array(masked_softmax(scores, mask))
    for row in np.ndindex(B, T):
        kept = scores[row][mask[row]].astype("float64")
        exact = np.exp(kept - kept.max(initial=-np.inf))
        assert_close(weights[row][mask[row]], exact / max(exact.sum(), 1))
        assert not weights[row][~mask[row]].any()


POOLINGS = ["MeanPooling", "MaxPooling", "LastStepPooling", "AttentionPooling"]
READERS = {
    **{name: lambda name=name: getattr(layers, name)() for name in POOLINGS},
    "gru": lambda: layers.RecurrentEncoder("gru", 3, bidirectional=True),
    "transformer": lambda: layers.TransformerEncoder(1, num_heads=2),
    "conv": lambda: layers.ConvEncoder(3, 1),
}


@pytest.fixture(scope="module", params=READERS)
def reader(request):
    layer = READERS[request.param]()
    layer(random_array(B, S, D), mask=np.ones((B, S), bool))
    return layer


def real_outputs(reader, inputs, mask):
    outputs = array(reader(inputs, mask=mask))
    return outputs if outputs.ndim == 2 else outputs[mask]


@given(masks, st.sampled_from([0.0, -3.0, 1e4, np.nan]))
def test_what_may_not_be_used_changes_nothing(reader, mask, value):
    inputs = random_array(B, S, D)
    other = np.where(mask[..., None], inputs, np.float32(value))
    expected = real_outputs(reader, inputs, mask)
    assert np.isfinite(expected).all()
    assert_close(real_outputs(reader, other, mask), expected)


@given(masks)
def test_a_row_does_not_know_of_the_others(reader, mask):
    inputs = random_array(B, S, D)
    both = array(reader(inputs, mask=mask))
    twice = np.stack([inputs[0]] * B), np.stack([mask[0]] * B)
    alone = array(reader(twice[0], mask=twice[1]))
    chosen = mask[0] if both.ndim == 3 else slice(None)
    assert_close(alone[0][chosen], both[0][chosen])


@given(st.sets(st.integers(0, S - 1), min_size=1), st.sets(st.integers(0, S - 1)))
def test_it_does_not_matter_where_padding_stands(reader, places, more):
    """The same steps at other places, with padding before, between and behind."""
    count = len(places)
    if isinstance(reader, layers.ConvEncoder):  # which keeps distances: none between
        places = range(count)
        more = range(min([S - count, *more]), S)
    others = sorted(more)[:count]
    others += [x for x in range(S) if x not in others][: count - len(others)]
    found = []
    for chosen in (sorted(places), sorted(others)):
        inputs, mask = random_array(B, S, D, seed=5), np.zeros((B, S), bool)
        inputs[:, chosen] = random_array(B, S, D)[:, :count]
        mask[:, chosen] = True
        found.append(real_outputs(reader, inputs, mask))
    assert_close(*found)
