"""consolidate: micro-rules become rules.

In: screened micro-rules. Out: merged rules within the limits on rules and tokens, at least one per label with
micro-rules; and for the search, other drafts of the same clusters and a pool of rules outside every cluster.
Micro-rules are clustered within each label; the teacher reads each cluster with its texts and contrasting texts of
other labels, and writes one rule. It then rewrites rules of different labels that say nearly the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field

from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.rules.clustering import Clustering, cluster_label
from langchain_pld.distillation.rules.condition import Condition
from langchain_pld.distillation.rules.conflicts import find_conflicts, resolve_conflicts
from langchain_pld.distillation.rules.embeddings import embed_micro_rules
from langchain_pld.distillation.rules.prompt_size import fit_to_budget, token_counter
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.teacher import Teacher, ask_all
from langchain_pld.distillation.search.hill_climbing import strongest_first
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.rules import MicroRule, Rule
from langchain_pld.student.sanitize import clean_text, delimited
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["MergedRule", "consolidate", "merge_messages", "quote"]

_SHOWN_CONDITIONS = 8
_SHOWN_TEXTS = 6
_SHOWN_CHARS = 400

Members = tuple[MicroRule, ...]


class MergedRule(BaseModel):
    """The rule of a cluster."""

    shared: str = Field(min_length=1, max_length=400)
    condition: Condition


async def consolidate(state: DistillationState, run: Run) -> dict[str, Any]:
    """The node."""
    micro_rules, train = state["micro_rules"], await run.store.rows_for_teacher()
    screen = await asyncio.to_thread(Screen.of, run.task, train)
    teacher = run.teacher()
    found = await _cluster(run, micro_rules)
    refused: list[str] = []

    async def merge(members: Members) -> list[Rule]:
        drafts = (_merge(run, members, number, train, teacher, screen) for number in range(run.plan.drafts))
        answers = await ask_all(drafts)
        refused.extend(line for _, lines in answers for line in lines)
        return list({rule.id: rule for rule, _ in answers}.values())

    clusters = [members for clustering in found.values() for members in clustering.groups]
    drafted = await ask_all(map(merge, clusters), run.progress("teacher merges clusters"))
    for line in sorted(refused):
        run.note(line)
    rules = tuple({drafts[0].id: drafts[0] for drafts in drafted}.values())
    rules = await _tell_apart(run, rules, teacher, screen)
    rules, gone = await _within_budget(run, rules)
    noise = [micro for clustering in found.values() for micro in clustering.noise]
    sizes = "; ".join(f"{label} {_sizes(clustering)}" for label, clustering in found.items())
    note = f"{len(micro_rules)} micro-rules became {len(rules)} rules, clusters of {sizes}"
    run.announce(note + (f"; {len(gone)} more did not fit into the prompt" if gone else ""))
    return {
        "rules": list(rules),
        "drafts": {drafts[0].id: drafts[1:] for drafts in drafted if len(drafts) > 1},
        "pool": [*gone, *(Rule.merged(micro.label, micro.condition, (micro,)) for micro in noise)],
    }


def merge_messages(
    task: Task, members: Members, own: list[Example], others: list[Example], *, objection: str = ""
) -> list[BaseMessage]:
    """The question about one cluster, with the objection to an earlier answer."""
    label = members[0].label
    parts = [
        f'The label is "{label}".\n\nConditions:',
        *(f"- {micro.condition}" for micro in members[:_SHOWN_CONDITIONS]),
    ]
    parts += [f'\nTexts labelled "{label}":', *(quote(task, example) for example in own)]
    if others:
        parts += ["\nTexts with other labels:", *(quote(task, example) for example in others)]
    parts += [f"\n{objection}"] if objection else []
    system = fill("merge", instructions=task.instructions, labels=label_lines(task))
    return [SystemMessage(system), HumanMessage("\n".join(parts))]


def quote(task: Task, example: Example) -> str:
    """The text of an example as data in a question to the teacher; long texts are shortened."""
    text = clean_text(task.render(example.input))
    shown = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + " […]"
    return delimited(shown)


def _sizes(clustering: Clustering) -> str:
    """The sizes of the clusters, and the number of micro-rules outside."""
    sizes = ", ".join(str(len(members)) for members in clustering.groups)
    return sizes + (f" ({len(clustering.noise)} in no cluster)" if clustering.noise else "")


async def _cluster(run: Run, micro_rules: Sequence[MicroRule]) -> dict[str, Clustering]:
    """Cluster the micro-rules of each label that has any."""
    vectors = await embed_micro_rules(run, micro_rules)
    found: dict[str, Clustering] = {}
    for label in run.task.label_names:
        places = [place for place, micro in enumerate(micro_rules) if micro.label == label]
        if places:
            found[label] = await asyncio.to_thread(
                cluster_label,
                [micro_rules[place] for place in places],
                vectors[places],
                mode=run.plan.clustering,
                most=run.plan.rules_per_label,
                seed=run.seed,
            )
    for label, clustering in found.items():
        for line in clustering.log:
            run.note(f"{label}: {line}")
    return found


async def _merge(
    run: Run, members: Members, number: int, train: ExampleSet, teacher: Teacher, screen: Screen
) -> tuple[Rule, list[str]]:
    """One draft of a cluster's rule, and what was wrong with the teacher's answers.

    After an objection of the screen the teacher is asked once more. If no condition is usable, the most central
    micro-rule replaces it, preferably one with a gold label. The draft's number and the seed choose the texts shown.
    """
    task, label = run.task, members[0].label
    by_id = {row.id: row for row in train}
    shuffler = random.Random(f"{run.seed} {number} {members[0].id}")
    known = [by_id[micro.source] for micro in members if micro.source in by_id]
    own = shuffler.sample(known, min(_SHOWN_TEXTS, len(known)))
    strangers = [row for row in train if row.label not in (label, None)]
    others = shuffler.sample(strangers, min(run.plan.contrast_examples, len(strangers)))
    texts = [task.render(row.input) for row in (*own, *others)]
    lines: list[str] = []
    objection = ""
    for _ in range(2):
        answer = await teacher.ask(merge_messages(task, members, own, others, objection=objection), MergedRule)
        if isinstance(answer, Failure):
            lines.append(f"{label}: no rule for {len(members)} micro-rules: {answer.message}")
            break
        found = screen.objection(answer.condition, texts)
        if found is None:
            return Rule.merged(label, " ".join(answer.condition.split()), members), lines
        lines.append(f"{label}: the rule of {len(members)} micro-rules {found.reason}")
        objection = found.request
    strongest = next((micro for micro in members if micro.origin == "gold"), members[0])
    return Rule.merged(label, strongest.condition, members), [*lines, f"{lines[-1]}; its strongest one stands for them"]


async def _tell_apart(run: Run, rules: tuple[Rule, ...], teacher: Teacher, screen: Screen) -> tuple[Rule, ...]:
    """The rules after conflicts across labels are resolved."""
    if len(rules) < 2:
        return rules
    as_drafts = [MicroRule(label=rule.label, condition=rule.condition, source=rule.id) for rule in rules]
    vectors = await embed_micro_rules(run, as_drafts)
    conflicts = find_conflicts(rules, vectors, similarity=run.plan.conflict_similarity)
    if not conflicts:
        return rules
    rules, lines = await resolve_conflicts(rules, conflicts, teacher, screen)
    for one in conflicts:
        run.note(
            f"{one.first.id} ({one.first.label}) and {one.second.id} ({one.second.label}) say nearly the same, "
            f"cosine {one.similarity:.2f}"
        )
    for line in lines:
        run.note(line)
    return rules


async def _within_budget(run: Run, rules: tuple[Rule, ...]) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """The rules that the prompt has room for, and the rest."""
    task, plan = run.task, run.plan
    count = await asyncio.to_thread(token_counter, run.student)
    return await asyncio.to_thread(
        fit_to_budget,
        task,
        strongest_first(rules),
        AnswerFormat.letters(task) if len(task.labels) <= 26 else AnswerFormat.two_stage(task),
        plan,
        count,
    )
