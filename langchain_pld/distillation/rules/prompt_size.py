"""How many rules a prompt may hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_core.language_models import BaseChatModel

from langchain_pld.answer import AnswerFormat
from langchain_pld.rules import Rule
from langchain_pld.student.chunks import estimated_tokens
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.providers import tokenizer_of
from langchain_pld.task import Task

__all__ = ["fit", "token_counter"]


def token_counter(student: BaseChatModel) -> Callable[[str], int]:
    """Counts the tokens of a text with the student's own tokenizer, or estimates them from above; may load a model."""
    tokenizer = tokenizer_of(student)
    if tokenizer is None:
        return estimated_tokens
    return lambda text: len(tokenizer(text))


def fit(
    task: Task,
    rules: Sequence[Rule],
    answer: AnswerFormat,
    *,
    most_rules: int,
    most_tokens: int,
    count: Callable[[str], int],
) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """The rules that fit, and those that had to go: the ones with the least support, but no label's last rule first.

    Args:
        task: The task.
        rules: The rules in the order of the prompt.
        answer: The answer form that the prompt asks for.
        most_rules: Rules at most.
        most_tokens: Tokens of the compiled prompt at most.
        count: Counts tokens.
    """
    kept, gone = list(rules), []
    while kept and (len(kept) > most_rules or count(compile_prompt(task, kept, answer)) > most_tokens):
        labels = [rule.label for rule in kept]
        weakest = min(kept, key=lambda rule: (labels.count(rule.label) == 1, rule.support, rule.id))
        kept.remove(weakest)
        gone.append(weakest)
    return tuple(kept), tuple(gone)
