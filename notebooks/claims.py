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
# # The verdicts
#
# The paper {cite:p}`zha2023rnc`, and a course project that extended it to molecules, make claims about Rank-N-Contrast.
# For each claim this page has the measured effect and a verdict, by the rule of {doc}`../deciding`. *Holds*: the effect
# is found. *Does not hold*: it is found in the other direction. *Practically equal*: it is smaller than what would
# matter. *Undecided*: none of these can be said. Verdicts are corrected for the number of comparisons and intervals are
# not, so an interval that leaves out zero can be undecided.

# %% tags=["parameters", "hide-input"]
profile: str = "paper"  # of the records: paper, quick or smoke
results_dir: str = None  # folder of the run records; None: book/results

# %% tags=["remove-cell"]
from rnclib.parameters import Folder, check_parameters

check_parameters(
    globals(), profile=["paper", "quick", "smoke"], results_dir=[None, Folder]
)

# %% tags=["hide-input"]
from pathlib import Path

import pandas as pd

from rnclib import plots, results, statistics
from rnclib.chapters import planned
from rnclib.chapters.claims import CONTROLS
from rnclib.claims import judge
from rnclib.forest import forest
from rnclib.notebook import Verdicts, stored
from rnclib.report import (
    Download,
    Figure,
    Findings,
    Notice,
    Table,
    glue,
    p_value,
    probability,
    short_training,
)
from rnclib.tables import error_table

plots.use_style()
root = results_dir or results.results_dir()
verdicts = Verdicts(profile, results_dir)
every = verdicts.frame
primary = every[every["primary"]]
kinds = {
    "esol": "Molecules (ESOL, measured)",
    "synthetic": "Faces (synthetic, not photographs)",
}
outcomes = ("holds", "does not hold", "practically equal", "undecided", "not measured")


def outcome(verdict, rows):
    """The claims with a verdict, for a sentence."""
    said = [row.line for row in rows.itertuples() if row.verdict == verdict]
    return f"{verdict.capitalize()}: {'; '.join(said)}" if said else None


def sentence(name):
    rows = primary[primary["dataset"] == name]
    return ". ".join(filter(None, (outcome(one, rows) for one in outcomes))) + "."


Findings(*(f"**{title}.** {sentence(name)}" for name, title in kinds.items()))

# %% [markdown]
# What “the paper” claims, it claims mainly of photographs. Nothing here is measured on photographs.

# %% tags=["hide-input"]
overview = Figure(
    forest(primary, kinds),
    "The primary comparisons, in units of the margin of practical equality: effect with its 95% interval, and verdict. "
    f"Arrows point to what lies beyond the axis.{short_training(profile)}",
    name="claims-forest",
    alt="Forest plot: one line for each primary comparison, with an interval and its verdict, in two panels.",
    phone=forest(primary, kinds, narrow=True),
)
overview

# %% [markdown]
# ## The primary comparisons


# %% tags=["hide-input"]
baseline = {
    "synthetic": " The end-to-end rate of 0.01 had a lower validation error than the settings that its search chose, "
    "so it is the stronger baseline."
}


def primary_table(name, title):
    rows = primary[primary["dataset"] == name]
    margins = [
        "–"
        if row.n == 0
        else f"{row.margin_low:.3f} to {row.margin_high:.3f}".replace("-", "−")
        for row in rows.itertuples()
    ]
    pairs = "; ".join(
        dict.fromkeys(
            f"“{row.method}” against “{row.baseline}”" for row in rows.itertuples()
        )
    )
    return Table(
        rows.assign(margin=margins),
        f"{title}: the primary comparisons, with 95% intervals. p values, of no difference and of practical equality, "
        "are corrected together; the probability of practical equality is Bayesian ({doc}`../deciding`). "
        f"Compared: {pairs}.{baseline.get(name, '')}{short_training(profile)}",
        name=f"claims-{name}",
        columns={
            "line": "Claim",
            "said": "Verdict",
            "shown": "Effect",
            "margin": "Margin",
            "n": "Pairs",
            "p_corrected": "p, different",
            "p_equal_corrected": "p, equal",
            "within": "Probability equal",
            **({"lost": "Lost"} if rows["lost"].any() else {}),
        },
        format={
            "p_corrected": p_value,
            "p_equal_corrected": p_value,
            "within": probability,
        },
        align={"margin": "right"},
    )


primary_table("esol", kinds["esol"])

# %% tags=["hide-input"]
primary_table("synthetic", kinds["synthetic"])

# %% [markdown]
# ## What these runs can find
#
# The smallest effect that a comparison finds with a probability of 0.8, if the spread of its differences stays as it
# is, without a correction for the other comparisons. Ratios are given as such: a ratio of 1.25 stands for 0.80 too.
# For a comparison that is undecided, the table says how many pairs would decide it if mean and spread stayed as they
# are, whatever the others say. That is a guide for a new study, not a reason to add runs to this one. *No number*: test
# sets overlap, so more splits of these data might never decide it. *Not read*: no primary comparison of the claim is
# decided. Where there are ten pairs or fewer, the exact sign-flip test stands beside the t. It supposes independent
# pairs, so where they are correlated its p value is too small; with five pairs it cannot fall below 0.0625.

# %% tags=["remove-input", "fold"]
needs = {float("inf"): "no number"}
Table(
    every[every["n"] > 0].assign(
        needed=lambda frame: [
            "not read" if unread else "" if pd.isna(n) else needs.get(n, f"{n:.0f}")
            for n, unread in zip(frame["needed"], frame["unread"], strict=True)
        ],
        role=lambda frame: frame["primary"].map(
            {True: "primary", False: "exploratory"}
        ),
    ),
    "What each comparison can find: the smallest effect that it finds with a probability of 0.8 "
    "(uncorrected), with the pairs there are and with twice as many, correlation between any two pairs, p values of "
    "the t (uncorrected) and of the sign-flip test, and the number of pairs that would decide what is undecided. "
    f"{short_training(profile)}",
    name="claims-power",
    columns={
        "text": "Claim",
        "data": "Measured on",
        "pair": "Methods",
        "role": "Comparison",
        "n": "Pairs",
        "correlation": "Correlation",
        "detectable": "Finds",
        "detectable_twice": "With twice the pairs",
        "p": "p (t)",
        "p_sign_flip": "p (signs)",
        "needed": "Would need",
    },
    format={"correlation": ".2f", "p": p_value, "p_sign_flip": p_value},
)

# %% [markdown]
# ## The runs on sets of faces
#
# Sets of synthetic faces are drawn for these comparisons. Each method is trained on each set, and tested on
# its test set, on the same faces corrupted, and on a test set of people whom training has not seen.

# %% tags=["hide-input"]
faces = stored("face_sets", "synthetic", profile, results_dir, complete=False)
plain = faces and faces.where(corruptions=True)
if plain is None:
    shown = Notice("No runs on sets of faces are stored in this profile.")
else:
    corrupted = results.corrupted(plain.records)
    mean = (
        corrupted[corrupted["severity"] > 0].groupby(["method", "seed"])["mae"].mean()
    )
    runs = (
        plain.frame.set_index(["method", "seed"], drop=False)
        .assign(corrupted=mean)
        .reset_index(drop=True)
    )
    others = results.on_new_people(plain.records)
    table = error_table(
        runs,
        {
            "test_mae_raw": "Test set",
            "corrupted": "Corrupted",
            "test_rank_agreement": "Order",
        },
    )
    new_people = error_table(others, {"test_mae_raw": "New people"}).set_index(
        "Method"
    )["New people"]
    shown = Table(
        table.assign(**{"New people": table["Method"].map(new_people)}).rename(
            columns={"Splits": "Sets"}
        ),
        "Test MAE in years on each set, on corrupted faces (mean over kinds and severities) and on new people, and "
        "rank agreement of features and ages: mean ± half its 95% interval over the sets that are made. Synthetic "
        f"faces.{short_training(profile)}",
        name="claims-faces",
    )
shown

# %% [markdown]
# Two methods are trained on fewer of these faces too, and on faces whose ages lie around two peaks, which are then
# tested on the ages between.

# %% tags=["hide-input"]
if plain is None:
    shown = None
else:
    less = every[every["link"] == "claims-faces-less"].iloc[0]
    pair = [less["method"], less["baseline"]]
    frame = faces.frame[faces.frame["method"].isin(pair)]
    peaks = faces.where(holes="two peaks")
    tests = results.seen_and_unseen(peaks.records) if peaks else None
    sets = {
        f"{share:.0%}": frame[frame["fraction"] == share]
        for share in sorted(frame["fraction"].dropna().unique())
    }
    sets["100%"] = plain.frame[plain.frame["method"].isin(pair)]
    if tests is not None:
        sets["Between two peaks"] = tests[tests["targets"] == "between"]
    errors = [
        error_table(its, {"test_mae_raw": name}).set_index("Method")[name]
        for name, its in sets.items()
        if len(its)
    ]
    shown = Table(
        pd.concat(errors, axis=1).rename_axis("Method").reset_index(),
        "Test MAE in years by the part of the training faces that is used, and between two peaks of the ages in "
        f"training: mean ± half its 95% interval over {frame['seed'].nunique()} sets. Synthetic faces."
        f"{short_training(profile)}",
        name="claims-faces-less",
    )
shown

# %% [markdown]
# ## All comparisons
#
# The exploratory ones widen the picture. They are corrected among those of their claim, and read only where a primary
# comparison of that claim is decided.

# %% tags=["hide-input"]
Table(
    every.assign(
        role=every["primary"].map({True: "primary", False: "exploratory"}),
        table=[
            "–"
            if row.verdict == "not measured"
            else ", ".join(
                f"{{numref}}`{name}`"
                for name in (row.link, row.figure)
                if isinstance(name, str)
            )
            if profile == "paper"
            else row.experiment.replace("_", " ")
            for row in every.itertuples()
        ],
    ),
    "All comparisons: claim, data, methods, effect with its 95% interval, verdict, p value corrected within its "
    "family, number of pairs, kind of comparison, who makes the claim, and the table and figure that show it."
    f"{short_training(profile)}",
    name="claims-all",
    columns={
        "text": "Claim",
        "data": "Measured on",
        "pair": "Methods",
        "shown": "Effect",
        "said": "Verdict",
        "p_corrected": "p",
        "n": "Pairs",
        "role": "Comparison",
        "source": "By",
        "table": "Shown in",
    },
    format={"p_corrected": p_value},
)

# %% tags=["hide-input"]
Download(
    every.drop(columns=["said", "runs_are", "line"]),
    "verdicts.csv",
    "The same as a file, with every number in full",
)

# %% [markdown]
# ## How often the rule errs
#
# Simulated differences that are normal and correlated say how often the rule is wrong. Where the correlation is as the
# test takes it to be, intervals should cover in 95% of the cases and tests err in 5%; where splits share more than
# that, they err more often.

# %% tags=["remove-input", "fold"]
path = results.folder(root, "paper", "simulation") / "verdicts.json"
simulated = pd.read_json(path, typ="series") if path.is_file() else None
Table(
    pd.DataFrame(simulated["one"]),
    "One comparison, no difference: how often the 95% interval covers zero, and how often the test finds a difference, "
    "by number of pairs, correlation between them, and the correlation that the test assumes. "
    f"Simulation, {simulated['repeats']} draws a row.",
    name="claims-errors-one",
    columns={
        "n": "Pairs",
        "correlation": "Correlation",
        "assumed": "Assumed",
        "coverage": "Covers",
        "type_1": "Finds",
    },
    format={"correlation": ".2f", "assumed": ".2f", "coverage": ".1%", "type_1": ".1%"},
) if simulated is not None else Notice("The simulation has no record here.")

# %% tags=["hide-input"]
Table(
    pd.DataFrame(simulated["family"]),
    "The primary comparisons together: how often at least one is called different though none is, and how often one "
    "is called practically equal though all differ by the margin; by what the correlation of splits has beyond the "
    f"assumed. Simulation of independent comparisons, {simulated['family_repeats']} draws a row.",
    name="claims-errors-family",
    columns={
        "added": "Correlation, beyond the assumed",
        "different": "Different",
        "equal": "Practically equal",
    },
    format={"added": ".1f", "different": ".1%", "equal": ".1%"},
) if simulated is not None else None

# %% [markdown]
# ## Nothing to learn, nothing found
#
# A negative control: the targets of training and validation set change places at random, so inputs say nothing about
# them. “Holds” against the training mean would be a false alarm. A method that fits the noise more closely has the
# higher error, so two methods may well differ.

# %% tags=["hide-input"]
control = judge(CONTROLS, planned, root=root, profile=profile)
control["pair"] = control["method"] + " against " + control["baseline"]
Table(
    control,
    "ESOL with shuffled targets: each method against the training mean, and against end-to-end training, by the same "
    f"rule.{short_training(profile)}",
    name="claims-control",
    columns={
        "pair": "Methods",
        "shown": "Effect",
        "p_corrected": "p",
        "n": "Pairs",
        "verdict": "“Lower error”",
    },
    format={"p_corrected": p_value},
) if control["complete"].any() else Notice(
    "The negative control has no runs in this profile."
)

# %% [markdown]
# ## Where differences between runs come from
#
# Every split is trained with each of several seeds of initial weights, which also set the order of the samples.
# Two-way random effects tell the variance of test MAE between splits, between such seeds, and the rest, which is
# chance and the interplay of both. The last row is of the differences between the two methods.

# %% tags=["hide-input"]
grid = stored("crossed", "esol", profile, results_dir)
cells = {
    method: part.pivot(index="seed", columns="weight_seed", values="test_mae_raw")
    for method, part in (grid.frame.groupby("method", sort=False) if grid else ())
}
if (
    any(min(cell.shape) < 2 or cell.isna().any(axis=None) for cell in cells.values())
    or not cells
):
    shown = Notice("There are not enough crossed runs in this profile.")
else:
    one, other = cells
    cells[f"{other} minus {one}"] = cells[other] - cells[one]
    parts = (
        pd.DataFrame(
            {name: statistics.variance_components(cell) for name, cell in cells.items()}
        ).T
        ** 0.5
    )
    shown = Table(
        parts.rename_axis("method").reset_index(),
        "Standard deviation of test MAE in log mol/L from the split, from the seed of weights and order, and the "
        f"rest: {cells[one].shape[0]} splits with {cells[one].shape[1]} such seeds each. {grid.caption}.",
        name="claims-variance",
        columns={
            "method": "Method",
            "split": "Split",
            "weights": "Weights and order",
            "rest": "Rest",
        },
    )
shown

# %% [markdown]
# ## What another machine changes
#
# Runs on molecules that the primary comparisons need, and that had been made on two kinds of machines, were made anew
# on one. Configuration, split and seed are the same, processor and version of PyTorch are others. The differences are
# the noise floor of these experiments: what rounding in another order can do in the end.

# %% tags=["hide-input"]
archive = stored("esol", "esol", profile, str(Path(root) / "archive"), complete=False)
if archive is None:
    shown = Notice("No runs of two machines are stored in this profile.")
else:
    now = stored("esol", "esol", profile, results_dir, complete=False)
    noise = statistics.between_machines(now.records, archive.records, "test_mae_raw")
    shown = Table(
        noise.reset_index(),
        "Test MAE in log mol/L on another machine minus that in this book, same configuration, split and seed: "
        f"number of runs, mean and standard deviation. {now.source.title}.{short_training(profile)}",
        name="claims-machines",
        columns={
            "method": "Method",
            "n": "Runs",
            "mean": "Mean",
            "sd": "Standard deviation",
        },
        format={"mean": "+.3f"},
    )
shown

# %% tags=["remove-input"]
# what the book's first page shows
on = {"esol": "On molecules", "synthetic": "On synthetic faces"}
in_short = {"holds": "yes", "does not hold": "no, the other way round"}


def decided(effect):
    """What the primary comparisons of an effect decide, in sentences."""
    rows = primary[
        (primary["effect"] == effect) & (primary["verdict"] != "not measured")
    ]
    told = {name: [] for name in rows["dataset"]}
    for row in rows.itertuples():
        # what sets it apart from others of its claim
        which = row.line.partition(" (")[2].removesuffix(")")
        verdict = in_short.get(row.verdict, row.verdict)
        told[row.dataset].append(
            f"{verdict}{f' with {which}' * bool(which)} ({row.shown})"
        )
    return (
        " ".join(f"{on[name]}: {'; '.join(texts)}." for name, texts in told.items())
        or "Not measured."
    )


glue(overview=overview, error=decided("difference"), order=decided("agreement"))
