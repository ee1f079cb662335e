"""A file of one's own: what is read of it, how it is split, the model it gives, and predictions of a second file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rnclib.__main__ import main
from rnclib.data.csv_files import Format, read
from rnclib.data.molecules import READABLE
from rnclib.estimator import RnCRegressor
from rnclib.your_data import FEWEST, Columns, dates_of, fit_model, load, predict_file, results_folder

SMILES = [f"{'C' * n}{end}" for n in range(1, 13) for end in ("", "O", "N")]


def table(n: int = 120, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"size": rng.normal(size=n).round(4), "colour": rng.choice(["red", "blue"], n)})
    frame["patient"] = [f"p{i // 3}" for i in range(n)]
    frame["day"] = pd.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d")
    frame["price"] = (10 + 3 * frame["size"] + (frame["colour"] == "red")).round(4)
    return frame


@pytest.fixture
def csv(tmp_path) -> Path:
    path = tmp_path / "mine.csv"
    table().to_csv(path, index=False)
    return path


def columns(**roles) -> Columns:
    return Columns("price", **({"leave_out": ("patient", "day")} | roles))


# --- what is read -------------------------------------------------------------------------------------------


def test_a_table_is_read_with_its_kinds_of_columns(csv):
    data = load(csv, columns())
    assert list(data.X.columns) == ["size", "colour"] and (data.numeric, data.text) == (("size",), ("colour",))
    assert data.y == pytest.approx(table()["price"]) and data.rejects.empty
    assert "Rows used: 120 of 120." in data.said and data.frame.index[0] == 2  # the line
    assert "Inputs that are numbers: 'size'; text, dates among it: 'colour'." in data.said
    assert list(load(csv, Columns("price", inputs=("size",))).X) == ["size"]
    table()[["colour", "price", "size"]].to_csv(csv, index=False)
    assert list(load(csv, columns(leave_out=())).X.columns) == ["colour", "size"]  # in the order of the file


@pytest.mark.parametrize("form", ["{}%", "{} m2", "€{}", "{:.0f},250.5", "{} rooms"])
def test_numbers_with_something_beside_are_told(tmp_path, form):
    frame, path = table(), tmp_path / "rooms.csv"
    frame.assign(size=[form.format(100 + i) for i in range(120)]).to_csv(path, index=False)
    data = load(path, columns())
    assert data.text == ("size", "colour") and any(
        f"'size' is taken as text, though its cells look like numbers with something beside: {form.format(100)!r}"
        in one
        for one in data.warnings
    )


def test_dates_and_codes_are_told_neither_as_numbers_nor_as_names(tmp_path):
    frame, path = table(), tmp_path / "codes.csv"
    frame.assign(size=[f"{i:05}-A{i}" for i in range(120)]).to_csv(path, index=False)
    data = load(path, columns(leave_out=("patient",)))
    assert not any("look like numbers" in one for one in data.said)
    assert [one for one in data.warnings if "differs in every row" in one and "'size'" in one]
    assert not [one for one in data.warnings if "'day'" in one]


def test_a_target_that_is_no_number_is_told_with_a_cell(tmp_path):
    path = tmp_path / "money.csv"
    path.write_text("size;price\n1;$1.50\n2;$2.50\n")
    with pytest.raises(
        ValueError, match=r"^target: got 'price' with 2 of 2 cells that are no number, such as '\$1.50' in line 2; "
    ):
        load(path, Columns("price"))


def test_rows_that_cannot_be_trained_on_have_a_line_and_a_reason(tmp_path):
    path = tmp_path / "solvents.txt"
    rows = [f"{one};{n}" for n, one in enumerate(SMILES)]
    path.write_text("# of the sea\n# smiles;value\n" + "\n".join([*rows, "C1CC;5", ";6", "CCCO;-", "OCCC;99"]))
    data = load(path, Columns("value", smiles="smiles"))
    told = dict(zip(data.rejects["line"], data.rejects["reason"], strict=True))
    last = 2 + len(SMILES)
    assert told[last + 1] == f"'smiles' is no molecule: got 'C1CC'; allowed: {READABLE}"
    assert "is missing" in told[last + 2] and "is missing" in told[last + 3] and len(told) == 3
    same = data.same[[SMILES.index("CCCO"), -1]]  # one molecule, written in two ways
    assert same[0] == same[1] and len(set(data.same)) == len(SMILES)
    for split in data.splits(3):
        at = [set(np.flatnonzero(data.same == same[0])) <= set(part) for part in (split.train, split.val, split.test)]
        assert sum(at) == 1


def test_images_are_found_beside_the_file(tmp_path):
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "pictures" / "3.png").write_bytes(b"no image")
    path = tmp_path / "faces.csv"
    path.write_text("file,age\n" + "\n".join(f"pictures/{i}.png,{20 + i}" for i in range(25)))
    data = load(path, Columns("age", image="file"))
    assert len(data.X) == 23 and data.X[0] == str(tmp_path / "pictures" / "0.png")
    told = dict(zip(data.rejects["line"], data.rejects["reason"], strict=True))
    assert set(told) == {5, 26} and all(text.startswith("'file' is no image: ") for text in told.values())


def test_more_rows_than_asked_for_are_drawn_at_random(csv):
    data = load(csv, columns(), most=50)
    assert len(data.y) == 50 and "Trained on 50 of 120 rows, chosen at random." in data.said
    assert not np.array_equal(data.frame.index, np.arange(2, 52)) and data.frame.index.is_monotonic_increasing


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"target": "prise"}, "target: got 'prise'; allowed: one of 'size', "),
        ({"target": None}, "target: got None; allowed: the name of a column"),
        ({"smiles": "a", "image": "b"}, "image: got 'b' beside smiles; allowed: one of the two"),
        ({"group": "patient", "time": "day"}, "time: got 'day' beside group; allowed: one of the two"),
        ({"smiles": "a", "inputs": ("b",)}, r"inputs: got \('b',\) beside smiles; allowed: for a table"),
        ({"leave_out": ("weight",)}, "leave_out: got 'weight'; allowed: 'size', 'colour', "),
        ({"time": "patient", "leave_out": ("day",)}, "time: got 'p0' in line 2; allowed: numbers alone, or dates "),
        ({"group": "clinic"}, "group: got 'clinic'; allowed: 'size', 'colour', "),
    ],
)
def test_a_wrong_column_is_named(csv, roles, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        load(csv, Columns(**({"target": "price"} | roles)))


def test_too_few_rows_are_refused(tmp_path):
    path = tmp_path / "few.csv"
    table(FEWEST - 1).to_csv(path, index=False)
    with pytest.raises(ValueError, match=f"few.csv: got {FEWEST - 1} rows that can be trained on; allowed: at least"):
        load(path, columns())
    path.write_text("s,y\n" + "\n".join(f"x{i},{i}" for i in range(30)))
    with pytest.raises(ValueError, match=r"rows left: 0, .*; line 2 is left out: 's' is no molecule: got 'x0'"):
        load(path, Columns("y", smiles="s"))
    table(FEWEST).to_csv(path, index=False)
    assert len(load(path, columns()).y) == FEWEST


# --- how it is split ----------------------------------------------------------------------------------------


def test_rows_of_one_group_stay_together(csv):
    data = load(csv, columns(group="patient", leave_out=("day",)))
    for split in data.splits(4):
        patients = [set(data.frame["patient"].iloc[part]) for part in (split.train, split.val, split.test)]
        assert sum(map(len, patients)) == 40 and "patient" not in data.X


def test_splits_in_time_test_on_what_comes_after(csv):
    data = load(csv, columns(time="day", leave_out=("patient",)))
    for split in data.splits(3):
        days = data.frame["day"].to_numpy()
        assert days[np.r_[split.train, split.val]].max() < days[split.test].min()
    assert "splits in time" in data.origin
    numbers = table().assign(day=np.arange(120) / 7)
    numbers.to_csv(csv, index=False)
    assert len(load(csv, columns(time="day", leave_out=("patient",))).splits(3)) == 3
    table().assign(day="2024-02-31").to_csv(csv, index=False)
    with pytest.raises(ValueError, match=r"^time: got a date that there is not"):
        load(csv, columns(time="day", leave_out=("patient",)))


def test_a_split_of_ones_own_is_used_and_its_repetitions_are_told(csv):
    frame = table().assign(set=["train"] * 90 + ["val"] * 10 + ["test"] * 20)
    frame.loc[115, ["size", "colour"]] = frame.loc[3, ["size", "colour"]]
    frame.to_csv(csv, index=False)
    data = load(csv, columns(split="set"))
    splits = data.splits(2)
    assert splits[0].test.tolist() == list(range(100, 120)) and splits[0] is splits[1]
    assert data.shared(splits) == "5.0% of the rows of a test set have the inputs of a row that is trained on."
    assert load(csv, columns()).shared(load(csv, columns()).splits(3)) is None  # random ones keep them together


# --- a model, and a second file -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> RnCRegressor:
    folder = tmp_path_factory.mktemp("model")
    table().to_csv(folder / "mine.csv", index=False)
    fitted = fit_model(
        load(folder / "mine.csv", columns()), RnCRegressor("joint", epochs=60, batch_size=256, random_state=0)
    )
    fitted.save(folder / "m.safetensors")
    return RnCRegressor.load(folder / "m.safetensors")


def test_a_saved_model_predicts_a_second_file(model, tmp_path):
    path = tmp_path / "new.csv"
    new = table(40, seed=1)
    new[["day", "colour", "size", "price"]].to_csv(path, index=False, sep=";")
    found = predict_file(model, path)
    assert found.frame["prediction"].to_numpy() == pytest.approx(model.predict(new[["size", "colour"]]), abs=1e-6)
    assert ((found.frame["low"] < found.frame["prediction"]) & (found.frame["prediction"] < found.frame["high"])).all()
    off = np.abs(found.frame["prediction"].to_numpy() - new["price"]).mean()
    assert f"The file has 'price' too, for 40 other rows: mean absolute error {off:.4g}." in found.said
    assert found.frame.index.tolist() == list(range(2, 42)) and found.rejects.empty


def test_rows_unlike_the_training_set_are_told(model, tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text("size,colour\n0.1,red\n50,red\n0.1,mauve\n0.2,\nbig,blue\n")
    found = predict_file(model, path)
    unlike = found.frame["unlike"].tolist()
    assert unlike[0] == "" and "size = 50, outside " in unlike[1]
    assert "colour = 'mauve', never seen" in unlike[2] and "colour is missing, never so before" in unlike[3]
    assert any(
        "1 cells are no finite number and count as missing (line 6: no number: 'big')" in one for one in found.said
    )
    assert "Missing cells: 'colour' 1." in found.said and "size is missing, never so before" in unlike[4]
    assert np.isfinite(found.frame["prediction"]).all()


def test_dates_that_are_none_as_in_training_are_told(tmp_path):
    path = tmp_path / "days.csv"
    days = pd.date_range("2024-01-01", periods=60, freq="31h").strftime("%d/%m/%Y %H:%M")
    pd.DataFrame({"day": days, "y": np.arange(60.0)}).to_csv(path, index=False)
    fitted = fit_model(load(path, Columns("y")), RnCRegressor(epochs=6, random_state=0))
    assert dates_of(fitted) == ["Column 'day' is read as dates, written as %d/%m/%Y %H:%M."]
    path.write_text("day\n02/01/2024 07:00\nsoon\n2024-01-03T10:00\n")
    found = predict_file(fitted, path)
    assert ["no date as before" in one for one in found.frame["unlike"]] == [False, True, False]
    assert "Column 'day': 1 cells are no date as in training and count as missing (line 3: 'soon')." in found.said


def test_rows_with_features_far_from_all_others_are_told(model, tmp_path, monkeypatch):
    path = tmp_path / "near.csv"
    table(30, seed=2).to_csv(path, index=False)
    usual = predict_file(model, path).frame["unlike"]
    assert (usual == "").mean() > 0.7
    monkeypatch.setitem(model.notes_, "far", model.notes_["far"] / 1e4)
    told = predict_file(model, path).frame["unlike"]
    assert (
        told.str.contains("features far from all others: ").mean() > 0.7 and told.str.contains("× what is usual").any()
    )


def test_rows_that_were_fitted_are_not_counted_in_the_error(model, tmp_path):
    path = tmp_path / "again.csv"
    table().to_csv(path, index=False)
    said = predict_file(model, path).said
    assert "Rows that the model was fitted to: 120." in said and not any("mean absolute error" in one for one in said)


def test_a_file_or_model_without_the_columns_is_refused(model, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("colour\nred\nblue\n")
    with pytest.raises(ValueError, match=r"other.csv: got no column 'size'; allowed: all of \['size', 'colour'\]"):
        predict_file(model, path)
    frame = table()[["size"]]
    with pytest.raises(ValueError, match=r"^model: got one that does not say its columns; allowed: from rnclib"):
        predict_file(RnCRegressor(epochs=6).fit(frame, table()["price"]), path)


def test_molecules_that_cannot_be_read_are_left_out_of_predictions(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("mol,n\n" + "\n".join(f"{one},{len(one)}" for one in SMILES))
    fitted = fit_model(load(path, Columns("n", smiles="mol")), RnCRegressor(inputs="smiles", epochs=6, random_state=0))
    assert fitted.calibration_fraction == 0 and not len(fitted.calibration_)  # too few rows for intervals
    path.write_text("mol\nCCO\nC1CC\n\n?\nCCBr\n")
    found = predict_file(fitted, path)
    assert list(found.frame) == ["prediction", "unlike"] and found.frame.index.tolist() == [2, 6]
    assert found.rejects["line"].tolist() == [3, 5]


def test_validation_and_calibration_keep_groups_together_too(csv):
    data = load(csv, columns(group="patient", leave_out=("day",)))
    fitted = fit_model(data, RnCRegressor(epochs=6, random_state=0))
    of = data.frame["patient"].to_numpy()
    parts = [set(of[part]) for part in (fitted.training_, fitted.validation_, fitted.calibration_)]
    assert sum(map(len, parts)) == 40 and all(parts)


PUBLIC = {
    "freesolv/database.txt": ("experimental value (kcal/mol)", ["--smiles", "SMILES"]),
    "biogen/ADME_public_set_3521.csv": ("LOG MDR1-MDCK ER (B-A/A-B)", ["--smiles", "SMILES"]),
    "b3db/B3DB_regression.tsv": ("logBB", ["--smiles", "SMILES"]),
    "shapiq/bike.csv": ("count", []),
    "uci/abalone.csv": ("9", ["--no-header"]),
    "uci/airfoil_self_noise.dat": ("6", ["--no-header"]),
}


def public(file: str) -> Path:
    for variable in ("RNC_DATA", "RNC_CACHE"):
        path = Path(os.environ.get(variable, "/nowhere")) / file
        if path.is_file():
            return path
    pytest.skip(f"neither RNC_DATA nor RNC_CACHE holds {file}")


@pytest.mark.slow
@pytest.mark.parametrize("file", PUBLIC)
def test_public_files_that_nobody_prepared_go_from_comparison_to_predictions(file, tmp_path, capsys):
    """Train on the even rows of a file as it is published, and predict the odd ones."""
    target, given = PUBLIC[file]
    form = Format(header="--no-header" not in given)
    lines = public(file).read_text("utf-8").split("\n")
    begins = [*(read(public(file), form).frame.index - 1), len(lines)]
    rows = ["\n".join(lines[one:other]) for one, other in pairwise(begins)]  # some have lines within quotes
    first, second, out = (tmp_path / name for name in ("a.txt", "b.txt", "p.csv"))
    first.write_text("\n".join([*lines[: begins[0]], *rows[::2]]), encoding="utf-8")
    second.write_text("\n".join([*lines[: begins[0]], *rows[1::2]]), encoding="utf-8")
    asked = [str(first), "--target", target, *given, "--epochs", "6", "--most", "300"]
    assert main(["compare", *asked, "--splits", "2"]) == 0 and main(["fit", *asked]) == 0
    options = ["--out", str(out), *(one for one in given if one == "--no-header")]
    assert main(["predict", str(tmp_path / "a.rnclib" / "model.safetensors"), str(second), *options]) == 0
    found = pd.read_csv(out)
    assert len(found) == len(rows) // 2 and found["prediction"].notna().all()
    error = float(re.search(r"other rows: mean absolute error ([\d.]*\d)", capsys.readouterr().out)[1])
    measured = pd.to_numeric(read(second, form).frame[target], errors="coerce")
    assert error < 0.95 * (measured - measured.median()).abs().mean()  # better than one number for all


# --- the command line ---------------------------------------------------------------------------------------


def test_commands_compare_fit_and_predict(csv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [str(csv), "--target", "price", "--leave-out", "patient", "day", "--epochs", "6"]
    assert main(["compare", *given, "--splits", "2"]) == 0
    said = capsys.readouterr().out
    assert "Rows used: 120 of 120." in said and "Does rnc help, compared with end_to_end? " in said
    folder = results_folder(csv)
    assert folder == tmp_path / "mine.rnclib" and len(read(folder / "errors.csv").frame) == 14
    assert len(read(folder / "test_predictions.csv").frame) == 14 * 12
    assert main(["fit", *given, "--method", "end_to_end"]) == 0
    assert main(["predict", str(folder / "model.safetensors"), str(csv)]) == 0
    found = read(tmp_path / "predictions.csv", Format(separator=",")).frame
    assert list(found) == ["line", "prediction", "low", "high", "unlike"] and len(found) == 120
    loaded = RnCRegressor.load(folder / "model.safetensors")
    assert loaded.predict(pd.read_csv(csv)[["size", "colour"]]) == pytest.approx(
        found["prediction"].astype(float).to_numpy()
    )
    assert len(read(folder / "cleaned.csv").frame) == 120


def test_no_command_writes_over_what_it_reads(csv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--target", "price", "--leave-out", "patient", "day", "--epochs", "6"]
    assert main(["fit", str(csv), *given]) == 0
    model = str(results_folder(csv) / "model.safetensors")
    before = {path: path.read_bytes() for path in (csv, Path(model))}
    assert main(["predict", model, str(csv), "--out", str(tmp_path / "." / csv.name)]) == 1
    assert main(["predict", model, str(csv), "--out", model]) == 1
    csv.rename(tmp_path / "cleaned.csv")
    assert main(["fit", "cleaned.csv", *given, "--out", "."]) == 1
    (tmp_path / "cleaned.csv").rename(csv)
    with pytest.raises(ValueError, match=r"^out: got .*, where errors.csv would be overwritten; allowed: another"):
        results_folder("errors.csv", tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert [line.partition(" got ")[0] for line in errors] == ["error: out:"] * 3
    csv.with_name("some.csv").write_text("size,colour\n0.1,red\n0.2\n0.3,blue\n")
    assert main(["predict", model, "some.csv"]) == 0 and Path("predictions.rejects.csv").exists()
    assert main(["predict", model, str(csv)]) == 0 and not Path("predictions.rejects.csv").exists()


@pytest.mark.parametrize(
    "name, folder",
    [("my.v2.csv", "my.v2"), ("my.csv.gz", "my"), (".hidden.csv", ".hidden"), ("plain", "plain"), ("a.b/", "a.b")],
)
def test_files_of_different_names_have_folders_of_their_own(tmp_path, name, folder):
    (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    assert results_folder(tmp_path / name) == tmp_path / f"{folder}.rnclib"


def test_predictions_are_written_under_names_of_tables_as_text(csv, capsys):
    for out in ("p.parquet", "p.csv.gz", "."):
        assert main(["predict", "model.safetensors", str(csv), "--out", out]) == 1
        assert f"error: out: got {out}; allowed: a file whose name ends in .csv" in capsys.readouterr().err


def test_a_console_that_cannot_show_a_sign_stops_nothing(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("größe × 2,y\n" + "\n".join(f"{i},{i % 7}" for i in range(30)), encoding="utf-8")
    command = [sys.executable, "-m", "rnclib", "fit", str(path), "--target", "y", "--epochs", "6"]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "'gr??e ? 2'" in done.stdout, done.stderr


def test_fit_says_that_it_draws_rows_at_random(csv, capsys):
    given = ["--target", "price", "--time", "day", "--leave-out", "patient", "--epochs", "6"]
    assert main(["fit", str(csv), *given]) == 0
    assert (
        "Warning: fit holds rows out at random, whatever column 'day' says; it is no input." in capsys.readouterr().out
    )


def test_a_mistake_is_one_line_and_an_exit_status(csv, tmp_path, capsys):
    assert main(["fit", str(tmp_path / "none.csv"), "--target", "price"]) == 1
    assert main(["fit", str(csv), "--target", "prise"]) == 1
    assert main(["predict", str(csv), str(csv)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(line.startswith("error: ") for line in errors)
    with pytest.raises(SystemExit) as usage:
        main(["fit", str(csv)])
    assert usage.value.code == 2


def test_an_interrupt_ends_with_a_sentence(csv):
    command = [sys.executable, "-m", "rnclib", "fit", str(csv), "--target", "price", "--epochs", "100000"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True)
    deadline = time.monotonic() + 120
    while not (results_folder(csv) / "rejects.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130 and "Traceback" not in errors and errors.strip().endswith("rejects.")
    assert not (results_folder(csv) / "model.safetensors").exists()


def test_an_interrupted_comparison_goes_on(csv):
    given = ["compare", str(csv), "--target", "price", "--leave-out", "patient", "day", "--splits", "2"]
    command, folder = [sys.executable, "-m", "rnclib", *given, "--epochs", "60"], results_folder(csv)
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "fits" / "0-end_to_end.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130 and "Traceback" not in errors
    assert errors.endswith("\nInterrupted; each fit that was done is kept, and the same command goes on from there.\n")
    kept = {path: path.stat().st_mtime_ns for path in (folder / "fits").glob("*.json")}
    assert 1 <= len(kept) < 6 and not (folder / "errors.csv").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert f" of 14 fits are from an earlier run, kept in {folder / 'fits'}." in again.stdout
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(read(folder / "errors.csv").frame) == 14


def test_an_interrupted_prediction_speaks_of_no_rows_that_are_kept(csv, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(RnCRegressor, "load", interrupted)
    assert main(["predict", str(tmp_path / "m.safetensors"), str(csv), "--out", str(tmp_path / "p.csv")]) == 130
    assert capsys.readouterr().err == "\nInterrupted; nothing of this command is kept.\n"
    assert not (tmp_path / "p.csv").exists()
