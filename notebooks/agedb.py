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
# # Faces (AgeDB)
#
# Does ordering faces by their age help to tell it?
#
# Estimating age from a photograph is the task on which Rank-N-Contrast {cite:p}`zha2023rnc` was shown first. The data
# are AgeDB {cite:p}`moschoglou2017agedb`, 16 488 photographs of people aged 1 to 101. Their owners give out the
# photographs on request only, so this chapter does two things. It sets side by side what was published on AgeDB, with a
# place for the results of anyone who has the photographs. And it runs the same code, by the same path, on a stand-in:
# synthetic faces that grow old.

# %% tags=["parameters", "hide-input"]
dataset: str = "synthetic"  # synthetic (synthetic faces) or agedb
data_dir: str = None  # agedb: the folder that holds AgeDB/*.jpg
loss: str = "all"  # all, l1, l2 or huber
profile: str = "paper"  # paper (published), quick (minutes), smoke
split: str = "standard"  # standard or identity (nobody in two sets)
model: str = None  # resnet18, resnet50, small; None: the profile's
preset: str = "paper"  # hyperparameters of the paper or the course project
n_seeds: int = None  # runs of each method; None: the profile's
exclude: str = None  # agedb: file names to leave out, with commas
device: str = "cpu"  # cpu, cuda or auto
precision: str = None  # bf16-mixed: autocast to bfloat16; None: float32
results_dir: str = None  # folder of the run records; None: book/results
refresh: bool = False  # train every run anew

# %% tags=["remove-cell"]
from rnclib.parameters import Folder, check_parameters

check_parameters(
    globals(),
    dataset=["synthetic", "agedb"],
    data_dir=[None, str],
    loss=["all", "l1", "l2", "huber"],
    profile=["paper", "quick", "smoke"],
    split=["standard", "identity"],
    model=[None, "resnet18", "resnet50", "small"],
    preset=["paper", "course"],
    n_seeds=[None, (1, 100)],
    exclude=[None, str],
    device=["cpu", "cuda", "auto"],
    precision=[None, "bf16-mixed"],
    results_dir=[None, Folder],
    refresh=bool,
)

# %% tags=["hide-input"]
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rnclib import plots, results, statistics
from rnclib.chapters import agedb
from rnclib.data import catalogue
from rnclib.data.synthetic import Person, Scene, draw_face
from rnclib.notebook import Verdicts, open_experiment
from rnclib.report import Figure, Findings, Notice, Table, listed
from rnclib.tables import differences_table, error_table

(study,) = open_experiment(
    "agedb",
    dataset,
    profile=profile,
    split=split,
    loss=loss,
    model=model,
    preset=preset,
    n_seeds=n_seeds,
    data_dir=data_dir,
    exclude=exclude.split(",") if exclude else None,
    precision=precision,
    results_dir=results_dir,
    refresh=refresh,
    device=device,
)
records, runs = study.records, study.frame
verdicts = Verdicts(profile, results_dir)
# by loss: end to end as published, and for L1 on synthetic faces at a smaller rate
end_to_end = {
    of: [
        m
        for m in (f"{of} end to end", f"{of} end to end, lr 0.01")
        if m in study.methods
    ]
    for of in ("L1", "L2", "Huber")
    if f"{of} end to end" in study.methods
}
shown = [m for of, alone in end_to_end.items() for m in (*alone, f"RnC frozen, {of}")]

# %% [markdown]
# ## What was published on AgeDB
#
# A ResNet-18 {cite:p}`he2016resnet` sees faces at 224 pixels. One way is to train it end to end with an L1, L2 or Huber
# loss: *L1 end to end* and so on. The other has two stages. First Rank-N-Contrast trains the encoder on two random
# views of each image; then a linear regressor is trained on the frozen encoder with one of the three losses: *RnC
# frozen, L1* and so on. A course project repeated this with batches of 128 instead of 256.

# %% tags=["hide-input"]
table = agedb.PUBLISHED.copy()
table["change"] = 100 * (table["course project"] / table["paper"] - 1)
ours = agedb.of_protocol(
    results.load(
        results_dir or results.results_dir(),
        profile="paper",
        experiment="agedb",
        dataset="agedb",
        split="standard",
    )
)
here = statistics.summarise(results.frame(ours), "test_mae_raw") if ours else None
table["here"] = [
    None if here is None or m not in here.index else here.loc[m, "mean"]
    for m in table.index
]
Table(
    table.reset_index(),
    "Published test error on AgeDB's standard split, mean absolute error in years, and the "
    "course project's difference from the paper in percent."
    + (
        " “Here”: the mean over this book's runs on AgeDB with the paper's settings."
        if ours
        else ""
    ),
    name="agedb-published",
    columns={
        "method": "Method",
        "paper": "Paper",
        "course project": "Course project",
        "change": "Difference, %",
        **({"here": "Here"} if ours else {}),
    },
    format={
        "paper": ".2f",
        "course project": ".3f",
        "change": "+.1f",
        "here": lambda mae: f"{mae:.2f}",
    },
)

# %% tags=["hide-input"]
Notice(
    f"{len(ours)} records of this project with the paper's settings, on AgeDB's photographs."
    if ours
    else "This project has no record of the paper's settings on AgeDB's photographs. To make "
    "one, [ask their owners for them](https://ibug.doc.ic.ac.uk/resources/agedb/) and unpack "
    "them into a folder. Then run `papermill notebooks/agedb.ipynb out.ipynb -p dataset agedb "
    "-p data_dir FOLDER -p device cuda -p precision bf16-mixed`; or, without the notebook and "
    "on four GPUs, `torchrun --nproc-per-node 4 -m rnclib.protocols agedb --dataset agedb "
    "--data-dir FOLDER --profile paper --device cuda --precision bf16-mixed`. Every file is "
    "checked before training starts. Runs that were interrupted go on where they stopped.",
    title="On AgeDB itself",
)

# %% [markdown]
# Two things to know about this split. First, all 544 people in the test set are also in the training set, so the error
# is one on known faces. The split `identity` keeps each person in one set, with sizes and ages like the standard
# split's. Second, validation and test sets are balanced over age while the training set is not. So the error weighs
# rare ages more than a random photograph would.
#
# ## The stand-in: faces that grow old
#
# Each face is drawn from numbers. The age moves the proportions of the head, eyes, nose and mouth, turns the hair grey
# and lets it recede, and deepens lines. Person, pose, light and background are drawn independently of it.

# %% tags=["hide-input"]
figure, axes = plt.subplots(3, 8, figsize=(8, 3.2), layout="constrained")
for row, line in enumerate(axes):
    rng = np.random.default_rng(row)
    person = Person.random(rng)
    for ax, age in zip(line, (2, 10, 20, 32, 45, 60, 75, 95), strict=True):
        ax.imshow(draw_face(age, person, Scene.random(rng), 96))
        ax.set_axis_off()
        if row == 0:
            ax.set_title(f"{age}", loc="center")
Figure(
    figure,
    "Synthetic faces: three people, each at eight ages in years, in changing poses, light and "
    "surroundings.",
    name="agedb-faces",
    alt="Three rows of cartoon faces growing older from left to right.",
    format="jpeg",
)

# %% [markdown]
# They are stored as AgeDB stores its photographs, with its age distribution and a split like its own. They take the
# same way into the network: checked, decoded once, and turned into random views in batches. How this differs from the
# published protocol:
#
# - The synthetic faces of this page are sized down to what a CPU can train: 4000 faces at 64 pixels, an
#   encoder of four convolutions, 100 epochs instead of 400 (50 instead of 100 for the regressors), five seeds. One
#   contrastive encoder a seed serves all three regressors.
# - Random crops are taken from the square in the middle of the image, resized to 8/7 of the network's side, instead of
#   from the original. They are resized without the smoothing that avoids aliasing. Evaluation sees exactly the
#   published view.
# - The paper's settings for L2 and Huber are unknown; here they have the course project's learning rates.
# - The rates were published for a ResNet-18 on photographs. For *L1 end to end*, 0.2 is too high for synthetic faces
#   and the small encoder. So it stands beside *L1 end to end, lr 0.01*; that is about the rate that a search on
#   validation sets chose on smaller pictures ({doc}`methods`). Rank-N-Contrast keeps the published rate.
#
# ## Errors

# %% tags=["hide-input"]
Table(
    error_table(
        runs,
        {
            "test_mae_raw": "Test MAE",
            "test_rmse_raw": "Test RMSE",
            "val_mae_raw": "Validation MAE",
        },
    ).rename(columns={"Splits": "Seeds"}),
    "Errors in years: mean over seeds ± half its 95% interval (t, independent seeds on one "
    f"split). {study.caption}.",
    name="agedb-errors",
)

# %% tags=["hide-input"]
Figure(
    plots.errors(
        runs[runs["method"].isin(shown)], "test_mae_raw", label="test MAE, years"
    ),
    f"Test error of every run. Dots: single seeds. {study.caption}.",
    name="agedb-errors-figure",
    alt="Dot plot of the test error of each method over seeds, with means and intervals.",
)

# %% [markdown]
# Each loss end to end against the same loss on the frozen contrastive encoder, by seed; with L1 also at the lower rate:

# %% tags=["hide-input"]
pairs = {
    other: statistics.compare(
        runs, "test_mae_raw", other, [f"RnC frozen, {of}"]
    ).assign(other=other)
    for of, alone in end_to_end.items()
    for other in alone
}
comparison = pd.concat(pairs.values()).dropna(subset=["low"])
differences_table(
    comparison.reset_index(),
    "Test MAE in years on Rank-N-Contrast's frozen encoder minus that end to end with the same "
    "loss and seed: mean with its 95% interval, and fraction of seeds on which Rank-N-Contrast "
    f"is better. {study.caption}.",
    name="agedb-differences",
    labels={"method": "Method", "other": "End to end"},
    runs="seeds",
    also=["better"],
) if len(comparison) else Notice("One seed gives no interval.")

# %% [markdown]
# ## Where the errors are

# %% tags=["hide-input"]
predictions = results.predictions(records)
edges = [0, 20, 30, 40, 50, 60, 70, 80, 110]
Figure(
    plots.error_by_range(
        predictions,
        shown,
        edges,
        unit="years",
        samples="faces",
    ),
    "Test error by range of age: mean over seeds, and the middle half of the seeds as a band. "
    f"{study.caption}.",
    name="agedb-ranges",
    alt="Lines of mean absolute error over ranges of age, one per method.",
)

# %% [markdown]
# ## How they train

# %% tags=["hide-input"]
curves = results.curves(records)
Figure(
    plots.learning_curves(
        curves[curves["stage"] != "encoder"],
        [
            *(m[-1] for m in end_to_end.values()),
            *(f"RnC frozen, {of}" for of in end_to_end),
        ],
        sharey="col",
    ),
    "Validation loss of the stage that fits the age, each with its own loss. Thin: every seed. "
    f"Thick: their median. {study.caption}.",
    name="agedb-curves",
    alt="Validation loss against epochs, one panel per method.",
)

# %% [markdown]
# ## What the encoder has learnt

# %% tags=["hide-input"]
first = next(iter(end_to_end))
views = {
    m: v
    for m in (*end_to_end[first], f"RnC frozen, {first}")
    if (v := results.view(records, m, results_dir)) is not None
}
Figure(
    plots.representations(views, label="age, years"),
    f"First two principal components of the features, seed 0. {study.caption}.",
    name="agedb-representations",
    alt="Scatter plots of two principal components for each encoder, training and test faces, "
    "coloured by age.",
    phone=plots.representations(views, label="age, years", narrow=True),
)

# %% [markdown]
# Which faces does an encoder take to be alike? For some test faces, the training face with the nearest features:

# %% tags=["hide-input"]
faces = catalogue.load(study.name, **study.runs[0].data.options)
test = pd.DataFrame(records[0]["test"]).sort_values("target", kind="stable")
picked = test["index"].iloc[np.linspace(0, len(test) - 1, 8).astype(int)]
figure, axes = plt.subplots(
    1 + len(views),
    8,
    figsize=(8, 1.25 * (1 + len(views))),
    layout="constrained",
    squeeze=False,
)
lines = {"test face": picked} | {
    m: view.set_index("index")["nearest"].loc[picked] for m, view in views.items()
}
for line, (name, indices) in zip(axes, lines.items(), strict=True):
    for ax, i in zip(line, indices, strict=True):
        ax.imshow((faces.inputs[[i]][0].permute(1, 2, 0).numpy() + 1) / 2)
        ax.set_title(f"{faces.targets[i]:.0f}", loc="center")
        ax.set(xticks=[], yticks=[])
    line[0].set_ylabel(textwrap.fill(name, 14), fontsize=8)
Figure(
    figure,
    "Test faces, and below each the training face that each encoder of seed 0 puts nearest, "
    f"with their ages in years. {study.caption}.",
    name="agedb-neighbours",
    alt="Rows of faces: test faces and their nearest training faces in the feature space of "
    "each encoder.",
    format="jpeg",
)

# %% tags=["hide-input"]
Table(
    error_table(
        runs.dropna(subset=["test_rank_agreement"]),
        {"val_rank_agreement": "Validation", "test_rank_agreement": "Test"},
    ).rename(columns={"Splits": "Seeds"}),
    "Rank agreement of the encoder (1: perfect order), which is Spearman's correlation between "
    "age distance and feature distance as seen from one face, averaged over all faces: mean "
    f"over seeds ± half its 95% interval. {study.caption}.",
    name="agedb-rank-agreement",
)

# %% [markdown]
# ## The verdicts
#
# The comparisons of this page are exploratory. The primary ones on faces are made in {doc}`claims`, where each seed
# draws synthetic faces of its own. Where no primary comparison of a claim is decided there, none of that claim is read
# here ({doc}`../deciding`).

# %% tags=["hide-input"]
usual = (
    study.name == "synthetic"
    and split == "standard"
    and preset == "paper"
    and not model
)
verdicts.table("agedb", name="agedb-verdicts") if usual else Notice(
    "The verdict page has no comparison on these runs."
)

# %% [markdown]
# ## Where the runs were made

# %% tags=["remove-input", "fold"]
Table(
    results.machines(records),
    "Processors and versions behind the runs of this page. Each record names its own machine, "
    f"threads, versions and commit. {study.caption}.",
    name="agedb-machines",
    format={"Hours of training": ".1f"},
)

# %% tags=["remove-input", "answer"]
verdicts.answer("difference", "agreement", datasets=["synthetic"])

# %% [markdown]
# ## What this allows one to conclude
#
# These sentences are computed from the records of this page.


# %% tags=["hide-input"]
def judged(effect):
    """Comparisons of the verdict page on runs that this page has."""
    rows = verdicts.frame.query(
        "experiment == 'agedb' and verdict != 'not measured' and effect == @effect "
        "and method in @study.methods and baseline in @study.methods"
    )
    return rows if usual else rows.head(0)


def said(row):
    told = verdicts.say(
        row.method, row.baseline, row.effect, dataset=study.name, experiment="agedb"
    )
    return f"*{row.method}* against *{row.baseline}*: {told}."


def verdict_on(rows):
    return [
        f"**{verdict}** for {listed([f'*{m}*' for m in methods])}"
        + (f" (not read, since {why})" if why else "")
        for (verdict, why), methods in rows.groupby(["verdict", "unread"])["method"]
    ]


as_published = [alone[0] for alone in end_to_end.values()]
found = []
if len(rows := judged("difference")):
    alike = rows["baseline"].isin(as_published)
    found.append(
        "**Is the error lower than end to end?** "
        + "".join(f"{said(row)} " for row in rows[~alike].itertuples())
        + "Against end-to-end training with the same loss at its published rate: "
        f"{listed(verdict_on(rows[alike]))} ({{numref}}`agedb-verdicts`)."
    )
for row in judged("agreement").itertuples():
    order = runs.groupby("method")["test_rank_agreement"].mean()
    found.append(
        f"**Are the features in the order of the ages?** {said(row)} The mean rank agreement "
        f"is {order[row.method]:.2f}, that of the baseline {order[row.baseline]:.2f} "
        "({numref}`agedb-rank-agreement`)."
    )
Findings(*found, title="Verdicts ({doc}`claims`):") if found else Notice(
    "These parameters leave no verdict to quote."
)


# %% tags=["hide-input"]
def years(difference):
    return f"{difference:+.2f}".replace("-", "−")


def change(ratio):
    return f"{ratio - 1:+.0%}".replace("-", "−")


mae = runs.groupby("method")["test_mae_raw"].mean().dropna()
of, alone = next(iter(end_to_end.items()))
frozen, best = f"RnC frozen, {of}", alone[-1]
found = []
lower = [
    f"*{row.Index}* on {row.better * row.n:.0f} of {row.n} seeds against *{row.other}*"
    for row in pd.concat(pairs.values()).itertuples()
]
if lower:
    found.append(f"**Seeds with a lower test MAE**: {listed(lower)}.")
if len(alone) > 1 and {frozen, *alone} <= set(mae.index):
    lead = mae[alone[0]] - mae[frozen]
    part = (mae[alone[0]] - mae[best]) / lead if lead else 0
    each = listed([f"{mae[m]:.2f} years for *{m}*" for m in (*alone, frozen)])
    found.append(
        f"**The learning rate**: the mean test MAE is {each}"
        + (
            f". A lower rate alone makes up {part:.0%} of the lead"
            if 0 < part < 1
            else ""
        )
        + " ({numref}`agedb-errors`)."
    )
if {frozen, best} <= set(mae.index):
    training = faces.targets[faces.splits[split](0).train]
    errors = agedb.by_range(predictions, training, edges)
    difference = (errors[frozen] - errors[best]).dropna()
    fractions = errors.loc[difference.index, "fraction"]
    weighted = (difference * fractions).sum() / fractions.sum()
    each = {
        where: listed(
            [
                f"{ages} ({years(by)}; {errors.loc[ages, 'fraction']:.0%})"
                for ages, by in difference[its].items()
            ]
        )
        for where, its in {"lower": difference < 0, "higher": difference >= 0}.items()
    }
    found.append(
        f"**Where the errors differ**: the mean error of *{frozen}*, compared with that of "
        f"*{best}*, is "
        + ", and ".join(f"{k} at ages {v}" for k, v in each.items() if v)
        + ". In brackets: the difference in years, and what percentage of the training faces "
        f"has these ages. Weighted by these percentages the difference is {years(weighted)} years "
        "({numref}`agedb-ranges`)."
    )
both = {f"RnC frozen, {of}": alone[0] for of, alone in end_to_end.items()}
both = {one: other for one, other in both.items() if {one, other} <= set(mae.index)}
if len(both) > 1:
    spans = [mae[list(its)].agg(["min", "max"]) for its in (both, both.values())]
    frozen_span, other_span = (
        f"{span['min']:.2f} to {span['max']:.2f}" for span in spans
    )
    found.append(
        f"**The loss of the regressor**: over the losses, the mean test MAE spans "
        f"{frozen_span} years on the frozen encoder. It spans {other_span} years end to end "
        "at the published rates, which differ from loss to loss."
    )
published = agedb.PUBLISHED["paper"]
changes = [
    f"{change(mae[one] / mae[other])} for *{one}* "
    f"(paper: {change(published[one] / published[other])})"
    for one, other in both.items()
]
if changes:
    found.append(
        "**Beside the paper**: compared with end-to-end training at the published rate, the "
        f"mean test MAE changes by {listed(changes)}. What the paper reports is on photographs "
        "({numref}`agedb-published`)."
    )
time = runs.groupby("method")["wall_time"].mean()
if {frozen, best} <= set(time.index):
    found.append(
        f"**Time**: a run of *{frozen}*, its encoder included, took "
        f"{time[frozen] / time[best]:.1f} times as long as a run of *{best}*."
    )
Findings(*found, title="Besides, these runs show:") if found else Notice(
    "These parameters leave nothing to compare."
)

# %% [markdown]
# The limits are many. Synthetic faces are not photographs: their age is a few lines, shapes and tones that a program
# moved. Network, pictures and schedules are small. The learning rates are those published for photographs, but for the
# rows that name another. Rank-N-Contrast sees more views of each image and has a further stage; {doc}`claims` has a
# comparison at equal time. In the test error, ages that are rare in training count as much as frequent ones; *where the
# errors differ*, above, has the difference with each age at its share of the training faces, too. And the intervals are
# over seeds on the same split: they cover the chance of training, not that of which faces are tested.
