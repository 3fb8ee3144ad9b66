"""The artifact: one JSON file, `*.pld.json`, with a distilled prompt and everything behind its scores."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.errors import ArtifactError
from langchain_pld.provider_names import canonical_spec
from langchain_pld.rules import Rule
from langchain_pld.signature import Review, ReviewAnswer, difference, rules_sha256
from langchain_pld.task import Task

__all__ = [
    "SCHEMA_VERSION",
    "Calibration",
    "CalibrationMethod",
    "DataFingerprint",
    "DistilledPrompt",
    "FinishReason",
    "Gate",
    "Interval",
    "LedgerLine",
    "ModelFingerprint",
    "ScoreCard",
]

SCHEMA_VERSION = 2
"""2 since artifacts can be reviewed; files of version 1 still load."""

FinishReason = Literal["converged", "no_gain", "ceiling", "budget", "reviewed"]
"""Why a run ended: no further edit helped; no detectable gain over the old prompt; nothing left to gain; the budget ran
out; a person decided about the rules."""

CalibrationMethod = Literal["none", "contextual", "batch", "affine"]


class ModelFingerprint(BaseModel, frozen=True, extra="forbid"):
    """Which model, exactly."""

    spec: str
    """As `resolve_chat_model` takes it, e.g. `ollama:gemma3:4b`."""
    digest: str | None = None
    """SHA-256 of the weights, if the provider tells."""
    quantization: str | None = None
    """E.g. `Q4_K_M`."""
    context_length: int | None = None
    """Tokens that fit into one request."""

    def differs_from(self, other: ModelFingerprint) -> str | None:
        """How `other` differs, or `None` if it is the same model as far as known."""
        if self.digest and other.digest:
            return None if self.digest == other.digest else f"digest {other.digest[:12]} instead of {self.digest[:12]}"
        if canonical_spec(self.spec) != canonical_spec(other.spec):
            return f"{other.spec} instead of {self.spec}"
        if self.quantization and other.quantization and self.quantization != other.quantization:
            return f"quantisation {other.quantization} instead of {self.quantization}"
        return None


class DataFingerprint(BaseModel, frozen=True, extra="forbid"):
    """The rows of one data role."""

    sha256: str
    """Hash of their content."""
    rows: int
    """Number of rows."""
    source: str
    """Where they came from."""


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """An affine map of the label log-probabilities, `softmax(W @ logp + b)`.

    All methods have this form: `none` is the identity, `contextual` and `batch` shift each label, `affine` has a full
    matrix. Rows and columns follow `labels`.
    """

    method: CalibrationMethod = "none"
    """How the map was found."""
    labels: tuple[str, ...]
    """Label names, in the order of rows and columns."""
    weights: tuple[tuple[float, ...], ...] | None = None
    """W, labels by labels; `None` means the identity."""
    bias: tuple[float, ...] | None = None
    """b, one entry per label; `None` means zeros."""
    rows: int = 0
    """Number of labelled rows it was fitted on."""

    @model_validator(mode="after")
    def _shapes(self) -> Calibration:
        size = len(self.labels)
        matrix = self.weights
        square = matrix is None or (len(matrix) == size and all(len(row) == size for row in matrix))
        if not square or (self.bias is not None and len(self.bias) != size):
            raise ValueError(f"a calibration of {size} labels needs {size} x {size} weights and {size} biases")
        numbers = [*(number for row in matrix or () for number in row), *(self.bias or ())]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a calibration needs finite numbers")
        return self

    @classmethod
    def identity(cls, labels: tuple[str, ...]) -> Calibration:
        """No calibration."""
        return cls(labels=labels)

    def apply(self, log_probabilities: dict[str, float]) -> dict[str, float]:
        """Turn label log-probabilities into probabilities that add up to 1."""
        scores = [log_probabilities[label] for label in self.labels]
        if self.weights is not None:
            scores = [math.fsum(w * s for w, s in zip(row, scores, strict=True)) for row in self.weights]
        if self.bias is not None:
            scores = [s + b for s, b in zip(scores, self.bias, strict=True)]
        top = max(scores)
        exps = [math.exp(s - top) for s in scores]
        total = math.fsum(exps)
        return {label: e / total for label, e in zip(self.labels, exps, strict=True)}


class Gate(BaseModel, frozen=True, extra="forbid"):
    """The confidence from which on the student decides alone.

    The threshold was chosen on `rows` held-out rows so that, with probability `confidence`, the error among decided
    inputs from the same distribution is at most `alpha`.
    """

    alpha: float = Field(gt=0, lt=1)
    """The allowed risk: share of wrong labels among decided inputs."""
    confidence: float = Field(default=0.9, gt=0, lt=1)
    """Probability that the bound holds."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Decide if the top probability is at least this; `None`: no threshold keeps the risk, so always abstain."""
    label_thresholds: dict[str, float | None] = Field(default_factory=dict)
    """Thresholds of labels with enough rows for their own."""
    coverage: float = Field(default=0.0, ge=0, le=1)
    """Share of the held-out rows that are decided."""
    observed_risk: float | None = None
    """Error among the decided held-out rows."""
    rows: int = 0
    """Number of held-out rows."""
    method: str = "clopper-pearson"
    """How the bound was found."""

    def admits(self, label: str, confidence: float) -> bool:
        """Whether the student may decide for `label` at this confidence."""
        threshold = self.label_thresholds.get(label, self.threshold)
        return threshold is not None and confidence >= threshold


class Interval(BaseModel, frozen=True, extra="forbid"):
    """An estimate with its confidence interval."""

    value: float
    """The estimate."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""
    level: float = 0.95
    """Confidence level."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class ScoreCard(BaseModel, frozen=True, extra="forbid"):
    """How one prompt did on one set of rows."""

    name: str
    """What was measured: zero-shot, distilled, majority, …"""
    role: str
    """Data role of the rows: validation or test."""
    rows: int
    """Number of labelled rows."""
    student: str
    """The model that answered; `-` for a baseline without one."""
    calibrated: bool
    """Whether the labels come from calibrated probabilities."""
    macro_f1: Interval
    """Macro-F1 over the declared labels; a failed answer counts as wrong."""
    accuracy: Interval
    """Accuracy; a failed answer counts as wrong."""
    per_label_f1: dict[str, float] = Field(default_factory=dict)
    """F1 of each label."""
    failed: int = 0
    """Rows without a readable answer."""
    ece: float | None = None
    """Expected calibration error, 10 equal-mass bins of the top probability."""
    log_loss: float | None = None
    """Mean negative log-probability of the gold label, nats."""
    prompt_tokens: int | None = None
    """Length of the system prompt in the student's tokens."""
    ms_per_text: float | None = None
    """Median wall-clock milliseconds per text."""


class LedgerLine(BaseModel, frozen=True, extra="forbid"):
    """What one node spent on one model."""

    node: str
    """Node of the graph."""
    model: str
    """The model asked."""
    calls: int = 0
    """Calls made."""
    cache_hits: int = 0
    """Answers that were already paid for."""
    failures: int = 0
    """Calls without a usable answer."""
    input_tokens: int = 0
    """Prompt tokens."""
    output_tokens: int = 0
    """Generated tokens."""
    seconds: float = 0.0
    """Total wall-clock seconds of the calls; for an embedded model, without the time in its queue."""
    cost: float | None = None
    """Cost in US dollars; `None` if the model has no price."""


class DistilledPrompt(BaseModel, frozen=True, extra="forbid"):
    """A distilled prompt with everything behind its scores. Immutable; equal if the content is equal."""

    schema_version: int = SCHEMA_VERSION
    """Version of the file format."""
    task: Task
    """What it decides."""
    rules: tuple[Rule, ...] = ()
    """The rules in prompt order; empty for a zero-shot prompt."""
    system_prompt: str
    """The exact prompt that is sent and was scored."""
    answer: AnswerFormat
    """What the student answers with."""
    scorer: Scorer = "logprobs"
    """How its answer is read."""
    calibration: Calibration
    """From label scores to probabilities."""
    gate: Gate | None = None
    """When the student may decide alone; `None`: always."""
    min_label_mass: float = Field(default=0.05, ge=0, le=1)
    """With less probability on valid answers, the answer is unreadable."""
    student: ModelFingerprint
    """The model that everything was measured with."""
    teacher: ModelFingerprint | None = None
    """The model that wrote the rules."""
    data: dict[str, DataFingerprint] = Field(default_factory=dict)
    """Data role (train, validation, test) to its rows."""
    scores: tuple[ScoreCard, ...] = ()
    """Measured quality, with that of the baselines."""
    finish_reason: FinishReason | None = None
    """Why the run ended; `None` for a prompt not made by a run."""
    ledger: tuple[LedgerLine, ...] = ()
    """What the run spent."""
    seed: int | None = None
    """Seed of the run."""
    created: str | None = None
    """Time of creation, ISO 8601, UTC."""
    parent: str | None = None
    """Id of the artifact that it improves on."""
    notes: tuple[str, ...] = ()
    """What a reader should know, e.g. calibration warnings."""
    require_review: bool = False
    """Whether a person has to accept the rules before use; a prompt without rules needs no review."""
    review: Review | None = None
    """Who accepted which rules; a changed rule or prompt breaks it."""

    @model_validator(mode="after")
    def _labels_agree(self) -> DistilledPrompt:
        names = self.task.label_names
        if set(self.answer.labels) != set(names) or set(self.calibration.labels) != set(names):
            raise ValueError(f"answer codes and calibration must cover exactly the task's labels {', '.join(names)}")
        strangers = sorted({rule.label for rule in self.rules} - set(names))
        if strangers:
            raise ValueError(f"rules argue for unknown labels: {', '.join(strangers)}")
        if self.schema_version < 2 and (self.require_review or self.review is not None):
            raise ValueError("a review needs schema version 2")
        return self

    @property
    def prompt_sha256(self) -> str:
        """Hash of the system prompt."""
        return hashlib.sha256(self.system_prompt.encode()).hexdigest()

    @property
    def content_sha256(self) -> str:
        """Hash of the whole content."""
        return _sha256(self.model_dump(mode="json"))

    @property
    def id(self) -> str:
        """Short id, `task-name@` and twelve hex digits of the content hash."""
        return f"{self.task.name}@{self.content_sha256[:12]}"

    def __str__(self) -> str:
        """Labels, rules and student, then the score, in two lines for people."""
        rules = f"{len(self.rules)} rule{'s' * (len(self.rules) != 1)}" if self.rules else "no rules (zero-shot)"
        names = {card.name for card in self.scores}
        own = "zero-shot" if not self.rules else "distilled" if "distilled" in names else "incumbent"
        # The score on test rows, if any, sorts last and is shown.
        cards = sorted((card for card in self.scores if card.name == own), key=lambda card: card.role == "test")
        score = f"macro-F1 {cards[-1].macro_f1} on {cards[-1].rows} {cards[-1].role} rows" if cards else "not scored"
        wrong = "" if self.signature_problem is None else f"; may not be used: {self.signature_problem}"
        return f"{self.id}: {', '.join(self.task.label_names)}; {rules} for {self.student.spec}\n{score}{wrong}"

    def answer_for(self, student: ModelFingerprint) -> AnswerFormat:
        """The answer format for a student; another tokenizer may cut the words differently."""
        if self.student.differs_from(student):
            return self.answer.model_copy(update={"first_tokens": None})
        return self.answer

    def rules_for(self, label: str) -> tuple[Rule, ...]:
        """The rules for a label, in prompt order."""
        return tuple(rule for rule in self.rules if rule.label == label)

    @property
    def signature_problem(self) -> str | None:
        """Why the rules do not count as accepted by a person; `None` if they do or no review is needed.

        A review that does not match the rules is a problem even if none is required.
        """
        if self.review is not None:
            return self.review.problem(self.rules, self.prompt_sha256)
        return "no person has accepted its rules" if self.require_review and self.rules else None

    def require_usable(self) -> None:
        """Check that the prompt may be used.

        Raises:
            ArtifactError: A required review is missing, or the review is for other rules.
        """
        if problem := self.signature_problem:
            msg = f"{self.id} may not be used: {problem}; look at the rules and sign them with: pld review FILE"
            raise ArtifactError(msg)

    def sign(self, answer: ReviewAnswer) -> DistilledPrompt:
        """This artifact with a person's decisions, signed for its rules and its prompt.

        Raises:
            ArtifactError: Its rules are not the accepted ones.
        """
        if rules_sha256(answer.accepted) != rules_sha256(self.rules):
            msg = f"{self.id} cannot be signed for {answer.reviewer}: {difference(answer.accepted, self.rules)}"
            raise ArtifactError(msg)
        review = Review.of(answer, prompt_sha256=self.prompt_sha256)
        return self.model_copy(update={"review": review, "schema_version": SCHEMA_VERSION})

    def save(self, path: str | Path) -> Path:
        """Write the artifact atomically as readable JSON; returns the path.

        Raises:
            ArtifactError: A text cannot be written as UTF-8.
        """
        path = Path(path)
        try:
            document = {
                "kind": "langchain-pld artifact",
                "id": self.id,
                "prompt_sha256": self.prompt_sha256,
                "content_sha256": self.content_sha256,
                **self.model_dump(mode="json"),
            }
            data = (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()
        except UnicodeEncodeError as error:
            msg = f"{path} cannot be written: the artifact holds half of a surrogate pair; take it out of its texts"
            raise ArtifactError(msg) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written next to the target and moved over it, so that a reader never sees half a file.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | Path) -> DistilledPrompt:
        """Read an artifact and check that nothing was changed since it was scored.

        Raises:
            ArtifactError: No file, not an artifact, a newer schema, changed content, or a review for other rules. A
                missing review is left to `require_usable`.
        """
        path = Path(path)
        artifact, changed = cls._read(path)
        # Checked first, because it says most: a changed rule also changes the content.
        if artifact.review is not None and (problem := artifact.signature_problem):
            msg = f"{path}: {problem}, so the review does not hold; look at the rules again with: pld review {path}"
            raise ArtifactError(msg)
        if changed:
            raise ArtifactError(f"{path}: {changed}; restore the file, or distil again")
        return artifact

    @classmethod
    def load_for_review(cls, path: str | Path) -> tuple[DistilledPrompt, bool]:
        """Read an artifact for review, even if it was changed by hand.

        Returns:
            The artifact as in the file, and whether it is unchanged since it was scored; if not, trust only its task
            and rules.

        Raises:
            ArtifactError: No file, not an artifact, or a newer schema.
        """
        artifact, changed = cls._read(Path(path))
        return artifact, not changed and (artifact.review is None or not artifact.signature_problem)

    @classmethod
    def _read(cls, path: Path) -> tuple[DistilledPrompt, str | None]:
        """The artifact in a file, and what does not match its hashes."""
        try:
            document: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            msg = f"no artifact at {path}; make one with: pld distill TASK.yaml --out {path.name}"
            raise ArtifactError(msg) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ArtifactError(f"{path} is not an artifact: {error}") from error
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            msg = f"{path} is damaged: it holds half a surrogate pair, which is not valid Unicode"
            raise ArtifactError(msg) from error
        if not isinstance(document, dict) or document.get("kind") != "langchain-pld artifact":
            raise ArtifactError(f"{path} is not an artifact: it is JSON, but lacks the kind of one")
        version = document.get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            msg = (
                f"{path} has schema version {version!r}, this release reads up to {SCHEMA_VERSION}; "
                "upgrade with: pip install -U langchain-pld"
            )
            raise ArtifactError(msg)
        stated = {key: document.pop(key, None) for key in ("kind", "id", "prompt_sha256", "content_sha256")}
        try:
            artifact = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ArtifactError(f"{path} is damaged at {where or 'the top'}: {first['msg']}") from error
        if artifact.prompt_sha256 != stated["prompt_sha256"]:
            return artifact, "the system prompt was changed after it was scored, so its scores no longer belong to it"
        # Hash of the document, not the artifact: files of older releases lack newer fields.
        if _sha256(document) != stated["content_sha256"]:
            return artifact, "the content was changed after it was scored"
        return artifact, None


def _sha256(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
