"""The methods that Rank-N-Contrast is compared with, against loops written from their papers' formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnclib.other_losses import _DifferentiableRanks, bin_edges, binned_supcon_loss, conr, ordinal_entropy, ranksim


def batch(n: int, d: int = 5, labels: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randint(0, labels, (n,), generator=generator).float()


# --- SupCon on bins -------------------------------------------------------------------------------------


def literal_supcon(z: np.ndarray, bins: np.ndarray, temperature: float) -> float:
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and bins[p] == bins[i]]
        if positives:
            total = sum(math.exp(z[i] @ z[a] / temperature) for a in range(len(z)) if a != i)
            losses.append(-np.mean([math.log(math.exp(z[i] @ z[p] / temperature) / total) for p in positives]))
    return float(np.mean(losses)) if losses else 0.0


@given(n=st.integers(2, 12), seed=st.integers(0, 99), temperature=st.sampled_from([0.1, 0.5, 2.0]))
def test_supcon_is_its_formula_on_bins(n, seed, temperature):
    features, labels = batch(n, seed=seed)
    edges = torch.tensor([1.5, 3.5])
    expected = literal_supcon(features.double().numpy(), np.digitize(labels, edges), temperature)
    assert binned_supcon_loss(features, labels, edges, temperature).item() == pytest.approx(expected, abs=1e-5)


def test_views_of_a_sample_share_its_bin():
    features, labels = batch(12)
    edges = bin_edges(labels, 3)
    together = binned_supcon_loss(features.reshape(6, 2, 5), labels[:6], edges)
    apart = binned_supcon_loss(features, labels[:6].repeat_interleave(2), edges)
    assert together.item() == pytest.approx(apart.item())


@given(n=st.integers(20, 200), n_bins=st.integers(2, 8), seed=st.integers(0, 9))
def test_bins_hold_equally_many_labels(n, n_bins, seed):
    labels = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    counts = torch.bucketize(labels, bin_edges(labels, n_bins)).bincount(minlength=n_bins)
    assert counts.sum() == n and counts.max() - counts.min() <= 2


def test_edges_that_coincide_are_one_and_a_single_bin_is_refused():
    assert bin_edges(torch.tensor([1.0] * 9 + [2.0]), 4).tolist() == [1.0]
    with pytest.raises(ValueError, match="n_bins: got 1; allowed: an integer of at least 2"):
        bin_edges(torch.randn(5), 1)


def test_a_batch_without_positives_gives_zero_with_a_gradient():
    features, _ = batch(3)
    features.requires_grad_()
    loss = binned_supcon_loss(features, torch.tensor([0.0, 5.0, 9.0]), torch.tensor([1.0, 6.0]))
    loss.backward()
    assert loss.item() == 0 and features.grad.abs().sum() == 0


# --- Ordinal Entropy ------------------------------------------------------------------------------------


def literal_ordinal_entropy(z: np.ndarray, y: np.ndarray) -> float:
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    values = sorted(set(y))
    centres = {value: z[y == value].mean(axis=0) for value in values}
    tightness = np.mean([np.linalg.norm(z[i] - centres[y[i]]) for i in range(len(z))])
    if len(values) < 2:
        return float(tightness)
    largest = max(values) - min(values)
    terms = [abs(a - b) / largest * np.linalg.norm(centres[a] - centres[b]) for a in values for b in values if a != b]
    return float(tightness - np.mean(terms))


@given(n=st.integers(2, 12), labels=st.integers(1, 8), seed=st.integers(0, 99))
def test_ordinal_entropy_is_its_formula(n, labels, seed):
    features, y = batch(n, labels=labels, seed=seed)
    expected = literal_ordinal_entropy(features.double().numpy(), y.numpy())
    assert ordinal_entropy(features, y).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("labels", [torch.tensor([0.0, 0.0, 1.0, 3.0, 3.0]), torch.arange(5.0)])
def test_ordinal_entropy_has_the_gradient_of_its_value(labels):
    features = batch(5)[0].requires_grad_()
    ordinal_entropy(features, labels).backward()
    for i, j in ((0, 0), (2, 3), (4, 1)):
        step = torch.zeros_like(features)
        step[i, j] = 1e-2
        slope = (ordinal_entropy(features + step, labels) - ordinal_entropy(features - step, labels)) / 2e-2
        assert features.grad[i, j].item() == pytest.approx(slope.item(), abs=2e-3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_supcon_refuses_a_temperature_that_is_none(temperature):
    features, labels = batch(5)
    with pytest.raises(ValueError, match=r"temperature: got .*; allowed: a number above 0"):
        binned_supcon_loss(features, labels, bin_edges(labels, 2), temperature)


def test_following_ordinal_entropy_spreads_centres():
    features, labels = batch(20)
    v = features.clone().requires_grad_()
    optimiser = torch.optim.SGD([v], lr=0.5)
    for _ in range(200):
        optimiser.zero_grad()
        ordinal_entropy(v, labels).backward()
        optimiser.step()
    assert ordinal_entropy(v, labels) < ordinal_entropy(features, labels) - 0.2


# --- RankSim --------------------------------------------------------------------------------------------


def literal_ranks(row: np.ndarray) -> list[float]:
    """1/n for the largest; of equal ones the first comes first."""
    order = sorted(range(len(row)), key=lambda k: (-row[k], k))
    return [(order.index(k) + 1) / len(row) for k in range(len(row))]


@given(n=st.integers(2, 10), seed=st.integers(0, 99))
def test_ranksim_is_its_formula(n, seed):
    features, y = batch(n, labels=50, seed=seed)
    seen = {}
    for i, value in enumerate(y.tolist()):
        seen.setdefault(value, i)
    kept = [seen[value] for value in sorted(seen)]
    z, y_kept = features[kept].numpy(), y[kept].numpy()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(len(kept)):
        wanted, found = literal_ranks(-np.abs(y_kept[i] - y_kept)), literal_ranks(z @ z[i])
        total += np.mean([(a - b) ** 2 for a, b in zip(wanted, found, strict=True)])
    assert ranksim(features, y).item() == pytest.approx(total, abs=1e-5)


def test_the_gradient_of_ranksim_is_that_of_a_loop_over_samples():
    features, labels = batch(9, labels=100)
    whole, by_sample = (features.clone().requires_grad_() for _ in range(2))
    ranksim(whole, labels).backward()
    order = labels.argsort()
    z = torch.nn.functional.normalize(by_sample[order], dim=1)
    y = labels[order]
    total = torch.zeros(())
    for i in range(9):
        similarity = z @ z[i]
        row = similarity.detach().numpy()
        found, wanted = np.array(literal_ranks(row)), np.array(literal_ranks(-(y[i] - y).abs().numpy()))
        pull = 2 * (found - wanted) / 9  # of the mean squared difference by the ranks
        through = (np.array(literal_ranks(row + 2.0 * pull)) - found) / 2.0  # Vlastelica et al., λ = 2
        total = total + (similarity * torch.from_numpy(through)).sum()
    total.backward()
    torch.testing.assert_close(whole.grad, by_sample.grad)
    assert whole.grad.abs().sum() > 0


def test_ranks_pass_the_gradient_of_the_interpolation():
    rows = torch.tensor([[0.3, 0.1, 0.2]], requires_grad=True)
    ranks = _DifferentiableRanks.apply(rows, 2.0)
    assert ranks[0].tolist() == pytest.approx([1 / 3, 1.0, 2 / 3])
    weight = torch.tensor([[0.0, 0.06, 0.0]])
    (ranks * weight).sum().backward()
    # moved to 0.3, 0.22, 0.2, the second overtakes the third: ranks 1/3, 2/3, 1
    torch.testing.assert_close(rows.grad, torch.tensor([[0.0, -1 / 6, 1 / 6]]))


def test_following_ranksim_puts_features_in_order():
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(24, generator=generator)
    v = torch.randn(24, 4, generator=generator).requires_grad_()
    before = ranksim(v, labels).item()
    optimiser = torch.optim.SGD([v], lr=0.5)
    for _ in range(300):
        optimiser.zero_grad()
        ranksim(v, labels).backward()
        optimiser.step()
    assert ranksim(v, labels).item() < 0.5 * before


# --- ConR -----------------------------------------------------------------------------------------------


def literal_conr(z, labels, predictions, window, temperature=0.07, push=0.2) -> float:
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    n, total = len(z), 0.0
    for i in range(n):
        near = [j for j in range(n) if j != i and abs(labels[j] - labels[i]) <= window]
        wrong = [j for j in range(n) if abs(labels[j] - labels[i]) > window
                 and abs(predictions[j] - predictions[i]) <= window]  # fmt: skip
        if near and wrong:
            below = sum(math.exp(z[i] @ z[j] / temperature) for j in near)
            below += sum(math.exp(push * abs(labels[j] - labels[i]) + z[i] @ z[j] / temperature) for j in wrong)
            total += np.mean([math.log(below) - z[i] @ z[j] / temperature for j in near])
    return total / n


@given(n=st.integers(2, 12), seed=st.integers(0, 99), window=st.sampled_from([0.5, 1.0, 2.5]))
def test_conr_is_its_formula(n, seed, window):
    features, labels = batch(n, seed=seed)
    predictions = 3 * torch.rand(n, generator=torch.Generator().manual_seed(seed))
    expected = literal_conr(features.double().numpy(), labels.numpy(), predictions.double().numpy(), window)
    assert conr(features, labels, predictions, window).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert conr(features, labels, predictions[:, None], window).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_conr_has_nothing_to_say_where_no_label_is_near_or_none_is_confused():
    features, _ = batch(6)
    features.requires_grad_()
    apart, alike = torch.arange(6.0), torch.zeros(6)
    for labels, predictions in ((apart, alike), (alike, alike), (apart // 3, 10 * apart)):
        loss = conr(features, labels, predictions, 0.5)
        loss.backward()
        assert loss.item() == 0 and torch.equal(features.grad, torch.zeros_like(features))


def test_conr_moves_confused_samples_apart_and_neighbours_together():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.2], [1.0, -0.1]], requires_grad=True)
    labels, predictions = torch.tensor([0.0, 0.0, 9.0]), torch.zeros(3)

    def cosines():
        z = torch.nn.functional.normalize(features.detach(), dim=1)
        return (z[0] @ z[1]).item(), (z[0] @ z[2]).item()

    before = cosines()
    for _ in range(50):
        (gradient,) = torch.autograd.grad(conr(features, labels, predictions, 1.0), features)
        assert torch.isfinite(gradient).all()
        with torch.no_grad():
            features -= 0.01 * gradient
    near, confused = cosines()
    assert near > before[0] and confused < before[1]
    # a label that is further away is pushed harder
    further = conr(features, torch.tensor([0.0, 0.0, 20.0]), predictions, 1.0)
    assert further > conr(features, labels, predictions, 1.0)
