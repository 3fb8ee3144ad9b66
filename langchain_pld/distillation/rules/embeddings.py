"""Vectors of micro-rules: from any LangChain `Embeddings`, or from an offline default that needs no model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from langchain_core.embeddings import Embeddings
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union
from sklearn.preprocessing import normalize

from langchain_pld.errors import DistillationError, MissingExtraError, ModelSetupError
from langchain_pld.rules import MicroRule
from langchain_pld.student.failures import passes_through

__all__ = ["LexicalEmbeddings", "embed_micro_rules", "resolve_embeddings", "said_by"]

_DIMENSIONS = 64
_SEED = 0


class LexicalEmbeddings(Embeddings):
    """Latent semantic analysis of a corpus of short texts: no model, no download, the same vectors everywhere.

    TF-IDF of words, word pairs and of characters inside words, reduced by a truncated singular value decomposition.
    What all texts of the corpus share ("If the text ...") weighs next to nothing. Deerwester et al. 1990.

    Args:
        corpus: The texts that the weights are learned from; usually those that are embedded afterwards.
    """

    def __init__(self, corpus: Sequence[str]) -> None:
        self._terms = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True),
        )
        self._reduced: TruncatedSVD | None = None
        try:
            found = self._terms.fit_transform(corpus)
        except ValueError:  # no text holds a word
            self._terms = None
            return
        dimensions = min(_DIMENSIONS, len(corpus) - 1, found.shape[1] - 1)
        if dimensions >= 2:
            # It divides by the variance, which equal texts do not have.
            with np.errstate(divide="ignore", invalid="ignore"):
                self._reduced = TruncatedSVD(dimensions, random_state=_SEED).fit(found)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of unit length; a zero vector for a text that shares nothing with the corpus."""
        if self._terms is None:
            return [[0.0, 0.0] for _ in texts]
        found = self._terms.transform(texts)
        vectors = self._reduced.transform(found) if self._reduced else found.toarray()
        return [[float(value) for value in vector] for vector in normalize(vectors)]

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text."""
        return self.embed_documents([text])[0]


async def embed_micro_rules(micro_rules: Sequence[MicroRule], embeddings: Embeddings | None = None) -> np.ndarray:
    """Vectors of what the micro-rules say: condition and cues.

    Args:
        micro_rules: Micro-rules, best of all labels together, so that the offline default learns from all.
        embeddings: Where the vectors come from; `LexicalEmbeddings` of the micro-rules when absent.

    Returns:
        One row a micro-rule, of unit length, shape `(len(micro_rules), dimensions)`.

    Raises:
        DistillationError: The embeddings could not be reached, or gave vectors that cannot be used.
    """
    if not micro_rules:
        return np.zeros((0, 0))
    texts = list(map(said_by, micro_rules))
    if embeddings is None:
        return np.asarray(await asyncio.to_thread(lambda: LexicalEmbeddings(texts).embed_documents(texts)))
    try:
        answer = await embeddings.aembed_documents(texts)
    except Exception as error:  # whatever the client raised
        if passes_through(error):
            raise
        msg = (
            f"{type(embeddings).__name__} gave no vectors for {len(texts)} micro-rules "
            f"({type(error).__name__}: {error}); mend that and go on, or start a run with other embeddings, or none"
        )
        raise DistillationError(msg) from error
    try:
        vectors = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        vectors = np.zeros(0)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        msg = (
            f"{type(embeddings).__name__} gave no usable vectors for {len(texts)} micro-rules: expected as many "
            f"vectors of one length, got an array of shape {vectors.shape}; use other embeddings, or none"
        )
        raise DistillationError(msg)
    return np.asarray(normalize(vectors))


def said_by(micro: MicroRule) -> str:
    """What of a micro-rule is embedded."""
    return " ".join([micro.condition, *micro.cues])


def resolve_embeddings(spec: str) -> Embeddings:
    """Return the embeddings that `provider:name` names, e.g. `ollama:nomic-embed-text`.

    Raises:
        MissingExtraError: `langchain`, or the package of that provider, is not installed.
        ModelSetupError: The name cannot be understood.
    """
    try:
        from langchain.embeddings import init_embeddings
    except ImportError as error:
        raise MissingExtraError.of("langchain", "agents") from error
    try:
        found = init_embeddings(spec)
    except ImportError as error:
        msg = f"the embeddings {spec!r} need a package that is not installed: {error}"
        raise MissingExtraError(msg) from error
    except ValueError as error:
        msg = f"{spec!r} names no embeddings: {str(error).splitlines()[0]}"
        raise ModelSetupError(msg) from error
    assert isinstance(found, Embeddings), "langchain gives a Runnable only where it is told to"
    return found
