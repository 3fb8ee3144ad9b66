"""The `pld` command. Printing belongs here; the library itself only logs."""

from __future__ import annotations

import typer

from langchain_pld._version import __version__
from langchain_pld.cli import batch, classify, demo, distill, evaluate, feedback, models, replay, review, show
from langchain_pld.cli.errors import ExitCodes

__all__ = ["app", "main"]

# Plain help, without boxes: an example can be copied, and nothing heavy is imported for it.
app = typer.Typer(
    name="pld",
    cls=ExitCodes,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Prompt-Level Distillation: labelled examples become a tested rule prompt for a small local model.",
    epilog="""\b
Begin with:
  pld demo                       the whole job on example data, with a local model
  pld distill --help             your own data

\b
Models are named provider:name, e.g. embedded:qwen2.5-coder-1.5b, ollama:gemma3:4b,
google_genai:gemini-2.5-pro.

\b
Exit codes: 0 done; 1 a check failed, e.g. a text has no verdict; 2 bad use or bad input;
3 a run waits for its teacher's answers; 130 stopped by Ctrl-C. Results go to standard output,
all else to standard error.""",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"langchain-pld {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="Show the library's log, and the traceback of an unexpected error."
    ),
) -> None:
    """Both options act before a command runs; `errors.ExitCodes` reads `verbose`."""


app.command("demo", epilog=demo.EXAMPLES)(demo.demo)
app.command("distill", epilog=distill.EXAMPLES)(distill.distill)
app.command("classify", epilog=classify.EXAMPLES)(classify.classify)
app.command("show", epilog=show.EXAMPLES)(show.show)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("replay", epilog=replay.EXAMPLES)(replay.replay)
app.command("review", epilog=review.EXAMPLES)(review.review)
app.add_typer(batch.app, name="batch", epilog=batch.EXAMPLES)
app.add_typer(feedback.app, name="feedback")
app.add_typer(models.app, name="models", epilog=models.EXAMPLES)


def main() -> None:
    """Run the command line."""
    app(prog_name="pld")
