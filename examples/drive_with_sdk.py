"""A distillation driven wholly through langgraph-sdk: start, watch, review, go on, signed artifact.

Needs a running `langgraph dev` (or any other LangGraph server) with the graphs of `../langgraph.json`. The two halves
are two commands, so that hours, another person or another start of the server may lie between them:

    python examples/drive_with_sdk.py start
    python examples/drive_with_sdk.py answer THREAD --edit 1="If the text ..." --reject 2 --reviewer "Ilka Ferrand"

`docs/studio.md` holds a transcript.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from langchain_pld import DistilledPrompt

DATA = Path(__file__).parents[1] / "langchain_pld" / "example_data" / "shop_inbox"
PLAN = {"train_examples": 12, "rules_per_label": 1, "contrast_examples": 4, "trials": 1, "rounds": 0, "ceiling": None}
"""Small enough for a model of 1.5 billion parameters on two CPU cores."""


def main() -> None:
    arguments = read_arguments()
    with get_sync_client(url=arguments.url) as client:
        if arguments.command == "start":
            start(client, arguments)
        else:
            answer(client, arguments)


def start(client: SyncLangGraphClient, arguments: argparse.Namespace) -> None:
    context = {"require_review": True}
    for name in ("teacher", "student", "max_minutes", "seed"):
        if getattr(arguments, name) is not None:
            context[name] = getattr(arguments, name)
    thread = client.threads.create()["thread_id"]
    print(f"thread {thread}")
    # Rows stand in the input itself: the server may be another machine.
    given = {
        "task_file": str(arguments.task),
        **{f"{role}_rows": rows(DATA / f"{role}.jsonl") for role in ("train", "validation", "test")},
        "plan": PLAN,
    }
    watch(client, thread, input=given, context=context)


def answer(client: SyncLangGraphClient, arguments: argparse.Namespace) -> None:
    request = waiting(client, arguments.thread)
    if request is None:
        sys.exit("this thread does not wait for a review")
    edits = dict(edit.split("=", 1) for edit in arguments.edit)
    decisions = []
    for number in map(str, range(1, len(request["action_requests"]) + 1)):
        if number in edits:
            edited = {"name": "accept_rule", "args": {"condition": edits[number]}}
            decisions.append({"type": "edit", "edited_action": edited})
        else:
            decisions.append({"type": "reject" if number in arguments.reject else "approve"})
        print(f"{number}. {decisions[-1]['type']}")
    # The models and limits are those that the run began with; nobody has to know them here.
    resume = {"reviewer": arguments.reviewer, "decisions": decisions}
    watch(client, arguments.thread, command={"resume": resume})
    artifact = DistilledPrompt.model_validate(client.threads.get_state(arguments.thread)["values"]["artifact"])
    if artifact.review is None:
        return
    artifact.require_usable()  # the signature holds for these rules and this prompt
    artifact.save(arguments.out)
    print(f"signed: {artifact.review.summary()}, {artifact.review.time}, rules {artifact.review.rules_sha256[:16]}…")
    print(f"note: {artifact.notes[0]}")
    print(f"artifact {artifact.id} in {arguments.out}")


def watch(client: SyncLangGraphClient, thread: str, **run: Any) -> None:
    """Follow a run to its end or to its next question."""
    step = ""
    for event in client.runs.stream(thread, "distillation", stream_mode=["custom", "updates"], **run):
        if event.event == "error":
            sys.exit(f"{event.data['error']}: {event.data['message']}")
        if event.event == "custom" and event.data["total"]:
            now = f"{event.data['node']}: {event.data['step']}"
            if now != step and event.data["step"] != "done":
                print(f"  {now}, {event.data['total']} in all", flush=True)
            step = now
        elif event.event == "updates":
            for node, update in event.data.items():
                if node != "__interrupt__":
                    show(update)
    request = waiting(client, thread)
    if request is not None:
        print(f"waits for a review of {len(request['action_requests'])} rules")
        for number, action in enumerate(request["action_requests"], 1):
            print(f"{number}. {action['description'].splitlines()[0]}\n   {action['args']['condition']}")


def show(update: dict[str, Any]) -> None:
    """What a node says of itself."""
    for line in update["log"]:
        print(line)
    for prompt, figures in update.get("measured", {}).items():
        print(f"  {prompt}: macro-F1 {figures['macro_f1']:.3f}, log loss {figures['log_loss']:.3f}")
    print(f"  spent so far: {update['overview']['spent']}", flush=True)


def waiting(client: SyncLangGraphClient, thread: str) -> dict[str, Any] | None:
    """What a thread asks a person, if it does."""
    for task in client.threads.get_state(thread)["tasks"]:
        for interrupt in task["interrupts"]:
            return dict(interrupt["value"])
    return None


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:2024", help="where the server answers")
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("start", help="begin a run on the inbox of a shop and watch it")
    begin.add_argument(
        "--task", default="langchain_pld/example_data/shop_inbox/task.yaml", help="the task file, as the server sees it"
    )
    begin.add_argument("--teacher", help="provider:name; the server's default when absent")
    begin.add_argument("--student", help="provider:name; the server's default when absent")
    begin.add_argument("--max-minutes", type=float, help="minutes of work at most")
    begin.add_argument("--seed", type=int)
    reply = commands.add_parser("answer", help="answer the review of a waiting run and watch its end")
    reply.add_argument("thread")
    reply.add_argument("--edit", action="append", default=[], metavar="N=CONDITION", help="reword rule N")
    reply.add_argument("--reject", action="append", default=[], metavar="N", help="leave rule N out")
    reply.add_argument("--reviewer", default="Ilka Ferrand")
    reply.add_argument("--out", type=Path, default=Path("reviewed.pld.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
