"""A guard in a stream: each sentence is shown only after it was checked. Offline: a scripted model stands for yours.

python examples/guard_a_stream.py                        # guard: Qwen2.5-Coder 1.5B, 1.1 GB, fetched once
python examples/guard_a_stream.py embedded:smollm2-135m  # 98 MB, too small for it: all is held back
"""

import sys

from langchain_core.language_models import GenericFakeChatModel
from zero_shot import zero_shot

from langchain_pld.guardrail import Guard, GuardrailPolicy, StreamBuffer, guard_stream

policy = GuardrailPolicy(block_labels={"private": 0.6, "hostile": 0.6}, deadline_s=120)
guard = Guard(zero_shot(student=(sys.argv[1:] or ["embedded:qwen2.5-coder-1.5b"])[0]), policy)

answer = "Lunch is at noon today, in the small room. Imre is a useless idiot, and I hate him. Please bring a cup."
model = GenericFakeChatModel(messages=iter([answer]))

for part in guard_stream(model.stream("When is lunch?"), guard, buffer=StreamBuffer(by="sentence", context_chars=200)):
    print(part.text, end="", flush=True)
print()
