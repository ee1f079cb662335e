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
# # The loss
#
# Rank-N-Contrast {cite:p}`zha2023rnc` trains an encoder before any regressor exists. Its loss looks at the samples of a
# batch in pairs and asks one thing of the embeddings: *samples with closer labels shall be more similar*. This chapter
# derives the loss from that wish and works it through for four samples. It shows how small the loss can get, what a
# small value guarantees, and which forces it exerts. Every statement is checked by the code beside it.

# %% tags=["parameters", "hide-input"]
temperature: float = 2.0  # τ
n_samples: int = 12  # samples in the random batches
seed: int = 0  # of the random batches

# %% tags=["remove-cell"]
from rnclib.parameters import check_parameters

check_parameters(
    globals(), temperature=(0.05, 10.0), n_samples=(4, 40), seed=(0, 2**31)
)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from rnclib import plots, rnc_loss, rnc_lower_bound
from rnclib.interactive import Interactive, playground
from rnclib.report import Figure, Table

plots.use_style()
generator = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## From a wish to a formula
#
# Let $v_1, \dots, v_M$ be the embeddings of a batch and $y_1, \dots, y_M$ their labels. Similarity is negative
# distance, measured in units of a temperature $\tau$; labels have a distance of their own:
#
# ```{math}
# :label: loss-similarity
# s_{ij} = -\frac{\lVert v_i - v_j \rVert_2}{\tau}, \qquad d_{ij} = \lVert y_i - y_j \rVert_1 .
# ```
#
# Pick an *anchor* $i$ and another sample $j$. The competitors of $j$ are the samples whose labels are at least as far
# from the anchor's as $j$'s is. $j$ itself is among them, and so is every tie, a sample whose label is equally far:
#
# ```{math}
# :label: loss-set
# \mathcal{S}_{ij} = \{\, k \neq i : d_{ik} \geq d_{ij} \,\} .
# ```
#
# The wish is that $j$ be the most similar to the anchor among them. As in a softmax classifier, turn similarities into
# a probability of picking $j$, and take the negative logarithm. The loss is its mean over all ordered pairs:
#
# ```{math}
# :label: loss-definition
# L = \frac{1}{M(M-1)} \sum_{i} \sum_{j \neq i} -\log \frac{e^{s_{ij}}}{\sum_{k \in \mathcal{S}_{ij}} e^{s_{ik}}} .
# ```
#
# Labels enter through {eq}`loss-set` only. So their unit does not matter; what matters is which of two distances is
# larger. Written as a loop, {eq}`loss-definition` is short and costs $M^3$ steps. Here `rnc_loss` is compared with it:


# %%
def literal_loss(v, y, temperature):
    M, total = len(v), 0.0
    s = -torch.cdist(v, v) / temperature
    d = torch.cdist(y[:, None].double(), y[:, None].double(), p=1)
    for i in range(M):
        for j in set(range(M)) - {i}:
            competitors = [k for k in range(M) if k != i and d[i, k] >= d[i, j]]
            total += torch.logsumexp(s[i, competitors], 0) - s[i, j]
    return total / (M * (M - 1))


v = torch.randn(n_samples, 3, dtype=torch.float64, generator=generator).requires_grad_()
y = torch.randint(20, 60, (n_samples,), generator=generator)
literal, fast = literal_loss(v, y, temperature), rnc_loss(v, y, temperature=temperature)
gradients = [torch.autograd.grad(value, v)[0] for value in (literal, fast)]
print(f"literal loop {literal.item():.12f}")
print(f"rnc_loss     {fast.item():.12f}")
difference = (gradients[0] - gradients[1]).abs().max()
print(f"largest difference between the gradients {difference:.1e}")
assert torch.allclose(literal, fast, rtol=0, atol=1e-10)
assert torch.allclose(*gradients, rtol=0, atol=1e-10)

# %% [markdown]
# ## Four samples, worked through
#
# Four people aged 20, 30, 40 and 70, somewhere in a plane. Twelve ordered pairs make twelve terms.

# %% tags=["hide-input"]
four = torch.tensor(
    [[-1.0, 0.4], [0.2, -0.5], [1.1, 0.8], [2.6, -0.3]], dtype=torch.float64
)
ages = torch.tensor([20, 30, 40, 70])
s = -torch.cdist(four, four) / temperature
terms = []
for i in range(4):
    for j in sorted(set(range(4)) - {i}, key=lambda j: abs(int(ages[i] - ages[j]))):
        competitors = [
            k
            for k in range(4)
            if k != i and abs(ages[i] - ages[k]) >= abs(ages[i] - ages[j])
        ]
        terms.append({
            "anchor": str(int(ages[i])), "j": str(int(ages[j])),
            "d": int(abs(ages[i] - ages[j])),
            "competitors": ", ".join(str(int(ages[k])) for k in competitors),
            "s": float(s[i, j]),
            "term": float(torch.logsumexp(s[i, competitors], 0) - s[i, j]),
        })  # fmt: skip
terms = pd.DataFrame(terms)
assert np.isclose(
    terms["term"].mean(), rnc_loss(four, ages, temperature=temperature).item()
)
Table(
    terms,
    "The twelve terms of the loss, nearest label first for each anchor. Their mean, "
    f"{terms['term'].mean():.4f}, is the loss.",
    name="loss-terms",
    columns={
        "anchor": "Anchor $i$", "j": "$j$", "d": "$d_{ij}$",
        "competitors": r"Ages in $\mathcal{S}_{ij}$", "s": "$s_{ij}$", "term": "Term",
    },
    format={"s": ".2f", "term": ".3f"},
)  # fmt: skip

# %% tags=["hide-input"]
figure, axes = plt.subplots(
    1, 2, figsize=(9.5, 3.8), layout="constrained", width_ratios=[1, 1.25]
)
for i, j in [(1, 0), (1, 2), (1, 3)]:
    axes[0].plot(*four[[i, j]].T, color="0.6", lw=1, zorder=0)
axes[0].scatter(*four.T, c=ages, cmap="viridis", s=420, edgecolor="white")
for (x0, x1), age in zip(four.tolist(), ages.tolist(), strict=True):
    axes[0].annotate(
        str(age),
        (x0, x1),
        ha="center",
        va="center",
        color="#111111" if age == 70 else "#fefefe",  # on the dark page, too
    )
axes[0].set(
    title="embeddings, with distances from 30", xlim=(-1.7, 3.3), ylim=(-1.2, 1.5)
)
axes[0].set_aspect("equal")
for row, (j, competitors) in enumerate([(2, (0, 2, 3)), (0, (0, 2, 3)), (3, (3,))]):
    left = 0.0
    for k in sorted(competitors, key=lambda k: k != j):
        width = float(torch.softmax(s[1, list(competitors)], 0)[competitors.index(k)])
        colour = plt.get_cmap("viridis")((int(ages[k]) - 20) / 50)
        axes[1].barh(
            row,
            width,
            left=left,
            color=colour,
            alpha=1 if k == j else 0.35,
            edgecolor="white",
        )
        ink = "black" if k != j else "#111111" if k == 3 else "#fefefe"
        axes[1].annotate(
            str(int(ages[k])),
            (left + width / 2, row),
            ha="center",
            va="center",
            color=ink,
        )
        left += width
axes[1].set(
    yticks=range(3), yticklabels=["j = 40", "j = 20 (tie)", "j = 70"], xlim=(0, 1),
    title="anchor 30: who is picked?",
    xlabel="probability; the term is −log of the strong part",
)  # fmt: skip
axes[1].invert_yaxis()
axes[1].grid(False)
Figure(
    figure,
    "Left: four embeddings, labelled with their ages. Right: the three terms of anchor 30. The "
    "ages 20 and 40 are equally far from 30, so each competes with the other and with 70. 70 "
    "competes with nobody, and its term is 0.",
    name="loss-four",
    alt="Four labelled points in a plane, and three bars divided among the competitors of one "
    "anchor.",
)

# %% [markdown]
# Two things to note. A sample that alone has the most distant label competes with itself only: its term is always 0.
# And ties compete with each other: 20 can have a probability of more than one half only at the expense of 40.
# That is where the lower bound below comes from.
#
# ## Shapes: what goes in
#
# `features` holds embeddings, `labels` one row per *sample*. The 2 in the official `(bs, 2, feat_dim)` counts
# **views**: two random augmentations of the same image. Each is an embedding of its own, so that $M = 2\,\text{bs}$.
# Where there is no augmentation, as for molecules, leave this axis out. `label_dim` is 1 for an age or a solubility;
# with more, $d_{ij}$ adds up the coordinates' differences.

# %%
for features_shape, labels_shape in [
    ((8, 2, 16), (8,)),
    ((8, 2, 16), (8, 1)),
    ((8, 2, 16), (8, 3)),
    ((8, 16), (8,)),
]:
    features, labels = (
        torch.randn(features_shape, generator=generator),
        torch.randn(labels_shape, generator=generator),
    )
    value = rnc_loss(features, labels, temperature=temperature)
    M = features.numel() // features.shape[-1]
    shapes = f"features {features_shape!s:12} labels {labels_shape!s:7}"
    print(f"{shapes} M = {M:2}  loss {value.item():.3f}")

features, labels = (
    torch.randn(8, 2, 16, generator=generator),
    torch.randn(8, generator=generator),
)
views_as_samples = rnc_loss(
    features.flatten(0, 1), labels.repeat_interleave(2), temperature=temperature
)
assert torch.allclose(
    rnc_loss(features, labels, temperature=temperature), views_as_samples
)
try:
    rnc_loss(features, labels.repeat(2))
except ValueError as error:
    print(f"\nOne label per view is a mistake:\n{error}")

# %% [markdown]
# Batches may be small: three embeddings are enough for something to be ranked. With two, each is the other's only
# choice; with one there is no pair. Both give 0.
#
# ## How small can it get?
#
# Fix an anchor $i$ and group the others by label distance: level $m$ holds the $n_{i,m}$ samples at the $m$-th distinct
# distance. Every sample of the level has the whole level among its competitors. So the probabilities that
# {eq}`loss-definition` gives to the samples of one level are at most those of a softmax over that level alone,
# $q_1, \dots, q_n$, which add up to 1. By the inequality of arithmetic and geometric means their product is at most
# $n^{-n}$, hence
#
# ```{math}
# :label: loss-level
# \sum_{j \in \text{level } m} -\log q_j \;\geq\; n_{i,m} \log n_{i,m} ,
# ```
#
# and, added up over anchors and levels,
#
# ```{math}
# :label: loss-bound
# L \;\geq\; L^\star = \frac{1}{M(M-1)} \sum_i \sum_m n_{i,m} \log n_{i,m} .
# ```
#
# Equality in {eq}`loss-level` needs two things: all similarities within a level must be equal, and what farther levels
# add to the denominators must vanish. Neither is out of reach where labels are single numbers: put the embeddings on a
# line in the order of their labels, $v_i = t\,y_i$. Then $s_{ij} = -t\,d_{ij}/\tau$ is the same throughout a level, and
# as $t$ grows the farther levels fade like $e^{-t\,\Delta/\tau}$, with $\Delta$ the gap between levels. So $L^\star$ is
# the greatest lower bound. It is 0 when no two samples are equally far from any anchor, and with two views of each
# sample it is at least
# $\frac{M-2}{M-1} \log 2$, for every other sample comes as a pair.

# %% tags=["hide-input"]
patterns = {
    "distinct": torch.rand(n_samples, generator=generator, dtype=torch.float64) * 40,
    "ages, with ties": y,
    "two values": torch.arange(n_samples) % 2,
    "evenly spaced": torch.arange(n_samples),
}


def finest(labels):
    """Smallest difference between two levels of an anchor."""
    d = (labels[:, None] - labels).abs().double().sort(dim=1).values.diff(dim=1)
    return d[d > 0].min().item()


figure, ax = plt.subplots(layout="constrained", figsize=(7.2, 3.8))
bounds = []
for (name, labels), marker in zip(patterns.items(), "osD^", strict=True):
    bound = rnc_lower_bound(labels)
    # up to a scale at which a farther level adds no more than e to the power of minus 40
    scales = np.geomspace(0.01, 40 / finest(labels), 40) * temperature
    losses = [
        rnc_loss(t * labels[:, None].double(), labels, temperature=temperature).item()
        for t in scales
    ]
    assert min(losses) >= bound - 1e-10 and abs(losses[-1] - bound) < 1e-6
    bounds.append({"labels": name, "bound": bound, "loss": losses[-1]})
    gap = np.array(losses) - bound
    ax.loglog(
        scales[gap > 1e-9],
        gap[gap > 1e-9],
        marker=marker,
        markevery=4,
        ms=5,
        label=f"{name}: $L^\\star$ = {bound:.3f}",
    )
ax.set(
    xlabel="$t$, for embeddings $v = t\\,y$", ylabel="$L - L^\\star$", ylim=(1e-7, None)
)
ax.legend()
Figure(
    figure,
    "The bound is tight: embeddings on a line in the order of the labels come as close to it as "
    "one likes. Four patterns of labels.",
    name="loss-tight",
    alt="Curves of the loss above its bound falling to zero as the scale of the embeddings "
    "grows.",
)

# %% tags=["hide-input"]
Table(
    pd.DataFrame(bounds),
    "The bound, and the loss at the largest scale of {numref}`loss-tight`. No random embedding "
    f"of {n_samples} samples falls below it.",
    name="loss-bounds",
    columns={"labels": "Labels", "bound": r"$L^\star$", "loss": "Loss"},
    format=".6f",
)  # fmt: skip

# %%
for labels in patterns.values():
    for spread in (0.1, 1, 10, 100):
        random = spread * torch.randn(
            n_samples, 5, dtype=torch.float64, generator=generator
        )
        assert (
            rnc_loss(random, labels, temperature=temperature)
            >= rnc_lower_bound(labels) - 1e-12
        )

# %% [markdown]
# ## What a small loss guarantees
#
# Call embeddings **δ-ordered** if, seen from every anchor, similarity follows the labels with a margin:
#
# ```{math}
# :label: loss-ordered
# d_{ij} < d_{ik} \;\Rightarrow\; s_{ij} > s_{ik} + \delta, \qquad
# d_{ij} = d_{ik} \;\Rightarrow\; \lvert s_{ij} - s_{ik} \rvert < \delta .
# ```
#
# A loss close enough to its bound forces this. Let $\varepsilon = M(M-1)(L - L^\star)$. It is a sum over anchors and
# levels of non-negative excesses, so no single one exceeds $\varepsilon$. Take a level with $n$ samples, softmax $q$
# over it, and $A = \sum_{\text{level}} e^{s_{ij}}$. Its excess has two non-negative parts.
#
# *Within the level.* $\sum_j -\log(n q_j) \leq \varepsilon$. The left side is $n$ times the divergence of $q$ from the
# uniform distribution, so by Pinsker's inequality $|q_j - 1/n| \leq \sqrt{\varepsilon/2n}$. If
# $\varepsilon < 2\tanh^2(\delta/2)/n$, this is less than $\tanh(\delta/2)/n$, and the ratio of any two $q$ is less than
# $e^\delta$: the second half of {eq}`loss-ordered`.
#
# *From farther levels.* A farther $k$ adds at least $n \log(1 + e^{s_{ik}}/A)$, so
# $e^{s_{ik}} \leq A\,(e^{\varepsilon/n} - 1)$, while $e^{s_{ij}} = q_j A > A\,\frac{2}{n(1 + e^\delta)}$. If
# $\varepsilon < n \log\bigl(1 + \frac{2}{n\,e^\delta(1+e^\delta)}\bigr)$, the first half follows. That bound is
# smallest for $n = 1$, the other for $n = M - 1$. Together:
#
# ```{math}
# :label: loss-delta
# \begin{aligned}
# M(M-1)\,(L - L^\star) &< \min\Bigl\{ \frac{2 \tanh^2(\delta/2)}{M-1},\;
# \log\Bigl(1 + \frac{2}{e^{\delta}(1 + e^{\delta})}\Bigr) \Bigr\} \\
# &\Rightarrow\; \text{the embeddings are δ-ordered.}
# \end{aligned}
# ```
#
# To see it happen, let the points of a random batch move freely in the plane, down the gradient of the loss:


# %%
def disorder(v, y, delta):
    """Fraction of the comparisons (i, j, k) that break the δ-order."""
    s, d = -torch.cdist(v, v) / temperature, (y[:, None] - y).abs()
    nearer, equal = d[:, :, None] < d[:, None, :], d[:, :, None] == d[:, None, :]
    lead = s[:, :, None] - s[:, None, :]
    broken = (nearer & (lead <= delta)) | (equal & (lead.abs() >= delta))
    i, j, k = np.ogrid[: len(y), : len(y), : len(y)]
    others = torch.from_numpy((i != j) & (i != k) & (j != k))
    return (broken & others).sum().item() / (others & (nearer | equal)).sum().item()


def step(optimiser, v, y):
    def closure():
        optimiser.zero_grad()
        value = rnc_loss(v, y, temperature=temperature)
        value.backward()
        return value

    return optimiser.step(closure).item()  # the loss before the step


delta = 0.1
free = (
    temperature * torch.randn(n_samples, 2, dtype=torch.float64, generator=generator)
).requires_grad_()
optimiser = torch.optim.LBFGS(
    [free],
    max_iter=2,
    history_size=30,
    line_search_fn="strong_wolfe",
    tolerance_change=0,
)
bound, path = rnc_lower_bound(y), []
for _ in range(90):
    before = free.detach().clone()
    path.append(
        {
            "gap": step(optimiser, free, y) - bound,
            "disorder": disorder(before, y, delta),
            "v": before,
        }
    )

margin = min(
    2 * np.tanh(delta / 2) ** 2 / (n_samples - 1),
    np.log1p(2 / (np.exp(delta) * (1 + np.exp(delta)))),
)
margin /= n_samples * (n_samples - 1)
guaranteed = [point for point in path if point["gap"] < margin]
assert all(point["disorder"] == 0 for point in guaranteed)
print("loss above its bound, at the start and at the end:")
print(f"    {path[0]['gap']:.3f} and {path[-1]['gap']:.1e}")
print(f"comparisons out of order (δ = {delta}), at the start and at the end:")
print(f"    {path[0]['disorder']:.1%} and {path[-1]['disorder']:.1%}")
print(f"steps below the margin {margin:.1e} of the proposition, all of them in order:")
print(f"    {len(guaranteed)} of {len(path)}")

# %% tags=["hide-input"]
figure, axes = plt.subplots(
    1, 3, figsize=(10, 3.3), layout="constrained", width_ratios=[1, 1, 1.25]
)
for ax, point, title in zip(
    axes, (path[0], path[-1]), ("at random", "after the descent"), strict=False
):
    ax.scatter(*point["v"].T, c=y, cmap="viridis", s=45, edgecolor="white")
    ax.set(title=title, aspect="equal", xticklabels=[], yticklabels=[])
    ax.set_box_aspect(1)
    ax.set_adjustable("datalim")
(left,) = axes[2].semilogy(
    [max(point["gap"], 1e-13) for point in path], label="$L - L^\\star$"
)
axes[2].axhline(margin, color=left.get_color(), ls=":", lw=1)
axes[2].annotate(
    "guarantee", (len(path), margin), ha="right", va="bottom", color=left.get_color()
)
other = axes[2].twinx()
(right,) = other.plot(
    [point["disorder"] for point in path], color="C1", ls="--", label="out of order"
)
other.set(ylim=(-0.02, 0.6), ylabel="fraction out of order")
other.grid(False)
axes[2].set(xlabel="step", title="loss and order")
axes[2].legend(handles=[left, right])
Figure(
    figure,
    f"{n_samples} free points, coloured by label, before and after the descent (each panel in "
    "its own scale), which puts points of equal labels in one place; the loss above its bound, and the "
    "fraction of comparisons that break the δ-order, δ = 0.1. Below the dotted line no comparison can be out of order.",
    name="loss-descent",
    alt="Points at random, points in the order of their labels, and two falling curves.",
)

# %% [markdown]
# The points may still lie on a curve, not on a straight line: only the order of distances is asked for. That leaves the
# regressor something to do. It is also why rank agreement, rather than linearity, measures what this loss has achieved.
#
# ## Push and pull
#
# How does the loss act on one similarity? $s_{ik}$ is the numerator once, and it stands in the denominator $D_{ij}$ of
# every $j$ that is as near or nearer than $k$:
#
# ```{math}
# :label: loss-gradient
# \frac{\partial L}{\partial s_{ik}} = \frac{1}{M(M-1)}
# \Bigl( \sum_{j \neq i,\; d_{ij} \leq d_{ik}} \frac{e^{s_{ik}}}{D_{ij}} - 1 \Bigr),
# \qquad D_{ij} = \sum_{l \in \mathcal{S}_{ij}} e^{s_{il}} .
# ```
#
# The $-1$ **pulls**: each sample wants to be picked once. The sum **pushes**: each nearer sample wants $k$ out of its
# way, by the probability that $k$ now takes from it. For one anchor the two balance: the entries of a row add up to 0,
# since the probabilities of each $D_{ij}$ add up to 1. The sample with the nearest label, if it is alone at that
# distance, has one push, from itself, of less than 1. So it is always pulled. The farthest is pushed by all the others.

# %% tags=["hide-input"]
random = temperature * torch.randn(
    n_samples, 3, dtype=torch.float64, generator=generator
)
ordered = torch.sort(y).values
similarity = (-torch.cdist(random, random) / temperature).requires_grad_()
value = rnc_loss(random, ordered, temperature=1, feature_sim=lambda _: similarity)
(gradient,) = torch.autograd.grad(value, similarity)

formula = torch.zeros_like(gradient)
with torch.no_grad():
    d = (ordered[:, None] - ordered).abs()
    for i in range(n_samples):
        others = [k for k in range(n_samples) if k != i]
        D = {
            j: sum(similarity[i, k].exp() for k in others if d[i, k] >= d[i, j])
            for j in others
        }
        for k in others:
            formula[i, k] = (
                sum(similarity[i, k].exp() / D[j] for j in others if d[i, j] <= d[i, k])
                - 1
            )
formula /= n_samples * (n_samples - 1)
assert (
    torch.allclose(formula, gradient, atol=1e-12)
    and gradient.sum(1).abs().max() < 1e-12
)

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
scaled = (gradient * n_samples * (n_samples - 1)).numpy()
image = axes[0].imshow(
    scaled, cmap="RdBu_r", vmin=-abs(scaled).max(), vmax=abs(scaled).max()
)
figure.colorbar(image, ax=axes[0], label="pulled  ←  0  →  pushed", ticks=[0])
every = max(1, n_samples // 8)
axes[0].set(
    xlabel="label of $k$", ylabel="label of the anchor $i$",
    xticks=range(0, n_samples, every), yticks=range(0, n_samples, every),
    xticklabels=ordered[::every].tolist(), yticklabels=ordered[::every].tolist(),
    title="$\\partial L/\\partial s_{ik}$, random embeddings",
)  # fmt: skip
axes[0].tick_params(axis="x", labelrotation=90)
axes[0].grid(False)
moving = four.clone().requires_grad_()
force = -torch.autograd.grad(rnc_loss(moving, ages, temperature=temperature), moving)[0]
assert force.sum(0).abs().max() < 1e-12
axes[1].scatter(*four.T, c=ages, cmap="viridis", s=260, edgecolor="white")
axes[1].quiver(
    *four.T,
    *force.T,
    angles="xy",
    scale_units="xy",
    scale=float(force.norm(dim=1).max()) / 0.9,
    width=0.008,
    zorder=3,
)
for (x0, x1), age in zip(four.tolist(), ages.tolist(), strict=True):
    axes[1].annotate(
        str(age),
        (x0, x1),
        xytext=(0, -20 if age == 30 else 12),  # out of the way of its arrow
        textcoords="offset points",
        ha="center",
    )
axes[1].set(
    title="forces on the four samples", xlim=(-2, 3.8), ylim=(-1.6, 1.8), aspect="equal",
    ylabel=" ",  # on a phone, not that of its neighbour
)  # fmt: skip
Figure(
    figure,
    "Left: the gradient by similarities, samples sorted by label. Near the diagonal, where "
    "labels are close, samples are pulled together; far from it they are pushed apart. Right: "
    "the forces −∂L/∂v on the four samples of {numref}`loss-four`; they add up to zero, and that on 20 is too small "
    "to see.",
    name="loss-forces",
    alt="A matrix that is blue near its diagonal and red in its far corners, and four points "
    "with arrows.",
)

# %% [markdown]
# In {numref}`loss-playground` the points are yours to drag: each change shows every term, the loss above its bound, and
# the forces. *Arrange by label* puts them on a line; *Follow the forces* lets the gradient do it.

# %% tags=["hide-input"]
some = torch.tensor(
    [[-1.3, 1.5], [1.6, -0.4], [-0.2, -1.9], [0.5, 1.0], [-2.1, -0.8], [2.3, 1.9]],
    dtype=torch.float64,
) * (temperature / 2)
of = torch.tensor([20, 30, 40, 40, 55, 70])
names = [f"{letter} ({age})" for letter, age in zip("ABCDEF", of.tolist(), strict=True)]
moving = some.clone().requires_grad_()
value = rnc_loss(moving, of, temperature=temperature)
force = -torch.autograd.grad(value, moving)[0]
d, s = (of[:, None] - of).abs(), -torch.cdist(some, some) / temperature
terms = np.full((len(of), len(of)), np.nan)
for i, j in zip(*np.nonzero(~np.eye(len(of), dtype=bool)), strict=True):
    competitors = [k for k in range(len(of)) if k != i and d[i, k] >= d[i, j]]
    terms[i, j] = torch.logsumexp(s[i, competitors], 0) - s[i, j]
assert np.isclose(np.nanmean(terms), value.item())

figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.1), layout="constrained")
axes[0].quiver(
    *some.T, *force.T, angles="xy", scale_units="xy",
    scale=float(force.norm(dim=1).max()) / (0.45 * temperature),
    color=plots.ORANGE, width=0.01,
)  # fmt: skip
axes[0].scatter(*some.T, c=of, cmap="viridis", s=320, edgecolor="white", zorder=2)
for place, age, letter in zip(some.tolist(), of.tolist(), "ABCDEF", strict=True):
    ink = "#111111" if age > 50 else "#fefefe"  # on the dark page, too
    axes[0].annotate(str(age), place, ha="center", va="center", color=ink, zorder=3)
    axes[0].annotate(letter, place, xytext=(-16, 8), textcoords="offset points")
axes[0].set(title="embeddings and forces", aspect="equal", xticks=[], yticks=[])
axes[0].margins(0.2)
axes[1].imshow(terms, cmap="Oranges", vmin=0, vmax=4)
for i, j in zip(*np.nonzero(~np.isnan(terms)), strict=True):
    axes[1].annotate(
        f"{terms[i, j]:.2f}",
        (j, i),
        ha="center",
        va="center",
        fontsize=9,
        color="#111111",
    )
axes[1].set(
    title="terms", xlabel="$j$", ylabel="anchor $i$", xticks=range(6),
    yticks=range(6), xticklabels=names, yticklabels=names,
)  # fmt: skip
axes[1].tick_params(axis="x", rotation=45)
axes[1].grid(False)
Interactive(
    figure,
    f"Six embeddings with the labels {', '.join(map(str, of.tolist()))}, the forces on them, and a term "
    "of the loss for each anchor and other sample. The loss at the start is "
    f"{value.item():.4f}, its bound {rnc_lower_bound(of):.4f}.",
    name="loss-playground",
    alt="Six labelled points in a plane with arrows, and a matrix of thirty terms.",
    kind="playground",
    data=playground(some, of, temperature),
)

# %% [markdown]
# ## Why it need not cost $M^3$
#
# Order the others of an anchor by label distance, farthest first. Then $D_{ij}$ is a running sum of $e^{s_{ik}}$, read
# where the run of ties of $j$ ends, and the sum of $1/D_{ij}$ in {eq}`loss-gradient` is a running sum from the other
# end. One sort and two cumulative sums replace the loop:

# %%
with torch.no_grad():
    i = 0
    others = torch.arange(1, n_samples)
    d_i, order = (y[others] - y[i]).abs().sort(descending=True)
    running = torch.exp(-(v[others] - v[i]).norm(dim=1) / temperature)[order].cumsum(0)
    run_end = torch.searchsorted(-d_i, -d_i, right=True) - 1
    anchor_loss = (
        running[run_end].log() + (v[others] - v[i]).norm(dim=1)[order] / temperature
    ).mean()
assert torch.isclose(
    anchor_loss, rnc_loss(v, y, temperature=temperature, reduction="none")[i]
)

# %% [markdown]
# Samples with equal labels can have one sort in common, the distances are a matrix product, and the gradient can be
# made block by block along the way. {mod}`rnclib.loss` does this, keeping one $M × M$ matrix at most. It costs 0.4
# to 1.8 times as much as SupCon, a contrastive loss for classes ({doc}`methods`), on the same distances where labels
# repeat, and up to 2.5 times where all differ ({doc}`benchmark`).
