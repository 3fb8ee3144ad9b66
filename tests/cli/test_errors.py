"""How a command ends: exit codes, one-line reasons, plain warnings, and what a start imports."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import typer
from typer.testing import CliRunner

from langchain_pld.cli.errors import ExitCodes
from langchain_pld.errors import ArtifactError, DistillationError, MissingExtraError, ModelSetupError, StudentError
from langchain_pld.verdict import Failure


def app_that_raises(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=ExitCodes, pretty_exceptions_enable=False)

    @app.callback()
    def root(verbose: bool = False) -> None:
        pass

    @app.command()
    def work() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ArtifactError("no artifact at x"), 2, "no artifact at x"),
        (ModelSetupError("no such model"), 2, "no such model"),
        (MissingExtraError.of("xllamacpp", "embedded"), 2, 'run: pip install "langchain-pld[embedded]"'),
        (PermissionError(13, "Permission denied", "out.json"), 2, "out.json: Permission denied"),
        (DistillationError("too many calls failed"), 1, "too many calls failed"),
        (StudentError(Failure(kind="timeout", message="no answer")), 1, "timeout: no answer"),
        (RuntimeError("a bug"), 1, "unexpected RuntimeError: a bug. For the traceback: pld -v"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(error: BaseException, code: int, line: str) -> None:
    done = CliRunner().invoke(app_that_raises(error), ["work"])
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr.startswith("pld: ")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_verbose_keeps_the_traceback_of_an_unexpected_error_only() -> None:
    bug = CliRunner().invoke(app_that_raises(RuntimeError("a bug")), ["--verbose", "work"])
    assert isinstance(bug.exception, RuntimeError)
    expected = CliRunner().invoke(app_that_raises(ArtifactError("no artifact")), ["--verbose", "work"])
    assert expected.exit_code == 2


def test_a_warning_is_one_plain_line() -> None:
    app = typer.Typer(cls=ExitCodes)

    @app.callback()
    def root(verbose: bool = False) -> None:
        pass

    @app.command()
    def work() -> None:
        warnings.warn("another student", UserWarning, stacklevel=1)

    assert CliRunner().invoke(app, ["work"]).stderr == "warning: another student\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["distill", "--help"], ["classify", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from langchain_pld.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'langgraph', 'langchain_core', 'ollama', 'numpy', 'sklearn', 'rich', 'httpx', 'xllamacpp'}\n"
        "    print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("command", ["demo", "distill", "classify", "evaluate", "models"])
def test_each_help_teaches_by_examples_that_can_be_copied(command: str) -> None:
    from langchain_pld.cli import app

    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Examples:" in done.stdout
    assert f"\n    pld {command} " in done.stdout.replace("\n    pld demo\n", "\n    pld demo \n")
