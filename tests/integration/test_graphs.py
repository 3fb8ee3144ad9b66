"""The moderation agent and the contract review on a real development server, as LangGraph Studio sees them."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_pld.errors import InputError
from tests.integration.server import ROOT, Studio, serving
from tests.servers.fake_answers import FakeAnswer
from tests.student.small_artifact import artifact

INSULT, MAYBE = "idiot", "silly"
CONTRACT = """Between Quillmere Boats and Ilka Ferrand.

1. Helpers
Neither Party shall share anything with consultants before 2. May of next year.

2. Duration
The duties last for three years, as a rule.
"""
HYPOTHESES = ["Consultants may be told.", "The duties end after a fixed time."]


def answers(request: dict[str, Any]) -> FakeAnswer:
    """The main model where tools are offered, elsewhere the student of either graph."""
    system, last = request["messages"][0]["content"], request["messages"][-1]
    text = last["content"]
    if request.get("tools"):
        return _main_answer(last["role"], text)
    if "non-disclosure" in system:
        if "consultants" in text and "Consultants" in text:
            return FakeAnswer.picking({"no": 0.9, "yes": 0.05, "unstated": 0.05})
        if "three years" in text and "fixed time" in text:
            return FakeAnswer.picking({"yes": 0.4, "no": 0.3, "unstated": 0.3})
        return FakeAnswer.picking({"unstated": 0.8, "no": 0.1, "yes": 0.1})
    if INSULT in text:
        return FakeAnswer.picking({"hostile": 0.9, "ordinary": 0.1})
    if MAYBE in text:
        return FakeAnswer.picking({"hostile": 0.5, "ordinary": 0.4, "private": 0.1})
    return FakeAnswer.picking({"ordinary": 0.9, "hostile": 0.1})


def _main_answer(role: str, text: str) -> FakeAnswer:
    if role == "tool":
        return FakeAnswer(content=f"I see: {text}")
    if "post" in text:
        return FakeAnswer(tool_calls=(("post_message", {"channel": "all", "text": f"Imre is an {INSULT}"}),))
    if "joke" in text:
        return FakeAnswer(content=f"Imre is an {INSULT}.")
    return FakeAnswer(tool_calls=(("find_colleague", {"name": "Ana"}),))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    home = tmp_path_factory.mktemp("graphs")
    environment = {"PLD_STUDENT": "ollama:fake", "PLD_ARTIFACT": "", "PLD_POLICY": ""}
    with serving(answers, home, environment={**environment, "LANGCHAIN_PLD_CACHE": str(home / "models")}) as served:
        yield served


@pytest.fixture
def thread(studio: Studio) -> str:
    return str(studio.client.threads.create()["thread_id"])


def moderated(studio: Studio, thread: str, **given: Any) -> dict[str, Any]:
    ended = studio.client.runs.wait(thread, "moderation_agent", context={"model": "ollama:fake"}, **given)
    assert isinstance(ended, dict)
    return ended


def says(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def words(ended: dict[str, Any]) -> list[str]:
    return [message["content"] for message in ended["messages"]]


def waiting(studio: Studio, thread: str) -> dict[str, Any]:
    """What a person is asked."""
    (task,) = studio.client.threads.get_state(thread)["tasks"]
    (found,) = task["interrupts"]
    return dict(found["value"])


def test_all_assistants_are_listed_and_no_model_was_fetched_for_that(studio: Studio) -> None:
    listed = {assistant["graph_id"] for assistant in studio.client.assistants.search()}
    assert listed == {"distillation", "moderation_agent", "contract_review"}
    assert not (studio.log.parent / "models").exists()


def test_the_contract_review_is_drawn_with_its_nodes(studio: Studio) -> None:
    drawn = studio.client.assistants.get_graph("contract_review")
    edges = {(edge["source"], edge["target"]) for edge in drawn["edges"]}
    straight = {("__start__", "read"), ("read", "check"), ("ask", "report"), ("report", "__end__")}
    assert edges == straight | {("check", "ask"), ("check", "report")}


def test_the_agent_is_drawn_with_the_guard_around_its_model(studio: Studio) -> None:
    drawn = studio.client.assistants.get_graph("moderation_agent")
    nodes = {str(node["id"]) for node in drawn["nodes"]}
    assert {"model", "tools"} <= nodes
    for hook in ("before_agent", "before_model", "after_model"):
        assert any("PLDGuardrailMiddleware[input,output,tool_call " in node and node.endswith(hook) for node in nodes)


@pytest.mark.parametrize("graph_id", ["moderation_agent", "contract_review"])
def test_the_settings_are_shown_with_descriptions_and_defaults(studio: Studio, graph_id: str) -> None:
    assistant = studio.client.assistants.search(graph_id=graph_id)[0]
    context = studio.client.assistants.get_schemas(assistant["assistant_id"])["context_schema"]
    assert context is not None
    fields: dict[str, Any] = context["properties"]
    assert "student" in fields or graph_id == "moderation_agent"  # there the guard is the operator's
    assert all("default" in field and len(field["description"]) > 15 for field in fields.values())
    drawn = {str(node["id"]) for node in studio.client.assistants.get_graph(assistant["assistant_id"])["nodes"]}
    assert all(set(field["langgraph_nodes"]) <= drawn for field in fields.values())


def test_the_agent_uses_its_tool_and_answers(studio: Studio, thread: str) -> None:
    ended = moderated(studio, thread, input=says("Where does Ana sit?"))
    assert words(ended)[-1] == "I see: Ana Brok, design, desk 12"


def test_the_agents_prompt_is_a_setting(studio: Studio, thread: str) -> None:
    before = len(studio.ollama.requests)
    context = {"model": "ollama:fake", "system_prompt": "Answer in rhymes."}
    studio.client.runs.wait(thread, "moderation_agent", input=says("Where does Ana sit?"), context=context)
    heard = [request.body for request in studio.ollama.requests[before:] if request.body and request.body.get("tools")]
    assert {body["messages"][0]["content"] for body in heard} == {"Answer in rhymes."}


def test_the_agent_never_hears_a_blocked_message(studio: Studio, thread: str) -> None:
    before = len(studio.ollama.requests)
    ended = moderated(studio, thread, input=says(f"Imre is an {INSULT}"))
    assert not any(INSULT in text for text in words(ended))
    assert "does not meet the rules" in words(ended)[-1]
    assert not any(request.body and request.body.get("tools") for request in studio.ollama.requests[before:])


def test_a_blocked_tool_call_is_not_run(studio: Studio, thread: str) -> None:
    ended = moderated(studio, thread, input=says("Please post it."))
    refusals = [message for message in ended["messages"] if message["type"] == "tool"]
    assert [message["status"] for message in refusals] == ["error"]
    assert "was not run" in refusals[0]["content"]


def test_a_blocked_answer_is_withheld(studio: Studio, thread: str) -> None:
    ended = moderated(studio, thread, input=says("Tell me a joke."))
    assert "does not meet the rules" in words(ended)[-1]
    assert not any(INSULT in text for text in words(ended))


def test_a_person_is_asked_about_a_doubtful_message(studio: Studio, thread: str) -> None:
    text = f"Where does {MAYBE} Ana sit?"
    moderated(studio, thread, input=says(text))
    assert [request["args"]["text"] for request in waiting(studio, thread)["action_requests"]] == [text]
    ended = moderated(studio, thread, command={"resume": {"decisions": [{"type": "approve"}]}})
    assert words(ended)[-1] == "I see: Ana Brok, design, desk 12"


def test_the_review_asks_a_person_and_goes_on_with_the_answer(studio: Studio, thread: str) -> None:
    def run(**given: Any) -> dict[str, Any]:
        settings = {"student": "ollama:fake", "task_file": "examples/nda_review.yaml"}
        return dict(studio.client.runs.wait(thread, "contract_review", context=settings, **given))  # type: ignore[arg-type]

    run(input={"contract": CONTRACT, "hypotheses": HYPOTHESES})
    request = waiting(studio, thread)
    assert [action["args"]["hypothesis"] for action in request["action_requests"]] == HYPOTHESES[1:]
    assert [action["args"]["label"] for action in request["action_requests"]] == ["entailment"]
    ended = run(command={"resume": {"decisions": [{"type": "respond", "message": "contradiction"}]}})
    found = {(f["clause"], f["hypothesis"]): (f["verdict"], f["decided_by"]) for f in ended["findings"]}
    assert len(found) == 3 * len(HYPOTHESES)
    assert found[1, HYPOTHESES[0]] == ("contradiction", "ollama:fake")
    assert found[2, HYPOTHESES[1]] == ("contradiction", "person")
    assert found[0, HYPOTHESES[0]] == ("not_mentioned", "ollama:fake")
    assert "- 2. Duration: **contradiction** (a person)" in ended["report"]


def test_a_review_without_a_student_ends_with_the_reason(studio: Studio, thread: str) -> None:
    context = {"student": "ollama:missing", "task_file": "examples/nda_review.yaml"}
    given = {"contract": CONTRACT, "hypotheses": HYPOTHESES}
    ended = studio.client.runs.wait(thread, "contract_review", input=given, context=context, raise_error=False)
    assert isinstance(ended, dict)
    # The server keeps an error's words to itself and its log.
    assert ended["__error__"]["error"] == "StudentError"
    assert studio.lines_with("ollama pull missing")


def test_the_operator_gives_the_agent_an_artifact_and_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLD_ARTIFACT", str(artifact().save(tmp_path / "mood.pld.json")))
    monkeypatch.delenv("PLD_POLICY", raising=False)
    with pytest.raises(InputError, match="blocks 'private', which the task does not have"):
        runpy.run_path(str(ROOT / "graphs" / "moderation_agent.py"))
    (tmp_path / "policy.yaml").write_text("block_labels: [sad]", encoding="utf-8")
    monkeypatch.setenv("PLD_POLICY", str(tmp_path / "policy.yaml"))
    loaded = runpy.run_path(str(ROOT / "graphs" / "moderation_agent.py"))
    assert "PLDGuardrailMiddleware[input,output,tool_call mood].before_agent" in loaded["graph"].nodes


def test_a_contract_is_cut_at_its_clauses_and_nothing_is_lost() -> None:
    split = runpy.run_path(str(ROOT / "graphs" / "contract_review.py"))["split_clauses"]
    text = (ROOT / "examples" / "data" / "contract" / "mutual_nda.txt").read_text(encoding="utf-8")
    clauses = split(text)
    assert [clause["number"] for clause in clauses] == list(range(13))
    assert [clause["text"].split()[0] for clause in clauses[1:]] == [f"{number}." for number in range(1, 13)]
    assert "".join("".join(clause["text"].split()) for clause in clauses) == "".join(text.split())
    assert [clause["number"] for clause in split("No numbers here.\n\nNor here, on 3. May.")] == [1, 2]


def test_nothing_blocked_the_servers_loop(studio: Studio) -> None:
    assert studio.lines_with("BlockingError", "Blocking call", "unregistered type", "not serializable") == []
