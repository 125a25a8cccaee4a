"""Scores of generated texts against references: BLEU, chrF, TER, error rates."""

import importlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

PACKAGES = {  # the package that computes each score
    "exact_match": None,
    "bleu": "sacrebleu",
    "chrf": "sacrebleu",
    "ter": "sacrebleu",
    "wer": "jiwer",
    "cer": "jiwer",
}


def text_scores(
    written: Sequence[str],
    references: Iterable[str | Iterable[str]],
    scores: str | Iterable[str] = ("bleu", "chrf"),
) -> dict[str, float]:
    """Score generated texts, each against one or more references.

    Args:
        written: N generated texts.
        references: One reference, or a list of references, per text.
        scores: Names of the scores:

            - `"bleu"`, `"chrf"`, `"ter"`: computed by sacrebleu with its defaults,
              0 to 100. Lower is better for TER.
            - `"wer"`, `"cer"`: computed by jiwer: substitutions, deletions and
              insertions of words (separated by white space) or of characters, over the
              length of the references. Of several references, the nearest counts. 1 is
              100 %.
            - `"exact_match"`: fraction of texts that equal one of their references.

    Returns:
        Dictionary from the name of each score to its value.

    Raises:
        ValueError: There are no texts; the numbers of texts and references differ; a
            text is not a string; a score is unknown; for WER and CER, no reference has
            a word.
        ImportError: The package of a score is not installed. Install `kseq[metrics]`.

    Example:

    >>> from kseq.training import text_scores
    >>> written = ["a dog sleeps", "two men walk"]
    >>> references = [["a dog sleeps", "the dog is asleep"], ["two men run"]]
    >>> scores = text_scores(written, references, ["wer", "exact_match"])
    >>> round(scores["wer"], 3), scores["exact_match"]
    (0.167, 0.5)

    References:
        - [Papineni et al., 2002](https://aclanthology.org/P02-1040/) (BLEU)
        - [Popović, 2015](https://aclanthology.org/W15-3049/) (chrF)
        - [Snover et al., 2006](https://aclanthology.org/2006.amta-papers.25/) (TER)
        - [Post, 2018](https://aclanthology.org/W18-6319/) (sacrebleu)
    """
    scores = checked_scores(scores)
    written, references = _checked_texts(written, references)
    return {name: _score(name, written, references) for name in scores}


def checked_scores(
    scores: str | Iterable[str], names: Sequence[str] = tuple(PACKAGES)
) -> list[str]:
    """Return the scores as a list, if all are known and their packages installed."""
    scores = [scores] if isinstance(scores, str) else list(scores)
    if not scores or any(name not in names for name in scores):
        raise ValueError(
            f"`scores` must be one or more of {list(names)}. Received: "
            f"scores={scores!r}."
        )
    for name in scores:
        _package(name)
    return scores


def _package(name: str) -> Any:
    package = PACKAGES.get(name)
    try:
        return package and importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"The score {name!r} needs {package}. Install it: pip install kseq[metrics]"
        ) from error


def _score(name: str, written: list[str], references: list[list[str]]) -> float:
    if name == "exact_match":
        pairs = zip(written, references, strict=True)
        return sum(text in known for text, known in pairs) / len(written)
    if name in ("wer", "cer"):
        return _error_rate(name, written, references)
    measure = getattr(_package(name), f"corpus_{name}")
    columns = list(itertools.zip_longest(*references))  # None for missing references
    return float(measure(written, columns).score)


def _error_rate(name: str, written: list[str], references: list[list[str]]) -> float:
    """Return the edits of all texts over the lengths of their nearest references."""
    jiwer = _package(name)
    process = jiwer.process_words if name == "wer" else jiwer.process_characters
    rows = [(i, text) for i, known in enumerate(references) for text in known]
    compared = process(
        [" ".join(text.split()) for _, text in rows],
        [" ".join(written[i].split()) for i, _ in rows],
    )
    nearest: dict[int, tuple[int, int]] = {}
    for (i, _), chunks, reference in zip(
        rows, compared.alignments, compared.references, strict=True
    ):
        candidate = sum(map(_edits, chunks)), len(reference)
        nearest[i] = min(nearest.get(i, candidate), candidate)
    edits, lengths = map(sum, zip(*nearest.values(), strict=True))
    if not lengths:
        raise ValueError(
            f"`references` must have a word for the score {name!r}. Received: only "
            'empty texts. Use "exact_match".'
        )
    return edits / lengths


def _edits(chunk: Any) -> int:
    if chunk.type == "equal":
        return 0
    in_reference = chunk.ref_end_idx - chunk.ref_start_idx
    return max(in_reference, chunk.hyp_end_idx - chunk.hyp_start_idx)


def _checked_texts(written: Any, references: Any) -> tuple[list[str], list[list[str]]]:
    written = _strings("written", written)
    if isinstance(references, str):
        references = _strings("references", references)  # raises with advice
    references = [[x] if isinstance(x, str) else list(x) for x in references]
    if not written or len(written) != len(references) or not all(references):
        raise ValueError(
            "There must be at least one text, and at least one reference per text. "
            f"Received: {len(written)} texts, {len(references)} references, of which "
            f"{sum(not known for known in references)} are empty lists."
        )
    for i, known in enumerate(references):
        _strings(f"references[{i}]", known)
    return written, references


def _strings(name: str, texts: Any) -> list[str]:
    if isinstance(texts, str):
        raise ValueError(
            f"`{name}` must be a list of strings. Received: {name}={texts!r}. Wrap it "
            f"in a list: `[{name}]`."
        )
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"`{name}` must be a list of strings. Received: {name}[{i}]={text!r}."
            )
    return texts
