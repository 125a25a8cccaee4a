"""Snapshots, which tell whether a compiled loop can be used again."""

import dataclasses
import functools
import gc
import types
import weakref

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.builders.generate_loop import GenerateLoop, LoopCache
from kseq.builders.snapshots import snapshot
from kseq.decoding import AllowedTokens, BannedTokens, BeamSearch, GreedySearch

LIMIT, TABLE = 4, np.array([4])


def below(limit, log_probs):
    return ops.where(ops.arange(log_probs.shape[-1]) < limit, log_probs, -np.inf)


class Below:
    """User-defined constraint."""

    def __init__(self, limit):
        self.limit = limit

    def __call__(self, log_probs, hypotheses):
        return below(self.limit, log_probs)


@dataclasses.dataclass
class Nested:
    parts: dict

    __hash__ = object.__hash__

    def __call__(self, log_probs, hypotheses):
        return below(self.parts["limits"][0].max(), log_probs)


class BelowClassLimit:
    limit = 4

    def __call__(self, log_probs, hypotheses):
        return below(self.limit, log_probs)


def by_global(log_probs, hypotheses):
    return below(LIMIT, log_probs)


def by_array(log_probs, hypotheses):
    return below(int(TABLE[0]), log_probs)


def attribute():
    rule = Below(4)
    return rule, lambda limit: setattr(rule, "limit", limit)


def method():
    rule = Below(4)
    return rule.__call__, lambda limit: setattr(rule, "limit", limit)


def array_of_a_nested_attribute():
    limits = np.array([4])

    def change(limit):
        limits[0] = limit

    return Nested({"limits": [limits]}), change


def attribute_of_the_class():
    return BelowClassLimit(), lambda limit: setattr(BelowClassLimit, "limit", limit)


def closure():
    limit = 4

    def change(value):
        nonlocal limit
        limit = value

    return lambda log_probs, hypotheses: below(limit, log_probs), change


def keyword():
    def rule(log_probs, hypotheses, limit=4):
        return below(limit, log_probs)

    return rule, lambda limit: setattr(rule, "__defaults__", (limit,))


def partial():
    limits = [4]
    rule = functools.partial(lambda x, *rest: below(x[0], rest[0]), limits)
    return rule, lambda limit: limits.__setitem__(0, limit)


def global_variable():
    return by_global, lambda limit: globals().update(LIMIT=limit)


def array():
    return by_array, lambda limit: TABLE.__setitem__(0, limit)


def function_of_allowed_tokens():
    rule = Below(4)

    def is_allowed(token_ids, lengths):
        return ops.arange(7) < rule.limit

    return AllowedTokens(is_allowed), lambda limit: setattr(rule, "limit", limit)


def weights_of_a_layer():
    layer = keras.layers.Embedding(1, 1, embeddings_initializer="zeros")
    layer.build(())

    def rule(log_probs, hypotheses):
        limit = ops.cast(layer.embeddings[0, 0] + 4, "int32")
        return below(limit, log_probs)

    return rule, lambda limit: layer.embeddings.assign([[limit - 4.0]])


CHANGES = [attribute, method, array_of_a_nested_attribute, attribute_of_the_class]
CHANGES += [closure, keyword, partial, global_variable, array]
CHANGES += [function_of_allowed_tokens, weights_of_a_layer]


@pytest.fixture(scope="module")
def model():
    model = kseq.one_to_many(7, width=3)
    model.head.bias.assign(np.arange(7.0))  # the highest allowed token is generated
    model.head.kernel.assign(0.0 * model.head.kernel)
    return model


@pytest.mark.parametrize("make", CHANGES, ids=lambda make: make.__name__)
def test_a_changed_constraint_is_applied(model, make):
    rule, change = make()
    search = GreedySearch([rule])
    assert model.generate(1, search, 1).token_ids.item() == 3
    change(6)
    assert model.generate(1, search, 1).token_ids.item() == 5
    change(4)
    cached = len(model._compiled_loops.models)
    assert model.generate(1, search, 1).token_ids.item() == 3
    assert len(model._compiled_loops.models) == cached


@pytest.mark.parametrize("make", CHANGES, ids=lambda make: make.__name__)
def test_a_snapshot_depends_on_the_values_that_a_constraint_reads(make):
    rule, change = make()
    search = BeamSearch(2, constraints=[rule])
    before, same = snapshot(search), snapshot(search)
    assert before == same and hash(before) == hash(same)
    change(6)
    assert snapshot(search) != before
    change(4)
    assert snapshot(search) == before


def test_equal_objects_have_equal_snapshots():
    def rule():
        return lambda log_probs, hypotheses, limit=3: below(limit, log_probs)

    assert snapshot(rule()) == snapshot(rule())
    assert snapshot(Below(3)) == snapshot(Below(3)) != snapshot(Below(3.0))
    assert snapshot(GreedySearch([BannedTokens([3])])) == snapshot(
        GreedySearch([BannedTokens(np.array([3]))])
    )
    assert snapshot(object()) != snapshot(object())


def test_objects_that_refer_to_themselves_have_snapshots():
    rule = Below(3)
    rule.self = [rule]
    before = snapshot(rule)
    rule.limit = 4
    assert snapshot(rule) != before

    def endless(n):
        return endless(n)

    assert snapshot(endless) == snapshot(endless)


def test_a_changed_model_is_compiled_again(model):
    model = kseq.one_to_many(7, width=3)
    model.head.bias.assign(np.arange(7.0))
    assert model.generate(1, max_length=2).lengths.item() == 2
    model.end_token_id = 6
    assert model.generate(1, max_length=2).lengths.item() == 1
    [old] = [x for key, x in model._compiled_loops.models.items() if key[2][1] == 6]
    model.head.quantize("int8")
    scores = model.score(1, [[6]])
    assert old not in model._compiled_loops.models.values()
    np.testing.assert_allclose(model.generate(1).log_probs[:, 0], scores, rtol=1e-5)


def test_the_cache_keeps_only_recently_used_loops():
    writer = types.SimpleNamespace(start_token_id=2, end_token_id=3, pad_token_id=0)
    writer.weights, cache = [], LoopCache()

    def get(length):
        return cache.get(writer, GenerateLoop, (GreedySearch(), length, None))

    first, second = weakref.ref(get(1)), weakref.ref(get(2))
    for length in range(3, LoopCache.MOST + 1):
        get(length)
    assert get(1) is first()
    get(LoopCache.MOST + 1)
    gc.collect()
    assert len(cache.models) == LoopCache.MOST
    assert get(1) is first() and second() is None
