"""Tables that strangers bring: each format, each refusal, line numbers, and what is left to learn from."""

from __future__ import annotations

import csv
import gzip
import io
import os
import pickle
import re
import string
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnclib.data import csv_files
from rnclib.data.cleaning import clean, leaks
from rnclib.data.csv_files import Format, read, write
from rnclib.data.numerals import numbers, ungrouped

NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
SEPARATORS = pytest.mark.parametrize("separator", NAMES, ids=NAMES.values())
ROWS = [["a", "b b", "y"], ["1", "x", "0.5"], ["2", "z z", "1.5"], ["3", "", "2.5"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture
def table(tmp_path):
    """Read a text, or bytes, as a file."""

    def made(content: str | bytes, declared: Format | None = None, encoding: str = "utf-8"):
        path = tmp_path / "my.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return read(path, declared)

    return made


@pytest.fixture
def refused(table):
    """The one error that a file gives; it names the file or the option."""

    def made(content: str | bytes, declared: Format | None = None, encoding: str = "utf-8") -> str:
        with pytest.raises(ValueError, match=r"my\.csv") as caught:
            table(content, declared, encoding)
        assert type(caught.value) is ValueError and "\n" not in str(caught.value)
        return str(caught.value)

    return made


def cells(found) -> list[list[str]]:
    return [list(found.frame.columns), *found.frame.to_numpy().tolist()]


def written(rows, separator: str = ",", **options) -> str:
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if separator == " " else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=separator, quoting=quoting, **options).writerows(rows)
    return text.getvalue()


def rejected(found) -> dict[int, str]:
    return dict(zip(found.rejected["line"], found.rejected["reason"], strict=True))


# --- formats --------------------------------------------------------------------------------------------


@SEPARATORS
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
def test_each_separator_is_detected(separator, end, table):
    found = table(written(ROWS, separator, lineterminator=end))
    assert cells(found) == ROWS and found.frame.index.tolist() == [2, 3, 4] and found.decimal == "."
    assert f"The separator is {separator!r} (detected)." in found.found and found.rejected.empty
    declared = table(written(ROWS, separator, lineterminator=end), Format(separator=separator))
    assert cells(declared) == ROWS and f"The separator is {separator!r} (declared)." in declared.found


@pytest.mark.parametrize("last", ["", "\n", "\n\n\n"])
def test_the_last_line_may_have_no_end_and_blank_ones_may_follow(last, table):
    found = table("a,y\n1,2\n3,4" + last)
    assert cells(found) == [["a", "y"], ["1", "2"], ["3", "4"]] and found.rejected.empty


def test_runs_of_spaces_and_tabs_separate_where_nothing_else_does(table):
    found = table('name \t y\n"a b"   1.5 \n  c\t\t2.5\n')
    assert cells(found) == [["name", "y"], ["a b", "1.5"], ["c", "2.5"]]
    assert cells(table("a b, c\n1 2, 3\n")) == [["a b", "c"], ["1 2", "3"]]


def test_quotes_hold_separators_line_ends_and_quotes(table):
    found = table('name,"y, m"\n"a, ""b""\nc", 1\n" d ",2\n')
    assert cells(found) == [["name", "y, m"], ['a, "b"\nc', "1"], ["d", "2"]]
    assert found.frame.index.tolist() == [2, 4]


def test_white_space_around_names_and_cells_is_no_part_of_them(table):
    assert cells(table(' a , "b" , y\n 1 ,\tx , 2 \n'.replace('"b" ', '"b"'))) == [["a", "b", "y"], ["1", "x", "2"]]


def test_one_column_has_no_separator(table):
    found = table("row\n4\n5\n7\n")
    assert cells(found) == [["row"], ["4"], ["5"], ["7"]] and "There is one column, and no separator." in found.found
    assert cells(table('names\n"Doe, J."\n"Roe, K."\n')) == [["names"], ["Doe, J."], ["Roe, K."]]
    assert cells(table("measured value\n1.5\n2.5\n")) == [["measured value"], ["1.5"], ["2.5"]]


@SEPARATORS
def test_a_separator_at_the_end_of_lines_is_ignored_and_said(separator, table):
    if separator == " ":
        return  # that is merely a space
    for header in ("a,y", "a,y,", "a,y,,"):
        found = table(f"{header}\n1,2,\n3,4,\n5,6\n".replace(",", separator))
        assert cells(found) == [["a", "y"], ["1", "2"], ["3", "4"], ["5", "6"]]
        assert "Rows that end in needless separators, which are ignored: 2." in found.found


def test_rows_without_any_value_are_counted(table):
    found = table("a,b,y\n1,2,3\n,,\n,,,,\n\n4,5,6\n")
    assert found.frame.index.tolist() == [2, 6] and found.rejected.empty
    assert "Rows that have no value, and are left out: 2." in found.found


# --- encodings ------------------------------------------------------------------------------------------

ACCENTS = "größe;Ä\n1;é\n2;ß\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_with_and_without_a_mark(encoding, table):
    found = table(ACCENTS, encoding=encoding)
    assert cells(found) == [["größe", "Ä"], ["1", "é"], ["2", "ß"]]
    by = "" if encoding == "utf-8" else " by its mark"
    assert found.found[0] == f"Encoding {encoding} (detected{by})."


@pytest.mark.parametrize("mark, encoding", [(b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")])
def test_either_order_of_utf_16(mark, encoding, table, refused):
    assert "allowed: 'utf-16-le' or '-be'" in refused(ACCENTS.encode(encoding), Format(encoding="utf-16"))
    for declared in (None, "utf-16", encoding):
        assert cells(table(mark + ACCENTS.encode(encoding), Format(encoding=declared)))[0] == ["größe", "Ä"]


def test_latin_1_is_the_last_resort_and_is_said(table, refused):
    found = table(ACCENTS, encoding="latin-1")
    assert cells(found)[1:] == [["1", "é"], ["2", "ß"]]
    assert found.found[0] == "Encoding cp1252, which contains Latin-1 (detected: not valid UTF-8)."
    assert "declare encoding" in refused("größe;y\n1;\x81\n", encoding="latin-1")
    declared = Format(encoding="latin-1")
    assert table("größe;y\n1;\x81\n", declared, "latin-1").frame["y"].tolist() == ["\x81"]


def test_a_latin_1_letter_far_down_is_seen(table):
    long = "x" * 4000
    found = table("a,y\n" + f"{long},1\n" * 400 + "é,2\n", encoding="latin-1")  # beyond the first block
    assert found.frame.iloc[-1].tolist() == ["é", "2"] and found.frame.index[-1] == 402


def test_a_damaged_row_of_utf_8_is_rejected_and_the_others_stay(table):
    content = "a,y\nß,1\né,2\nx,3\nö,4\n".encode().replace("é".encode(), b"\xc3")
    found = table(content)
    assert found.frame.index.tolist() == [2, 4, 5] and rejected(found) == {3: "cannot be decoded"}
    assert found.found[0] == "Encoding utf-8 (detected); characters that cannot be decoded: 1."
    assert "Rows that cannot be read: 1." in found.found
    assert "cannot be decoded" not in str(table("a,y\n\ufffd,1\nß,2\n").rejected)  # a replacement that was there before


def test_a_declared_encoding_is_used(table, refused):
    found = table("名,y\n語,1\n", Format(encoding="shift_jis"), "shift_jis")
    assert cells(found) == [["名", "y"], ["語", "1"]] and found.found[0] == "Encoding shift_jis (declared)."
    assert rejected(table(b"a,y\n\xe9,1\nx,2\nx,3\n", Format(encoding="utf-8"))) == {2: "cannot be decoded"}
    told = refused(b"\xef\xbb\xbfa,y\n1,2\n", Format(encoding="latin-1"))
    assert told.startswith("encoding: got 'latin-1'") and "allowed: 'utf-8-sig'" in told
    assert cells(table(b"\xef\xbb\xbfa,y\n1,2\n", Format(encoding="UTF8")))[0] == ["a", "y"]


def test_utf_16_without_a_mark_must_be_declared(table, refused):
    assert "declare encoding" in refused(ACCENTS, encoding="utf-16-le")
    assert cells(table(ACCENTS, Format(encoding="utf-16-le"), "utf-16-le"))[0] == ["größe", "Ä"]


# --- the decimal mark -----------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ";\t| ")
def test_a_decimal_comma_is_detected(separator, table):
    found = table(f"a{separator}y\n1,5{separator}2\n,25{separator}-3,125e2\n")
    assert found.decimal == "," and "Decimal comma (detected)." in found.found
    assert numbers(found.frame["a"], ",")[0].tolist() == [1.5, 0.25]
    assert numbers(found.frame["y"], ",")[0].tolist() == [2, -312.5]


def test_the_decimal_mark_is_looked_for_in_the_whole_file(table):
    found = table("a;y\n" + "1;2\n" * 3000 + "1,5;2\n")
    assert found.decimal == ","
    assert "Decimal point (no number has a decimal mark)." in table("a;y\n1;2\n").found


def test_with_commas_as_separators_a_comma_is_no_decimal_mark(table):
    found = table('a,y\n"1,5",2\n"2,5",3\n')
    assert found.decimal == "." and numbers(found.frame["a"])[1].tolist() == ["no number: '1,5'", "no number: '2,5'"]


def test_points_and_commas_in_one_file_are_to_be_declared(table, refused):
    content = "a;y\n1,5;2.5\n2,5;3.5\n"
    told = refused(content)
    assert told.startswith("decimal: ") and told.endswith("declare decimal")
    assert "column 'a' has '1,5' and column 'y' has '2.5'" in told
    for decimal in ".,":
        found = table(content, Format(decimal=decimal))
        assert found.decimal == decimal
        assert f"Decimal {'comma' if decimal == ',' else 'point'} (declared)." in found.found


def test_thousands_are_not_guessed(table, refused):
    told = refused("a;y\n1,234;1\n12,345;2\n")
    assert "'1,234', a decimal number or thousands" in told and told.endswith("declare decimal, or thousands")
    assert table("a;y\n0,234;1\n12,345;2\n").decimal == ","  # no thousands begin with 0
    told = refused("a;y\n64;2.111\n27;323\n")
    assert "'2.111', a decimal number or thousands" in told and told.endswith("declare decimal, or thousands")
    assert table("a;y\n64;2.111\n27;1.323\n").decimal == "." == table("a,y\n64,2.111\n27,323\n").decimal
    found = table("a;y\n1,234;1.5\n2;2.5\n", Format(decimal="."))
    assert numbers(found.frame["a"])[1].to_dict() == {2: "no number: '1,234'"}
    assert table("a;y\n1.234;1\n2.345;2\n").decimal == "."


@pytest.mark.parametrize(
    "sign, mark, cell",
    [(",", ".", "1,234.5"), (".", ",", "-1.234,5"), (" ", ",", "1\u00a0234,5"), ("'", ".", "1\u2019234.5")],
)
def test_declared_thousands_are_taken_out_of_numbers_alone(table, sign, mark, cell):
    found = table(f"a;t;y\n{cell};1{sign}2;1{mark}5\n{cell};12{sign}345 kg;1234\n", Format(thousands=sign))
    assert found.decimal == mark and numbers(found.frame["a"], mark)[0].abs().tolist() == [1234.5, 1234.5]
    assert found.frame["t"].tolist() == [f"1{sign}2", f"12{sign}345 kg"] and found.frame["y"].iloc[1] == "1234"
    assert any(f"Thousands are set apart by {sign!r} (declared)" in one for one in found.found)
    for cell in ("1,23", "1,2345", ",123", "1234,567", "1,,234", "12,34,567"):
        assert ungrouped(cell, ",") == cell
    with pytest.raises(ValueError, match=r"thousands: got '\.'; allowed: another sign than the decimal mark"):
        Format(decimal=".", thousands=".")


def test_a_target_of_which_some_cells_are_no_numbers_is_doubted_and_one_of_which_most_are_is_refused(table):
    rows = [f"{i},{i}.5" for i in range(20)]
    cleaned = clean(table("a,y\n" + "\n".join([*rows, "20,>6000", "21,"])), target="y")
    (told,) = [one for one in cleaned.doubts if "target" in one]
    assert "1 of 21 cells that are no number, such as '>6000' in line 22" in told and len(cleaned.frame) == 20
    assert clean(table("a,y\n" + "\n".join([*rows, "21,"])), target="y").doubts == ()
    grouped = [f'{i},"{i},390"' for i in range(1, 22)]
    told = r"21 of 41 cells that are no number, such as '1,390' .*declare thousands \(','\)"
    with pytest.raises(ValueError, match=told):
        clean(table("a,y\n" + "\n".join([*rows, *grouped])), target="y")
    assert len(clean(table("a,y\n" + "\n".join([*rows, *grouped]), Format(thousands=",")), target="y").frame) == 41


def test_numbers_far_from_all_others_are_doubted(table):
    rng = np.random.default_rng(0)
    plain = [f"{a:.3f},{y:.3f}" for a, y in rng.lognormal(size=(60, 2))]
    assert clean(table("a,y\n" + "\n".join(plain)), target="y").doubts == ()
    told = clean(table("a,y\n" + "\n".join([*plain, "-999,1.5", "-999,2.5", "1.5,1e9"])), target="y").doubts
    assert len(told) == 2 and told[0].startswith("Column 'a' is -999 in 2 rows, far from all its other numbers. ")
    assert told[1].startswith("Column 'y' is 1e+09 in 1 row, far from")


def test_a_column_may_be_called_line(table):
    cleaned = clean(table("line,y\n1,2\n1,2\n3,4\n"), target="y")
    assert cleaned.frame["line"].tolist() == [1, 3] and cleaned.frame.index.name == "line of the file"
    assert cleaned.rejects.to_numpy().tolist() == [[3, "repeats an earlier row: line 2"]]


def test_text_with_commas_does_not_make_a_decimal_comma(table):
    assert table("name;y\nN,N-dimethyl;1.5\n1,2-diol;2.5\n").decimal == "."


# --- ambiguous files ------------------------------------------------------------------------------------


def test_one_column_with_decimal_commas_could_be_two(table, refused):
    told = refused("x\n1,5\n2,5\n")
    assert "',' makes 1 fields of line 1, and of 0% after" in told and "declare separator, decimal or comment" in told
    found = table("x\n1,5\n2,5\n", Format(decimal=","))
    assert cells(found) == [["x"], ["1,5"], ["2,5"]] and found.decimal == ","
    assert cells(table("x\n1,5\n2,5\n", Format(separator=";"))) == [["x"], ["1,5"], ["2,5"]]


def test_two_separators_that_both_fit_are_to_be_declared(table, refused):
    content = "a,b;c,d\n1,5;2,5\n3,5;4,5\n"
    told = refused(content)
    assert told.startswith("separator: ") and "can be read with ',' and with ';'" in told
    assert cells(table(content, Format(separator=";"))) == [["a,b", "c,d"], ["1,5", "2,5"], ["3,5", "4,5"]]
    assert cells(table(content, Format(separator=",")))[0] == ["a", "b;c", "d"]


def test_other_signs_in_text_do_not_trouble_a_clear_file(table):
    rows = [["smiles", "note", "y"], ["C;C", "a|b\tc", "1.5"], ["C", "1;2;3", "2.5"], ["N", "x y z", "0.5"]]
    assert cells(table(written(rows))) == rows


@pytest.mark.parametrize("content", ["a,b\n1\n2\n3,4\n", "title of it\na,b\n1,2\n3,4\n", 'a,"b"c\n1,2\n'])
def test_what_no_separator_fits_is_refused(content, refused):
    assert refused(content).startswith("separator: none fits")


# --- comments and header --------------------------------------------------------------------------------

FREESOLV = """#Hydration free energies
#Semicolon-delimited text; with fields
# compound id (and file prefix); SMILES; value (kcal/mol); notes.
mobley_1; CCC#N; -2.49; default.
mobley_2; c1ccccc1; -0.90; 10.1021/x
"""


def test_the_header_can_be_the_last_of_the_comments(table):
    found = table(FREESOLV)
    assert list(found.frame) == ["compound id (and file prefix)", "SMILES", "value (kcal/mol)", "notes."]
    assert found.frame.index.tolist() == [4, 5] and found.frame["SMILES"].tolist() == ["CCC#N", "c1ccccc1"]
    assert "Comment lines before the rows: 3; the header is in the last of them." in found.found
    assert cells(table("#a,y\n1,2\n")) == [["a", "y"], ["1", "2"]]
    assert cells(table("#,name,y\n1,x,2\n2,z,3\n"))[0] == ["#", "name", "y"]  # its name is this sign
    assert cells(table("# id;smiles;y\nm1;C;NA\nm2;CC;1.5\n"))[0] == ["id", "smiles", "y"]
    assert cells(table("# id;smiles\nm1;C\nm2;CC\n"))[0] == ["id", "smiles"]


@pytest.mark.parametrize("sign", ["#", "%", "//"])
def test_comments_before_the_header(sign, table):
    found = table(f"{sign} made, by X\n\n  {sign} more\na,y\n1,2\n")
    assert cells(found) == [["a", "y"], ["1", "2"]] and found.frame.index.tolist() == [5]
    assert "Comment lines before the header: 2." in found.found


def test_a_comment_of_as_many_fields_is_no_header_above_names(table):
    assert cells(table("# by X, 2020\na,y\n1,2\n3,4\n"))[0] == ["a", "y"]


def test_comments_among_rows_are_to_be_declared(table):
    content = 'a,y\n1,2\n! it\'s "odd\n3,4\n"q\n!5",6\n!\n7,8\n'
    found = table(content, Format(comment="!"))
    assert found.frame.index.tolist() == [2, 4, 5, 8] and found.frame.loc[5, "a"] == "q\n!5" and found.rejected.empty
    assert "Lines that begin with '!' are comments (declared)." in found.found
    colours = table("# of colours\ncolour,y\n#fff,1\n#000,2\n")  # found at the beginning, they end there
    assert colours.frame["colour"].tolist() == ["#fff", "#000"]


@pytest.mark.parametrize(
    "row, n",
    [
        ("800,0,0.3", "3 of the 3"),
        ("M,0.455,0.365,15", "3 of the 4"),
        ("CCO,-0.77", "1 of the 2"),
        ("M,1.5,2.7,9", "3 of the 4"),
    ],
)
def test_a_missing_header_is_an_error(row, n, refused):
    told = refused(f"{row}\n{row}\n{row}\n")
    assert "line 1: no header" in told and f"{n} fields of the first row are numbers" in told
    assert f"put {n[-1]} names before it, or declare that none is there" in told
    assert "line 2: no header" in refused(f"# a comment\n{row}\n{row}\n")


@pytest.mark.parametrize(
    "names", ["site,1990,1991,1992", "site,400.1,400.6,401.2,402,405.5", "site,900,800,700", ",0,1,2"]
)
def test_numbers_in_order_are_names(names, table):
    columns = names.split(",")
    found = table(f"{names}\n" + f"{','.join('5' * len(columns))}\n")
    assert list(found.frame) == [name for name in columns if name]


@pytest.mark.parametrize(
    "header, told", [("a,b,a", "'a' is given 2 times"), ("a,,y", "column 2 has no name"),
                     ("a,y,", "column 3 has no name"), (",a,y", "column 1 has no name")],
)  # fmt: skip
def test_names_that_are_missing_or_given_twice(header, told, refused):
    assert f"my.csv, line 1: {told}" in refused(f"{header}\nx,2,3\nx,5,6\n")


def test_an_index_that_pandas_wrote_is_left_out(table, refused):
    frame = pd.DataFrame({"a": ["u", "v", "w"], "y": ["1", "2", "3"]}, index=[5, 0, 3])
    found = table(frame.to_csv())
    assert cells(found) == [["a", "y"], *frame.to_numpy().tolist()]
    assert "The first column has no name and numbers the rows: left out." in found.found
    assert "column 1 has no name" in refused(",a,y\n0,u,1\n1,v,2\n0,w,3\n")


def test_row_names_of_r_have_no_place_in_its_header(table, refused):
    found = table('"a" "y"\n"1" 0.5 3\n"2" 1.5 4\n')
    assert cells(found) == [["a", "y"], ["0.5", "3"], ["1.5", "4"]]
    assert refused('"a" "y"\n"Mazda" 0.5 3\n"Fiat" 1.5 4\n').startswith("separator: none fits")
    assert refused("a,y\n1,0.5,3\n2,1.5,4\n").startswith("separator: none fits")  # 1,0 may be a number


# --- rows that cannot be read ---------------------------------------------------------------------------


def test_lines_are_counted_as_a_person_counts_them(table):
    found = table(
        'a,y\r\n"1\r\n\r\n2",3\r\n4,5,6\r\n\r\n"7"x,8\r\n9\r\n"10\n11",12,13\r\n14,15\r\n16,17\r\n18,19\n20,21\n22,23\n'
    )
    assert found.frame.index.tolist() == [2, 11, 12, 13, 14, 15]
    assert rejected(found) == {
        5: "3 fields where the header has 2",
        7: "text follows a closing quote",
        8: "1 fields where the header has 2",
        9: "3 fields where the header has 2, to line 10",
    }
    assert "Rows that cannot be read: 4." in found.found


def test_a_quote_that_is_never_closed_costs_the_lines_that_it_swallows(table, refused):
    found = table("a,y\n" + "1,2\n" * 9 + '"3,4\n5,6\n')
    assert len(found.frame) == 9
    assert rejected(found) == {11: "a quote is not closed, or a field is too long, to line 12"}
    told = refused("a,y\n" + "1,2\n" * 9 + '"3,4\n' + "5,6\n" * 9)
    assert "9 rows that fit the header and 10 lines that do not, such as line 11: a quote is not closed" in told
    found = table("a,y\n" + "1,2\n" * 99 + '"3,4\n' + f"{'5' * 999},6\n" * 500)  # after 131 072 signs, reading goes on
    assert len(found.rejected) == 1 and len(found.frame) > 450
    assert rejected(found)[101].startswith("a quote is not closed, or a field is too long, to line ")


def test_the_beginning_of_a_file_may_end_within_quotes(table):
    long = "word word\n" * 10_000  # of two such records, the second is cut off
    found = table("text,more,y\n" + f'"{long}","{long}",1.5\n' * 3)
    assert found.frame.index.tolist() == [2, 20_003, 40_004] and found.rejected.empty


def test_rows_may_be_longer_than_the_beginning_that_is_looked_at(table):
    columns = [f"feature {i}" for i in range(12_000)]
    found = table(written([columns, *[[f"1.{'2' * 30}"] * 12_000] * 3], ";"))
    assert found.frame.shape == (3, 12_000) and list(found.frame) == columns


def test_more_rejects_than_rows_are_an_error(refused):
    long = "1" * 999  # so that the beginning of the file, which looks well, is short
    told = refused("a,y\n" + f"{long},2\n" * 400 + "1,2,3\n" * 500)
    assert "400 rows that fit the header and 500 lines that do not, such as line 402: 3 fields" in told


@pytest.mark.parametrize("seed", range(5))
def test_each_row_lies_where_its_line_says(seed, table):
    rng = np.random.default_rng(seed)
    lines, where, bad, n = ["id,y"], {}, [], 1
    for i in range(200):
        inner = int(rng.integers(0, 3))
        spoilt = rng.random() < 0.2
        lines.append(f'"{i}' + "\n" * inner + f'.",{i}' + ",9" * spoilt)
        where[i] = n + 1
        bad += [n + 1] if spoilt else []
        n += 1 + inner
    found = table("\n".join(lines))
    assert found.frame.index.tolist() == [line for line in where.values() if line not in bad]
    assert all(where[int(y)] == line for line, y in found.frame["y"].items())
    assert found.rejected["line"].tolist() == bad


# --- what is no table -----------------------------------------------------------------------------------


def archive() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("my.csv", "a,y\n1,2\n")
    return packed.getvalue()


NO_TABLES = {
    "empty": (b"", "is empty"),
    "mark alone": (b"\xef\xbb\xbf", "has no rows"),
    "blank": (b"\n \n\n", "has no rows"),
    "comments": (b"# a\n# b\n", "has no rows"),
    "header alone": (b"a,y\n", "has no rows"),
    "commas": (b",,,\n,,,\n", "separator: none fits"),
    "zip": (archive(), "a spreadsheet or an archive"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), "is no text"),
    "pickle": (pickle.dumps(pd.DataFrame({"a": [1.0, 2.0]})), "is no text"),
    "parquet": (b"PAR1\x15\x04\x15\x10" + bytes(50) + b"PAR1", "is no text"),
    "nul": (b"a,y\n1,2\n3,\0\n", "line 3: is no text"),
    "controls": (bytes(range(1, 32)) * 9, "is no text"),
    "gzip cut off": (gzip.compress(b"a,y\n1,2\n" * 999)[:-9], "the gzip archive is damaged"),
    "gzip of nothing": (b"\x1f\x8bgarbage", "the gzip archive is damaged"),
    "one long line": (b"a," * 3_000_000, "too large"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_TABLES)
def test_what_is_no_table_gives_one_clear_error(name, refused):
    content, told = NO_TABLES[name]
    begun = time.monotonic()
    assert told in refused(content)
    assert time.monotonic() - begun < 5


def test_files_that_are_not_there_or_not_to_be_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no\.csv: cannot be read: No such file"):
        read(tmp_path / "no.csv")
    with pytest.raises(FileNotFoundError, match="cannot be read: Not a directory"):
        (tmp_path / "file").write_text("a,y\n1,2\n")
        read(tmp_path / "file" / "no.csv")
    with pytest.raises(FileNotFoundError, match="cannot be read: File name too long"):
        read(tmp_path / ("n" * 999))
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="is no ordinary file"):
            read(odd)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(PermissionError, match="file: cannot be read: Permission denied"):
        read(tmp_path / "file")


@pytest.mark.parametrize("address", ["http://x.org/a.csv", "https://x.org/a.csv", "s3://b/a.csv", "file:///tmp/a.csv"])
def test_no_address_is_opened(address):
    for path in (address, Path(address)):
        with pytest.raises(ValueError, match=r"^path: got .* allowed: a file on this machine, no address$"):
            read(path)


def test_gzip_is_unpacked_up_to_a_bound(table, refused, monkeypatch):
    assert cells(table(gzip.compress(b"a,y\n1,2\n"))) == [["a", "y"], ["1", "2"]]
    assert cells(table(gzip.compress(ACCENTS.encode("utf-16"))))[0] == ["größe", "Ä"]
    assert "is no text" in refused(gzip.compress(gzip.compress(b"a,y\n1,2\n" * 99)))
    assert "is no text" in refused(gzip.compress(bytes(10**7)))
    assert "too large" in refused(gzip.compress(b"a" * 10**7))
    bomb = gzip.compress(b"a,y\n" + b"1,2\n" * 10**6)
    monkeypatch.setattr(csv_files, "MOST_BYTES", 2**20)
    assert len(bomb) < 20_000 and "is too large" in refused(bomb)


def test_too_many_lines_and_cells_are_refused(refused, table, monkeypatch):
    monkeypatch.setattr(csv_files, "_CHUNK", 100)
    monkeypatch.setattr(csv_files, "MOST_CELLS", 3000)
    assert "line 1551: is too large here" in refused("a,y\n" + "1,2\n" * 2000)
    assert len(table("a,y\n" + "1,2\n" * 1500).frame) == 1500
    monkeypatch.setattr(csv_files, "MOST_LINES", 1000)
    assert "is too large here" in refused("a,y\n" + "\n" * 1000 + "1,2\n")
    assert len(table("a,y\n" + "\n" * 900 + "1,2\n").frame) == 1


# --- what is declared -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option, values",
    [
        ("separator", ["", ",,", "a", ":", 5, "\n", []]),
        ("decimal", ["", "x", ";", 1]),
        (
            "encoding",
            ["", "no-such", "hex", "rot13", "idna", "unicode_escape", "utf-7", "cp037", "undefined", 5, "a\0"],
        ),
        ("comment", ["", "a", " ", '"', "####", "1", "\n", 5]),
        ("header", [None, 0, "no"]),
    ],
)
def test_what_cannot_be_declared(option, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{option}: got {re.escape(repr(value))}; allowed: ."):
            Format(**{option: value})


@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_a_table_without_a_header_has_numbers_for_names(table, refused, separator):
    rows = "# by hand\n" + "".join(separator.join(row) + "\n" for row in (["M", "1", "0.5"], ["F", "2", ""]))
    found = table(rows, Format(header=False))
    assert list(found.frame) == ["1", "2", "3"] and found.frame.to_numpy().tolist() == [
        ["M", "1", "0.5"],
        ["F", "2", ""],
    ]
    assert found.frame.index.tolist() == [2, 3] and "No line (declared) names the columns: 3. Rows: 2." in found.found
    assert "or declare that none is there" in refused(rows)


def test_signs_that_contradict_each_other():
    with pytest.raises(ValueError, match=r"^decimal: got ','; allowed: another sign than the separator$"):
        Format(separator=",", decimal=",")
    with pytest.raises(ValueError, match=r"^comment: got ';;'; allowed: another sign"):
        Format(separator=";", comment=";;")
    names = "utf-8 UTF8 latin1 cp1252 utf-16 utf_16_le shift_jis gbk koi8-r utf-8-sig"
    assert [Format(encoding=name).encoding for name in names.split()] == names.split()


# --- written in each format, and read -------------------------------------------------------------------

LETTERS = string.ascii_letters + string.digits + "äß€語 .+-="
ODD = LETTERS + ",;\t|\"'#%/\n\r\\"
floats = st.floats(allow_nan=False, allow_infinity=False).map(repr)


@st.composite
def frames(draw, alphabet: str, least: int = 1):
    """Names and rows of text; each name begins with a letter of its own."""
    n_columns = draw(st.integers(least, 5))
    names = [f"{'abcde'[i]}{draw(st.text(alphabet, max_size=5)).strip()}" for i in range(n_columns)]
    kinds = [draw(st.sampled_from([floats, st.text(alphabet, max_size=8)])) for _ in names]
    return [names, *draw(st.lists(st.tuples(*kinds).map(list), min_size=1, max_size=12))]


def expected(rows, separator) -> list[list[str]]:
    spaced = [[cell.replace("\t", " ") if separator == " " else cell for cell in row] for row in rows]
    return [[cell.strip() for cell in row] for row in spaced if any(row)]


@settings(max_examples=60)
@given(frames(ODD), st.sampled_from([*NAMES]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.booleans())
def test_what_is_written_in_a_declared_format_is_read_again(folder, rows, separator, encoding, quoted):
    path = folder / "declared.csv"
    quoting = csv.QUOTE_ALL if quoted or separator == " " else csv.QUOTE_MINIMAL
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator, quoting=quoting).writerows(rows)
    if not any(any(row) for row in rows[1:]):
        with pytest.raises(ValueError, match=r"declared\.csv"):
            read(path, Format(separator, ".", encoding))
        return
    found = read(path, Format(separator, ".", encoding))
    assert cells(found) == expected(rows, separator) and found.rejected.empty


@given(frames(ODD, least=2), st.sampled_from(",;\t|"))
def test_a_detected_separator_is_right_or_to_be_declared(folder, rows, separator):
    path = folder / "detected.csv"
    path.write_text(written(rows, separator), encoding="utf-8", newline="")
    try:
        found = read(path)
    except ValueError as error:
        assert "declare" in str(error) or not any(any(row) for row in rows[1:])
        return
    assert cells(found) == expected(rows, separator) and found.rejected.empty


@settings(max_examples=60)
@given(frames(LETTERS, least=2), st.sampled_from(",;\t|"))
def test_an_ordinary_file_needs_no_declaration(folder, rows, separator):
    path = folder / "ordinary.csv"
    rows = [row for row in rows if all(row)] + [["1.5"] * len(rows[0])]
    path.write_text(written(rows, separator), encoding="utf-8", newline="")
    found = read(path)
    assert cells(found) == expected(rows, separator) and found.rejected.empty
    assert f"The separator is {separator!r} (detected)." in found.found


@settings(max_examples=60)
@given(st.lists(st.tuples(floats, floats), min_size=1), st.sampled_from(";\t| "), st.sampled_from(".,"))
def test_floats_keep_every_digit(folder, rows, separator, decimal):
    path = folder / "floats.csv"
    path.write_text(written([["a", "y"], *rows], separator).replace(".", decimal), encoding="utf-8", newline="")
    found = read(path, Format(decimal=decimal))
    for name, column in zip("ay", zip(*rows, strict=True), strict=True):
        values, reasons = numbers(found.frame[name], found.decimal)
        assert values.tolist() == [float(value) for value in column] and reasons.empty


# --- random files ---------------------------------------------------------------------------------------


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    for _ in range(rng.integers(1, 6)):
        at, to = sorted(rng.integers(0, len(content) + 1, 2))
        kind = rng.integers(0, 5)
        signs = rng.choice([b'"', b",", b";", b"\n", b"\r", b"\t", b"#", b"\xe9", b"\0", b" ", b"'", b"|", b"\xc3\xa9"])
        if kind == 0:
            content = content[:at] + signs + content[at:]
        elif kind == 1:
            content = content[:at] + content[at + 1 :]
        elif kind == 2:
            content = content[:at] + content[to:] or b"x"
        elif kind == 3:
            content = content[:to] + content[at:]
        else:
            content = content[:at] + rng.bytes(int(rng.integers(1, 4))) + content[at:]
    return content


def seeds() -> list[bytes]:
    rng = np.random.default_rng(0)
    rows = [["name", "a", "b", "y"], *([f"n{i % 7}", *rng.normal(size=3).round(3).astype(str)] for i in range(25))]
    texts = [written(rows, separator).encode() for separator in NAMES]
    texts += [written(rows, ";").replace(".", ",").encode(), FREESOLV.encode(), ACCENTS.encode("latin-1")]
    texts += [written(rows).encode("utf-16"), gzip.compress(written(rows).encode()), b"x\n1,5\n2,5\n"]
    return [*texts, pd.DataFrame(rows[1:], columns=rows[0]).to_csv().encode(), b'a,y\n"1\n2",3\n"4""",5\n']


def check_any(path: Path, content: bytes, declared: Format | None = None, *, whole: bool = True) -> bool:
    """Reading, and cleaning if the whole is asked for, end in order or in one of the documented errors, soon."""
    path.write_bytes(content)
    begun = time.monotonic()
    try:
        found = read(path, declared)
    except ValueError as error:
        assert type(error) is ValueError and str(path) in str(error), content
        assert time.monotonic() - begun < 5, content
        return False
    lines = found.frame.index
    assert lines.is_monotonic_increasing and lines.is_unique and not set(lines) & set(found.rejected["line"])
    assert found.frame.columns.is_unique and all(found.frame.columns)
    assert all(type(cell) is str and cell == cell.strip() for row in cells(found) for cell in row)
    if not whole:
        return True
    try:
        cleaned = clean(found, target=found.frame.columns[-1])
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith("target: got"), content
    else:
        assert sorted([*cleaned.frame.index, *cleaned.rejects["line"]]) == sorted([*lines, *found.rejected["line"]])
        leaks(cleaned.frame, found.frame.columns[-1])
    assert time.monotonic() - begun < 5, content
    return True


def fuzz(path: Path, n: int, seed: int) -> int:
    rng, valid = np.random.default_rng(seed), seeds()
    declared = [None, Format(separator=" "), Format(decimal=",", comment="#"), Format(encoding="utf-16")]
    declared.append(Format(thousands=","))
    read_ = 0
    for i in range(n):
        if i % 4:
            content = mutated(rng, valid[rng.integers(len(valid))])
        else:
            letters = rng.choice([b'ab,1.5\n"', bytes(range(256)), b";,\t| \n\r\"'#1"])
            content = bytes(rng.choice([*letters], rng.integers(1, 200)).astype(np.uint8))
        read_ += check_any(path, content, declared[0 if i % 10 else rng.integers(5)], whole=i % 5 == 0)
    return read_


def test_any_file_ends_in_a_table_or_a_documented_error(tmp_path):
    assert 40 < fuzz(tmp_path / "any.csv", 250, 0) < 210


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_ten_thousand_files_each_end_in_a_table_or_a_documented_error(seed, tmp_path):
    assert 1000 < fuzz(tmp_path / "any.csv", 10_000, seed) < 9500


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_table_or_a_documented_error(folder, content):
    check_any(folder / "bytes.csv", content)


# --- numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell, value", [("1", 1), ("-1.5", -1.5), ("+.5", 0.5), ("5.", 5), ("1e3", 1000), ("1.5E-2", 0.015), ("007", 7),
                    ("\u22121.5", -1.5), ("1e-400", 0), ("9" * 400 + "e-399", 10)],
)  # fmt: skip
def test_cells_that_are_numbers(cell, value):
    values, reasons = numbers(pd.Series([cell, cell.replace(".", ",")]))
    assert values.iloc[0] == pytest.approx(value) and 0 not in reasons
    assert numbers(pd.Series([cell.replace(".", ",")]), ",")[0].tolist() == [pytest.approx(value)]


def test_cells_that_are_none():
    given = {
        "missing": ["", "NA", "NaN", "nan", "null", "n/a", "-", "?", "N/A", "None", "NULL", "#N/A"],
        "infinite": ["inf", "-inf", "Infinity", "+INF", "1e999", "-9e400"],
        "no number": ["1_000", "0x1F", "1,5", "1 000", "1.234.5", "<5", "5%", "e5", ".", "+", "--1", "\u0663", "1e",
                      "True"],
    }  # fmt: skip
    for reason, of_kind in given.items():
        values, reasons = numbers(pd.Series(of_kind, range(5, 5 + len(of_kind))))
        assert values.isna().all() and len(reasons) == len(of_kind)
        for line, cell in zip(reasons.index, of_kind, strict=True):
            assert reasons[line] == (reason if reason == "missing" else f"{reason}: {cell!r}")


@settings(max_examples=60)
@given(st.lists(st.text("0123456789+-.eE", max_size=8) | st.text("01.,_xaINFinf\u0663 \n", max_size=5)))
def test_over_the_signs_of_numbers_python_decides_and_other_signs_make_none(cells):
    values, reasons = numbers(pd.Series(cells, dtype=object))
    for i, cell in enumerate(cells):
        try:
            wanted = float(cell) if set(cell) <= set("0123456789+-.eE") else np.nan
        except ValueError:
            wanted = np.nan
        assert (
            (values[i] == wanted and i not in reasons) if np.isfinite(wanted) else (np.isnan(values[i]) and reasons[i])
        )


def test_cells_of_many_digits_take_no_more_than_their_length():
    begun = time.monotonic()
    _, reasons = numbers(
        pd.Series(["1" * 60_000 + "x", "." + "1" * 60_000 + "x", "1" * 60_000, "1e" + "1" * 60_000 + "x"])
    )
    assert [reason.partition(":")[0] for reason in reasons] == ["no number", "no number", "infinite", "no number"]
    assert max(map(len, reasons)) < 60 and time.monotonic() - begun < 5


# --- cleaning -------------------------------------------------------------------------------------------


def test_rows_without_a_target_go_and_each_has_its_reason(table):
    found = table("a,y\n1,2\n2,\n3,NA\n4,inf\n5,<1\n6,3\n7,8,9\n8,?\n9,1e999\n")
    cleaned = clean(found, target="y")
    assert cleaned.frame["y"].to_dict() == {2: 2.0, 7: 3.0} and cleaned.frame["a"].tolist() == [1, 6]
    assert dict(cleaned.rejects.to_numpy().tolist()) == {
        3: "'y' is missing", 4: "'y' is missing", 5: "'y' is infinite: 'inf'", 6: "'y' is no number: '<1'",
        8: "3 fields where the header has 2", 9: "'y' is missing", 10: "'y' is infinite: '1e999'",
    }  # fmt: skip
    assert cleaned.rejects["line"].is_monotonic_increasing
    for said in (
        "Rows used: 2 of 8.",
        "Rows left out: 3 ('y' is missing).",
        "Rows left out: 2 ('y' is infinite).",
    ):
        assert said in cleaned.said


def test_decimal_commas_count_in_cleaning(table):
    cleaned = clean(table("a;y\n1,5;2,5\n3;4\n"), target="y")
    assert cleaned.frame.to_numpy().tolist() == [[1.5, 2.5], [3, 4]]


def test_rows_without_a_key_go_and_keys_stay_text(table):
    cleaned = clean(table("smiles,a,y\nC,1,2\n,2,3\nN,3,4\n007,4,5\n?,5,6\n"), target="y", keys=["smiles"])
    assert cleaned.frame["smiles"].tolist() == ["C", "N", "007"] and cleaned.numeric == ("a",)
    assert cleaned.rejects["reason"].tolist() == ["'smiles' is missing"] * 2
    assert list(cleaned.frame) == ["smiles", "a", "y"]
    alone = clean(table("smiles,a,y\nC,1,2\nN,2,3\n"), target="y", keys=["smiles"], inputs=[])
    assert list(alone.frame) == ["smiles", "y"] and alone.numeric == alone.text == ()


def test_exact_repetitions_are_kept_once(table):
    found = table("a,b,y\n1,x,1\n1.0,x,1\n1,x,2\n?,x,3\nNA,x,3.0\n2,,4\n2,,4\n1,x,1\n")
    cleaned = clean(found, target="y")
    assert cleaned.frame.index.tolist() == [2, 4, 5, 7]
    assert dict(cleaned.rejects.to_numpy().tolist()) == {
        3: "repeats an earlier row: line 2", 6: "repeats an earlier row: line 5", 8: "repeats an earlier row: line 7",
        9: "repeats an earlier row: line 2",
    }  # fmt: skip
    assert "Rows left out: 4 (repeats an earlier row; 'repeats' keeps them)." in cleaned.said
    kept = clean(found, target="y", repeats=True)
    assert len(kept.frame) == 8 and kept.rejects.empty


def test_equal_inputs_of_unequal_targets_stay_and_are_said(table):
    cleaned = clean(table("a,b,y\n1,x,1\n1,x,2.5\n2,x,3\n1,z,4\n"), target="y")
    assert len(cleaned.frame) == 4
    (said,) = (said for said in cleaned.said if "not its target" in said)
    assert ": 2, such as lines 2, 3; these differ by up to 1.5" in said


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from(["x", "", "z"]), st.sampled_from("12")), min_size=2))
def test_repetitions_are_those_of_a_literal_loop(rows):
    frame = pd.DataFrame(rows, columns=["a", "b", "y"], dtype=object)
    frame.index = pd.Index(range(2, 2 + len(rows)), name="line")
    found = csv_files.Table(frame, (), pd.DataFrame({"line": [], "reason": []}), ".")
    if len({y for *_, y in rows}) < 2 or len({a for a, *_ in rows}) < 2 or len({b for _, b, _ in rows if b}) < 2:
        return
    seen: dict[tuple, int] = {}
    wanted = {line: row for line, row in zip(frame.index, rows, strict=True) if seen.setdefault(row, line) == line}
    cleaned = clean(found, target="y")
    assert cleaned.frame.index.tolist() == list(wanted)
    others = [row for row in rows if len({y for a, b, y in rows if (a, b) == row[:2]}) > 1]
    said = [said for said in cleaned.said if "not its target" in said]
    assert bool(said) == bool(others) and (not said or f": {len(others)}, such as" in said[0])


def column(values, name: str = "c") -> csv_files.Table:
    """A table of one input and a target that counts."""
    frame = pd.DataFrame({name: values, "y": [str(i) for i in range(len(values))]}, dtype=object)
    frame.index = pd.Index(range(2, 2 + len(values)), name="line")
    return csv_files.Table(frame, (), pd.DataFrame({"line": [], "reason": []}), ".")


def test_a_column_is_one_of_numbers_if_nearly_all_of_it_is():
    for n, n_odd, numeric in ((20, 0, True), (19, 1, True), (18, 1, False), (20, 2, False)):
        cleaned = clean(column([*map(str, range(n)), *["odd", "ODD"][:n_odd]]), target="y")
        assert cleaned.numeric == (("c",) if numeric else ()) and cleaned.text == (() if numeric else ("c",))
        told = [said for said in cleaned.said if said.startswith("Column 'c'")]
        assert len(told) == (n_odd > 0)
        if n == 19:
            assert (
                told[0] == "Column 'c': 1 cells are no finite number and count as missing (line 21: no number: 'odd')."
            )
            assert np.isnan(cleaned.frame.loc[21, "c"]) and "Missing cells, which stay: 'c' 1." in cleaned.said
        if n_odd == 2:
            assert "taken as text: 2 of 22 cells are no number (line 22: no number: 'odd'" in told[0]


def test_missing_cells_do_not_decide_what_a_column_is():
    cleaned = clean(column(["1", "2", *["?"] * 50]), target="y")
    assert cleaned.numeric == ("c",) and cleaned.frame["c"].isna().sum() == 50


def test_infinite_inputs_are_missing_and_said():
    cleaned = clean(column(["1", "2", "inf"]), target="y")
    assert cleaned.frame["c"].isna().tolist() == [False, False, True]
    assert any("line 4: infinite: 'inf'" in said for said in cleaned.said)


def test_in_text_an_empty_cell_alone_is_missing():
    cleaned = clean(column(["NA", "DE", "", "-"]), target="y")
    assert cleaned.text == ("c",) and cleaned.frame["c"].isna().tolist() == [False, False, True, False]
    assert not [said for said in cleaned.said if "taken as text" in said]


def test_columns_that_say_nothing_are_named_and_left_out(table):
    content = "a,none,same,gaps,text,y\n1,,5,7,x,1\n2,NA,5.0,?,x,2\n3,?,5,7,x,3\n"
    cleaned = clean(table(content), target="y")
    assert list(cleaned.frame) == ["a", "y"]
    told = [said for said in cleaned.said if "left out: it" in said]
    assert told == [
        "Column 'none' is left out: it is empty.", "Column 'same' is left out: it has one value.",
        "Column 'gaps' is left out: it has one value.", "Column 'text' is left out: it has one value.",
    ]  # fmt: skip


NOTHING = [
    ({"target": "z"}, "target: got 'z'; allowed: one of 'a', 'b', 'y'"),
    ({"target": "y", "inputs": ["c"]}, "inputs: got 'c'"),
    ({"target": "y", "keys": ["c"]}, "keys: got 'c'"),
    ({"target": "y", "inputs": ["y"]}, "target: got 'y'"),
    ({"target": "y", "inputs": ["a"], "keys": ["a"]}, "keys: got 'a'"),
    ({"target": "y", "inputs": ["a", "a"]}, "inputs: got 'a'"),
    ({"target": "b"}, "target: got 'b': rows left: 2, values: 1, inputs: 2"),
    ({"target": "y", "inputs": ["b"]}, "target: got 'y': rows left: 2, values: 2, inputs: 0"),
    ({"target": "y", "inputs": []}, "inputs: 0"),
]


@pytest.mark.parametrize("options, told", NOTHING)
def test_what_cannot_be_learnt(options, told, table):
    with pytest.raises(ValueError, match=re.escape(told)):
        clean(table("a,b,y\n1,5,1\n2,5,2\n"), **options)


# --- leaks ----------------------------------------------------------------------------------------------


def warnings_of(**columns) -> list[str]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"harmless": rng.normal(size=60), "group": np.tile(["u", "v", "w"], 20), **columns})
    return leaks(frame, "y")


def test_ordinary_columns_give_no_warning():
    rng = np.random.default_rng(1)
    assert (
        warnings_of(y=rng.normal(size=60), whole=rng.integers(0, 9, 60).astype(float), gap=[np.nan] * 50 + [1.0] * 10)
        == []
    )


def test_columns_that_give_the_target_away():
    y = np.random.default_rng(1).normal(size=60)
    same = "Column 'c' is the target but for scale and offset (correlation 1.000000)."
    assert warnings_of(y=y, c=y) == warnings_of(y=y, c=-3e8 * y + 5e9) == [same]
    assert warnings_of(y=y, c=np.exp(-y)) == ["Column 'c' has the order of the target (correlation 1.000000)."]
    assert warnings_of(y=y, c=y + np.random.default_rng(2).normal(size=60) * 0.05) == []
    assert warnings_of(y=y, c=np.where(np.arange(60) < 30, y, np.nan)) == [same]
    assert len(warnings_of(y=y, c=y * 1e300)) == 1


def test_columns_that_name_or_count_the_rows():
    y = np.random.default_rng(1).normal(size=60)
    counts = "Column 'c' counts the rows: as an input, it is their order in the file."
    gaps = np.delete(np.arange(70.0), [5, 6, 30, 31, 32, 50, 51, 52, 60, 61])
    assert warnings_of(y=y, c=np.arange(60.0)) == warnings_of(y=y, c=-gaps) == [counts]
    assert warnings_of(y=y, c=np.arange(60.0) * 2) == []
    names = [f"row {i}" for i in range(60)]
    (told,) = warnings_of(y=y, c=names)
    assert told.startswith("Column 'c' differs in every row")
    assert warnings_of(y=y, c=[*names[:-1], names[0]]) == []
    assert leaks(pd.DataFrame({"c": names, "y": y}), "y", keys=["c"]) == []


@pytest.mark.parametrize(
    "name, target, warned", [
        ("ESOL predicted log solubility in mols per litre", "measured log solubility in mols per litre", True),
        ("y_log", "y", True), ("log Y", "y", True), ("logS pred", "logS", True), ("log_S", "logS", True),
        ("year", "y", False), ("Fly-Ash", "Concrete-compressive-strength", False), ("AP", "PE", False),
        ("theta8", "y", False), ("HouseAge", "MedHouseVal", False),
    ],
)  # fmt: skip
def test_columns_with_nearly_the_name_of_the_target(name, target, warned):
    rng = np.random.default_rng(0)
    told = leaks(pd.DataFrame(rng.normal(size=(30, 2)), columns=[name, target]), target)
    assert told == [f"Column {name!r} has nearly the name of the target {target!r}: is it known beforehand?"] * warned


# --- writing --------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(frames(ODD, least=2))
def test_cleaned_rows_are_read_again_as_they_were(folder, rows):
    path = folder / "cleaned.csv"
    frame = pd.DataFrame(rows[1:], columns=rows[0], dtype=object).map(lambda cell: f"x{cell.strip()}")
    frame.insert(0, "number", np.random.default_rng(0).normal(size=len(frame)))
    frame.index = pd.Index(range(5, 5 + len(frame)), name="line")
    write(frame, path)
    again = read(path, Format(separator=",")).frame
    assert again["line"].tolist() == [str(line) for line in frame.index]
    assert numbers(again["number"])[0].tolist() == frame["number"].tolist()
    assert (
        again.drop(columns=["line", "number"]).to_numpy().tolist() == frame.drop(columns="number").to_numpy().tolist()
    )


def test_no_cell_of_text_is_a_formula_of_a_spreadsheet(tmp_path):
    risky = ["=1+2", "+cmd|x", "@SUM(A1)", "-x", "\t=1", "=\n1"]
    safe = ["-1.5", "+2", "-", "C=O", "a-b", "", "[=O]", "1,5"]
    frame = pd.DataFrame({"=name": risky + safe, "y": np.arange(14.0) - 7})
    write(frame, tmp_path / "my.csv")
    with (tmp_path / "my.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["'=name", "y"]
    assert [row[0] for row in rows] == [*(f"'{cell}" for cell in risky), *safe]
    assert [float(row[1]) for row in rows] == frame["y"].tolist()
    assert list(frame) == ["=name", "y"] and frame["=name"][0] == "=1+2"  # as it was


def test_rejects_are_written_without_an_index(table, tmp_path):
    cleaned = clean(table("a,y\n1,1\n2,=1\n3,3\n"), target="y")
    write(cleaned.rejects, tmp_path / "rejects.csv")
    assert (tmp_path / "rejects.csv").read_text() == '"line","reason"\n3,"\'y\' is no number: \'=1\'"\n'.replace(
        "\"'y", "\"'y"
    )
    write(cleaned.frame, tmp_path / "cleaned.csv")
    assert (tmp_path / "cleaned.csv").read_text() == '"line","a","y"\n2,1.0,1.0\n4,3.0,3.0\n'


def test_nobody_sees_a_part_of_a_file(tmp_path, monkeypatch):
    path = tmp_path / "my.csv"
    path.write_text("old")

    def broken(self, draft, **_):
        Path(draft).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    with pytest.raises(OSError, match="disk full"):
        write(pd.DataFrame({"y": [1.0]}), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# --- real files, and a large one ------------------------------------------------------------------------


REAL = {
    "esol/raw/delaney-processed.csv": {}, "lipophilicity/Lipophilicity.csv": {}, "aqsoldb/data_curated.csv": {},
    "agedb/agedb.csv": {}, "uci/concrete.csv": {}, "uci/power-plant.csv": {}, "uci/kin8nm.csv": {},
    "uci/naval-propulsion.csv": {}, "uci/california_housing.csv": {}, "b3db/B3DB_regression.tsv": {"sep": "\t"},
    "biogen/ADME_public_set_3521.csv": {}, "shapiq/bike.csv": {},
}  # fmt: skip


@pytest.mark.parametrize("file", REAL)
def test_real_files_are_read_as_pandas_reads_them(file):
    path = Path(os.environ.get("RNC_DATA", "")) / file
    if not path.is_file():
        pytest.skip(f"RNC_DATA does not hold {file}")
    found = read(path)
    wanted = pd.read_csv(path, dtype=object, keep_default_na=False, skipinitialspace=True, **REAL[file])
    assert list(found.frame) == list(wanted) and found.rejected.empty
    np.testing.assert_array_equal(found.frame.to_numpy(), wanted.map(str.strip).to_numpy())


LARGE = """
import resource, sys
from rnclib.data import cleaning, csv_files
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = most()
found = csv_files.read(sys.argv[1])
after = most()
cleaned = cleaning.clean(found, target="y")
assert cleaned.frame.shape == (1_000_000, 6), cleaned.said
print((after - before) / found.frame.size, (most() - before) / found.frame.size)
"""


@pytest.mark.slow
def test_a_million_rows_take_memory_in_proportion(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "large.csv"
    with path.open("w") as file:
        file.write("a,b,c,d,group,y\n")
        for _ in range(10):
            part = pd.DataFrame(rng.normal(size=(100_000, 5)).round(7), columns=[*"abcdy"])
            part.insert(4, "group", rng.choice(["red", "green", "blue"], len(part)))
            part.to_csv(file, header=False, index=False)
    done = subprocess.run([sys.executable, "-c", LARGE, path], capture_output=True, text=True, timeout=600, check=True)
    reading, cleaning = map(float, done.stdout.split())
    assert reading < 120 and cleaning < 250  # bytes a cell
