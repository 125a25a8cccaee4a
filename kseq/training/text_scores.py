"""Scores of texts that were written, beside those of people: BLEU, error rates."""

import importlib
import itertools
from collections.abc import Iterable, Sequence

PACKAGES = {  # of each score, the package whose it is
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
    """Scores texts that a model has written, each against one reference or more.

    Args:
        written: N texts.
        references: For each its reference, or a list of them.
        scores: Which of these, by name:

            - `"bleu"`, `"chrf"`, `"ter"`: sacrebleu's, 0 to 100, as it has them where
              told nothing else. Of TER less is better.
            - `"wer"`, `"cer"`: jiwer's share of words between white space, or of
              characters, that are wrong, lacking or too many, of those of the
              references. Of several references the nearest counts. 1 is 100 %.
            - `"exact_match"`: share of texts that are one of their references.

    Returns:
        A number for each score, by name.

    Raises:
        ValueError: There are no texts, not as many references, or a text is no string;
            a score is unknown; for WER and CER, no reference has a word.
        ImportError: The package of a score is not installed: `kseq[metrics]`.

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


def checked_scores(scores, names=tuple(PACKAGES)):
    """Returns the scores as a list, if each is one of the names and has its package."""
    scores = [scores] if isinstance(scores, str) else list(scores)
    if not scores or any(name not in names for name in scores):
        raise ValueError(
            f"`scores` must be one or more of {list(names)}. Received: "
            f"scores={scores!r}."
        )
    for name in scores:
        _package(name)
    return scores


def _package(name):
    package = PACKAGES.get(name)
    try:
        return package and importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"The score {name!r} is one of {package}. Install it: "
            "pip install kseq[metrics]"
        ) from error


def _score(name, written, references):
    if name == "exact_match":
        pairs = zip(written, references, strict=True)
        return sum(text in known for text, known in pairs) / len(written)
    if name in ("wer", "cer"):
        return _error_rate(name, written, references)
    measure = getattr(_package(name), f"corpus_{name}")
    columns = list(itertools.zip_longest(*references))  # None where there are fewer
    return float(measure(written, columns).score)


def _error_rate(name, written, references):
    """Edits of all texts over the lengths of their nearest references."""
    jiwer = _package(name)
    process = jiwer.process_words if name == "wer" else jiwer.process_characters
    rows = [(i, text) for i, known in enumerate(references) for text in known]
    compared = process(
        [" ".join(text.split()) for _, text in rows],
        [" ".join(written[i].split()) for i, _ in rows],
    )
    nearest = {}
    for (i, _), chunks, reference in zip(
        rows, compared.alignments, compared.references, strict=True
    ):
        candidate = sum(map(_edits, chunks)), len(reference)
        nearest[i] = min(nearest.get(i, candidate), candidate)
    edits, lengths = map(sum, zip(*nearest.values(), strict=True))
    if not lengths:
        raise ValueError(
            f"`references` must have a word for the score {name!r}. Received: empty "
            'texts alone. Use "exact_match".'
        )
    return edits / lengths


def _edits(chunk):
    if chunk.type == "equal":
        return 0
    in_reference = chunk.ref_end_idx - chunk.ref_start_idx
    return max(in_reference, chunk.hyp_end_idx - chunk.hyp_start_idx)


def _checked_texts(written, references):
    written = _strings("written", written)
    if isinstance(references, str):
        references = _strings("references", references)  # which says how to mend it
    references = [[x] if isinstance(x, str) else list(x) for x in references]
    if not written or len(written) != len(references) or not all(references):
        raise ValueError(
            "Every text needs one reference at least, and there must be a text. "
            f"Received: {len(written)} texts, {len(references)} references, of which "
            f"{sum(not known for known in references)} are empty lists."
        )
    for i, known in enumerate(references):
        _strings(f"references[{i}]", known)
    return written, references


def _strings(name, texts):
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
