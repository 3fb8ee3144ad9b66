"""The estimate before a run: calls, tokens, money, and minutes for models in this process.

Both bounds follow from the plan. The upper one ignores chance: questions repeated because an answer did not fit the
schema, retries, texts read in several chunks. The lower one is what is asked even if the prompt without rules is good
enough; cached answers and a budget make a run cheaper still.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from langchain_pld.answer import MOST_OPTIONS, AnswerFormat
from langchain_pld.distillation.nodes.critique import JUDGED_AT_ONCE
from langchain_pld.distillation.nodes.example_selection import POOL
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.prices import price_of
from langchain_pld.distillation.roles import Role
from langchain_pld.distillation.templates import label_lines
from langchain_pld.examples import ExampleSet
from langchain_pld.student.calibration import content_free_inputs
from langchain_pld.student.chunks import estimated_tokens
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.task import Task

__all__ = ["READ_PER_S", "WRITTEN_PER_S", "Estimate", "EstimateLine", "estimate"]

READ_PER_S, WRITTEN_PER_S = 100, 15
"""Tokens per second of the default embedded model on two idle cores, measured; shared prefixes are not read again."""

_QUESTION, _CONDITION, _SHOWN_TEXT, _EMBEDDED = 350, 75, 120, 150
"""Tokens of a question's own words, a condition, a shortened text, and a condition with cues."""
_ANSWER, _USUAL_ANSWER = 300, 90
"""Tokens of a teacher's answer: the maximum of the schema, and the usual length, for the minutes."""
_ENGLISH = 0.5
"""Tokens of English prose as a share of the high estimate; for the minutes."""
_CHAT = 20
"""Tokens around a text."""
_PROBES = 12
"""Calls that find out how to read the student's answers: two forms, three scorers, with and without thinking. Without a
tokenizer, each answer word is then written once."""
_SHOWN = 8
"""Conditions or texts of one kind in a question."""


_NO_ROWS = ExampleSet(source="none", examples=())


class EstimateLine(BaseModel):
    """What one node will ask one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    """Node of the graph; `test` for the final reading of the test rows."""
    model: str
    """The model asked, as `provider:name`."""
    least: int
    """Minimum number of calls."""
    calls: int
    """Maximum number of calls; the other figures are for these."""
    input_tokens: int
    """Prompt tokens of all calls."""
    output_tokens: int
    """Generated tokens of all calls."""
    cost: float | None
    """US dollars; `None` if the price is unknown."""
    seconds: float | None
    """Seconds on two idle cores; `None` if the model does not run in this process."""
    how: str
    """How the calls were counted."""


class Estimate(BaseModel):
    """What a run will ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lines: tuple[EstimateLine, ...]
    """One line per node and model."""

    @property
    def cost(self) -> float | None:
        """US dollars; `None` if a price is unknown."""
        costs = [line.cost for line in self.lines]
        return None if None in costs else sum(cost or 0.0 for cost in costs)

    @property
    def seconds(self) -> float | None:
        """Seconds of the models in this process; `None` if there are none."""
        known = [line.seconds for line in self.lines if line.seconds is not None]
        return sum(known) if known else None


def estimate(
    task: Task,
    plan: Plan,
    *,
    train: ExampleSet,
    validation: ExampleSet,
    test: ExampleSet | None = None,
    teacher: str,
    students: Sequence[str],
    embeddings: str | None = None,
    incumbent: bool = False,
) -> Estimate:
    """Bound what a run will ask; models are named as `provider:name`.

    Args:
        task: What to decide.
        plan: The numbers of the run.
        train: Rows that the teacher may see.
        validation: Rows for selection and calibration.
        test: Rows for the reported scores.
        teacher: The model that writes rules.
        students: The models that will decide; they share the teacher's answers.
        embeddings: The model that embeds drafted conditions; by default offline, without calls.
        incumbent: Whether a prompt in use is scored as well.
    """
    sets: dict[Role, ExampleSet | None] = {"train": train, "validation": validation, "test": test}
    count = _Count(task, plan, sets, teacher, embeddings, incumbent=incumbent)
    return Estimate(lines=tuple(line for n, student in enumerate(students) for line in count.of(student, first=not n)))


class _Count:
    """Counts the calls of a run; see `estimate` for the arguments."""

    def __init__(
        self,
        task: Task,
        plan: Plan,
        sets: Mapping[Role, ExampleSet | None],
        teacher: str,
        embeddings: str | None,
        *,
        incumbent: bool,
    ) -> None:
        labels = len(task.labels)
        self._task, self._plan, self._teacher, self._embeddings = task, plan, teacher, embeddings
        self._incumbent = incumbent
        self._train, self._validation, self._test = (sets[role] or _NO_ROWS for role in ("train", "validation", "test"))
        self._gold = sum(row.label is not None for row in self._train)
        self._synthetic = plan.synthetic_per_small_label * labels
        self._explained = min(plan.train_examples, len(self._train)) + self._synthetic
        # One question per group of labels, then one about the best of each.
        self._stages = 1 + max(2, -(-labels // MOST_OPTIONS)) if labels > MOST_OPTIONS else 1
        self._question = _QUESTION + estimated_tokens(f"{task.instructions}\n{label_lines(task)}")
        rules = min(plan.most_rules, labels * plan.rules_per_label)
        self._prompt = min(plan.most_prompt_tokens, _plain_prompt(task) + rules * _CONDITION)
        self._shown = _SHOWN * _CONDITION + (_SHOWN + plan.contrast_examples) * _SHOWN_TEXT

    def of(self, student: str, *, first: bool) -> Iterator[EstimateLine]:
        """The lines of one student; the first student's include what all share."""
        hard = self._plan.choose == "uncertain" and self._gold > self._plan.train_examples
        if hard:
            labels = len(self._task.labels)
            pool = min(POOL * self._plan.train_examples, self._gold)
            yield self._decides(
                student, "generate", pool, self._train, f"{pool} examples without rules", least=pool, words=labels
            )
        # Which examples are hard differs from student to student.
        if first or hard:
            yield from self._rules()
        yield from self._loop(student)
        if first and "teacher" in self._plan.answer_forms:
            yield self._asks("validate", 1, 0, "one call for answer words", least=1)
        yield from self._scores(student)

    def _rules(self) -> Iterator[EstimateLine]:
        """From examples to merged rules."""
        plan, labels, train = self._plan, len(self._task.labels), _length(self._task, self._train)
        explained, synthetic = self._explained, self._synthetic
        wanted = min(plan.train_examples, self._gold)
        voted = min(len(self._train) - self._gold, max(0, plan.train_examples - self._gold))
        votes = plan.votes * (voted + synthetic) + (labels if synthetic else 0)
        how = f"{explained} examples, one call each" + (f", {votes} votes on labels" if votes else "")
        twins = len(self._train) - len({self._task.render(row.input) for row in self._train})
        yield self._asks("generate", explained + votes, train, how, least=max(0, wanted - twins))
        yield self._asks("extract", explained, train, "each draft asked for once more")
        if plan.judge:
            batches = labels + explained // JUDGED_AT_ONCE
            yield self._asks("critique", batches, self._shown, f"{batches} judgements of drafts")
        merges = labels * plan.rules_per_label * plan.drafts
        how = f"{labels} labels x {plan.rules_per_label} rules x {plan.drafts} drafts, each asked for once more"
        how += ", and 1 call about conflicts"
        yield self._asks("consolidate", 2 * merges + 1, self._shown, how)
        if self._embeddings:
            merged = labels * plan.rules_per_label
            how = f"a first look, {explained} drafts in one call, {merged} rules in another"
            own = _EMBEDDED * (explained + merged) // 2
            yield self._line(self._embeddings, "consolidate", (1, 3), (0, own), (0, 0), how)

    def _loop(self, student: str) -> Iterator[EstimateLine]:
        """The passes over a student's mistakes."""
        plan, explained = self._plan, self._explained
        if plan.rounds:
            edits = plan.rounds * plan.revisions
            how = f"{plan.revisions} confusions of {student} in each pass, passes: {plan.rounds}"
            yield self._asks("critique", edits, self._shown, how)
            how = f"{explained} examples in each pass, passes: {plan.rounds}"
            yield self._decides(student, "critique", plan.rounds * explained, self._train, how)

    def _scores(self, student: str) -> Iterator[EstimateLine]:
        """Validation and test rows under all prompts."""
        plan, forms = self._plan, _answer_forms(self._task, self._plan)
        edits, others = plan.rounds * plan.revisions, self._incumbent + plan.require_review
        prompts = 2 * forms + plan.trials + edits + others
        rows = len(self._validation) + len(content_free_inputs(self._task))
        how = f"{prompts} prompts x {rows} texts: answer forms {forms}, with and without rules; "
        how += f"trials {plan.trials}; edits {edits}"
        how += f", {others} more" if others else ""
        texts = len(self._validation)
        words = forms * len(self._task.labels)
        yield self._decides(student, "validate", prompts * rows, self._validation, how, least=texts, words=words)
        if len(self._test):
            count, several = len(self._test), 2 + self._incumbent
            how = f"{several} prompts x {count} rows"
            yield self._decides(student, "test", several * count, self._test, how, least=count)

    def _asks(self, node: str, calls: int, own: int, how: str, *, least: int = 0) -> EstimateLine:
        """Questions to the teacher."""
        return self._line(self._teacher, node, (least, calls), (self._question, own), (_ANSWER, _USUAL_ANSWER), how)

    def _decides(
        self, student: str, node: str, texts: int, rows: ExampleSet, how: str, *, least: int = 0, words: int = 0
    ) -> EstimateLine:
        """Texts that a student reads, and the answer words it writes when it is probed."""
        written = 40 if "evidence" in self._plan.answer_forms else 1
        own = _length(self._task, rows) + _CHAT
        calls = (least, texts * self._stages + (_PROBES + words if words else 0))
        return self._line(student, node, calls, (self._prompt, own), (written, written), how)

    def _line(
        self, model: str, node: str, calls: tuple[int, int], read: tuple[int, int], written: tuple[int, int], how: str
    ) -> EstimateLine:
        """A line from minimum and maximum calls, input tokens (shared with the call before, own), and output tokens."""
        least, most = calls
        tokens = {"input_tokens": most * sum(read), "output_tokens": most * written[0]}
        price = price_of(model, self._plan.prices)
        here = model.startswith("embedded:")
        return EstimateLine(
            node=node,
            model=model,
            least=least,
            calls=most,
            **tokens,
            cost=None if price is None else price.of(**tokens),
            seconds=most * (read[1] * _ENGLISH / READ_PER_S + written[1] / WRITTEN_PER_S) if here else None,
            how=how,
        )


def _length(task: Task, rows: ExampleSet) -> int:
    """Mean tokens of a text."""
    return round(fmean(estimated_tokens(task.render(row.input)) for row in rows)) if len(rows) else 0


def _plain_prompt(task: Task) -> int:
    answer = AnswerFormat.letters(task) if len(task.labels) <= 26 else AnswerFormat.two_stage(task)
    return estimated_tokens(compile_prompt(task, (), answer))


def _answer_forms(task: Task, plan: Plan) -> int:
    """Maximum number of answer formats to try."""
    most = {"names": 1, "task": len(task.verbalizers), "familiar": 2, "teacher": 3, "letters": 1, "evidence": 1}
    return max(1, sum(most[source] for source in plan.answer_forms))
