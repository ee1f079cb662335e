"""Tables of numbers: near repetitions against a literal loop, and each loader on a small file of its layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import check_public_file

from rnclib.data import PARTS, catalogue, tables
from rnclib.data.catalogue import SOURCES
from rnclib.data.tables import near_duplicates

TABLES = [name for name, source in SOURCES.items() if str(source.loader).startswith("rnclib.data.tables:")]
PUBLIC = [name for name in TABLES if name != "diabetes"]  # that one comes with scikit-learn

# columns in the order of the file; those named in capitals below are targets
LAYOUTS = {
    "concrete": ("uci/concrete.csv", [*"abcdefgh", "Concrete-compressive-strength"]),
    "power-plant": ("uci/power-plant.csv", ["AT", "V", "AP", "RH", "PE"]),
    "protein": ("uci/protein-structure.csv", ["RMSD", *(f"F{i}" for i in range(1, 10))]),
    "california": ("uci/california_housing.csv", ["MedInc", "HouseAge", "Latitude", "Longitude", "MedHouseVal"]),
    "kin8nm": ("uci/kin8nm.csv", [*(f"theta{i}" for i in range(1, 9)), "y"]),
    "naval": ("uci/naval-propulsion.csv", ["lp", "v", "GTT", "comp_decay_state", "turb_decay_state"]),
}
TARGETS = {
    "concrete": "Concrete-compressive-strength", "power-plant": "PE", "protein": "RMSD", "california": "MedHouseVal",
    "kin8nm": "y", "naval": "turb_decay_state",
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_loaded():
    catalogue._loaded.cache_clear()
    yield
    catalogue._loaded.cache_clear()


@pytest.fixture
def put(monkeypatch, tmp_path):
    """Give a text as the file that a loader reads; what it asks for is listed."""

    def given(text: str) -> list:
        path, asked = tmp_path / "file", []
        path.write_text(text, encoding="utf-8", newline="")
        monkeypatch.setattr(tables, "public_file", lambda *what: asked.append(what) or path)
        return asked

    return given


def numbers(columns: list[str], n: int = 60, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n, len(columns))).round(6), columns=columns)


def days(n: int) -> pd.DataFrame:
    """Hours of `n` days, with gaps, of which the temperature is the number of the day."""
    rng, rows = np.random.default_rng(0), []
    for day in range(n):
        for hour in np.flatnonzero(rng.random(24) < 0.4):
            season, weather = rng.choice(["spring", "summer"]), rng.choice(["clear", "misty", "rain"])
            rows.append([season, 2011, 1, hour, 0, day % 7, 1, weather, day, 20.0, 0.5, 7.0, rng.integers(1, 900)])
    return pd.DataFrame(
        rows,
        columns=[
            "season", "year", "month", "hour", "holiday", "weekday", "workingday", "weather", "temp", "feel_temp",
            "humidity", "windspeed", "count",
        ],
    )  # fmt: skip


def runs(n: int) -> pd.DataFrame:
    """Six frequencies of each of `n` runs, not in order; no two columns of a run say alone which it is."""
    rows = [
        [100.0 * 2**step, run % 4, 0.1 * (run // 4 % 4), 30.0 + run // 16, 0.002, 120.0 + run + step / 10]
        for run in range(n)
        for step in range(6)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def assert_whole(data, name: str, groups: np.ndarray, n_seeds: int = 8) -> None:
    """No group is in two sets, and each set has some."""
    for seed in range(n_seeds):
        split = data.splits[name](seed)
        sets = [set(groups[getattr(split, part)].tolist()) for part in PARTS]
        assert all(sets) and not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
        assert sorted(np.concatenate([getattr(split, part) for part in PARTS])) == list(range(len(data)))


# --- near repetitions -----------------------------------------------------------------------------------


def literal(inputs: np.ndarray, distance: float) -> list[int]:
    """Each pair of rows is compared, number by number; near ones are joined. Groups are numbered as they come."""
    n, spread = len(inputs), np.nanstd(inputs, axis=0)
    parent = list(range(n))

    def root(i: int) -> int:
        return i if parent[i] == i else root(parent[i])

    for i in range(n):
        for j in range(i):
            pairs = zip(inputs[i], inputs[j], spread, strict=True)
            if all((np.isnan(a) and np.isnan(b)) or abs(a - b) <= distance * (s or 1) for a, b, s in pairs):
                parent[root(i)] = root(j)
    return in_order([root(i) for i in range(n)])


def in_order(groups) -> list[int]:
    numbered: dict[int, int] = {}
    return [numbered.setdefault(int(group), len(numbered)) for group in groups]


@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 40), n_columns=st.integers(1, 4), gap=st.sampled_from((0.0, 0.1)),
    distance=st.sampled_from((0.01, 0.1, 0.5)), constant=st.booleans(),
)  # fmt: skip
def test_near_duplicates_are_those_of_a_literal_loop(seed, n, n_columns, gap, distance, constant):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, n // 4), n_columns))
    inputs = centres[rng.integers(len(centres), size=n)] + rng.uniform(-1, 1, (n, n_columns)) * distance
    inputs *= 10.0 ** rng.integers(-4, 5, n_columns)  # whatever the unit
    inputs[1:][rng.random((n - 1, n_columns)) < gap] = np.nan  # no column is missing altogether
    if constant:
        inputs = np.column_stack([inputs, np.full(n, 7.3)])
    assert in_order(near_duplicates(inputs, distance)) == literal(inputs, distance)


def test_near_ones_of_near_ones_are_in_one_group():
    chain = np.append(np.arange(5) * 0.009, [10.0, -10.0])[:, None]
    chain /= chain.std()  # steps of 0.009 / 5.3 standard deviations
    assert in_order(near_duplicates(chain, 0.0017)) == [0, 0, 0, 0, 0, 1, 2]
    assert in_order(near_duplicates(chain, 0.0016)) == [0, 1, 2, 3, 4, 5, 6]


def test_a_missing_number_is_like_another_missing_one_alone():
    inputs = np.array([[np.nan, 1.0], [0.0, 1.0], [np.nan, 1.0], [5.0, 1.0], [np.nan, 2.0], [0.0, 1.0]])
    assert in_order(near_duplicates(inputs)) == [0, 1, 0, 2, 3, 1]


def test_a_column_that_says_nothing_changes_nothing():
    inputs = np.random.default_rng(0).integers(0, 3, (30, 2)).astype(float)
    alone = in_order(near_duplicates(inputs))
    for said in (0.0, 0.1, 1e9, np.nan):
        assert in_order(near_duplicates(np.column_stack([inputs, np.full(30, said)]))) == alone


# --- loaders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_column_is_the_target_and_the_others_are_inputs(name, put):
    file, columns = LAYOUTS[name]
    table = numbers(columns)
    asked = put(table.to_csv(index=False))
    data = catalogue.load(name)
    inputs = [column for column in columns if column not in (TARGETS[name], "comp_decay_state")]
    np.testing.assert_allclose(data.inputs, table[inputs])
    np.testing.assert_allclose(data.targets, table[TARGETS[name]])
    assert data.inputs.dtype == data.targets.dtype == np.float64
    assert [what[0] for what in asked] == [file]
    assert tuple(data.splits) == SOURCES[name].splits


@pytest.mark.parametrize("name", PUBLIC)
def test_files_are_those_of_a_fixed_commit_with_the_checksum_of_the_catalogue(name, monkeypatch):
    check_public_file(monkeypatch, tables, name)


def test_every_table_has_a_test_of_its_layout():
    assert {*LAYOUTS, "bike", "airfoil", "abalone", "diabetes"} == set(TABLES)


def test_the_other_state_of_a_ship_is_no_input(put):
    """It would be a second target."""
    table = numbers(LAYOUTS["naval"][1])
    put(table.to_csv(index=False))
    states = table[["comp_decay_state", "turb_decay_state"]].to_numpy()
    assert not np.isin(catalogue.load("naval").inputs, states).any()


def test_text_becomes_0_and_1(put):
    sizes = numbers([*"abcdefg"])
    sexes = np.array(["M", "F", "I"])[np.random.default_rng(1).integers(0, 3, 60)]
    rings = np.arange(1, 61)
    table = pd.concat([pd.Series(sexes), sizes, pd.Series(rings)], axis=1)
    put(table.to_csv(index=False, header=False).removesuffix("\n"))  # the file has no last line end
    data = catalogue.load("abalone")
    assert data.inputs.shape == (60, 10) and data.targets.tolist() == rings.tolist()
    np.testing.assert_allclose(data.inputs[:, :7], sizes)
    np.testing.assert_array_equal(data.inputs[:, 7:], sexes[:, None] == np.array(["F", "I", "M"]))


def test_the_file_of_airfoil_has_tabs_and_no_header_and_runs_stay_together(put):
    table = runs(40)
    asked = put(table.to_csv(index=False, header=False, sep="\t", lineterminator="\r\n"))
    data = catalogue.load("airfoil")
    assert asked[0][0] == "uci/airfoil_self_noise.dat"
    np.testing.assert_allclose(data.inputs, table.iloc[:, :5])
    np.testing.assert_allclose(data.targets, table.iloc[:, 5])
    its_run = (data.targets - 120).astype(int)
    assert len(set(its_run)) == 40
    assert_whole(data, "runs", its_run)


def test_hours_of_a_day_stay_together(put):
    table = days(60)
    put(table.to_csv(index=False))
    data = catalogue.load("bike")
    assert data.targets.tolist() == table["count"].tolist()
    assert data.inputs.shape == (len(table), 10 + 2 + 3)  # two seasons and three kinds of weather
    assert set(data.inputs[:, 10:].ravel()) == {0.0, 1.0}
    assert (data.inputs[:, 10:12].sum(1) == 1).all() and (data.inputs[:, 12:].sum(1) == 1).all()
    assert_whole(data, "days", table["temp"].to_numpy())


def test_a_day_begins_though_its_first_hour_is_later_than_the_last_of_the_day_before(put):
    table = days(60)
    late = table[(table["temp"] % 2 == 0) == (table["hour"] < 12)]  # mornings of one day, evenings of the next
    put(late.to_csv(index=False))
    data = catalogue.load("bike")
    assert_whole(data, "days", late["temp"].to_numpy())
    split = data.splits["days"](0)
    assert len(set(late["temp"].to_numpy()[split.test])) > 1


# --- larger tables --------------------------------------------------------------------------------------


def test_of_a_larger_table_the_same_rows_are_taken_each_time(put, monkeypatch):
    table = numbers(LAYOUTS["kin8nm"][1], 200)
    table["theta1"] = np.arange(200)
    put(table.to_csv(index=False))
    whole = catalogue.load("kin8nm")
    assert len(whole) == 200
    monkeypatch.setattr(tables, "MOST", 50)
    first, again = tables.load_kin8nm(), tables.load_kin8nm()
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.targets, again.targets)
    rows = first.inputs[:, 0].astype(int)
    assert len(first) == len(set(rows)) == 50 and (np.diff(rows) > 0).all()
    assert rows[-1] > 150 and rows[0] < 50  # of the whole table, not its beginning
    np.testing.assert_array_equal(first.targets, whole.targets[rows])
    for seed in range(3):
        one, other = first.splits["random"](seed), again.splits["random"](seed)
        assert all(np.array_equal(getattr(one, part), getattr(other, part)) for part in PARTS)


@pytest.mark.parametrize("name", ["bike", "airfoil"])
def test_groups_are_those_of_the_rows_taken(name, put, monkeypatch):
    table = days(60) if name == "bike" else runs(40)
    put(table.to_csv(index=False) if name == "bike" else table.to_csv(index=False, header=False, sep="\t"))
    monkeypatch.setattr(tables, "MOST", 120)
    data = catalogue.load(name)
    assert len(data) == 120 < len(table)
    groups = data.inputs[:, table.columns.drop(["season", "weather"]).get_loc("temp")] if name == "bike" else (
        data.targets - 120).astype(int)  # fmt: skip
    assert len(set(groups)) < 120  # some have several rows
    assert_whole(data, SOURCES[name].splits[0], groups)


# --- splits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LAYOUTS, "abalone"])
def test_near_duplicates_stay_in_one_set(name, put):
    columns = [*"xabcdefgy"] if name == "abalone" else LAYOUTS[name][1]
    table = numbers(columns, 50)
    table = pd.concat([table, table + 1e-4, table.head(10)], ignore_index=True)
    if name == "abalone":
        table["x"] = np.tile(["M", "F"], 55)
    put(table.to_csv(index=False, header=name != "abalone"))
    data = catalogue.load(name)
    assert_whole(data, "random", np.arange(110) % 50)
    tested = {tuple(data.splits["random"](seed).test.tolist()) for seed in range(5)}
    assert len(tested) == 5


def published(put) -> list:
    columns = LAYOUTS["concrete"][1]
    put(numbers(columns, 1030).to_csv(index=False))
    return [catalogue.load("concrete").splits["published"](seed) for seed in range(5)]


def test_the_published_folds_of_concrete_share_a_test_set_and_validate_each_other_row_once(put):
    folds = published(put)
    for fold in folds:
        np.testing.assert_array_equal(fold.test, folds[0].test)
        assert len(fold.test) == 206 and len(fold.train) + len(fold.val) == 824 and len(fold.val) in (164, 165)
        together = np.concatenate([fold.train, fold.val, fold.test])
        assert sorted(together) == list(range(1030))
        assert all((np.diff(getattr(fold, part)) > 0).all() for part in PARTS)
    validated = np.concatenate([fold.val for fold in folds])
    assert sorted(validated) == sorted(set(range(1030)) - set(folds[0].test)) and len(validated) == 824
    for first, again in zip(folds, published(put), strict=True):
        assert all(np.array_equal(getattr(first, part), getattr(again, part)) for part in PARTS)


@pytest.mark.parametrize("seed", [5, -1, 100])
def test_there_are_five_published_folds_of_concrete(seed, put):
    put(numbers(LAYOUTS["concrete"][1], 1030).to_csv(index=False))
    with pytest.raises(ValueError, match=rf"^seed: got {seed} with split='published'; allowed: 0 to 4$"):
        catalogue.load("concrete").splits["published"](seed)


def test_the_published_test_rows_of_concrete_are_those_found_by_value(put):
    file = Path(os.environ.get("RNC_DATA", "")) / "uci/concrete-test-rows.csv"
    if not file.is_file():
        pytest.skip("RNC_DATA does not hold uci/concrete-test-rows.csv")
    assert published(put)[0].test.tolist() == pd.read_csv(file)["row"].tolist()


def test_diabetes_is_in_its_own_units():
    data = catalogue.load("diabetes")
    assert data.inputs.shape == (442, 10)
    assert (data.inputs[:, 0].min(), data.inputs[:, 0].max()) == (19, 79)  # years
    assert (data.targets.min(), data.targets.max()) == (25, 346)
    assert data.checksum == tables.load_diabetes().checksum and len(data.checksum) == 64
