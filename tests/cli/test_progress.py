"""Bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import pytest

from langchain_pld.cli.progress import StepBars
from langchain_pld.distillation.progress import Progress


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
