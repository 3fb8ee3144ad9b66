"""What is asked about one text: one question, two stages, or the same question in several label orders.

A generator without I/O: it yields chats, is sent the replies and returns the scores. Whoever drives it calls the model.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import DistilledPrompt
from langchain_pld.errors import ArtifactError
from langchain_pld.student.prompt import chat, compile_prompt
from langchain_pld.student.scoring import Scores, read_answer
from langchain_pld.student.two_stage import two_stage
from langchain_pld.verdict import Failure

__all__ = ["label_orders", "questions"]

Reply = AIMessage | Failure


def questions(artifact: DistilledPrompt, text: str) -> Generator[list[BaseMessage], Reply, Scores | Failure]:
    """Ask about one text in the way that the artifact sets.

    Args:
        artifact: The distilled prompt.
        text: The input, laid out by the task.

    Returns:
        The scores; a failure as soon as one reply is one or cannot be read.

    Raises:
        ArtifactError: See `label_orders`.
    """
    scorer, mass = artifact.scorer, artifact.min_label_mass
    if artifact.answer.form == "two_stage":
        return (yield from two_stage(artifact.system_prompt, text, artifact.answer, scorer, min_label_mass=mass))
    found: list[Scores] = []
    for answer, prompt in label_orders(artifact):
        reply = yield chat(prompt, text)
        scores = reply if isinstance(reply, Failure) else read_answer(reply, answer, scorer, min_label_mass=mass)
        if isinstance(scores, Failure):
            return scores
        found.append(scores)
    return found[0] if len(found) == 1 else _averaged(found)


def label_orders(artifact: DistilledPrompt) -> list[tuple[AnswerFormat, str]]:
    """The answer format and the system prompt of each label order, the artifact's own first.

    The prompts of the other orders are compiled from the artifact's hashed task, rules and format.

    Raises:
        ArtifactError: This release does not compile the artifact's own prompt to the same bytes, so that the other
            orders would not be those that were scored.
    """
    if artifact.answer.orders == 1 or artifact.scorer != "logprobs":
        return [(artifact.answer, artifact.system_prompt)]
    orders = [(answer, compile_prompt(artifact.task, artifact.rules, answer)) for answer in artifact.answer.rotated()]
    if orders[0][1] != artifact.system_prompt:
        msg = (
            f"{artifact.id} is asked in {artifact.answer.orders} label orders, but this release words its prompt in "
            "another way, so the other orders would not be those that were scored; distil again"
        )
        raise ArtifactError(msg)
    return orders


def _averaged(found: Sequence[Scores]) -> Scores:
    """Mean of the log-probabilities, renormalised."""
    tables = [one.log_probabilities or {} for one in found]
    means = {label: math.fsum(table[label] for table in tables) / len(tables) for label in tables[0]}
    total = math.log(math.fsum(map(math.exp, means.values())))
    return Scores(
        log_probabilities={label: value - total for label, value in means.items()},
        label=max(means, key=means.__getitem__),
        label_mass=math.fsum(one.label_mass or 0.0 for one in found) / len(found),
        evidence=found[0].evidence,
    )
