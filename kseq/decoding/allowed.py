"""Constraint to a list of sequences, as an automaton that can be compiled.

Axes in shape comments: B batch, K beams, C children, E edges, V vocabulary.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

from keras import ops

from kseq.decoding.constraints import only_where
from kseq.decoding.hypotheses import Hypotheses, occurs
from kseq.decoding.validation import check_vocabulary, token_sequences
from kseq.typing import Tensor


@dataclasses.dataclass(frozen=True)
class AllowedSequences:
    """Constraint to one of the given sequences, followed by the end token.

    The sequences form a trie. Its nodes are prefixes of the sequences, and its edges
    are the tokens that may follow. At every step each hypothesis walks through the trie
    from the root and compares its tokens with the allowed ones. The number
    of sequences affects the cost only through the largest number of edges of a node.

    Args:
        sequences: Lists of token ids, with or without the end token.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: The `kseq.decoding.Hypotheses` so far.

    Returns:
        `(B, K, V)`, minus infinity for all tokens that lead to none of the sequences.

    Raises:
        ValueError: There are no sequences, one is empty, or one has a token that is not
            in the model's vocabulary.

    Example:

    Classification by words. Which of three names is most probable?

    >>> import keras, numpy as np
    >>> from kseq.decoding import AllowedSequences, BeamSearch
    >>> table = np.log([[.1, .1, .5, .3]] * 4)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> names = AllowedSequences([[2, 3], [2, 3, 2], [3, 3]])
    >>> search = BeamSearch(3, constraints=[names])
    >>> result = search(step, (), (), [0], end_token_id=1, max_length=5)
    >>> np.array(result.token_ids)[0].tolist()
    [[2, 3, 1, 0, 0], [3, 3, 1, 0, 0], [2, 3, 2, 1, 0]]

    References:
        - [De Cao et al., 2021](https://arxiv.org/abs/2010.00904), 3.2
    """

    sequences: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        sequences = token_sequences("sequences", self.sequences)
        object.__setattr__(self, "sequences", sequences)

    def __call__(self, log_probs: Tensor, hypotheses: Hypotheses) -> Tensor:
        vocabulary_size = log_probs.shape[-1]
        for sequence in self.sequences:
            check_vocabulary(self, sequence, vocabulary_size)
        trie = Trie(self.sequences, hypotheses.end_token_id)
        node = trie.walk(hypotheses)  # B K
        tokens, _, exists = trie.children(node)  # B K C
        return only_where(occurs(tokens, exists, vocabulary_size), log_probs)


class Trie:
    """A trie with numbered nodes, and the edges of all nodes in one list.

    Node 0 is the empty prefix. The last node has no edges. It stands for a sequence
    that has ended or has left the trie.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], end_token_id: int) -> None:
        edges = edges_of(sequences, end_token_id)
        self.nowhere = len(edges)
        counts = [len(node) for node in edges] + [0]
        firsts = [0, *itertools.accumulate(counts)][:-1]
        self.most = max(counts)  # C
        self.num_edges = sum(counts)  # E
        self.firsts = ops.convert_to_tensor(firsts, "int32")
        self.counts = ops.convert_to_tensor(counts, "int32")
        listed = [edge for node in edges for edge in node.items()]
        self.tokens = ops.convert_to_tensor([token for token, _ in listed], "int32")
        targets = [self.nowhere if node is None else node for _, node in listed]
        self.targets = ops.convert_to_tensor(targets, "int32")

    def children(self, node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the edges of nodes `(B, K)`.

        Returns:
            The tokens, the target nodes, and a mask of the edges that exist, each
            `(B, K, C)`.
        """
        places = ops.arange(self.most, dtype="int32")  # C
        exists = places < ops.take(self.counts, node, axis=0)[..., None]
        places = places + ops.take(self.firsts, node, axis=0)[..., None]
        places = ops.minimum(places, self.num_edges - 1)
        tokens = ops.take(self.tokens, places, axis=0)
        return tokens, ops.take(self.targets, places, axis=0), exists

    def walk(self, hypotheses: Hypotheses) -> Tensor:
        """Return the node of each hypothesis, `(B, K)`."""
        positions = ops.arange(hypotheses.token_ids.shape[-1], dtype="int32")  # L

        def go_on(t, node):
            is_here = positions == t
            token = ops.sum(ops.where(is_here, hypotheses.token_ids, 0), axis=-1)
            tokens, nodes, exists = self.children(node)  # B K C
            is_taken = ops.logical_and(exists, tokens == token[..., None])
            found = ops.sum(ops.where(is_taken, nodes, 0), axis=-1)  # B K
            found = ops.where(ops.any(is_taken, axis=-1), found, self.nowhere)
            return t + 1, ops.cast(found, "int32")

        first = (ops.zeros_like(hypotheses.step), ops.zeros_like(hypotheses.lengths))
        return ops.while_loop(lambda t, node: t < hypotheses.step, go_on, first)[1]


@functools.lru_cache(maxsize=8)
def edges_of(
    sequences: Sequence[Sequence[int]], end_token_id: int
) -> list[dict[int, int | None]]:
    """Return the edges of each node: a dictionary from token to node.

    Node 0 is the empty prefix. The end token leads to None.
    """
    edges: list[dict[int, int | None]] = [{}]
    for sequence in sequences:
        node = 0
        for token in sequence:
            if token == end_token_id:
                break
            if token not in edges[node]:
                edges[node][token] = len(edges)
                edges.append({})
            # Only the end token leads to None.
            node = edges[node][token]  # type: ignore[assignment]
        edges[node][end_token_id] = None
    return edges
