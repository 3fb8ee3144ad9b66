"""How the suite is shared out over processes: a file stays in one of them, and so does the real model."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, for its fixtures; the real model's in one, for the cores.

    Raises:
        pytest.UsageError: A test's name holds an address, so that two processes would know it by two names.
    """
    for item in items:
        if " at 0x" in item.nodeid:
            msg = f"{item.nodeid}: give this case an id, its name is another one in each process"
            raise pytest.UsageError(msg)
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        group = "model" if item.get_closest_marker("model") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
