# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version,-jupytext.text_representation.format_version
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your data
#
# Does Rank-N-Contrast help on a regression problem of your own? This notebook reads a file of yours, says what it read
# and what it left out, trains a network end to end, one with Rank-N-Contrast and one with both on several splits,
# answers by the book's rule ({doc}`../deciding`), and keeps the one with the lowest validation error for a second file.
# What you see here is its run on an example of measured data: how the diabetes of patients progressed within a year, as
# a score {cite:p}`efron2004lars`, from their age, sex, body mass index, blood pressure and blood tests.
#
# ```bash
# papermill notebooks/your_data.ipynb out.ipynb -p csv my.csv -p target price
# papermill notebooks/your_data.ipynb out.ipynb -p csv solvents.txt -p target energy -p smiles SMILES
# ```
#
# The same without a notebook is `python -m rnclib compare my.csv --target price`, then `fit` and `predict`; each has
# `--help`. In Python it is `RnCRegressor` and `rnclib.comparison.compare` ({doc}`../api`).

# %% tags=["parameters", "hide-input"]
csv: str = (
    "example"  # your file: text with a header, perhaps packed with gzip, or Parquet
)
target: str = None  # column to be predicted, numbers
smiles: str = (
    None  # column of molecules; without it, and without image, the table is the input
)
image: str = None  # column of paths to images, from the folder of the file on
inputs: str = None  # columns of a table, separated by commas; None: all others
leave_out: str = None  # columns that are no inputs, separated by commas
group: str = (
    None  # column of what belongs together, such as patients: it stays in one set
)
time: str = None  # column of dates or numbers: train on what was before, test on what comes after
split: str = None  # column with train, val and test: a split of your own
separator: str = None  # of the file; what is None is detected, and said
decimal: str = None
thousands: str = None  # , . space or apostrophe; never detected
encoding: str = None
comment: str = None
header: bool = True  # False: no line names the columns, which are called 1, 2 and so on
repeats: bool = False  # keep rows that repeat another in all inputs and the target
predict: str = None  # a second file, whose rows are predicted
out: str = None  # folder for results; None: beside the file, for the example nowhere
n_splits: int = 10
epochs: int = None  # None: those of the default recipe
most: int = 20000  # rows that are used at most, chosen at random
molecules: bool = True  # after the example, one with molecules, too
device: str = "cpu"  # cpu, cuda or auto

# %% tags=["remove-cell"]
from rnclib.parameters import Folder, check_parameters

check_parameters(
    globals(),
    csv=str,
    target=[None, str, int],
    smiles=[None, str, int],
    image=[None, str, int],
    inputs=[None, str],
    leave_out=[None, str],
    group=[None, str, int],
    time=[None, str, int],
    split=[None, str, int],
    separator=[None, ",", ";", "\t", "|", " "],
    decimal=[None, ".", ","],
    thousands=[None, ",", ".", "'", " "],
    encoding=[None, str],
    comment=[None, str],
    header=bool,
    repeats=bool,
    predict=[None, str],
    out=[None, Folder],
    n_splits=(2, 100),
    epochs=[None, (1, 100_000)],
    most=(20, 10_000_000),
    molecules=bool,
    device=["cpu", "cuda", "auto"],
)

# %% tags=["remove-cell"]
from rnclib.data import csv_files, large_tables
from rnclib.parameters import in_one_line

example = csv == "example"
# papermill makes a number of a name that is one
target, smiles, image, group, time, split = (
    one if one is None else str(one)
    for one in (target, smiles, image, group, time, split)
)
with in_one_line():
    if example:
        from rnclib.chapters.your_data import TARGET, example_file

        csv, target = str(example_file()), TARGET
    form = csv_files.Format(separator, decimal, encoding, comment, header, thousands)
    table = large_tables.read(csv, form, target=target, most=most)

# %% tags=["remove-cell"]
import io
import math

import numpy as np
import pandas as pd

from rnclib import RnCRegressor, evaluation, plots
from rnclib.comparison import METHODS, compare
from rnclib.data import Split
from rnclib.report import LEFT_OUT, Figure, Findings, Table
from rnclib.your_data import Columns, fit_model, load, predict_file, results_folder

plots.use_style()
with in_one_line():
    lists = {
        name: tuple(one.strip() for one in names.split(","))
        for name, names in (("inputs", inputs), ("leave_out", leave_out))
        if names
    }
    roles = {"smiles": smiles, "image": image, "group": group, "time": time}
    columns = Columns(target, **roles, split=split, **lists)
    data = load(csv, columns, table, repeats=repeats, most=most)
    splits = data.splits(n_splits)
    folder = None if example and out is None else results_folder(csv, out)
if folder is not None:
    csv_files.write(data.frame, folder / "cleaned.csv")
    csv_files.write(data.rejects, folder / "rejects.csv")

# %% [markdown]
# ## What was read
#
# Nothing is guessed in silence: what was detected is said here, and a parameter of the notebook declares it otherwise.

# %% tags=["hide-input"]
print(*data.said, sep="\n")
print(f"Splits: {len(splits)}; {data.origin}.")

# %% tags=["hide-input"]
warnings = [*data.warnings, *filter(None, [data.shared(splits)])]
print("Warnings:" if warnings else "No sign that an input gives the target away.")
print(*warnings, sep="\n")

# %% tags=["hide-input"]
if len(data.rejects):
    print(f"Rows left out, the first of {len(data.rejects):,}:")
    print(data.rejects.head(10).to_string(index=False))
else:
    print("No row was left out.")

# %% [markdown]
# ## Does Rank-N-Contrast help here?
#
# Three networks learn from the same data: *end to end* with a regression loss, *RnC* with the contrastive loss, *joint*
# with both. Each has the settings that were typical for it on the real tasks of {doc}`tasks`, its width among them;
# images have those of the one task with pictures, arrays round numbers. On those tasks the round numbers with which a
# search begins did about as well ({numref}`tasks-search`). Which regressor predicts from their features,
# the validation set chooses. Beside them stand the methods that people would use instead.

# %% tags=["remove-cell"]
with in_one_line():
    model = RnCRegressor(inputs=columns.kind, epochs=epochs, device=device)
    fits = None if folder is None else folder / "fits"
    found = compare(model, data.X, data.y, splits, groups=data.groups, keep=fits)
if folder is not None:
    csv_files.write(found.errors, folder / "errors.csv")
    csv_files.write(found.predictions, folder / "test_predictions.csv")
called = {
    "end_to_end": "end to end",
    "rnc": "RnC",
    "joint": "joint",
    "trees": "extra trees",
    "gaussian process": "Gaussian process",
    "training mean": "mean",
}
means = found.table()

# %% tags=["hide-input"]
Findings(
    *(
        f"**{called[method]} against end to end**: {found.answer(method)}."
        for method in ("rnc", "joint")
    ),
    title="By the rule of the book, as mean ratio of the errors on a split, with its 95% interval in brackets:",
)


# %% tags=["hide-input"]
def errors_of(comparison, caption, name):
    return Table(
        comparison.table().reset_index().replace({"method": called}),
        caption,
        name=name,
        columns={
            "method": "Method",
            "mae": "MAE",
            "low": "from",
            "high": "to",
            "rmse": "RMSE",
            "seconds": "Time, s",
        },
        format={"seconds": ".2f"}
        | dict.fromkeys(("mae", "low", "high", "rmse"), ".4g"),
    )


errors_of(
    found,
    f"Errors on test sets, in the unit of the target: mean over {len(splits)} splits. The interval of the MAE (95%) "
    "counts that splits share samples. Time is that of one fit.",
    "your-data-errors",
)

# %% tags=["hide-input"]
shown = found.errors.replace({"method": called})
runs = pd.DataFrame(
    {
        "split": "yours",
        "method": shown["method"],
        "seed": shown["split"],
        "test_mae": shown["mae"],
        "n_pool": shown["n_train"],
        "n_test_pool": shown["n_test"],
        "overlap": found.overlap,
        "one_data_set": True,
    }
)
Figure(
    plots.errors(runs, "test_mae", label="test MAE, unit of the target"),
    "Test MAE of each split, and its mean with a 95% interval.",
    name="your-data-runs",
    alt="Dots of the error of each split, one line for each method, with means and intervals.",
)

# %% tags=["hide-input"]
Figure(
    plots.parity(
        found.predictions.replace({"method": called}),
        [called[method] for method in METHODS],
        unit="unit of the target",
    ),
    "Prediction against target of all test samples of all splits.",
    name="your-data-parity",
    alt="Scatter plots of predictions against targets, one for each network.",
)

# %% [markdown]
# ## The network that is kept
#
# Of the three, the one with the lowest validation error is fitted once more, to all rows but those that are held out to
# choose its regressor and to calibrate its intervals. Trees and Gaussian processes are compared, never kept: what is
# saved has no code in it.

# %% tags=["remove-cell"]
with in_one_line():
    kept = RnCRegressor(
        found.better(),
        inputs=columns.kind,
        epochs=epochs,
        device=device,
        random_state=0,
    )
    fit_model(data, kept)
    if folder is not None:
        kept.save(folder / "model.safetensors")

# %% tags=["hide-input"]
held_out = kept.calibration_ if len(kept.calibration_) else kept.validation_
features = kept.transform(data.X)
view = pd.read_csv(
    io.StringIO(
        evaluation.view(
            features,
            Split(kept.training_, np.array([], int), held_out),
            data.y,
        )
    )
)
views = {called[kept.method]: view}
lowest = called[means.loc[list(METHODS), "mae"].idxmin()]
Figure(
    plots.representations(views, label="target"),
    f"Features of the network that is kept, {called[kept.method]} (on test sets {lowest} has the lowest error of the "
    "three), in their first two principal components, coloured by the target: samples it "
    "was trained on, and samples it has not seen.",
    name="your-data-features",
    alt="Two scatter plots of features, coloured by the target.",
    phone=plots.representations(views, label="target", narrow=True),
)

# %% tags=["hide-input"]
some = held_out[:: max(1, len(held_out) // 5)][:5]
rows = [data.X[i] for i in some] if isinstance(data.X, list) else data.X.iloc[some]
distances, nearest = kept.kneighbors(rows, n_neighbors=4)
lines = data.frame.index.to_numpy()
neighbours = [
    {
        "line": lines[i],
        "target": data.y[i],
        "prediction": prediction,
        "near": ", ".join(f"{lines[j]} ({data.y[j]:.4g})" for j in its if j != i),
    }
    for i, prediction, its in zip(some, kept.predict(rows), nearest, strict=True)
]
Table(
    pd.DataFrame(neighbours),
    "Samples that were held out, and those whose features are nearest: lines of the file, with targets in brackets.",
    name="your-data-neighbours",
    columns={
        "line": "Line",
        "target": "Target",
        "prediction": "Prediction",
        "near": "Nearest lines",
    },
    format=".4g",
)

# %% [markdown]
# ## A second file
#
# `-p predict new.csv` predicts each of its rows, with an interval that holds the target of 90% of such samples, and
# tells rows unlike all that the network was fitted to: a category never seen, a number out of range, features far from
# all others. `python -m rnclib predict` does it later with the saved network.

# %% tags=["hide-input"]
if predict is None:
    print("No second file was given.")
else:
    with in_one_line():
        out_file = None if folder is None else folder / "predictions.csv"
        later = predict_file(kept, predict, form, out=out_file)
    print(*later.said, sep="\n")
    print(later.frame.head(10).to_string())

# %% [markdown]
# ## Molecules
#
# With `-p smiles COLUMN` the input is a molecule: its descriptors, which RDKit computes. The example is FreeSolv
# {cite:p}`mobley2014freesolv`, the measured free energy of hydration of small molecules in kcal/mol. Its file, as it is
# published, has semicolons, and its header in the last line of a comment; no parameter declares that.

# %% tags=["hide-input"]
solvents = None
if example and molecules:
    from rnclib.data.properties import freesolv_file

    try:
        roles = Columns("experimental value (kcal/mol)", smiles="SMILES")
        solvents = load(freesolv_file(), roles)
        print(*solvents.said, sep="\n")
    except FileNotFoundError as error:
        print(error)

# %% tags=["hide-input"]
if solvents is None:
    shown = LEFT_OUT
else:
    dissolved = compare(
        RnCRegressor(inputs="smiles", epochs=epochs, device=device),
        solvents.X,
        solvents.y,
        solvents.splits(n_splits),
    )
    shown = errors_of(
        dissolved,
        f"FreeSolv: errors on test sets, kcal/mol, mean over {n_splits} splits, with the 95% interval of the MAE. RnC "
        f"against end to end: {dissolved.answer('rnc')}. Settings are defaults, made from tasks of which this "
        "is one; where they are searched, on other splits, is {numref}`tasks-errors`.",
        "your-data-molecules",
    )
shown

# %% [markdown]
# ## What is kept, and what is certain
#
# - **Rows** are never changed in silence. What is left out has its line and its reason in `rejects.csv`; what was
#   trained on is in `cleaned.csv`, and reading it again gives the same table.
# - **Each fit** of the comparison is written to `fits/` when it is done. Where the comparison is stopped, the same
#   command, or the notebook with the same file and parameters, goes on from there; other data or settings begin anew.
# - **Test sets** are used once: no setting, regressor or network is chosen by them. The regressor and the network are
#   chosen by validation errors.
# - **Intervals of predictions** hold their share of new samples that come from where the held-out ones come from
#   (split conformal prediction); a test counts it over many data sets.
# - **The saved network** is one file of numbers and JSON. Loading it runs no code; a damaged file, or one that pretends
#   to be a model, ends in an error.
# - **The seed** decides all that is random: the same file on the same machine gives the same answer.
#
# ## Many machines
#
# The runs of the other chapters go to the machines of a [Dask](https://distributed.dask.org) cluster by one variable:
# with `RNC_ENGINE=tcp://host:8786`, the address of a scheduler, every command and notebook that trains a grid of runs
# sends them there. Workers need the package and the data; the records come back to where the command runs, so no disk
# is shared. A worker that dies loses nothing but the run it was at, which another does again.

# %% [markdown]
# ## What this allows one to conclude

# %% tags=["hide-input"]
best = means.index[0]
answer = found.answer("rnc")
advice = {
    "helps": "train with Rank-N-Contrast",
    "harms": "train it end to end",
    "practically equal": "train it end to end, which is simpler",
    "undecided": "neither can be recommended",
}
kept = found.better()
Findings(
    f"**RnC against end to end**: {answer.verdict}; {advice[answer.verdict]}. "
    + (
        "On some splits a method has no error, so there is no ratio: the table has the errors."
        if answer.without_error
        else f"The interval allows an error from {math.exp(answer.low):.2f} to {math.exp(answer.high):.2f} × that of "
        "end to end."
    ),
    f"**The lowest mean error** is that of {called.get(best, best)}. "
    + (
        "That is no network: on these data, consider it first."
        if best not in METHODS
        else "It is a network."
    ),
    f"**The network that is kept** is that of *{called[kept]}*, whose validation error is lowest (test MAE "
    f"{means.loc[kept, 'mae']:.4g}, the lowest of all methods {means['mae'].iloc[0]:.4g}).",
    "**Of what this is true**: of samples from the same source, split as above. All settings are defaults; "
    + (
        "a search may change the order."
        if not example
        else "they are made from tasks that include this. Settings that were searched on it, and their errors on "
        "splits made alike, are in {numref}`tasks-errors`: a search may change the order."
    ),
    None
    if folder is None
    else "**Files**: the cleaned rows, those left out, all errors and predictions, and the network are in the "
    "folder of results.",
)
