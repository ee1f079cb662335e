"""Command line for a file of your own: fit a model, predict another file, or ask whether contrastive training helps."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnclib.recipe import METHODS

if TYPE_CHECKING:
    from rnclib.your_data import YourData

__all__ = ["main"]

_KEPT = {
    "compare": "each fit that was done is kept, and the same command goes on from there",
    "fit": "nothing of this command is kept but the cleaned rows and rejects",
    "predict": "nothing of this command is kept",
}
_NOT_CSV = (".gz", ".json", ".parquet", ".tsv", ".xls", ".xlsx", ".zip")  # what a name promises
_EXAMPLES = """examples:
  python -m rnclib compare concrete.csv --target strength      does Rank-N-Contrast help here?
  python -m rnclib fit concrete.csv --target strength          fit a model to all rows, and save it
  python -m rnclib fit solvents.txt --target energy --smiles SMILES
  python -m rnclib predict concrete.rnclib/model.safetensors new.csv

Parquet files (extra 'parquet') and large text files may exceed the memory: predict goes through them by chunks; compare
and fit take a random sample of their rows, of --most.

exit status: 0 done; 1 the file or a setting is not as it should be, in one line; 2 wrong usage; 130 interrupted
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rnclib", description=__doc__, epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("compare", "Train with Rank-N-Contrast and without on several splits, and say whether it helps."),
        ("fit", "Fit a model to all rows, and save it."),
        ("predict", "Predict each row of a second file with a saved model."),
    ):
        one = commands.add_parser(name, help=about, description=about)
        if name == "predict":
            one.add_argument("model", help="model.safetensors that fit has written")
        one.add_argument("csv", help="a table with a header: text, perhaps packed with gzip, or Parquet")
        _of_the_file(one)
        if name != "predict":
            _of_the_columns(one)
            _of_training(one, name)
        folder = "FILE" if name == "predict" else "FOLDER"
        default = "predictions.csv" if name == "predict" else "NAME.rnclib beside the file"
        one.add_argument("--out", metavar=folder, help=f"where results go (default: {default})")
    return parser


def _of_the_file(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the file (by default detected; what is found is said)")
    group.add_argument("--separator", help="between fields; a space stands for any white space")
    group.add_argument("--decimal", help="the decimal mark, . or ,")
    thousands = "between groups of three digits: , . ' or a space (never detected)"
    group.add_argument("--thousands", metavar="SIGN", help=thousands)
    group.add_argument("--encoding", help="such as utf-8 or cp1252")
    group.add_argument("--comment", help="what begins a line that is a comment")
    group.add_argument("--no-header", action="store_true", help="no line names the columns: they are 1, 2 and so on")


def _of_the_columns(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("its columns")
    group.add_argument("--target", required=True, metavar="COLUMN", help="what is to be predicted, numbers")
    group.add_argument("--smiles", metavar="COLUMN", help="molecules are the input, not the table")
    group.add_argument("--image", metavar="COLUMN", help="images are: paths from the folder of the file on")
    group.add_argument("--group", metavar="COLUMN", help="rows of one group stay in one set")
    group.add_argument("--time", metavar="COLUMN", help="numbers or ISO dates: test on what comes after training")
    group.add_argument("--split", metavar="COLUMN", help="a split of your own: train, val, test")
    group.add_argument("--inputs", nargs="+", metavar="COLUMN", help="of a table (default: all others)")
    group.add_argument("--leave-out", nargs="+", default=[], metavar="COLUMN", help="columns that are no inputs")
    group.add_argument("--repeats", action="store_true", help="keep rows that repeat another in inputs and target")


def _of_training(parser: argparse.ArgumentParser, command: str) -> None:
    group = parser.add_argument_group("training")
    if command == "fit":
        group.add_argument("--method", choices=METHODS, default="rnc")
        group.add_argument("--seed", type=_whole, default=0, help="of all that is random")
    else:
        group.add_argument("--splits", type=_whole, default=10, help="how many (default: 10)")
    group.add_argument("--epochs", type=_whole, help="default: that of the recipe for this kind of input")
    many = "rows that are used at most, chosen at random (default: 20000)"
    group.add_argument("--most", type=_whole, metavar="ROWS", help=many)
    group.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu")


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: a whole number")
    return int(text)


def _loaded(options: argparse.Namespace) -> tuple[YourData, Path]:
    """The file as it is trained on, its cleaned rows and rejects written to the folder of results."""
    from rnclib.data import csv_files, large_tables

    # before the imports that take seconds
    most = large_tables.MOST if options.most is None else options.most
    table = large_tables.read(options.csv, _format(options), target=options.target, most=most, progress=True)
    from rnclib.your_data import Columns, load, results_folder

    given = {one.name: getattr(options, one.name) for one in fields(Columns)}
    given |= {name: tuple(given[name]) for name in ("inputs", "leave_out") if given[name]}
    data = load(options.csv, Columns(**given), table, repeats=options.repeats, most=most)
    _say(data.said, data.warnings)
    folder = results_folder(options.csv, options.out)
    csv_files.write(data.frame, folder / "cleaned.csv")
    csv_files.write(data.rejects, folder / "rejects.csv")
    print(f"Wrote to {folder}: cleaned.csv, the rows that are used, and rejects.csv.", flush=True)
    return data, folder


def _format(options: argparse.Namespace) -> Any:
    from rnclib.data.csv_files import Format

    separator = {"tab": "\t", "\\t": "\t"}.get(options.separator, options.separator)
    form = separator, options.decimal, options.encoding, options.comment, not options.no_header
    return Format(*form, thousands=options.thousands)


def _say(said: Sequence[str], doubts: Sequence[str] = ()) -> None:
    for one in (*said, *(f"Warning: {one}" for one in doubts)):
        print(one, flush=True)


def _model(options: argparse.Namespace, data: YourData) -> Any:
    from rnclib.estimator import RnCRegressor

    return RnCRegressor(inputs=data.columns.kind, epochs=options.epochs, device=options.device)


def _compare(options: argparse.Namespace) -> None:
    data, folder = _loaded(options)
    from rnclib.comparison import compare
    from rnclib.data import csv_files

    splits = data.splits(options.splits)
    _say((), [one for one in (data.shared(splits),) if one])
    found = compare(_model(options, data), data.X, data.y, splits, groups=data.groups, keep=folder / "fits")
    csv_files.write(found.errors, folder / "errors.csv")
    csv_files.write(found.predictions, folder / "test_predictions.csv")
    table = found.table().to_string(float_format=lambda value: f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}")
    print(f"\nErrors on test sets, in the unit of {data.columns.target!r}:", table, sep="\n")
    for method in ("rnc", "joint"):
        print(f"\nDoes {method} help, compared with end_to_end? {found.answer(method)}")
    print(
        f"\nOf the three networks {found.better()} has the lowest validation error (fit --method {found.better()}). "
        f"Results are in {folder}."
    )


def _fit(options: argparse.Namespace) -> None:
    data, folder = _loaded(options)
    from rnclib.your_data import dates_of, fit_model

    for name in ("time", "split"):
        if (column := getattr(options, name)) is not None:
            told = f"fit holds rows out at random, whatever column {column!r} says; it is no input"
            _say((), [f"{told}. compare tests as it says."])
    model = _model(options, data).set_params(method=options.method, random_state=options.seed, verbose=True)
    fit_model(data, model)
    file = folder / "model.safetensors"
    replaced = "Replaced" if file.exists() else "Wrote"
    model.save(file)
    _say(dates_of(model))
    error, target = model.validation_error_, data.columns.target
    print(
        f"Mean absolute error of {target!r} on the {len(model.validation_)} rows that chose the regressor: {error:.4g}."
    )
    print(f"{replaced} {file}.")


def _predict(options: argparse.Namespace) -> None:
    from rnclib.estimator import RnCRegressor
    from rnclib.your_data import predict_file, rejects_of

    out = Path("predictions.csv" if options.out is None else options.out)
    if out.resolve() == Path(options.model).resolve():
        raise ValueError(f"out: got {out}, the model; allowed: another file")
    if out.is_dir() or out.suffix.lower() in _NOT_CSV:
        raise ValueError(f"out: got {out}; allowed: a file whose name ends in .csv, since that is what is written")
    replaced = "Replaced" if out.exists() else "Wrote"
    found = predict_file(RnCRegressor.load(options.model), options.csv, _format(options), out=out, progress=True)
    _say(found.said)
    print(f"{replaced} {out}.")
    if len(found.rejects):
        print(f"Wrote {rejects_of(out)}: rows left out, and why.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        The exit status.
    """
    options = _parser().parse_args(arguments)
    commands: dict[str, Callable[[argparse.Namespace], None]] = {"compare": _compare, "fit": _fit, "predict": _predict}
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # of a console that cannot show a sign
    shown, warnings.showwarning = warnings.showwarning, lambda message, *_: _say((), [str(message)])
    try:
        commands[options.command](options)
    except KeyboardInterrupt:
        print(f"\nInterrupted; {_KEPT[options.command]}.", file=sys.stderr)
        return 130
    except (FloatingPointError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        warnings.showwarning = shown
    return 0


if __name__ == "__main__":
    sys.exit(main())
