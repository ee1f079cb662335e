"""The benchmark: candidates that compute what their names say, and a record that gives the tables."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rnclib import benchmark


@pytest.mark.parametrize("labels", benchmark.LABELS)
@pytest.mark.parametrize("name", ["literal", "row sort"])
def test_other_ways_to_write_the_loss_give_its_value_and_gradient(name, labels):
    v, y = benchmark.make_batch(24, 6, labels)
    (expected,) = torch.autograd.grad(benchmark.rnc(v, y), v)
    value = benchmark.CANDIDATES[name](v, y)
    (gradient,) = torch.autograd.grad(value, v)
    assert value.item() == pytest.approx(benchmark.rnc(v, y).item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def literal_cross_entropies(v: torch.Tensor) -> np.ndarray:
    """−log of the probability with which anchor i picks j among the others, in float64."""
    s = -torch.cdist(v.double(), v.double()).detach().numpy() / benchmark.TEMPERATURE
    np.fill_diagonal(s, -math.inf)
    return np.log(np.exp(s).sum(axis=1, keepdims=True)) - s


def test_supcon_is_its_definition():
    v, y = benchmark.make_batch(12, 5, "ages")
    y = torch.tensor([1, 2, 2, 3, 4, 4, 1, 2, 5, 3, 6, 4])  # 5 and 6 have no positive
    terms, per_anchor = literal_cross_entropies(v), []
    for i in range(12):
        positives = [j for j in range(12) if j != i and y[j] == y[i]]
        per_anchor.append(np.mean([terms[i, j] for j in positives]) if positives else 0.0)
    assert benchmark.supcon(v, y).item() == pytest.approx(np.mean(per_anchor), rel=1e-5)


def test_infonce_is_its_definition():
    v, y = benchmark.make_batch(12, 5, "ages")
    terms = literal_cross_entropies(v)
    expected = np.mean([terms[i, (i + 6) % 12] for i in range(12)])
    assert benchmark.infonce(v, y).item() == pytest.approx(expected, rel=1e-5)


def test_ages_have_ties_and_continuous_labels_have_none():
    v, ages = benchmark.make_batch(600, 2, "ages")
    assert v.shape == (600, 2) and torch.equal(ages[:300], ages[300:]) and len(ages.unique()) <= 101
    assert len(benchmark.make_batch(600, 2, "continuous")[1].unique()) > 590


def test_a_measurement_is_saved_with_its_machine_and_commit(tmp_path):
    record = benchmark.measure("smoke", report=lambda _: None)
    path = benchmark.save(record, tmp_path)
    assert path.parent == tmp_path / "smoke" / "benchmark"
    (loaded,) = benchmark.load("smoke", tmp_path)
    assert loaded["machine"] == record["machine"] and loaded["commit"] == record["commit"]
    assert loaded.keys() == record.keys()
    assert {row["loss"] for row in loaded["times"]} == set(benchmark.CANDIDATES)
    assert all(len(row["ms"]) >= 3 and min(row["ms"]) > 0 for row in loaded["times"])
    assert loaded["memory"] and all(row["bytes"] >= 0 for row in loaded["memory"])
    with pytest.raises(FileNotFoundError, match=r"no benchmark record .* python -m rnclib\.benchmark --profile quick"):
        benchmark.load("quick", tmp_path)
    with pytest.raises(ValueError, match=r"profile: got 'long'; allowed: 'paper', 'quick', 'smoke'"):
        benchmark.measure("long")


def test_ratios_and_exponents_of_known_times():
    rows = [
        {"loss": loss, "M": M, "d": 8, "labels": "ages", "ms": [9e9, factor * M**power, 0.0]}  # the median counts
        for loss, factor, power in (("rnc_loss", 1e-3, 2), ("literal", 1e-3, 3))
        for M in (64, 128, 256)
    ]
    record = {"times": rows}
    ratios = benchmark.ratios(record).set_index("M")
    assert ratios["rnc_loss, ms"].tolist() == pytest.approx([4.096, 16.384, 65.536])
    assert ratios["literal"].tolist() == pytest.approx([64, 128, 256])
    exponents = benchmark.exponents(record).set_index("loss")["exponent"]
    assert exponents["rnc_loss"] == pytest.approx(2) and exponents["literal"] == pytest.approx(3)


def test_the_page_for_engineers_computes_with_the_published_measurement():
    root = Path(__file__).resolve().parents[1]
    text = (root / "book" / "engineers.md").read_text(encoding="utf-8")
    (quoted,) = {float(seconds) for seconds in re.findall(r"\ba=([\d.e-]+)", text)}
    times = benchmark.medians(benchmark.load("paper", root / "book" / "results")[0])
    (row,) = times.query("loss == 'rnc_loss' and labels == 'ages' and d == 128 and M == 4096").itertuples()
    assert quoted == pytest.approx(1e-3 * row.ms / row.M**2, rel=0.05)
