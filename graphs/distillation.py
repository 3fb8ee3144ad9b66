"""The distillation graph for LangGraph Studio: models and effort come from the run's context, data from its input."""

from langchain_pld.distillation.graph import build_distillation_graph

# Compiled without store and checkpointer: the server brings both.
graph = build_distillation_graph()
