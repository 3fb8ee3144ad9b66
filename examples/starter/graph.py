"""What `langgraph dev` serves: the agent with the model of the environment and the guard of this folder."""

import os

from agent import build_agent, load_guard

from langchain_pld import resolve_chat_model

graph = build_agent(resolve_chat_model(os.environ.get("AGENT_MODEL") or "ollama:qwen3:4b"), load_guard())
