"""Emoji: small pictures with names in three languages."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from kseq.datasets.files import Content, File, check_language, decoded

LANGUAGES = ("en", "ko", "fr")
TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")  # of the skin, light to dark


def load_emoji(
    content: Content, language: str = "en"
) -> dict[str, tuple[np.ndarray, list[str], list[str], list[str]]]:
    check_language(language, LANGUAGES)
    table = decoded(content("emoji.tsv"), "emoji.tsv")
    lines = table.splitlines()
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    with np.load(io.BytesIO(content("emoji32.npz")), allow_pickle=False) as arrays:
        pictures = arrays["x"]
    tones = [row["skin"] for row in rows]
    bases = [
        base_of(row["unified"], tone) for row, tone in zip(rows, tones, strict=True)
    ]
    held_out = set(held_out_tones(bases, tones))
    parts = {
        "train": [i for i in range(len(rows)) if i not in held_out],
        "test": sorted(held_out),
    }
    return {
        part: (
            pictures[chosen],
            [rows[i][language] for i in chosen],
            [bases[i] for i in chosen],
            [tones[i] for i in chosen],
        )
        for part, chosen in parts.items()
    }


def base_of(code_points: str, tone: str) -> str:
    """Return the code points of an emoji without tones and variation selectors."""
    without = {*tone.split("-"), "FE0F"}
    return "-".join(code for code in code_points.split("-") if code not in without)


def held_out_tones(bases: Sequence[str], tones: Sequence[str]) -> list[int]:
    """Return the rows of the test part: one tone of every second emoji that has five.

    Emoji are ordered by code points, and the held-out tone rotates. So the training
    part has each base in four other tones, and each tone on other bases.
    """
    places: dict[str, dict[str, int]] = {}
    for row, (base, tone) in enumerate(zip(bases, tones, strict=True)):
        if tone in TONES:
            places.setdefault(base, {})[tone] = row
    whole = [base for base in sorted(places) if len(places[base]) == len(TONES)]
    return [
        places[base][TONES[number % len(TONES)]]
        for number, base in enumerate(whole[::2])
    ]


EMOJI_FILES = (
    File(
        "emoji.tsv",
        ("860642efb19aab0727575de58f5225765dccc7491ac569d53bb9051f0fd78d4d",),
        None,
    ),
    File(
        "emoji32.npz",
        ("cfdca74fe3a3738a3a8929444ab8e1aee0bd23af115df01eb2c52c00e2d95f60",),
        None,
    ),
)
