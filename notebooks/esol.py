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
# # ESOL: does ordering molecules by solubility help to predict it?
#
# Rank-N-Contrast {cite:p}`zha2023rnc` was published mainly for images. A course project carried it over to graphs.
# There a graph network learns to place molecules in the order of their solubility in water, and a linear regressor on
# its features predicts the value. On one random split of ESOL {cite:p}`delaney2004esol` the project reported lower
# errors than training end to end. Is that the method, or the split?
#
# This chapter runs the course project's protocol on many splits, with the same splits for every method, and asks what
# survives.

# %% tags=["parameters"]
loss: str = "all"  # all, l1, l2 or huber
profile: str = "paper"  # paper (published), quick (minutes), smoke
dataset: str = "auto"  # auto (ESOL if to be had), esol or standin
split: str = "both"  # both, random or scaffold
n_seeds: int = None  # splits of each kind; None: the profile's
results_dir: str = None  # folder of the run records; None: book/results
refresh: bool = False  # train every run anew

# %% tags=["remove-cell"]
from rnclib.parameters import check_parameters

check_parameters(
    globals(),
    loss=["all", "l1", "l2", "huber"],
    profile=["paper", "quick", "smoke"],
    dataset=["auto", "esol", "standin"],
    split=["both", "random", "scaffold"],
    n_seeds=[None, (1, 100)],
    results_dir=[None, str],
    refresh=bool,
)

# %% tags=["hide-input"]
from rnclib import plots, results, statistics
from rnclib.chapters import esol
from rnclib.notebook import open_experiment
from rnclib.report import (
    Figure,
    Notice,
    Table,
    differences_table,
    error_table,
    glue,
    stuck_table,
)

(study,) = open_experiment(
    "esol",
    dataset,
    profile=profile,
    split=None if split == "both" else split,
    loss=loss,
    n_seeds=n_seeds,
    results_dir=results_dir,
    refresh=refresh,
)
main = study.where(split="scaffold" if split == "scaffold" else "random")
other = study.where(split="scaffold") if split == "both" else None
published = esol.PUBLISHED if study.name == "esol" else None


def end_to_end(study):
    """End-to-end training as published, and at a rate at which it trains reliably."""
    found = [
        m for m in ("L1 end to end", "L1 end to end, lr 0.001") if m in study.methods
    ]
    rest = ("L2 end to end, lr 0.0001", "Huber end to end")
    return found or [m for m in rest if m in study.methods]


baselines = end_to_end(main)
fine_tuned = [f"RnC fine-tuned, {loss}" for loss in ("L1", "L2", "Huber")]
shown = [m for m in (*baselines, "RnC frozen, L1", *fine_tuned) if m in main.methods]

# %% [markdown]
# ## The protocol
#
# A graph isomorphism network {cite:p}`xu2019gin` of five layers turns a molecule into 200 features. Three ways to train
# it are compared. Each method is called by how it is trained and by the loss of its regressor, which is L1, L2 or
# Huber:
#
# - *L1 end to end* (the course project's *normal-L1*): network and linear head are trained together.
# - *RnC frozen, L1*: first Rank-N-Contrast trains the encoder alone; then the linear head is trained on its frozen
#   features.
# - *RnC fine-tuned, L1*: the same, but the second stage trains the encoder further.
#
# The course project trains end to end with L1 only; L2 and Huber get L1's settings here. With the protocol's learning
# rate of 0.01, L2 diverges at once and L1 gets stuck in a good part of the runs. So each has a second row, ours, at a
# smaller rate at which it trains: *L2 end to end, lr 0.0001* and *L1 end to end, lr 0.001*. These are round numbers
# that no search chose; the search in {doc}`methods` later took 0.0017 for L1. The other methods got no second rate,
# though *Huber end to end* and *RnC fine-tuned, L2* have the same troubles.
#
# The split, the initial weights and the order of the samples are drawn from one seed per split, the same for every
# method. The validation set chooses the weights of the stage that fits the target, and a contrastive encoder keeps its
# last ones; the test set is predicted once per run. Targets are standardised with the mean and standard deviation of
# the training set. {doc}`../data` describes the splits.
#
# The published description leaves two things open. Here validation errors are those of the selected weights, and every
# loss is selected by its own validation value.
#
# ## Errors


# %% tags=["hide-input"]
def errors(metric, name, text):
    columns = {f"test_{metric}": "Test", f"val_{metric}": "Validation"}
    beside = (
        "; and the course project's value for its one split, which lies in, below or above "
        "the spread of our single splits"
    )
    return Table(
        error_table(main.frame, columns, published),
        f"{text} of the training target: mean over splits ± half its 95% interval"
        f"{'' if published is None else beside}. Splits: “11 of 20” if the others "
        "diverged. Validation errors are those of the weights that they selected, "
        "hence optimistic. "
        f"{main.caption}.",
        name=name,
    )


errors("mae", "esol-mae", "Mean absolute error (MAE) in standard deviations")

# %% tags=["hide-input"]
Figure(
    plots.errors(
        main.frame,
        "test_mae",
        label="test MAE, standard deviations of the target",
        published=None if published is None else published["test_mae"],
    ),
    "Test error of every run that did not diverge. Dots: single splits. "
    + (
        ""
        if published is None
        else "Diamonds: what the course project reports for its one split. "
    )
    + f"{main.caption}.",
    name="esol-errors",
    alt="Dot plot of the test error of each method over splits, with means, intervals and "
    "published values.",
)

# %% tags=["hide-input"]
errors("rmse", "esol-rmse", "Root mean squared error (RMSE) in standard deviations")

# %% tags=["hide-input"]
errors("mse", "esol-mse", "Mean squared error (MSE) in squared standard deviations")

# %% [markdown]
# The same errors in log mol/L:

# %% tags=["hide-input"]
Table(
    error_table(
        main.frame,
        {"test_mae_raw": "MAE", "test_rmse_raw": "RMSE", "test_mse_raw": "MSE"},
    ),
    "Test errors in log mol/L (MSE: squared): mean ± half its 95% interval. "
    f"{main.caption}.",
    name="esol-test-raw",
)

# %% tags=["hide-input"]
Table(
    error_table(
        main.frame,
        {"val_mae_raw": "MAE", "val_rmse_raw": "RMSE", "val_mse_raw": "MSE"},
    ),
    "Validation errors in log mol/L (MSE: squared): mean ± half its 95% interval. "
    f"{main.caption}.",
    name="esol-validation-raw",
)

# %% [markdown]
# ## Runs that get stuck
#
# Some trainings never leave a plateau. The first steps, at the protocol's learning rate with momentum, throw the
# network into a region where it predicts little more than a coarse function of the molecule's size. The validation set
# shows it, so these runs can be told apart without a look at the test set. Here a run counts as stuck if its validation
# MAE is above half a standard deviation.

# %% tags=["hide-input"]
Table(
    stuck_table(main.frame),
    "Runs whose validation MAE stayed above 0.5, runs whose loss became infinite, and the "
    "test MAE of the others, in standard deviations of the target: mean ± half its 95% interval, and median. "
    f"{main.caption}.",
    name="esol-stuck",
)

# %% [markdown]
# ## Same split, same seed: the differences
#
# A split that is hard for one method is hard for all. So the question is not where the means lie, but how each method
# differs from end-to-end training *on the same split*. Random splits of one data set have most of their molecules in
# common, and the intervals are widened for that {cite:p}`nadeau2003inference`: the variance over $J$ splits is
# multiplied by $1/J + n_\text{test}/n_\text{train}$.

# %% tags=["hide-input"]
comparisons = {
    baseline: statistics.compare(main.frame, "test_mae", baseline)
    for baseline in baselines
}


def differences(comparison, baseline, name, study):
    return differences_table(
        comparison.reset_index(),
        f"Test MAE minus that of “{baseline}” on the same split, in standard deviations of "
        "the target: mean with its 95% interval, p value corrected for all comparisons of "
        "this table (Holm), fraction of splits on which the method is better, number of "
        "splits, and number of further runs that diverged. These are left out, which "
        f"flatters the method. {study.caption}.",
        name=name,
        labels={"method": "Method"},
        runs="splits",
        also=["better", "diverged"],
    )


nothing = Notice("These parameters leave no end-to-end run to compare with.")
differences(
    comparisons[baselines[0]], baselines[0], "esol-differences", main
) if baselines else nothing

# %% [markdown]
# Where some runs of end-to-end training get stuck, differences from it are large and uncertain. Here are the
# differences from end-to-end training at the rate at which it trains:

# %% tags=["hide-input"]
differences(
    comparisons[baselines[1]], baselines[1], "esol-differences-slower", main
) if len(baselines) > 1 else Notice(
    "These parameters leave no second end-to-end method."
)

# %% tags=["hide-input"]
Figure(
    plots.differences(
        comparisons[baselines[-1]],
        label=f"test MAE minus that of {baselines[-1]}, same split (left is better)",
    ),
    f"Paired differences from “{baselines[-1]}” with 95% intervals. Runs that diverged are "
    f"left out. {main.caption}.",
    name="esol-differences-figure",
    alt="Interval plot of each method's difference in test error from end-to-end training.",
) if baselines else nothing

# %% tags=["hide-input"]
said = {
    "lower": "lower error for",
    "higher": "higher error for",
    "undecided": "undecided:",
}
Notice(
    " ".join(
        f"**Against “{baseline}”:** "
        + "; ".join(
            f"{text} {', '.join(f'“{m}”' for m in verdicts.index[verdicts == verdict])}"
            for verdict, text in said.items()
            if (verdicts == verdict).any()
        )
        + "."
        for baseline, comparison in comparisons.items()
        if len(verdicts := statistics.verdicts(comparison))
    )
    + f" {main.caption}.",
    kind="important",
    title="What is decided, corrected for the number of comparisons",
)

# %% [markdown]
# ## Where the errors are

# %% tags=["hide-input"]
predictions = results.predictions(main.records)
Figure(
    plots.parity(predictions, shown, unit=main.unit),
    "Predicted against measured solubility, all test molecules of all runs that did not "
    f"diverge. {main.caption}.",
    name="esol-parity",
    alt="Scatter plots of predicted against measured solubility, one panel per method.",
    format="png",
)

# %% tags=["hide-input"]
Figure(
    plots.error_by_range(
        predictions, shown, [-12, -8, -6, -4, -2, 0, 2], unit=main.unit
    ),
    "Test error by range of solubility: mean over splits, and the middle half of the splits "
    f"as a band. {main.caption}.",
    name="esol-ranges",
    alt="Lines of mean absolute error over ranges of solubility, one per method.",
)

# %% [markdown]
# ## How they train

# %% tags=["hide-input"]
curves = results.curves(main.records)
Figure(
    plots.learning_curves(curves[curves["stage"] != "encoder"], shown),
    "Validation loss of the stage that fits the target, each with its own loss. Thin: every "
    "run that did not diverge. Thick: their median. "
    f"{main.caption}.",
    name="esol-curves",
    alt="Validation loss against epochs, one panel per method.",
)

# %% [markdown]
# ## What the encoder has learnt
#
# The paper's picture of a good representation is one in which the samples lie in the order of their targets. Two things
# show that: the first two principal components of the features (found on the training set), and *rank agreement*. The
# latter is Spearman's correlation between label distance and feature distance as seen from one test molecule, averaged
# over all of them.

# %% tags=["hide-input"]
views = {
    m: v
    for m in (*baselines[:1], *(f"RnC frozen, {of}" for of in ("L1", "L2", "Huber")))
    if (v := results.view(main.records, m, results_dir)) is not None
}
Figure(
    plots.representations(
        dict(list(views.items())[:2]), label=f"measured solubility, {main.unit}"
    ),
    "First two principal components of the features in split 0, in units of the first one's "
    f"standard deviation. {main.caption}.",
    name="esol-representations",
    alt="Scatter plots of two principal components for two encoders, training and test "
    "molecules, coloured by solubility.",
    format="png",
)

# %% tags=["hide-input"]
Table(
    error_table(
        main.frame.dropna(subset=["test_rank_agreement"]),
        {"val_rank_agreement": "validation", "test_rank_agreement": "test"},
    ),
    "Rank agreement of the final encoder: mean ± half its 95% interval (1: perfect order). "
    f"{main.caption}.",
    name="esol-rank-agreement",
)

# %% [markdown]
# ## Molecules of another build: the scaffold split
#
# Here the test set holds ring systems that training has not seen. {doc}`../data` says what this split can never test.

# %% tags=["hide-input"]
Table(
    error_table(
        other.frame,
        {
            "test_mae": "Test MAE",
            "test_rmse": "Test RMSE",
            "test_mae_raw": "Test MAE, log mol/L",
        },
    ),
    "Test errors on the scaffold splits, in standard deviations of the training target "
    f"unless said otherwise: mean ± half its 95% interval. {other.caption}.",
    name="esol-scaffold",
) if other is not None else Notice("Scaffold splits were not asked for besides.")

# %% tags=["hide-input"]
others = end_to_end(other) if other is not None else []
differences(
    statistics.compare(other.frame, "test_mae", others[-1]),
    others[-1],
    "esol-scaffold-differences",
    other,
) if others else nothing

# %% [markdown]
# ## Where the runs were made

# %% tags=["hide-input"]
Table(
    results.machines(study.records),
    "Processors and versions behind this page. Each record names its own machine, threads, "
    f"versions and commit. {study.source.title}, profile {profile}.",
    name="esol-machines",
    format={"Hours of training": ".1f"},
)

# %% [markdown]
# ## What this allows one to conclude
#
# For the published records (other parameters may say otherwise):
#
# - **That Rank-N-Contrast beats end-to-end training here is not borne out.** Against *L1 end to end*, every difference
#   to another network is undecided ({numref}`esol-differences`): that method gets stuck in a good part of the runs, so
#   its mean is high and uncertain. Against *L1 end to end, lr 0.001*, a tenth of the published rate, *RnC frozen, L1*
#   is less than a hundredth of a standard deviation behind, which decides nothing. *RnC fine-tuned, Huber* has the
#   higher error. So seems to have *RnC fine-tuned, L1*, though not by enough for the number of comparisons
#   ({numref}`esol-differences-slower`).
# - **It does put the molecules in order.** Seen from a test molecule, distances in its features agree far better with
#   distances in solubility than those of end-to-end training do ({numref}`esol-rank-agreement`). Here that does not
#   make for a lower error.
# - **Its frozen encoders do not get stuck** at the published settings, with a linear regressor on top
#   ({numref}`esol-stuck`). A smaller learning rate gives the same to end-to-end training.
# - **Fine-tuning does not help.** The fine-tuned encoders have no lower error than the frozen ones they started from.
#   With the L2 loss, fine-tuning diverges or gets stuck in half of the runs on random splits, and in more on scaffold
#   splits.
# - **The course project's values are possible splits, but for one.** Its values for *L1 end to end*, *RnC frozen, L1*,
#   *RnC fine-tuned, L2* and *RnC fine-tuned, Huber* lie inside the spread of our single splits. Its test MAE for *RnC
#   fine-tuned, L1* lies below all of them ({numref}`esol-mae`). One split cannot rank methods that lie this close.
# - **Extra trees on molecular descriptors have a lower mean error than every network** ({numref}`esol-test-raw`,
#   {numref}`esol-scaffold`). Against *L1 end to end, lr 0.001* that is decided ({numref}`esol-differences-slower`);
#   against *L1 end to end*, and on scaffold splits, it is not.
# - **On new ring systems** the contrastive networks err more than on random splits. No difference between them and *L1
#   end to end*, which gets stuck on none of these splits, is decided ({numref}`esol-scaffold-differences`).
#
# The limits: one data set, one network, the published settings. Only end-to-end training got a second learning rate; a
# search that gives every method the same effort may change the order.

# %% tags=["remove-input"]
# what the book's first page quotes
glue(n_splits=int(main.n), unit=main.unit)
mae = error_table(main.frame, {"test_mae": "mae"}).set_index("Method")["mae"]
short = {
    "L1 end to end": "l1",
    "L1 end to end, lr 0.001": "l1_slower",
    "RnC frozen, L1": "rnc_l1_freeze",
    "RnC fine-tuned, L1": "rnc_l1",
    "extra trees": "extra_trees",
}
glue(**{f"mae_{name}": mae[method] for method, name in short.items() if method in mae})
for column, comparison in zip(
    ("as_published", "slower"), comparisons.values(), strict=False
):
    quoted = {
        short[row.Index]: f"{row.mean:+.3f} ± {row.high - row.mean:.3f}"
        for row in comparison.itertuples()
        if row.Index in short
    }
    glue(
        **{f"{column}_{name}": text.replace("-", "−") for name, text in quoted.items()}
    )
