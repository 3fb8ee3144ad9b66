"""Guards before and behind a chain. Offline: a scripted model stands for yours, the guard runs in the process.

python examples/guard_a_chain.py                        # guard: Qwen2.5-Coder 1.5B, 1.1 GB, fetched once
python examples/guard_a_chain.py embedded:smollm2-135m  # 98 MB, too small for it: all is held back
"""

import sys

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from zero_shot import zero_shot

from langchain_pld.guardrail import Guard, GuardrailPolicy, guarded

policy = GuardrailPolicy(block_labels={"private": 0.6, "hostile": 0.6}, on_uncertain="block", deadline_s=120)
guard = Guard(zero_shot(student=(sys.argv[1:] or ["embedded:qwen2.5-coder-1.5b"])[0]), policy)

replies = ["Lunch is at noon.", "Imre is a useless idiot, ask somebody else."]
prompt = ChatPromptTemplate.from_template("Answer in one sentence. {input}")
chain = prompt | GenericFakeChatModel(messages=iter(replies))
safe_chain = guarded(chain, input_guards=guard, output_guards=guard) | StrOutputParser()

for question in ("When is lunch?", "When does the meeting start?", "You are a useless idiot, and I hate you."):
    print(f"> {question}\n{safe_chain.invoke({'input': question})}\n")
