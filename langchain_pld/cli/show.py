"""`pld show`: what an artifact holds."""

from __future__ import annotations

import typer

from langchain_pld.cli.options import ArtifactFile, Json
from langchain_pld.cli.printing import output, print_json, printable

__all__ = ["EXAMPLES", "show"]

EXAMPLES = """\b
Examples:
  pld show chat.pld.json
  pld show chat.pld.json --prompt > prompt.txt"""


def show(
    artifact: ArtifactFile,
    prompt: bool = typer.Option(False, "--prompt", help="Print the system prompt alone, as it is sent."),
    as_json: Json = False,
) -> None:
    """Show the labels, rules and scores of an artifact.

    No model is asked.
    """
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.cli.tables import print_scores, rules_list

    content = DistilledPrompt.load(artifact)
    if prompt:
        typer.echo(content.system_prompt)
        return
    if as_json:
        print_json({"id": content.id, **content.model_dump(mode="json")})
        return
    for line in str(content).splitlines():
        typer.echo(printable(line))
    typer.echo(f"\n{printable(content.task.instructions)}")
    for label in content.task.labels:
        typer.echo(f"  {label.name}" + (f": {printable(label.description)}" if label.description else ""))
    typer.echo()
    output().print(rules_list(content))
    typer.echo()
    print_scores(content)
