"""Each of the twenty failure modes has a test that carries its number."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path


def test_each_of_the_twenty_failure_modes_has_a_test() -> None:
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for name, number in re.findall(
            r"^(?:async )?def (test_mode_(\d\d)_\w+)", path.read_text("utf-8"), re.MULTILINE
        ):
            found[int(number)].append(name)
    assert sorted(found) == list(range(1, 21))
