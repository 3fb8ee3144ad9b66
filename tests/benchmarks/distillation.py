"""What distilling brings: `python -m tests.benchmarks.distillation --help`.

For each set below FOLDER and each seed: macro-F1 on test rows, raw and calibrated on validation rows, of the zero-shot
prompt, of eight labelled examples in the prompt, of rules written by a person (as written), and of the distilled
prompt, with the paired difference to zero-shot; beside it what distilling took. Teacher and student are the embedded
model. Train rows are drawn evenly over the labels, the other rows as they come, so that their shares of labels are the
set's own. FILE is YAML: set to instructions, labels and rules. Each run is kept in a file of its own in OUT, and one
that is there is not made again: a stopped measurement goes on. The data are public benchmarks of third parties
and no part of the project.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from langgraph.store.memory import InMemoryStore
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from langchain_pld import Task, adistill, read_examples
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, DistilledPrompt, ScoreCard
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.plan import PLANS, Budget
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.spending import BudgetSpent, Spending
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.search.answer_formats import student_formats
from langchain_pld.distillation.search.candidates import Candidate
from langchain_pld.distillation.search.racing import stratified_order
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.distillation.search.student_probes import learn_tokens
from langchain_pld.evaluation.comparison import compare
from langchain_pld.evaluation.evaluate import Predictions, gold_labels, score_card
from langchain_pld.examples import ExampleSet
from langchain_pld.models.catalogue import DEFAULT_MODEL
from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.student.prompt import chat
from langchain_pld.student.sanitize import clean_text
from tests.benchmarks._report import progress_line, table
from tests.benchmarks._rows import draw

SETS = ("stereoset_bias_type", "hatecheck", "moderation_openai", "unfair_tos")
# A column that gives much away alone: what naive Bayes makes of it on all train rows stands beside the other scores.
ALONE = {"contract_nli": "hypothesis"}
WORDS = {
    # Names that begin alike cannot be told apart by their first token; a task file would name other words, as here.
    "unfair_tos": {
        "arbitration": "arbitration",
        "choice_of_law": "law",
        "content_removal": "removal",
        "contract_by_using": "acceptance",
        "jurisdiction": "court",
        "limitation_of_liability": "liability",
        "unilateral_change": "change",
        "unilateral_termination": "termination",
        "other": "other",
    },
    "contract_nli": {"entailment": "yes", "contradiction": "no", "not_mentioned": "unstated"},
}
# Sets that FILE does not define; nobody wrote rules for them.
DEFINITIONS: dict[str, dict[str, Any]] = {
    "unfair_tos": {
        "instructions": "Decide which kind of unfair clause a sentence of a service's terms is, if any.",
        "labels": {
            "arbitration": "disputes go to an arbitrator, not to a court",
            "choice_of_law": "says which country's or state's law governs",
            "content_removal": "the provider may remove or alter the user's content as it sees fit",
            "contract_by_using": "the user is bound by merely using or visiting the service",
            "jurisdiction": "says which court or place disputes are brought to",
            "limitation_of_liability": "the provider is not liable, or only up to a limit",
            "unilateral_change": "the provider may change the terms or the service by itself",
            "unilateral_termination": "the provider may suspend or end the account or the service by itself",
            "other": "none of these",
        },
        "rules": [],
    },
}
SHOTS = 8


class VariantScorer(StudentScorer):
    """Scores candidates under a changed system prompt."""

    def __init__(self, plain: StudentScorer, change: Callable[[str], str]) -> None:
        super().__init__(plain.run, plain.fingerprint, plain.scorer)
        self._change = change

    def artifact(self, candidate: Candidate, calibration: Calibration | None = None) -> DistilledPrompt:
        plain = super().artifact(candidate, calibration)
        return plain.model_copy(update={"system_prompt": self._change(plain.system_prompt)})


def with_prose_rules(prompt: str, rules: str) -> str:
    """A prompt with a person's rules as they were written, filed under no label."""
    labels, _, rest = prompt.partition("\n\nThe next message holds")
    return f"{labels}\n\nRules:\n{rules}\n\nThe next message holds{rest}"


def task_of(name: str, definition: dict[str, Any]) -> Task:
    return Task(
        name=name,
        instructions=definition["instructions"],
        labels=[{"name": label, "description": text} for label, text in definition["labels"].items()],
        verbalizers=[WORDS[name]] if name in WORDS else [],
    )


def draw_evenly(rows: ExampleSet, count: int, seed: int) -> ExampleSet:
    """At most `count` rows, the labels in turn, for as long as they have any."""
    piles: dict[str, list[Any]] = {}
    for row in draw(rows, len(rows), seed):
        piles.setdefault(str(row.label), []).append(row)
    turns = [pile[turn] for turn in range(count) for _, pile in sorted(piles.items()) if turn < len(pile)]
    return ExampleSet(source=rows.source, examples=tuple(turns[:count]))


def shown(task: Task, rows: ExampleSet, answer: AnswerFormat) -> str:
    """Labelled examples as the prompt shows them, laid out like the text to classify."""
    return "\n".join(
        f"{chat('', clean_text(task.render(row.input)))[-1].text}\n{answer.codes[str(row.label)]}" for row in rows
    )


def in_prose(rules: Sequence[str], answer: AnswerFormat) -> str:
    """A person's rules, numbered; a label that the student calls otherwise has that word behind its name.

    Such a rule may speak of several labels or of none, so it is not given an arrow to one of them.
    """
    names = "|".join(re.escape(name) for name in sorted(answer.codes, key=len, reverse=True))

    def titled(found: re.Match[str]) -> str:
        code = answer.codes[found[0]]
        return found[0] if code == found[0] else f"{found[0]} ({code})"

    whole = re.compile(rf"(?<![\w-])(?:{names})(?![\w-])")
    return "\n".join(f"{n}. {whole.sub(titled, rule.strip())}" for n, rule in enumerate(rules, 1))


async def run(name: str, seed: int, definition: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is told about one set and one seed."""
    task = task_of(name, definition)
    folder = options.data / name
    train = draw_evenly(read_examples(folder / "train.jsonl", task), options.train, seed)
    validation = draw(read_examples(folder / "validation.jsonl", task), options.validation, seed)
    test = draw(read_examples(folder / "test.jsonl", task), options.test, seed)
    model = EmbeddedChatModel(model=DEFAULT_MODEL)
    await asyncio.to_thread(model.load)

    def progress(step: str) -> Callable[[int, int], None]:
        return progress_line(f"{name} {seed}, {step}")

    def on_progress(event: Progress) -> None:
        progress(f"{event.node}: {event.step}")(event.done, event.total)

    store, started = InMemoryStore(), time.monotonic()
    artifact = await adistill(
        task,
        train=train,
        validation=validation,
        test=test,
        teacher=model,
        student=model,
        effort=PLANS["light"].model_copy(update={"clustering": options.clustering}),
        seed=seed,
        on_progress=on_progress,
        store=store,
        run_id=name,
    )
    minutes = (time.monotonic() - started) / 60
    cards = [card for card in artifact.scores if card.role == "test"]
    if name in ALONE:
        cards.insert(0, _alone(task, folder, ALONE[name], test, seed))

    answer = artifact.answer
    # In the order in which the run scored them: the folds of a calibration depend on it.
    validation = stratified_order(validation, seed)
    # The run's own Store: what the student was asked in it is not asked again.
    kept, config = RunStore(store, name), DistillConfig(seed=seed)
    run = await Run.open("benchmark", task=task, plan=PLANS["light"], store=kept, student=model, config=config)
    scorer = StudentScorer(run, await run.student_fingerprint(), artifact.scorer)
    shots = shown(task, draw_evenly(read_examples(folder / "train.jsonl", task), SHOTS, seed), answer)
    variants = {f"{SHOTS}-shot": VariantScorer(scorer, lambda prompt: f"{prompt}\n\nExamples:\n{shots}")}
    if definition["rules"]:
        rules = in_prose(definition["rules"], answer)
        variants["rules by a person"] = VariantScorer(scorer, lambda prompt: with_prose_rules(prompt, rules))
    predictions = {}
    if artifact.rules:
        shipped = Candidate(rules=artifact.rules, answer=answer)
        _, predictions["distilled"] = await _cards(scorer, shipped, "distilled", validation, test, progress)
    if options.clustering == "auto":
        for prompt, variant in variants.items():
            found = await _cards(variant, Candidate(answer=answer), prompt, validation, test, progress)
            cards += found[0]
            predictions[prompt] = found[1]
    plain = await _zero_shot(scorer, validation, test)
    return {
        "set": name,
        "seed": seed,
        "clustering": options.clustering,
        "rows": {"train": len(train), "validation": len(validation), "test": len(test)},
        "shipped": "rules" if artifact.rules else "zero-shot",
        "finish_reason": artifact.finish_reason,
        "notes": list(artifact.notes),
        "rules": len(artifact.rules),
        "answer": list(answer.codes.values()),
        "cards": [_figures(card) for card in cards],
        "against_zero_shot": {prompt: _paired(test, task, of, plain) for prompt, of in predictions.items()},
        "calls": sum(line.calls for line in artifact.ledger),
        "tokens": sum(line.input_tokens + line.output_tokens for line in artifact.ledger),
        "minutes": round(minutes, 1),
    }


def _alone(task: Task, folder: Path, column: str, test: ExampleSet, seed: int) -> ScoreCard:
    """Naive Bayes on the words of one column."""
    lines = {role: (folder / f"{role}.jsonl").read_text(encoding="utf-8").splitlines() for role in ("train", "test")}
    train, rows = ([json.loads(line) for line in lines[role]] for role in ("train", "test"))
    shown = {row["id"]: row[column] for row in rows}
    model = make_pipeline(CountVectorizer(), MultinomialNB())
    model.fit([row[column] for row in train], [row["label"] for row in train])
    predicted = [str(label) for label in model.predict([shown[row.id] for row in test])]
    name = f"{column} alone, naive Bayes ({len(train)} rows)"
    return score_card(task, test, Predictions(predicted), name=name, role="test", seed=seed)


async def _cards(
    scorer: StudentScorer, candidate: Candidate, name: str, validation: ExampleSet, test: ExampleSet, progress: Any
) -> tuple[list[ScoreCard], list[str | None]]:
    """Score cards on the test rows, and the labels given to them."""
    scored = await scorer.validate(candidate, validation, progress(f"{name}, validation"))
    scores = await scorer.score(candidate, test, "test", progress(f"{name}, test"))
    return scorer.cards(scored, test, name=name, role="test", scores=scores), scored.predict(scores)


async def _zero_shot(scorer: StudentScorer, validation: ExampleSet, test: ExampleSet) -> list[str | None]:
    """The labels that the zero-shot prompt gave in the run: the one whose test rows were read."""
    formats = await student_formats(scorer.run, PLANS["light"].answer_forms)
    learned = [await learn_tokens(scorer.run, answer, scorer.scorer) for answer in formats]
    scorer.run = replace(scorer.run, spending=Spending(Budget(calls=0)))
    for answer in learned:
        candidate = Candidate(answer=answer)
        try:
            scores = await scorer.score(candidate, test, "test")
            return (await scorer.validate(candidate, validation)).predict(scores)
        except BudgetSpent:  # not in the Store
            continue
    msg = "the run has read the test rows with none of the zero-shot prompts"
    raise LookupError(msg)


def _paired(test: ExampleSet, task: Task, new: list[str | None], plain: list[str | None]) -> dict[str, Any]:
    found = compare(gold_labels(test), new, plain, task.label_names, [row.group for row in test])
    return {
        "difference": round(found.difference.value, 3),
        "interval": [round(found.difference.low, 3), round(found.difference.high, 3)],
        "mcnemar_p": round(found.mcnemar_p, 3),
    }


def _figures(card: ScoreCard) -> dict[str, Any]:
    return {
        "prompt": card.name,
        "calibrated": card.calibrated,
        "macro_f1": round(card.macro_f1.value, 3),
        "interval": [round(card.macro_f1.low, 3), round(card.macro_f1.high, 3)],
        "ece": None if card.ece is None else round(card.ece, 3),
        "failed": card.failed,
        "prompt_tokens": card.prompt_tokens,
    }


def table_of(results: list[dict[str, Any]]) -> Table:
    """A line a prompt."""
    columns = ("set", "seed", "rows", "prompt", "raw", "calibrated", "against zero-shot", "ECE", "tokens", "distilling")
    title = f"{DEFAULT_MODEL} as teacher and student, effort light; macro-F1 on test rows, 95 % intervals"
    shown = table(title, columns, text=("set", "prompt", "distilling"))
    for result in results:
        rows, first = result["rows"], True
        took = f"{result['calls']:,} calls, {result['tokens'] / 1000:,.0f} k tokens, {result['minutes']} min"
        for prompt in dict.fromkeys(card["prompt"] for card in result["cards"]):
            raw, calibrated = (
                next((c for c in result["cards"] if c["prompt"] == prompt and c["calibrated"] is state), None)
                for state in (False, True)
            )
            last = calibrated or raw
            shown.add_row(
                f"{result['set']}, {result['clustering']}" if first else "",
                str(result["seed"]) if first else "",
                f"{rows['train']}/{rows['validation']}/{rows['test']}" if first else "",
                prompt,
                _interval(raw),
                _interval(calibrated),
                _interval(result.get("against_zero_shot", {}).get(prompt), "difference"),
                f"{last['ece']:.3f}" if last and last["ece"] is not None else "-",
                str(last["prompt_tokens"] or "-") if last else "-",
                took if first else "",
            )
            first = False
        for prompt in result.get("withdrawn", ()):
            shown.add_row("", "", "", prompt, "withdrawn")
    return shown


def _interval(card: dict[str, Any] | None, of: str = "macro_f1") -> str:
    return f"{card[of]:.3f} [{card['interval'][0]:.3f}, {card['interval'][1]:.3f}]" if card else "-"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="one folder a set; without it only tell what is kept"
    )
    parser.add_argument("--definitions", type=Path, metavar="FILE", help="YAML: set to instructions, labels, rules")
    parser.add_argument("--out", type=Path, default=Path("docs/results/distillation"), metavar="OUT")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--clustering", choices=("auto", "paper"), default="auto")
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--validation", type=int, default=120)
    parser.add_argument("--test", type=int, default=120)
    options = parser.parse_args()
    if options.data is not None:
        definitions = DEFINITIONS | yaml.safe_load(options.definitions.read_text(encoding="utf-8"))
        unknown = [name for name in options.sets if name not in definitions]
        if unknown:
            parser.error(f"{options.definitions} says nothing about {unknown[0]}; it defines {', '.join(definitions)}")
        options.out.mkdir(parents=True, exist_ok=True)
        for seed in options.seeds:
            for name in options.sets:
                kept = options.out / f"{name}-{options.clustering}-{seed}.json"
                if not kept.exists():
                    result = await run(name, seed, definitions[name], options)
                    kept.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(file=sys.stderr)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.out.glob("*.json"))]
    Console(width=160).print(table_of(results))
    print(json.dumps({"results": results}))


if __name__ == "__main__":
    asyncio.run(main())
