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
# # Across tasks
#
# Does Rank-N-Contrast {cite:p}`zha2023rnc` help on a task of your own? Here three ways to train one kind of network,
# the *arms*, are compared on many sets of measured data, and on some simulated ones that count in no estimate. Each is
# tuned with the same number of trials; what people would use instead stands beside them.
#
# - *end to end*: a regression loss;
# - *RnC*: the contrastive loss alone; then a regressor is fitted to the features, which stay as they are;
# - *joint*: both losses together.
#
# *End to end, longer search* is the first with settings from a search that may take as long as that of RnC. The first
# version of the protocol is older than any test error of these runs; later changes, and what was known at each, are in
# its log ({doc}`../comparing`).

# %% tags=["parameters", "hide-input"]
tasks: str = "all"  # all (paper: those with runs), or names separated by commas
profile: str = "paper"  # paper (published), quick (minutes), smoke
n_seeds: int = None  # splits; None: the profile's
device: str = "cpu"  # cpu, cuda or auto
results_dir: str = None  # folder of the run records; None: book/results
refresh: bool = False  # train every run anew

# %% tags=["remove-cell"]
from rnclib.parameters import Folder, check_parameters

check_parameters(
    globals(),
    tasks=str,
    profile=["paper", "quick", "smoke"],
    n_seeds=[None, (1, 100)],
    device=["cpu", "cuda", "auto"],
    results_dir=[None, Folder],
    refresh=bool,
)

# %% tags=["remove-cell"]
import math
from pathlib import Path

import numpy as np
import pandas as pd

from rnclib import across, results, standings
from rnclib.chapters import tasks as chapter
from rnclib.chapters.aims import N_AIMS, beside_published, by_network, not_run, reached
from rnclib.notebook import machines, open_several
from rnclib.protocols.settings import search_table
from rnclib.protocols.tasks import EQUAL_TIME, OTHERS, TASKS
from rnclib.report import (
    LEFT_OUT,
    Download,
    Figure,
    Findings,
    Notice,
    Table,
    glue,
    listed,
    p_value,
    probability,
    sets_notice,
    short_training,
)

wanted = chapter.named(tasks)
how = {"profile": profile, "results_dir": results_dir, "refresh": refresh}
how |= {"device": device}
how |= {"only_stored": (profile, tasks, n_seeds) == ("paper", "all", None)}
MARGIN = f"{1 - math.exp(-chapter.MARGIN):.0%}"
studies = open_several("tasks", wanted, n_seeds=n_seeds, **how)
published = open_several(
    "concrete", [name for name in wanted if name == "concrete"], **how
)

titles = {study.name: study.source.title for study in studies}
units = {study.name: study.unit for study in studies}
called = chapter.CALLED
real = [name for name in titles if name in chapter.REAL]
table = chapter.frame([record for study in studies for record in study.records])
chosen = chapter.compared(table)
answers = chapter.answers(chosen)
rnc, twin = next(iter(chapter.PRIMARY))
order = ("end to end", EQUAL_TIME, "RnC", "joint")
arms = [arm for arm in order if arm in set(chosen["arm"])]
peers = [
    name
    for name in called
    if name in set(chosen["arm"]) and name not in (*arms, "training mean")
]


def ratio(row, digits=3):
    """Mean and interval of an effect as a ratio of errors."""
    mean, low, high = (math.exp(row[name]) for name in ("mean", "low", "high"))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def of_size(value):
    """An error with three digits that count."""
    if pd.isna(value):
        return "–"
    if value == math.inf:
        return "failed"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value else "0"


# %% tags=["hide-input"]
sets_notice(list(titles), profile) if studies else Notice(
    "No task has all its runs yet."
)

# %% tags=["remove-input"]
waiting = f"no verdict yet, {len(real)} of {len(chapter.REAL)} tasks have run"
decided = {
    "holds": "**holds**: the first has the lower error",
    "does not hold": "**does not hold**: the first has the higher error",
    "practically equal": "**practically equal**",
    "undecided": "undecided",
    "not measured": waiting,
}
short = {"not measured": f"waits for {len(chapter.REAL)} tasks"}
Notice(
    f"{len(real)} of {len(chapter.REAL)} real tasks have run so far. The others follow, and verdicts wait for all.",
    title="Not all tasks",
) if how["only_stored"] and len(real) < len(chapter.REAL) else None

# %% tags=["remove-input"]
absent = [
    task.source.title
    for name, task in TASKS.items()
    if name not in {*titles, *chapter.REAL}
]
Notice(
    f"Not run yet: {listed(absent)}, which are outside every estimate.",
    title="Simulated tasks",
) if how["only_stored"] and absent else None


# %% tags=["remove-input", "answer"]
def expected(row):
    """What is to be expected on a new task."""
    return (
        f"On a new task the error is lower by {MARGIN} or more with a probability of {probability(row['lower'])}, and "
        f"that of end to end by as much with {probability(row['higher'])} ({probability(row['lower_most'])} and "
        f"{probability(row['higher_most'])} if tasks differ as much as their interval allows)."
    )


def answer(row):
    needs = row["needed"]
    if row["verdict"] == "undecided" and not row["failed"]:
        more = (
            "more tasks might never decide it"
            if needs == math.inf
            else f"about {needs:.0f} tasks would decide"
        )
        more = f" ({more})"
    else:
        more = ""
    return (
        f"**{row.name[0].upper()}{row.name[1:]}**: {decided[row['verdict']]}{more}. Test MAE is {ratio(row)} × the "
        f"other's: the mean of the true effects on {row['n']:.0f} tasks. {expected(row)}"
    )


Findings(
    *(answer(row) for _, row in answers.iterrows()),
    title="**The answer**, over the real tasks: is the error lower with the first method than with the second?",
) if len(answers) else Notice(
    "Three real tasks or more, with two splits each, give an estimate over tasks."
)

# %% tags=["hide-input"]
effects = {
    chapter.pair(arm, other): chapter.against(chosen, arm, other)
    for arm, other in chapter.PRIMARY
    if {arm, other} <= set(chosen["arm"])
}
groups = {
    words.capitalize(): [
        name
        for name in real
        if chosen.loc[chosen["dataset"] == name, "kind"].iloc[0] == kind
    ]
    for kind, words in chapter.KINDS.items()
} | {"Simulated, outside the estimate": [name for name in titles if name not in real]}
drawing = (
    Figure(
        standings.effects_by_task(effects, groups, titles, answers, chapter.MARGIN),
        "Ratio of the test MAE of two arms on each task: mean over splits with its 95% interval, which is not "
        "corrected for the number of comparisons. Left of 1 the first arm has the lower error; the band, 0.95 to "
        f"1/0.95, is practical equality. Below: the mean of the true effects over real tasks.{short_training(profile)}",
        name="tasks-effects",
        alt="Forest plot: a line for each task with the ratio of errors and its interval for each comparison.",
    )
    if effects
    else LEFT_OUT
)
drawing

# %% [markdown]
# The same in numbers. In the mean over tasks, a task counts by the precision of its effect.


# %% tags=["hide-input"]
def with_interval(effects):
    """Effects of a comparison as text, by task."""
    return {
        name: ratio(row.rename({"effect": "mean"})) for name, row in effects.iterrows()
    }


main = chapter.against(chosen[chosen["measured"]], rnc, twin) if len(chosen) else None
counts = across.weights(main) if main is not None and len(answers) else pd.Series()
by_task = pd.DataFrame(
    {words: with_interval(rows) for words, rows in effects.items()}
).reindex(list(titles))
Table(
    by_task.assign(
        Task=by_task.index.map(titles),
        Weight=by_task.index.map(counts),
        Splits=chosen.groupby("dataset")["seed"].nunique(),
    ),
    "Ratio of the test MAE of two methods on each task, mean over splits with its 95% interval, not corrected for the "
    "number of comparisons; how much the task counts in the mean of the first comparison; and its number of splits. "
    f"{short_training(profile)}",
    name="tasks-by-task",
    columns={"Task": "Task"}
    | {
        words: words[0].upper() + words[1:].replace(" against ", " ÷ ")
        for words in effects
    }
    | {"Weight": "Weight", "Splits": "Splits"},
    format={"Weight": ".0%"},
    align=dict.fromkeys(effects, "right"),
) if effects else LEFT_OUT

# %% [markdown]
# Test errors of each arm, with the regressor that the validation set chose, and of the best of the other methods on the
# same splits. Settings were searched for the arms. The others choose among a few by validation, CatBoost and chemprop
# run with their defaults, so a comparison with them favours the arms.


# %% tags=["hide-input"]
def heading(arm):
    return arm if arm == "RnC" else called[arm][0].upper() + called[arm][1:]


def row_of(errors, name):
    its, others = errors.loc[name, arms], errors.loc[name, peers].dropna()
    shown = {arm: of_size(value) for arm, value in its.items()}
    least = shown[its.idxmin()]
    shown = {
        arm: f"**{text}**" if text == least else text for arm, text in shown.items()
    }
    best = (
        f"{of_size(others.min())} ({called[others.idxmin()]})" if len(others) else None
    )
    return {
        "Task": titles[name],
        "Unit": units[name],
        **{heading(arm): text for arm, text in shown.items()},
        "Best other": best,
        "Mean": of_size(errors.loc[name, "training mean"]),
        "Splits": chosen.loc[chosen["dataset"] == name, "seed"].nunique(),
    }


def errors_table(metric, words, name):
    errors = across.errors(chosen, metric)
    rows = pd.DataFrame([row_of(errors, one) for one in titles])
    return Table(
        rows,
        f"Mean test {words} over splits; in bold the lowest of the arms. “Best other” is, of the other methods, "
        f"the one with the lowest test {words}, chosen in hindsight. “Mean” always predicts the mean of the "
        f"training targets. {short_training(profile)}",
        name=name,
        align={
            column: "right" for column in rows.columns if column not in ("Task", "Unit")
        },
    )


errors_table("test_mae_raw", "MAE", "tasks-errors") if arms else LEFT_OUT

# %% tags=["hide-input"]
errors_table("test_rmse_raw", "RMSE", "tasks-rmse") if arms else LEFT_OUT

# %% tags=["hide-input"]
longer = EQUAL_TIME
found = None
if {longer, twin} <= set(arms):
    means = across.errors(chosen).loc[real, [twin, longer]].dropna()
    other = means[means[twin] != means[longer]]
    sizes = np.log(means[longer] / means[twin]).replace([np.inf, -np.inf], np.nan)
    found = (
        f"**A longer search** of end to end found other settings on {len(other)} of {len(means)} real tasks. Its test "
        f"MAE is lower on {(other[longer] < other[twin]).sum()} of them and higher on "
        f"{(other[longer] > other[twin]).sum()}; over all tasks it is {math.exp(sizes.mean()):.3f} × as high (plain "
        "mean). More trials find settings that fit the validation set, which is not always a better network."
    )
Findings(found) if found else None

# %% tags=["hide-input"]
gone = across.lost(chosen[chosen["arm"].isin(arms)]) if arms else pd.DataFrame()
gone = [
    f"{titles[name]}: {called[arm]} diverged on {n:.0f} of {chosen.loc[chosen['dataset'] == name, 'seed'].nunique()} "
    f"splits{', and has failed there' if n > 1 else ''}."
    for name, row in gone.iterrows()
    for arm, n in row.items()
    if n > 0
]
Findings(
    *gone or ["No run of the chosen regressors diverged."], title="Runs that were lost:"
) if arms else None

# %% [markdown]
# ## Over tasks
#
# Each task has its own true effect. The table has the mean of these effects with its interval, their spread, and what
# is to be expected on a new task. P values of the primary comparisons are corrected together; intervals are not.
# *Practically equal* is said of the mean, not of each task.

# %% tags=["hide-input"]
beside = chapter.answers(chosen, [("joint", EQUAL_TIME)])
both = pd.concat([answers.assign(role="primary"), beside.assign(role="exploratory")])
needs = {math.inf: "no number"}
estimates = (
    both.assign(
        shown=[ratio(row) for _, row in both.iterrows()],
        said=[short.get(verdict, verdict) for verdict in both["verdict"]],
        spreads=[
            f"{row['spread']:.3f} [{row['spread_low']:.3f}, {row['spread_high']:.3f}]"
            for _, row in both.iterrows()
        ],
        plain_mean=[
            ratio(
                {
                    "mean": row["plain"],
                    "low": row["plain_low"],
                    "high": row["plain_high"],
                }
            )
            for _, row in both.iterrows()
        ],
        needs=["–" if pd.isna(n) else needs.get(n, f"{n:.0f}") for n in both["needed"]],
        failures=[
            ", ".join(titles[name] for name in names) or "–" for names in both["failed"]
        ],
    )
    if len(both)
    else both
)
Table(
    estimates.rename_axis("comparison").reset_index(),
    "Ratio of test MAE over real tasks. Ratio: mean of the true effects with its 95% interval. Plain mean: every task "
    "counts the same. Spread: standard deviation of the true effects with its 95% interval, as logarithms (0.01 is "
    "1%). Lower, alike, higher: probability on a new task of an error that is lower by 5% or more, differs by less, or "
    "is 1/0.95 times as high or higher. p: corrected, of no difference and of practical equality."
    + (
        " Would decide: number of tasks."
        if len(both) and both["needed"].notna().any()
        else ""
    )
    + (
        " Failed on: tasks on which one of the two diverged on several splits."
        if len(both) and (both["failed"].map(len) > 0).any()
        else ""
    )
    + short_training(profile),
    name="tasks-estimates",
    columns={
        "comparison": "Comparison",
        "role": "Role",
        "said": "Verdict",
        "shown": "Ratio",
        "plain_mean": "Plain mean",
        "spreads": "Spread",
        "lower": "Lower",
        "alike": "Alike",
        "higher": "Higher",
        **(
            {"p": "p", "p_equal": "p equal"}
            if (both["verdict"] != "not measured").any()
            else {}
        ),
        "n": "Tasks",
        **({"needs": "Would decide"} if both["needed"].notna().any() else {}),
        **({"failures": "Failed on"} if (both["failed"].map(len) > 0).any() else {}),
    },
    format={
        "n": ".0f",
        "p": p_value,
        "p_equal": p_value,
        "lower": probability,
        "alike": probability,
        "higher": probability,
    },
) if len(estimates) else LEFT_OUT

# %% [markdown]
# Tasks are not independent: all sets of molecules are described by the same descriptors, and some share molecules. So
# the estimate is made for some of the tasks too.

# %% tags=["hide-input"]
parts = [
    chapter.over_groups(chosen, arm, other).assign(comparison=chapter.pair(arm, other))
    for arm, other in chapter.PRIMARY
    if {arm, other} <= set(chosen["arm"])
]
parts = [part for part in parts if len(part)]
Table(
    pd.concat(parts)
    .rename_axis("tasks")
    .reset_index()
    .assign(shown=lambda f: [ratio(row) for _, row in f.iterrows()]),
    "The estimate over some of the real tasks: their number, ratio of test MAE with its 95% interval, spread of the "
    "true effects, and probability that the error on a new task is lower by 5% or more (not from fewer than five "
    f"tasks). Exploratory.{short_training(profile)}",
    name="tasks-groups",
    columns={
        "comparison": "Comparison",
        "tasks": "Real tasks",
        "n": "Tasks",
        "shown": "Ratio",
        "spread": "Spread",
        "lower": "Lower",
    },
    format={"lower": probability},
) if parts else LEFT_OUT

# %% [markdown]
# ## Which method comes first
#
# Ranks and profiles are those of the arms and of all other methods that ran on every real task. CatBoost did not run
# on pictures, so it is not among them; on the other tasks it is in {numref}`tasks-peers`.

# %% tags=["hide-input"]
errors = across.errors(chosen) if len(chosen) else pd.DataFrame()
ranked = errors.loc[real].dropna(axis=1) if real else pd.DataFrame()
ranked = ranked[[name for name in called if name in ranked]]
ranks = across.ranks(ranked) if len(ranked) > 1 else None
Figure(
    standings.standing(
        ranks, across.critical_difference(len(ranks), len(ranked)), called
    ),
    "Mean rank by test MAE over real tasks. Methods in the grey band are not told from the first by Nemenyi's test "
    f"({len(ranked)} tasks, level 0.05).{short_training(profile)}",
    name="tasks-ranks",
    alt="Dot plot of the mean rank of each method, with a band of the critical difference from the best.",
) if ranks is not None else LEFT_OUT

# %% tags=["hide-input"]
Figure(
    standings.profiles(
        across.profile(ranked[list(ranks.index)], np.linspace(1, 1.5, 51)), called
    ),
    "Fraction of real tasks on which a method's test MAE is at most so many times the lowest of the task. "
    f"{short_training(profile)}",
    name="tasks-profile",
    alt="Performance profiles: one rising line for each method.",
) if ranks is not None else LEFT_OUT

# %% tags=["hide-input"]
others = pd.DataFrame(
    [
        {"Task": titles[name]}
        | {heading(peer): of_size(errors.loc[name, peer]) for peer in peers}
        for name in titles
    ]
)
Table(
    others,
    f"Mean test MAE of the other methods, in the unit of the task.{short_training(profile)}",
    name="tasks-peers",
    align=dict.fromkeys(others.columns[1:], "right"),
) if peers else LEFT_OUT

# %% [markdown]
# ## What it costs
#
# Time and memory of one fit with given settings, the regressor on the features included, on one core, over real tasks.
# The arms need a search in addition. Each fit has the number of epochs and the batches that its search chose.

# %% tags=["hide-input"]
costs = chapter.costs(table)
costs = costs.loc[
    [name for name in called if name in costs.index and name != "training mean"]
]
Table(
    costs.rename(index=called).reset_index(),
    "Seconds of one fit: median over real tasks, the shortest and the longest, the median of the time against "
    f"end-to-end training, the memory that a fit takes in MB, and the number of tasks.{short_training(profile)}",
    name="tasks-costs",
    columns={
        "arm": "Method",
        "median": "Median",
        "least": "Least",
        "most": "Most",
        "ratio": "÷ end to end",
        "memory": "MB",
        "n": "Tasks",
    },
    format={
        "median": ".1f",
        "least": ".1f",
        "most": ".1f",
        "ratio": ".2f",
        "memory": ".0f",
    },
) if len(costs) else LEFT_OUT

# %% tags=["hide-input"]
behind = ranked.div(ranked.min(axis=1), axis=0).median() if ranks is not None else None
Figure(
    standings.costs(
        costs[["median"]].join(behind.rename("behind"), how="inner"), called
    ),
    "Test MAE in multiples of the lowest of the task, against the time of one fit; both are medians over real tasks. "
    f"{short_training(profile)}",
    name="tasks-cost-figure",
    alt="Scatter plot: a dot for each method, time across, error upwards.",
) if ranks is not None else LEFT_OUT

# %% [markdown]
# ## Where it helps
#
# Does the effect of RnC against end to end depend on a property of the task? With so few tasks only a strong relation
# can show, and p values are not corrected for the number of properties: this is exploratory. Hollow dots are tasks
# with more than 2000 training samples, whose settings were searched on 2000 of them.

# %% tags=["hide-input"]
of_tasks = chapter.properties([record for study in studies for record in study.records])
rho = chapter.related(main, of_tasks) if main is not None else pd.DataFrame()
hollow = [name for name in of_tasks.index if of_tasks.loc[name, "n_train"] > 2000]
Figure(
    standings.related(main["effect"], of_tasks, chapter.PROPERTIES, hollow),
    "Ratio of the test MAE of RnC to that of end to end, against a property of the task. "
    + " ".join(
        f"Spearman's ρ with {words}: {rho.loc[name, 'rho']:+.2f} (p {p_value(rho.loc[name, 'p'])}).".replace(
            "-", "−"
        )
        for name, words in chapter.PROPERTIES.items()
        if name in rho.index
    )
    + f" Real tasks only.{short_training(profile)}",
    name="tasks-related",
    alt="Four scatter plots: ratio of errors against a property of the task, a dot for each task.",
) if main is not None and len(main) > 2 else LEFT_OUT

# %% [markdown]
# What does the choice of a regressor change? First what it costs that it is chosen on a validation set, then the effect
# where both arms predict with the same one.

# %% tags=["hide-input"]
picked = chapter.regressors(table).rename(index=called, columns=called)
if "RnC" in picked.index and "own layer" in picked:
    picked.loc["RnC", "own layer"] = np.nan  # it has none
Table(
    picked.rename_axis("Arm").reset_index(),
    "Of each arm: test MAE with the chosen regressor in multiples of that with the one that has the lowest test MAE on "
    "the same split, in hindsight (geometric mean over real tasks), and on which part of the splits each regressor was "
    f"chosen. RnC trains no layer of its own.{short_training(profile)}",
    name="tasks-chosen",
    columns={"Arm": "Arm", "cost": "Cost of choosing"}
    | {head: head[0].upper() + head[1:] for head in picked.columns[1:]},
    format=dict.fromkeys(picked.columns[1:], ".0%"),
) if len(picked) else LEFT_OUT

# %% tags=["hide-input"]
same = chapter.same_regressor(table)
Table(
    same.assign(
        shown=[ratio(row) for _, row in same.iterrows()],
        pair=same["arm"] + " against " + same["other"],
        regressor=same["head"].map(lambda head: called.get(head, head)),
    ),
    "Ratio of test MAE over real tasks with the same regressor in both arms, with its 95% interval; number of tasks, "
    "spread of the true effects, and probability that the error on a new task is lower by 5% or more. "
    f"Exploratory.{short_training(profile)}",
    name="tasks-regressors",
    columns={
        "pair": "Comparison",
        "regressor": "Regressor",
        "n": "Tasks",
        "shown": "Ratio",
        "spread": "Spread",
        "lower": "Lower",
    },
    format={"lower": probability},
) if len(same) else LEFT_OUT

# %% [markdown]
# ## Other losses
#
# Losses that order or group features in other ways, and the arms beside them, each with what the first fifteen trials
# of its search found. The arms had thirty above; where the best came later than the fifteenth, their settings differ.

# %% tags=["hide-input"]
few = {name: chapter.of_few(table, name) for name in titles}
few = {name: part for name, part in few.items() if part["arm"].isin(OTHERS).any()}
Table(
    pd.DataFrame(
        {titles[name]: across.errors(part).loc[name] for name, part in few.items()}
    )
    .map(of_size)
    .rename(index=lambda arm: arm.partition(",")[0])
    .rename_axis("Method")
    .reset_index(),
    "Mean test MAE after fifteen trials of each method, in the unit of the task. Few tasks do not rank losses."
    f"{short_training(profile)}",
    name="tasks-losses",
    align={titles[name]: "right" for name in few},
) if few else LEFT_OUT

# %% [markdown]
# ## Three networks on molecules
#
# The network over tasks sees descriptors of a molecule. On ESOL a graph network, and both side by side, are compared
# too.

# %% tags=["hide-input"]
nets = by_network(table, "esol") if "esol" in titles else pd.DataFrame()
Table(
    nets.assign(arm=nets["arm"].map(lambda arm: called.get(arm, arm)))
    if len(nets)
    else nets,
    "ESOL, random splits: mean validation MAE, test MAE and test RMSE in log mol/L, on the splits that all networks "
    f"have.{short_training(profile)}",
    name="tasks-networks",
    columns={
        "network": "Network",
        "arm": "Arm",
        "val": "Validation MAE",
        "mae": "Test MAE",
        "rmse": "Test RMSE",
        "n": "Splits",
    },
) if len(nets) and nets["network"].nunique() > 1 else Notice(
    "Fewer than two of the three networks have run on ESOL."
)

# %% [markdown]
# ## A published table
#
# Concrete has a published table with Rank-N-Contrast among its methods, on test rows that are given. Four of its
# methods are trained here by its protocol. The arms of this page and gradient boosting stand beside them on the same
# rows. Their networks are much larger, so that a lower error says nothing about the loss.

# %% tags=["hide-input"]
rows = beside_published(published[0].records) if published else pd.DataFrame()
Table(
    rows.reset_index(),
    "Test MAE and RMSE in MPa on the published test rows: ours, as mean over five folds with the standard deviation of "
    "the MAE (one test set: it covers training only), and as published; whether ours is within twice the published "
    f"standard deviation.{short_training(profile)}",
    name="tasks-published",
    columns={
        "method": "Method",
        "mae": "MAE",
        "mae_sd": "SD",
        "rmse": "RMSE",
        "mae_published": "MAE published",
        "mae_sd_published": "SD published",
        "rmse_published": "RMSE published",
        "within": "Within",
    },
    format={"within": lambda value: "yes" if value else "no"},
) if len(rows) else LEFT_OUT

# %% tags=["hide-input"]
both = rows.dropna(subset=["mae", "mae_published"]) if len(rows) else rows
Findings(
    f"**{both['within'].sum()} of {len(both)} methods** are within twice the published standard deviation; "
    f"{(both['mae'] < both['mae_published']).sum()} of {len(both)} have a lower error here than published. The table "
    "is not repeated by this: its batches, schedule and folds are not known to us ({doc}`../comparing`).",
    f"**Order**: the lowest MAE of these is that of *{both['mae'].idxmin()}* here, and that of "
    f"*{both['mae_published'].idxmin()}* as published.",
) if len(both) else None

# %% [markdown]
# ## The aims
#
# They were named before the runs. The winner is the arm with the lowest mean validation error, of all three networks on
# ESOL, and over the five folds of the published table on Concrete. Its twin is the same network trained end to end,
# with its own settings.

# %% tags=["hide-input"]
ours = (
    chapter.frame([r for r in published[0].records if ": " in r["method"]])
    if published
    else None
)
aims = reached(table, ours)
missing = not_run(table, "esol") if profile == "paper" else []
Notice(
    f"On ESOL the networks on {listed(missing)} have not run yet. The winner there is that of the others, and may "
    "change.",
    title="Not all networks",
) if missing else None

# %% tags=["hide-input"]
measures = {
    "test_rmse_raw": "RMSE",
    "test_mae_raw": "MAE",
    "test_mae": "standardised MAE",
    "test_rmse": "standardised RMSE",
}
Table(
    aims.assign(
        title=aims["task"].map(titles),
        twin=aims["twin"].where(~aims["alone"]),
        words=aims["measure"].map(measures),
        off=[
            f"{row.value - row.bound:+.3f} [{row.low:+.3f}, {row.high:+.3f}]".replace(
                "-", "−"
            )
            for row in aims.itertuples()
        ],
        said=aims["met"].map({True: "met", False: "missed"}),
    ),
    "Test errors of the winner and of its twin (–: the winner is trained end to end itself), the bound, the "
    "difference of the winner from the bound with its 95% interval (on Concrete one test set: it covers training "
    "only), and the number of splits. In brackets stands the network: “numbers” is the perceptron."
    f"{short_training(profile)}",
    name="tasks-aims",
    columns={
        "title": "Task",
        "words": "Test error",
        "winner": "Winner",
        "value": "Error",
        "twin": "Twin",
        "than": "Bound",
        "bound": "Its value",
        "off": "Difference",
        "n": "Splits",
        "said": "Aim",
    },
) if len(aims) else LEFT_OUT

# %% [markdown]
# ## The search
#
# What does it cost not to search? Settings *typical of the other tasks* are made as the library's default recipe is,
# but without the task on which they are tried. Short profiles of this page have the settings of the first trial.
# Validation errors are of other splits, and the best is the lowest of many trials, so they are no forecast of test
# errors, and favour the search. Every setting that was found is in the file below the table.

# %% tags=["hide-input"]
searched = search_table(Path(results.results_dir()))
its = searched[searched["dataset"].isin(titles)] if len(searched) else searched
gains = (
    its.assign(
        gain=np.log(its["first"] / its["best"]).where(its["typical"].notna()),
        cost=np.log(its["typical"] / its["best"]),
    )
    if len(its)
    else its
)
Table(
    gains.groupby("arm", sort=False)
    .agg(
        searches=("arm", "size"),
        trials=("trials", "median"),
        pruned=("pruned", "sum"),
        diverged=("diverged", "sum"),
        hours=("hours", "sum"),
        gain=("gain", lambda logs: math.exp(logs.mean())),
        cost=("cost", lambda logs: math.exp(logs.mean())),
    )
    .reset_index(),
    "Searches of each method, median number of trials, trials that were given up and that diverged, hours of all on "
    "one core; then, over the searches on tasks that have others of their kind, validation MAE (geometric means) "
    "of the first trial, and of the settings typical of those others, in multiples of the best trial of the arms. End "
    "to end has more than thirty trials where it went on until it had taken as long as RnC, or ninety trials.",
    name="tasks-search",
    columns={
        "arm": "Method",
        "searches": "Searches",
        "trials": "Trials",
        "pruned": "Given up",
        "diverged": "Diverged",
        "hours": "Hours",
        "gain": "First ÷ best",
        "cost": "Typical ÷ best",
    },
    format={"trials": ".0f", "hours": ".1f", "gain": ".2f", "cost": ".2f"},
) if len(its) else LEFT_OUT

# %% tags=["hide-input"]
tried = gains.dropna(subset=["cost"]) if len(its) else its
Findings(
    f"**Without a search**: over {tried['dataset'].nunique()} real tasks and the arms, the validation MAE of settings "
    f"typical of the other tasks is {math.exp(tried['cost'].mean()):.2f} × that of the best trial, and that of the "
    f"first trial, the same on every task, {math.exp(tried['gain'].mean()):.2f} ×. Settings typical of other tasks are "
    f"better than the first trial in {(tried['cost'] < tried['gain']).sum()} of {len(tried)} cases: they are "
    + (
        "no better a place to begin than the round numbers of that trial, and replace no search."
        if tried["cost"].mean() > tried["gain"].mean()
        else "a place to begin, and replace no search."
    ),
) if len(tried) else None

# %% tags=["hide-input"]
Download(its, "tasks-search.csv", "Settings of every search") if len(its) else None

# %% [markdown]
# ## Where the runs were made

# %% tags=["hide-input", "fold"]
Table(
    machines(*studies, *published),
    f"Processors and versions behind this page, and hours of training, the search left out.{short_training(profile)}",
    name="tasks-machines",
    format={"Hours of training": ".1f"},
) if studies else LEFT_OUT

# %% [markdown]
# ## What this allows one to conclude
#
# Effects are ratios of test MAE ({numref}`tasks-estimates`, {numref}`tasks-groups`); which methods stand beside each
# other is in {numref}`tasks-errors` and {numref}`tasks-peers`, what they cost in {numref}`tasks-costs`.


# %% tags=["hide-input"]
def helps():
    """When to try Rank-N-Contrast."""
    if chapter.pair(rnc, twin) not in answers.index or not real:
        return None
    row = answers.loc[chapter.pair(rnc, twin)]
    lower, higher = (main["high"] < 0).sum(), (main["low"] > 0).sum()
    return (
        f"**When to try it.** {advice[row['verdict']]} Of {len(main)} real tasks RnC has the lower error on {lower} "
        f"and the higher on {higher}, as far as intervals tell ({{numref}}`tasks-by-task`); the mean over tasks is "
        f"{ratio(row)} × the error of end to end. {expected(row)}"
    )


advice = {
    "holds": "It is worth a trial.",
    "does not hold": "It is no first choice.",
    "practically equal": "Where end-to-end training is tuned, expect about the same error on average over tasks; on a "
    "single task it may differ by more.",
    "undecided": "Nothing here says to try it first.",
    "not measured": "Nothing so far says to try it first.",
}


def instead():
    """What to use first."""
    if ranks is None or rnc not in ranks:
        return None
    first = [f"*{called[name]}* ({ranks[name]:.1f})" for name in ranks.index[:3]]
    apart = across.critical_difference(len(ranks), len(ranked))
    text = (
        f"**What else there is.** By mean rank the first are {listed(first)}; ranks that differ by less than "
        f"{apart:.1f} are not told apart ({{numref}}`tasks-ranks`)."
    )
    without = [name for name in ranks.index if name not in arms]
    if not without:
        return text
    best, n = without[0], len(ranked)
    below = [
        f"{(ranked[best] < ranked[arm]).sum()} for *{called[arm]}*" for arm in arms
    ]
    return (
        f"{text} Of the methods without such a network *{called[best]}* comes first, at "
        f"{costs.loc[best, 'median']:.0f} s a fit (median). Its test MAE is lower than that of an arm on so many of "
        f"{n} tasks: {listed(below)}."
    )


def price():
    """What it takes."""
    if rnc not in costs.index or twin not in costs.index:
        return None
    return (
        f"**What it costs.** A fit of RnC takes {costs.loc[rnc, 'ratio']:.1f} × as long as end to end, each with the "
        "epochs and batches that its search chose: the median of the ratios of the tasks, not the ratio of their "
        "medians ({numref}`tasks-costs`)."
    )


def aimed():
    """The aims."""
    if not len(aims):
        return None
    by_itself = (aims["met"] & aims["alone"]).sum()
    beside = aims["met"] & ~aims["alone"]
    twins = (beside & (aims["twin"] < aims["bound"])).sum()
    winners = "*, *".join(sorted(set(aims["winner"])))
    near = (aims["met"] & (aims["high"] > 0)).sum()
    return (
        f"**Aims.** Of {N_AIMS} aims that were named, {len(aims)} have been tried and {aims['met'].sum()} are met by "
        f"the mean ({{numref}}`tasks-aims`); the interval of {near} of these reaches beyond the bound. The winner is "
        f"trained end to end on {by_itself} of them and with RnC on the other {beside.sum()}, of which its twin, "
        f"trained end to end, meets {twins} too. Winners: *{winners}*.{easy()}"
    )


def easy():
    """How much the aim on Concrete says."""
    own = rows["mae"].dropna() if len(rows) else pd.Series()
    bound = aims.loc[aims["than"] == "published table", "bound"]
    if own.empty or bound.empty:
        return ""
    return (
        f" That on Concrete says little: {(own < bound.iloc[0]).sum()} of {len(own)} methods on these rows are below "
        "it ({numref}`tasks-published`)."
    )


Findings(helps(), instead(), price(), aimed()) if studies else LEFT_OUT

# %% [markdown]
# The limits: tasks were chosen for being public and small, not drawn from those that readers have. Pictures are a
# single task. Settings were searched for the arms, not for the other methods. On the large tasks they were searched on
# a part of the training set. A network, a schedule or a search of another kind may change the answer.

# %% tags=["remove-input"]
# what the book's first page shows
row = answers.loc[chapter.pair(rnc, twin)] if len(answers) else None
glue(
    **({"effects": drawing} if effects else {}),
    pooled="Not measured yet."
    if row is None
    else f"Over {row['n']:.0f} sets of measured data its test MAE is {ratio(row)} × that of end-to-end training with "
    "the same kind of network and the same effort of tuning: "
    f"{decided[row['verdict']].replace('**', '')}. {expected(row)}",
)
