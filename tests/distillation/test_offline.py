"""Whole runs with a teacher that answers later."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command

from langchain_pld import DistilledPrompt, adistill
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.graph import build_distillation_graph
from langchain_pld.distillation.plan import PLANS, Plan
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.run.teacher import Teacher, ask_all
from langchain_pld.distillation.run_directory import RunDirectory
from langchain_pld.errors import AnswersPendingError
from langchain_pld.models.batch import BatchChatModel, BatchFolder
from langchain_pld.models.batch_rows import Question
from tests.distillation.scenarios import comparable
from tests.fakes import FakeChatModel
from tests.teams import TASK, rows, rule_for, student_script

PLAN = PLANS["light"].model_copy(
    update={
        "train_examples": 9,
        "rules_per_label": 1,
        "drafts": 2,
        "trials": 1,
        "rounds": 1,
        "judge": True,
        "ceiling": None,
        "answer_forms": ("names", "teacher"),
    }
)


def answer(question: str) -> str:
    """The teacher: knows its teams, copies a violet text into its first draft, proposes no words."""
    if "three sets" in question:
        return json.dumps({"sets": []})
    made = json.loads(rule_for(question))
    if "counter_cues" in question and 'label is "violet"' in question and question.endswith(">>>"):
        made["condition"] = f"If the text is: {question.rpartition('<<<')[2].removesuffix('>>>').strip()}"
    return json.dumps(made)


def online_script(messages: list[BaseMessage]) -> AIMessage:
    return AIMessage(answer("\n".join(str(message.text) for message in messages)))


def answers_to(questions: tuple[Question, ...]) -> list[dict[str, Any]]:
    return [
        {"custom_id": one.id, "answer": answer("\n".join(str(message["content"]) for message in one.messages))}
        for one in questions
    ]


def give(folder: BatchFolder, *, most: int | None = None) -> None:
    """Answer the newest request file, or the first questions of it."""
    folder.add_responses("teacher", answers_to(list(folder.request_files().values())[-1])[:most])


async def distil(teacher: Any, *, plan: Plan = PLAN, **options: Any) -> DistilledPrompt:
    return await adistill(
        TASK,
        train=rows("train", 15),
        validation=rows("validation", 30),
        teacher=teacher,
        student=FakeChatModel(script=student_script),
        effort=plan,
        **options,
    )


async def by_rounds(
    folder: BatchFolder, give: Callable[[BatchFolder], None] = give, **options: Any
) -> tuple[DistilledPrompt, int]:
    """A run to its end, and how often it stopped."""
    stops = 0
    while True:
        try:
            return await distil(f"batch:{folder.path}", **options), stops
        except AnswersPendingError:
            stops += 1
            assert stops < 20
            give(folder)


@pytest.mark.parametrize("checkpointed", [True, False])
async def test_a_run_by_rounds_ends_as_the_one_whose_teacher_answers_at_once(
    tmp_path: Path, checkpointed: bool
) -> None:
    folder = BatchFolder(tmp_path / "answers")
    saver = InMemorySaver() if checkpointed else None
    offline, stops = await by_rounds(folder, store=InMemoryStore(), checkpointer=saver, run_id="run")
    teacher = FakeChatModel(script=online_script)
    online = await distil(teacher)
    assert online.rules
    assert comparable(offline) | {"teacher": None} == comparable(online) | {"teacher": None}
    assert offline.teacher is not None
    assert offline.teacher.spec == "batch:answers"
    # One file a step that depends on the answers of the one before.
    asked = [file.name.partition("-")[2] for file in folder.request_files()]
    steps = ("generate", "extract", "critique", "consolidate", "consolidate", "validate")
    assert asked == [f"{node}.jsonl" for node in steps]
    assert stops == len(asked)
    # Each question went out once, and each answer is one call.
    told = [one.id for questions in folder.request_files().values() for one in questions]
    assert len(told) == len(set(told)) == len({str(messages) for messages in teacher.asked})
    assert sum(line.calls for line in offline.ledger if line.model == "batch:answers") == len(told)
    assert sum(line.failures for line in offline.ledger) == 0


async def test_only_what_is_missing_is_asked_again(tmp_path: Path) -> None:
    folder, store, saver = BatchFolder(tmp_path / "answers"), InMemoryStore(), InMemorySaver()
    options: dict[str, Any] = {"store": store, "checkpointer": saver, "run_id": "run"}
    with pytest.raises(AnswersPendingError, match=r"questions of generate, 9 of them, in .*0001-generate\.jsonl"):
        await distil(f"batch:{folder.path}", **options)
    give(folder, most=4)
    with pytest.raises(AnswersPendingError, match=r"questions of generate, 5 of them, in .*0002-generate\.jsonl"):
        await distil(f"batch:{folder.path}", **options)
    with pytest.raises(AnswersPendingError, match=r"questions of generate, 5 of them, in .*0002-generate\.jsonl"):
        await distil(f"batch:{folder.path}", **options)
    first, second = folder.request_files().values()
    assert {one.id for one in second} == {one.id for one in first[4:]}
    artifact, _ = await by_rounds(folder, **options)
    assert artifact.rules
    another_run = await distil(f"batch:{folder.path}")
    assert comparable(another_run) == comparable(artifact)


async def test_answers_of_no_use_are_asked_for_once_more_and_then_fail_like_calls(tmp_path: Path) -> None:
    folder = BatchFolder(tmp_path / "answers")

    def stubborn(folder: BatchFolder) -> None:
        given = answers_to(list(folder.request_files().values())[-1])
        hopeless = {one["custom_id"] for one in answers_to(next(iter(folder.request_files().values())))[:2]}
        folder.add_responses("t", [one | {"answer": "no"} if one["custom_id"] in hopeless else one for one in given])

    artifact, stops = await by_rounds(folder, stubborn, store=InMemoryStore())
    asked = [(file.name.partition("-")[2], len(questions)) for file, questions in folder.request_files().items()]
    assert asked[:2] == [("generate.jsonl", 9), ("generate.jsonl", 2)]
    assert stops == len(asked)
    (line,) = [line for line in artifact.ledger if (line.node, line.model) == ("generate", "batch:answers")]
    assert (line.calls, line.failures) == (9, 2)
    assert artifact.rules


async def test_the_interrupt_says_what_to_do_and_any_command_resumes_it(tmp_path: Path) -> None:
    folder = BatchFolder(tmp_path / "answers")
    graph = build_distillation_graph(
        student=FakeChatModel(script=student_script), store=InMemoryStore(), checkpointer=InMemorySaver()
    )
    run = RunStore(graph.store, "run")
    for role, count in (("train", 15), ("validation", 30)):
        await run.put_examples(role, rows(role, count))  # type: ignore[arg-type]
    config: Any = {"configurable": {"thread_id": "run"}}
    context = DistillConfig(teacher=f"batch:{folder.path}")
    state = await graph.ainvoke({"run_id": "run", "task": TASK, "plan": PLAN}, config, context=context)
    (waiting,) = state["__interrupt__"]  # type: ignore[typeddict-item]
    assert waiting.value == {
        "waits_for": "answers",
        "node": "generate",
        "questions": 9,
        "request_file": str(folder.requests / "0001-generate.jsonl"),
        "responses_folder": str(folder.responses),
        "problems": [],
        "what_to_do": waiting.value["what_to_do"],
    }
    assert f"pld batch import {folder.path} FILE" in waiting.value["what_to_do"]
    first = next(iter(folder.request_files().values()))
    folder.add_responses("t", [*answers_to(first)[:8], {"custom_id": first[8].id, "answer": "no"}])
    state = await graph.ainvoke(Command(resume="done"), config, context=context)
    (waiting,) = state["__interrupt__"]  # type: ignore[typeddict-item]
    assert waiting.value["questions"] == 1
    assert waiting.value["problems"] == [
        f"{folder.responses / '0001-t.jsonl'}:9: {first[8].id} does not fit: it holds no whole JSON object"
    ]
    for _ in range(10):
        give(folder)
        state = await graph.ainvoke(Command(resume=True), config, context=context)
        if "artifact" in state:
            break
    assert state["artifact"].rules


async def test_questions_of_nested_steps_come_together_and_a_real_error_comes_at_once(tmp_path: Path) -> None:
    teacher = Teacher(BatchChatModel(path=tmp_path), node="n", store=InMemoryStore(), concurrency=2)

    async def inner(name: str) -> list[Any]:
        return await ask_all(teacher.ask([HumanMessage(f"{name} {n}")], Plan) for n in range(2))

    with pytest.raises(AnswersPendingError, match="6 questions have no answer yet") as caught:
        await ask_all(inner(name) for name in ("a", "b", "a", "c"))
    assert len(caught.value.questions) == 6

    async def broken() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await ask_all([inner("a"), broken()])


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from langchain_pld.distillation.run_directory import RunDirectory
from langchain_pld.errors import AnswersPendingError
from tests.distillation.test_offline import distil

async def main(run: Path, teacher: str) -> None:
    async with RunDirectory(run).open() as (store, checkpointer):
        try:
            await distil(teacher, store=store, checkpointer=checkpointer, run_id="run")
        except AnswersPendingError:
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
async def test_a_process_killed_between_interrupt_and_answer_loses_nothing(tmp_path: Path) -> None:
    folder, run = BatchFolder(tmp_path / "answers"), tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _KILLED, str(run), f"batch:{folder.path}"],
        cwd=Path(__file__).parents[2],
        env=environment,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    assert [len(questions) for questions in folder.request_files().values()] == [9]
    give(folder)
    async with RunDirectory(run).open() as (store, checkpointer):
        resumed, _ = await by_rounds(folder, store=store, checkpointer=checkpointer, run_id="run")
    online = await distil(FakeChatModel(script=online_script))
    assert comparable(resumed) | {"teacher": None} == comparable(online) | {"teacher": None}
