"""`pld models`: the embedded models."""

from __future__ import annotations

from pathlib import Path

import typer

from langchain_pld.cli.errors import CHECK_FAILED
from langchain_pld.cli.options import Json
from langchain_pld.cli.printing import complain, output, print_json, table

__all__ = ["EXAMPLES", "app"]

EXAMPLES = """\b
Examples:
  pld models list
  pld models fetch smollm2-135m
  pld models fetch qwen2.5-coder-1.5b --from ~/Downloads/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf
  pld models path smollm2-135m

\b
The files are in the user's cache folder, or in LANGCHAIN_PLD_CACHE. As a student or teacher, such a
model is called embedded:NAME; any other .gguf file is embedded:/path/to/file.gguf."""

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, fetch and locate the models that run inside the process."
)


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the embedded models, and which of them are here."""
    from langchain_pld.models.catalogue import CATALOGUE
    from langchain_pld.models.fetch import cached_model

    if as_json:
        rows = [
            {
                **{key: getattr(entry, key) for key in ("name", "licence", "description", "sha256")},
                "bytes": entry.size,
                "megabytes": round(entry.size / 1e6),
                "cached": cached_model(entry) is not None,
            }
            for entry in CATALOGUE
        ]
        print_json({"models": rows})
        return
    listed = table("", ("name", "size", "cached", "licence", "what it is"), ())
    for entry in CATALOGUE:
        cached = "yes" if cached_model(entry) else "no"
        listed.add_row(entry.name, f"{entry.size / 1e6:,.0f} MB", cached, entry.licence, entry.description)
    output().print(listed)


@app.command("fetch")
def fetch(
    name: str = typer.Argument(metavar="NAME", help="A name of `pld models list`."),
    local: Path | None = typer.Option(
        None, "--from", metavar="FILE", help="A copy of the file, instead of a download."
    ),
) -> None:
    """Fetch a model into the cache and print its path.

    The file is verified by its SHA-256. An interrupted fetch goes on where it stopped.
    """
    from langchain_pld.cli.embedded import fetch_with_bar
    from langchain_pld.models.catalogue import catalogue_entry

    typer.echo(str(fetch_with_bar(catalogue_entry(name), local=local)))


@app.command("path")
def path(name: str = typer.Argument(metavar="NAME", help="A name of `pld models list`.")) -> None:
    """Print where a fetched model lies.

    Exit code 1 when it is not in the cache.
    """
    from langchain_pld.models.catalogue import catalogue_entry
    from langchain_pld.models.fetch import cached_model

    found = cached_model(catalogue_entry(name))
    if found is None:
        complain(f"{name} is not in the cache; run: pld models fetch {name}")
        raise typer.Exit(CHECK_FAILED)
    typer.echo(str(found))
