"""The loss against a literal double loop, closed forms, invariances, and its bound."""

import copy
import doctest
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from literal_loss import assert_close, literal, plain, value_and_gradient
from torch.utils._python_dispatch import TorchDispatchMode

from rnclib import RnCLoss, rnc_loss, rnc_lower_bound
from rnclib.loss import fast
from rnclib.loss import labels as label_order
from rnclib.loss import plain as plain_path

SIMS = ("l2", "cosine", "l1")
DIFFS = ("l1", "l2")


def small_blocks(monkeypatch, block, whole=0):
    """Blocks of so many entries in every part, and no M × M matrix beyond a batch of `whole`."""
    monkeypatch.setattr(fast, "BLOCK", {"cpu": block})
    for module in (plain_path, label_order):
        monkeypatch.setattr(module, "BLOCK", block)
    for module in (plain_path, fast):
        monkeypatch.setattr(module, "ANCHORS", 1)
    monkeypatch.setattr(fast, "WHOLE", whole)


# ---- random batches -----------------------------------------------------------------------------------------


def make_features(rng, bs, n_views, feat_dim, kind, scale):
    x = rng.standard_normal((bs, n_views, feat_dim))
    if kind == "duplicates":
        x = x[rng.integers(0, max(1, bs // 2), bs)]
    elif kind == "clusters":
        x = x[rng.integers(0, 3, bs) % bs] + 1e-3 * x
    elif kind == "outlier":
        x[0] *= 1e3
    elif kind == "offset":
        x = x + 1e2
    elif kind == "offset clusters":
        x = 30 + x[rng.integers(0, 3, bs) % bs] + 1e-5 * x
    return torch.from_numpy(x * scale)


def make_labels(rng, bs, kind):
    return {
        "ages": lambda: torch.from_numpy(rng.integers(0, 6, bs)),
        "uint8": lambda: torch.from_numpy(rng.integers(0, 256, bs).astype(np.uint8)),
        "int8": lambda: torch.from_numpy(rng.integers(-128, 128, bs).astype(np.int8)),
        "grid": lambda: torch.from_numpy(rng.integers(0, 12, bs) / 10),
        "float32 grid": lambda: torch.from_numpy((rng.integers(0, 12, bs) / 10).astype(np.float32)),
        "half": lambda: torch.from_numpy(rng.standard_normal(bs)).half(),
        "bfloat16": lambda: torch.from_numpy(rng.integers(200, 330, bs)).to(torch.bfloat16),
        "float": lambda: torch.from_numpy(rng.standard_normal(bs)),
        "equal": lambda: torch.full((bs,), 7),
        "column": lambda: torch.from_numpy(rng.standard_normal((bs, 1))),
        "2-d ages": lambda: torch.from_numpy(rng.integers(0, 4, (bs, 2))),
        "3-d": lambda: torch.from_numpy(rng.standard_normal((bs, 3))),
        "3-d grid": lambda: torch.from_numpy(rng.integers(0, 4, (bs, 3)) / 10),
    }[kind]()


FEATURES = ("plain", "duplicates", "clusters", "outlier", "offset", "offset clusters")
LABELS = (
    "ages", "uint8", "int8", "grid", "float32 grid", "half", "bfloat16", "float", "equal", "column",
    "2-d ages", "3-d", "3-d grid",
)  # fmt: skip

batches = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "bs": st.integers(1, 9),
        "n_views": st.integers(1, 3),
        "feat_dim": st.integers(1, 5),
        "features": st.sampled_from(FEATURES),
        "scale": st.floats(-4, 4).map(lambda e: 10**e),
        "labels": st.sampled_from(LABELS),
    }
)
options = st.fixed_dictionaries(
    {
        "ties": st.sampled_from(("rounding", "rounding", "exact")),
        "temperature": st.floats(math.log(0.05), math.log(10)).map(math.exp),
        "label_diff": st.sampled_from(DIFFS),
        "feature_sim": st.sampled_from(("l2", "l2", "cosine", "l1")),
    }
)
some = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def make_batch(batch):
    rng = np.random.default_rng(batch["seed"])
    features = make_features(rng, batch["bs"], batch["n_views"], batch["feat_dim"], batch["features"], batch["scale"])
    labels = make_labels(rng, batch["bs"], batch["labels"])
    return (features[:, 0] if batch["n_views"] == 1 and batch["seed"] % 2 else features), labels


@some
@given(batch=batches, option=options, block=st.sampled_from((1, 7, 30, 2**22)), whole=st.sampled_from((0, 4096)))
def test_float64_equals_the_literal_loop(monkeypatch, batch, option, block, whole):
    small_blocks(monkeypatch, block, whole)
    features, labels = make_batch(batch)
    got = value_and_gradient(rnc_loss, features, labels, **option)
    expected = value_and_gradient(literal, features, labels, **option)
    # or what rounding a similarity to float64 leaves of it
    tolerance = max(1e-10, 4e-16 * features.abs().max().item() / option["temperature"])
    assert_close(got, expected, features, option["temperature"], option["feature_sim"], tolerance, tolerance)
    none = value_and_gradient(plain, features, labels, **option)
    assert_close(none, expected, features, option["temperature"], option["feature_sim"], tolerance, tolerance)


@some
@given(batch=batches, option=options, float32_from=st.sampled_from((1, 128)))
def test_float32_equals_the_literal_loop(monkeypatch, batch, option, float32_from):
    monkeypatch.setattr(fast, "FLOAT32_FROM", float32_from)
    features, labels = make_batch(batch)
    features = features.float()
    got = value_and_gradient(rnc_loss, features, labels, **option)
    expected = value_and_gradient(literal, features, labels, **option)
    assert_close(got, expected, features, option["temperature"], option["feature_sim"], 1e-5, 1e-4)


@settings(some, max_examples=40)
@given(batch=batches, option=options, dtype=st.sampled_from((torch.float16, torch.bfloat16)))
def test_half_precision_is_upcast(batch, option, dtype):
    features, labels = make_batch(batch)
    features = features.to(dtype)
    assume(torch.isfinite(features).all())
    features = torch.where(features == 0, torch.ones_like(features), features)
    value, gradient = value_and_gradient(rnc_loss, features, labels, **option)
    expected = value_and_gradient(rnc_loss, features.float(), labels, **option)
    assert value == expected[0]
    torch.testing.assert_close(gradient, expected[1].to(dtype).double())


@pytest.mark.parametrize("labels", ["ages", "float", "2-d ages"])
def test_a_large_float32_batch_equals_the_literal_loop(labels):
    rng = np.random.default_rng(1)
    features, labels = make_features(rng, 70, 2, 16, "plain", 3).float(), make_labels(rng, 70, labels)
    v = features.flatten(0, 1).double().numpy()
    y = labels.repeat_interleave(2, dim=0).reshape(140, -1).numpy()
    total = 0.0
    for i in range(140):
        d, s = np.abs(y - y[i]).sum(axis=1), -np.sqrt(((v - v[i]) ** 2).sum(axis=1)) / 2
        for j in range(140):
            if j != i:
                at_least_as_far = (d >= d[j]) & (np.arange(140) != i)
                total += np.log(np.exp(s[at_least_as_far]).sum()) - s[j]
    assert rnc_loss(features, labels).item() == pytest.approx(total / (140 * 139), rel=1e-6)


@settings(some, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    M=st.integers(128, 160),
    kind=st.sampled_from(FEATURES),
    labels=st.sampled_from(LABELS),
    spread=st.floats(-3, 1.6).map(lambda e: 10**e),
    option=options,
)
def test_large_float32_batches_keep_the_stated_accuracy(seed, M, kind, labels, spread, option):
    """Scales chosen so that |s| ranges up to some hundred, where float32 and float64 take turns."""
    rng = np.random.default_rng(seed)
    features = make_features(rng, M, 1, 12, kind, spread * option["temperature"])[:, 0].float()
    labels = make_labels(rng, M, labels)
    got = value_and_gradient(rnc_loss, features, labels, **option)
    expected = value_and_gradient(plain, features, labels, **option)
    assert_close(got, expected, features, option["temperature"], option["feature_sim"], 1e-5, 1e-4)


@pytest.mark.parametrize("reach", [0.01, 1, 10, 15.9, 17, 40, 60, 78, 120, 290, 310, 5000])
@pytest.mark.parametrize("feat_dim", [2, 64])
def test_accuracy_at_every_reach(reach, feat_dim):
    """Around the switches between float32, float64 and logarithms."""
    features = torch.randn(200, feat_dim, generator=torch.Generator().manual_seed(0))
    features = features / features.norm(dim=1, keepdim=True) * reach * 2
    labels = torch.arange(200) % 90
    got = value_and_gradient(rnc_loss, features, labels)
    expected = value_and_gradient(plain, features, labels)
    assert_close(got, expected, features, 2.0, "l2", 1e-6, 2e-5)


@pytest.mark.parametrize("apart", [1e-6, 1e-5, 1e-3, 0.03, 0.06, 0.2])
@pytest.mark.parametrize("offset", [0, 100])
def test_accuracy_of_close_pairs(apart, offset):
    """Two nearly equal views of each sample, whose difference is what is left after all else cancels."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 1, 3, generator=generator) + apart * torch.randn(64, 2, 3, generator=generator)
    features, labels = features * 5 + offset, torch.arange(64)
    got = value_and_gradient(rnc_loss, features, labels)
    expected = value_and_gradient(plain, features, labels)
    assert_close(got, expected, features, 2.0, "l2", 1e-6, 2e-5)


def spied(monkeypatch):
    """The types that matrix products and exponentials are tried in, and whether they suffice."""
    used = []

    def spy(name, what):
        inner = getattr(fast, name)

        def outer(*args):
            result = inner(*args)
            used.append((*what(args), result is not None))
            return result

        monkeypatch.setattr(fast, name, outer)

    spy("_whole", lambda args: ("products", args[1].x.dtype))
    spy("_by_exponentials", lambda args: ("exponentials", args[-1]))
    spy("_by_logarithms", lambda args: ("logarithms",))
    return used


def test_float32_arithmetic_is_used_where_it_suffices(monkeypatch):
    used = spied(monkeypatch)
    features, labels = torch.randn(256, 64, generator=torch.Generator().manual_seed(0)), torch.arange(256)
    half, full = torch.float32, torch.float64
    for scale, expected in (
        (1, [("exponentials", half, True), ("products", half, True)]),
        (20, [("exponentials", half, True), ("products", full, True)]),  # |s| beyond what float32 holds
        (100, [("exponentials", half, False), ("exponentials", full, True), ("products", full, True)]),
    ):
        used.clear()
        rnc_loss(scale * features, labels)
        assert used == expected, scale
    used.clear()
    rnc_loss(1e4 * features, labels)  # beyond float64's exponent too
    assert ("logarithms", True) in used


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("label_diff", DIFFS)
def test_blocks_of_any_size_give_the_same(monkeypatch, kind, label_diff):
    rng = np.random.default_rng(5)
    features, labels = make_features(rng, 30, 2, 4, "duplicates", 1.0), make_labels(rng, 30, kind)
    whole = value_and_gradient(rnc_loss, features, labels, label_diff=label_diff)
    for block, size in ((1, 0), (150, 4096), (500, 0), (500, 4096), (3000, 0), (3000, 4096)):
        small_blocks(monkeypatch, block, size)
        parts = value_and_gradient(rnc_loss, features, labels, label_diff=label_diff)
        assert_close(parts, whole, features, 2.0, "l2", 1e-12, 1e-12)


class LargestTensor(TorchDispatchMode):
    """Watches how large any tensor gets."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return out


@pytest.mark.parametrize("feature_sim", SIMS)
@pytest.mark.parametrize("far", [1.0, 1e5])
@pytest.mark.parametrize("labels", ["ages", "float", "3-d"])
def test_memory_is_linear_in_the_batch(monkeypatch, feature_sim, far, labels):
    small_blocks(monkeypatch, 2000)
    rng = np.random.default_rng(0)
    features = (far * make_features(rng, 400, 1, 8, "plain", 1.0)[:, 0]).requires_grad_()
    labels = make_labels(rng, 400, labels)
    with LargestTensor() as largest:
        rnc_loss(features, labels, feature_sim=feature_sim).backward()
    assert largest.numel <= 2 * 400 * 8
    with LargestTensor() as largest:
        rnc_lower_bound(labels)
    assert largest.numel <= 2 * 400 * 8


def test_tables_of_many_groups_stay_small(monkeypatch):
    small_blocks(monkeypatch, 1)
    monkeypatch.setattr(fast, "ANCHORS", 64)
    monkeypatch.setattr(fast, "TABLE", 2000)
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(400, 4, generator=generator), torch.randn(400, generator=generator)
    with LargestTensor() as largest:
        value = rnc_loss(features, labels)
    assert largest.numel <= 2000
    monkeypatch.undo()
    assert value.item() == pytest.approx(rnc_loss(features, labels).item(), rel=1e-6)


def test_plain_path_builds_no_three_dimensional_tensor():
    features = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for feature_sim in SIMS:
        with LargestTensor() as largest:
            rnc_loss(features, torch.arange(40), feature_sim=feature_sim, reduction="none").mean().backward()
        assert largest.numel <= 40 * 40


# ---- closed forms -------------------------------------------------------------------------------------------


def test_three_points_by_hand():
    # y = 0, 1, 3 and v = y: anchor 0 ranks 1 before 3, anchor 1 ranks 0 before 3, anchor 3 ranks 1 before 0
    v = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    e = math.exp
    expected = sum(math.log((e(-near / 2) + e(-far / 2)) / e(-near / 2)) for near, far in ((1, 3), (1, 2), (2, 3)))
    assert rnc_loss(v, torch.tensor([0, 1, 3])).item() == pytest.approx(expected / 6, abs=1e-14)


def test_equal_embeddings_count_who_is_at_least_as_far():
    labels = torch.tensor([3, 3, 5, 8, 8, 8, 1])
    d = (labels[:, None] - labels).abs().tolist()
    M = len(labels)
    expected = sum(
        math.log(sum(d[i][k] >= d[i][j] for k in range(M) if k != i))
        for i in range(M) for j in range(M) if j != i
    ) / (M * (M - 1))  # fmt: skip
    for v in (torch.zeros(M, 4), torch.full((M, 4), 1e4), torch.full((M, 4), -0.3)):
        v = v.requires_grad_()
        value = rnc_loss(v, labels)
        assert value.item() == pytest.approx(expected, rel=1e-6)
        value.backward()
        assert (v.grad == 0).all()


def test_equal_labels_give_a_softmax_over_the_others():
    v = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = (-torch.cdist(v, v) / 2)[~torch.eye(6, dtype=torch.bool)].reshape(6, 5)
    expected = -s.log_softmax(dim=1).mean()
    assert rnc_loss(v, torch.ones(6)).item() == pytest.approx(expected.item(), abs=1e-12)


# ---- NaN that is not refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("M", [1, 6, 200])
@pytest.mark.parametrize("feature_sim", [*SIMS, lambda v: v @ v.T])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["features", "labels"])
def test_nan_that_is_not_refused_reaches_the_loss_and_all_of_its_gradient(M, feature_sim, reduction, bad, where):
    features = torch.randn(M, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(float(M)) % 5
    {"features": features[:, 0], "labels": labels}[where][M // 2] = bad
    features.requires_grad_()
    value = rnc_loss(features, labels, feature_sim=feature_sim, reduction=reduction, validate=False)
    assert value.isnan().all()
    (gradient,) = torch.autograd.grad(value.sum(), features)
    assert not gradient.isfinite().any()


@pytest.mark.parametrize("where", ["features", "labels"])
def test_a_gradient_scaler_skips_the_step_of_a_batch_with_nan(where):
    layer = torch.nn.Linear(3, 2)
    optimizer, scaler = torch.optim.SGD(layer.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    inputs, labels = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8.0)
    before = [one.detach().clone() for one in layer.parameters()]
    for bad in (True, False):
        x, y = inputs.clone(), labels.clone()
        if bad:
            {"features": x[:, 0], "labels": y}[where][2] = math.nan
        optimizer.zero_grad()
        scaler.scale(rnc_loss(layer(x), y, validate=False)).backward()
        scaler.step(optimizer)
        scaler.update()
        moved = [not torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True)]
        assert moved[0] is not bad and layer.weight.isfinite().all()


def test_what_is_printed_names_every_option():
    criterion = RnCLoss(0.5, reduction="none", gather=True, validate=False)
    assert repr(criterion) == (
        "RnCLoss(temperature=0.5, label_diff='l1', feature_sim='l2', reduction='none', ties='rounding', gather=True, "
        "group=None, validate=False)"
    )


def test_cosine_on_a_circle():
    angles = torch.tensor([0.0, 30.0, 90.0, 180.0], dtype=torch.float64).deg2rad()
    lengths = torch.tensor([1.0, 7.0, 0.1, 2.0], dtype=torch.float64)
    v = torch.stack([angles.cos(), angles.sin()], dim=1) * lengths[:, None]
    s = (angles[:, None] - angles).cos() / 0.5
    labels = torch.tensor([0, 1, 3, 6])
    expected = 0.0
    for i, order in enumerate([(1, 2, 3), (0, 2, 3), (1, 0, 3), (2, 1, 0)]):  # nearest label first, ties none
        if i == 2:  # from 3: 1 is 2 away, 0 and 6 are 3 away, a tie
            expected += torch.logsumexp(s[2, [1, 0, 3]], 0) - s[2, 1]
            expected += 2 * torch.logsumexp(s[2, [0, 3]], 0) - s[2, 0] - s[2, 3]
            continue
        for position, j in enumerate(order):
            expected += torch.logsumexp(s[i, list(order[position:])], 0) - s[i, j]
    value = rnc_loss(v, labels, temperature=0.5, feature_sim="cosine")
    assert value.item() == pytest.approx(expected.item() / 12, abs=1e-12)


def test_ties_compare_as_computed_distances():
    """On a grid of tenths, y_i ± d rarely lands on a label, and the distances themselves often miss a tie."""
    features = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for labels in (
        torch.arange(12) / 10,
        torch.arange(12, dtype=torch.float64) / 10,
        torch.tensor([k / 10 for k in range(12)], dtype=torch.float16),
        torch.tensor([2**62 + k // 2 for k in range(12)]),
        torch.tensor([-(2**62), 2**62 - 1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
        torch.tensor([k % 2 for k in range(12)], dtype=torch.bool),
    ):
        for ties in ("exact", "rounding"):
            expected = literal(features, labels, ties=ties).item()
            assert rnc_loss(features, labels, ties=ties).item() == pytest.approx(expected, abs=1e-12)


# ---- invariances --------------------------------------------------------------------------------------------


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(11)
    features = torch.randn(10, 2, 4, dtype=torch.float64, generator=generator)
    return features, torch.randint(0, 5, (10,), generator=generator)


@pytest.mark.parametrize("feature_sim", SIMS)
def test_permuting_samples_permutes_the_gradient(batch, feature_sim):
    features, labels = batch
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    value, gradient = value_and_gradient(rnc_loss, features, labels, feature_sim=feature_sim)
    permuted = value_and_gradient(rnc_loss, features[order], labels[order], feature_sim=feature_sim)
    assert permuted[0] == pytest.approx(value, abs=1e-12)
    torch.testing.assert_close(permuted[1], gradient[order], atol=1e-12, rtol=0)


def test_translation_rotation_and_scale_with_temperature(batch):
    features, labels = batch
    value, gradient = value_and_gradient(rnc_loss, features, labels)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    moved = value_and_gradient(rnc_loss, features @ rotation + 100, labels)
    assert moved[0] == pytest.approx(value, abs=1e-10)
    torch.testing.assert_close(moved[1] @ rotation.T, gradient, atol=1e-10, rtol=0)
    assert gradient.sum((0, 1)).abs().max() < 1e-12  # forces come in opposite pairs
    scaled = value_and_gradient(rnc_loss, 3 * features, labels, temperature=6)
    assert scaled[0] == pytest.approx(value, abs=1e-12)


def test_only_the_order_of_label_distances_matters(batch):
    features, labels = batch
    value = rnc_loss(features, labels).item()
    for other in (3 * labels + 7, -labels, labels.float() / 4, labels[:, None], labels.to(torch.uint8)):
        assert rnc_loss(features, other).item() == pytest.approx(value, abs=1e-12)
    for diff in ("l2", lambda y: (y - y.T).abs(), lambda y: (y - y.T).abs().double() ** 3):
        assert rnc_loss(features, labels, label_diff=diff).item() == pytest.approx(value, abs=1e-12)


def test_views_are_embeddings_of_their_own(batch):
    features, labels = batch
    flat = rnc_loss(features.flatten(0, 1), labels.repeat_interleave(2))
    stacked = rnc_loss(torch.cat([features[:, 0], features[:, 1]]), labels.repeat(2))  # the official layout
    assert rnc_loss(features, labels).item() == pytest.approx(flat.item(), abs=1e-13)
    assert rnc_loss(features, labels).item() == pytest.approx(stacked.item(), abs=1e-13)


# ---- the interface ------------------------------------------------------------------------------------------


def test_module_is_the_function(batch):
    features, labels = batch
    criterion = RnCLoss(0.7, "l2", "cosine")
    expected = rnc_loss(features, labels, temperature=0.7, label_diff="l2", feature_sim="cosine")
    assert criterion(features, labels).item() == expected.item()
    assert copy.deepcopy(criterion)(features, labels).item() == expected.item()
    assert not list(criterion.parameters())
    assert "temperature=0.7" in repr(criterion)
    assert RnCLoss()(features, labels).item() == rnc_loss(features, labels, temperature=2).item()
    assert RnCLoss(reduction="none")(features, labels).shape == (10, 2)


def test_reduction_none_gives_each_anchor_its_loss(batch):
    features, labels = batch
    losses = rnc_loss(features, labels, reduction="none")
    assert losses.shape == (10, 2)
    assert losses.mean().item() == pytest.approx(rnc_loss(features, labels).item(), abs=1e-13)
    assert rnc_loss(features[:, 0], labels, reduction="none").shape == (10,)


def test_callables_replace_the_named_options(batch):
    features, labels = batch
    value = rnc_loss(features, labels, feature_sim=lambda v: -torch.cdist(v, v))
    assert value.item() == pytest.approx(rnc_loss(features, labels).item(), abs=1e-10)
    asymmetric = rnc_loss(features, labels, label_diff=lambda y: (y - y.T).clamp(min=0).double())
    assert math.isfinite(asymmetric.item())
    with pytest.raises(ValueError, match=r"label_diff: got .* returns shape \(20, 1\); allowed: .* \(20, 20\)"):
        rnc_loss(features, labels, label_diff=lambda y: y)
    with pytest.raises(ValueError, match=r"feature_sim: got .* returns float; allowed: .* \(20, 20\)"):
        rnc_loss(features, labels, feature_sim=lambda v: 1.0)


def test_result_type_and_graph(batch):
    features, labels = batch
    assert rnc_loss(features, labels).dtype == torch.float64
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        value = rnc_loss(features.to(dtype), labels)
        assert value.dtype == torch.float32
        assert value.shape == ()
        assert not value.requires_grad
    leaf = features.transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()  # not contiguous
    with torch.no_grad():
        assert not rnc_loss(leaf, labels).requires_grad
    trained = labels.double().requires_grad_()
    value = rnc_loss(leaf, trained)
    value.backward()
    assert leaf.grad.abs().max() > 0
    assert trained.grad is None


def test_backward_scales_with_the_incoming_gradient(batch):
    features, labels = batch
    once = value_and_gradient(rnc_loss, features, labels)[1]
    thrice = value_and_gradient(lambda f, y: 3 * rnc_loss(f, y), features, labels)[1]
    torch.testing.assert_close(thrice, 3 * once)


@pytest.mark.parametrize("feature_sim", SIMS)
@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 3)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_single_embedding_gives_an_attached_zero(feature_sim, shape, reduction):
    v = torch.ones(shape, requires_grad=True)
    value = rnc_loss(v, torch.ones(1), feature_sim=feature_sim, reduction=reduction)
    assert (value == 0).all()
    value.sum().backward()
    assert (v.grad == 0).all()


def test_two_embeddings_have_nothing_to_rank():
    v = torch.tensor([[0.0, 1.0], [5.0, 3.0]], requires_grad=True)
    value = rnc_loss(v, torch.tensor([1.0, 2.0]))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-7)
    assert v.grad.abs().max() < 1e-7


@pytest.mark.parametrize("feature_sim", SIMS)
@pytest.mark.parametrize("labels", ["ages", "float", "2-d ages"])
def test_gradcheck(feature_sim, labels):
    rng = np.random.default_rng(2)
    features = make_features(rng, 5, 2, 3, "plain", 1.0).requires_grad_()
    labels = make_labels(rng, 5, labels)
    assert torch.autograd.gradcheck(lambda f: rnc_loss(f, labels, feature_sim=feature_sim), features)
    each = lambda f: rnc_loss(f, labels, feature_sim=feature_sim, reduction="none")  # noqa: E731
    assert torch.autograd.gradcheck(each, features)
    if feature_sim == "cosine" or torch.__version__ >= (2, 14):  # torch.cdist has second derivatives since then
        assert torch.autograd.gradgradcheck(each, features)


def test_fast_path_refuses_second_derivatives(batch):
    features, labels = batch
    features = features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rnc_loss(features, labels), features, create_graph=True)
    with pytest.raises(RuntimeError, match="reduction='none'"):
        gradient.sum().backward()


def test_autocast_changes_nothing(batch):
    features, labels = batch
    features = features.float().repeat(8, 1, 1)
    labels = labels.repeat(8)
    expected = value_and_gradient(rnc_loss, features, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = value_and_gradient(rnc_loss, features, labels)
        none = rnc_loss(features, labels, reduction="none").mean()
    assert got[0] == expected[0]
    assert torch.equal(got[1], expected[1])
    assert none.item() == pytest.approx(expected[0], abs=1e-6)


@pytest.mark.parametrize(
    "switch",
    [
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    ],
)
def test_reduced_matmul_precision_does_not_reach_the_loss(switch):
    """TF32 or bfloat16 products would lose the distances; float64 has no such shortcut. Each in its own process."""
    script = f"""
import torch
from rnclib import rnc_loss
from rnclib.loss import fast
used, inner = [], fast._whole
fast._whole = lambda anchors, points, needed: used.append(points.x.dtype) or inner(anchors, points, needed)
features = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
{switch}
rnc_loss(features, torch.arange(300))
assert used == [torch.float64], used
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# ---- finite for every finite batch --------------------------------------------------------------------------


def far_and_near(M=8, d=3, far=1e4):
    v = torch.zeros(M, d)
    v[::2] = far
    return v + torch.randn(M, d, generator=torch.Generator().manual_seed(0))


generator = torch.Generator().manual_seed(1)


def normal(*shape):
    return torch.randn(*shape, generator=generator)


EXTREMES = {
    "1e4 apart at tiny temperature": (far_and_near(), torch.arange(8), 1e-3),
    "1e4 apart, many": (far_and_near(200), torch.arange(200) % 7, 0.05),
    "1e4 apart in the wrong order": (1e4 * torch.eye(8)[[3, 0, 7, 5, 1, 6, 2, 4]], torch.arange(8), 0.05),
    "all labels equal": (far_and_near(), torch.ones(8), 2.0),
    "all embeddings equal": (torch.full((8, 3), 0.1), torch.arange(8), 2.0),
    "all embeddings equal, many": (torch.full((300, 3), 0.1), torch.arange(300), 2.0),
    "two clusters of equal embeddings": (torch.eye(2)[torch.arange(200) % 2], torch.arange(200), 0.01),
    "one sample far out": (torch.cat([normal(63, 128), 20 * normal(1, 128)]), torch.arange(64), 0.1),
    "official class: NaN gradient": (normal(64, 128) * 11.4, torch.arange(64), 2.0),
    "official class: loss -inf": (normal(64, 128) * 13, torch.arange(64), 2.0),
    "official class: tau 0.1": (normal(64, 128), torch.arange(64), 0.1),
    "huge": (1e30 * normal(6, 3), torch.arange(6), 2.0),
    "largest float32": (3e38 * torch.eye(5), torch.arange(5), 2.0),
    "tiny": (1e-30 * normal(6, 3), torch.arange(6), 2.0),
    "subnormal": (1e-42 * normal(6, 3), torch.arange(6), 2.0),
    "huge float64": (1e200 * normal(6, 3).double(), torch.arange(6), 2.0),
    "tiny float64": (1e-200 * normal(6, 3).double(), torch.arange(6), 2.0),
    "far labels": (normal(6, 3), torch.tensor([0, 1, 1e300, -1e300, 1e-300, 5], dtype=torch.float64), 2.0),
    "zero among them": (torch.cat([torch.zeros(1, 3), normal(5, 3)]), torch.arange(6), 2.0),
}


@pytest.mark.parametrize("feature_sim", SIMS)
@pytest.mark.parametrize("case", EXTREMES)
def test_finite_for_finite_input(case, feature_sim):
    features, labels, temperature = EXTREMES[case]
    options = {"temperature": temperature, "feature_sim": feature_sim}
    value, gradient = value_and_gradient(rnc_loss, features, labels, **options)
    assert math.isfinite(value)
    assert torch.isfinite(gradient).all()
    resolution = 1e-15 * features.abs().max().item() / temperature  # of similarities, in float64
    assert value >= rnc_lower_bound(labels) * (1 - 1e-6) - resolution


@pytest.mark.parametrize("case", [c for c in EXTREMES if c.startswith(("official", "1e4 apart at", "one sample"))])
def test_where_the_official_class_fails_this_one_is_exact(case):
    features, labels, temperature = EXTREMES[case]
    features = features[:20]
    got = value_and_gradient(rnc_loss, features, labels[:20], temperature=temperature)
    expected = value_and_gradient(literal, features, labels[:20], temperature=temperature)
    assert_close(got, expected, features, temperature, "l2", 1e-6, 1e-6)


# ---- errors -------------------------------------------------------------------------------------------------

good, ages = torch.zeros(4, 2, 3), torch.arange(4)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ([[0.0]], ages, r"features: got list; allowed: a torch.Tensor"),
        (good[0, 0], ages, r"features: got shape \(3,\), .*; allowed: \(n, feat_dim\) or \(n, n_views, feat_dim\)"),
        (torch.zeros(4, 1, 2, 3), ages, r"features: got shape \(4, 1, 2, 3\), torch.float32; allowed"),
        (torch.zeros(0, 3), ages[:0], r"features: got shape \(0, 3\), .*; allowed: .*non-empty"),
        (torch.zeros(4, 0), ages, r"features: got shape \(4, 0\), .*; allowed: .*non-empty"),
        (torch.zeros(4, 3, dtype=torch.int64), ages, r"features: got .* torch.int64; allowed: .*floating-point"),
        (torch.zeros(4, 3, dtype=torch.complex64), ages, r"features: got .* torch.complex64; allowed"),
        (good, [1, 2, 3, 4], r"labels: got list; allowed: a torch.Tensor"),
        (good, torch.tensor(1), r"labels: got shape \(\), torch.int64; allowed: \(n,\) or \(n, label_dim\)"),
        (good, torch.zeros(4, 1, 1), r"labels: got shape \(4, 1, 1\), torch.float32; allowed"),
        (good, torch.zeros(4, 0), r"labels: got shape \(4, 0\), .*; allowed: .*non-empty"),
        (good, torch.zeros(4, dtype=torch.complex64), r"labels: got .* torch.complex64; allowed: .*real"),
        (good, torch.arange(8), r"labels: got shape \(8,\); allowed: one row for each of the 4 rows .*not per view"),
        (good, torch.empty(4, device="meta"), r"labels: got device meta; allowed: cpu"),
        (good + torch.nan, ages, r"features: got 24 NaN or infinite among 24 values; allowed: finite"),
        (good, torch.tensor([0, 1, math.inf, 2]), r"labels: got 1 NaN or infinite among 4 values; allowed: finite"),
        (good, torch.tensor([0, 1, math.nan, 2]), r"labels: got 1 NaN"),
    ],
)  # fmt: skip
def test_bad_input_is_named(features, labels, message):
    with pytest.raises(ValueError, match=message):
        rnc_loss(features, labels)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"temperature": 0}, "temperature: got 0; allowed: a finite number above 0"),
        ({"temperature": -1.0}, "temperature: got -1.0; allowed"),
        ({"temperature": math.nan}, "temperature: got nan; allowed"),
        ({"temperature": math.inf}, "temperature: got inf; allowed"),
        ({"temperature": "2"}, "temperature: got '2'; allowed"),
        ({"temperature": True}, "temperature: got True; allowed"),
        ({"label_diff": "cosine"}, "label_diff: got 'cosine'; allowed: 'l1', 'l2' or a callable"),
        ({"label_diff": None}, "label_diff: got None; allowed"),
        ({"feature_sim": "dot"}, "feature_sim: got 'dot'; allowed: 'l2', 'cosine', 'l1' or a callable"),
        ({"reduction": "median"}, "reduction: got 'median'; allowed: 'mean', 'sum', 'none'"),
        ({"ties": "none"}, "ties: got 'none'; allowed: 'rounding', 'exact'"),
        ({"temperature": torch.ones(2)}, r"temperature: got tensor\(\[1., 1.\]\); allowed: a finite number above 0"),
        ({"temperature": torch.tensor(-1.0)}, r"temperature: got tensor\(-1.\); allowed"),
        ({"gather": "yes"}, "gather: got 'yes'; allowed: True or False"),
        ({"validate": 0}, "validate: got 0; allowed: True or False"),
        ({"group": "all"}, "group: got 'all'; allowed: None without gather=True"),
    ],
)
def test_bad_options_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        RnCLoss(**option)
    with pytest.raises(ValueError, match=message):
        rnc_loss(good, ages, **option)


def test_lower_bound_checks_its_arguments():
    with pytest.raises(ValueError, match="labels: got 1 NaN or infinite"):
        rnc_lower_bound(torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match=r"labels: got int; allowed: a torch.Tensor"):
        rnc_lower_bound(3)
    with pytest.raises(ValueError, match="label_diff: got 'l3'; allowed"):
        rnc_lower_bound(ages, label_diff="l3")
    with pytest.raises(ValueError, match="n_views: got 0; allowed: an integer of at least 1"):
        rnc_lower_bound(ages, n_views=0)


@pytest.mark.parametrize("feature_sim", SIMS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_without_validation_infinities_pass_through(feature_sim, reduction):
    """Gradient scaling skips a step by the infinities it finds: an exception would end the training."""
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    features[2, 1] = math.inf
    features.requires_grad_()
    options = {"feature_sim": feature_sim, "reduction": reduction, "validate": False}
    value = rnc_loss(features, torch.arange(6), **options).mean()
    value.backward()
    assert not math.isfinite(value.item())
    assert not torch.isfinite(features.grad).all()


# ---- the lower bound ----------------------------------------------------------------------------------------


@settings(some, max_examples=60)
@given(batch=batches, option=options)
@example(
    batch={"seed": 0, "bs": 6, "n_views": 1, "feat_dim": 2, "features": "plain", "scale": 1e4, "labels": "equal"},
    option={"temperature": 0.05, "label_diff": "l1", "feature_sim": "l2"},
)
def test_loss_never_falls_below_the_bound(batch, option):
    features, labels = make_batch(batch)
    bound = rnc_lower_bound(labels, label_diff=option["label_diff"], n_views=batch["n_views"])
    value = rnc_loss(features, labels, **option).item()
    assert value >= bound - 1e-12 * max(1, abs(value))


@pytest.mark.parametrize("kind", ["ages", "float", "grid", "equal", "column", "uint8"])
@pytest.mark.parametrize("n_views", [1, 2])
def test_bound_is_approached_along_the_labels(kind, n_views):
    labels = make_labels(np.random.default_rng(4), 12, kind)
    y, _ = label_order.comparable(labels.reshape(12, 1), "l1", "rounding")
    bound = rnc_lower_bound(labels, n_views=n_views)
    gaps = [rnc_loss((t * y)[:, None].expand(-1, n_views, -1), labels).item() - bound for t in (1, 100, 1e8)]
    assert gaps[0] >= gaps[1] - 1e-12
    assert gaps[2] == pytest.approx(0, abs=1e-6)


def test_bound_counts_ties_by_hand():
    # anchors 0, 1, 2, 4: only 1 (0 and 2) and 2 (0 and 4) see a tie of two
    assert rnc_lower_bound(torch.tensor([0, 1, 2, 4])) == pytest.approx(4 * math.log(2) / 12)
    # two views of two samples: each anchor sees its other view alone and the other sample's two views
    assert rnc_lower_bound(torch.tensor([0, 1]), n_views=2) == pytest.approx(8 * math.log(2) / 12)
    assert rnc_lower_bound(torch.ones(5)) == pytest.approx(math.log(4))
    assert rnc_lower_bound(torch.ones(1)) == 0.0
    corners = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert rnc_lower_bound(corners) == pytest.approx(8 * math.log(2) / 12)
    assert rnc_lower_bound(corners, label_diff=lambda y: torch.ones(4, 4)) == pytest.approx(math.log(3))


def test_free_embeddings_descend_to_the_bound_in_order():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0.0, 1, 1, 2, 4, 7])
    v = torch.randn(6, 2, dtype=torch.float64, generator=generator).requires_grad_()
    optimiser = torch.optim.Adam([v], lr=0.5)
    for _ in range(600):
        optimiser.zero_grad()
        value = rnc_loss(v, labels, temperature=0.5)
        value.backward()
        optimiser.step()
    assert value.item() - rnc_lower_bound(labels) < 0.02
    s, d = -torch.cdist(v, v).detach(), (labels[:, None] - labels).abs()
    for i in range(6):
        for j in range(6):
            for k in range(6):
                if i not in (j, k) and d[i, j] < d[i, k]:
                    assert s[i, j] > s[i, k]


# ---- the page for engineers ---------------------------------------------------------------------------------


def test_the_code_on_the_engineers_page_runs_as_shown():
    page = (Path(__file__).resolve().parents[1] / "book" / "engineers.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```pycon\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 10
    assert page.count("```p") == len(blocks)  # no Python that is not run
    source = "\n".join(blocks)
    test = doctest.DocTestParser().get_doctest(source, {}, "engineers.md", None, 0)
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=output.append)
    assert not runner.failures, "".join(output)


# ---- on a GPU -----------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("feature_sim", SIMS)
@pytest.mark.parametrize("labels", ["ages", "float", "2-d ages"])
@pytest.mark.parametrize("spread", [1.0, 1e3])
def test_cuda_equals_cpu(feature_sim, labels, spread):
    rng = np.random.default_rng(0)
    features, labels = make_features(rng, 150, 2, 32, "duplicates", spread).float(), make_labels(rng, 150, labels)
    expected = value_and_gradient(plain, features, labels, feature_sim=feature_sim)
    value, gradient = value_and_gradient(rnc_loss, features.cuda(), labels.cuda(), feature_sim=feature_sim)
    assert_close((value, gradient.cpu()), expected, features, 2.0, feature_sim, 1e-5, 1e-4)
