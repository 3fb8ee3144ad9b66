"""The same artifact gives the same probabilities, bit for bit, in any process and by any way of calling."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_pld import PLDClassifier
from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.student.providers import fingerprint_of
from tests.integration.small import TEXTS, small_model_artifact

ELSEWHERE = """
import json, sys
from langchain_pld import PLDClassifier
from langchain_pld.models.embedded import EmbeddedChatModel

student = EmbeddedChatModel(**json.loads(sys.argv[2]))
classifier = PLDClassifier.from_artifact(sys.argv[1], student=student, timeout_s=120)
print(json.dumps([classifier.invoke(text).probabilities for text in json.load(sys.stdin)]))
"""


@pytest.mark.model
async def test_every_way_of_asking_gives_the_same_probabilities_here_and_in_a_new_process(
    small_model: EmbeddedChatModel, tmp_path: Path
) -> None:
    path = small_model_artifact(fingerprint_of(small_model)).save(tmp_path / "teams.pld.json")
    classifier = PLDClassifier.from_artifact(path, student=small_model, timeout_s=120)

    one_by_one = [classifier.invoke(text).probabilities for text in TEXTS]
    awaited = [(await classifier.ainvoke(text)).probabilities for text in TEXTS]
    batched = [verdict.probabilities for verdict in classifier.batch(TEXTS)]
    options = json.dumps({"model": small_model.model, "n_ctx": small_model.n_ctx, "slots": small_model.slots})
    elsewhere = _in_a_new_process(path, options)

    assert None not in one_by_one
    assert len({json.dumps(found) for found in one_by_one}) > 10  # the texts matter
    assert awaited == one_by_one
    assert batched == one_by_one
    # JSON writes the shortest text that reads back as the very same number.
    assert elsewhere == one_by_one


def _in_a_new_process(path: Path, options: str) -> object:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(path), options],
        input=json.dumps(TEXTS),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)
