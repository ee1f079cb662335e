"""Comparing methods on data of one's own: the same splits for all, and an answer by the rule."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.dummy import DummyRegressor

from rnclib import comparison
from rnclib.comparison import (
    METHODS,
    PEERS,
    Answer,
    Comparison,
    compare,
    split_as_given,
    splits_in_time,
    splits_of,
)
from rnclib.data import Split
from rnclib.estimator import RnCRegressor


def errors(ratios, n_test: int = 10, overlap: float = 0.0) -> Comparison:
    """End to end has errors of 2, RnC `ratios` times as much."""
    rest = {"rmse": 3.0, "seconds": 1.0, "n_train": 80, "n_test": n_test}
    rows = [
        {"split": i, "method": method, "mae": 2.0 * times, "val_mae": 1.0 + times} | rest
        for i, ratio in enumerate(ratios)
        for method, times in (("end_to_end", 1.0), ("rnc", ratio))
    ]
    return Comparison(pd.DataFrame(rows), pd.DataFrame(), overlap)


def test_the_answer_is_that_of_the_corrected_resampled_t():
    ratios = np.array([0.9, 0.8, 0.85, 0.7, 0.95])
    answer = errors(ratios).answer()
    logs = np.log(ratios)
    half = stats.t.ppf(0.975, 4) * logs.std(ddof=1) * math.sqrt(1 / 5 + 1 / 8)
    assert (answer.effect, answer.low, answer.high) == pytest.approx(
        (logs.mean(), logs.mean() - half, logs.mean() + half)
    )
    back = errors(ratios).answer("end_to_end", "rnc")
    assert back.effect == pytest.approx(-answer.effect) and back.n == 5


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([0.8, 0.82, 0.79, 0.81], "helps"),
        ([1.2, 1.22, 1.19, 1.21], "harms"),
        ([1.0, 1.01, 0.99, 1.005], "practically equal"),
        ([0.98, 0.982, 0.979, 0.981], "practically equal"),  # a difference, but within the margin
        ([0.6, 1.5, 0.9, 1.1], "undecided"),
    ],
)
def test_the_four_verdicts(ratios, verdict):
    answer = errors(ratios).answer()
    assert answer.verdict == verdict and str(answer).startswith(f"{verdict}: the error is ")


@pytest.mark.parametrize("nothing", [0.0, 1e-16])
def test_without_an_error_there_is_no_ratio(nothing):
    answer = errors([0.9, nothing, nothing, 0.8]).answer()
    assert answer.verdict == "undecided" and answer.without_error == 2 and math.isnan(answer.effect)
    assert str(answer) == (
        "undecided: on 2 of 4 splits a method has no error but rounding, so that there is no ratio of errors"
    )
    assert errors([0.9, 1e-6, 1e-6, 0.8]).answer().without_error == 0


def test_an_undecided_answer_says_what_would_decide():
    few = errors([0.9, 0.7, 1.05], n_test=0).answer()
    assert few.verdict == "undecided" and 3 < few.needed < math.inf
    assert str(few).endswith(f"about {few.needed:.0f} splits would decide")
    enough = errors([0.9, 0.7, 1.05] * math.ceil(few.needed / 3 + 1), n_test=0).answer()
    assert enough.verdict == "helps"
    none = errors([0.95, 0.7, 1.2, 0.9]).answer()
    assert math.isinf(none.needed) and "more splits of this data might never decide it" in str(none)
    with pytest.raises(ValueError, match=r"^other: got 'svm'; allowed: 'end_to_end', 'rnc'"):
        errors([1.0, 1.1]).answer("rnc", "svm")


def test_runs_on_one_test_set_are_no_splits():
    answer = errors([0.8, 0.82, 0.79, 0.81], overlap=1.0).answer()
    assert answer.one_test_set and str(answer).endswith(", 4 runs on one test set")
    half = stats.t.ppf(0.975, 3) * np.log([0.8, 0.82, 0.79, 0.81]).std(ddof=1) / 2
    assert answer.high - answer.effect == pytest.approx(half)
    assert "of this data" not in str(answer) and not errors([0.8, 0.82]).answer().one_test_set


def test_means_have_the_interval_of_the_corrected_resampled_t():
    found = errors([0.9, 0.8, 0.85, 0.7, 0.95])
    assert list(found.table().index) == ["rnc", "end_to_end"] and found.better() == "rnc"
    row, maes = found.table().loc["rnc"], 2 * np.array([0.9, 0.8, 0.85, 0.7, 0.95])
    half = stats.t.ppf(0.975, 4) * maes.std(ddof=1) * math.sqrt(1 / 5 + 1 / 8)
    assert (row["mae"], row["low"], row["high"]) == pytest.approx((maes.mean(), maes.mean() - half, maes.mean() + half))


# --- splits -------------------------------------------------------------------------------------------------


def test_splits_in_time_never_look_ahead():
    rng = np.random.default_rng(0)
    times = rng.integers(0, 50, 300)
    found = splits_in_time(times.tolist(), 5)
    tested = np.concatenate([one.test for one in found])
    assert len(found) == 5 and len(set(tested)) == len(tested)
    for one in found:
        assert times[one.train].max() < times[one.val].min() and times[one.val].max() < times[one.test].min()
        assert len(one.train) + len(one.val) == (times < times[one.test].min()).sum() >= 0.45 * 300
    dates = np.array(["2024-01-01"], "datetime64[D]") + times
    assert all((a.test == b.test).all() for a, b in zip(found, splits_in_time(dates.tolist(), 5), strict=True))
    for missing in (pd.NaT, None, np.nan):
        with pytest.raises(ValueError, match=r"^times: got 1 missing; allowed: numbers, or dates"):
            splits_in_time([missing, *range(40)], 2)
    with pytest.raises(ValueError, match=r"^times: got 3 distinct ones for 2 splits; allowed: at least 8"):
        splits_in_time([1, 2, 3, 3], 2)


def test_a_split_of_ones_own_is_taken_as_it_is():
    parts = ["Train", "valid", "test", "train ", "TEST"]
    found = split_as_given(pd.Series(parts, index=range(7, 12)), np.int64(3))
    assert len(found) == 3 and found[0] is found[2]
    assert (found[0].train.tolist(), found[0].val.tolist(), found[0].test.tolist()) == ([0, 3], [1], [2, 4])
    one = split_as_given(["train"] * 18 + ["test"] * 3, 2)[0]
    assert (len(one.train), len(one.val), len(one.test)) == (16, 2, 3) and not set(one.train) & set(one.val)
    with pytest.raises(ValueError, match=r"^split: got 'held-out'; allowed: 'train', 'val', "):
        split_as_given(pd.Series(["train", "held-out"], index=[5, 6]))
    with pytest.raises(ValueError, match=r"^split: got no row of 'test'"):
        split_as_given(["train", "train"])


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 3)), columns=list("abc")).assign(d=rng.choice(["x", "y"], 60))
    return table, (table["a"] + (table["d"] == "x")).to_numpy()


def test_all_methods_see_the_same_sets(data, monkeypatch):
    table, y = data
    seen: list[tuple] = []
    fit, other = RnCRegressor.fit, comparison.fit

    def watched(self, X, y, **options):
        seen.append((self.method, tuple(X.index), self.temperature, self.random_state))
        return fit(self, X, y, **options)

    def watched_peer(recipe, train, val, **options):
        seen.append((recipe.model, len(train.targets), len(val.targets), options["seed"]))
        return other(recipe, train, val, **options)

    monkeypatch.setattr(RnCRegressor, "fit", watched)
    monkeypatch.setattr(comparison, "fit", watched_peer)
    groups = [i // 2 for i in range(60)]
    splits = splits_of(60, 2, groups=groups)
    model, named = RnCRegressor(epochs=5, batch_size=256, temperature=1.0), pd.Series(groups, index=range(60, 0, -1))
    found = compare(model, table, y, splits, groups=named, progress=False)
    assert [name for name, *_ in seen] == [*METHODS, *PEERS] * 2
    for split in range(2):
        ours = seen[7 * split : 7 * split + 3]
        assert len({rows for _, rows, *_ in ours}) == 1 and {one[3] for one in ours} == {split}
        assert [one[2] for one in ours] == [None, 1.0, None]  # where the method has it
        rows = set(ours[0][1])
        assert len(rows) == 54 and all((i ^ 1) in rows for i in rows)  # groups stay together
        assert {one[1:] for one in seen[7 * split + 3 : 7 * split + 7]} == {(48, 6, split)}
    assert seen[0][1] != seen[7][1]
    assert len(found.errors) == 14 and found.correlation >= 6 / 54
    assert found.table().index[-1] in ("training mean", *METHODS) and (found.table()["seconds"] > 0).all()


def test_errors_are_those_of_a_fit_by_hand(data):
    table, y = data
    found = compare(
        RnCRegressor(epochs=5, batch_size=256, calibration_fraction=0.2),  # which would take samples from training
        table, y, splits_of(60, 2), peers="training mean", progress=False,
    )  # fmt: skip
    split = comparison.group_split(range(60), 1)
    by_method = found.errors[found.errors["split"] == 1].set_index("method")
    assert by_method.loc["training mean", "mae"] == pytest.approx(np.abs(y[split.test] - y[split.train].mean()).mean())
    kept = np.sort(np.r_[split.train, split.val])
    model = RnCRegressor("joint", epochs=5, batch_size=256, random_state=1, validation_fraction=6 / 54).fit(
        table.iloc[kept], y[kept]
    )
    off = model.predict(table.iloc[split.test]) - y[split.test]
    assert by_method.loc["joint", "mae"] == pytest.approx(np.abs(off).mean())
    assert by_method.loc["joint", "rmse"] == pytest.approx(np.sqrt((off**2).mean()))
    assert by_method.loc["joint", "val_mae"] == model.validation_error_
    kept = found.predictions.query("split == 1 and method == 'joint'")
    assert kept["row"].tolist() == split.test.tolist() and (kept["target"] == y[split.test]).all()
    assert kept["prediction"].to_numpy() == pytest.approx(model.predict(table.iloc[split.test]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": splits_of(60, 2)[:1]}, "splits: got 1; allowed: at least 2"),
        ({"splits": 5}, "splits: got int; allowed: at least 2 of rnclib.data.Split"),
        ({"splits": [([0], [1])] * 2}, "splits: got tuple; allowed: at least 2 of rnclib.data.Split"),
        ({"splits": splits_of(99, 2)}, "splits: got sample 98 of 60; allowed: 0 to 59"),
        ({"peers": ["svm"]}, r"peers: got \['svm'\]; allowed: 'training mean', 'ridge', "),
        ({"groups": [1] * 50}, r"groups: got 50; allowed: one for each of 60 samples"),
        ({"splits": [Split(np.arange(40), np.arange(39, 50), np.arange(50, 60))] * 2}, "splits: got a sample in two"),
        ({"splits": [Split(np.arange(40), np.arange(40, 50), np.arange(0))] * 2}, "splits: got a set without samples"),
        ({"peers": "svm"}, r"peers: got \['svm'\]; allowed: 'training mean', 'ridge', "),
    ],
)
def test_wrong_arguments_are_named(data, changes, message):
    with pytest.raises(ValueError, match=r"^n_splits: got 1; allowed: an integer of at least 2"):
        splits_of(60, 1)
    with pytest.raises(ValueError, match=r"^groups: got 2; allowed: one for each of 60 samples"):
        splits_of(60, groups=[1, 2])
    with pytest.raises(ValueError, match=f"^{message}"):
        compare(RnCRegressor(epochs=5, batch_size=256), *data, progress=False, **changes)
    with pytest.raises(ValueError, match=r"^y: got shape \(60, 2\); allowed: \(n,\), one target"):
        compare(RnCRegressor(epochs=5, batch_size=256), data[0], np.zeros((60, 2)))
    with pytest.raises(ValueError, match=r"^y: got 50 targets of 60 samples; allowed: one of each"):
        compare(RnCRegressor(epochs=5, batch_size=256), data[0], np.zeros(50))
    with pytest.raises(ValueError, match=r"^model: got DummyRegressor; allowed: RnCRegressor"):
        compare(DummyRegressor(), *data)


def test_smiles_and_arrays_are_compared_too():
    smiles = ["C" * n + end for n in range(1, 8) for end in ("", "O", "N")]
    y = np.array([len(one) for one in smiles], float)
    model, splits = RnCRegressor(inputs="smiles", epochs=5), splits_of(len(y), 2)
    found = compare(model, smiles, y, splits, peers=["ridge"], progress=False)
    assert set(found.errors["method"]) == {*METHODS, "ridge"} and found.errors["mae"].notna().all()
    assert isinstance(found.answer("joint"), Answer)


def test_a_comparison_goes_on_where_it_was_stopped(data, tmp_path, monkeypatch, capsys):
    table, y = data
    model, splits, folder = RnCRegressor(epochs=5, batch_size=256), splits_of(60, 2), tmp_path / "fits"
    fit, started = RnCRegressor.fit, []

    def interrupted(self, *given, **options):
        started.append((self.random_state, self.method))
        if len(started) == 3:
            raise KeyboardInterrupt
        return fit(self, *given, **options)

    monkeypatch.setattr(RnCRegressor, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(model, table, y, splits, keep=folder, progress=False)
    found = compare(model, table.copy(), list(y), splits, keep=folder)
    assert started == [(0, method) for method in METHODS] + [(0, "joint")] + [(1, method) for method in METHODS]
    assert f"2 of 14 fits are from an earlier run, kept in {folder}." in capsys.readouterr().out

    anew = compare(model, table, y, splits, progress=False)
    pd.testing.assert_frame_equal(found.errors.drop(columns="seconds"), anew.errors.drop(columns="seconds"))
    pd.testing.assert_frame_equal(found.predictions, anew.predictions)
    started.extend([None] * 3)
    again = compare(model, table, y, splits, keep=folder, progress=False)
    pd.testing.assert_frame_equal(again.errors, found.errors)  # the times too
    assert started[-3:] == [None] * 3


@pytest.mark.parametrize("what", ["inputs", "column", "targets", "setting", "peers", "groups", "split", "damage", ""])
def test_fits_to_something_else_are_made_anew(data, tmp_path, monkeypatch, what):
    def changed(one: str, other: object, was: object) -> object:
        return other if one == what else was

    def counted(model, method, X, y, split, peers, *_):
        started.append(method)
        return [comparison._Fit(name, 1.0, None, np.zeros(6)) for name in (method, *peers)]

    table, y = data
    splits, few, started = splits_of(60, 2), ("training mean", "ridge"), []
    given = {"keep": tmp_path, "progress": False}
    monkeypatch.setattr(comparison, "_fits", counted)
    compare(RnCRegressor(epochs=5, batch_size=256), table, y, splits, peers=few, **given)
    for path in tmp_path.iterdir():
        text = path.read_text("utf-8")
        path.write_text(changed("damage", text[: len(text) // 2], text), "utf-8")
    other = changed("inputs", table.assign(a=table["a"].where(table.index != 7, 0.5)), table)
    found = compare(
        RnCRegressor(epochs=changed("setting", 6, 5), batch_size=256),
        changed("column", other.rename(columns={"a": "e"}), other),
        changed("targets", np.where(np.arange(60) == 7, 0.5, y), y),
        changed("split", splits[::-1], splits),
        peers=changed("peers", ("ridge",), few),
        groups=changed("groups", [f"{i // 2}" for i in range(60)], None),
        **given,
    )
    assert started == list(METHODS) * (4 if what else 2) and len(found.errors) == 2 * (
        3 + (1 if what == "peers" else 2)
    )


def test_molecules_are_the_same_in_a_list_and_in_a_table():
    smiles = ["CC", "CO", "CN"]
    digests = {
        comparison._contents(one, "smiles")
        for one in (smiles, tuple(smiles), np.array(smiles), pd.Series(smiles, index=[3, 4, 5]))
    }
    assert len(digests) == 1 and comparison._contents(smiles[::-1], "smiles") not in digests
    assert comparison._contents(pd.DataFrame({"s": smiles}), "smiles") not in digests  # of another shape


def test_images_are_told_apart_by_what_is_in_them(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        path.write_bytes(b"one")
    same = comparison._contents([str(path) for path in paths], "images")
    paths[1].rename(paths[1].with_name("c.png"))
    assert comparison._contents([str(paths[0]), str(tmp_path / "c.png")], "images") == same
    (tmp_path / "c.png").write_bytes(b"two")
    assert comparison._contents([str(paths[0]), str(tmp_path / "c.png")], "images") != same


def test_fits_of_an_encoder_of_ones_own_are_not_kept(tmp_path):
    model = RnCRegressor(encoder=torch.nn.Linear(3, 2), epochs=5, batch_size=256)
    with pytest.raises(ValueError, match=r"^keep: got a folder with an encoder of your own; allowed: None"):
        compare(model, np.zeros((60, 3)), np.arange(60.0), keep=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^keep: got .*file, which cannot be written"):
        compare(RnCRegressor(), np.zeros((60, 3)), np.arange(60.0), keep=tmp_path / "file")
