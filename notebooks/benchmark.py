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
# # What the loss costs
#
# Written as a loop, Rank-N-Contrast {cite:p}`zha2023rnc` takes time and masks that grow with the cube of the batch.
# {doc}`loss` shows that running sums give the same numbers. This chapter measures what that is worth. The measure is
# SupCon {cite:p}`khosla2020supcon` on the same distances, a loss that nobody thinks of as expensive.

# %% tags=["parameters", "hide-input"]
profile: str = "paper"  # paper: published; quick, smoke: measure now
results_dir: str = None  # folder of the records; None: book/results

# %% tags=["remove-cell"]
from rnclib.parameters import Folder, check_parameters

check_parameters(
    globals(), profile=["paper", "quick", "smoke"], results_dir=[None, Folder]
)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from rnclib import benchmark, plots, throughput
from rnclib.report import Figure, Findings, Notice, Table, glue

plots.use_style()
if profile == "paper":
    record = benchmark.load(profile, results_dir)[0]
else:
    record = benchmark.measure(profile)
    benchmark.save(record, results_dir)
machine = record["machine"]
short = "" if profile == "paper" else f", profile {profile}"
where = f"{machine['cpu']}, one thread, float32{short}"
print(f"{where}, {machine['simd']}, torch {machine['torch']}")

# %% [markdown]
# ## In multiples of SupCon

# %% tags=["hide-input"]
ratios = benchmark.ratios(record)
Figure(
    plots.costs(ratios),
    "Time of rnc_loss over that of SupCon on the same batch of random normal embeddings. "
    f"Lines at 1 and 2. {where}.",
    name="benchmark-cost",
    alt="Lines of the time of rnc_loss in multiples of SupCon against the batch size, for ages and "
    "for labels that all differ.",
)

# %% [markdown]
# Labels are **ages** (two views of each sample, about a hundred values in all) or **continuous** (one view, all
# distinct; SupCon then has no pairs of equal label, and does the same arithmetic). A time is forward plus backward,
# the median over turns that all losses took in one process: at least seven of rnc_loss and SupCon where they are
# compared, three of the others and of larger batches. So the ratios hold up better than the times when the machine has
# other things to do.
#
# With ages, ordering the groups of equal labels costs next to nothing. What remains is the distances, one exponential
# for each pair and the gradient, which is made along the way instead of by a second sweep over stored matrices. When
# all labels are distinct every anchor needs an order of its own.
#
# ## What the embeddings look like must not matter
#
# A loss that is fast on random embeddings only is of no use: training pulls embeddings apart, crowds them together or
# throws one far out. *Reach* is the radius of the batch, the largest distance of an embedding from the mean, over τ.
# The kinds of batches are made of normal embeddings and ages:
#
# - **as drawn**, and scaled to a given **reach**;
# - **one outlier**: one embedding far out; **collapsed**: all close together but one;
# - **half of the embeddings zero**, as behind a dead ReLU; **ordered along a line** by their ages, with noise, as
#   training wants them;
# - **labels with decimals**: the ages divided by ten; **all labels equal**; **all labels different**.

# %% tags=["hide-input"]
regimes = benchmark.regimes(record)
drawing = Figure(
    plots.costs_of_regimes(regimes),
    "Time of rnc_loss over that of SupCon: against the reach of the batch (above), and for other "
    f"kinds of batches (below). Lines at 1 and 2. {where}.",
    name="benchmark-regimes",
    alt="Two panels of lines against reach, and one of dots for each kind of batch, all in "
    "multiples of the time of SupCon.",
)
glue(regimes=drawing)
drawing

# %% tags=["hide-input"]
worst = regimes.loc[regimes["SupCon"].idxmax()]
strict = regimes.loc[regimes["SupCon as drawn"].idxmax()]
Notice(
    f"Over {regimes['regime'].nunique()} kinds of batches and "
    f"{len(regimes[['d', 'M']].drop_duplicates())} sizes, rnc_loss takes "
    f"{regimes['SupCon'].min():.2f} to {worst['SupCon']:.2f} times as long as SupCon on the same "
    f"batch, {regimes['SupCon'].median():.2f} times in the median. It takes most for "
    f"“{worst['regime']}” at d = {worst['d']}, M = {worst['M']}. Measured by SupCon on the batch as "
    f"drawn, the most is {strict['SupCon as drawn']:.2f}, for “{strict['regime']}”. It takes at "
    f"most {regimes['plain path'].max():.2f} of the plain path's time.",
    title="The most expensive batches",
)

# %% [markdown]
# Both measures are shown because SupCon has a cliff of its own. Far apart, the terms of its softmax become subnormal
# numbers, which many processors handle slowly. A ratio to SupCon on the same batch then looks better than rnc_loss is;
# one to SupCon on the batch as drawn does not.
#
# Batches as drawn are in {numref}`benchmark-peers` too, where SupCon's times are others: there it has its turn between
# other losses. It fills several matrices anew, and what that costs depends on what ran before. So the same batch has
# two ratios, and the answer above names the range of each.
#
# The **plain path** is this package's other way to the same numbers, by sorting whole rows. It takes every option and
# does not look at what embeddings are like; a fast path that is slower than it would be useless. A dash is
# where nothing was measured, to save time.

# %% tags=["remove-input", "fold"]
sizes = [f"d = {row.d}, M = {row.M}" for row in regimes.itertuples()]
table = regimes.assign(size=sizes).pivot_table(
    index="regime", columns="size", values="SupCon", sort=False
)
by_kind = regimes.groupby("regime", sort=False)
table.insert(
    0,
    "Reach",
    [
        " to ".join(
            dict.fromkeys(
                f"{r:.{0 if r > 99 else 1}f}" for r in (part.min(), part.max())
            )
        )
        for _, part in by_kind["reach"]
    ],
)
table["Plain path, at most"] = by_kind["plain path"].max()
Table(
    table.rename_axis("Batch").reset_index(),
    "Time of rnc_loss over that of SupCon on the same batch, and the largest over that of the "
    f"plain path. {where}.",
    name="benchmark-regimes-table",
    format=".2f",
    align={"Reach": "right"},
)

# %% [markdown]
# ## Batches of a real training
#
# A perceptron of two layers learns ages with rnc_loss, from a synthetic table whose columns are waves of the age with
# noise. Two views of a sample differ in noise. At some steps the features and labels of the batch are kept, and the
# losses timed on them.

# %% tags=["hide-input"]
trained = benchmark.trained(record)
Figure(
    plots.costs_in_training(trained),
    "Time of rnc_loss over that of SupCon on batches of a training on synthetic data, and their "
    f"reach; M = {trained['M'].iloc[0]}, d = {trained['d'].iloc[0]}. {where}.",
    name="benchmark-trained",
    alt="Above, lines of the time of rnc_loss in multiples of SupCon against the step of a "
    "training; below, the reach of its batches.",
)

# %% tags=["remove-input", "fold"]
Table(
    trained,
    "Time of rnc_loss in ms and over that of others, at steps of a training on synthetic data; "
    f"M = {trained['M'].iloc[0]}, d = {trained['d'].iloc[0]}. {where}.",
    name="benchmark-trained-table",
    columns={
        "step": "Step",
        "reach": "Reach",
        "ms": "rnc_loss, ms",
        "SupCon": "SupCon, same batch",
        "SupCon at step 0": "SupCon at step 0",
        "plain path": "Plain path",
    },
    format={
        "reach": ".1f",
        "ms": ".1f",
        **dict.fromkeys(["SupCon", "SupCon at step 0", "plain path"], ".2f"),
    },
)

# %% tags=["remove-input", "answer"]
kinds = {"ages": "ages as labels", "continuous": "labels that all differ"}


def times(values):
    return f"{values.min():.2f} to {values.max():.2f}"


Findings(
    *(
        f"with {kinds[labels]}, {times(each)} (random embeddings, {ratios['M'].min()} to "
        f"{ratios['M'].max()} in a batch);"
        for labels, each in ratios.groupby("labels", sort=False)["rnc_loss"]
    ),
    f"over {regimes['regime'].nunique()} kinds of batches, {times(regimes['SupCon'])};",
    f"on batches of a training, {times(trained['SupCon'])}.",
    title="**The answer**: forward and backward pass together, rnc_loss takes, as multiples of the time "
    "of SupCon on the same batch:",
)

# %% [markdown]
# ## Its peers
#
# - **official**: the algorithm of the official class, written anew: one masked sum after another, in $O(M^3)$ time and
#   memory.
# - **row sort**: each row sorted by label distance, then `logcumsumexp`, which is the straightforward fast way.
#   **plain path**: this package's, which subtracts embeddings directly instead of by a matrix product.
# - **SupCon**, **InfoNCE** {cite:p}`chen2020simclr`: on the same similarity matrix, negative distances over τ.
#   **SupCon (cosine)**: in its usual form, on a matrix product of normalised embeddings, which needs no distances.
# - **cdist**: the similarity matrix alone, nothing done with it.
# - **RankSim** {cite:p}`gong2022ranksim`, **Ordinal Entropy** {cite:p}`zhang2023ordinal`: terms that are added to a
#   regression loss, here alone and on the embeddings. They work on label values: RankSim on one sample of each,
#   Ordinal Entropy on their means. So they are cheap where labels repeat.

# %% tags=["hide-input"]
Table(
    ratios,
    "Time of SupCon, and of the others as multiples of it: above 1, the other takes longer. "
    f"{where}.",
    name="benchmark-peers",
    columns={
        column: {"labels": "Labels"}.get(column, column) for column in ratios.columns
    },
    format={
        "SupCon, ms": lambda ms: f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}",
        **dict.fromkeys(ratios.columns[4:], ".2f"),
    },
)

# %% tags=["hide-input"]
times = benchmark.medians(record)
dims = sorted(times["d"].unique())
figure, axes = plt.subplots(
    1,
    len(dims),
    figsize=(4.9 * len(dims), 4.2),
    sharey=True,
    layout="constrained",
    squeeze=False,
)
styles = {
    "rnc_loss": ("C0", "o"),
    "official": ("C3", "s"),
    "row sort": ("C1", "D"),
    "SupCon": ("C2", "^"),
    "cdist": ("0.5", "v"),
}
for ax, d in zip(axes[0], dims, strict=True):
    for name, (colour, marker) in styles.items():
        line = times[
            (times["loss"] == name) & (times["d"] == d) & (times["labels"] == "ages")
        ].sort_values("M")
        ax.loglog(line["M"], line["ms"], color=colour, marker=marker, ms=5, label=name)
    line = times[
        (times["loss"] == "rnc_loss")
        & (times["d"] == d)
        & (times["labels"] == "continuous")
    ].sort_values("M")
    ax.loglog(
        line["M"],
        line["ms"],
        color="C0",
        marker="o",
        ms=5,
        ls=":",
        mfc="white",
        label="rnc_loss, continuous labels",
    )
    ax.set(title=f"d = {d}", xlabel="embeddings in the batch, M")
    ax.set_xscale("log", base=2)
axes[0, 0].set(ylabel="forward + backward, ms")
axes[0, 0].legend(fontsize="small")
Figure(
    figure,
    f"Time against batch size, ages as labels unless noted. {where}.",
    name="benchmark-time",
    alt="Log-log lines of time against batch size for each loss and two embedding dimensions.",
)

# %% [markdown]
# A straight line in {numref}`benchmark-time` means a power of $M$:

# %% tags=["remove-input", "fold"]
Table(
    benchmark.exponents(record),
    "Exponent of $M$: slope of log time over the three largest batches of each loss, or the two that there are. "
    f"{where}.",
    name="benchmark-exponents",
    columns={
        "loss": "Loss",
        "labels": "Labels",
        "d": "d",
        "from M": "From M",
        "to M": "To M",
        "exponent": "Exponent",
    },
    format={"exponent": ".2f"},
)

# %% [markdown]
# All pairs of a batch are compared, so an exponent of about 2 is what each loss needs. The official form takes a sum
# for each pair, in $O(M^3)$; its exponent depends on how much of the time these sums take, and on what the
# processor's cache holds. `rnc_loss` keeps one $M × M$ matrix at most, and works in blocks that stay in the cache.
#
# ## Memory
#
# Up to 4096 embeddings, `rnc_loss` keeps one $M × M$ matrix, in which distances make room for the gradient. Larger
# batches go strip by strip. Then no such matrix is kept, and memory grows with $M$ instead of $M^2$.

# %% tags=["hide-input"]
memory = pd.DataFrame(record["memory"])
figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
for (name, labels), line in memory[memory["bytes"] > 0].groupby(
    ["loss", "labels"], sort=False
):
    colour, marker = styles[name]
    style = {"ls": ":", "mfc": "white"} if labels == "continuous" else {}
    label = name if labels == "ages" else f"{name}, continuous labels"
    ax.loglog(
        line["M"],
        line["bytes"] / 1e6,
        color=colour,
        marker=marker,
        label=label,
        **style,
    )
ax.set_xscale("log", base=2)
ax.set(xlabel="embeddings in the batch, M", ylabel="peak memory above the start, MB")
ax.legend(fontsize="small")
Figure(
    figure,
    f"Peak memory of one forward and backward pass, d = {memory['d'].iloc[0]}, each measured in "
    f"a process of its own. {where}.",
    name="benchmark-memory",
    alt="Log-log lines of peak memory against batch size.",
)

# %% tags=["remove-input", "fold"]
largest = memory.assign(MB=memory["bytes"] / 1e6).sort_values(["loss", "labels", "M"])
Table(
    largest,
    f"Peak memory above the process's start. {where}.",
    name="benchmark-memory-table",
    columns={
        "loss": "Loss",
        "labels": "Labels",
        "M": "M",
        "MB": "MB",
    },
    format={"MB": ".0f"},
)

# %% [markdown]
# ## Training on images
#
# A loss is one part of a step. The others are reading, augmenting and the network. So the same contrastive step, on two
# random views of each face in a batch, is measured as a whole, from files to updated weights:
#
# - **plain**: each file is opened with PIL and goes through torchvision's transforms one after another, in DataLoader
#   workers, one for each processor; float32; the loss as a loop. **plain, rnc_loss**: only the loss is exchanged.
# - **rnclib**: the files are decoded once beforehand, and kept as bytes; random numbers are drawn for each sample, and
#   the views made for the whole batch at once; channels last; `rnc_loss`. **bf16**: with autocast to bfloat16.
#   **compiled**: with `torch.compile`.
# - **frozen features**: one view of each image goes through the encoder without a gradient, as training a linear
#   regressor on a frozen encoder asks for.

# %% tags=["hide-input"]
if profile == "paper":
    trainings = benchmark.load(profile, results_dir, "throughput")
else:
    trainings = [throughput.measure(profile)]
    benchmark.save(trainings[0], results_dir)
settings = {
    "small": "four convolutions",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
}


def place(training):
    machine = training["machine"]
    processor = machine.get("gpu", f"{machine['cpu']}, {machine['threads']} threads")
    return f"{processor}, torch {machine['torch']}{short}"


rates = pd.concat([throughput.rates(t).assign(where=place(t)) for t in trainings])
rates["setting"] = [
    f"{settings[row.model]}, {row.size} pixels, batch {row.batch}"
    + (f"\n{row.where}" if len(trainings) > 1 else "")
    for row in rates.itertuples()
]
where = "; ".join(dict.fromkeys(rates["where"]))
Figure(
    plots.rates(rates[rates["pipeline"] != "frozen features"]),
    "Contrastive training on synthetic faces, from files to updated weights: images per second, "
    f"and as multiples of the plain pipeline. {where}.",
    name="benchmark-training",
    alt="Bars of images per second for each pipeline, one panel for each network and machine.",
)

# %% tags=["remove-input", "fold"]
turns = len(trainings[0]["rates"][0]["images_per_second"])
Table(
    rates,
    f"Images (of two views each) per second: median over {turns} turns, and as a multiple of the "
    f"plain pipeline. {where}.",
    name="benchmark-training-table",
    columns={
        "setting": "Network",
        "pipeline": "Pipeline",
        "images_per_second": "Images per second",
        "times": "Multiple",
    },
    format={"images_per_second": ".4g", "times": ".2f"},
)

# %% [markdown]
# The small network on small pictures leaves more of the time to the pipeline around it. Autocast to bfloat16 pays where
# the processor multiplies in it, as this one does. Compiling makes the small network up to a fifth faster, and the
# large one slower. The published run on AgeDB, 400 epochs over 12 208 images and 100 more for the regressor, is work
# for a GPU:

# %% tags=["hide-input"]
hours = pd.concat(
    [
        throughput.projected_hours(training)
        .rename("hours")
        .rename_axis("model")
        .reset_index()
        .assign(where=place(training))
        for training in trainings
    ]
)
Table(
    hours.assign(model=hours["model"].map(settings)),
    "Hours that the published run on AgeDB would take, projected from the measured rates of the "
    "fastest pipeline without compiling. Those rates are of smaller batches than the published "
    "256.",
    name="benchmark-projection",
    columns={"model": "Network", "where": "Measured on", "hours": "Hours"},
    format={"hours": ".1f"},
) if len(hours) else Notice("This profile measures nothing at 224 pixels.")

# %% tags=["hide-input"]
Notice(
    "The loss has no kernel of its own for CUDA: GPUs run the same code. "
    + (
        "Training is measured on one above."
        if any(training["device"] == "cuda" for training in trainings)
        else "Nothing here was measured on one."
    ),
    title="GPUs",
)

# %% [markdown]
# ## Limits
#
# One kind of machine; for the loss alone, random embeddings and the features of one small network; for training,
# synthetic data. `python -m rnclib.benchmark` and `python -m rnclib.throughput`, the latter also
# with `--device cuda`, repeat the measurements anywhere.
