"""Seeds of attempts, calls of `fit` and epochs, derived from the seed of the search."""

import zlib

import numpy as np


def seed_of_attempt(seed: int, trial_id: str, attempt: int) -> int:
    return zlib.crc32(f"{seed}/{trial_id}/{attempt}".encode()) % 2**31


def derive(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
