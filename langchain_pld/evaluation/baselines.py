"""Plain baselines without a language model, to compare every figure with."""

from __future__ import annotations

import time
import warnings
from collections import Counter

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from langchain_pld.artifact import ScoreCard
from langchain_pld.evaluation.evaluate import Predictions, gold_labels, score_card
from langchain_pld.examples import ExampleSet
from langchain_pld.task import Task

__all__ = ["majority_card", "ngram_card"]


def majority_card(task: Task, train: ExampleSet, rows: ExampleSet, *, role: str, seed: int = 0) -> ScoreCard:
    """Always predict the most frequent label in `train`."""
    label = Counter(gold_labels(train)).most_common(1)[0][0]
    return score_card(task, rows, Predictions([label] * len(rows)), name="majority", role=role, seed=seed)


def ngram_card(task: Task, train: ExampleSet, rows: ExampleSet, *, role: str, seed: int = 0) -> ScoreCard | None:
    """Logistic regression on TF-IDF of words and word pairs; `None` if `train` has one label or no words."""
    gold = gold_labels(train)
    texts = [task.render(row.input) for row in train]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    if len(set(gold)) < 2 or not any(map(vectorizer.build_analyzer(), texts)):
        return None
    model = make_pipeline(vectorizer, LogisticRegression(C=10.0, class_weight="balanced", max_iter=2000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(texts, gold)
    start = time.perf_counter()
    labels = [str(label) for label in model.predict([task.render(row.input) for row in rows])]
    milliseconds = (time.perf_counter() - start) * 1000 / len(rows)
    predictions = Predictions(labels, ms_per_text=milliseconds)
    return score_card(task, rows, predictions, name=f"n-gram ({len(train)} rows)", role=role, seed=seed)
