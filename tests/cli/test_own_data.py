"""A file as people have it: other headers, semicolons; from distillation to scores."""

from __future__ import annotations

import json
from pathlib import Path

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
        scored = pld("evaluate", out, "--data", data, *HEADERS, "--json", host=server.url)
        assert scored.exit_code == 0, scored.stderr
        verdicts = pld("classify", out, "--input", data, *HEADERS[:2], "--json", host=server.url)
    assert json.loads(scored.stdout)["score"]["rows"] == 60
    assert len(json.loads(verdicts.stdout)["verdicts"]) == 60


def test_without_the_header_the_columns_are_listed_with_the_way_out(pld: Run, files: Files) -> None:
    done = pld("distill", files.task, "--data", exported(files.folder), "--out", files.folder / "teams.pld.json")
    assert done.exit_code == 2
    assert "no column 'text'; found: Comment Text, Category; name it with --text-column" in done.stderr
