"""Bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import pytest

from langchain_pld.artifact import LedgerLine
from langchain_pld.cli.progress import StepBars
from langchain_pld.cli.spending import estimate_table, ledger_table
from langchain_pld.distillation.estimate import estimate
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.run.progress import Progress
from tests.distillation.scenarios import TASK, rows


@pytest.fixture(params=["pipe", "terminal"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    return str(request.param)


def test_a_finished_step_leaves_one_line_and_results_stay_on_stdout(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with StepBars() as bars:
        bars.wait("loading")
        for done in range(1, 4):
            bars.update("reading [rows]", done, 3)
            print(done)
        bars.update("reading [rows]", 3, 3)
    out, err = capsys.readouterr()
    assert out == "1\n2\n3\n"
    assert err.count("reading [rows]: 3/3 in 0:00") == 1
    assert ("time left" in err) == (place == "terminal")


def test_a_run_shows_steps_and_the_notes_of_nodes(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with StepBars() as bars:
        bars.distilling(Progress(node="generate", step="teacher explains examples", done=1, total=2))
        bars.distilling(Progress(node="generate", step="teacher explains examples", done=2, total=2))
        bars.distilling(Progress(node="generate", step="done", done=2, total=2, note="generate: 2 of 2 explained"))
        bars.distilling(Progress(node="validate", step="done", done=1, total=1, note="[no] gain"))
    err = capsys.readouterr().err
    assert "generate: teacher explains examples: 2/2 in 0:00" in err
    assert err.count("generate: 2 of 2 explained") == 1
    assert "validate: [no] gain" in err


def test_a_step_after_one_that_was_cut_short_has_its_own_time(
    place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("langchain_pld.cli.progress.time.monotonic", lambda: now)

    def tries(rule: str, done: int) -> Progress:
        return Progress(node="validate", step=f"student tries rule {rule}", done=done, total=10)

    with StepBars() as bars:
        bars.distilling(tries("a", 0))
        now = 180.0
        bars.distilling(tries("a", 5))
        now = 200.0
        bars.distilling(Progress(node="validate", step="try", note="validate: rule a: stopped after 5 of 10 rows"))
        bars.distilling(tries("b", 0))
        now = 234.0
        bars.distilling(tries("b", 10))
    err = capsys.readouterr().err
    assert "rule a: stopped after 5 of 10 rows" in err
    assert "student tries rule b: 10/10 in 0:34" in err


def test_the_cost_so_far_stands_beside_the_steps(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with StepBars() as bars:
        bars.distilling(Progress(node="generate", step="explains", done=1, total=2))
        bars.distilling(Progress(node="generate", step="spending", cost=0.0123))
        bars.distilling(Progress(node="generate", step="explains", done=2, total=2))
    err = capsys.readouterr().err
    assert "generate: explains: 2/2 in 0:00, 0.0123 USD so far" in err
    assert "spending" not in err


def test_a_step_that_is_cut_off_ends_without_a_line(capsys: pytest.CaptureFixture[str], place: str) -> None:
    with pytest.raises(KeyboardInterrupt), StepBars() as bars:
        bars.update("reading", 1, 3)
        raise KeyboardInterrupt
    assert "3/3" not in capsys.readouterr().err


def test_bytes_are_shown_as_megabytes_and_end_whole(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with StepBars() as bars:
        show = bars.fetching("small")
        for done in (0, 1_500_000, 2_400_000, 2_400_000):
            show(done, 2_400_000, "download")
    assert capsys.readouterr().err.count("download small (MB): 3/3 in 0:00") == 1


@pytest.mark.parametrize("columns", ["300", "80"])
def test_a_table_in_a_log_file_keeps_its_columns_and_is_not_as_wide_as_a_screen(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", columns)
    table = estimate_table(
        estimate(
            TASK,
            PLANS["medium"],
            train=rows("train", 20),
            validation=rows("validation", 60),
            teacher="openai:gpt-4o-mini",
            students=["ollama:qwen2.5"],
        )
    )
    with StepBars() as bars:
        bars.show(table)
    err = capsys.readouterr().err
    assert max(map(len, err.splitlines())) <= 110
    for column in ("model", "tokens out", "minutes", "How the calls were counted:"):
        assert column in err


def test_the_ledger_is_in_the_order_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = ("validate", "test", "generate")
    with StepBars() as bars:
        bars.show(ledger_table(LedgerLine(node=node, model="ollama:fake", calls=1) for node in nodes))
    shown = [line.split()[0] for line in capsys.readouterr().err.splitlines() if line.split()]
    assert [word for word in shown if word in nodes] == ["generate", "validate", "test"]
