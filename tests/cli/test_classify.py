"""`pld classify`, with the real Ollama client as the student."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from langchain_pld import DistilledPrompt, Task, Verdict
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, ModelFingerprint
from langchain_pld.student.prompt import compile_prompt
from tests.cli.conftest import Run
from tests.servers.fake_answers import FakeAnswer, user_text
from tests.servers.ollama import OllamaModel, OllamaServer
from tests.teams import ollama_script


@pytest.fixture
def pair_artifact(tmp_path: Path) -> Path:
    """An artifact whose task has two fields."""
    task = Task(name="pair", instructions="Compare.", labels=[{"name": "same"}, {"name": "other"}], fields=("a", "b"))
    answer = AnswerFormat.words(task)
    return DistilledPrompt(
        task=task,
        system_prompt=compile_prompt(task, (), answer),
        answer=answer,
        calibration=Calibration.identity(task.label_names),
        student=ModelFingerprint(spec="ollama:fake"),
    ).save(tmp_path / "pair.pld.json")


def lines_of(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_a_line_is_a_whole_verdict_with_its_id(pld: Run, artifact: Path) -> None:
    with OllamaServer(ollama_script) as server:
        done = pld("classify", artifact, "an invoice", "my password", host=server.url)
    assert done.exit_code == 0, done.stderr
    lines = lines_of(done.stdout)
    assert [(line["id"], line["status"], line["label"]) for line in lines] == [
        ("1", "decided", "amber"),
        ("2", "decided", "green"),
    ]
    assert lines[1]["confidence"] == lines[1]["probabilities"]["green"] == pytest.approx(0.9 / 0.98)
    assert lines[1]["calibrated"] is True
    assert lines[1]["failure"] is None
    verdict = Verdict.model_validate({key: value for key, value in lines[1].items() if key != "id"})
    assert verdict.artifact_id == DistilledPrompt.load(artifact).id


def test_the_order_of_the_input_is_kept_when_later_answers_come_first(pld: Run, artifact: Path) -> None:
    def slow_at_first(request: dict[str, Any]) -> FakeAnswer:
        late = 0.3 if "first" in user_text(request) else 0.0
        return FakeAnswer.picking({"amber": 0.9, "green": 0.05}, delay_s=late)

    stdin = "first\n" + "".join(f"later {number}\n" for number in range(80))
    with OllamaServer(slow_at_first) as server:
        done = pld("classify", artifact, host=server.url, stdin=stdin)
    assert [line["id"] for line in lines_of(done.stdout)] == [str(number) for number in range(1, 82)]


def test_lines_of_standard_input_are_texts_and_blank_ones_are_left_out(pld: Run, artifact: Path) -> None:
    with OllamaServer(ollama_script) as server:
        done = pld("classify", artifact, host=server.url, stdin="\ufeffa parcel\r\n\n  \nan invoice")
    assert [(line["id"], line["label"]) for line in lines_of(done.stdout)] == [("1", "violet"), ("4", "amber")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", '{"id": "x", "text": "my password"}\n{"text": "a parcel", "label": "green"}\n'),
        ("rows.csv", 'id,text\nx,my password\n,"a parcel"\n'),
    ],
)
def test_rows_of_a_file_become_lines_of_another(
    pld: Run, artifact: Path, tmp_path: Path, name: str, content: str
) -> None:
    source, target = tmp_path / name, tmp_path / "verdicts.jsonl"
    source.write_text(content, encoding="utf-8")
    with OllamaServer(ollama_script) as server:
        done = pld("classify", artifact, "--input", source, "--output", target, host=server.url)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    lines = lines_of(target.read_text(encoding="utf-8"))
    assert [line["label"] for line in lines] == ["green", "violet"]
    assert lines[0]["id"] == "x"
    assert "student reads the texts: 2/2" in done.stderr


def test_a_failed_verdict_is_a_line_among_the_others(pld: Run, artifact: Path) -> None:
    def mute_on_parcels(request: dict[str, Any]) -> FakeAnswer:
        return FakeAnswer() if "parcel" in user_text(request) else ollama_script(request)

    with OllamaServer(mute_on_parcels) as server:
        done = pld("classify", artifact, "an invoice", "a parcel", "my password", host=server.url)
    assert done.exit_code == 1
    lines = lines_of(done.stdout)
    assert [line["status"] for line in lines] == ["decided", "failed", "decided"]
    assert lines[1]["label"] is None
    assert lines[1]["failure"]["kind"] == "empty"
    assert "1 of 3 texts have no verdict (empty 1)" in done.stderr


def test_json_is_one_object_with_counts(pld: Run, artifact: Path, tmp_path: Path) -> None:
    target = tmp_path / "verdicts.jsonl"
    with OllamaServer(ollama_script) as server:
        inline = pld("classify", artifact, "an invoice", "a parcel", "--json", host=server.url)
        to_file = pld("classify", artifact, "an invoice", "--json", "--output", target, host=server.url)
    whole = json.loads(inline.stdout)
    assert whole["counts"] == {"decided": 2, "abstained": 0, "failed": 0}
    assert [verdict["label"] for verdict in whole["verdicts"]] == ["amber", "violet"]
    assert whole["student"] == "ollama:fake"
    summary = json.loads(to_file.stdout)
    assert "verdicts" not in summary
    assert summary["output"] == str(target)
    assert lines_of(target.read_text())[0]["label"] == "amber"


def test_fields_come_from_options_or_from_objects_on_standard_input(pld: Run, pair_artifact: Path) -> None:
    with OllamaServer(FakeAnswer.picking({"same": 0.7, "other": 0.3})) as server:
        options = pld("classify", pair_artifact, "--field", "a=x=1", "--field", "b=y", host=server.url)
        stdin = '{"a": "x", "b": "y", "note": "ignored"}\nplain\n{"a": "x"}\n'
        piped = pld("classify", pair_artifact, host=server.url, stdin=stdin)
        asked = [user_text(request.body or {}) for request in server.requests if request.path == "/api/chat"]
    assert options.exit_code == 0, options.stderr
    assert "a: x=1\nb: y" in asked[0]
    assert piped.exit_code == 1
    assert [line["status"] for line in lines_of(piped.stdout)] == ["decided", "failed", "failed"]
    assert lines_of(piped.stdout)[1]["failure"]["kind"] == "input"


def test_another_student_is_told_plainly_and_is_not_called_calibrated(pld: Run, artifact: Path) -> None:
    with OllamaServer(ollama_script, models=(OllamaModel(name="other:latest"),)) as server:
        done = pld("classify", artifact, "a parcel", "--student", "ollama:other", host=server.url)
    assert done.exit_code == 0, done.stderr
    assert "warning: this is not the student that teams@" in done.stderr
    assert ".py" not in done.stderr
    assert lines_of(done.stdout)[0]["calibrated"] is False


def test_no_character_of_a_row_can_steer_the_terminal(pld: Run, artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"id": "a\\u001b[2J\\u009b", "text": "a parcel"}\n', encoding="utf-8")
    with OllamaServer(ollama_script) as server:
        done = pld("classify", artifact, "--input", source, host=server.url)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.rstrip("\n").isprintable()
    assert lines_of(done.stdout)[0]["id"] == "a\x1b[2J\x9b"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["a text", "--field", "a=1"], None, "give texts, --input or --field, not several of them"),
        (["--field", "nonsense"], None, "'nonsense' is not NAME=VALUE"),
        (["--field", "a=1", "--field", "a=2"], None, "'a=2' names a field twice"),
        (["--input", "none.jsonl"], None, "no example file at none.jsonl"),
        (["--input", "x.jsonl", "--output", "./x.jsonl"], None, "would overwrite the input"),
        (["--student", "nothing", "a text"], None, "'nothing' names no model"),
        ([], b"fine\n\xff\xfe\n", "standard input, line 2: byte 0 is not UTF-8"),
    ],
)
def test_bad_use_is_told_and_ends_with_2(
    pld: Run, artifact: Path, arguments: list[str], stdin: bytes | None, message: str
) -> None:
    with OllamaServer(ollama_script) as server:
        done = pld("classify", artifact, *arguments, host=server.url, stdin=stdin)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_ctrl_c_keeps_the_lines_that_are_there(artifact: Path, tmp_path: Path) -> None:
    def stuck_after_a_few(request: dict[str, Any]) -> FakeAnswer:
        number = int(user_text(request).split()[2])
        return FakeAnswer.picking({"amber": 0.9, "green": 0.1}, delay_s=30 if number > 3 else 0)

    source, target = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    arguments = ["classify", str(artifact), "--input", str(source), "--output", str(target)]
    source.write_text("".join(f'{{"text": "note {number} x"}}\n' for number in range(1, 40)), encoding="utf-8")
    with OllamaServer(stuck_after_a_few) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", "from langchain_pld.cli import main; main()", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={"OLLAMA_HOST": server.url, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        )
        for _ in range(600):
            if target.exists() and target.read_text().count("\n") == 3:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=15)
    assert process.returncode == 130, stderr
    assert "pld: stopped; 3 verdicts are whole, in the order of the input" in stderr
    assert [line["id"] for line in lines_of(target.read_text())] == ["row-1", "row-2", "row-3"]


def test_a_reader_that_leaves_early_gets_no_traceback(artifact: Path) -> None:
    with OllamaServer(ollama_script) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", "from langchain_pld.cli import main; main()", "classify", str(artifact)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"OLLAMA_HOST": server.url, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        )
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.write(b"a parcel\n" * 3)
        process.stdin.close()
        stderr = process.stderr.read().decode()
        process.wait(15)
        process.stderr.close()
    assert process.returncode == 1
    assert "Traceback" not in stderr
