"""Faults seeded into the policy and parser modules, one at a time: `python -m tests.mutation`.

Each fault changes one place of one module in a copy of the package: a comparison is turned, a condition negated, a
status or action swapped, a `raise` or `return` taken out, `and` and `or` exchanged. The tests of that module run on the
copy and must fail. A seeded sample is taken; survivors are listed with their line. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[2]
FAST = "not (stream or subgraph or chain or node-a)"
NO_VERDICT = "tests/guardrail/failure_modes/test_no_verdict.py"
MODULES = {
    "langchain_pld/guardrail/policy.py": ["tests/guardrail/test_policy.py", "tests/guardrail/test_check.py"],
    "langchain_pld/guardrail/guard.py": ["tests/guardrail/test_check.py", "tests/guardrail/test_audit.py", NO_VERDICT],
    "langchain_pld/student/token_logprobs.py": [
        "tests/student/test_scoring.py",
        "tests/student/test_hostile_answers.py",
    ],
    "langchain_pld/student/first_tokens.py": ["tests/student/test_scoring.py", "tests/student/test_probe.py"],
    "langchain_pld/student/scoring.py": ["tests/student/test_scoring.py", "tests/student/test_probe.py", NO_VERDICT],
}
_PAIRS = ((ast.Eq, ast.NotEq), (ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Is, ast.IsNot), (ast.In, ast.NotIn))
OPPOSITES: dict[Any, Any] = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
Change = Callable[[Any], ast.AST]
SWAPS = {
    "block": "allow", "allow": "block", "flag": "block", "interrupt": "allow", "raise": "allow", "escalate": "allow",
    "clear": "violation", "violation": "clear", "uncertain": "clear", "error": "clear",
    "failed": "decided", "decided": "failed", "abstained": "decided",
    "cut": "unreadable", "empty": "unreadable", "unreadable": "cut",
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    module: str
    line: int
    what: str
    source: str


def faults(module: str) -> Iterator[Fault]:
    """Every fault that can be seeded into a module."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    for number, node in enumerate(ast.walk(tree)):
        for what, change in changes(node):
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[number]
            new = change(target)
            if new is not target:
                replace(changed, target, new)
            yield Fault(module, node.lineno, what, ast.unparse(ast.fix_missing_locations(changed)))


def changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITES:
        other = OPPOSITES[type(node.ops[0])]
        yield f"{ast.unparse(node)}: {other.__name__}", lambda n: ast.Compare(n.left, [other()], n.comparators)
    if isinstance(node, ast.If | ast.IfExp):
        yield f"not ({ast.unparse(node.test)})", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test)) or n
    if isinstance(node, ast.BoolOp):
        joint = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{ast.unparse(node)}: {joint.__name__}", lambda n: ast.BoolOp(joint(), n.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in SWAPS:
        yield f"{node.value!r} becomes {SWAPS[node.value]!r}", lambda n: ast.Constant(SWAPS[n.value])
    if isinstance(node, ast.Raise) or (isinstance(node, ast.Return) and node.value is not None):
        yield f"without: {ast.unparse(node)}", lambda n: ast.Pass()


def replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                setattr(parent, name, [new if entry is old else entry for entry in value])


def is_caught(fault: Fault) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        copy_root = Path(folder)
        for part in ("langchain_pld", "tests"):
            shutil.copytree(ROOT / part, copy_root / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy_root)
        (copy_root / fault.module).write_text(fault.source, encoding="utf-8")
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not model", "-k", FAST, "--timeout", "60"]
        command = [sys.executable, "-m", "pytest", *options, *MODULES[fault.module]]
        environment = {**os.environ, "PYTHONPATH": folder}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=40, help="how many to seed")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--minutes", type=float, default=15, help="no new fault is seeded after so long")
    options = parser.parse_args()
    possible = [fault for module in MODULES for fault in faults(module)]
    chosen = Random(options.seed).sample(possible, min(options.faults, len(possible)))
    ends = time.monotonic() + 60 * options.minutes

    def seed(fault: Fault) -> bool | None:
        if time.monotonic() > ends:
            return None
        caught = is_caught(fault)
        print(f"{'caught  ' if caught else 'SURVIVED'} {fault.module}:{fault.line} {fault.what}", flush=True)
        return caught

    with ThreadPoolExecutor(2) as pool:
        outcomes = [caught for caught in pool.map(seed, chosen) if caught is not None]
    print(json.dumps({"possible": len(possible), "seeded": len(outcomes), "caught": sum(outcomes)}))


if __name__ == "__main__":
    main()
