"""The network: it learns what no line divides, the same each time, and is asked in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learned_points import blobs, rings, training

from featkit.errors import UsageError
from featkit.learning.network import Network, NetworkConfig, fit_network

SMALL = NetworkConfig(members=2, hidden=(64,), least_steps=200, dropout=0.2)


def test_rings_that_no_line_divides() -> None:
    features, labels = rings(600)
    others, truth = rings(300, seed=1)
    head = fit_network(training(features, labels), SMALL)
    assert (head.scores(others).argmax(1) == truth).mean() > 0.98


def test_few_pictures_of_many_numbers() -> None:
    features, labels = blobs(60, 5, dimensions=300, spread=2)
    others, truth = blobs(200, 5, dimensions=300, spread=2, seed=1)
    head = fit_network(training(features, labels), SMALL)
    assert (head.scores(others).argmax(1) == truth).mean() > 0.9


def test_scores_are_logarithms_of_probabilities() -> None:
    features, labels = blobs(200)
    scores = fit_network(training(features, labels), SMALL).scores(features)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1, atol=1e-5)


def test_the_same_every_time_and_torch_s_own_state_untouched() -> None:
    features, labels = blobs(100)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    heads = [fit_network(training(features, labels), SMALL) for _ in range(2)]
    np.testing.assert_array_equal(heads[0].scores(features), heads[1].scores(features))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_mirror_images_are_learned_from() -> None:
    features, labels = rings(400)
    far = features + np.float32([0, 7])
    head = fit_network(training(features, labels, far), replace(SMALL, least_steps=1000))
    for view in (features, far):
        assert (head.scores(view).argmax(1) == labels).mean() > 0.95


def test_weights_count() -> None:
    features, labels = blobs(200, 2, spread=6)
    weights = np.where(labels == 0, 1.9, 0.1).astype(np.float32)
    plain = fit_network(training(features, labels), SMALL)
    weighted = fit_network(training(features, labels, weights=weights), SMALL)
    others, _ = blobs(300, 2, spread=6, seed=1)
    assert (weighted.scores(others).argmax(1) == 0).sum() > (plain.scores(others).argmax(1) == 0).sum()


@pytest.mark.parametrize("hidden", [(16,), (16, 8)])
def test_members_are_averaged(hidden: tuple[int, ...]) -> None:
    """The second member stands alone in what the first two give, less the first."""
    features, labels = rings(100)
    config = NetworkConfig(hidden=hidden, least_steps=40)
    one, two = (fit_network(training(features, labels), replace(config, members=count)) for count in (1, 2))
    layers = []
    for number, (matrix, offset) in enumerate(two.layers[:-1]):
        rows = slice(len(matrix) // 2 if number else 0, None)
        layers.append((matrix[rows, len(offset) // 2 :], offset[len(offset) // 2 :]))
    matrix, offset = two.layers[-1]
    second = Network((*layers, (2 * matrix[len(matrix) // 2 :], 2 * offset - one.layers[-1][1])))
    mean = (one.scores(features) + second.scores(features)) / 2
    mean -= np.log(np.exp(mean).sum(1, keepdims=True))
    np.testing.assert_allclose(two.scores(features), mean, atol=1e-4)
    assert abs(one.scores(features) - second.scores(features)).max() > 0.01


@pytest.mark.parametrize("hidden", [(16,), (16, 8)])
def test_parts_make_it_again(hidden: tuple[int, ...]) -> None:
    features, labels = blobs(80)
    head = fit_network(training(features, labels), NetworkConfig(hidden=hidden, least_steps=20))
    config, arrays = head.parts()
    np.testing.assert_array_equal(Network.from_parts(config, arrays).scores(features), head.scores(features))
    with pytest.raises(ValueError, match="fit together"):
        Network.from_parts(config, {**arrays, "offset-0": arrays["offset-0"][:-1]})


@pytest.mark.parametrize("count", [2, 3, 5])
def test_hardly_any_pictures(count: int) -> None:
    features, labels = blobs(count, 2)
    assert np.isfinite(fit_network(training(features, labels), SMALL).scores(features)).all()


def test_inputs_that_never_change() -> None:
    features, labels = rings(200)
    constant = np.hstack([features, np.full((200, 3), 7, np.float32)])
    head = fit_network(training(constant, labels), SMALL)
    assert (head.scores(constant).argmax(1) == labels).mean() > 0.95
    flat = np.ones((20, 4), np.float32)
    assert np.isfinite(fit_network(training(flat, np.arange(20) % 2), SMALL).scores(flat)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": 0},
        {"hidden": ()},
        {"hidden": (0,)},
        {"dropout": 1.0},
        {"epochs": 0},
        {"batch": 1},
        {"rate": 0.0},
        {"decay": -1.0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(UsageError):
        NetworkConfig(**wrong)
