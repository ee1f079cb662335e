"""The protocol across tasks: what it trains, what its search can see, and that its page says the same."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from worlds import table

from rnclib.data import Dataset, Split, catalogue
from rnclib.data.tables import _CONCRETE_TEST, _published
from rnclib.experiment import described, shared
from rnclib.fitting import Samples
from rnclib.protocols import settings, tasks
from rnclib.protocols.settings import search_task, searched_settings
from rnclib.protocols.tasks import (
    ARMS,
    HEADS,
    NETWORKS,
    OTHERS,
    TASKS,
    peers,
    recipe,
    space,
)
from rnclib.recipe import HEADS as ALL_HEADS

BOOK = Path(__file__).resolve().parents[1] / "book"
PAGE = (BOOK / "comparing.md").read_text(encoding="utf-8")
KIND_OF = {
    "descriptors": "molecules", "graphs": "molecules", "both": "molecules", "numbers": "table", "pictures": "images",
}  # fmt: skip


def corners(searched):
    """Settings at both ends of each range and with each value of each list, the others as in the first trial."""
    return [(name, value) for name, among in searched.items() for value in among]


@pytest.mark.parametrize("arm", (*ARMS, *OTHERS))
@pytest.mark.parametrize("network", NETWORKS)
def test_all_settings_that_are_searched_make_a_recipe(network, arm):
    searched, first = space(network, arm)
    assert set(first) == set(searched)
    for name, among in searched.items():
        inside = among[0] <= first[name] <= among[1] if isinstance(among, tuple) else first[name] in among
        assert inside, name
    for name, value in corners(searched):
        for head in HEADS[arm]:
            made = recipe(network, arm, first | {name: value}, head)
            assert made.inputs == (KIND_OF[network],) and (made.pretrain is None) == (arm not in ("RnC", "SupCon"))
            assert made.head == head


def test_arms_differ_in_what_trains_the_network_and_in_nothing_else():
    for network in NETWORKS:
        first = {name: value for arm in ARMS for name, value in space(network, arm)[1].items()}
        made = {arm: recipe(network, arm, {name: first[name] for name in space(network, arm)[0]}) for arm in ARMS}
        networks = {tuple(getattr(one, name) for name in ("model", "widths", "dropout", "scaling", "featuriser"))
                    for one in made.values()}  # fmt: skip
        assert len(networks) == 1
        assert len({(one.keep, one.n_views) for one in (made["end to end"].fit, made["RnC"].pretrain)}) == 1
        assert made["RnC"].freeze and made["RnC"].fit is None and made["RnC"].pretrain.ties == "rounding"
        assert made["joint"].fit.regulariser == "rnc" and made["end to end"].fit.regulariser is None
        shared = ("epochs", "batch_size", "learning_rate", "weight_decay", "optimizer", "schedule", "average")
        stages = [made["end to end"].fit, made["RnC"].pretrain, made["joint"].fit]
        assert all(len({getattr(stage, name) for stage in stages}) == 1 for name in shared)
        assert len({made[arm].label() for arm in ARMS}) == 3


def test_every_arm_may_predict_with_every_regressor_that_it_can_have():
    for arm, heads in HEADS.items():
        assert set(heads) == {*ALL_HEADS, *(() if arm in ("RnC", "SupCon") else (None,))}
    assert set(HEADS) == {*ARMS, *OTHERS}


def test_each_other_method_is_what_it_is_called():
    made = {arm: recipe("numbers", arm, space("numbers", arm)[1]) for arm in OTHERS}
    labels = {arm: one.label() for arm, one in made.items()}
    assert labels["SupCon"].startswith("SupCon frozen, closed form")
    assert all(labels[arm] == f"L1 + {arm} end to end, tuned" for arm in OTHERS[1:])
    assert [name for name, task in TASKS.items() if task.others] == ["esol", "concrete", "latitude"]


def test_tasks_are_data_sets_of_the_catalogue_with_their_first_split():
    for name, task in TASKS.items():
        assert name == task.dataset and task.split == task.source.splits[0]
        assert task.n_splits <= min(settings.SEARCH_SPLITS)  # which are never scored
        assert all(KIND_OF[network] == task.source.kind for network in task.networks)
    real = [name for name, task in TASKS.items() if task.source.measured]
    assert len(real) == 15 and {task.source.kind for task in TASKS.values()} == set(KIND_OF.values())
    assert {network for task in TASKS.values() for network in task.networks} == set(NETWORKS)
    assert all("simulated" in task.source.title for task in TASKS.values() if not task.source.measured)
    for kind in set(KIND_OF.values()):
        assert all(one.inputs == (kind,) or one.model == "training mean" for one in peers(kind).values())
        assert len({one.label() for one in peers(kind).values()}) == len(peers(kind))


def test_the_runs_of_a_task_are_every_arm_with_every_regressor_and_the_peers_on_every_split(monkeypatch):
    monkeypatch.setattr(tasks, "WINNERS", {})  # no ensembles
    first = {arm: space("numbers", arm)[1] for arm in ARMS}
    equal = {"numbers": first | {"end to end, equal time": first["end to end"]}}
    made = tasks.runs("concrete", equal, profile="paper")
    own = [tasks.method("numbers", arm, head) for arm in ARMS for head in HEADS[arm]]
    assert [run.method for run in made if run.seed == 0] == [*own, *peers("table")]
    assert len(made) == 10 * (len(own) + len(peers("table"))) and {run.seed for run in made} == set(range(10))
    assert len({described_without_seed(run) for run in made}) == len(own) + len(peers("table"))
    assert {(run.data.dataset, run.data.split) for run in made} == {("concrete", "random")}
    longer = {"numbers": first | {"end to end, equal time": first["end to end"] | {"width": 512}}}
    more = {run.method for run in tasks.runs("concrete", longer, profile="paper", n_splits=1)} - {*own}
    assert {tasks.parts_of(name)[1] for name in more if ":" in name} == {"end to end, equal time"}
    few = {"numbers": first | {"RnC, 15 trials": first["RnC"] | {"epochs": 50}}}
    trained = {run.method: run.recipe for run in tasks.runs("concrete", few, profile="paper", n_splits=1)}
    assert trained["numbers: RnC, 15 trials; ridge"].pretrain.epochs == 50
    networks = {name: {arm: space(name, arm)[1] for arm in ARMS} for name in TASKS["esol"].networks}
    splits = Counter(tasks.parts_of(run.method)[0] for run in tasks.runs("esol", networks, profile="paper"))
    assert splits["descriptors"] == 2 * splits["graphs"] == 2 * splits["both"] == 20 * 11
    assert {name: task.packages for name, task in TASKS.items() if task.packages} == {"esol": ("chemprop",)}
    beside = [run for run in tasks.runs("esol", {}, profile="paper") if run.method == "chemprop"]
    assert [run.seed for run in beside] == [*range(20)] and beside[0].recipe.model == "chemprop"
    for network, arm, head in (("numbers", "RnC", "ridge"), ("both", "end to end, equal time", "gaussian process")):
        assert tasks.parts_of(tasks.method(network, arm, head)) == (network, arm, head)
    # the regressors of one network share its training
    bundles = Counter(shared(run) for run in made if run.seed == 0 and ":" in run.method)
    assert sorted(bundles.values()) == [3, 4, 4]


def described_without_seed(run) -> str:
    return json.dumps(described(replace(run, seed=0)), sort_keys=True)


# --- the search -----------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    """A task of 3000 rows, and a search that keeps what it is given and takes a second a trial."""
    rows = table(3000)
    inputs = np.column_stack([np.arange(3000.0), rows.inputs])

    def split(seed):
        order = np.random.default_rng(seed).permutation(3000)
        return Split(np.sort(order[:2400]), np.sort(order[2400:2700]), np.sort(order[2700:]))

    monkeypatch.setattr(
        catalogue, "load", lambda name: Dataset(inputs, rows.targets, "x", {"random": split, "published": split})
    )
    calls = []

    def search(plan, sets, *, n_trials, path, told, seconds=np.inf):
        calls.append({"plan": plan, "sets": sets, "n_trials": n_trials, "seconds": seconds})
        trials = json.loads(path.read_text())["trials"] if path.is_file() else []
        while len(trials) < n_trials and len(trials) < seconds:
            errors = {"own": 1 + abs(len(trials) - 40) / 100}
            trials.append({"settings": {"number": len(trials)}, "state": "complete", "errors": errors, "seconds": 1.0})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"trials": trials}))
        return trials

    monkeypatch.setattr(settings, "search", search)
    return calls, split


def test_the_search_of_a_large_task_sees_a_part_of_one_training_set_and_no_test_set(seen, tmp_path):
    calls, split = seen
    search_task("abalone", "numbers", "joint", tmp_path)
    (call,) = calls
    ((train, val),) = call["sets"]
    in_train, in_val = ({int(number) for number in part.inputs[:, 0]} for part in (train, val))
    wanted = split(100)
    assert len(in_train) == 2000 and in_train < set(wanted.train.tolist()) and in_val == set(wanted.val.tolist())
    assert not (in_train | in_val) & set(wanted.test.tolist())
    np.testing.assert_array_equal(train.targets, catalogue.load("abalone").targets[train.inputs[:, 0].astype(int)])
    assert call["plan"].heads == (None, "ridge", "neighbours")
    search_task("abalone", "numbers", "joint", tmp_path)
    assert {int(number) for number in calls[1]["sets"][0][0].inputs[:, 0]} == in_train


@pytest.mark.usefixtures("seen")
def test_a_small_task_is_searched_on_three_splits_and_concrete_without_the_published_test_rows(monkeypatch):
    monkeypatch.setattr(settings, "SMALL", 3000)
    for dataset, kind, seeds in (("diabetes", "random", (100, 101, 102)), ("concrete", "published", (0, 1, 2))):
        splits = catalogue.load(dataset).splits[kind]
        found = settings._seen_by_search(dataset)
        for seed, (train, val) in zip(seeds, found, strict=True):
            wanted, used = splits(seed), np.concatenate([train.inputs[:, 0], val.inputs[:, 0]]).astype(int)
            assert set(val.inputs[:, 0].astype(int)) == set(wanted.val) and not set(used) & set(wanted.test)


def test_no_test_row_of_the_published_table_is_seen_by_the_search(monkeypatch):
    load = catalogue.load
    rows = table(1030)
    monkeypatch.setattr(
        catalogue, "load",
        lambda name: Dataset(np.arange(1030.0)[:, None], rows.targets, "x", {"published": partial(_published, 1030)}),
    )  # fmt: skip
    used = {int(i) for pair in settings._seen_by_search("concrete") for part in pair for i in part.inputs[:, 0]}
    monkeypatch.setattr(catalogue, "load", load)
    assert len(used) == 824 and not used & set(_CONCRETE_TEST)


def test_end_to_end_training_may_search_as_long_as_the_contrastive_one(seen, tmp_path):
    calls, _ = seen
    assert len(search_task("concrete", "numbers", "end to end", tmp_path)) == settings.N_TRIALS
    search_task("concrete", "numbers", "RnC", tmp_path, 12)
    search_task("concrete", "numbers", "end to end", tmp_path)
    # a search that has not come to its end gives neither settings nor a time to others
    assert len(calls) == 3 and set(searched_settings(tmp_path, "concrete", "numbers")) == {
        "end to end", "end to end, 15 trials",
    }  # fmt: skip
    search_task("concrete", "numbers", "RnC", tmp_path)
    path = settings._study(tmp_path, "concrete", "numbers", "RnC")
    told = json.loads(path.read_text())
    for trial in told["trials"]:
        trial["seconds"] = 1.5
    path.write_text(json.dumps(told))
    assert "end to end, equal time" not in searched_settings(tmp_path, "concrete", "numbers")  # it has not gone on yet
    assert len(search_task("concrete", "numbers", "end to end", tmp_path)) == 45
    assert calls[-1]["n_trials"] == settings.MOST_TRIALS and calls[-1]["seconds"] == 45
    found = searched_settings(tmp_path, "concrete", "numbers")
    assert found["end to end"] == {"number": 29} and found["end to end, equal time"] == {"number": 40}
    assert found["RnC"] == {"number": 29} and "joint" not in found
    assert found["RnC, 15 trials"] == {"number": 14} == found["end to end, 15 trials"]
    assert searched_settings(tmp_path, "airfoil", "numbers") == {}


def test_default_settings_wait_for_every_real_task_of_the_kind(monkeypatch, tmp_path):
    learnt = {"diabetes": 1e-3, "concrete": 1e-2, "airfoil": 1e-1, "abalone": 1e-1}
    monkeypatch.setattr(settings, "TASKS", {name: tasks.TASKS[name] for name in (*learnt, "naval", "esol")})

    def found(root, dataset, network):  # a simulated task, or one of another kind, is not asked
        assert (root, network) == (tmp_path, "numbers")
        return {
            arm: tasks.space(network, arm)[1] | {"learning_rate": learnt[dataset]}
            for arm in tasks.ARMS
            if arm != "joint" or dataset != "airfoil"
        }

    monkeypatch.setattr(settings, "searched_settings", found)
    default = settings.default_settings(tmp_path, "table")
    assert set(default) == {"end to end", "RnC"} and default["RnC"]["learning_rate"] == 0.032
    assert set(default["RnC"]) == set(tasks.space("numbers", "RnC")[0])


def test_a_default_is_tried_on_a_task_that_it_was_not_made_from(monkeypatch, tmp_path):
    learnt = {"diabetes": 5e-4, "concrete": 1e-3, "airfoil": 1e-2}
    monkeypatch.setattr(settings, "TASKS", {name: tasks.TASKS[name] for name in learnt})
    first = tasks.space("numbers", "RnC")[1]
    monkeypatch.setattr(
        settings, "searched_settings", lambda root, name, network: {"RnC": first | {"learning_rate": learnt[name]}}
    )
    rng = np.random.default_rng(0)
    tiny = Samples(rng.normal(size=(40, 3)).astype("float32"), rng.normal(size=40))
    monkeypatch.setattr(settings, "_seen_by_search", lambda dataset: [(tiny, tiny)])
    monkeypatch.setattr(settings, "space", lambda network, arm: (tasks.space(network, arm)[0], first))
    errors = settings.try_default("diabetes", "RnC", tmp_path)
    assert set(errors) == {"ridge", "neighbours"} and min(errors.values()) > 0
    path = settings._study(tmp_path, "diabetes", "numbers", "RnC typical of others")
    (trial,) = json.loads(path.read_text())["trials"]
    assert trial["settings"]["learning_rate"] == 0.0032  # of Concrete and Airfoil
    before = path.read_bytes()
    assert settings.try_default("diabetes", "RnC", tmp_path) == errors and path.read_bytes() == before
    learnt["airfoil"] = 1e-3  # searched anew
    settings.try_default("diabetes", "RnC", tmp_path)
    (trial,) = json.loads(path.read_text())["trials"]
    assert trial["settings"]["learning_rate"] == 0.001
    monkeypatch.setattr(settings, "TASKS", {"diabetes": tasks.TASKS["diabetes"]})  # the only one of its kind
    assert settings.try_default("diabetes", "RnC", tmp_path) == {}


def test_the_defaults_tried_are_those_of_the_published_searches(monkeypatch):
    monkeypatch.setattr(settings, "searched_settings", cache(settings.searched_settings))
    real = [(name, task) for name, task in TASKS.items() if task.source.measured]
    for name, task in real:
        found = settings.default_settings(BOOK / "results", task.source.kind, without=name)
        for arm in ARMS:
            trials = settings._trials(BOOK / "results", name, task.networks[0], f"{arm} typical of others")
            assert not trials or [trial["settings"] for trial in trials] == [found[arm]]


# --- the page -------------------------------------------------------------------------------------------


def test_the_page_names_every_task_and_its_number_of_splits():
    table = PAGE[PAGE.index("| Kind | Tasks") :].split("\n\n", 1)[0]
    named = {}
    for line in table.splitlines()[2:]:
        _, titles, n_splits = (cell.strip() for cell in line.strip("|").split("|"))
        named |= dict.fromkeys(titles.split(", "), int(n_splits))
    assert named == {task.source.title.removesuffix(" (simulated)"): task.n_splits for task in TASKS.values()}


def test_the_page_has_the_ranges_that_are_searched():
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", PAGE[PAGE.index("| Setting |") :], flags=re.M)
    said = {name: values for name, values, _ in rows}
    begun = {name: first.replace("decay ", "").lower() for name, _, first in rows}
    for network in NETWORKS:
        for arm in (*ARMS, *OTHERS):
            for name, among in space(network, arm)[0].items():
                if arm in OTHERS and name in space(network, "end to end")[0]:
                    continue
                if arm in OTHERS:
                    name = f"{arm}: {name}"
                values = said[WORDS[name]]
                first = space(network, arm)[1][name.removeprefix(f"{arm}: ")]
                assert str(first).removesuffix(".0") in begun[WORDS[name]], name
                if isinstance(among, tuple):
                    assert values == f"{among[0]:g} to {among[1]:g}", name
                else:
                    words = [
                        {"l1": "L1", "l2": "L2", "huber": "Huber", None: "none"}.get(one, str(one)) for one in among
                    ]
                    assert all(word in values for word in words), name
    counted = (settings.N_TRIALS, settings.FEW_TRIALS, settings.MOST_TRIALS, settings.SEARCH_ROWS)
    for number in (*counted, *settings.SEARCH_SPLITS):
        assert f" {number}" in PAGE


WORDS = {
    "learning_rate": "highest learning rate (AdamW, one cycle)", "weight_decay": "weight decay",
    "batch_size": "batch size", "average": "average of the weights", "epochs": "epochs",
    "width": "width of the first two layers", "dropout": "dropout", "input_noise": "noise on the inputs",
    "scaling": "scaling of the inputs", "loss": "regression loss", "temperature": "temperature",
    "regulariser_weight": "weight of the contrastive loss",
    "SupCon: temperature": "temperature of SupCon", "SupCon: n_bins": "bins of the target",
    "Ordinal Entropy: regulariser_weight": "weight of Ordinal Entropy",
    "RankSim: regulariser_weight": "weight of RankSim", "ConR: regulariser_weight": "weight of ConR",
    "ConR: window": "window of ConR, standard deviations of the target",
}  # fmt: skip
