"""What the decision model says where langchain-core has no interface for it."""

import sys
from importlib import import_module

import pytest

from langchain_pld.errors import ModelSetupError

MODULE = "langchain_pld.student.decision_model"


def test_an_older_core_is_an_import_error_that_names_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    # Makes a newer one look older; an older one has no such module anyway.
    monkeypatch.setitem(sys.modules, "langchain_core.decisions", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ImportError, match=r"needs langchain-core 1\.8 or newer.*pip install") as caught:
        import_module(MODULE)
    assert isinstance(caught.value, ModelSetupError)
