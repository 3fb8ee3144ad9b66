"""A file as people have it: other headers, semicolons; from distillation to scores."""

from __future__ import annotations

import json
from pathlib import Path

from langchain_pld.guardrail.audit import input_hash
from tests.cli.conftest import Files, Run
from tests.servers.ollama import OllamaServer
from tests.teams import ollama_script, rows

HEADERS = ("--text-column", "Comment Text", "--label-column", "category")


def exported(folder: Path) -> Path:
    path = folder / "Export 2026.csv"
    lines = [f'"{row.input}";{row.label}' for row in rows("export", 60)]
    path.write_text("\ufeffComment Text;Category\r\n" + "\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    return path


def test_a_semicolon_file_with_other_headers_goes_from_distillation_to_scores(pld: Run, files: Files) -> None:
    data, out = exported(files.folder), files.folder / "teams.pld.json"
    model = ("--teacher", "ollama:fake", "--student", "ollama:fake")
    with OllamaServer(ollama_script) as server:
        done = pld("distill", files.task, "--data", data, *HEADERS, *model, "--out", out, host=server.url)
        assert done.exit_code == 0, done.stderr
        assert "note: Export 2026.csv: read as columns separated by semicolons" in done.stderr
        scored = pld("evaluate", out, "--data", data, *HEADERS, "--json", host=server.url)
        assert scored.exit_code == 0, scored.stderr
        (run,) = (files.folder / ".pld" / "runs").glob("teams-*")
        resumed = pld("distill", "--resume", run, "--json", host=server.url)
        assert json.loads(resumed.stdout)["artifact"] == str(out), resumed.stderr
        verdicts = pld("classify", out, "--input", data, *HEADERS[:2], "--json", host=server.url)
    assert json.loads(scored.stdout)["score"]["rows"] == 60
    assert len(json.loads(verdicts.stdout)["verdicts"]) == 60


def test_without_the_header_the_columns_are_listed_with_the_way_out(pld: Run, files: Files) -> None:
    done = pld("distill", files.task, "--data", exported(files.folder), "--out", files.folder / "teams.pld.json")
    assert done.exit_code == 2
    assert "no column 'text'; found: Comment Text, Category; name it with --text-column" in done.stderr


def test_a_label_column_that_is_not_there_is_told_before_any_work(pld: Run, files: Files) -> None:
    flags = ("--text-column", "Comment Text", "--label-column", "Categorie")
    done = pld("distill", files.task, "--data", exported(files.folder), *flags, "--out", files.folder / "a.pld.json")
    assert done.exit_code == 2
    assert "no column 'Categorie'; found: Comment Text, Category; name it with --label-column" in done.stderr


def test_people_and_replays_find_their_texts_in_such_a_file(pld: Run, files: Files, artifact: Path) -> None:
    data = exported(files.folder)
    first = rows("export", 1)[0]
    assert isinstance(first.input, str)
    log = files.folder / "audit.jsonl"
    person = {"event": "person", "guard": "teams", "label": "green", "answer": "block"}
    check = {"event": "check", "guard": "teams", "status": "decided", "verdict": first.label}
    log.write_text(
        "".join(json.dumps({**one, "input_hash": input_hash(first.input)}) + "\n" for one in (person, check))
    )
    out = files.folder / "people.jsonl"
    sources = ("--task", files.task, "--audit", log, "--texts", data, "--validation", data, *HEADERS)
    found = pld("feedback", "import", *sources, "--out", out, "--json")
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["counts"]["validation"] == 1
    with OllamaServer(ollama_script) as server:
        texts = ("--texts", data, *HEADERS[:2], "--json")
        replayed = pld("replay", log, "--artifact", artifact, *texts, host=server.url)
    assert json.loads(replayed.stdout)["counts"]["without_text"] == 0, replayed.stderr
