"""The artifact file: it comes back equal, or is refused."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from langchain_pld import DistilledPrompt, Label, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, DataFingerprint, Gate, Interval, ModelFingerprint, ScoreCard
from langchain_pld.errors import ArtifactError
from langchain_pld.rules import Rule

TASK = Task(name="mood", instructions="Decide.", labels=[Label(name="glad"), Label(name="sad")])
EXACT = Interval(value=0.1, low=1 / 3, high=0.7)


def distilled(**changes: Any) -> DistilledPrompt:
    fields = {
        "task": TASK,
        "rules": (Rule.merged("sad", "It mourns.", ()), Rule.merged("glad", "It laughs.", ())),
        "system_prompt": "Decide – süß.",
        "answer": AnswerFormat.words(TASK),
        "calibration": Calibration(method="batch", labels=TASK.label_names, bias=(0.1, -0.3), rows=60),
        "gate": Gate(alpha=0.1, threshold=0.7, label_thresholds={"sad": None}),
        "student": ModelFingerprint(spec="ollama:x", digest="d"),
        "data": {"train": DataFingerprint(sha256="0", rows=3, source="rows.csv")},
        "scores": (
            ScoreCard(name="x", role="test", rows=3, student="-", calibrated=False, macro_f1=EXACT, accuracy=EXACT),
        ),
    }
    return DistilledPrompt(**{**fields, **changes})


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"])),
    weights=st.none() | st.tuples(st.tuples(finite, finite), st.tuples(finite, finite)),
    bias=st.none() | st.tuples(finite, finite),
    mass=st.floats(0, 1),
)
def test_what_is_saved_comes_back_equal(prompt: str, weights: Any, bias: Any, mass: float) -> None:
    calibration = Calibration(method="affine", labels=TASK.label_names, weights=weights, bias=bias)
    artifact = distilled(system_prompt=prompt, calibration=calibration, min_label_mass=mass)
    with tempfile.TemporaryDirectory() as folder:
        back = DistilledPrompt.load(artifact.save(Path(folder) / "a.pld.json"))
    assert back == artifact
    assert back.id == artifact.id
    assert back.system_prompt == prompt


def test_saving_makes_folders_and_leaves_one_readable_file(tmp_path: Path) -> None:
    path = distilled().save(tmp_path / "new" / "a.pld.json")
    distilled().save(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.pld.json"]
    assert "süß" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["id"] == distilled().id


def test_half_of_a_surrogate_pair_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="surrogate"):
        distilled(notes=("half \ud83d",)).save(tmp_path / "a.pld.json")
    assert list(tmp_path.iterdir()) == []


def test_the_id_follows_the_content() -> None:
    assert distilled().id == distilled().id
    assert distilled().id.startswith("mood@")
    assert distilled(seed=1).id != distilled().id
    assert distilled(seed=1).prompt_sha256 == distilled().prompt_sha256


def test_rules_are_found_by_label() -> None:
    assert [rule.condition for rule in distilled().rules_for("sad")] == ["It mourns."]


@pytest.mark.parametrize("file", sorted((Path(__file__).parent / "artifacts").iterdir()), ids=lambda file: file.stem)
def test_a_file_that_an_earlier_release_wrote_loads_and_verifies(tmp_path: Path, file: Path) -> None:
    loaded = DistilledPrompt.load(file)
    loaded.require_usable()
    assert DistilledPrompt.load(loaded.save(tmp_path / "again.pld.json")) == loaded
    assert [rule.effect for rule in loaded.rules] == [0.04, None]
    assert loaded.gate is not None
    assert loaded.gate.admits("sales", 0.8)
    assert loaded.calibration.apply({"sales": -0.5, "support": -1.0})["sales"] == pytest.approx(0.66, abs=0.01)
    assert (loaded.review is not None) == (loaded.schema_version == 2)
    path = tmp_path / "changed.pld.json"
    path.write_text(file.read_text(encoding="utf-8").replace("0.81", "0.99"), encoding="utf-8")
    with pytest.raises(ArtifactError, match="the content was changed after it was scored"):
        DistilledPrompt.load(path)


def test_an_artifact_keeps_its_id() -> None:
    assert DistilledPrompt.load(Path(__file__).parent / "artifacts" / "schema-2.pld.json").id == "mail@bdb57ab8bb16"


def changed(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed("system_prompt", "Say glad."), "the system prompt was changed after it was scored"),
        (lambda document: document["calibration"].update(bias=[0.0, 0.0]), "the content was changed after it was"),
        (lambda document: document["gate"].update(threshold=0.1), "the content was changed after it was"),
        (changed("min_label_mass", 0.0), "the content was changed after it was"),
        (changed("schema_version", 99), "has schema version 99, this release reads up to 2; upgrade"),
        (changed("schema_version", "1"), "has schema version '1'"),
        (changed("kind", "other"), "is not an artifact: it is JSON, but lacks the kind of one"),
        (changed("extra", 1), "is damaged at extra"),
        (lambda document: document["calibration"].update(bias=[0.0]), "is damaged at calibration"),
        (lambda document: document.pop("prompt_sha256"), "the system prompt was changed"),
        (lambda document: document.pop("content_sha256"), "the content was changed"),
    ],
    ids=[
        "prompt",
        "calibration",
        "gate",
        "mass",
        "newer_schema",
        "odd_schema",
        "kind",
        "extra_key",
        "shape",
        "no_prompt_hash",
        "no_content_hash",
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], expected: str) -> None:
    path = distilled().save(tmp_path / "a.pld.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        DistilledPrompt.load(path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no artifact at"),
        (b"", "is not an artifact"),
        (b"not json", "is not an artifact"),
        (b"\xff\xfe", "is not an artifact"),
        (b"[" * 100_000, "is not an artifact"),
        (b"[]", "lacks the kind"),
        (b"{}", "lacks the kind"),
    ],
)
def test_a_file_that_is_no_artifact_is_refused(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "a.pld.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        DistilledPrompt.load(path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"calibration": Calibration(labels=("glad", "bad"))}, "must cover exactly the task's labels glad, sad"),
        ({"answer": AnswerFormat(codes={"glad": "A", "bad": "B"})}, "must cover exactly the task's labels"),
        ({"rules": (Rule.merged("bad", "x", ()),)}, "rules argue for unknown labels: bad"),
    ],
)
def test_an_artifact_that_contradicts_its_task_cannot_be_distilled(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        distilled(**changes)
