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
# A network that has learnt to order its inputs should need fewer of them. The paper {cite:p}`zha2023rnc` reports that Rank-N-Contrast loses less
# than end-to-end training when most of the training part is taken away. Does it on molecules?

# %% tags=["parameters"]
dataset: str = (
    "auto"  # auto (ESOL if to be had), esol, standin, synthetic (drawn faces) or agedb
)
data_dir: str = None  # agedb: the folder that holds AgeDB/*.jpg
profile: str = "paper"  # paper (published), quick (minutes), smoke
n_seeds: int = None  # splits of molecules, seeds of faces; None: the profile's
device: str = "cpu"  # cpu, cuda or auto
results_dir: str = None  # folder of the run records; None: book/results
refresh: bool = False  # train every run anew

# %% tags=["remove-cell"]
from rnclib.report import check_parameters

check_parameters(
    globals(),
    dataset=["auto", "esol", "standin", "synthetic", "agedb"],
    data_dir=[None, str],
    profile=["paper", "quick", "smoke"],
    n_seeds=[None, (1, 100)],
    device=["cpu", "cuda", "auto"],
    results_dir=[None, str],
    refresh=bool,
)

# %% tags=["hide-input"]
import pandas as pd

from rnclib import plots, results
from rnclib.experiment import resolve_dataset, run_grid
from rnclib.protocols import END_TO_END, efficiency_grid
from rnclib.report import Figure, Notice, Table, data_notice, glue

plots.use_style()
dataset = resolve_dataset(dataset, profile, results_dir)
grid = run_grid(
    efficiency_grid(
        dataset=dataset, profile=profile, n_seeds=n_seeds, data_dir=data_dir
    ),
    results_dir=results_dir,
    refresh=refresh,
    device=device,
)
print(f"{dataset}, {profile}: {grid}")
runs = results.frame(grid.records)
runs["fraction"] = runs["fraction"].fillna(1.0)
unit, kind = grid.records[0]["data"]["unit"], grid.records[0]["split"]
baseline = END_TO_END[dataset]
others = [method for method in runs["method"].unique() if method != baseline]
names = {"esol": "ESOL", "agedb": "AgeDB", "synthetic": "Synthetic drawn faces"}
source = f"{names.get(dataset, 'Synthetic stand-in')}, {kind} split, profile {profile}"
samples = "faces" if dataset in ("synthetic", "agedb") else "molecules"
data_notice(dataset, profile)

# %% [markdown]
# ## What is compared
#
# From the training part of each split, nested subsets are drawn: each holds all smaller ones. Validation and test stay the same. Every method is
# trained on each subset from the beginning; targets are standardised anew where the method standardises them, so errors are given in the unit of the data.
#
# On molecules the contrastive encoder gets three regressors: the published two, by gradient descent on the frozen encoder and with fine-tuning, and ridge regression on its frozen
# features (**RnC, closed form**; the validation part chooses the penalty). The third is there because of the next point.
#
# **Epochs are held fixed**, at the number that the full training part gets; a smaller subset gets fewer steps, for all methods alike. Batches are as large as
# the subset where it is smaller than the published batch.
#
# End-to-end training is the one that does not get stuck: on molecules that is L1 at a tenth of the published learning rate ({doc}`esol` compares both). Its rate
# was chosen for it on full training parts; Rank-N-Contrast has the published settings throughout.
#
# ## Errors

# %% tags=["hide-input"]
Figure(
    plots.errors_by_size(
        runs, "test_mae_raw", label=f"test MAE, {unit}", samples=samples
    ),
    f"Test error against the number of training {samples}: mean over {runs['seed'].nunique()} splits with its 95% interval. {source}.",
    name="efficiency-errors",
    alt="Lines of test error against training size on logarithmic axes, one per method, with bands.",
)

# %% tags=["hide-input"]
table = pd.concat(
    [
        results.error_table(part, {"test_mae_raw": "Test MAE"}).assign(
            Share=f"{fraction:.0%}", Samples=int(part["n_train"].iloc[0])
        )
        for fraction, part in runs.groupby("fraction")
    ]
).pivot_table(
    index=["Share", "Samples"],
    columns="Method",
    values="Test MAE",
    aggfunc="first",
    sort=False,
)
Table(
    table[[baseline, *others]].reset_index(),
    f"Test MAE in {unit} by share of the training part: mean over {runs['seed'].nunique()} splits ± half its 95% interval. Splits share molecules, and the "
    "intervals are widened for that as if every run had used its whole training part: the subsets share less, so this errs on the wide side. "
    f"{source}.",
    name="efficiency-table",
)

# %% [markdown]
# ## On the same subset: the differences

# %% tags=["hide-input"]
comparison = pd.concat(
    [
        results.compare(part, "test_mae_raw", baseline)
        .reset_index()
        .assign(Share=f"{fraction:.0%}")
        for fraction, part in runs.groupby("fraction")
    ]
)
comparison["corrected"] = results.holm(comparison["p"]).to_numpy()
comparison = comparison.sort_values("method", kind="stable", ascending=False)


def p_value(p):
    return "<0.001" if p < 0.001 else f"{p:.3f}"


Table(
    comparison,
    f"Test MAE minus that of {baseline} on the same subset, in {unit}: mean with its 95% interval, p value corrected for all comparisons of this table (Holm), "
    f"share of splits on which the method is better. {source}.",
    name="efficiency-differences",
    columns={
        "method": "Method",
        "Share": "Share",
        "mean": "Difference",
        "low": "Low",
        "high": "High",
        "corrected": "p, corrected",
        "better": "Better on",
        "n": "Splits",
    },
    format={
        "mean": "+.3f",
        "low": "+.3f",
        "high": "+.3f",
        "corrected": p_value,
        "better": ".0%",
    },
)

# %% [markdown]
# ## How much less data
#
# Over the range of a figure like {numref}`efficiency-errors`, error falls along a nearly straight line. If two methods' lines are parallel, the vertical gap between them is also
# a horizontal one: the factor by which one method needs more samples for the same error. On each split the common slope is fitted and the gap turned
# into that factor; below 1, the method needs less data than end-to-end training.

# %% tags=["hide-input"]
ratios = pd.concat(
    [
        results.data_ratio(runs, "test_mae_raw", baseline, method)
        .reset_index()
        .assign(method=method)
        for method in others
    ]
)
ratios["Share"] = [
    "all shares" if fraction == "all" else f"{fraction:.0%}"
    for fraction in ratios["fraction"]
]
Table(
    ratios,
    f"Training {samples} that a method needs for the error of {baseline}, as a multiple of what that needs: geometric mean over splits with its 95% interval, "
    f"from the gap at one share, and from the mean gap. {source}.",
    name="efficiency-ratio",
    columns={
        "method": "Method",
        "Share": "Gap at",
        "ratio": "Ratio",
        "low": "Low",
        "high": "High",
        "n": "Splits",
    },
    format={"ratio": ".2f", "low": ".2f", "high": ".2f"},
) if len(ratios) else Notice("More data did not help on any split.")

# %% [markdown]
# ## Where the runs were made

# %% tags=["hide-input"]
Table(
    results.machines(grid.records),
    f"Processors and versions behind this page. {source}.",
    name="efficiency-machines",
    columns={
        "cpu": "Processor",
        "torch": "torch",
        "runs": "Runs",
        "hours": "Hours of training",
    },
    format={"hours": ".1f"},
)

# %% tags=["remove-input"]
# what the book's first page quotes
glue(n_splits=int(runs["seed"].nunique()))
for row in ratios[ratios["Share"] == "all shares"].dropna(subset=["low"]).itertuples():
    name = (
        "".join(c if c.isalnum() else "_" for c in row.method.lower())
        .strip("_")
        .replace("__", "_")
    )
    glue(**{f"ratio_{name}": f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]"})
