"""Tables larger than memory: Parquet and large text read by chunks or by a random sample, predicted, and bounded."""

from __future__ import annotations

import datetime
import decimal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnclib.__main__ import main
from rnclib.data import csv_files, large_tables
from rnclib.data.csv_files import Format
from rnclib.data.large_tables import chunks, is_parquet, read
from rnclib.estimator import RnCRegressor
from rnclib.your_data import SHOWN, Columns, fit_model, load, predict_file, rejects_of

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"size": rng.normal(size=n), "count": rng.integers(0, 9, n)})
    frame["colour"] = rng.choice(["red", "blue"], n)
    frame["price"] = 10 + 3 * frame["size"] + (frame["colour"] == "red")
    return frame


def both(frame: pd.DataFrame, folder: Path, rows: int = 700) -> tuple[Path, Path]:
    """The same table as text and as Parquet of several row groups."""
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_parquet(folder / "a.parquet", index=False, row_group_size=rows)
    return folder / "a.csv", folder / "a.parquet"


# --- what is read -------------------------------------------------------------------------------------------


def test_parquet_is_the_table_that_text_is(tmp_path):
    frame = table(3000)
    frame.loc[5, "size"], frame.loc[7, "colour"], frame.loc[8, "price"] = np.nan, None, np.nan
    text, parquet = both(frame, tmp_path)
    assert is_parquet(parquet) and not is_parquet(text)
    one, other = (read(path, target="price", most=10_000) for path in (text, parquet))
    wanted = one.frame.drop(index=10)  # the row without a target, line 10 of the text
    pd.testing.assert_frame_equal(wanted.set_axis(wanted.index - 1), other.frame.astype({"count": object}))
    assert "Read 2,999 of 2,999 rows that have a target." in other.found
    assert "Parquet: files 1, row groups 5, rows 3,000, columns 4." in other.found
    first, second = (load(path, Columns("price")) for path in (text, parquet))
    pd.testing.assert_frame_equal(first.X, second.X)
    np.testing.assert_array_equal(first.y, second.y)


def test_cells_of_every_kind_become_text(tmp_path):
    moment = datetime.datetime(2024, 3, 31, 12, 30, tzinfo=datetime.UTC)
    columns = {
        "a.b": pa.array([0.1, None, float("nan"), -0.0]),
        "a": pa.array([2**62, None, 0, -5]),
        "half": pa.array(np.array([0.5, 1, 2, 3], np.float16)),
        "exact": pa.array([decimal.Decimal("1.50")] * 4),
        "text": pa.array([" x ", "", None, "NA"]),
        "kind": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "flag": pa.array([True, False, None, True]),
        "day": pa.array([moment.date()] * 4),
        "moment": pa.array([moment] * 4, pa.timestamp("us", "UTC")),
        "took": pa.array([datetime.timedelta(seconds=1)] * 4, pa.duration("ms")),
        "nothing": pa.nulls(4),
        "list": pa.array([[1.0]] * 4),
        "bytes": pa.array([b"x"] * 4),
        "__index_level_0__": pa.array([7, 8, 9, 10]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (found,) = chunks(tmp_path / "a.parquet")
    cells = {name: column.tolist() for name, column in found.frame.items()}
    assert cells["a.b"] == ["0.1", "", "", "-0.0"] and cells["a"] == [str(2**62), "", "0", "-5"]
    assert cells["text"] == ["x", "", "", "NA"] and cells["kind"] == ["u", "v", "", "u"]
    assert cells["flag"] == ["True", "False", "", "True"] and cells["day"] == ["2024-03-31"] * 4
    assert cells["exact"] == ["1.50"] * 4 and cells["took"] == ["1000"] * 4 and cells["nothing"] == [""] * 4
    assert pd.to_datetime(cells["moment"][0]) == pd.Timestamp(moment) and cells["half"] == ["0.5", "1.0", "2.0", "3.0"]
    told = [one for one in found.found if "is left out" in one]
    assert len(cells) == 11 and [one.split("'")[1] for one in told] == ["list", "bytes", "__index_level_0__"]
    assert found.frame.index.tolist() == [1, 2, 3, 4] and list(
        next(chunks(tmp_path / "a.parquet", columns=["a"])).frame
    ) == ["a"]


def test_a_folder_of_parquet_is_one_table(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    frame = table(50)
    frame[:20].to_parquet(folder / "0.parquet", index=False)
    frame[20:].to_parquet(folder / "1.parquet", index=False)
    found = read(folder, target="price", most=99)
    np.testing.assert_array_equal(found.frame["size"].astype(float), frame["size"])
    assert found.frame.index.tolist() == list(range(1, 51))
    frame.rename(columns={"size": "length"}).to_parquet(folder / "2.parquet", index=False)
    with pytest.raises(ValueError, match=r"2.parquet: got other columns than .*0.parquet; allowed: the same"):
        read(folder, target="price", most=99)


def test_rows_are_drawn_from_those_with_a_target_each_as_likely(tmp_path):
    frame = pd.DataFrame({"n": np.arange(3000), "y": np.where(np.arange(3000) % 3, 1.0, np.nan)})
    text, parquet = both(frame, tmp_path)
    drawn = Counter()
    for path in (text, parquet):
        found = (
            large_tables._sample(csv_files.chunks(path), "y", 300) if path == text else read(path, target="y", most=300)
        )
        n = found.frame["n"].astype(int).to_numpy()
        assert len(set(n)) == 300 and (n % 3 > 0).all() and (np.diff(n) > 0).all()
        assert "Read 300 of 2,000 rows that have a target, chosen at random." in found.found
        np.testing.assert_array_equal(found.frame.index, n + (2 if path == text else 1))
        drawn.update((n // 500).tolist())
    assert all(60 < drawn[i] < 140 for i in range(6))  # 100 ± 12 of each sixth


def test_large_text_is_sampled_too(tmp_path, monkeypatch):
    text, _ = both(table(500), tmp_path)
    with text.open("a") as file:
        file.write("1,2\n")
    monkeypatch.setattr(csv_files, "MOST_BYTES", 1000)
    monkeypatch.setattr(csv_files, "_CHUNK", 200)
    found = read(text, target="price", most=40)
    assert len(found.frame) == 40 and found.rejected["line"].tolist() == [502]
    assert "Read 40 of 500 rows that have a target, chosen at random." in found.found
    with pytest.raises(ValueError, match="is too large here"):
        csv_files.read(text)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"target": "prise"}, "target: got 'prise'; allowed: one of 'size', 'count', "),
        ({"target": None}, "target: got None; allowed: one of 'size'"),
        ({"target": "price"}, "most: got 20,000 rows of 4 columns; allowed: at most 25, which are 100 cells"),
    ],
)
def test_a_wrong_column_or_too_many_rows_are_named(tmp_path, monkeypatch, asked, message):
    _, parquet = both(table(30_000), tmp_path)
    monkeypatch.setattr(large_tables, "MOST_CELLS", 100)
    with pytest.raises(ValueError, match=f"^{message}"):
        read(parquet, **asked)


def test_damaged_files_end_in_one_line(tmp_path):
    _, parquet = both(table(2000), tmp_path)
    content = parquet.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[:-8], content[:100], b"PAR1", b"PAR1" + bytes(99) + b"PAR1"]
    for _ in range(30):
        at = int(rng.integers(4, len(content)))
        damaged.append(content[:at] + rng.integers(0, 256, 20, np.uint8).tobytes() + content[at + 20 :])
    refused = 0
    for one in damaged:
        parquet.write_bytes(one)
        try:
            read(parquet, target="price", most=100)
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
            refused += 1
    assert refused >= 4
    pd.DataFrame({"a": []}).to_parquet(parquet)
    with pytest.raises(ValueError, match="has 0 rows"):
        read(parquet, target="a")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch, capsys):
    _, parquet = both(table(30), tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["fit", str(parquet), "--target", "price"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: path: got {parquet}, which is Parquet; allowed: with pyarrow, which the extra 'parquet'"
    )


# --- text by chunks -----------------------------------------------------------------------------------------


def test_chunks_of_a_text_are_the_text(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    rows = [f"{i};{i},5;x" for i in range(300)]
    rows[7] += ";;"
    path.write_text("# by hand\na;b;c\n" + "\n".join([*rows, "1;2", "", "3;4,5;y"]))
    whole = csv_files.read(path)
    monkeypatch.setattr(csv_files, "_CHUNK", 60)
    parts = list(csv_files.chunks(path))
    assert len(parts) == 16 and all(part.decimal == "," for part in parts)
    pd.testing.assert_frame_equal(pd.concat([part.frame for part in parts]), whole.frame)
    rejected = pd.concat([part.rejected for part in parts], ignore_index=True)
    pd.testing.assert_frame_equal(rejected, whole.rejected, check_dtype=False)
    assert parts[-1].found == whole.found


def test_a_later_chunk_with_another_decimal_mark_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    monkeypatch.setattr(csv_files, "_CHUNK", 60)
    path.write_text("a;b\n" + "1;2\n" * 50 + "1,5;2\n" * 50)
    assert [part.decimal for part in csv_files.chunks(path)] == [".", ",", ",", ","]
    path.write_text("a;b\n" + "1.5;2\n" * 50 + "1,5;2\n" * 50)
    with pytest.raises(
        ValueError, match=r"^decimal: in .* line \d+ to \d+ have ',', those before '.'; declare decimal"
    ):
        list(csv_files.chunks(path))
    assert {part.decimal for part in csv_files.chunks(path, Format(decimal="."))} == {"."}


# --- predictions by chunks ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> RnCRegressor:
    _, parquet = both(table(200), tmp_path_factory.mktemp("model"))
    return fit_model(load(parquet, Columns("price")), RnCRegressor(epochs=10, random_state=0))


def test_predictions_by_chunks_are_those_of_the_whole(model, tmp_path, monkeypatch):
    frame = table(3000, seed=1)
    frame.loc[10, "size"] = 99.0
    frame = frame.astype({"count": str})
    frame.loc[2999, "count"] = "many"
    text, parquet = both(frame, tmp_path)
    whole = predict_file(model, text)
    wanted = model.predict(
        frame.assign(count=pd.to_numeric(frame["count"], errors="coerce"))[["size", "count", "colour"]]
    )
    np.testing.assert_allclose(whole.frame["prediction"], wanted, atol=1e-6)
    monkeypatch.setattr(csv_files, "_CHUNK", 2000)
    monkeypatch.setattr(large_tables, "_ROWS", 512)
    for path, first in ((text, 2), (parquet, 1)):
        out = tmp_path / "found.csv"
        found = predict_file(model, path, out=out)
        written = pd.read_csv(out, index_col="line", keep_default_na=False)
        assert written.index.tolist() == list(range(first, 3000 + first)) and len(found.frame) == SHOWN
        np.testing.assert_allclose(written["prediction"], wanted, atol=1e-6)
        assert written["unlike"].tolist() == whole.frame["unlike"].tolist() and not rejects_of(out).exists()
        assert found.said[-4:-3] == (f"Column 'count': 1 cells are no finite number and count as missing "
                                     f"(line {2999 + first}: no number: 'many').",)  # fmt: skip
        assert found.said[-3:] == whole.said[-3:]


def test_the_command_takes_parquet_from_a_comparison_to_predictions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, parquet = both(table(400), tmp_path)
    given = [str(parquet), "--target", "price", "--epochs", "6", "--most", "150"]
    assert main(["compare", *given, "--splits", "2"]) == 0
    assert "Read 150 of 400 rows that have a target, chosen at random." in capsys.readouterr().out
    assert main(["fit", *given]) == 0 and main(["predict", "a.rnclib/model.safetensors", str(parquet)]) == 0
    assert len(pd.read_csv("predictions.csv")) == 400
    assert "Rows predicted: 400; left out: 0." in capsys.readouterr().out


# --- memory -------------------------------------------------------------------------------------------------


LARGE = """
import subprocess
import sys
from rnclib.data import large_tables
from rnclib.estimator import RnCRegressor
from rnclib.memory import peak
from rnclib.your_data import Columns, fit_model, load, predict_file

file, text = sys.argv[1:]
found = []
with peak() as one:
    data = load(file, Columns("y"), most=2000)
found.append(one.bytes)
model = fit_model(data, RnCRegressor(epochs=2, random_state=0))
for path in (file, text):
    with peak() as one:
        (n,) = [one for one in predict_file(model, path, out="predictions.csv").said if "Rows predicted" in one]
    found.append(one.bytes)
print(n, *found, sep="|")
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(100_000, 8)), columns=[*"abcdefgy"])
    for n in (1, 4):
        pq.write_table(pa.concat_tables([pa.Table.from_pandas(frame)] * n), tmp_path / f"{n}.parquet")
        with (tmp_path / f"{n}.csv").open("w") as file:
            for i in range(n):
                frame.to_csv(file, index=False, header=not i)
    most = {}
    for n in (1, 4):
        files = [str(tmp_path / f"{n}.{kind}") for kind in ("parquet", "csv")]
        done = subprocess.run(
            [sys.executable, "-c", LARGE, *files],
            capture_output=True,
            text=True,
            timeout=1800,
            check=True,
            cwd=tmp_path,
        )
        said, *taken = done.stdout.strip().split("|")
        assert f"Rows predicted: {n * 100_000:,};" in said
        most[n] = np.array(taken, float) / 2**20
    # all cells of the larger file, as text in memory, would take about 270 MiB
    assert (most[4] < 200).all() and (most[4] < most[1] + 40).all(), most
