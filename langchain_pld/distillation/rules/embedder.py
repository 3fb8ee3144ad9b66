"""Embedding micro-rules in a run: each text is paid once, and the ledger tells of it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence

import numpy as np
from langchain_core.embeddings import Embeddings

from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.rules.embeddings import embed_micro_rules, said_by
from langchain_pld.distillation.run.spending import Spending
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.errors import DistillationError
from langchain_pld.rules import MicroRule

__all__ = ["Embedder", "embeddings_spec"]

_KIND = "vectors"
_BYTES_PER_TOKEN = 4


class Embedder:
    """Gives the vectors of micro-rules.

    A text that the run has embedded before is not embedded again. Embeddings do not tell what they counted, so that the
    ledger's tokens are an estimate: one for four bytes. Where the budget allows no call, the offline default stands in.

    Args:
        embeddings: Where the vectors come from; the offline default, which costs nothing, when absent.
        run: Keeps the vectors.
        spending: Keeps the ledger.
        node: The node on whose behalf.
    """

    def __init__(self, embeddings: Embeddings | None, run: RunStore, spending: Spending, *, node: str) -> None:
        self._embeddings = embeddings
        self._run = run
        self._spending = spending
        self._node = node
        self.refused: str | None = None
        """Why the offline default stood in, where it did."""

    async def vectors(self, micro_rules: Sequence[MicroRule]) -> np.ndarray:
        """One row a micro-rule, of unit length, shape `(len(micro_rules), dimensions)`.

        Raises:
            DistillationError: As `embed_micro_rules`, or the vectors are not as long as those from earlier in the run.
        """
        if self._embeddings is None or not micro_rules:
            return await embed_micro_rules(micro_rules)
        spec = embeddings_spec(self._embeddings)
        by_key = {_key(spec, micro): micro for micro in micro_rules}
        known = {key: kept["vector"] for key, kept in (await self._run.get_many(_KIND, list(by_key))).items()}
        missing = {key: micro for key, micro in by_key.items() if key not in known}
        if missing and (refused := self._spending.over(spec)):
            self.refused = refused
            await self._spending.keep()
            return await embed_micro_rules(micro_rules)
        if missing:
            known |= await self._paid(spec, missing, self._embeddings)
        else:
            await self._spending.add(LedgerLine(node=self._node, model=spec, cache_hits=1))
        lengths = sorted({len(vector) for vector in known.values()})
        if len(lengths) > 1:
            msg = (
                f"{spec} gives vectors of another length than earlier in this run ({lengths[0]} and {lengths[-1]} "
                "numbers); go on with the embeddings that the run began with, or start a new one"
            )
            raise DistillationError(msg)
        return np.asarray([known[_key(spec, micro)] for micro in micro_rules])

    async def _paid(
        self, spec: str, missing: Mapping[str, MicroRule], embeddings: Embeddings
    ) -> dict[str, list[float]]:
        size = sum(len(said_by(micro).encode("utf-8", "surrogatepass")) for micro in missing.values())
        line = LedgerLine(
            node=self._node, model=spec, calls=1, failures=1, input_tokens=math.ceil(size / _BYTES_PER_TOKEN)
        )
        started = time.perf_counter()
        try:
            vectors = await embed_micro_rules(list(missing.values()), embeddings)
        except DistillationError:
            await self._spending.add(line)
            raise
        seconds = time.perf_counter() - started
        fresh = {key: vector.tolist() for key, vector in zip(missing, vectors, strict=True)}
        # Kept before they are entered: killed in between, a run does not pay for them again.
        await self._run.put_many(_KIND, {key: {"vector": vector} for key, vector in fresh.items()})
        await self._spending.add(line.model_copy(update={"failures": 0, "seconds": seconds}))
        return fresh


def embeddings_spec(embeddings: Embeddings) -> str:
    """The `provider:name` of embeddings, e.g. `ollama:nomic-embed-text`; the class where no model is named."""
    kind = type(embeddings).__name__
    provider = {"GoogleGenerativeAIEmbeddings": "google_genai"}.get(
        kind, kind.removesuffix("s").removesuffix("Embedding").lower()
    )
    name = getattr(embeddings, "model", None) or getattr(embeddings, "model_name", None) or kind
    return f"{provider or 'embeddings'}:{str(name).removeprefix('models/')}"


def _key(spec: str, micro: MicroRule) -> str:
    return hashlib.sha256(f"{spec}\n{said_by(micro)}".encode("utf-8", "surrogatepass")).hexdigest()
