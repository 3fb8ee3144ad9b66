"""Guards in an agent. Offline: a scripted model stands for yours, the guard runs in the process.

python examples/guard_an_agent.py                        # guard: Qwen2.5-Coder 1.5B, 1.1 GB, fetched once
python examples/guard_an_agent.py embedded:smollm2-135m  # 98 MB, too small for it: all is held back
"""

import sys

from langchain.agents import create_agent
from langchain_core.tools import tool
from scripted_model import scripted
from zero_shot import zero_shot

from langchain_pld.guardrail import Guard, GuardrailPolicy, PLDGuardrailMiddleware

policy = GuardrailPolicy(block_labels={"private": 0.6, "hostile": 0.6}, deadline_s=120)
guard = Guard(zero_shot(student=(sys.argv[1:] or ["embedded:qwen2.5-coder-1.5b"])[0]), policy)


@tool
def post_message(channel: str, text: str) -> str:
    """Post a message to a channel of the office chat."""
    print(f"  (posted to {channel}: {text})")
    return "posted"


model = scripted(
    ("post_message", {"channel": "all", "text": "Imre is a useless idiot."}), "Nothing was posted to the channel."
)
middleware = PLDGuardrailMiddleware(guard, apply_to_output=True, apply_to_tool_calls=True)
agent = create_agent(model, [post_message], middleware=[middleware])

for message in agent.invoke({"messages": "Please post my note about the slides."})["messages"]:
    print(f"{message.type}: {message.text or [call['name'] for call in message.tool_calls]}")
