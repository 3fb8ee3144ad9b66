"""Evaluating classifiers: metrics with intervals, paired comparisons, plain baselines."""

from langchain_pld.errors import MissingExtraError

MissingExtraError.check("distill", sklearn="scikit-learn", scipy="scipy")
