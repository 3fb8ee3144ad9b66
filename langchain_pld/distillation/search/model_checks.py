"""Checks that the student and the embeddings work, made before the first paid call.

The teacher needs no such check: its first question of the run goes ahead of the others, see `Teacher`.
"""

from __future__ import annotations

from dataclasses import replace

from langchain_pld.distillation.rules.embeddings import embed_micro_rules
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.search.answer_formats import student_formats
from langchain_pld.distillation.search.student_probes import probe_answers
from langchain_pld.errors import StudentError
from langchain_pld.examples import ExampleSet
from langchain_pld.rules import MicroRule
from langchain_pld.student.providers import model_spec

__all__ = ["check_embeddings", "check_student"]

_CONDITION = MicroRule(label="-", condition="If the text is a test", source="-")


async def check_student(run: Run, rows: ExampleSet) -> None:
    """Check that the student gives readable answers, with the first validation row; `validate` reuses the result.

    Raises:
        StudentError: It cannot be reached, or none of its answers can be read.
    """
    formats = await student_formats(run, run.plan.answer_forms)
    try:
        await probe_answers(run, formats, run.task.render(rows[0].input))
    except StudentError as error:
        spec, reason = model_spec(run.student), error.failure.message
        message = f"the student {spec} cannot be used: {reason}; the teacher was not asked"
        raise StudentError(error.failure.model_copy(update={"message": message})) from error


async def check_embeddings(run: Run) -> None:
    """Check that the run's embeddings return vectors.

    Raises:
        DistillationError: They do not.
    """
    await embed_micro_rules(replace(run, node="consolidate"), [_CONDITION])
