"""Asking about more labels than one answer can show: the best label of each group, then the best of those.

The system prompt lists every group with the letters of its labels, one line per group, and is the same for all
questions, so its prefix is cached. A question is the text followed by the labels to choose from: first each group's own
line, byte for byte, then the best label of each group. The student never has to find a label's group, which would mean
nothing to it.

The answers are joined by Luce's choice axiom (R. D. Luce, Individual Choice Behavior, 1959): the odds between two
labels do not depend on the other options. A label's probability is its group's share of the last answer, times its
probability in the group relative to the best one there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import DistilledPrompt
from langchain_pld.steps import Steps
from langchain_pld.student.sanitize import CleanText, delimited
from langchain_pld.student.scoring import LOG_FLOOR, Scores, read_answer
from langchain_pld.verdict import Failure

__all__ = ["first_question", "group_line", "group_question", "last_line", "two_stage"]


def two_stage(
    artifact: DistilledPrompt, text: CleanText, ask: Callable[[list[BaseMessage]], Steps[AIMessage | Failure]]
) -> Steps[Scores | Failure]:
    """Decide about one text; one unreadable answer makes the whole unreadable."""
    prompt, answer, content = artifact.system_prompt, artifact.answer, delimited(text)
    of_group: dict[str, Scores] = {}
    for group, labels in answer.groups.items():
        if len(labels) == 1:
            of_group[group] = Scores(log_probabilities={labels[0]: 0.0}, label=labels[0], label_mass=None)
            continue
        reply = yield from ask(group_question(prompt, content, answer, group))
        scores = _read(reply, answer.member_letters(group), artifact)
        if isinstance(scores, Failure):
            return scores
        of_group[group] = scores
    best = {group: scores.label for group, scores in of_group.items()}
    last = _read((yield from ask(_last_question(prompt, content, best))), answer.best_letters(best), artifact)
    if isinstance(last, Failure) or last.log_probabilities is None:
        return last
    return _joint_scores(last, of_group, answer)


def first_question(system_prompt: str, text: CleanText, answer: AnswerFormat) -> tuple[list[BaseMessage], AnswerFormat]:
    """The first question about a text, and its answer format."""
    content = delimited(text)
    for group, labels in answer.groups.items():
        if len(labels) > 1:
            return group_question(system_prompt, content, answer, group), answer.member_letters(group)
    best = {group: labels[0] for group, labels in answer.groups.items()}
    return _last_question(system_prompt, content, best), answer.best_letters(best)


def group_question(system_prompt: str, content: str, answer: AnswerFormat, group: str) -> list[BaseMessage]:
    """A first-stage question: the delimited text, then the group's line of the system prompt, byte for byte.

    Raises:
        ValueError: The system prompt lacks that line, so it was written for another answer format.
    """
    start = _line_start(answer, group)
    line = next((line for line in system_prompt.split("\n") if line.startswith(start)), None)
    if line is None:
        msg = f"the system prompt does not list group {group}; compile it with this answer format"
        raise ValueError(msg)
    return [SystemMessage(system_prompt), HumanMessage(f"{content}\n\n{line}")]


def group_line(answer: AnswerFormat, group: str, descriptions: dict[str, str]) -> str:
    """The line of the system prompt that lists a group."""
    labels = []
    for name in answer.groups[group]:
        description = " ".join(descriptions.get(name, "").split())
        labels.append(f"{answer.codes[name][1]} = {name}" + (f" ({description.rstrip('.')})" if description else ""))
    return f"Group {group}: {', '.join(labels)}"


def last_line(best: Mapping[str, str]) -> str:
    """The line of the last question: one label of each group, with the group's letter."""
    return f"Best of each group: {', '.join(f'{group} = {label}' for group, label in best.items())}"


def _last_question(system_prompt: str, content: str, best: Mapping[str, str]) -> list[BaseMessage]:
    return [SystemMessage(system_prompt), HumanMessage(f"{content}\n\n{last_line(best)}")]


def _line_start(answer: AnswerFormat, group: str) -> str:
    name = answer.groups[group][0]
    return f"Group {group}: {answer.codes[name][1]} = {name}"


def _read(reply: AIMessage | Failure, answer: AnswerFormat, artifact: DistilledPrompt) -> Scores | Failure:
    if isinstance(reply, Failure):
        return reply
    return read_answer(reply, answer, artifact.scorer, min_label_mass=artifact.min_label_mass)


def _joint_scores(last: Scores, of_group: Mapping[str, Scores], answer: AnswerFormat) -> Scores:
    """One distribution over all labels; the last answer's choice is the likeliest."""
    shares, joint = last.log_probabilities or {}, {}
    for scores in of_group.values():
        members = scores.log_probabilities or {}
        for label, value in members.items():
            joint[label] = max(shares[scores.label] + value - members[scores.label], LOG_FLOOR)
    total = math.log(math.fsum(map(math.exp, joint.values())))
    return Scores(
        log_probabilities={label: joint[label] - total for label in answer.labels},
        label=last.label,
        # The result is only as good as the weakest answer.
        label_mass=min(one.label_mass for one in (last, *of_group.values()) if one.label_mass is not None),
    )
