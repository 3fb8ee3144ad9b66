"""Distillation: the LangGraph subgraph that turns labelled examples into a tested rule prompt."""

from langchain_pld.errors import MissingExtraError

MissingExtraError.check("distill", sklearn="scikit-learn", scipy="scipy", threadpoolctl="threadpoolctl")
