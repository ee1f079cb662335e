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
# # With less data
#
# A network that has learnt to order its inputs should need fewer of them. The paper {cite:p}`zha2023rnc` reports that
# Rank-N-Contrast loses less than end-to-end training when most of the training set is taken away. Does it on molecules,
# and on synthetic faces?

# %% tags=["parameters", "hide-input"]
molecules: str = "auto"  # auto (ESOL if to be had), esol, standin or none
faces: str = "synthetic"  # synthetic (synthetic faces), agedb or none
data_dir: str = None  # agedb: the folder that holds AgeDB/*.jpg
profile: str = "paper"  # paper (published), quick (minutes), smoke
n_seeds: int = None  # splits or seeds; None: the profile's
device: str = "cpu"  # cpu, cuda or auto
results_dir: str = None  # folder of the run records; None: book/results
refresh: bool = False  # train every run anew

# %% tags=["remove-cell"]
from rnclib.parameters import Folder, check_parameters

check_parameters(
    globals(),
    molecules=["auto", "esol", "standin", "none"],
    faces=["synthetic", "agedb", "none"],
    data_dir=[None, str],
    profile=["paper", "quick", "smoke"],
    n_seeds=[None, (1, 100)],
    device=["cpu", "cuda", "auto"],
    results_dir=[None, Folder],
    refresh=bool,
)

# %% tags=["hide-input"]
import pandas as pd

from rnclib import plots, statistics
from rnclib.chapters import data_efficiency
from rnclib.notebook import Verdicts, machines, open_experiment
from rnclib.report import (
    LEFT_OUT,
    Figure,
    Findings,
    Notice,
    Table,
    listed,
    short_training,
)
from rnclib.tables import differences_table, error_table

molecules, faces = studies = open_experiment(
    "data_efficiency",
    molecules,
    faces,
    profile=profile,
    n_seeds=n_seeds,
    data_dir=data_dir,
    results_dir=results_dir,
    refresh=refresh,
    device=device,
)


def by_fraction(study):
    """Runs of each fraction of the training set."""
    return study.frame.fillna({"fraction": 1.0}).groupby("fraction")


# %% [markdown]
# ## What is compared
#
# From the training set of each split, nested subsets are drawn: each holds all smaller ones. Validation and test sets
# stay the same. Every method is trained on each subset from the beginning, and errors are in the unit of the data.
# Methods are called as in {doc}`esol`.
#
# | Pair | What it compares |
# |---|---|
# | *RnC frozen, closed form* and *L1 end to end, closed form* | the encoders: ridge regression on frozen features |
# | *RnC frozen, L1* and *L1 end to end* | the published way: a regressor trained in steps on the frozen encoder |
# | *RnC fine-tuned, L1* and *L1 end to end* | the same, but the second stage trains the encoder further |
#
# **Why the closed form?** Epochs are held fixed, so a smaller subset gets fewer steps ({numref}`efficiency-steps`,
# {numref}`efficiency-steps-faces`). The published regressor then ends before it has learnt: at the smallest fractions
# it has taken a few hundred small steps from the mean of the targets. Ridge regression takes no steps.
#
# **Which learning rate?** End-to-end training has the rate at which it trains well: 0.001 on molecules, a tenth of the
# published one; 0.01 on synthetic faces, a twentieth. Rank-N-Contrast has its published settings, so end-to-end
# training is ahead in effort. On synthetic faces two more pairs even that out:
#
# - *RnC frozen, L1* and *L1 end to end* with no rate behind their names: both as published.
# - *RnC frozen, closed form, tuned* and *L1 end to end, closed form, lr 0.01*: Rank-N-Contrast has what a search found
#   ({doc}`methods`), end-to-end training the rate that did better than what the search found for it
#   ({doc}`../deciding`).
#
# Encoders of faces are fine-tuned at the lower rate as well (*RnC fine-tuned, L1, lr 0.01*). Faces are 32 pixels wide
# here, half of what they are in {doc}`agedb`.


# %% tags=["hide-input", "fold"]
def steps_table(study, name):
    if study is None:
        return LEFT_OUT
    n_train = {f: int(part["n_train"].iloc[0]) for f, part in by_fraction(study)}
    one_of_each = [run for run in study.runs if run.seed == 0]
    return Table(
        data_efficiency.steps(one_of_each, n_train),
        f"Optimiser steps of each stage of training on {study.source.samples}, by fraction of the "
        f"training set. {study.caption}.",
        name=name,
    )


steps_table(molecules, "efficiency-steps")

# %% tags=["remove-input", "fold"]
steps_table(faces, "efficiency-steps-faces")

# %% [markdown]
# ## Errors
#
# Splits of molecules overlap, and intervals are widened for that. The correlation between the results on two splits is
# taken to be the larger of $n_\text{test}/(n_\text{train} + n_\text{test})$ and the measured overlap of test sets (see
# {doc}`../deciding`). A subset counts as the training set that it is drawn from. On synthetic faces all seeds have one
# test set; they differ in weights, order and subset, and intervals cover these only.


# %% tags=["hide-input"]
def errors_figure(study, name):
    if study is None:
        return None  # the table says why
    return Figure(
        plots.errors_by_size(
            study.frame,
            "test_mae_raw",
            label=f"test MAE, {study.unit}",
            samples=study.source.samples,
        ),
        f"Test error against the number of training {study.source.samples}: mean over "
        f"{study.n} {study.repeats} with its 95% interval. {study.caption}.",
        name=name,
        alt="Lines of test error against training size on logarithmic axes, one per method, "
        "with bands.",
    )


def errors_table(study, name):
    if study is None:
        return LEFT_OUT
    table = pd.concat(
        [
            error_table(part, {"test_mae_raw": "Test MAE"}).assign(
                Fraction=f"{fraction:.0%} ({int(part['n_train'].iloc[0])})"
            )
            for fraction, part in by_fraction(study)
        ]
    ).pivot_table(
        index="Fraction",
        columns="Method",
        values="Test MAE",
        aggfunc="first",
        sort=False,
    )
    return Table(
        table[[m for m in study.methods if m in table]].reset_index(),
        f"Test MAE in {study.unit} by fraction of the training set (number of "
        f"{study.source.samples}): mean over {study.n} {study.repeats} ± half its 95% interval. "
        f"{study.caption}.",
        name=name,
    )


errors_figure(molecules, "efficiency-errors")

# %% tags=["remove-input", "fold"]
errors_table(molecules, "efficiency-table")

# %% tags=["hide-input"]
errors_figure(faces, "efficiency-errors-faces")

# %% tags=["remove-input", "fold"]
errors_table(faces, "efficiency-table-faces")

# %% [markdown]
# ## On the same subset: the differences


# %% tags=["hide-input", "fold"]
def differences(study, name):
    if study is None:
        return LEFT_OUT
    comparison = pd.concat(
        [
            statistics.compare(part, "test_mae_raw", other, [method])
            .reset_index()
            .assign(other=other, fraction=f"{fraction:.0%}")
            for method, other in data_efficiency.pairs(study.runs)
            for fraction, part in by_fraction(study)
        ]
    )
    return differences_table(
        comparison,
        f"Test MAE minus that of end-to-end training on the same subset, in {study.unit}: mean "
        f"with its 95% interval, and number of {study.repeats}. {study.caption}.",
        name=name,
        labels={"method": "Method", "other": "End to end", "fraction": "Fraction"},
        runs=study.repeats,
    )


differences(molecules, "efficiency-differences")

# %% tags=["remove-input", "fold"]
differences(faces, "efficiency-differences-faces")

# %% [markdown]
# ## How much less data
#
# On logarithmic axes ({numref}`efficiency-errors`, {numref}`efficiency-errors-faces`) the learning curve of a method is
# taken to be a line, fitted on each split or seed. The ratio at a fraction tells how much data the method needs for the
# error that end-to-end training has there: the size at which the method's own line has that error, divided by the size
# there. Below 1, the method needs less data.
#
# If the two lines are parallel, the ratio is the same everywhere, and the row “all fractions” has it. If they are not,
# no single ratio describes the curves. So the slopes are compared too ({numref}`efficiency-slopes`,
# {numref}`efficiency-slopes-faces`). With few seeds such a comparison seldom finds a difference, so a common ratio may
# hide a trend. Where a line has that error only below the smallest subset, or above the full set, it is extrapolated,
# and the ratio is a rough guess. The learning curve of *L1 end to end* at the published rate is no line.


# %% tags=["hide-input"]
def slopes_of(study):
    """How much steeper the line of each method is than that of end-to-end training."""
    rows = []
    for method, other in data_efficiency.pairs(study.runs):
        paired = statistics.parallel(study.frame, "test_mae_raw", other, method)
        if paired is not None:
            mean, low, high = paired.interval()
            row = {"mean": mean, "low": low, "high": high, "n": paired.n}
            row |= {"parallel": not (low > 0 or high < 0)}
            rows.append({"method": method, "other": other} | row)
    columns = ["method", "other", "mean", "low", "high", "n", "parallel"]
    return pd.DataFrame(rows, columns=columns)


def ratios_of(study):
    """How much data each method needs, at each fraction and at all of them."""
    return pd.concat(
        [
            statistics.data_ratio(study.frame, "test_mae_raw", other, method)
            .reset_index()
            .assign(method=method, other=other)
            for method, other in data_efficiency.pairs(study.runs)
        ],
        ignore_index=True,
    )


slopes = {study.name: slopes_of(study) for study in studies if study}
needs = {study.name: ratios_of(study) for study in studies if study}


def ratio_table(study, name, beside):
    if study is None:
        return LEFT_OUT
    table = needs[study.name].copy()
    if not len(table):
        return Notice(f"More data did not help on any of the {study.repeats}.")
    lines = slopes[study.name][["method", "other", "parallel"]]
    bent = ~table.merge(lines, how="left")["parallel"].astype(bool)
    none = (table["fraction"] == "all") & (bent | (table["flat"] > 0))
    table.loc[none, ["ratio", "low", "high"]] = None
    table["at"] = [
        "all fractions" if fraction == "all" else f"{fraction:.0%}"
        for fraction in table["fraction"]
    ]
    return Table(
        table,
        f"Number of training {study.source.samples} that a method needs for the error that "
        "end-to-end training has at a fraction, as a multiple of the number there: geometric "
        f"mean over {study.repeats} with its 95% interval. Left out are those of the {study.n} "
        f"{study.repeats} on which a run diverged, or on which more data did not help. “All "
        "fractions” is the common ratio of parallel lines, with a dash if the lines are not "
        f"parallel ({{numref}}`{beside}`), or if more data did not help on some of the "
        f"{study.repeats}. {study.caption}.",
        name=name,
        columns={
            "method": "Method",
            "other": "End to end",
            "at": "At",
            "ratio": "Ratio",
            "low": "Low",
            "high": "High",
            "n": study.repeats.capitalize(),
        },
        format={"ratio": ".2f", "low": ".2f", "high": ".2f"},
    )


def slopes_table(study, name):
    if study is None:
        return None  # the table of ratios says why
    return Table(
        slopes[study.name],
        "Whether learning curves are parallel: slope of each method's line minus that of "
        "end-to-end training, mean with its 95% interval, and number of "
        f"{study.repeats}. A slope is how steeply log error falls with log size; above 0, the "
        f"method gains more from more data. {study.caption}.",
        name=name,
        columns={
            "method": "Method",
            "other": "End to end",
            "mean": "Difference of slopes",
            "low": "Low",
            "high": "High",
            "n": study.repeats.capitalize(),
        },
        format=dict.fromkeys(["mean", "low", "high"], "+.3f"),
    )


ratio_table(molecules, "efficiency-ratio", "efficiency-slopes")

# %% tags=["hide-input"]
slopes_table(molecules, "efficiency-slopes")

# %% tags=["hide-input"]
ratio_table(faces, "efficiency-ratio-faces", "efficiency-slopes-faces")

# %% tags=["hide-input"]
slopes_table(faces, "efficiency-slopes-faces")


# %% tags=["hide-input"]
def not_parallel(study):
    return [
        f"{study.source.title}: *{row.method}* and *{row.other}* (difference of slopes "
        + "{} [{}, {}])".format(
            *(f"{x:+.3f}".replace("-", "−") for x in (row.mean, row.low, row.high))
        )
        for row in slopes[study.name].itertuples()
        if not row.parallel
    ]


crossing = [text for study in studies if study for text in not_parallel(study)]
reads = (
    f"{{doc}}`claims` reads the ratio at {statistics.READ_AT:.0%} of the training set"
)
Findings(
    *crossing,
    title="These curves are not parallel, so no single ratio describes them. Where a "
    f"verdict is on them, {reads}:",
) if crossing else Notice(
    "No interval of a difference of slopes on this page leaves out 0, so the curves may be "
    f"parallel. Where they are not, {reads}."
)

# %% [markdown]
# ### The verdicts
#
# These are the verdicts that rest on the experiment of this page. The primary comparison of faces has a set of faces
# for each seed, and is on the verdict page.

# %% tags=["hide-input"]
verdicts = Verdicts(profile, results_dir)
verdicts.table("data_efficiency", name="efficiency-verdicts")

# %% [markdown]
# ## Where the runs were made

# %% tags=["remove-input", "fold"]
Table(
    machines(*studies),
    f"Processors and versions behind this page.{short_training(profile)}",
    name="efficiency-machines",
    format={"Hours of training": ".1f"},
) if any(studies) else LEFT_OUT

# %% tags=["remove-input", "answer"]
equal_time = verdicts.with_equal_time() if faces else None
verdicts.answer(
    "data",
    also=[
        f"All this is at equal epochs. {equal_time} So a part of what is saved in samples may be time of training; on "
        "fewer faces that was not tried."
    ]
    if equal_time
    else [],
)

# %% [markdown]
# ## What this allows one to conclude
#
# The verdicts are those of {doc}`claims`; {numref}`efficiency-verdicts` has all that rest on this page. Where curves
# are not parallel, a verdict is on the ratio at a single fraction. Below it stand the fractions at which the whole
# interval of the ratio says more samples, or fewer ({numref}`efficiency-ratio`, {numref}`efficiency-ratio-faces`).
# These intervals are not corrected for their number: they describe, and decide nothing.


# %% tags=["hide-input"]
def at(rows, every):
    """Fractions, with the range of their ratios."""
    where = data_efficiency.in_words(list(rows["fraction"]), list(every["fraction"]))
    ends = [f"{ratio:.2f} ×" for ratio in (rows["ratio"].min(), rows["ratio"].max())]
    return f"{where} ({' to '.join(dict.fromkeys(ends))})"


def curves(study, method, other):
    """At which fractions a method needs more samples, or fewer."""
    table = needs[study.name]
    table = table[(table["method"] == method) & (table["other"] == other)]
    table = table[table["fraction"] != "all"]
    if not len(table):
        return "No ratio is known, since more data did not help"
    more, fewer = table[table["low"] > 1], table[table["high"] < 1]
    rest = table.drop([*more.index, *fewer.index])
    needed = {"more": more, "fewer": fewer}
    needed = [
        f"{how} samples {at(rows, table)}" for how, rows in needed.items() if len(rows)
    ]
    cross = "The curves cross: it" if len(needed) > 1 else "It"
    known = table["low"].notna().any()
    open_ = "More or fewer are possible" if known else "Ratios without an interval:"
    return ". ".join(
        [
            *([f"{cross} needs {' and '.join(needed)}"] if needed else []),
            *([f"{open_} {at(rest, table)}"] if len(rest) else []),
        ]
    )


def verdict(study, pair, experiment):
    """What is decided on a pair; None where nothing is claimed of it."""
    rows = verdicts.frame
    rows = rows[(rows["experiment"] == experiment) & (rows["dataset"] == study.name)]
    rows = rows[(rows["effect"] == "data") & (rows["method"] == pair[0])]
    if not (rows["baseline"] == pair[1]).any():
        return None
    names = {"dataset": study.name, "experiment": experiment}
    return verdicts.say(*pair, "data", **names) or "none yet"


def said(study, pair):
    own, sets = (verdict(study, pair, of) for of in ("data_efficiency", "face_sets"))
    return [
        f"*{pair[0]}* against *{pair[1]}*",
        *([f"Verdict: {own}."] if own else []),
        *([f"Verdict with a set of faces for each seed: {sets}."] if sets else []),
        f"{curves(study, *pair)}.",
    ]


def found(study, *chosen):
    """What is said of the chosen pairs; of all pairs of a data set that has none of these."""
    if study is None:
        return None
    pairs = data_efficiency.pairs(study.runs)
    pairs = [pair for pair in chosen if pair in pairs] or pairs
    return Findings(
        *(said(study, pair) for pair in pairs), title=f"{study.source.title}:"
    )


found(
    molecules,
    ("RnC frozen, closed form", "L1 end to end, closed form, lr 0.001"),
    ("RnC frozen, L1", "L1 end to end, lr 0.001"),
    ("RnC fine-tuned, L1", "L1 end to end, lr 0.001"),
)

# %% tags=["hide-input"]
found(
    faces,
    ("RnC frozen, closed form, tuned", "L1 end to end, closed form, lr 0.01"),
    ("RnC frozen, L1", "L1 end to end"),
    ("RnC frozen, L1", "L1 end to end, lr 0.01"),
)


# %% tags=["hide-input"]
def beside(lead, *methods):
    """Their mean errors with the fewest samples and with all, on each data set that has them."""
    texts = []
    for study in studies:
        if study is None or not set(methods) <= set(study.methods):
            continue
        few, *_, many = [
            part.groupby("method")["test_mae_raw"].mean()
            for _, part in by_fraction(study)
        ]
        least, *_, most = [f"{fraction:.0%}" for fraction, _ in by_fraction(study)]
        errors = listed([f"{few[m]:.2f} for *{m}*" for m in methods])
        later = listed([f"{many[m]:.2f}" for m in methods])
        texts.append(
            f"{study.source.title}, in {study.unit}: {errors} with {least} of the training set, "
            f"{later} with {most}."
        )
    return [f"**{lead}**", *texts] if texts else None


compared = [
    beside(
        "Test MAE with a trained regressor and with a regressor in closed form.",
        "RnC frozen, L1",
        "RnC frozen, closed form",
    ),
    beside(
        "Test MAE of end-to-end training at the published rate and at a lower rate.",
        "L1 end to end",
        "L1 end to end, lr 0.01",
    ),
]
Findings(*compared, title="Beside that:") if any(compared) else None

# %% [markdown]
# Why a trained regressor may lose: epochs are held fixed, so with few samples it takes few steps
# ({numref}`efficiency-steps`, {numref}`efficiency-steps-faces`). A regressor in closed form takes none.
#
# The limits: a single data set of molecules, which have no random views, so that an epoch has each molecule in a single
# batch; synthetic faces, which Rank-N-Contrast sees in more views an epoch than end-to-end training does; epochs and
# not steps are held fixed; and nothing was tuned for the smaller fractions, for any method.
