"""The overview of a run for people: counts, samples, figures, the prompt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.run.store import ChosenRow, RunStore, content_key
from langchain_pld.distillation.search.candidates import ScoredCandidate
from langchain_pld.distillation.state import DistillationState, Overview
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.evaluation.metrics import confusion_tables, macro_f1
from langchain_pld.examples import ExampleSet
from langchain_pld.rules import MicroRule, Rule
from langchain_pld.student.prompt import compile_prompt

__all__ = ["overview", "validation_figures"]

T = TypeVar("T")

_EACH = 2
_MOST = 12
_LENGTH = 240


async def overview(state: DistillationState, run: RunStore) -> Overview:
    """The overview of the state after a node."""
    chosen = await run.chosen()
    some = _some(chosen, lambda row: str(row.example.label))
    found = await run.get_many("explanations", [content_key(row.example) for row in some])
    shown = Overview(
        rows={role: data.rows for role, data in state["data"].items()},
        labels=dict(Counter(str(row.example.label) for row in chosen)),
        explanations=[
            _explanation(state, row, found[key]) for row in some if (key := content_key(row.example)) in found
        ],
    )
    if "micro_rules" in state:
        micro_rules = state["micro_rules"]
        shown["micro_rules"] = dict(Counter(micro.label for micro in micro_rules))
        shown["sample_micro_rules"] = [_rule(micro) for micro in _some(micro_rules, lambda micro: micro.label)]
    rules: Sequence[Rule] | None = state.get("rules")
    if "artifact" in state:
        rules, shown["prompt"] = state["artifact"].rules, state["artifact"].system_prompt
    elif "champion" in state:
        best = state["champion"]
        rules, shown["prompt"] = best.rules, compile_prompt(state["task"], best.rules, best.answer)
    if rules is not None:
        shown["rules"] = [f"{_rule(rule)} ({rule.support} examples)" for rule in rules[:_MOST]]
    if state.get("proposals"):
        shown["proposals"] = [_short(f"{one.name}: {one.cause}") for one in state["proposals"][:_MOST]]
    shown["spent"] = _costs(state.get("ledger", ()))
    return shown


def validation_figures(
    prompts: Mapping[str, ScoredCandidate | None], rows: ExampleSet, labels: Sequence[str]
) -> dict[str, Any]:
    """The figures of prompts on the validation rows; names without a prompt are left out."""
    gold = gold_labels(rows)
    return {
        name: {
            "macro_f1": round(float(macro_f1(confusion_tables(gold, one.predictions, labels).sum(axis=0))), 4),
            "log_loss": round(one.loss, 4),
        }
        for name, one in prompts.items()
        if one is not None
    }


def _some(items: Iterable[T], label_of: Callable[[T], str]) -> list[T]:
    """The first few of each label."""
    by_label: dict[str, list[T]] = defaultdict(list)
    for item in items:
        by_label[label_of(item)].append(item)
    return [item for found in by_label.values() for item in found[:_EACH]][:_MOST]


def _explanation(state: DistillationState, row: ChosenRow, kept: Mapping[str, Any]) -> str:
    text = _short(state["task"].render(row.example.input), _LENGTH // 2)
    explanation = kept["explanation"]["reason"] if "explanation" in kept else f"failed: {kept['failed']['message']}"
    return _short(f"{row.example.label}: {text!r}: {explanation}")


def _rule(rule: Rule | MicroRule) -> str:
    return _short(f"{rule.condition} -> {rule.label}")


def _costs(lines: Sequence[LedgerLine]) -> str:
    costs = [line.cost for line in lines]
    money = "price not known" if None in costs else f"{sum(cost or 0.0 for cost in costs):.4f} USD"
    tokens = sum(line.input_tokens + line.output_tokens for line in lines)
    return f"{sum(line.calls for line in lines)} calls, {tokens} tokens, {money}"


def _short(text: str, most: int = _LENGTH) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]} […]"
