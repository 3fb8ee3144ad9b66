"""Measuring classifiers: metrics with intervals, paired comparisons, plain baselines."""
