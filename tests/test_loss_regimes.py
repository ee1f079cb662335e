"""Whatever the embeddings look like, float32 keeps the stated accuracy: fuzzed batches against a float64 oracle."""

import numpy as np
import pytest
import torch
from literal_loss import assert_close, dense, plain, value_and_gradient

from rnclib import rnc_loss
from rnclib.loss import fast

EMBEDDINGS = (
    "normal", "outlier", "far outlier", "collapsed", "half equal", "copies", "clusters", "tight clusters", "two blobs",
    "line", "curve", "offset", "low-dimensional", "all equal but one", "geometric",
)  # fmt: skip
LABELS = ("ages", "decimals", "float32", "float64", "standardised", "equal", "two views", "nearly equal", "2-d")


def make_embeddings(rng, M, d, kind, y):
    x = rng.standard_normal((M, d))
    if kind in ("outlier", "far outlier"):
        x[0] *= 200 if kind == "outlier" else 1e6
    elif kind == "collapsed":
        x *= 1e-3
        x[0] *= 3e3
    elif kind == "half equal":
        x[: M // 2] = 0.0
    elif kind == "copies":
        x = x[rng.integers(0, M // 3, M)]
    elif kind in ("clusters", "tight clusters"):
        x = 3 * rng.standard_normal((20, d))[rng.integers(0, 20, M)] + (1e-3 if kind == "clusters" else 1e-7) * x
    elif kind == "two blobs":
        x = np.sign(rng.standard_normal((M, 1))) * rng.standard_normal((1, d)) + 1e-4 * x
    elif kind in ("line", "curve"):
        place = (y - y.mean()) / max(y.std(), 1e-9)
        x = place[:, None] * rng.standard_normal((1, d)) * 4 + 0.1 * x
        if kind == "curve":
            x = np.sin(x)
    elif kind == "offset":
        x += 1000
    elif kind == "low-dimensional":
        x[:, 2:] = 0
    elif kind == "all equal but one":
        x[1:] = x[1]
    elif kind == "geometric":
        x *= np.logspace(-6, 0, M)[:, None]
    return x


def make_labels(rng, M, kind):
    """A tensor of labels."""
    ages = rng.integers(1, 102, M)
    return {
        "ages": lambda: torch.from_numpy(ages),
        "decimals": lambda: torch.from_numpy(ages / 10),
        "float32": lambda: torch.from_numpy(rng.standard_normal(M)).float(),
        "float64": lambda: torch.from_numpy(rng.standard_normal(M)),
        "standardised": lambda: torch.from_numpy((ages - ages.mean()) / ages.std()).float(),
        "equal": lambda: torch.ones(M),
        "two views": lambda: torch.from_numpy(np.repeat(rng.standard_normal(M // 2 + 1), 2)[:M]),
        "nearly equal": lambda: torch.from_numpy(1 + rng.integers(0, 60, M) * 2.0**-22).float(),
        "2-d": lambda: torch.from_numpy(rng.integers(0, 30, (M, 2)) / 10),
    }[kind]()


def make_batch(seed, sizes=(128, 150)):
    """A batch of any kind, scaled so that its reach is from 0.01 to 3000."""
    rng = np.random.default_rng(seed)
    M, d = int(rng.integers(*sizes)), int(rng.choice([1, 2, 8, 64]))
    labels = make_labels(rng, M, LABELS[rng.integers(len(LABELS))])
    kind = EMBEDDINGS[rng.integers(len(EMBEDDINGS))]
    x = make_embeddings(rng, M, d, kind, labels.double().reshape(M, -1)[:, 0].numpy())
    radius = np.linalg.norm(x - x.mean(axis=0), axis=1).max()
    options = {"temperature": float(10 ** rng.uniform(-1, 1))}
    options["feature_sim"] = "cosine" if rng.random() < 0.2 and kind not in ("half equal", "geometric") else "l2"
    x *= 10 ** rng.uniform(-2, 3.5) * options["temperature"] / max(radius, 1e-9)
    return torch.from_numpy(x).float(), labels, options


def check(seed):
    features, labels, options = make_batch(seed)
    got = value_and_gradient(rnc_loss, features, labels, **options)
    expected = value_and_gradient(dense, features, labels, **options)
    assert_close(got, expected, features, options["temperature"], options["feature_sim"], 1e-5, 1e-4)


@pytest.mark.parametrize("seed", range(14))
def test_float32_is_as_accurate_as_stated(seed):
    check(seed)


@pytest.mark.slow
def test_float32_is_as_accurate_as_stated_on_many_batches():
    for seed in range(1000, 2200):
        check(seed)


@pytest.mark.parametrize("seed", range(2000, 2006))
@pytest.mark.parametrize("whole", [True, False])
def test_both_layouts_agree(monkeypatch, seed, whole):
    monkeypatch.setattr(fast, "BLOCK", {"cpu": 5000})
    monkeypatch.setattr(fast, "WHOLE", 4096 if whole else 0)
    features, labels, options = make_batch(seed)
    got = value_and_gradient(rnc_loss, features, labels, **options)
    expected = value_and_gradient(plain, features, labels, **options)
    assert_close(got, expected, features, options["temperature"], options["feature_sim"], 1e-5, 1e-4)


@pytest.mark.parametrize("scale", [1e20, 1e-7])
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("M", [30, 130])
@pytest.mark.parametrize("temperature", [0.01, 2.0])
def test_cosines_are_exact(scale, offset, M, temperature):
    generator = torch.Generator().manual_seed(0)
    features = (torch.randn(M, 8, generator=generator) + offset) * scale
    labels = torch.randint(0, 50, (M,), generator=generator)
    options = {"temperature": temperature, "feature_sim": "cosine"}
    value, gradient = value_and_gradient(rnc_loss, features, labels, **options)
    expected, gradient0 = value_and_gradient(dense, features, labels, **options)
    assert value == pytest.approx(expected, rel=1e-6)
    assert (gradient - gradient0).abs().max() <= 1e-4 * gradient0.abs().max()


def test_an_embedding_of_length_zero_has_cosine_zero():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(200, 8, generator=generator), torch.randint(0, 50, (200,), generator=generator)
    features[[3, 7, 50]] = 0
    value, gradient = value_and_gradient(rnc_loss, features, labels, feature_sim="cosine")
    expected, gradient0 = value_and_gradient(plain, features, labels, feature_sim="cosine")
    assert value == pytest.approx(expected, rel=1e-6)
    assert (gradient - gradient0).abs().max() <= 1e-5 * gradient0.abs().max()
    assert (gradient[[3, 7, 50]] == 0).all()
    turned = torch.cat([features, torch.zeros(200, 1)], dim=1)
    turned[[3, 7, 50], 8] = 1.0  # a direction of its own is at right angles to all but the others of its kind
    expected = rnc_loss(turned[:8], labels[:8], feature_sim="cosine")
    turned[7, 8], turned[50, 8] = 0, 0
    assert rnc_loss(features[:7], labels[:7], feature_sim="cosine").item() == pytest.approx(
        rnc_loss(turned[:7], labels[:7], feature_sim="cosine").item(), rel=1e-6
    )
    assert expected.isfinite()


@pytest.mark.parametrize("terms", [1.0, 30.0, 700.0, 3e3, 1e6])
def test_logarithms_of_running_sums(terms):
    generator = torch.Generator().manual_seed(0)
    z = terms * torch.randn(6, 80, dtype=torch.float64, generator=generator)
    z[1] = z[1].sort().values
    z[2] = z[2].sort(descending=True).values
    z[3, :5] = -torch.inf
    torch.testing.assert_close(fast._log_cumsum(z), z.logcumsumexp(1), rtol=1e-12, atol=1e-12)
    narrow = fast._log_cumsum(z.float())
    torch.testing.assert_close(narrow.double(), z.float().double().logcumsumexp(1), rtol=1e-5, atol=1e-4)
