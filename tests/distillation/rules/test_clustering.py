"""Grouping the micro-rules of a label: nothing is lost, the order does not matter, and the log says what was done."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_pld.distillation.plan import ClusterMode
from langchain_pld.distillation.rules.clustering import Clustering, cluster_label
from langchain_pld.rules import MicroRule

MODES: list[ClusterMode] = ["auto", "paper", "kmeans"]


def micro_rules(*conditions: str) -> list[MicroRule]:
    return [MicroRule(label="amber", condition=text, source=f"row-{n}") for n, text in enumerate(conditions)]


def points_around(centres: list[list[float]], each: int, *, spread: float = 0.02) -> np.ndarray:
    noise = np.random.default_rng(0)
    points = np.concatenate([centre + noise.normal(0, spread, (each, len(centre))) for centre in centres])
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def sizes(found: Clustering) -> list[int]:
    return [len(group) for group in found.groups]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), max_size=40),
    st.sampled_from(MODES),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_each_micro_rule_is_in_one_group_or_in_the_noise_whatever_the_order(
    vectors: list[list[int]], mode: ClusterMode, most: int, shuffler: random.Random
) -> None:
    drafts = micro_rules(*(f"If the text is of kind {n}" for n in range(len(vectors))))
    points = np.array(vectors, dtype=float).reshape(len(vectors), 3)
    found = cluster_label(drafts, points, mode=mode, most=most, seed=1)
    placed = [micro for group in found.groups for micro in group] + list(found.noise)
    assert Counter(micro.id for micro in placed) == Counter(micro.id for micro in drafts)
    assert len(found.groups) <= most
    assert bool(found.groups) == bool(drafts)
    assert sizes(found) == sorted(sizes(found), reverse=True)
    assert found.log

    order = list(range(len(drafts)))
    shuffler.shuffle(order)
    again = cluster_label([drafts[n] for n in order], points[order], mode=mode, most=most, seed=1)
    assert again == found


@pytest.mark.parametrize("mode", MODES)
def test_identical_drafts_are_one_group(mode: ClusterMode) -> None:
    drafts = micro_rules(*["If the text asks for money"] * 9)
    found = cluster_label(drafts, np.ones((9, 4)), mode=mode, most=4, seed=0)
    assert sizes(found) == [9]
    assert not found.noise


@pytest.mark.parametrize("mode", MODES)
def test_a_single_draft_is_a_group(mode: ClusterMode) -> None:
    found = cluster_label(micro_rules("If the text asks for money"), np.ones((1, 4)), mode=mode, most=4, seed=0)
    assert sizes(found) == [1]


def test_clear_groups_are_found_by_density_and_the_stray_is_noise() -> None:
    points = points_around([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], 12)
    points = np.concatenate([points, [[0, 0, 0, 1.0]]])
    found = cluster_label(micro_rules(*map(str, range(37))), points, mode="auto", most=4, seed=0)
    assert sizes(found) == [12, 12, 12]
    assert [micro.source for micro in found.noise] == ["row-36"]
    assert found.log[-1].startswith("DBSCAN")


def test_the_paper_leaves_a_label_with_few_drafts_without_groups_and_the_log_says_what_was_done() -> None:
    points = points_around([[1, 0, 0], [0, 1, 0]], 5)
    found = cluster_label(micro_rules(*map(str, range(10))), points, mode="paper", most=4, seed=0)
    assert sizes(found) == [10]
    assert "eps 0.40, min_samples 6) finds no group" in found.log[0]


def test_more_groups_than_wanted_leave_the_smallest_as_noise() -> None:
    points = np.repeat(np.eye(4), [9, 8, 7, 6], axis=0)
    found = cluster_label(micro_rules(*map(str, range(30))), points, mode="auto", most=2, seed=0)
    assert sizes(found) == [9, 8]
    assert {micro.source for micro in found.noise} == {f"row-{n}" for n in range(17, 30)}


def test_one_giant_cluster_is_refused_with_the_reason_and_something_else_is_tried() -> None:
    angles = np.linspace(0, np.pi / 2, 40)  # a chain: density sees one group
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = cluster_label(micro_rules(*map(str, range(40))), points, mode="auto", most=3, seed=0)
    assert 1 < len(found.groups) <= 3
    assert max(sizes(found)) <= 32
    assert any("not taken: one group has" in line or "not taken: all are noise" in line for line in found.log)


def test_a_group_begins_with_its_most_typical_member() -> None:
    angles = np.array([-0.3, -0.1, 0.0, 0.1, 0.3])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = cluster_label(micro_rules(*map(str, range(5))), points, mode="auto", most=1, seed=0)
    assert found.groups[0][0].source == "row-2"
