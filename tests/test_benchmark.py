"""The benchmark: candidates that compute what their names say, and a record that gives the tables."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rnclib import benchmark, regimes
from rnclib.loss import fast


@pytest.mark.parametrize("labels", regimes.LABELS)
@pytest.mark.parametrize("name", ["official", "row sort", "plain path"])
def test_other_ways_to_write_the_loss_give_its_value_and_gradient(name, labels):
    v, y = regimes.make_batch(24, 6, labels)
    (expected,) = torch.autograd.grad(benchmark.rnc(v, y), v)
    value = benchmark.CANDIDATES[name](v, y)
    (gradient,) = torch.autograd.grad(value, v)
    assert value.item() == pytest.approx(benchmark.rnc(v, y).item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def literal_cross_entropies(v: torch.Tensor) -> np.ndarray:
    """−log of the probability with which anchor i picks j among the others, in float64."""
    s = -torch.cdist(v.double(), v.double()).detach().numpy() / regimes.TEMPERATURE
    np.fill_diagonal(s, -math.inf)
    return np.log(np.exp(s).sum(axis=1, keepdims=True)) - s


def test_supcon_is_its_definition():
    v, y = regimes.make_batch(12, 5, "ages")
    y = torch.tensor([1, 2, 2, 3, 4, 4, 1, 2, 5, 3, 6, 4])  # 5 and 6 have no positive
    terms, per_anchor = literal_cross_entropies(v), []
    for i in range(12):
        positives = [j for j in range(12) if j != i and y[j] == y[i]]
        per_anchor.append(np.mean([terms[i, j] for j in positives]) if positives else 0.0)
    assert benchmark.supcon(v, y).item() == pytest.approx(np.mean(per_anchor), rel=1e-5)


def test_infonce_is_its_definition():
    v, y = regimes.make_batch(12, 5, "ages")
    terms = literal_cross_entropies(v)
    expected = np.mean([terms[i, (i + 6) % 12] for i in range(12)])
    assert benchmark.infonce(v, y).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", benchmark.CANDIDATES)
def test_every_candidate_is_a_finite_number_with_a_gradient_for_the_embeddings(name):
    for labels in regimes.LABELS:
        v, y = regimes.make_batch(40, 6, labels)
        value = benchmark.CANDIDATES[name](v, y)
        (gradient,) = torch.autograd.grad(value, v)
        assert value.shape == () and torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        without_positives = labels == "continuous" and "SupCon" in name
        assert without_positives == (gradient.abs().max() == 0)


# --- batches --------------------------------------------------------------------------------------------


def test_ages_have_ties_and_continuous_labels_have_none():
    v, ages = regimes.make_batch(600, 2, "ages")
    assert v.shape == (600, 2) and torch.equal(ages[:300], ages[300:]) and len(ages.unique()) <= 101
    assert len(regimes.make_batch(600, 2, "continuous")[1].unique()) > 590


def radii(v: torch.Tensor) -> np.ndarray:
    """Distances from the mean over τ, in float64."""
    x = v.detach().numpy().astype(float)
    return np.linalg.norm(x - x.mean(axis=0), axis=1) / regimes.TEMPERATURE


def test_a_regime_has_the_reach_that_its_name_says():
    stated = {name: float(name.rpartition("reach ")[2]) for name in regimes.REGIMES if "reach " in name}
    assert {1, 3, 10, 30, 100, 300, 1000} <= set(stated.values()) and len(stated) > 7
    for name, expected in stated.items():
        v, _ = regimes.make_regime(name, 60, 7)
        assert regimes.reach(v) == pytest.approx(expected, rel=1e-5)
        assert radii(v).max() == pytest.approx(expected, rel=1e-5)


def test_a_regime_is_what_its_name_says():
    batches = {name: regimes.make_regime(name, 60, 7) for name in regimes.REGIMES}
    drawn, ages = regimes.make_batch(60, 7, "ages")
    assert all(v.shape == (60, 7) and y.shape == (60,) and v.is_leaf for v, y in batches.values())
    assert torch.equal(batches["as drawn"][0], drawn) and torch.equal(batches["as drawn"][1], ages)
    last, *others = np.sort(radii(batches["one outlier"][0]))[::-1]
    assert last > 20 * max(others)
    v, _ = batches["collapsed"]
    apart = torch.cdist(v, v).detach()
    assert apart[1:, 1:].max() < 0.01 * apart[0, 1:].min() and (apart[1:, 1:].sum(dim=1) > 0).all()
    v, _ = batches["half of the embeddings zero"]
    assert (v == 0).all(dim=1).sum() == 30
    v, y = batches["ordered along a line"]
    x = v.detach() - v.detach().mean(dim=0)
    _, share, direction = torch.linalg.svd(x, full_matrices=False)
    assert share[1:].max() < 0.01 * share[0]
    assert abs(np.corrcoef(x @ direction[0], y)[0, 1]) > 0.999
    assert torch.equal(batches["labels with decimals"][1], ages.float() / 10)
    assert len(batches["all labels equal"][1].unique()) == 1
    for name in ("all labels different", "all labels different, reach 300"):
        assert len(batches[name][1].unique()) == 60


@pytest.mark.parametrize("name", regimes.REGIMES)
def test_the_loss_is_that_of_the_plain_path_in_every_regime(name):
    v, y = regimes.make_regime(name, 160, 16)
    value, plain = benchmark.rnc(v, y), benchmark.CANDIDATES["plain path"](v, y)
    ours, theirs = (torch.autograd.grad(loss, v)[0] for loss in (value, plain))
    assert value.item() == pytest.approx(plain.item(), rel=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def test_a_training_gives_the_batches_of_the_steps_asked_for():
    state = torch.get_rng_state()
    steps = (0, 3, 40)
    batches = list(regimes.trained_batches(64, 24, steps))
    assert torch.equal(torch.get_rng_state(), state)
    assert tuple(step for step, *_ in batches) == steps
    losses = []
    for _, v, y in batches:
        assert v.shape == (64, 24) and v.is_leaf and v.requires_grad
        assert torch.equal(y[:32], y[32:]) and not torch.equal(v[:32], v[32:])  # two views
        losses.append(benchmark.rnc(v, y).item())
    assert losses[2] < 0.9 * losses[0]  # it learns
    assert regimes.reach(batches[2][1]) > 3 * regimes.reach(batches[0][1])
    again = list(regimes.trained_batches(64, 24, (3,)))
    assert torch.equal(again[0][1], batches[1][1]) and torch.equal(again[0][2], batches[1][2])


# --- measuring ------------------------------------------------------------------------------------------


def test_candidates_take_turns_and_the_two_that_are_compared_take_seven(monkeypatch):
    called = []
    for name in ("rnc_loss", "SupCon", "official"):
        monkeypatch.setitem(benchmark.CANDIDATES, name, lambda v, y, name=name: called.append(name) or v.sum())
    batch = regimes.make_batch(4, 2, "ages")
    rows = benchmark._rows({"M": 4}, ["rnc_loss", "official", "SupCon"], batch, seconds=0.0)
    assert called == 3 * ["rnc_loss", "official", "SupCon"] + 4 * ["rnc_loss", "SupCon"]
    assert [(row["loss"], row["M"], len(row["ms"])) for row in rows] == [
        ("rnc_loss", 4, 7), ("official", 4, 3), ("SupCon", 4, 7),
    ]  # fmt: skip
    assert [len(row["ms"]) for row in benchmark._rows({}, ["rnc_loss"], batch, seconds=0.0)] == [3]
    rows = benchmark._rows({}, ["rnc_loss", "official"], batch, seconds=60.0)
    assert [len(row["ms"]) for row in rows] == [30, 30] and batch[0].grad is None


def test_a_measurement_is_saved_with_its_machine_and_commit(tmp_path):
    record = benchmark.measure("smoke", report=lambda _: None)
    path = benchmark.save(record, tmp_path)
    assert path.parent == tmp_path / "smoke" / "benchmark"
    (loaded,) = benchmark.load("smoke", tmp_path)
    assert loaded["machine"] == record["machine"] and loaded["commit"] == record["commit"]
    assert loaded.keys() == record.keys()
    assert {row["loss"] for row in loaded["times"]} == set(benchmark.CANDIDATES)
    for part, least in (("times", 3), ("regimes", 7), ("trained", 7)):
        for row in loaded[part]:
            assert len(row["ms"]) >= (3 if row["loss"] == "plain path" else least) and min(row["ms"]) > 0
    assert {row["regime"] for row in loaded["regimes"]} == set(regimes.REGIMES)
    assert {row["loss"] for row in loaded["trained"]} == {"rnc_loss", "SupCon", "plain path"}
    assert tuple(dict.fromkeys(row["step"] for row in loaded["trained"])) == benchmark.PROFILES["smoke"]["trained"][2]
    assert benchmark.regimes(loaded).notna().any().all() and benchmark.trained(loaded).notna().all(axis=None)
    assert loaded["memory"] and all(row["bytes"] >= 0 for row in loaded["memory"])
    with pytest.raises(FileNotFoundError, match=r"no benchmark record .* python -m rnclib\.benchmark --profile quick"):
        benchmark.load("quick", tmp_path)
    with pytest.raises(ValueError, match=r"profile: got 'long'; allowed: 'paper', 'quick', 'smoke'"):
        benchmark.measure("long")


def test_the_newest_record_comes_first(tmp_path):
    for cpu, started in (("a", "2026-01-01T00:00:00Z"), ("b", "2026-03-01T00:00:00Z"), ("c", "2026-02-01T00:00:00Z")):
        record = {"experiment": "benchmark", "profile": "quick", "machine": {"cpu": cpu}, "started": started}
        benchmark.save(record, tmp_path)
    assert [record["machine"]["cpu"] for record in benchmark.load("quick", tmp_path)] == ["b", "c", "a"]


# --- tables ---------------------------------------------------------------------------------------------


def test_ratios_and_exponents_of_known_times():
    rows = [
        {"loss": loss, "M": M, "d": 8, "labels": "ages", "ms": [9e9, factor * M**power, 0.0]}  # the median counts
        for loss, factor, power in (("rnc_loss", 2e-3, 2), ("SupCon", 1e-3, 2), ("official", 1e-3, 3))
        for M in (64, 128, 256)
    ]
    rows.append({"loss": "rnc_loss", "M": 512, "d": 8, "labels": "ages", "ms": [2e-3 * 512**2]})  # alone
    record = {"times": rows}
    ratios = benchmark.ratios(record).set_index("M")
    assert ratios["SupCon, ms"].tolist() == pytest.approx([4.096, 16.384, 65.536])
    assert ratios["rnc_loss"].tolist() == pytest.approx([2, 2, 2])
    assert ratios["official"].tolist() == pytest.approx([64, 128, 256])
    exponents = benchmark.exponents(record).set_index("loss")["exponent"]
    assert exponents["rnc_loss"] == pytest.approx(2) and exponents["official"] == pytest.approx(3)


@pytest.mark.parametrize(
    ("table", "kind", "first"), [("regimes", "regime", "SupCon as drawn"), ("trained", "step", "SupCon at step 0")]
)
def test_multiples_of_others_from_known_times(table, kind, first):
    def rows(value, M, reach, **ms):
        setting = {kind: value, "M": M, "d": 8, "reach": reach}
        return [{"loss": name.replace("_path", " path")} | setting | {"ms": [0.0, t, 9e9]} for name, t in ms.items()]

    record = {
        "profile": "quick",
        table: [
            *rows(0, 64, 5.0, rnc_loss=6.0, SupCon=4.0, plain_path=12.0),
            *rows(1, 64, 7.0, rnc_loss=10.0, SupCon=20.0, plain_path=8.0),
            *rows(0, 128, 5.5, rnc_loss=30.0, SupCon=15.0),  # too many for the plain path
            *rows(1, 128, 7.5, rnc_loss=45.0, SupCon=30.0),
        ],
    }
    found = getattr(benchmark, table)(record)
    assert found[kind].tolist() == [0, 1, 0, 1] and found["M"].tolist() == [64, 64, 128, 128]
    assert found["reach"].tolist() == [5.0, 7.0, 5.5, 7.5] and found["ms"].tolist() == [6, 10, 30, 45]
    assert found["SupCon"].tolist() == pytest.approx([1.5, 0.5, 2.0, 1.5])
    assert found[first].tolist() == pytest.approx([1.5, 2.5, 2.0, 3.0])
    assert found["plain path"].tolist() == pytest.approx([0.5, 1.25, np.nan, np.nan], nan_ok=True)
    with pytest.raises(ValueError, match=rf"without '{table}'.* python -m rnclib\.benchmark --profile quick"):
        getattr(benchmark, table)({"profile": "quick", "times": []})


def test_the_chapter_says_up_to_which_batch_one_matrix_is_kept():
    root = Path(__file__).resolve().parents[1]
    text = " ".join((root / "notebooks" / "benchmark.py").read_text(encoding="utf-8").replace("\n# ", " ").split())
    (stated,) = re.findall(r"Up to (\d+) embeddings, `rnc_loss` keeps one", text)
    assert int(stated) == fast.WHOLE
    # where its memory is measured, the published figure has sizes on both sides
    sizes = benchmark.PROFILES["paper"]["memory"]["rnc_loss", "ages"]
    assert fast.WHOLE in sizes and min(sizes) < fast.WHOLE < max(sizes)


def test_the_page_for_engineers_computes_with_the_published_measurement():
    root = Path(__file__).resolve().parents[1]
    text = (root / "book" / "engineers.md").read_text(encoding="utf-8")
    (quoted,) = {float(seconds) for seconds in re.findall(r"\ba=([\d.e-]+)", text)}
    times = benchmark.medians(benchmark.load("paper", root / "book" / "results")[0])
    (row,) = times.query("loss == 'rnc_loss' and labels == 'ages' and d == 128 and M == 4096").itertuples()
    assert quoted == pytest.approx(1e-3 * row.ms / row.M**2, rel=0.05)
