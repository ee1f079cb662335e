"""The results store, against everything that can lie in it, and the statistics, against literal computations."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnclib import metrics, results
from rnclib.data import spurious_split, subsample, with_holes
from rnclib.data.esol import SHA256
from rnclib.data.synthetic import recipe

ROOT = Path(__file__).resolve().parents[1]


def record(method="RnC(L1)", seed=3, *, mae=0.25, key=None, split="random", diverged=False, **changes):
    """A small record; its metrics are made up from `mae`."""
    target = [round(-3 + 0.5 * i + 0.01 * seed, 4) for i in range(8)]
    scales = {
        scale: {"mae": factor * mae, "rmse": factor * mae * 1.25, "mse": (factor * mae * 1.25) ** 2}
        for scale, factor in (("standardised", 1.0), ("raw", 2.0))
    }
    return {
        "schema": results.SCHEMA,
        "experiment": "esol",
        "dataset": "esol",
        "profile": "smoke",
        "split": split,
        "method": method,
        "seed": seed,
        "key": key or hashlib.sha256(f"{method} {seed} {split}".encode()).hexdigest()[:16],
        "config": {"fit": {"loss": "l1"}},
        "data": {"checksum": SHA256, "n_train": 80, "n_val": 10, "n_test": 8},
        "metrics": {} if diverged else {"val": copy.deepcopy(scales), "test": copy.deepcopy(scales)},
        "diverged": "training loss (l2) became nan in epoch 3" if diverged else None,
        "stages": []
        if diverged
        else [
            {"name": "encoder", "wall_time": 2.5, "curve": {"epoch": [1, 2], "train_loss": [3.0, 2.0]}},
            {
                "name": "regressor",
                "wall_time": 1.0,
                "curve": {"epoch": [1, 3], "train_loss": [0.5, 0.25], "val_loss": [0.6, 0.3]},
            },
        ],
        "run": {"commit": "0" * 40, "clean": True},
        "test": {
            "index": [2 * i for i in range(8)],
            "target": target,
            "prediction": [] if diverged else [round(t + mae * (-1) ** i, 4) for i, t in enumerate(target)],
        },
    } | changes


def loaded(root, **match):
    """Records of the folder, none of which may cause a warning (warnings are errors here)."""
    return results.load(root, profile="smoke", experiment="esol", **match)


def files(root):
    return sorted(str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file())


# --- the store ------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_written(tmp_path):
    one = record(method="Delaney's equation – µ", mae=0.1 + 0.2)
    path = results.write(one, tmp_path)
    assert loaded(tmp_path) == [one]
    assert path.parent == tmp_path / "smoke" / "esol" and path.suffix == ".json"
    assert path.name == f"esol-random-delaney-s-equation-03-{one['key'][:8]}.json"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(one) + 2  # a line for each field
    assert files(tmp_path) == [f"smoke/esol/{path.name}"]


def test_profiles_and_experiments_have_folders_of_their_own(tmp_path):
    kinds = [("smoke", "esol"), ("quick", "esol"), ("paper", "esol"), ("smoke", "agedb")]
    for profile, experiment in kinds:
        results.write(record(profile=profile, experiment=experiment), tmp_path)
    assert len(files(tmp_path)) == 4
    for profile, experiment in kinds:
        assert (tmp_path / profile / experiment).is_dir()
        (one,) = results.load(tmp_path, profile=profile, experiment=experiment)
        assert (one["profile"], one["experiment"]) == (profile, experiment)
    assert results.load(tmp_path, profile="quick", experiment="agedb") == []


def test_records_are_chosen_by_their_fields(tmp_path):
    for method in ("L1", "RnC(L1)"):
        for seed in range(3):
            results.write(record(method, seed), tmp_path)
    assert len(loaded(tmp_path)) == 6
    assert {r["seed"] for r in loaded(tmp_path, method="L1")} == {0, 1, 2}
    assert [r["method"] for r in loaded(tmp_path, method="L1", seed=2)] == ["L1"]
    assert loaded(tmp_path, dataset="standin") == loaded(tmp_path, no_such_field=1) == []
    assert loaded(tmp_path) == loaded(str(tmp_path))  # the same order every time


@pytest.mark.parametrize("profile", ["Paper", "", "../paper"])
def test_an_unknown_profile_is_refused(tmp_path, profile):
    with pytest.raises(ValueError, match=r"^profile: got .*; allowed: 'smoke', 'quick', 'paper'"):
        results.write(record(profile=profile), tmp_path)
    with pytest.raises(ValueError, match=r"^profile: got"):
        results.load(tmp_path, profile=profile, experiment="esol")
    assert files(tmp_path) == []


def test_a_record_of_the_same_key_is_replaced(tmp_path):
    first = results.write(record(mae=0.25), tmp_path)
    second = results.write(record(mae=0.5), tmp_path)
    assert first == second and len(files(tmp_path)) == 1
    assert loaded(tmp_path)[0]["metrics"]["test"]["standardised"]["mae"] == 0.5


def test_a_record_of_another_key_is_not_replaced_though_its_name_is_the_same(tmp_path):
    one, other = record(key="01234567aaaaaaaa"), record(key="01234567bbbbbbbb")
    first, second = results.write(one, tmp_path), results.write(other, tmp_path)
    assert first != second
    assert results.write(other, tmp_path) == second and results.write(one, tmp_path) == first
    assert sorted(r["key"] for r in loaded(tmp_path)) == [one["key"], other["key"]]


GOOD = record()
FOREIGN = {
    "truncated": json.dumps(GOOD)[:200],
    "empty": "",
    "not JSON": "a note to myself",
    "JSON of another kind": '{"name": "something else"}',
    "a list": "[1, 2, 3]",
    "a number": "7",
    "null": "null",
    "deeply nested": "[" * 100_000,
    "wrong schema": json.dumps(GOOD | {"schema": results.SCHEMA + 1}),
    "without a key": json.dumps({k: v for k, v in GOOD.items() if k != "key"}),
    "without a test part": json.dumps({k: v for k, v in GOOD.items() if k != "test"}),
    "no sizes": json.dumps(GOOD | {"data": {}}),
    "metrics as a list": json.dumps(GOOD | {"metrics": [1]}),
    "no stages": json.dumps(GOOD | {"stages": None}),
    "stages without a curve": json.dumps(GOOD | {"stages": [{"name": "encoder", "wall_time": 1.0}]}),
    "an empty test part": json.dumps(GOOD | {"test": {}}),
    "no configuration": json.dumps(GOOD | {"config": None}),
    "of another profile": json.dumps(GOOD | {"profile": "paper"}),
    "of another experiment": json.dumps(GOOD | {"experiment": "agedb"}),
    "not UTF-8": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_record_is_named_left_out_and_left_alone(tmp_path, kind):
    content = FOREIGN[kind]
    content = content if isinstance(content, bytes) else content.encode()
    where = tmp_path / "smoke" / "esol"
    where.mkdir(parents=True)
    results.write(record(seed=1), tmp_path)
    (where / "stray.json").write_bytes(content)
    with pytest.warns(UserWarning, match=r"smoke record of 'esol'.*: stray\.json$") as warned:
        records = loaded(tmp_path)
    assert len(warned) == 1
    assert [r["seed"] for r in records] == [1]

    # the same file under the very name that the record would have
    own = where / f"esol-random-rnc-l1-03-{GOOD['key'][:8]}.json"
    own.write_bytes(content)
    path = results.write(GOOD, tmp_path)
    assert path != own and own.read_bytes() == content
    assert results.write(GOOD, tmp_path) == path  # and it is found again
    with pytest.warns(UserWarning) as warned:
        assert GOOD in loaded(tmp_path)
    assert len(warned) == 1 and {"stray.json", own.name} == set(str(warned[0].message).split(": ")[1].split(", "))
    assert (where / "stray.json").read_bytes() == content


def test_other_files_in_the_folder_are_nobodys_business(tmp_path):
    path = results.write(GOOD, tmp_path)
    path.with_suffix(".csv").write_text("index,part\n")
    (path.parent / "README.md").write_text("notes")
    (path.parent / f".{path.name}.123-45.tmp").write_text("{")  # what a killed process leaves
    (path.parent / "folder.json.d").mkdir()
    assert loaded(tmp_path) == [GOOD]


def test_a_folder_named_like_a_record_is_reported(tmp_path):
    path = results.write(GOOD, tmp_path)
    (path.parent / "folder.json").mkdir()
    with pytest.warns(UserWarning, match=r"folder\.json"):
        assert loaded(tmp_path) == [GOOD]


def test_a_store_that_does_not_exist_holds_nothing(tmp_path):
    assert loaded(tmp_path / "nowhere") == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(tmp_path, number):
    bad = record()
    bad["metrics"]["test"]["raw"]["mae"] = number
    with pytest.raises(ValueError):
        results.write(bad, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", results.REQUIRED)
def test_a_missing_field_is_refused_by_name(tmp_path, name):
    bad = {k: v for k, v in record().items() if k != name}
    with pytest.raises(ValueError, match=rf"^record: got one without {name}; allowed: all of "):
        results.write(bad, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("crash", ["while writing", "before the move"])
def test_a_crash_leaves_the_old_record_and_no_litter(tmp_path, monkeypatch, crash):
    old = record(mae=0.25)
    results.write(old, tmp_path)
    before = files(tmp_path)
    if crash == "while writing":

        def half(path, text, **options):
            with open(path, "w") as file:
                file.write(text[: len(text) // 2])
            raise OSError("no space left on device")

        monkeypatch.setattr(Path, "write_text", half)
    else:

        def stop(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", stop)
    with pytest.raises((OSError, KeyboardInterrupt)):
        results.write(record(mae=0.5), tmp_path)
    monkeypatch.undo()
    assert loaded(tmp_path) == [old] and files(tmp_path) == before


def test_a_killed_process_leaves_the_old_record(tmp_path):
    old = record(mae=0.25, key="0123456789abcdef")
    results.write(old, tmp_path)
    new = record(mae=0.5, key="0123456789abcdef")
    program = """
        import json, os, sys
        from pathlib import Path
        from rnclib import results

        def killed(path, text, **options):
            with open(path, "w") as file:
                file.write(text[: len(text) // 2])
                file.flush()
                os._exit(9)

        Path.write_text = killed
        results.write(json.loads(sys.argv[1]), sys.argv[2])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), json.dumps(new), str(tmp_path)])
    assert done.returncode == 9
    assert loaded(tmp_path) == [old]
    results.write(new, tmp_path)
    assert loaded(tmp_path) == [new]


def test_records_are_whole_while_another_process_writes(tmp_path):
    versions = [record(mae=mae, key="0123456789abcdef", notes="x" * 20_000) for mae in (0.25, 0.5)]
    results.write(versions[0], tmp_path)
    program = """
        import json, sys
        from rnclib import results

        versions = json.load(sys.stdin)
        print("ready", flush=True)
        for i in range(400):
            results.write(versions[i % 2], sys.argv[1])
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        writer.stdin.write(json.dumps(versions))
        writer.stdin.close()
        assert writer.stdout.readline() == "ready\n"
        reads = 0
        while writer.poll() is None or reads < 10:
            (one,) = loaded(tmp_path)
            assert one in versions
            reads += 1
    assert writer.returncode == 0
    assert len(files(tmp_path)) == 1


def test_threads_that_write_the_same_record_do_not_disturb_each_other(tmp_path):
    versions = [record(mae=mae, key="0123456789abcdef", notes=f"{mae}" * 5_000) for mae in (0.25, 0.5, 0.75)]
    results.write(versions[0], tmp_path)
    failures = []

    def write(version):
        try:
            for _ in range(60):
                results.write(version, tmp_path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert all(one in versions for one in loaded(tmp_path))
    assert not failures
    assert len(loaded(tmp_path)) == len(files(tmp_path)) == 1


def test_the_store_is_where_rnc_results_says_else_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_RESULTS", str(tmp_path))
    assert results.results_dir() == tmp_path
    monkeypatch.delenv("RNC_RESULTS")
    monkeypatch.chdir(tmp_path)
    assert results.results_dir() == ROOT / "book" / "results"


# --- tidy frames ----------------------------------------------------------------------------------------


def test_a_frame_has_a_row_for_each_run_in_the_order_given():
    records = [record(method, seed, mae=0.1 * (seed + 1)) for method in ("RnC(L1)", "L1") for seed in (1, 0)]
    runs = results.frame(records)
    assert runs[["split", "method", "seed"]].to_numpy().tolist() == [
        ["random", "RnC(L1)", 1], ["random", "RnC(L1)", 0], ["random", "L1", 1], ["random", "L1", 0],
    ]  # fmt: skip
    one = runs.iloc[2]
    assert (one["test_mae"], one["test_mae_raw"], one["val_rmse"]) == pytest.approx((0.2, 0.4, 0.25))
    assert (one["n_train"], one["n_test"], one["wall_time"]) == (80, 8, 3.5)
    assert one["key"] == record("L1", 1)["key"]


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "standin"},
        {"profile": "paper"},
        {"data": {"checksum": "0" * 64, "n_train": 80, "n_val": 10, "n_test": 8}},
    ],
)
@pytest.mark.parametrize("function", [results.frame, results.predictions, results.curves])
def test_data_sets_and_profiles_are_never_mixed(function, change):
    with pytest.raises(ValueError, match=r"^records: got a mixture of .*; allowed: one data set, checksum and profile"):
        function([record(seed=0), record(seed=1, **change)])
    with pytest.raises(ValueError, match=r"^records: got none"):
        function([])


def test_a_diverged_run_has_no_errors_but_is_counted():
    records = [record("L2", 0, mae=0.2), record("L2", 1, diverged=True), record("L2", 2, mae=0.4)]
    runs = results.frame(records)
    assert runs["test_mae"].isna().tolist() == [False, True, False]
    assert math.isnan(runs["val_mse_raw"][1]) and runs["wall_time"][1] == 0
    summary = results.summarise(runs, "test_mae")
    assert (summary.loc["L2", "n"], summary.loc["L2", "diverged"]) == (2, 1)
    assert summary.loc["L2", "mean"] == pytest.approx(0.3)
    assert set(results.predictions(records)["seed"]) == set(results.curves(records)["seed"]) == {0, 2}


def test_when_all_diverged_there_is_nothing_to_show():
    records = [record("L2", seed, diverged=True) for seed in range(2)]
    assert len(results.predictions(records)) == len(results.curves(records)) == 0
    assert {"method", "target", "prediction"} <= set(results.predictions(records))
    assert {"method", "stage", "epoch", "val_loss"} <= set(results.curves(records))
    runs = results.frame(records)
    summary = results.summarise(runs, "test_mae").loc["L2"]
    assert (summary["n"], summary["diverged"]) == (0, 2) and math.isnan(summary["mean"])
    (row,) = results.error_table(runs, {"test_mae": "MAE"}).to_numpy().tolist()
    assert row == ["L2", "0 of 2", "–"]


def test_predictions_have_a_row_for_each_test_sample():
    records = [record(seed=seed, mae=0.25) for seed in range(2)]
    table = results.predictions(records)
    assert len(table) == 16 and {"index", "target", "prediction", "split", "method", "seed"} == set(table)
    assert (table["prediction"] - table["target"]).abs().to_numpy() == pytest.approx(0.25)
    assert table[table["seed"] == 1]["target"].tolist() == records[1]["test"]["target"]


def test_curves_have_a_row_for_each_kept_epoch():
    table = results.curves([record(seed=0), record("L1", 1)])
    assert len(table) == 8
    encoder = table[(table["stage"] == "encoder") & (table["seed"] == 0)]
    assert encoder["epoch"].tolist() == [1, 2] and encoder["train_loss"].tolist() == [3.0, 2.0]
    assert encoder["val_loss"].isna().all()
    regressor = table[(table["stage"] == "regressor") & (table["method"] == "L1")]
    assert regressor["val_loss"].tolist() == [0.6, 0.3]


def test_a_view_is_found_beside_its_record(tmp_path):
    one, other = record("L1", 0), record("L1", 1)
    path = results.write(one, tmp_path)
    assert results.view([other, one], "L1", tmp_path) is None
    path.with_suffix(".csv").write_text("index,part,target,pc1,pc2\n0,train,-1.5,0.25,-0.5\n")
    view = results.view([other, one], "L1", tmp_path)
    assert view.to_dict("records") == [{"index": 0, "part": "train", "target": -1.5, "pc1": 0.25, "pc2": -0.5}]
    assert results.view([other], "L1", tmp_path) is None
    assert results.view([one], "L2", tmp_path) is None


# --- statistics -----------------------------------------------------------------------------------------

# Student's t in closed form for 1, 2 and 4 degrees of freedom: its quantile and its upper tail
QUANTILE = {
    1: lambda p: math.tan(math.pi * (p - 0.5)),
    2: lambda p: (2 * p - 1) / math.sqrt(2 * p * (1 - p)),
    4: lambda p: 2 * math.sqrt(math.cos(math.acos(math.sqrt(4 * p * (1 - p))) / 3) / math.sqrt(4 * p * (1 - p)) - 1),
}
TAIL = {
    1: lambda t: 0.5 - math.atan(t) / math.pi,
    2: lambda t: 0.5 - t / (2 * math.sqrt(2 + t * t)),
    4: lambda t: 0.5 - 3 / 8 * t / math.sqrt(1 + t * t / 4) * (1 - t * t / (1 + t * t / 4) / 12),
}


def corrected_error(values, ratio):
    """Standard error of Nadeau and Bengio (2003), term by term."""
    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance * (1 / n + ratio))


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_the_interval_is_the_corrected_resampled_t(n, confidence):
    values = np.random.default_rng(n).normal(0.3, 0.05, n)
    mean, error = corrected_error(values, 113 / 902)
    half = QUANTILE[n - 1]((1 + confidence) / 2) * error
    assert results.interval(values, 113 / 902, confidence) == pytest.approx((mean, mean - half, mean + half))


@given(st.lists(st.floats(-10, 10, width=16), min_size=2, max_size=30), st.floats(0.01, 1), st.floats(0.1, 10))
def test_the_interval_follows_the_values(values, ratio, scale):
    mean, low, high = results.interval(values, ratio)
    assert low <= mean <= high
    moved = results.interval([scale * value + 1 for value in values[::-1]], ratio)
    assert moved == pytest.approx([scale * x + 1 for x in (mean, low, high)], abs=1e-6)
    assert results.interval(values, 2 * ratio)[2] >= high
    assert results.interval(values, ratio, 0.99)[2] >= high


def test_the_correction_widens_by_what_it_says():
    values = np.arange(20.0)
    narrow, wide = (results.interval(values, ratio) for ratio in (1e-12, 1 / 8))
    assert (wide[2] - wide[0]) / (narrow[2] - narrow[0]) == pytest.approx(math.sqrt(1 + 20 / 8))


def test_one_split_has_no_interval():
    mean, low, high = results.interval([0.25], 0.125)
    assert mean == 0.25 and math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(([], 0.1), "values"), (([[1.0]], 0.1), "values"), (([1.0, 2.0], -0.1), "test_train_ratio"),
     (([1.0, 2.0], math.nan), "test_train_ratio")],
)  # fmt: skip
def test_what_has_no_interval_is_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=rf"^{named}: got "):
        results.interval(*arguments)


VALUES = {"L1": [0.30, 0.34, 0.26, 0.31, 0.29], "RnC(L1)": [0.28, 0.30, 0.27, 0.27, 0.25], "L2": [0.5, 0.4, 0.6]}


def runs_of(values=VALUES, **changes):
    return results.frame(
        [record(m, seed, mae=mae, **changes) for m, maes in values.items() for seed, mae in enumerate(maes)]
    )


def test_a_summary_is_the_interval_of_each_method_and_the_spread_of_its_runs():
    summary = results.summarise(runs_of(), "test_mae")
    for method, values in VALUES.items():
        row = summary.loc[method]
        assert (row["mean"], row["low"], row["high"]) == pytest.approx(results.interval(values, 8 / 80))
        assert (row["min"], row["max"], row["n"], row["diverged"]) == (min(values), max(values), len(values), 0)
        assert row["sd"] == pytest.approx(np.std(values, ddof=1))
        assert row["median"] == pytest.approx(sorted(values)[len(values) // 2])
    assert summary.index.name == "method"


def test_a_summary_of_kinds_of_split_keeps_them_apart():
    runs = pd.concat([runs_of(), runs_of({"L1": [0.9, 1.0]}, split="scaffold")])
    summary = results.summarise(runs, "test_mae", by=["split", "method"])
    assert summary.index.names == ["split", "method"]
    assert summary.loc[("random", "L1"), "mean"] == pytest.approx(0.3)
    assert summary.loc[("scaffold", "L1"), "mean"] == pytest.approx(0.95)


def interval_in(text):
    """Mean, low and high of a cell, written with either brackets or a plus-minus sign."""
    numbers = [float(number) for number in re.findall(r"-?[0-9.]+", text.replace("−", "-"))]
    return (numbers[0], numbers[0] - numbers[1], numbers[0] + numbers[1]) if "±" in text else tuple(numbers)


def test_the_table_shows_interval_number_and_place_of_the_published_figure():
    runs = pd.concat([runs_of(), runs_of({"once": [0.5]})], ignore_index=True)
    published = pd.DataFrame({"test_mae": {"L1": 0.301, "RnC(L1)": 0.2, "once": 0.51}})
    table = results.error_table(runs, {"test_mae": "MAE", "test_mae_raw": "raw MAE"}).set_index("Method")
    mean, low, high = results.interval(VALUES["L1"], 0.1)
    assert interval_in(table.loc["L1", "MAE"]) == pytest.approx((mean, low, high), abs=1.1e-3)
    assert interval_in(table.loc["L1", "raw MAE"]) == pytest.approx((2 * mean, 2 * low, 2 * high), abs=1.1e-3)
    assert table.loc["once", "MAE"] == "0.500"
    assert table["Splits"].to_dict() == {"L1": "5", "L2": "3", "RnC(L1)": "5", "once": "1"}
    table = results.error_table(runs, {"test_mae": "MAE"}, published).set_index("Method").iloc[:, -1]
    words = {method: "".join(c for c in text if c.isalpha()) for method, text in table.items()}
    assert words == {"L1": "in", "RnC(L1)": "below", "once": "", "L2": ""}  # one split has no spread
    published = pd.DataFrame({"test_mae": {"L1": 0.341, "RnC(L1)": 0.25}})  # just above, and the very lowest
    places = results.error_table(runs, {"test_mae": "MAE"}, published).set_index("Method").iloc[:, -1]
    assert places["L1"].endswith(" above") and places["RnC(L1)"].endswith(" in")
    assert table["L1"].startswith("0.301") and table["L2"] == "–"


def test_the_table_shows_the_median_if_asked():
    runs = runs_of({"L1": [0.1, 0.2, 0.2001, 5.0, 6.0]})
    plain, table = (results.error_table(runs, {"test_mae": "MAE"}, median=median) for median in (False, True))
    assert len(table.columns) == len(plain.columns) + 1
    assert table.iloc[0, -1] == "0.200" and table.iloc[0, -2] == plain.iloc[0, -1]


def test_the_table_shows_what_diverged_and_what_was_published_of_it():
    runs = results.frame([record("L2", 0, mae=0.2), record("L2", 1, diverged=True), record("L1", 0, diverged=True)])
    published = pd.DataFrame({"test_mae": {"L1": 0.3}})
    table = results.error_table(runs, {"test_mae": "MAE"}, published).set_index("Method")
    assert table["Splits"].to_dict() == {"L2": "1 of 2", "L1": "0 of 1"}
    assert table.loc["L1"].tolist()[1:] == ["–", "0.300"]
    assert table.loc["L2", "MAE"] == "0.200"


def test_the_table_of_a_mixture_of_splits_is_refused():
    runs = pd.concat([runs_of(), runs_of(split="scaffold")])
    with pytest.raises(ValueError, match=r"^runs: got splits \['random', 'scaffold'\]; allowed: one kind"):
        results.error_table(runs, {"test_mae": "MAE"})
    assert len(results.error_table(runs[:0], {"test_mae": "MAE"})) == 0


def test_a_comparison_is_a_paired_corrected_t_test():
    comparison = results.compare(runs_of(), "test_mae", "L1")
    difference = [b - a for a, b in zip(VALUES["L1"], VALUES["RnC(L1)"], strict=True)]
    mean, error = corrected_error(difference, 8 / 80)
    row = comparison.loc["RnC(L1)"]
    half = QUANTILE[4](0.975) * error
    assert mean < 0  # lower than the baseline
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((mean, mean - half, mean + half))
    assert row["p"] == pytest.approx(2 * TAIL[4](abs(mean) / error))
    assert (row["better"], row["n"]) == (4 / 5, 5)
    # L2 has three splits only: compared on those
    difference = [b - a for a, b in zip(VALUES["L1"], VALUES["L2"], strict=False)]
    mean, error = corrected_error(difference, 8 / 80)
    row = comparison.loc["L2"]
    assert (row["n"], row["better"], row["mean"]) == (3, 0, pytest.approx(mean))
    assert row["p"] == pytest.approx(2 * TAIL[2](mean / error))
    assert "L1" not in comparison.index and comparison.index.name == "method"


def test_a_comparison_turned_round_has_the_other_sign():
    values = {method: VALUES[method] for method in ("L1", "RnC(L1)")}
    there, back = (results.compare(runs_of(values), "test_mae", baseline).iloc[0] for baseline in values)
    assert there["mean"] == pytest.approx(-back["mean"]) and there["p"] == pytest.approx(back["p"])
    assert there["low"] == pytest.approx(-back["high"]) and there["better"] == pytest.approx(1 - back["better"])


@given(seed=st.integers(0, 1000))
def test_runs_are_paired_by_their_split_not_by_their_order(seed):
    runs = runs_of()
    shuffled = runs.sample(frac=1, random_state=seed)
    expected = results.compare(runs, "test_mae", "L1")
    pd.testing.assert_frame_equal(results.compare(shuffled, "test_mae", "L1").loc[expected.index], expected)


def test_splits_that_one_of_the_two_lacks_are_left_out():
    runs = results.frame(
        [record("L1", seed, mae=mae) for seed, mae in ((0, 0.3), (1, 0.4), (2, 0.5), (4, 9.0))]
        + [record("L2", seed, mae=mae) for seed, mae in ((1, 0.3), (2, 0.3), (3, 9.0))]
        + [record("L2", 4, diverged=True)]
    )
    row = results.compare(runs, "test_mae", "L1").loc["L2"]
    assert (row["n"], row["mean"], row["better"]) == (2, pytest.approx(-0.15), 1)


def test_a_comparison_without_a_common_split_is_left_out():
    runs = results.frame([record("L1", 0), record("L2", 1), record("RnC(L1)", 0, diverged=True)])
    comparison = results.compare(runs, "test_mae", "L1")
    assert len(comparison) == 0 and {"mean", "low", "high", "p", "better", "n"} <= set(comparison)


def test_one_split_or_equal_differences_have_no_p_value():
    one = results.compare(runs_of({"L1": [0.3], "L2": [0.2]}), "test_mae", "L1").loc["L2"]
    assert one["mean"] == pytest.approx(-0.1) and math.isnan(one["p"]) and math.isnan(one["low"])
    equal = results.compare(runs_of({"L1": [0.3, 0.4], "L2": [0.3, 0.4]}), "test_mae", "L1").loc["L2"]
    assert (equal["mean"], equal["low"], equal["better"]) == (0, 0, 0) and math.isnan(equal["p"])


def test_methods_to_compare_can_be_chosen():
    assert results.compare(runs_of(), "test_mae", "L1", ["L2"]).index.tolist() == ["L2"]
    assert results.compare(runs_of(), "test_mae", "L1", iter(["RnC(L1)", "L2"])).index.tolist() == ["RnC(L1)", "L2"]


def test_what_cannot_be_compared_is_refused_by_name():
    runs = runs_of()
    with pytest.raises(ValueError, match=r"^baseline: got .*'Huber'.*; allowed: .*'L1'"):
        results.compare(runs, "test_mae", "Huber")
    with pytest.raises(ValueError, match=r"^methods: got .*'Huber'"):
        results.compare(runs, "test_mae", "L1", ["L2", "Huber"])
    with pytest.raises(ValueError, match=r"^runs: got two of one method and seed"):
        results.compare(pd.concat([runs, runs[:1]]), "test_mae", "L1")
    with pytest.raises(ValueError, match=r"^runs: got splits \['random', 'scaffold'\]"):
        results.compare(pd.concat([runs, runs_of(split="scaffold")]), "test_mae", "L1")


def test_the_corrected_interval_covers_where_the_plain_one_does_not():
    """Means of overlapping samples: repeated random splits of a fixed pool of numbers."""
    rng = np.random.default_rng(0)
    covered = {0.0: 0, 1 / 3: 0}
    for _ in range(400):
        pool = rng.normal(size=40)
        means = [pool[rng.permutation(40)[:10]].mean() for _ in range(15)]
        for ratio in covered:
            _, low, high = results.interval(means, ratio or 1e-12)
            covered[ratio] += low <= 0 <= high
    assert covered[0.0] / 400 < 0.85 < 0.92 < covered[1 / 3] / 400


# --- stuck runs -----------------------------------------------------------------------------------------


def efficiency(shift: float, slope: float = 0.4, noise: float = 0.0, splits: int = 6) -> pd.DataFrame:
    """Errors that fall as (shift · n)^−slope for method B, as n^−slope for method A."""
    rng = np.random.default_rng(0)
    rows = [
        {"split": "random", "method": method, "seed": seed, "fraction": fraction, "n_train": round(800 * fraction),
         "n_test": 100, "n_pool": 800,
         "test_mae": (1 + 0.1 * seed) * (800 * fraction * (shift if method == "B" else 1)) ** -slope
         * np.exp(noise * rng.standard_normal())}
        for method in "AB" for seed in range(splits) for fraction in (0.1, 0.25, 1.0)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_the_data_ratio_is_the_shift_of_the_learning_curve(shift):
    table = results.data_ratio(efficiency(shift), "test_mae", "A", "B")
    assert table.index.tolist() == [0.1, 0.25, 1.0, "all"] and set(table["n"]) == {6}
    np.testing.assert_allclose(table["ratio"], 1 / shift, rtol=1e-9)
    noisy = results.data_ratio(efficiency(shift, noise=0.05, splits=20), "test_mae", "A", "B").loc["all"]
    assert noisy["low"] < 1 / shift < noisy["high"] and noisy["low"] < noisy["ratio"] < noisy["high"]


def test_splits_on_which_more_data_did_not_help_are_left_out_of_the_data_ratio():
    runs = efficiency(2.0)
    worse = runs["seed"] == 0
    runs.loc[worse, "test_mae"] = runs.loc[worse, "n_train"] ** 0.2
    assert set(results.data_ratio(runs, "test_mae", "A", "B")["n"]) == {5}
    with pytest.raises(ValueError, match=r"runs: got fractions \[1\.0\]; allowed: at least two"):
        results.data_ratio(runs[runs["fraction"] == 1], "test_mae", "A", "B")
    for baseline, method in (("A", "C"), ("C", "B")):
        with pytest.raises(ValueError, match=r"(baseline|method): got \['C'\]; allowed: \['A', 'B'\]"):
            results.data_ratio(runs, "test_mae", baseline, method)


def test_all_samples_may_be_a_missing_fraction_in_the_data_ratio():
    runs = efficiency(2.0)
    missing = runs.assign(fraction=runs["fraction"].where(runs["fraction"] < 1))
    expected = results.data_ratio(runs, "test_mae", "A", "B")
    pd.testing.assert_frame_equal(results.data_ratio(missing, "test_mae", "A", "B"), expected)
    lacking = missing.drop(missing.index[missing["fraction"].isna()][0])  # one run on all samples is not there
    assert set(results.data_ratio(lacking, "test_mae", "A", "B")["n"]) == {5}


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_its_definition(p):
    corrected = results.holm(pd.Series(p, index=[f"claim {i}" for i in range(len(p))]))
    order = sorted(range(len(p)), key=lambda i: p[i])
    for rank, i in enumerate(order):
        expected = min(1.0, max((len(p) - k) * p[order[k]] for k in range(rank + 1)))
        assert corrected.iloc[i] == pytest.approx(expected)


def test_missing_p_values_do_not_count_in_holm():
    assert results.holm(pd.Series([0.01, math.nan, 0.04])).iloc[[0, 2]].tolist() == [0.02, 0.04]
    assert math.isnan(results.holm(pd.Series([0.01, math.nan])).iloc[1])
    repeated = results.holm(pd.Series([0.04, 0.01], index=["RnC(L1)", "RnC(L1)"]))
    assert repeated.tolist() == [0.04, 0.02]
    assert results.holm(pd.Series([0.04, math.nan, 0.01]), family=3).tolist()[::2] == [0.08, 0.03]
    with pytest.raises(ValueError, match=r"family: got 1 with 2 p values; allowed: at least as many"):
        results.holm(pd.Series([0.04, 0.01]), family=1)


def test_a_difference_is_decided_only_after_correction():
    comparison = pd.DataFrame(
        {"mean": [-0.5, 0.3, -0.2, 0.1], "p": [0.001, 0.002, 0.03, math.nan]}, index=["A", "B", "C", "D"]
    )
    assert results.verdicts(comparison).tolist() == ["lower", "higher", "lower", "undecided"]
    more = pd.concat([comparison, comparison[2:3]])  # the same p counts for less among more comparisons
    assert results.verdicts(more).tolist() == ["lower", "higher", "undecided", "undecided", "undecided"]


def test_errors_inside_and_outside_of_the_ranges_seen_are_told_apart():
    one = record("L1", 0)
    one["test"] = {"index": [0, 1, 2, 3], "target": [1.0, 2.0, 3.0, 9.0], "prediction": [1.5, 2.0, 5.0, 9.5]}
    one["data"] = one["data"] | {"seen": [[1.0, 2.0], [8.0, 9.0]]}
    table = results.seen_and_unseen([one, record("L1", 1)]).set_index("targets")
    assert table["test_mae_raw"].to_dict() == pytest.approx({"seen": 1 / 3, "between": 2.0})
    assert table["n_targets"].to_dict() == {"seen": 3, "between": 1}
    one["test"]["target"][0] = 0.5
    table = results.seen_and_unseen([one]).set_index("targets")
    assert table["n_targets"].to_dict() == {"seen": 2, "between": 1, "beyond": 1}
    assert table["test_mae_raw"]["beyond"] == pytest.approx(1.0)
    assert results.seen_and_unseen([record("L1", 1)]).empty


def test_hours_of_training_count_what_is_shared_once():
    def trained(method, seconds, cpu):
        one = record(method, 0)
        stages = [{"name": "encoder", "wall_time": 3600.0, "curve": {}}] * method.startswith("RnC")
        one["stages"] = [*stages, {"name": "regressor", "wall_time": seconds, "curve": {}}]
        one["run"] = {"cpu": cpu, "versions": {"torch": "2"}}
        return one

    records = [
        trained("RnC(L1)", 1800.0, "a"),
        trained("RnC(L1)+freeze", 900.0, "a"),
        trained("L1", 360.0, "b"),
    ]
    table = results.machines(records).set_index("Processor")
    assert table["Runs"].to_dict() == {"a": 2, "b": 1} and set(table["torch"]) == {"2"}
    assert table["Hours of training"].to_dict() == pytest.approx({"a": 1.75, "b": 0.1})
    both = results.machines({"ESOL": records[:2], "AgeDB": records[2:]})
    assert both["Data"].tolist() == ["ESOL", "AgeDB"] and both.columns[0] == "Data"
    pd.testing.assert_frame_equal(both.drop(columns="Data"), table.reset_index())
    alike = trained("L1", 360.0, "b")  # as long by chance, and another training
    alike["stages"] = [alike["stages"][0] | {"curve": {"epoch": [1], "train_loss": [0.5]}}]
    assert results.machines([records[2], alike])["Hours of training"].tolist() == pytest.approx([0.2])
    assert results.machines([]).empty


def test_the_pull_of_a_nuisance_is_what_it_adds_to_a_prediction():
    rng = np.random.default_rng(0)
    target, nuisance = rng.normal(size=(2, 40))

    def pulled(method, tie, pull, mae):
        one = record(method, 0, mae=mae)
        prediction = 0.3 + 0.9 * target + pull * nuisance
        one["test"] = {"index": list(range(40)), "target": target.tolist(), "prediction": prediction.tolist()}
        one["test"]["nuisance"] = nuisance.tolist()
        one["config"] = one["config"] | {"spurious": tie}
        return one

    records = [
        pulled("L1", "tied", 0.7, 3.0), pulled("RnC(L1)", "tied", 0.0, 2.0), record("L1", 1),
        pulled("L1", "untied", 0.2, 2.5), pulled("RnC(L1)", "untied", -0.1, 2.5),
    ]  # fmt: skip
    effects = results.tie_effects(records).set_index(["method", "spurious"])
    pulls = {("L1", "tied"): 0.7, ("RnC(L1)", "tied"): 0.0, ("L1", "untied"): 0.2, ("RnC(L1)", "untied"): -0.1}
    pulls |= {("L1", "added"): 0.5, ("RnC(L1)", "added"): 0.1}
    assert effects["pull"].to_dict() == pytest.approx(pulls, abs=1e-9)
    added = effects.xs("added", level="spurious")["test_mae_raw"].to_dict()
    scale = effects["test_mae_raw"]["L1", "tied"] / 3.0
    assert added == pytest.approx({"L1": 0.5 * scale, "RnC(L1)": -0.5 * scale})
    records[0]["test"]["prediction"] = []  # it diverged
    effects = results.tie_effects(records).set_index(["method", "spurious"])["pull"]
    assert math.isnan(effects["L1", "tied"]) and math.isnan(effects["L1", "added"])
    assert set(results.tie_effects(records[:2])["spurious"]) == {"tied"}
    assert results.tie_effects([record("L1", 1)]).empty


def test_methods_stand_beside_the_baseline_in_every_group():
    runs = pd.concat(
        [
            results.frame([record(method, seed, mae=mae * (1 + 0.01 * seed)) for seed in range(3)]).assign(group=group)
            for group, errors in (("a", (1.0, 1.5)), ("b", (2.0, 1.0)))
            for method, mae in zip(("L1", "RnC(L1)"), errors, strict=True)
        ]
    )
    table = results.side_by_side(runs, ["group"], "test_mae", "L1")
    assert table["group"].tolist() == ["a", "b"] and table["method"].tolist() == ["RnC(L1)"] * 2
    assert table["mean"].tolist() == pytest.approx([0.505, -1.01])
    assert [text.split(" ± ")[0] for text in table["theirs"]] == ["1.010", "2.020"]
    assert [text.split(" ± ")[0] for text in table["ours"]] == ["1.515", "1.010"]
    assert table["p"].tolist() == sorted(table["p"], reverse=True)
    smaller, larger = table["p"].iloc[1], table["p"].iloc[0]
    assert table["corrected"].tolist() == pytest.approx([max(2 * smaller, larger), 2 * smaller])  # Holm, by hand
    whole = results.side_by_side(
        runs.assign(group=runs["group"].where(runs["group"] == "a")), ["group"], "test_mae", "L1"
    )
    assert whole["group"].isna().tolist() == [False, True]  # a group without a name is one too


def test_corruption_errors_are_relative_to_the_baseline_of_the_same_seed():
    def corrupted(method, seed, mae, errors):
        return record(method, seed, mae=mae) | {"corrupted": errors}

    records = [
        corrupted("L1", 0, 0.1, {"fog": [1.0, 3.0], "snow": [2.0, 2.0]}),
        corrupted("L1", 1, 0.1, {"fog": [10.0, 30.0], "snow": [20.0, 20.0]}),
        corrupted("RnC(L1)", 1, 0.2, {"fog": [5.0, 15.0], "snow": [20.0, 40.0]}),
        corrupted("RnC(L1)", 0, 0.2, {"fog": [4.0, 4.0], "snow": [2.0, None]}),
        record("training mean", 0),
    ]
    errors = results.corrupted(records)
    assert set(errors["method"]) == {"L1", "RnC(L1)"} and set(errors["severity"]) == {0, 1, 2}
    clean = errors[(errors["severity"] == 0) & (errors["method"] == "RnC(L1)")]
    assert clean["mae"].tolist() == [0.4] * 4  # twice, for each kind: in raw units
    ratio = results.corruption_errors(errors, "L1").set_index(["method", "seed", "kind"])["ratio"]
    assert ratio["RnC(L1)", 0, "fog"] == 2.0
    assert math.isnan(ratio["RnC(L1)", 0, "snow"]) and math.isnan(ratio["RnC(L1)", 0, "mean"])  # it failed there
    assert ratio["RnC(L1)", 1, "mean"] == pytest.approx(math.sqrt(0.5 * 1.5))
    assert (ratio["L1"] == 1).all()
    # whichever is the baseline: one is above the other by as much as that is below it
    turned = results.corruption_errors(errors, "RnC(L1)").set_index(["method", "seed", "kind"])["ratio"]
    assert turned["L1", 1, "mean"] == pytest.approx(1 / ratio["RnC(L1)", 1, "mean"])
    table = results.corruption_ratio(records[:-1], "L1", {"fog": "weather", "snow": "weather"}).xs("RnC(L1)")
    assert table.loc["fog", "ratio"] == pytest.approx(1.0) and table.loc["fog", "n"] == 2
    assert table.loc["mean", "n"] == 1 and table.loc["weather", "ratio"] == pytest.approx(math.sqrt(0.5 * 1.5))
    for summary in (results.corruption_ratio, results.corruption_growth):
        with pytest.raises(ValueError, match=r"baseline: got \['Huber'\]; allowed: \['L1', 'RnC\(L1\)'\]"):
            summary(records, "Huber")
    growth = results.corruption_growth(records[:-1], "L1")
    assert growth.index.tolist() == ["L1", "RnC(L1)"]
    # clean 0.2 and 0.4; corrupted 2 and 20, and 20 where nothing failed
    assert growth.loc["L1", "growth"] == pytest.approx(math.sqrt((2 / 0.2) * (20 / 0.2)))
    assert growth.loc["RnC(L1)", "ratio"] == pytest.approx((20 / 0.4) / (20 / 0.2)) and growth.loc["RnC(L1)", "n"] == 1


def test_stuck_runs_are_networks_whose_validation_error_stays_high():
    good, stuck, diverged = record("L1", 0, mae=0.2), record("L1", 1, mae=0.8), record("L1", 2, diverged=True)
    baseline = record("training mean", 0, mae=0.8, config={"model": "training mean"})
    runs = results.frame([good, stuck, diverged, record("L2", 0, mae=0.9), baseline])
    stuck = results.stuck(runs)
    assert runs[stuck][["method", "seed"]].to_numpy().tolist() == [["L1", 1], ["L2", 0]]
    table = results.stuck_table(runs).set_index("Method")
    assert set(table.index) == {"L1", "L2"}
    assert table["Stuck"].to_dict() == {"L1": 1, "L2": 1} and table["Diverged"].to_dict() == {"L1": 1, "L2": 0}
    others = table.drop(columns=["Stuck", "Diverged"])
    assert set(others.loc["L1"]) == {"0.200"}  # of one run, mean and median are the same
    assert others.loc["L2"].isna().all()
    everything_stuck = results.stuck_table(runs[runs["method"] == "L2"])
    assert everything_stuck["Stuck"].tolist() == [1]


# --- the published records ------------------------------------------------------------------------------


def published():
    """Committed records of runs; where there is no git, all of the folder."""
    where = "book/results/paper"
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--", where], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        ).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.SubprocessError):
        paths = list((ROOT / where).rglob("*"))
    # timings have a form of their own
    timings = ("benchmark", "throughput")
    return sorted(p for p in paths if p.suffix == ".json" and p.is_file() and p.parent.name not in timings)


def test_the_published_records_are_read_without_a_warning():
    paths = published()
    if not paths:
        pytest.skip("no records under book/results/paper")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for experiment in {path.parent.name for path in paths}:
            records = results.load(ROOT / "book/results", profile="paper", experiment=experiment)
            names = {path.name for path in paths if path.parent.name == experiment}
            assert len(records) >= len(names)
            for checksum in {record["data"]["checksum"] for record in records}:
                assert len(results.frame([r for r in records if r["data"]["checksum"] == checksum]))


def test_each_published_record_is_sound():
    paths = published()
    if not paths:
        pytest.skip("no records under book/results/paper")
    keys: dict[str, str] = {}
    tested: dict[tuple, list] = {}
    for path in paths:
        one = json.loads(path.read_text(encoding="utf-8"))
        name = path.name
        numbers = 3 if "nuisance" in one["test"] else 2  # of each test sample
        assert path.stat().st_size <= 7000 + 7 * numbers * one["data"]["n_test"], name
        assert one["schema"] == results.SCHEMA and not set(results.REQUIRED) - set(one), name
        assert (one["profile"], one["experiment"]) == ("paper", path.parent.name), name
        config, drawn = one["config"], one["dataset"] == "synthetic"
        tied = config.get("spurious") == "tied"
        checksum = recipe(config["n_samples"], config["size"], tied=tied) if drawn else SHA256
        assert one["dataset"] in ("esol", "synthetic") and one["data"]["checksum"] == checksum, name
        assert one["data"]["synthetic"] is drawn, name
        assert len(one["run"]["commit"]) == 40 and one["run"]["clean"] is True, name
        assert keys.setdefault(one["key"], name) == name
        assert name.endswith(f"-{one['seed']:02d}-{one['key'][:8]}.json"), name
        for field in results.IDENTITY:
            assert one["config"][field] == one[field], name

        data, test = one["data"], one["test"]
        n_samples = config["n_samples"] if drawn else 1128
        n_pool = data.get("n_pool", data["n_train"])
        if "holes" not in config and (drawn or "spurious" not in config):
            assert n_pool + data["n_val"] + data.get("n_test_pool", data["n_test"]) == n_samples, name
            assert data["n_train"] == round(config.get("fraction", 1) * n_pool), name
        assert len(test["index"]) == len(test["target"]) == data["n_test"], name
        assert test["index"] == sorted(set(test["index"])), name
        # one split, one test part: whatever the method
        seed = None if one["split"] in results.FIXED_SPLITS else one["seed"]
        part = (one["dataset"], n_samples, one["split"], "spurious" in config, seed)
        assert tested.setdefault(part, test["index"]) == test["index"], name
        if not test["prediction"]:
            assert one["metrics"] == {} and one["diverged"], name
            continue
        assert not one["diverged"], name
        prediction, target = np.array(test["prediction"]), np.array(test["target"])
        for scale, (mean, std) in {"raw": (0, 1), "standardised": (data["train_mean"], data["train_std"])}.items():
            again = metrics.regression_errors((prediction - mean) / std, (target - mean) / std)
            stored = one["metrics"]["test"][scale]
            rounding = 1e-4 / std  # of targets and predictions to four decimals
            assert stored["mae"] == pytest.approx(again["mae"], abs=rounding, rel=1e-6), name
            assert stored["rmse"] == pytest.approx(again["rmse"], abs=rounding, rel=1e-6), name
            assert stored["mse"] == pytest.approx(again["mse"], abs=3 * rounding * again["rmse"], rel=1e-6), name
        for part in ("val", "test"):
            raw, scaled = one["metrics"][part]["raw"], one["metrics"][part]["standardised"]
            assert raw["mae"] == pytest.approx(scaled["mae"] * data["train_std"], rel=1e-5), name
            assert raw["mse"] == pytest.approx(scaled["mse"] * data["train_std"] ** 2, rel=1e-5), name
            assert raw["rmse"] ** 2 == pytest.approx(raw["mse"], rel=1e-5), name


def test_the_published_records_are_of_the_data_and_the_splits(esol):
    from rnclib.data.molecules import split

    for path in published():
        one = json.loads(path.read_text(encoding="utf-8"))
        if one["dataset"] != "esol":
            continue
        parts = split(esol.smiles, one["split"], one["seed"])
        if "spurious" in one["config"]:
            tied = one["config"]["spurious"] == "tied"
            parts = spurious_split(parts, esol.targets, esol.nuisance > 0, one["seed"], tied=tied)
        assert one["test"]["index"] == parts.test.tolist(), path.name
        np.testing.assert_allclose(one["test"]["target"], esol.targets[parts.test], atol=5.1e-5, err_msg=path.name)
        if "fraction" in one["config"]:
            parts = subsample(parts, one["config"]["fraction"], one["seed"])
        if "holes" in one["config"]:
            parts = with_holes(parts, esol.targets, one["config"]["holes"], one["seed"])
        sizes = [one["data"][f"n_{part}"] for part in ("train", "val", "test")]
        assert sizes == [len(parts.train), len(parts.val), len(parts.test)], path.name
        train = esol.targets[parts.train]
        scaler = (one["data"]["train_mean"], one["data"]["train_std"])
        assert scaler == pytest.approx((train.mean(), train.std()), rel=1e-6), path.name
        if one["method"] == "training mean" and one["test"]["prediction"]:
            assert one["test"]["prediction"] == pytest.approx([train.mean()] * len(parts.test), abs=1e-4)
        if one["method"] == "Delaney's equation" and one["test"]["prediction"]:
            published_column = esol.published_prediction[parts.test]
            np.testing.assert_allclose(one["test"]["prediction"], published_column, atol=5.1e-5)
