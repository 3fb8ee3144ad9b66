"""`pld models`: the embedded models."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List, fetch and locate the models that run inside the process.")


@app.command("list")
def list_models(as_json: bool = typer.Option(False, "--json", help="One JSON object on standard output.")) -> None:
    """List the embedded models and whether they are in the cache."""
    import json

    from langchain_pld.models.catalogue import CATALOGUE
    from langchain_pld.models.fetch import cached_model

    rows = [
        {
            "name": entry.name,
            "megabytes": round(entry.size / 1e6),
            "cached": cached_model(entry) is not None,
            "licence": entry.licence,
            "description": entry.description,
        }
        for entry in CATALOGUE
    ]
    if as_json:
        typer.echo(json.dumps({"models": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "size", "cached", "licence", "what it is")
    for row in rows:
        table.add_row(
            str(row["name"]),
            f"{row['megabytes']} MB",
            "yes" if row["cached"] else "no",
            str(row["licence"]),
            str(row["description"]),
        )
    Console().print(table)


@app.command("fetch")
def fetch(name: str = typer.Argument(help="A name of `pld models list`.")) -> None:
    """Fetch a model into the cache and verify it. Resumes where it was interrupted."""
    from langchain_pld.cli.progress import fetching
    from langchain_pld.models.fetch import model_path

    with fetching(name) as show:
        path = model_path(name, progress=show)
    typer.echo(str(path))


@app.command("path")
def path(name: str = typer.Argument(help="A name of `pld models list`.")) -> None:
    """Print where a fetched model lies; exit 1 when it is not in the cache."""
    from langchain_pld.cli.errors import CHECK_FAILED
    from langchain_pld.models.catalogue import catalogue_entry
    from langchain_pld.models.fetch import cached_model

    found = cached_model(catalogue_entry(name))
    if found is None:
        typer.echo(f"pld: {name} is not in the cache; run: pld models fetch {name}", err=True)
        raise typer.Exit(CHECK_FAILED)
    typer.echo(str(found))
