"""A stand-in for a model, with a source, references and scripted outputs."""

import types

import numpy as np

SOURCE = [[5], [6, 7], [8, 9, 9], [5, 5]]
# With and without a start token, with and without padding.
TARGET = [[2, 5, 6, 3], [7, 8, 9, 3], [2, 4, 3, 0], [3]]
GENERATED = [[5, 6, 3, 0], [7, 9, 3, 0], [4, 4, 4, 4], [3, 0, 0, 0]]


class ScriptedModel:
    """A stand-in for a model, which generates scripted token ids."""

    start_token_id, end_token_id, pad_token_id = 2, 3, 0

    def generate(self, source, search, max_length, batch_size):
        assert source == SOURCE
        self.arguments = search, max_length, batch_size
        length = getattr(search, "length", 4)
        token_ids = np.array(GENERATED)[:, None, :length]
        return types.SimpleNamespace(token_ids=token_ids)
