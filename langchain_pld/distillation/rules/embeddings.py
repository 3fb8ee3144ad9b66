"""Vectors of micro-rules, from any LangChain `Embeddings` or from an offline default without a model."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Sequence

import numpy as np
from langchain_core.embeddings import Embeddings
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union
from sklearn.preprocessing import normalize

from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.run.run import Run
from langchain_pld.errors import DistillationError, MissingExtraError, ModelSetupError
from langchain_pld.rules import MicroRule
from langchain_pld.student.failures import passes_through

__all__ = ["LexicalEmbeddings", "embed_micro_rules", "embeddings_spec", "resolve_embeddings"]

_DIMENSIONS = 64
_SEED = 0
_KIND = "vectors"
_BYTES_PER_TOKEN = 4


class LexicalEmbeddings(Embeddings):
    """Latent semantic analysis (Deerwester et al. 1990) of short texts: no model, no download, the same everywhere.

    TF-IDF of words, word pairs and characters within words, reduced by a truncated singular value decomposition. What
    all texts of the corpus share ("If the text ...") weighs next to nothing.

    Args:
        corpus: The texts to learn the weights from, usually those to be embedded.
    """

    def __init__(self, corpus: Sequence[str]) -> None:
        self._terms = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True),
        )
        self._reduction: TruncatedSVD | None = None
        try:
            weights = self._terms.fit_transform(corpus)
        except ValueError:  # no words in the corpus
            self._terms = None
            return
        dimensions = min(_DIMENSIONS, len(corpus) - 1, weights.shape[1] - 1)
        if dimensions >= 2:
            # It divides by the variance, which is zero for equal texts.
            with np.errstate(divide="ignore", invalid="ignore"):
                self._reduction = TruncatedSVD(dimensions, random_state=_SEED).fit(weights)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Unit vectors; a zero vector for a text that shares nothing with the corpus."""
        if self._terms is None:
            return [[0.0, 0.0] for _ in texts]
        weights = self._terms.transform(texts)
        vectors = self._reduction.transform(weights) if self._reduction else weights.toarray()
        return [[float(value) for value in vector] for vector in normalize(vectors)]

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text."""
        return self.embed_documents([text])[0]


async def embed_micro_rules(run: Run, micro_rules: Sequence[MicroRule]) -> np.ndarray:
    """Embed the conditions and cues of micro-rules; no text is embedded twice in a run.

    Embeddings report no token counts, so the ledger estimates them at four bytes per token.

    Args:
        run: The run; without embeddings, or with the budget spent, the offline default is used.
        micro_rules: Micro-rules, best of all labels together, so that the offline default learns from all.

    Returns:
        Unit vectors, shape `(len(micro_rules), dimensions)`.

    Raises:
        DistillationError: The embeddings failed, returned unusable vectors, or vectors of another length than earlier
            in the run.
    """
    if not micro_rules:
        return np.zeros((0, 0))
    texts = [" ".join([micro.condition, *micro.cues]) for micro in micro_rules]
    if run.embeddings is None:
        return await asyncio.to_thread(_lexical, texts)
    spec = embeddings_spec(run.embeddings)
    keys = {text: _key(spec, text) for text in texts}
    known = {key: row["vector"] for key, row in (await run.store.get_many(_KIND, list(keys.values()))).items()}
    missing = [text for text, key in keys.items() if key not in known]
    line = LedgerLine(node=run.node, model=spec, cache_hits=0 if missing else 1)
    if missing and (refusal := run.spending.over(spec)):
        await run.spending.keep()
        run.note(f"conditions are compared by their words alone: {refusal}")
        return await asyncio.to_thread(_lexical, texts)
    if missing:
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in missing)
        tokens, start = math.ceil(size / _BYTES_PER_TOKEN), time.perf_counter()
        line = line.model_copy(update={"calls": 1, "input_tokens": tokens})
        try:
            vectors = await _request(run.embeddings, missing)
        except DistillationError:
            await run.spending.add(line.model_copy(update={"failures": 1}))
            raise
        line = line.model_copy(update={"seconds": time.perf_counter() - start})
        fresh = {keys[text]: vector.tolist() for text, vector in zip(missing, vectors, strict=True)}
        # Saved before the ledger entry: a run killed in between does not pay twice.
        await run.store.put_many(_KIND, {key: {"vector": vector} for key, vector in fresh.items()})
        known |= fresh
    await run.spending.add(line)
    lengths = sorted({len(vector) for vector in known.values()})
    if len(lengths) > 1:
        msg = (
            f"{spec} returns vectors of another length than earlier in this run ({lengths[0]} and {lengths[-1]} "
            "numbers); continue with the embeddings that the run began with, or start a new run"
        )
        raise DistillationError(msg)
    return np.asarray([known[keys[text]] for text in texts])


async def _request(embeddings: Embeddings, texts: list[str]) -> np.ndarray:
    try:
        vectors = np.asarray(await embeddings.aembed_documents(texts), dtype=float)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            msg = f"expected {len(texts)} vectors of one length, got an array of shape {vectors.shape}"
            raise ValueError(msg)  # reported like an error of the client
    except Exception as error:  # whatever the client raised
        if passes_through(error):
            raise
        msg = (
            f"{type(embeddings).__name__} returned no usable vectors for {len(texts)} micro-rules "
            f"({type(error).__name__}: {error}); fix it and resume, or start a new run with other embeddings or none"
        )
        raise DistillationError(msg) from error
    return np.asarray(normalize(vectors))


def _lexical(texts: list[str]) -> np.ndarray:
    return np.asarray(LexicalEmbeddings(texts).embed_documents(texts))


def embeddings_spec(embeddings: Embeddings) -> str:
    """The `provider:name` of embeddings, e.g. `ollama:nomic-embed-text`; the class if they name no model."""
    kind = type(embeddings).__name__
    provider = kind.removesuffix("s").removesuffix("Embedding").lower()
    if kind == "GoogleGenerativeAIEmbeddings":
        provider = "google_genai"
    name = getattr(embeddings, "model", None) or getattr(embeddings, "model_name", None) or kind
    return f"{provider or 'embeddings'}:{str(name).removeprefix('models/')}"


def _key(spec: str, text: str) -> str:
    return hashlib.sha256(f"{spec}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()


def resolve_embeddings(spec: str) -> Embeddings:
    """Return the embeddings for `provider:name`, e.g. `ollama:nomic-embed-text`.

    Raises:
        MissingExtraError: `langchain` or the provider's package is not installed.
        ModelSetupError: The name is unknown.
    """
    try:
        from langchain.embeddings import init_embeddings
    except ImportError as error:
        raise MissingExtraError.of("langchain", "agents") from error
    try:
        embeddings = init_embeddings(spec)
    except ImportError as error:
        msg = f"the embeddings {spec!r} need a package that is not installed: {error}"
        raise MissingExtraError(msg) from error
    except ValueError as error:
        msg = f"{spec!r} names no embeddings: {str(error).splitlines()[0]}"
        raise ModelSetupError(msg) from error
    assert isinstance(embeddings, Embeddings), "langchain returns a Runnable only with extra arguments"
    return embeddings
