"""The `pld` command. Printing belongs here; the library itself only logs."""

from __future__ import annotations

import sys

import typer

from langchain_pld._version import __version__
from langchain_pld.cli import classify, demo, distill, evaluate, models
from langchain_pld.cli.errors import BAD_INPUT, echo_warnings
from langchain_pld.errors import PLDError

__all__ = ["app", "main"]

app = typer.Typer(
    name="pld",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Prompt-Level Distillation: labelled examples become a tested rule prompt for a small local model.\n\n"
    "Begin with `pld demo`. Exit codes: 0 done, 1 a check failed, 2 bad use or bad input.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"langchain-pld {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("distill")(distill.distill)
app.command("classify")(classify.classify)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line: an error that the package raises on purpose is one line, not a traceback."""
    echo_warnings()
    try:
        app()
    except PLDError as error:
        typer.echo(f"pld: {error}", err=True)
        sys.exit(BAD_INPUT)
