"""What the names of models cost to import."""

import subprocess
import sys


def test_nothing_heavy_is_imported_to_list_and_fetch_models() -> None:
    program = (
        "import sys, langchain_pld.models.catalogue, langchain_pld.models.fetch, langchain_pld.models.resolve; "
        "heavy = ('pydantic', 'langchain_core', 'httpx', 'huggingface_hub', 'xllamacpp', 'numpy'); "
        "print([module for module in heavy if module in sys.modules])"
    )

    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"
