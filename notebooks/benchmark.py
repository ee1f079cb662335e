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
# {doc}`loss` shows that running sums give the same numbers. This chapter measures what that is worth, and compares it
# with losses that nobody thinks of as expensive: SupCon {cite:p}`khosla2020supcon` and InfoNCE
# {cite:p}`chen2020simclr`.

# %% tags=["parameters"]
profile: str = "paper"  # paper: published; quick, smoke: measure now
results_dir: str = None  # folder of the records; None: book/results

# %% tags=["remove-cell"]
from rnclib.parameters import check_parameters

check_parameters(
    globals(), profile=["paper", "quick", "smoke"], results_dir=[None, str]
)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from rnclib import benchmark, plots, throughput
from rnclib.report import Figure, Notice, Table

plots.use_style()
if profile == "paper":
    record = benchmark.load(profile, results_dir)[0]
else:
    record = benchmark.measure(profile)
    benchmark.save(record, results_dir)
machine = record["machine"]
where = (
    f"{machine['cpu']} ({machine['simd']}), one thread, float32, torch {machine['torch']}, "
    f"profile {profile}"
)
print(where)

# %% [markdown]
# ## What is compared
#
# - **rnc_loss**: the loss of this package.
# - **literal**: the definition, one masked sum after another, in $O(M^3)$ time and memory.
# - **row sort**: each row sorted by label distance, then `logcumsumexp`, which is the straightforward fast way.
# - **SupCon**, **InfoNCE**: on the same similarity matrix, negative distances over τ. **SupCon (cosine)**: in its usual
#   form, on a matrix product of normalised embeddings, which needs no distances.
# - **cdist**: the similarity matrix alone, nothing done with it.
#
# Embeddings are random normal. Labels are **ages** (two views of each sample, about a hundred values in all) or
# **continuous** (one view, all distinct). A time is forward plus backward, the median over turns that the candidates
# took in one process. So the ratios hold up better than the times when the machine has other things to do.
#
# ## Time

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
    "literal": ("C3", "s"),
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

# %% tags=["hide-input"]
ratios = benchmark.ratios(record)
Table(
    ratios,
    "Time of rnc_loss, and of the others as multiples of it: above 1, the other takes longer. "
    f"{where}.",
    name="benchmark-ratios",
    columns={
        column: {"labels": "Labels"}.get(column, column) for column in ratios.columns
    },
    format={
        "rnc_loss, ms": lambda ms: f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}",
        **dict.fromkeys(ratios.columns[4:], ".2f"),
    },
)

# %% [markdown]
# With ages, ordering the groups of equal labels costs next to nothing. What remains is the distances, one exponential
# for each pair and the gradient, which is made along the way instead of by a second sweep over stored matrices. When
# all labels are distinct every anchor needs an order of its own. Sorting then adds most of the time where embeddings
# are short, and less where distances between long ones cost more.
#
# ## Growth
#
# A straight line in {numref}`benchmark-time` means a power of $M$:

# %% tags=["hide-input"]
Table(
    benchmark.exponents(record),
    "Exponent of $M$: slope of log time over the three largest batches of each loss. "
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
# Losses that keep several $M × M$ matrices outgrow the processor's cache as $M$ grows, which shows as exponents
# above 2. `rnc_loss` works in blocks that stay in the cache.
#
# ## Memory

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

# %% tags=["hide-input"]
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
# ## Embeddings far apart
#
# Exponentials in float32 hold similarities of some dozens. Embeddings that are farther apart in units of τ, as they may
# get late in training, or that crowd closely, are computed in float64. Where that overflows too, sums are kept as
# logarithms all the way, which is slow:

# %% tags=["hide-input"]
spread = pd.DataFrame(record["spread"])
Table(
    spread.assign(times=spread["ms"] / spread["ms"].iloc[0]),
    "Time of rnc_loss for the same embeddings, scaled up: their largest distance from the origin "
    f"over τ, median time in ms, and multiple of the first. {where}.",
    name="benchmark-spread",
    columns={
        "scale": "Scaled by",
        "reach": "Norm / τ",
        "ms": "ms",
        "times": "Multiple",
    },
    format={"reach": ".0f", "ms": ".1f", "times": ".1f"},
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
    return f"{processor}, torch {machine['torch']}, profile {profile}"


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

# %% tags=["hide-input"]
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
# One machine; random embeddings for the loss alone, synthetic faces for training. `python -m rnclib.benchmark` and
# `python -m rnclib.throughput`, the latter also with `--device cuda`, repeat the measurements anywhere.
