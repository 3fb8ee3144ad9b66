"""Distillation: the LangGraph subgraph that turns labelled examples into a tested rule prompt."""
