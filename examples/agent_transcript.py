"""The transcript of docs/guardrail.md: a guarded agent in four situations. The main model follows a script.

python examples/agent_transcript.py                        # guard: Qwen2.5-Coder 1.5B, 1.1 GB, fetched once
python examples/agent_transcript.py embedded:smollm2-135m  # 98 MB, too small for it: all is held back
"""

import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from scripted_model import scripted
from zero_shot import zero_shot

from langchain_pld.guardrail import Guard, GuardrailPolicy, PLDGuardrailMiddleware

STUDENT = (sys.argv[1:] or ["embedded:qwen2.5-coder-1.5b"])[0]
POLICY = GuardrailPolicy(block_labels={"private": 0.6, "hostile": 0.6}, on_uncertain="interrupt", deadline_s=120)
GUARD = Guard(zero_shot(student=STUDENT), POLICY, name="office")

NOTE = ("post_message", {"channel": "all", "text": "Imre is a useless idiot."})
SITUATIONS = {
    "A blocked input": ("You are a useless idiot, Imre, and I hate you.", ["(never asked)"]),
    "A blocked tool call": ("Please post my note about the slides.", [NOTE, "Nothing was posted to the channel."]),
    "A withheld output": ("When is lunch?", ["Imre is a useless idiot, ask somebody else."]),
    "An asked person": ("Is Ana in today, or is she ill?", ["Ana is in today, at desk 12."]),
}


@tool
def post_message(channel: str, text: str) -> str:
    """Post a message to a channel of the office chat."""
    print(f"  tool     posted to {channel}: {text}")
    return "posted"


def show(messages: list[Any]) -> None:
    for message in messages:
        words = message.text or f"calls {', '.join(call['name'] for call in message.tool_calls)}"
        print(f"  {message.type:<8} {words}")
        for guard, note in message.response_metadata.get("pld_guard", {}).items():
            print(f"           ^ {guard}: {note['action']}, {note['reason']}")


print(f"student: {STUDENT}, zero-shot")
for number, (title, (said, replies)) in enumerate(SITUATIONS.items(), 1):
    print(f"\n{number}. {title}\n  user     {said}")
    agent = create_agent(
        scripted(*replies),
        [post_message],
        middleware=[PLDGuardrailMiddleware(GUARD, apply_to_output=True, apply_to_tool_calls=True)],
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": str(number)}}
    ended = agent.invoke({"messages": said}, config)
    while waiting := ended.get("__interrupt__"):
        (request,) = waiting[0].value["action_requests"]
        reason = request["description"].partition(". ")[0]
        print(f"  asked    {reason}\n           {request['name']}: {request['args']['text']}")
        print("  person   approve")
        ended = agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    print("  --- the history afterwards")
    show(ended["messages"])
