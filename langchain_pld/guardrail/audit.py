"""The audit log: one JSON line per check, written by a handler of the standard library's logging.

Records go to each open `AuditWriter`, or else to the logger `langchain_pld.audit` at level INFO. The handler does the
rotation. A record has a hash of the input, and the input itself only on request.
"""

from __future__ import annotations

import atexit
import hashlib
import hmac
import json
import logging
import math
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from langchain_pld.errors import InputError

if TYPE_CHECKING:
    from langchain_pld.guardrail.decision import Finding
    from langchain_pld.verdict import Verdict

__all__ = ["AuditTrail", "AuditWriter", "input_hash"]

_logger = logging.getLogger("langchain_pld.audit")


class AuditTrail:
    """What a guard writes about its checks.

    Args:
        text: Write the checked text too; by default records have no word of it.
        key: Key for the hash (HMAC-SHA-256), without which one could find out whether a guessed text was checked.
    """

    def __init__(self, *, text: bool = False, key: bytes | None = None) -> None:
        self._text = text
        self._key = key

    @property
    def enabled(self) -> bool:
        """Whether a record would be written anywhere."""
        return bool(_writers) or _logger.isEnabledFor(logging.INFO)

    @property
    def failing(self) -> bool:
        """Whether the last record of an `AuditWriter` could not be written."""
        return any(writer.failing for writer in _writers)

    def record(self, finding: Finding, text: str | None) -> None:
        """Write one check.

        Args:
            finding: What the guard found.
            text: The checked text, as the classifier read it; `None` if there was none.
        """
        if not self.enabled:
            return
        last = finding.verdicts[-1] if finding.verdicts else None
        self._write(
            {
                "event": "check",
                "guard": finding.guard,
                "stage": finding.stage,
                "outcome": finding.outcome,
                "action": finding.action,
                "label": finding.label,
                "decided_by": finding.decided_by or "policy",
                **_verdict_fields(last),
                "escalated": len(finding.verdicts) > 1,
                "latency_ms": round(finding.latency_ms, 3),
            },
            text,
        )

    def record_person(
        self, *, guard: str, answer: str, label: str | None, person: str | None, text: str | None
    ) -> None:
        """Write a person's answer.

        Args:
            guard: Name of the guard that asked.
            answer: approve, edit, reject or respond.
            label: The label that the person gave, if any.
            person: The person, if known.
            text: What the person saw.
        """
        if not self.enabled:
            return
        event = {"event": "person", "guard": guard, "answer": answer, "label": label, "decided_by": person or "person"}
        self._write(event, text)

    def _write(self, event: dict[str, Any], text: str | None) -> None:
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **event,
            "input_hash": None if text is None else input_hash(text, key=self._key),
            "hash": "hmac-sha256" if self._key else "sha256",
        }
        if self._text:
            record["text"] = text
        line = json.dumps(record)  # ASCII, so that no character of a text can break a line or steer a terminal
        for writer in _writers:
            writer.write(line)
        if not _writers:
            _logger.info("%s", line)


def input_hash(text: str, *, key: bytes | None = None) -> str:
    """SHA-256 of a text in hexadecimal; HMAC-SHA-256 with a key."""
    data = text.encode("utf-8", "surrogatepass")
    return hmac.new(key, data, hashlib.sha256).hexdigest() if key else hashlib.sha256(data).hexdigest()


def read_audit_log(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of an audit log with their line numbers, in order.

    Args:
        path: The file, one JSON object per line.

    Raises:
        InputError: A line is not a record; the message names it.
    """
    for number, raw in enumerate(path.read_bytes().split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError) as error:
            msg = (
                f"{path.name}, line {number}: not JSON ({type(error).__name__}); an audit log has a JSON object a line"
            )
            raise InputError(msg) from error
        if not isinstance(record, dict) or "event" not in record:
            msg = f"{path.name}, line {number}: not an audit record"
            raise InputError(msg)
        yield number, record


class AuditWriter:
    """Writes audit records to a handler of the standard library until it is closed, one JSON object a line.

    Records then go nowhere else, whatever becomes of the application's logging. A thread does the writing, since a file
    or socket would block an event loop; what is still waiting when the process is killed is lost.

    Args:
        handler: For instance `logging.handlers.RotatingFileHandler("audit.jsonl", maxBytes=10_000_000, backupCount=5)`.
        background: Off: write at once, where the check runs, and have it written before the decision is known.
    """

    def __init__(self, handler: logging.Handler, *, background: bool = True) -> None:
        handler.setFormatter(logging.Formatter("%(message)s"))
        # Logging's own handlers call this inside of `emit`, and go on as if nothing had happened.
        handler.handleError = self._note_error  # type: ignore[method-assign]
        self.failing = False
        """Whether the last record could not be written."""
        self._handler = handler
        self._background = background
        self._has_error = False
        self._start_thread()
        atexit.register(self.close)
        _writers.append(self)

    def write(self, line: str) -> None:
        """Write a record, or have it written."""
        record = logging.LogRecord("langchain_pld.audit", logging.INFO, "", 0, line, None, None)
        if not self._background:
            self._emit(record)
            return
        if self._process != os.getpid():  # a fork copies the queue, but not the thread
            self._start_thread()
        self._waiting.put(record)

    def close(self) -> None:
        """Write what is waiting and close the handler."""
        if self in _writers:
            _writers.remove(self)
        atexit.unregister(self.close)
        if self._background and self._process == os.getpid():
            self._waiting.put(None)
            self._thread.join()
        self._handler.close()

    def __enter__(self) -> AuditWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_thread(self) -> None:
        self._process = os.getpid()
        self._waiting: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write_waiting, name="pld-audit", daemon=True)
        if self._background:
            self._thread.start()

    def _write_waiting(self) -> None:
        while (record := self._waiting.get()) is not None:
            self._emit(record)

    def _emit(self, record: logging.LogRecord) -> None:
        self._has_error = False
        try:
            self._handler.handle(record)
        except BaseException as error:
            self._note_error(record)
            if not self._background and not isinstance(error, Exception):
                raise
        self.failing = self._has_error

    def _note_error(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        self._has_error = True
        _error_logger.exception("an audit record could not be written; the records of this time are lost")


_error_logger = logging.getLogger("langchain_pld.guardrail.audit")
_writers: list[AuditWriter] = []


def _verdict_fields(verdict: Verdict | None) -> dict[str, Any]:
    """The fields of a verdict in a record; none may quote the input."""
    if verdict is None:
        return {"artifact": None, "status": None, "verdict": None, "probabilities": None, "rules": [], "failure": None}
    return {
        "artifact": verdict.artifact_id,
        "status": verdict.status,
        "verdict": verdict.label or verdict.predicted_label,
        "probabilities": _numbers(verdict.probabilities),
        "rules": list(verdict.rule_ids),
        "failure": verdict.failure.kind if verdict.failure is not None else None,
    }


def _numbers(probabilities: dict[str, float] | None) -> dict[str, float | None] | None:
    """JSON has no word for what is no number."""
    if probabilities is None:
        return None
    return {label: value if math.isfinite(value) else None for label, value in probabilities.items()}
