"""Asking about more labels than one answer can show: first for a group of labels, then for the label in it.

The system prompt lists every group with the letters of its labels, one line a group, and is the same for both
questions. The second question is the first message again with one of those lines behind the text. So nothing is asked
that is not in the artifact's hashed system prompt, and both questions share its cached prefix.

A label's probability is P(group) * P(label | group). The likeliest groups are asked until they hold a set share of the
probability; the labels of the others share their group's equally.
"""

from __future__ import annotations

import math
from collections.abc import Generator

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.student.hardening import clean_text, delimited
from langchain_pld.student.scoring import LOG_FLOOR, Scores, read_answer
from langchain_pld.verdict import Failure

__all__ = ["COVERED", "MOST_GROUPS", "group_line", "group_question", "two_stage"]

COVERED = 0.9
"""Groups are asked until they hold this share of the probability."""

MOST_GROUPS = 3
"""Most groups that are asked about one text."""


def two_stage(
    system_prompt: str,
    text: str,
    answer: AnswerFormat,
    scorer: Scorer,
    *,
    min_label_mass: float = 0.0,
    covered: float = COVERED,
    most_groups: int = MOST_GROUPS,
) -> Generator[list[BaseMessage], AIMessage | Failure, Scores | Failure]:
    """Decide about one text: yields the chats to ask one after another, is sent the replies, returns the scores.

    Where the scorer gives no probabilities, the one group that was answered is asked. An answer that cannot be read
    makes the whole unreadable.

    Args:
        system_prompt: The artifact's.
        text: The input, laid out; it is cleaned and delimited here.
        answer: A format of the form `two_stage`.
        scorer: How answers are read.
        min_label_mass: Below this probability on valid answers, an answer is unreadable.
        covered: Share of the probability, 0 to 1, that the asked groups hold.
        most_groups: Most groups to ask.
    """
    content = delimited(clean_text(text))
    reply = yield [SystemMessage(system_prompt), HumanMessage(content)]
    first = _read(reply, answer.group_letters(), scorer, min_label_mass)
    if isinstance(first, Failure):
        return first
    groups = answer.groups
    shares = first.log_probabilities or {first.label: 0.0}
    within: dict[str, Scores] = {}
    reached = 0.0
    for group in sorted(shares, key=shares.__getitem__, reverse=True)[:most_groups]:
        if within and reached >= covered:
            break
        reached += math.exp(shares[group])
        if len(groups[group]) == 1:
            label = groups[group][0]
            within[group] = Scores(log_probabilities={label: 0.0}, label=label, label_mass=first.label_mass)
            continue
        reply = yield group_question(system_prompt, content, answer, group)
        second = _read(reply, answer.member_letters(group), scorer, min_label_mass)
        if isinstance(second, Failure):
            return second
        within[group] = second
    if first.log_probabilities is None:
        return within[first.label]
    return _joined(first, within, answer)


def group_question(system_prompt: str, content: str, answer: AnswerFormat, group: str) -> list[BaseMessage]:
    """The second question: the delimited text, then the group's own line of the system prompt, byte for byte.

    Raises:
        ValueError: The system prompt has no such line, so it was not written for this answer format.
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


def _line_start(answer: AnswerFormat, group: str) -> str:
    name = answer.groups[group][0]
    return f"Group {group}: {answer.codes[name][1]} = {name}"


def _read(reply: AIMessage | Failure, answer: AnswerFormat, scorer: Scorer, min_label_mass: float) -> Scores | Failure:
    if isinstance(reply, Failure):
        return reply
    return read_answer(reply, answer, scorer, min_label_mass=min_label_mass)


def _joined(first: Scores, within: dict[str, Scores], answer: AnswerFormat) -> Scores:
    """One distribution over all labels."""
    groups, shares = answer.groups, first.log_probabilities or {}
    joint: dict[str, float] = {}
    for group, labels in groups.items():
        asked = within[group].log_probabilities if group in within else None
        for label in labels:
            joint[label] = shares[group] + (asked[label] if asked else -math.log(len(labels)))
    floored = {label: max(joint[label], LOG_FLOOR) for label in answer.labels}
    total = math.log(math.fsum(map(math.exp, floored.values())))
    scores = {label: value - total for label, value in floored.items()}
    weights = {group: math.exp(shares[group]) for group in within}
    mass = math.fsum(weights[group] * (one.label_mass or 0.0) for group, one in within.items())
    return Scores(
        log_probabilities=scores,
        label=max(scores, key=scores.__getitem__),
        label_mass=(first.label_mass or 0.0) * mass / math.fsum(weights.values()),
    )
