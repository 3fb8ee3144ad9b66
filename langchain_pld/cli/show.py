"""`pld show`: what an artifact holds."""

from __future__ import annotations

import json
from pathlib import Path

import typer

__all__ = ["EXAMPLES", "show"]

EXAMPLES = """\b
Examples:
  pld show chat.pld.json
  pld show chat.pld.json --prompt > prompt.txt"""


def show(
    artifact: Path = typer.Argument(metavar="ARTIFACT", help="A *.pld.json file."),
    prompt: bool = typer.Option(False, "--prompt", help="The system prompt alone, as it is sent."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Show an artifact: labels, rules, scores and how its run ended. No model is asked."""
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.cli.distill import show_scores
    from langchain_pld.cli.tables import output, printable, rules_list

    content = DistilledPrompt.load(artifact)
    if prompt:
        typer.echo(content.system_prompt)
        return
    if as_json:
        typer.echo(json.dumps({"id": content.id, **content.model_dump(mode="json")}))
        return
    for line in str(content).splitlines():
        typer.echo(printable(line))
    typer.echo(f"\n{printable(content.task.instructions)}")
    for label in content.task.labels:
        typer.echo(f"  {label.name}" + (f": {printable(label.description)}" if label.description else ""))
    typer.echo()
    output().print(rules_list(content))
    typer.echo()
    show_scores(content)
