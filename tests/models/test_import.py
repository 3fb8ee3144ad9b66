"""What `import langchain_pld.models` costs and offers."""

import subprocess
import sys

import langchain_pld.models


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    program = (
        "import sys, langchain_pld.models; "
        "print([m for m in ('pydantic', 'langchain_core', 'httpx', 'xllamacpp', 'numpy') if m in sys.modules])"
    )

    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in langchain_pld.models.__all__:
        assert getattr(langchain_pld.models, name) is not None
    assert dir(langchain_pld.models) == sorted(langchain_pld.models.__all__)
