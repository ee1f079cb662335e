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
# # When test differs from training
#
# Inputs in use are worse than those in training. The paper {cite:p}`zha2023rnc` reports that Rank-N-Contrast's errors grow less under the corruptions of
# ImageNet-C {cite:p}`hendrycks2019corruptions` than those of end-to-end training. Here the same question is put to molecules whose atoms and bonds are partly
# hidden or wrong, and to drawn faces under noise, blur, weather and compression. Then training itself is disturbed: ranges of the target are left out of it, which the
# paper tests too, and a part of its targets is wrong.

# %% tags=["parameters"]
molecules: str = "auto"  # auto (ESOL if to be had), esol, standin or none
faces: str = "synthetic"  # synthetic (drawn faces), agedb or none
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
    molecules=["auto", "esol", "standin", "none"],
    faces=["synthetic", "agedb", "none"],
    data_dir=[None, str],
    profile=["paper", "quick", "smoke"],
    n_seeds=[None, (1, 100)],
    device=["cpu", "cuda", "auto"],
    results_dir=[None, str],
    refresh=bool,
)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from rnclib import plots, results
from rnclib.data.corruptions import (
    IMAGE_CORRUPTIONS,
    MOLECULE_CORRUPTIONS,
    SEVERITIES,
    corrupt_images,
)
from rnclib.data.synthetic import Person, Scene, draw_face
from rnclib.experiment import resolve_dataset, run_grid
from rnclib.protocols import END_TO_END, robustness_grid
from rnclib.report import Figure, Notice, Table, data_notice, p_value

plots.use_style()
datasets = [resolve_dataset(molecules, profile, results_dir), faces]
grids = {
    dataset: run_grid(
        robustness_grid(
            dataset=dataset, profile=profile, n_seeds=n_seeds, data_dir=data_dir
        ),
        results_dir=results_dir,
        refresh=refresh,
        device=device,
    )
    for dataset in datasets
    if dataset != "none"
}
for dataset, grid in grids.items():
    print(f"{dataset}, {profile}: {grid}")
titles = {
    "esol": "ESOL, random split",
    "standin": "Synthetic stand-in, random split",
    "agedb": "AgeDB, standard split",
    "synthetic": "Synthetic drawn faces, standard split",
}
nothing = Notice("These parameters leave out this data set.")
unmeasured = Notice(
    "Nothing is published of this yet. `-p profile quick` trains a short version, `-p n_seeds 5` five splits in full.",
    title="Not measured",
)


def faced(dataset):
    return dataset in ("synthetic", "agedb")


def corrupted(faces):
    """Records of molecules or faces on corrupted inputs, what they are compared with, their unit and source."""
    for dataset, grid in grids.items():
        if faced(dataset) == faces:
            records = [r for r in grid.records if r["config"].get("corruptions")]
            runs = (
                f"{len({r['seed'] for r in records})} {'seeds' if faces else 'splits'}"
            )
            source = f"{titles[dataset]}, profile {profile}, {runs}"
            return records, END_TO_END[dataset], records[0]["data"]["unit"], source
    return None


def errors_figure(records, baseline, unit, source, name):
    errors = results.corrupted(records)
    kinds = list(dict.fromkeys(errors["kind"]))
    return Figure(
        plots.errors_by_severity(
            errors, kinds, label=f"test MAE, {unit}", sharey=name == "faces"
        ),
        f"Test error against the severity of each corruption: mean over runs, and from the lowest to the highest as a band. {source}.",
        name=f"robustness-errors-{name}",
        alt="Small panels of error against severity, one for each kind of corruption, one line for each method.",
    )


def ratio_table(records, baseline, unit, source, name):
    families = IMAGE_CORRUPTIONS if name == "faces" else {}
    ratios = results.corruption_ratio(records, baseline, families).reset_index()
    order = ["mean", *dict.fromkeys(families.values())]
    ratios["order"] = [
        order.index(k) if k in order else len(order) for k in ratios["kind"]
    ]
    ratios["kind"] = [
        "all kinds" if k == "mean" else f"all {k}" if k in order else k
        for k in ratios["kind"]
    ]
    return Table(
        ratios.sort_values(["method", "order"], kind="stable"),
        f"Error on corrupted inputs, summed over severities, relative to that of {baseline} on the same split and corruption; for several kinds, the geometric mean of these "
        f"ratios: geometric mean over runs with its 95% interval. Below 1: lower error. {source}.",
        name=f"robustness-ratio-{name}",
        columns={
            "method": "Method",
            "kind": "Corruption",
            "ratio": "Ratio",
            "low": "Low",
            "high": "High",
            "n": "Runs",
        },
        format={"ratio": ".2f", "low": ".2f", "high": ".2f"},
    )


def growth_table(records, baseline, unit, source, name):
    return Table(
        results.corruption_growth(records, baseline)
        .rename_axis("method")
        .reset_index(),
        f"Test MAE in {unit} on clean inputs and on corrupted ones (mean over kinds and severities; means over runs); growth, the second over the first; and growth "
        f"relative to that of {baseline} on the same split: geometric means over runs, the latter with its 95% interval. {source}.",
        name=f"robustness-growth-{name}",
        columns={
            "method": "Method",
            "clean": "Clean",
            "corrupted": "Corrupted",
            "growth": "Growth",
            "ratio": "Relative growth",
            "low": "Low",
            "high": "High",
        },
        format=dict.fromkeys(["clean", "corrupted"], ".3f")
        | dict.fromkeys(["growth", "ratio", "low", "high"], ".2f"),
    )


for dataset in grids:
    display(data_notice(dataset, profile))

# %% [markdown]
# End-to-end training is the one that does not get stuck, which on molecules is L1 at a tenth of the published learning rate ({doc}`esol` compares both).
#
# ## Corrupted molecules
#
# Nothing is changed in training: the networks are configured as in the other chapters, their weights chosen by clean validation parts, and they see corrupted inputs for
# the first time. (On another machine than that of another chapter the same configuration trains to somewhat other weights, so errors on clean molecules differ a little from those there.) Every corruption comes in five severities. At severities 1 to 5, a share of 5, 10, 20, 30 or 50% of the atoms, features or bonds is hit; what is hit at one severity is hit at all higher ones.
# Two questions are asked: which method has the lower error on corrupted inputs, and whose error grows less over its own on clean ones. A method can win the first by being better to begin with.

# %% tags=["hide-input"]
Table(
    pd.DataFrame(MOLECULE_CORRUPTIONS.items(), columns=["Corruption", "What it does"]),
    "The corruptions of molecules.",
    name="robustness-kinds",
)

# %% tags=["hide-input"]
of_molecules = corrupted(faces=False)
errors_figure(*of_molecules, "molecules") if of_molecules else nothing

# %% tags=["hide-input"]
ratio_table(*of_molecules, "molecules") if of_molecules else nothing

# %% tags=["hide-input"]
growth_table(*of_molecules, "molecules") if of_molecules else nothing

# %% [markdown]
# ## Corrupted faces
#
# Fourteen corruptions in the four families of ImageNet-C, made anew for small pictures: their kinds are the same, their strengths are not.

# %% tags=["hide-input"]
rng = np.random.default_rng(3)
face = np.asarray(draw_face(48, Person.random(rng), Scene.random(rng), 64))[None]
figure, axes = plt.subplots(4, 8, figsize=(8, 4.3), layout="constrained")
for ax in axes.flat:
    ax.set_axis_off()
for i, kind in enumerate(IMAGE_CORRUPTIONS):
    for j, severity in enumerate((SEVERITIES[1], SEVERITIES[4])):
        ax = axes.flat[2 * i + j]
        ax.imshow(corrupt_images(face, kind, severity, seed=0)[0])
        ax.set_title(f"{kind} {severity}", fontsize=7, loc="center")
axes.flat[2 * len(IMAGE_CORRUPTIONS)].imshow(face[0])
axes.flat[2 * len(IMAGE_CORRUPTIONS)].set_title("clean", fontsize=7, loc="center")
Figure(
    figure,
    "One drawn face under each corruption, at severities 2 and 5.",
    name="robustness-examples",
    alt="A grid of small pictures of one drawn face, each corrupted in another way.",
    format="jpeg",
)

# %% tags=["hide-input"]
of_faces = corrupted(faces=True)
errors_figure(*of_faces, "faces") if of_faces else nothing

# %% tags=["hide-input"]
ratio_table(*of_faces, "faces") if of_faces else nothing

# %% tags=["hide-input"]
growth_table(*of_faces, "faces") if of_faces else nothing

# %% [markdown]
# ## Targets that training has not seen
#
# Training and validation are cut down to ranges of the target, the test part is not. Two or three ranges stay as peaks, dense in the middle and thin at their ends, or the middle fifth
# is cut out. Does a representation that is in order fill the gap? Targets between the ranges seen are told apart from those beyond them all, which ask for extrapolation.

# %% tags=["hide-input"]
disturbed = [
    r
    for dataset, grid in grids.items()
    if not faced(dataset)
    for r in grid.records
    if not r["config"].get("corruptions")
]
tests = results.seen_and_unseen(disturbed)
source = f"{titles[disturbed[0]['dataset']]}, profile {profile}" if disturbed else ""
unit = disturbed[0]["data"]["unit"] if disturbed else ""
baseline = END_TO_END[disturbed[0]["dataset"]] if disturbed else ""


def against(runs, groups, metric):
    """Each method's errors beside the baseline's, and their difference, for every value of `groups`."""
    rows = []
    for value, part in runs.groupby(groups, sort=False):
        comparison = results.compare(part, metric, baseline)
        errors = results.error_table(part, {metric: "e"}).set_index("Method")["e"]
        for row in comparison.reset_index().to_dict("records"):
            labels = value if isinstance(value, tuple) else (value,)
            rows.append(
                dict(zip(groups, labels, strict=True))
                | row
                | {"ours": errors[row["method"]], "theirs": errors[baseline]}
            )
    table = pd.DataFrame(
        rows, columns=[*groups, *comparison.reset_index(), "ours", "theirs"]
    )
    table["corrected"] = results.holm(table["p"]).to_numpy()
    return table


columns = {
    "theirs": baseline,
    "ours": "RnC(L1)+freeze",
    "mean": "Difference",
    "low": "Low",
    "high": "High",
    "corrected": "p, corrected",
    "n": "Splits",
}
formats = {
    "mean": "+.3f",
    "low": "+.3f",
    "high": "+.3f",
    "corrected": p_value,
}
Table(
    against(tests, ["holes", "targets"], "test_mae_raw"),
    f"Test MAE in {unit} on targets in ranges that training has seen, between them and beyond them: mean over splits ± half its 95% interval, difference of Rank-N-Contrast "
    f"from {baseline} on the same split with its interval, and p value corrected for all comparisons of this table (Holm). {source}.",
    name="robustness-holes",
    columns={"holes": "Training targets", "targets": "Test targets", **columns},
    format=formats,
) if len(tests) else unmeasured

# %% [markdown]
# ## Wrong targets in training
#
# A share of the targets of training and validation is dealt out anew among their samples. The test part is right.

# %% tags=["hide-input"]
noisy = [r for r in disturbed if "wrong_targets" in r["config"]]
wrong = results.frame(noisy) if noisy else None
Table(
    against(
        wrong.assign(share=[f"{w:.0%}" for w in wrong["wrong_targets"]]),
        ["share"],
        "test_mae_raw",
    ),
    f"Test MAE in {unit} with wrong targets in training: mean over splits ± half its 95% interval, difference of Rank-N-Contrast from {baseline} on the same split with its "
    f"interval, and p value corrected for all comparisons of this table (Holm). {source}.",
    name="robustness-wrong-targets",
    columns={"share": "Wrong targets", **columns},
    format=formats,
) if noisy else unmeasured

# %% [markdown]
# ## Where the runs were made

# %% tags=["hide-input"]
Table(
    pd.concat(
        [
            results.machines(grid.records).assign(data=titles[dataset])
            for dataset, grid in grids.items()
        ]
    ),
    f"Processors and versions behind this page, and hours of the training that it rests on. Profile {profile}.",
    name="robustness-machines",
    columns={
        "data": "Data",
        "cpu": "Processor",
        "torch": "torch",
        "runs": "Runs",
        "hours": "Hours of training",
    },
    format={"hours": ".1f"},
) if grids else nothing

# %% [markdown]
# ## What this allows one to conclude
#
# For the published records (other parameters may say otherwise):
#
# - **That the errors of Rank-N-Contrast grow less under corruption is not borne out; they grow more**, on molecules ({numref}`robustness-growth-molecules`) as on drawn
#   faces ({numref}`robustness-growth-faces`). For the fine-tuned encoder on molecules this is no longer decided once the number of comparisons is corrected for ({doc}`claims`).
# - **On molecules it has the higher error under corruption**, by far when atoms are masked or bonds dropped; when features are wrong or atoms swapped, the methods are level ({numref}`robustness-ratio-molecules`).
# - **On drawn faces the kinds divide** ({numref}`robustness-ratio-faces`). Under brightness, contrast, compression and most blur it keeps the lower error that it has on clean pictures; under noise, snow and
#   frost it loses more than that, and is worse. Over all kinds the two are level.
#
# Noise, masked atoms and missing bonds have something in common: neither method has seen anything like them in training, while the random views of the faces change brightness, contrast and scale. An encoder that orders its
# inputs finely may react finely to what is foreign to it; this chapter does not show that, it only fits.
#
# The limits: one network each; faces that are drawings, not photographs; corruptions with strengths of our choosing. Nothing here speaks about photographs, on which the paper made its claim.
