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
# # Beside other methods
#
# Rank-N-Contrast {cite:p}`zha2023rnc` is one of several ways to give a regression network an ordered representation.
# Here it stands beside three others, and beside plain L1, each tuned with the same effort.

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
from rnclib import plots, statistics
from rnclib.chapters import methods
from rnclib.notebook import Verdicts, machines, open_experiment
from rnclib.report import LEFT_OUT, Figure, Findings, Table, short_training
from rnclib.tables import differences_table, error_table

how = {"results_dir": results_dir, "refresh": refresh, "device": device}
how |= {"profile": profile, "data_dir": data_dir}
searches = open_experiment("tuning", molecules, faces, notice=False, **how)
chosen = {
    study.name: methods.best_trials(study.runs, study.records)
    for study in searches
    if study
}
molecules, faces = studies = open_experiment(
    "methods",
    molecules,
    faces,
    n_seeds=n_seeds,
    by_dataset={name: {"tuned": trials} for name, trials in chosen.items()},
    **how,
)

# %% [markdown]
# ## The methods
#
# - **SupCon on bins** {cite:p}`khosla2020supcon`: the range of the target is cut into bins of equally many samples. A
#   supervised contrastive loss draws samples of one bin together and pushes all others away, near or far.
# - **Ordinal Entropy** {cite:p}`zhang2023ordinal` adds a term to the regression loss that spreads features apart, in
#   proportion to the distance of their targets.
# - **RankSim** {cite:p}`gong2022ranksim` adds a term that asks for each sample's neighbours in features to be ranked as
#   its neighbours in the target are.
#
# The first trains an encoder, as Rank-N-Contrast does, and tables call both by their frozen encoder: *SupCon frozen*
# and *RnC frozen*. The other two train end to end with L1: *L1 + Ordinal Entropy end to end* and *L1 + RankSim end to
# end*. All are written here from their papers.
#
# ## The same tuning for all
#
# Each method gets the same number of trials on one split. The first trial has the settings of the chapter on
# {doc}`molecules <esol>` (for L1 end to end the rate at which it does not get stuck) or {doc}`faces <agedb>` (as
# published), and for what a method adds a common value. The others are drawn at random, log-uniformly within the bounds
# below. The trial with the lowest **validation** error is taken; the test set does not enter the choice. On molecules,
# the validation set of that split overlaps the test sets of other splits, for all methods alike.
#
# Trials are shorter than the runs that follow (of molecules 120 epochs, not 800; of faces 30, not 100, with a quarter
# of the pictures), which may favour high learning rates. On faces the bounds of the end-to-end methods are not the
# first ones: in a search with narrower bounds the best trials lay at them, so it was made anew.


# %% tags=["hide-input", "fold"]
def search_table(search, name):
    if search is None:
        return LEFT_OUT
    table = methods.search_table(search.runs, search.records)
    return Table(
        table,
        "What is searched for each method, what the search chose, how many trials it had "
        f"(without those that diverged), and validation MAE in {search.unit} of the first trial "
        f"and of the best one. {search.caption}.",
        name=name,
        columns={
            "method": "Method",
            "setting": "Setting",
            "searched": "Searched",
            "chosen": "Chosen",
            "trials": "Trials",
            "first": "First trial",
            "best": "Best trial",
        },
    )


search_table(searches[0], "methods-search")

# %% tags=["remove-input", "fold"]
search_table(searches[1], "methods-search-faces")

# %% [markdown]
# ## Errors
#
# Encoders that a contrastive loss trained have a linear regressor in **closed form**: ridge regression, with the
# penalty that the validation set chooses. The other networks predict with the head that they trained. Their rows
# “closed form” are the same network with its head replaced by such a regressor, so that representations can be compared
# on equal terms. All have the settings that the search chose: “tuned”.
#
# Molecules are trained as in their own chapter. Synthetic faces are half as wide as there, 32 pixels, which takes a
# quarter of the time.


# %% tags=["hide-input"]
def errors_table(study, name):
    if study is None:
        return LEFT_OUT
    measures = {
        "test_mae_raw": "MAE",
        "test_rmse_raw": "RMSE",
        "test_rank_agreement": "Rank agreement",
    }
    table = error_table(study.frame, measures)
    return Table(
        table.rename(columns={"Splits": study.repeats.capitalize()}),
        f"Test MAE and RMSE in {study.unit}, and rank agreement of feature distances with "
        f"target distances on the test set: mean over {study.repeats} ± half its 95% interval. "
        f"{study.caption}.",
        name=name,
        align=dict.fromkeys(measures.values(), "right"),
    )


def errors_figure(study, name):
    if study is None:
        return None  # the table says why
    return Figure(
        plots.errors(study.frame, "test_mae_raw", label=f"test MAE, {study.unit}"),
        f"Test MAE of each run, and the mean with its 95% interval. {study.caption}.",
        name=name,
        alt="Dot plot of test errors, one line for each method.",
    )


ours = "RnC frozen, closed form, tuned"


def differences(study, name):
    if study is None:
        return None  # the table says why
    comparison = statistics.compare(study.frame, "test_mae_raw", ours)
    return differences_table(
        comparison.reset_index(),
        f"Difference of each method's test MAE from that of “{ours}” on the same "
        f"{study.repeats[:-1]}, in {study.unit}: mean with its 95% interval, fraction of "
        f"{study.repeats} on which the method has the lower error, and number of "
        f"{study.repeats}. Above 0, Rank-N-Contrast has the lower error. {study.caption}.",
        name=name,
        labels={"method": "Method"},
        runs=study.repeats,
        also=["better"],
    )


errors_table(molecules, "methods-errors")

# %% tags=["hide-input"]
errors_figure(molecules, "methods-figure")

# %% tags=["hide-input"]
differences(molecules, "methods-differences")

# %% tags=["hide-input"]
errors_table(faces, "methods-errors-faces")

# %% tags=["hide-input"]
errors_figure(faces, "methods-figure-faces")

# %% tags=["hide-input"]
differences(faces, "methods-differences-faces")

# %% tags=["hide-input"]
verdicts = Verdicts(profile, results_dir)
verdicts.table("methods", name="methods-verdicts")

# %% [markdown]
# ## Where the runs were made

# %% tags=["remove-input", "fold"]
Table(
    machines(*searches, *studies),
    "Processors and versions behind this page, and hours of the training that it rests on, the "
    f"search included.{short_training(profile)}",
    name="methods-machines",
    format={"Hours of training": ".1f"},
) if any(studies) else LEFT_OUT

# %% [markdown]
# ## What this allows one to conclude
#
# Rank-N-Contrast stands for *RnC frozen, closed form, tuned* here. The verdicts are those of {doc}`claims`, also in
# {numref}`methods-verdicts`. All other statements describe the runs of this page and decide nothing
# ({numref}`methods-errors`, {numref}`methods-errors-faces`, {numref}`methods-search`, {numref}`methods-search-faces`).
# Places count from the lowest mean error.


# %% tags=["hide-input"]
def means(study, metric):
    """Mean of each method, without those that all diverged."""
    return statistics.summarise(study.frame, metric)["mean"].dropna()


def place(mean, method):
    return f"place {mean.rank(method='min')[method]:.0f} of {len(mean)}"


def signed(differences, unit):
    ends = [f"{end:+.3f}" for end in (differences.min(), differences.max())]
    return f"{' to '.join(dict.fromkeys(ends))} {unit}".replace("-", "−")


def quoted(study):
    """The verdicts on a data set."""
    rows = verdicts.frame
    rows = rows[(rows["experiment"] == "methods") & (rows["dataset"] == study.name)]
    names = {"dataset": study.name, "experiment": "methods"}
    said = [
        f"*{row.baseline}*: "
        + (verdicts.say(row.method, row.baseline, row.effect, **names) or "none yet")
        for row in rows.itertuples()
    ]
    lead = (
        f"{study.source.title}: a lower error with Rank-N-Contrast (*{ours}*) than with"
    )
    return f"{lead} {'; than with '.join(said)}." if said else None


def standing(study):
    """Where Rank-N-Contrast stands among the methods."""
    mae, rmse = (means(study, metric) for metric in ("test_mae_raw", "test_rmse_raw"))
    if ours not in mae or len(mae) == 1:
        return None
    runs = study.frame.pivot(index="seed", columns="method", values="test_mae_raw")
    lowest, highest = (runs.idxmin(axis=1) == ours).sum(), mae.idxmax()
    above = (runs[highest] > runs[ours]).sum()
    return (
        f"**{study.source.title}: all methods.** Rank-N-Contrast has {place(mae, ours)} by MAE "
        f"({mae[ours]:.3f} {study.unit}) and {place(rmse, ours)} by RMSE ({rmse[ours]:.3f} "
        f"{study.unit}). It has the lowest MAE on {lowest} of {len(runs)} {study.repeats}."
    ) + (
        f" *{highest}* has the highest mean MAE ({mae[highest]:.3f} {study.unit}), above "
        f"Rank-N-Contrast on {above} of {len(runs)} {study.repeats}."
        if highest != ours
        else ""
    )


def order(study):
    """The methods that order features best, and where they stand by error."""
    mae, agreement = (
        means(study, metric) for metric in ("test_mae_raw", "test_rank_agreement")
    )
    networks = agreement[~agreement.duplicated()]  # a second regressor changes no order
    best = networks[networks.index.isin(mae.index)].nlargest(2)
    return ", ".join(
        f"{value:.3f} for *{method}* ({place(mae, method)} by MAE)"
        for method, value in best.items()
    )


def regressor(study):
    """What a regressor in closed form changes for networks that have a head of their own."""
    mae = means(study, "test_mae_raw")
    closed = {
        m: m.replace(" end to end", " end to end, closed form") for m in mae.index
    }
    both = [
        method for method, other in closed.items() if other != method and other in mae
    ]
    if ours not in mae or not both:
        return None
    heads, solved = mae[both], mae[[closed[method] for method in both]].set_axis(both)
    return (
        f"their mean MAE changes by {signed(solved - heads, study.unit)}; that of "
        f"Rank-N-Contrast differs from it by {signed(mae[ours] - heads, study.unit)} with the "
        f"trained heads, by {signed(mae[ours] - solved, study.unit)} in closed form"
    )


tables = {
    study.name: methods.search_table(study.runs, study.records)
    .drop_duplicates("method")
    .set_index("method")
    for study in searches
    if study
}


def tuning(study):
    """What the search takes off validation errors, beside the spread of test errors."""
    falls = (tables[study.name]["first"] - tables[study.name]["best"]).dropna()
    mae = means(study, "test_mae_raw").sort_values().to_numpy()
    if not len(falls) or len(mae) == 1:
        return None
    said = ", ".join(f"{fall:.3f} (*{method}*)" for method, fall in falls.items())
    return (
        f"validation MAE falls by {said} {study.unit}; after it, mean test MAE spreads over "
        f"{mae[-1] - mae[0]:.3f} {study.unit}, without the highest over {mae[-2] - mae[0]:.3f}"
    )


def bounds(study):
    (search,) = (one for one in searches if one and one.name == study.name)
    near = methods.near_bounds(search.runs, search.records)
    return ", ".join(f"{setting} of *{method}*" for method, setting in near)


def together(lead, statement):
    """A statement on each data set."""
    texts = {study.source.title: statement(study) for study in studies if study}
    said = [f"{title}: {text}" for title, text in texts.items() if text]
    return f"**{lead}** {'. '.join(said)}." if said else None


Findings(
    *(standing(study) for study in studies if study),
    together("The highest rank agreement.", order),
    together("A regressor in closed form for the end-to-end methods.", regressor),
    together("From the settings before the search to the best trial.", tuning),
    together("Chosen near a bound of the search.", bounds),
) if any(studies) else LEFT_OUT


# %% tags=["remove-input", "answer"]
def others(study):
    """How often each other method has a higher error, which no verdict is on."""
    judged = verdicts.frame
    judged = judged[(judged["experiment"] == "methods") & (judged["method"] == ours)]
    runs = study.frame.pivot(index="seed", columns="method", values="test_mae_raw")
    if ours not in runs:
        return None
    rest = runs.drop(columns=[ours, *judged["baseline"]], errors="ignore")
    higher = [
        f"*{method}* on {(rest[method] > runs[ours]).sum()} of {rest[method].count()}"
        for method in rest
    ]
    return (
        f"{study.source.title}: {study.repeats} on which another method has a higher error than Rank-N-Contrast, "
        f"described and not judged: {'; '.join(higher)}."
        if higher
        else None
    )


equal_time = verdicts.with_equal_time() if faces else None
Findings(
    *(quoted(study) for study in studies if study),
    *(others(study) for study in studies if study),
    "On faces another rate had a lower validation error than what this search found for L1 ({doc}`../deciding`), so "
    f"{{doc}}`claims` compares with that. Equal effort means equally many trials here, not equal time. {equal_time}"
    if equal_time
    else None,
    title="**The answer**, by the rule of {doc}`/deciding`:",
) if any(studies) else LEFT_OUT

# %% [markdown]
# Features in order need not make for a lower error: the statement on rank agreement has both side by side. How far
# methods differ is to be read beside what another regressor and tuning change.
#
# The limits: a single data set of molecules, faces that are synthetic, few trials for each method on a single split or
# seed, short trials. On faces the contrastive encoders see more views of each picture in an epoch than the others.
# Where the search chose a value near its bound, a better value may lie beyond.
