"""Fitting the rules into the prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from langchain_core.language_models import BaseChatModel

from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.plan import Plan
from langchain_pld.rules import Rule
from langchain_pld.student.chunks import estimated_tokens
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.providers import tokenizer_of
from langchain_pld.task import Task

__all__ = ["fit_to_budget", "token_counter"]


def token_counter(student: BaseChatModel) -> Callable[[str], int]:
    """A token counter: the student's own tokenizer, or else a high estimate. May load the model."""
    tokenizer = tokenizer_of(student)
    return estimated_tokens if tokenizer is None else lambda text: len(tokenizer(text))


def fit_to_budget(
    task: Task, rules: Sequence[Rule], answer: AnswerFormat, plan: Plan, count_tokens: Callable[[str], int]
) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Split rules, in prompt order, into those that fit the plan's limits on rules and prompt tokens, and the rest.

    The rules with the least support are dropped first, but no label's last rule before the others.
    """
    kept, dropped = list(rules), []
    while kept and (
        len(kept) > plan.most_rules or count_tokens(compile_prompt(task, kept, answer)) > plan.most_prompt_tokens
    ):
        labels = Counter(rule.label for rule in kept)
        weakest = min(kept, key=lambda rule: (labels[rule.label] == 1, rule.support, rule.id))
        kept.remove(weakest)
        dropped.append(weakest)
    return tuple(kept), tuple(dropped)
