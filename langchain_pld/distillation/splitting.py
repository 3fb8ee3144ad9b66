"""One file of labelled rows split into data roles."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from langchain_pld.distillation.roles import Role, text_key
from langchain_pld.errors import ExampleError
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.task import Task

__all__ = ["split_examples"]


def split_examples(
    task: Task, rows: ExampleSet, *, validation: float = 0.3, test: float = 0.0, seed: int = 0
) -> dict[Role, ExampleSet]:
    """Split rows into train, validation and optionally test rows, in file order.

    Rows of a group and rows with the same text stay together. Label shares are the same in each role, as far as groups
    allow: group by group, rarest label first, each goes to the role that most lacks its labels (iterative
    stratification, Sechidis et al. 2011). Unlabelled rows and their groups become train rows.

    Args:
        task: The task of the rows.
        rows: The rows of the file.
        validation: Share of the labelled rows for validation.
        test: Share of the labelled rows for the test; 0 for no test rows.
        seed: Seed of the choice among ties.

    Raises:
        ExampleError: The shares leave nothing for training, or a label has fewer groups than there are roles.
    """
    shares: dict[Role, float] = {"train": 1 - validation - test, "validation": validation, "test": test}
    if min(shares.values()) < 0 or shares["train"] <= 0 or validation <= 0:
        msg = f"shares of {validation:g} for validation and {test:g} for test leave no rows for one of the roles"
        raise ExampleError(msg)
    shares = {role: share for role, share in shares.items() if share > 0}
    blocks = _blocks(task, rows)
    with_label = [block for block in blocks if all(row.label is not None for row in block)]
    chosen = _assign(task, with_label, shares, seed)
    role_of = {row.id: role for role, found in chosen.items() for block in found for row in block}
    return {
        role: ExampleSet(
            source=f"{rows.source} ({role})",
            examples=tuple(row for row in rows if role_of.get(row.id, "train") == role),
        )
        for role in shares
    }


def _blocks(task: Task, rows: ExampleSet) -> list[list[Example]]:
    """The rows that must stay together: one group, one text, and what these connect."""
    first: dict[tuple[str, str], int] = {}
    edges: list[tuple[int, int]] = []
    for place, row in enumerate(rows):
        keys = [("text", text_key(task, row.input))] + ([("group", row.group)] if row.group is not None else [])
        edges += [(place, first.setdefault(key, place)) for key in keys]
    count = len(rows)
    own, other = zip(*edges, strict=True) if edges else ((), ())
    graph = coo_array(([1] * len(edges), (own, other)), shape=(count, count))
    _, numbers = connected_components(graph, directed=False)
    blocks: dict[int, list[Example]] = defaultdict(list)
    for number, row in zip(numbers, rows, strict=True):
        blocks[int(number)].append(row)
    return list(blocks.values())


def _assign(
    task: Task, blocks: list[list[Example]], shares: dict[Role, float], seed: int
) -> dict[Role, list[list[Example]]]:
    counts = [Counter(str(row.label) for row in block) for block in blocks]
    total = sum(counts, Counter())
    groups = Counter(label for count in counts for label in count)
    few = [label for label in task.label_names if groups[label] < len(shares)]
    if few:
        msg = (
            f"the label {few[0]!r} has {groups[few[0]]} groups of rows, too few for {len(shares)} data roles; "
            "add rows, or give a file for each role"
        )
        raise ExampleError(msg)
    lacking = {role: {label: share * total[label] for label in total} for role, share in shares.items()}
    holds: dict[Role, Counter[str]] = {role: Counter() for role in shares}
    chosen: dict[Role, list[list[Example]]] = {role: [] for role in shares}
    order = list(range(len(blocks)))
    random.Random(seed).shuffle(order)
    # The rarest label first, and its largest blocks first: the last ones are easy to fit in.
    order.sort(key=lambda n: (min(groups[label] for label in counts[n]), -len(blocks[n])))
    for n in order:
        rarest = min(counts[n], key=lambda label: (groups[label], label))
        role = max(shares, key=lambda role: (not holds[role][rarest], lacking[role][rarest] / shares[role]))
        for label, count in counts[n].items():
            lacking[role][label] -= count
        holds[role] += counts[n]
        chosen[role].append(blocks[n])
    return chosen
