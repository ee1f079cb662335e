"""The results store, against everything that can lie in it, and the tidy frames made from its records."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from records import record

from rnclib import metrics, results
from rnclib.data.catalogue import SOURCES
from rnclib.data.shifts import spurious_split, subsample, with_unseen_ranges
from rnclib.data.synthetic import recipe
from rnclib.records import read

ROOT = Path(__file__).resolve().parents[1]


def loaded(root, **match):
    """Records of the folder, none of which may cause a warning (warnings are errors here)."""
    return results.load(root, profile="smoke", experiment="esol", **match)


def files(root):
    """All but what records share."""
    found = (path.relative_to(root) for path in Path(root).rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not {"test-sets", "versions"} & set(path.parts))


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


def test_records_on_one_test_set_share_the_file_that_has_it(tmp_path):
    one = record(seed=1)
    two = one | {"key": "f" * 16, "test": one["test"] | {"prediction": [0.0] * len(one["test"]["index"])}}
    paths = [results.write(each, tmp_path) for each in (one, two)]
    other = record(seed=3)
    other["test"] = {"index": [7, 9], "target": [2.0, -0.25], "prediction": [1.0, 0.0], "nuisance": [0, 1.5]}
    other["config"] = other["config"] | {"spurious": "tied"}
    paths.append(results.write(other, tmp_path))
    names = [json.loads(path.read_text(encoding="utf-8"))["test"] for path in paths]
    assert names[0]["set"] == names[1]["set"] != names[2]["set"]
    assert all(set(test) == {"set", "prediction"} for test in names)
    shared = tmp_path / "smoke" / "esol" / "test-sets"
    assert {path.name for path in shared.iterdir()} == {test["set"] for test in names}
    assert (shared / names[2]["set"]).read_text(encoding="utf-8") == "index,target,nuisance\n7,2.0,0\n9,-0.25,1.5\n"
    assert sorted(loaded(tmp_path), key=lambda each: each["key"]) == sorted((one, two, other), key=lambda e: e["key"])


def test_records_share_the_versions_of_packages(tmp_path):
    several = [{"torch": "2.14.1", "numpy": "2.4.6"}] * 2 + [{"torch": "9", "numpy": None}]
    records = [record(seed=i) | {"run": {"cpu": "a", "versions": one}} for i, one in enumerate(several)]
    paths = [results.write(one, tmp_path) for one in records]
    names = [json.loads(path.read_text(encoding="utf-8"))["run"]["versions"] for path in paths]
    assert names[0] == names[1] != names[2]
    shared = tmp_path / "smoke" / "esol" / "versions"
    assert {path.name for path in shared.iterdir()} == set(names)
    assert (shared / names[2]).read_text(encoding="utf-8") == 'package,version\n"torch","9"\n"numpy",null\n'
    assert sorted(loaded(tmp_path), key=lambda one: one["seed"]) == records
    (shared / names[0]).write_text((shared / names[2]).read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.warns(UserWarning, match="left out, no readable smoke record"):
        assert loaded(tmp_path) == records[2:]
    results.write(records[0], tmp_path)
    assert len(loaded(tmp_path)) == 3


@pytest.mark.parametrize(
    "text",
    [
        'package,version\n1,"2"\n', 'package,version\n["a"],"2"\n', 'package,version\n"<b>","2"\n',
        'package,version\n"a",2\n', 'package,version\n"a"\n', "package\n", "", 'name,version\n"a","2"\n',
    ],
)  # fmt: skip
def test_versions_that_are_none_leave_a_record_out(tmp_path, text):
    path = results.write(record(seed=1) | {"run": {"cpu": "a", "versions": {"a": "2"}}}, tmp_path)
    (shared,) = (path.parent / "versions").iterdir()
    named = f"versions-{hashlib.sha256(text.encode()).hexdigest()[:16]}.csv"
    shared.with_name(named).write_text(text, encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(shared.name, named), encoding="utf-8")
    assert read(path) is None


def test_a_record_is_not_written_without_its_test_set(tmp_path):
    path = results.write(record(seed=1), tmp_path)
    with pytest.raises(ValueError, match=r"^test: got set, prediction; allowed: index, target and prediction"):
        results.write(json.loads(path.read_text(encoding="utf-8")) | {"key": "f" * 16}, tmp_path)
    assert files(tmp_path) == [str(path.relative_to(tmp_path))]


def test_a_record_may_hold_its_test_set_itself(tmp_path):
    whole = record(seed=1)
    path = results.write(whole, tmp_path)
    path.write_text(json.dumps(whole), encoding="utf-8")
    shutil.rmtree(path.parent / "test-sets")
    assert loaded(tmp_path) == [whole]


@pytest.mark.parametrize("harm", ["changed", "gone", "elsewhere", "no name"])
def test_a_record_without_the_test_set_that_it_names_is_left_out_until_it_is_written_anew(tmp_path, harm):
    path = results.write(record(seed=1), tmp_path)
    (shared,) = (path.parent / "test-sets").iterdir()
    (tmp_path / shared.name).write_bytes(shared.read_bytes())
    if harm == "changed":
        shared.write_text(shared.read_text(encoding="utf-8").replace("0", "1", 1), encoding="utf-8")
    elif harm == "gone":
        shared.unlink()
    else:
        one = json.loads(path.read_text(encoding="utf-8"))
        one["test"]["set"] = f"../../../{shared.name}" if harm == "elsewhere" else 3
        path.write_text(json.dumps(one), encoding="utf-8")
    with pytest.warns(UserWarning, match=rf"left out, no readable smoke record.*{path.name}"):
        assert loaded(tmp_path) == []
    if harm in ("changed", "gone"):
        assert results.write(record(seed=1), tmp_path) == path and loaded(tmp_path) == [record(seed=1)]


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
    with pytest.raises(ValueError, match=r"^metrics: got a number that is NaN or infinite; allowed: "):
        results.write(bad, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", results.REQUIRED)
def test_a_missing_field_is_refused_by_name(tmp_path, name):
    bad = {k: v for k, v in record().items() if k != name}
    with pytest.raises(ValueError, match=rf"^record: got one without {name}; allowed: all of "):
        results.write(bad, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize(("crash", "raised"), [("while writing", OSError), ("before the move", KeyboardInterrupt)])
def test_a_crash_leaves_the_old_record_and_no_litter(tmp_path, monkeypatch, crash, raised):
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
    with pytest.raises(raised):
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


def test_whether_there_are_records_is_told_by_the_names_of_files_alone(tmp_path, monkeypatch):
    path = results.write(record(), tmp_path)
    results.write(record(dataset="standin", profile="quick"), tmp_path)
    results.write(record(dataset="agedb", experiment="agedb"), tmp_path)
    for stray in ("standin.csv", "standin-random.csv", "standin-.md", ".standin-x.json.1-2.tmp", "not-standin-x.json"):
        (path.parent / stray).write_text("{}")

    def no_reading(*_, **__):
        pytest.fail("it read a file")

    readers = ((results.record_files, "read"), (results, "load"), (Path, "open"), (Path, "read_text"), (os, "open"))
    for owner, name in readers:
        monkeypatch.setattr(owner, name, no_reading)
    found = {
        (profile, experiment, dataset)
        for profile in results.PROFILES
        for experiment in ("esol", "agedb", "robustness")
        for dataset in ("esol", "standin", "agedb", "synthetic")
        if results.exists(tmp_path, profile=profile, experiment=experiment, dataset=dataset)
    }
    assert found == {("smoke", "esol", "esol"), ("quick", "esol", "standin"), ("smoke", "agedb", "agedb")}
    assert results.exists(str(tmp_path), profile="smoke", experiment="esol", dataset="esol")
    assert not results.exists(tmp_path / "nowhere", profile="smoke", experiment="esol", dataset="esol")
    with pytest.raises(ValueError, match=r"^profile: got 'fast'; allowed: 'smoke', 'quick', 'paper'$"):
        results.exists(tmp_path, profile="fast", experiment="esol", dataset="esol")


def test_no_name_of_a_data_set_begins_like_that_of_another():
    """File names tell data sets apart by what stands before the first hyphen that follows the name."""
    begins = [(one, other) for one in SOURCES for other in SOURCES if other.startswith(f"{one}-")]
    assert begins == []


def test_a_frame_says_how_far_test_sets_of_several_seeds_overlap():
    def tested(seed, index, method="L1", **changes):
        one = record(method, seed, **changes)
        return one | {"test": one["test"] | {"index": index}}

    def overlap(*records):
        return results.frame(records)["overlap"].tolist()

    # 0 and 1 share two of four, 1 and 2 one, 0 and 2 none; a second method changes nothing
    sets = {0: [1, 2, 3, 4], 1: [3, 4, 5, 6], 2: [6, 7, 8, 9]}
    records = [tested(seed, index, method) for method in ("L1", "L2") for seed, index in sets.items()]
    assert overlap(*records) == pytest.approx([(2 + 1 + 0) / 4 / 3] * 6)
    assert overlap(tested(0, [1, 2]), tested(1, [1, 2])) == [1, 1]
    assert math.isnan(overlap(tested(0, [1, 2]))[0])
    # kinds of split are apart, and so are data of their own for each seed
    assert overlap(*records[:3], tested(0, [1], split="scaffold"), tested(1, [1], split="scaffold"))[3:] == [1, 1]
    drawn = [
        tested(
            seed, [1, 2], dataset="synthetic", config={"data_seed": seed}, data=record()["data"] | {"checksum": word}
        )
        for seed, word in ((1, "a" * 64), (2, "b" * 64))
    ]
    assert overlap(*drawn) == [0, 0] and not results.frame(drawn)["one_data_set"].any()
    # of sets of different size, as seen from each
    assert overlap(tested(0, [1, 2, 3, 4]), tested(1, [1])) == pytest.approx([(1 / 4 + 1) / 2] * 2)


def test_errors_on_new_people_stand_in_a_frame_of_their_own():
    new = record("L1", 1, mae=0.5) | {"new_people": {"data_seed": 2, "n_test": 9, "mae": 3.5, "rmse": 4.0}}
    tested = results.on_new_people([record("L1", 0), new])
    assert tested[["seed", "test_mae_raw"]].to_numpy().tolist() == [[1, 3.5]]
    assert len(results.on_new_people([record("L1", 0)])) == 0


def test_a_frame_has_the_seeds_of_data_and_weights_where_they_are_not_that_of_the_split():
    config = {"fit": {"loss": "l1"}, "weight_seed": 4, "data_seed": 2}
    row = results.frame([record(config=config)]).iloc[0]
    assert (row["weight_seed"], row["data_seed"]) == (4, 2)
    assert not {"weight_seed", "data_seed"} & set(results.frame([record()]))


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
@pytest.mark.parametrize("function", [results.frame, results.predictions, results.curves, results.corrupted])
def test_data_sets_and_profiles_are_never_mixed(function, change):
    with pytest.raises(ValueError, match=r"^records: got a mixture of .*; allowed: one data set, checksum and profile"):
        function([record(seed=0), record(seed=1, **change)])
    with pytest.raises(ValueError, match=r"^records: got none; allowed: at least one$"):
        function([])


def test_a_diverged_run_has_no_errors_but_a_row():
    records = [record("L2", 0, mae=0.2), record("L2", 1, diverged=True), record("L2", 2, mae=0.4)]
    runs = results.frame(records)
    assert runs["test_mae"].isna().tolist() == [False, True, False]
    assert math.isnan(runs["val_mse_raw"][1]) and runs["wall_time"][1] == 0
    assert set(results.predictions(records)["seed"]) == set(results.curves(records)["seed"]) == {0, 2}


def test_when_all_diverged_there_is_nothing_to_show():
    records = [record("L2", seed, diverged=True) for seed in range(2)]
    assert len(results.predictions(records)) == len(results.curves(records)) == len(results.corrupted(records)) == 0
    assert {"method", "target", "prediction"} <= set(results.predictions(records))
    assert {"method", "stage", "epoch", "val_loss"} <= set(results.curves(records))
    assert {"method", "kind", "severity", "mae"} <= set(results.corrupted(records))


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


def test_errors_on_corrupted_inputs_begin_with_the_clean_one_of_each_kind():
    records = [
        record("RnC(L1)", 0, mae=0.2, corrupted={"fog": [4.0, 5.0], "snow": [2.0, None]}),
        record("training mean", 0),
    ]
    errors = results.corrupted(records)
    assert errors.columns.tolist() == ["split", "method", "seed", "kind", "severity", "mae"]
    assert errors[["kind", "severity"]].to_numpy().tolist() == [
        ["fog", 0], ["fog", 1], ["fog", 2], ["snow", 0], ["snow", 1], ["snow", 2],
    ]  # fmt: skip
    assert errors["mae"].tolist()[:5] == [0.4, 4.0, 5.0, 0.4, 2.0]  # in raw units
    assert math.isnan(errors["mae"][5])
    assert set(errors["method"]) == {"RnC(L1)"} and set(errors["seed"]) == {0}


def test_a_view_is_found_beside_its_record(tmp_path):
    one, other = record("L1", 0), record("L1", 1)
    path = results.write(one, tmp_path)
    assert results.view([other, one], "L1", tmp_path) is None
    path.with_suffix(".csv").write_text("index,part,target,pc1,pc2\n0,train,-1.5,0.25,-0.5\n")
    view = results.view([other, one], "L1", tmp_path)
    assert view.to_dict("records") == [{"index": 0, "part": "train", "target": -1.5, "pc1": 0.25, "pc2": -0.5}]
    assert results.view([other], "L1", tmp_path) is None
    assert results.view([one], "L2", tmp_path) is None


def test_all_predictions_of_a_data_set_lie_in_one_file_that_grows(tmp_path):
    one, two, other = record("ridge", 0), record("svr", 0), record("ridge", 0, dataset="standin", key="f" * 16)
    for number, of in enumerate((one, two, other)):
        path = results.write(of, tmp_path)
        path.with_suffix(".csv").write_text(f"index,target,prediction\n{number},1.5,2\n")
    of_esol = {"profile": "smoke", "experiment": "esol", "dataset": "esol"}
    results.write_text(path.with_suffix(".csv"), "index,target,prediction\n2,1.5,2\n")
    results.pack(tmp_path, **of_esol)
    where = results.folder(tmp_path, "smoke", "esol")
    assert [path.name for path in where.glob("*.csv")] == [path.with_suffix(".csv").name]  # of the other data set
    assert results.all_predictions(two, tmp_path).to_dict("list") == {"index": [1], "target": [1.5], "prediction": [2]}
    assert results.all_predictions(other, tmp_path) is None
    packed = (where / "esol.zip").read_bytes()
    results.pack(tmp_path, **of_esol)  # nothing is loose
    path = results.write(one, tmp_path).with_suffix(".csv")
    path.write_text("index,target,prediction\n0,1.5,2\n")
    results.pack(tmp_path, **of_esol)  # the same again
    assert (where / "esol.zip").read_bytes() == packed
    path.write_text("index,target,prediction\n0,1.5,9\n")
    results.pack(tmp_path, **of_esol)
    assert results.all_predictions(one, tmp_path)["prediction"].item() == 9
    assert len(results.load(tmp_path, profile="smoke", experiment="esol")) == 3
    assert results.all_predictions(two, tmp_path)["index"].item() == 1


def test_a_labelled_record_is_called_by_its_label_and_another_by_its_method(tmp_path):
    one, other = (record(method, 0, corrupted={"fog": [1.0]}) for method in ("RnC(L1)", "L1"))
    for written in (one, other):
        results.write(written, tmp_path).with_suffix(".csv").write_text(f"index,part\n0,{written['method']}\n")
    shown = [*results.labelled([one], ["RnC fine-tuned, L1"]), other]
    assert "label" not in one and shown[0]["method"] == "RnC(L1)"  # what was loaded stays as it is
    for table in (results.frame, results.predictions, results.corrupted, results.curves):
        assert table([one, other])["method"].unique().tolist() == ["RnC(L1)", "L1"]
        assert table(shown)["method"].unique().tolist() == ["RnC fine-tuned, L1", "L1"]
        expected = table([one, other]).drop(columns="method")
        pd.testing.assert_frame_equal(table(shown).drop(columns="method"), expected)
    for records, method in ((shown, "RnC fine-tuned, L1"), ([one, other], "RnC(L1)")):
        assert results.view(records, method, tmp_path)["part"].tolist() == ["RnC(L1)"]
    assert results.view(shown, "L1", tmp_path)["part"].tolist() == ["L1"]
    assert results.view(shown, "RnC(L1)", tmp_path) is None
    assert results.view([one, other], "RnC fine-tuned, L1", tmp_path) is None


@pytest.mark.parametrize("labels", [[], ["L1 end to end"], ["L1 end to end"] * 3])
def test_each_record_needs_a_label(labels):
    with pytest.raises(ValueError, match=r"labels: got|argument 2 is (shorter|longer)"):
        results.labelled([record("L1", seed) for seed in range(2)], labels)


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


def test_the_nuisance_coefficient_is_what_the_nuisance_adds_to_a_prediction():
    rng = np.random.default_rng(0)
    target, nuisance = rng.normal(size=(2, 40))

    def drawn(method, correlation, coefficient, mae):
        one = record(method, 0, mae=mae)
        prediction = 0.3 + 0.9 * target + coefficient * nuisance
        one["test"] = {"index": list(range(40)), "target": target.tolist(), "prediction": prediction.tolist()}
        one["test"]["nuisance"] = nuisance.tolist()
        one["config"] = one["config"] | {"spurious": correlation}
        return one

    records = [
        drawn("L1", "tied", 0.7, 3.0), drawn("RnC(L1)", "tied", 0.0, 2.0), record("L1", 1),
        drawn("L1", "untied", 0.2, 2.5), drawn("RnC(L1)", "untied", -0.1, 2.5),
    ]  # fmt: skip
    effects = results.correlation_effects(records).set_index(["method", "spurious"])
    coefficients = {("L1", "tied"): 0.7, ("RnC(L1)", "tied"): 0.0, ("L1", "untied"): 0.2, ("RnC(L1)", "untied"): -0.1}
    coefficients |= {("L1", "added"): 0.5, ("RnC(L1)", "added"): 0.1}
    assert effects["nuisance_coefficient"].to_dict() == pytest.approx(coefficients, abs=1e-9)
    added = effects.xs("added", level="spurious")["test_mae_raw"].to_dict()
    scale = effects["test_mae_raw"]["L1", "tied"] / 3.0
    assert added == pytest.approx({"L1": 0.5 * scale, "RnC(L1)": -0.5 * scale})
    records[0]["test"]["prediction"] = []  # it diverged
    effects = results.correlation_effects(records).set_index(["method", "spurious"])["nuisance_coefficient"]
    assert math.isnan(effects["L1", "tied"]) and math.isnan(effects["L1", "added"])
    assert set(results.correlation_effects(records[:2])["spurious"]) == {"tied"}
    assert results.correlation_effects([record("L1", 1)]).empty
    shown = results.correlation_effects(results.labelled(records[:2], ["L1 end to end", "RnC fine-tuned, L1"]))
    assert shown["method"].tolist() == ["L1 end to end", "RnC fine-tuned, L1"]


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
    records[1]["stages"][0] = records[1]["stages"][0] | {"commit": "an earlier one than the run's"}
    many, few = ({"epoch": at, "train_loss": [1 / epoch for epoch in at]} for at in (range(1, 41), range(4, 41, 4)))
    for run, curve in zip(records[:2], (many, few), strict=True):  # a record keeps 40 points or 10
        run["stages"][0] = run["stages"][0] | {"curve": {name: list(values) for name, values in curve.items()}}
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
    # timings, simulations and searches have forms of their own
    others = ("benchmark", "throughput", "simulation", "search")
    return sorted(p for p in paths if p.suffix == ".json" and p.is_file() and p.parent.name not in others)


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
    whole = {"esol": (SOURCES["esol"].sha256, 1128)}  # of each measured data set: checksum and number of samples
    for path in paths:
        one = read(path)
        assert one is not None and "set" in json.loads(path.read_text(encoding="utf-8"))["test"], path.name
        name = path.name
        more_networks = max(0, len(one["stages"]) - 2)  # of an ensemble
        assert path.stat().st_size <= 7000 + 700 * more_networks + 8 * one["data"]["n_test"], name
        assert one["schema"] == results.SCHEMA and not set(results.REQUIRED) - set(one), name
        assert (one["profile"], one["experiment"]) == ("paper", path.parent.name), name
        config, drawn = one["config"], one["dataset"] == "synthetic"
        correlated = config.get("spurious") == "tied"
        data, test = one["data"], one["test"]
        n_pool, n_test = data.get("n_pool", data["n_train"]), data.get("n_test_pool", data["n_test"])
        if drawn:
            checksum = recipe(config["n_samples"], config["size"], config.get("data_seed", 0), correlated)
            n_samples = config["n_samples"]
        else:
            of_first = (data["checksum"], n_pool + data["n_val"] + n_test)
            checksum, n_samples = whole.setdefault(one["dataset"], of_first)
        made_up = drawn or one["dataset"] in ("kin8nm", "naval")  # which are simulated
        assert data["checksum"] == checksum and data["synthetic"] is made_up, name
        assert len(one["run"]["commit"]) == 40 and one["run"]["clean"] is True, name
        assert keys.setdefault(one["key"], name) == name
        assert name.endswith(f"-{one['seed']:02d}-{one['key'][:8]}.json"), name
        for field in results.IDENTITY:
            assert one["config"][field] == one[field], name

        if "holes" not in config and (drawn or "spurious" not in config):
            assert n_pool + data["n_val"] + n_test == n_samples, name
            assert data["n_train"] == round(config.get("fraction", 1) * n_pool), name
        every = data["n_test"] <= 300  # of a larger test set, a fixed part of the predictions
        assert len(test["index"]) == len(test["target"]) and len(test["index"]) <= data["n_test"], name
        assert len(test["index"]) == data["n_test"] if every else len(test["index"]) >= 100, name
        assert test["index"] == sorted(set(test["index"])), name
        # one split, one test set: whatever the method
        seed = one["seed"] if SOURCES[one["dataset"]].seeded else config.get("data_seed")
        part = (one["dataset"], n_samples, one["split"], "spurious" in config, seed)
        assert tested.setdefault(part, test["index"]) == test["index"], name
        if not test["prediction"]:
            assert one["metrics"] == {} and one["diverged"], name
            continue
        assert not one["diverged"], name
        prediction, target = np.array(test["prediction"]), np.array(test["target"])
        scales = {"raw": (0, 1), "standardised": (data["train_mean"], data["train_std"])} if every or drawn else {}
        for scale, (mean, std) in scales.items():
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
        one = read(path)
        if one["dataset"] != "esol":
            continue
        parts = split(esol.inputs.smiles, one["split"], one["seed"])
        if "spurious" in one["config"]:
            correlated = one["config"]["spurious"] == "tied"
            parts = spurious_split(parts, esol.targets, esol.nuisance > 0, one["seed"], correlated=correlated)
        assert one["test"]["index"] == parts.test.tolist(), path.name
        np.testing.assert_allclose(one["test"]["target"], esol.targets[parts.test], atol=5.1e-5, err_msg=path.name)
        if "fraction" in one["config"]:
            parts = subsample(parts, one["config"]["fraction"], one["seed"])
        if "holes" in one["config"]:
            parts = with_unseen_ranges(parts, esol.targets, one["config"]["holes"], one["seed"])
        sizes = [one["data"][f"n_{part}"] for part in ("train", "val", "test")]
        assert sizes == [len(parts.train), len(parts.val), len(parts.test)], path.name
        train = esol.targets[parts.train]
        scaler = (one["data"]["train_mean"], one["data"]["train_std"])
        assert scaler == pytest.approx((train.mean(), train.std()), rel=1e-6), path.name
        if one["method"] == "training mean" and one["test"]["prediction"]:
            assert one["test"]["prediction"] == pytest.approx([train.mean()] * len(parts.test), abs=1e-4)
        if one["method"] == "Delaney's equation" and one["test"]["prediction"]:
            published_column = esol.inputs.published[parts.test]
            np.testing.assert_allclose(one["test"]["prediction"], published_column, atol=5.1e-5)
