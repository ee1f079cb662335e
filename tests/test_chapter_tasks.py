"""The chapter across tasks: what it compares, estimates and calls the winner, on records with numbers made up."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from records import record
from scipy import stats

from rnclib import across, results
from rnclib.chapters import experiments, tasks
from rnclib.chapters.aims import beside_published, by_network, not_run, reached, ways, winner
from rnclib.protocols import tasks as protocol
from rnclib.protocols.concrete import FOLDS, PUBLISHED
from rnclib.protocols.settings import search_table
from rnclib.protocols.tasks import (
    ARMS,
    ENSEMBLE,
    EQUAL_TIME,
    HEADS,
    OTHERS,
    TASKS,
    method,
    parts_of,
    space,
)
from rnclib.recipe import Recipe

STORE = Path(__file__).resolve().parents[1] / "book" / "results"


def stored_records(dataset: str) -> list[dict]:
    return results.load(STORE, profile="paper", experiment="tasks", dataset=dataset)


DATASETS = ("esol", "concrete", "diabetes", "naval")


def made(dataset: str, name: str, seed: int, val: float, test: float, **changes) -> dict:
    """A record of a method with given errors; standardised ones are half as large."""
    metrics = {
        part: {"standardised": {"mae": mae / 2, "rmse": mae}, "raw": {"mae": mae, "rmse": 2 * mae}}
        for part, mae in (("val", val), ("test", test))
    }
    told = {"dataset": dataset, "experiment": "tasks", "profile": "quick", "key": f"{dataset} {name} {seed}"}
    one = record(name, seed, **told) | {"metrics": {} if math.isnan(test) else metrics}
    one["test"] = one["test"] | {"index": [8 * seed + i for i in range(8)]}  # no two test sets overlap
    return one | changes


def arms_of(dataset: str, factor: float, *, n: int = 4, network: str | None = None) -> list[dict]:
    """End to end has a test MAE of about 1, RnC `factor` times as much, joint the same; ridge is the best regressor."""
    network, rng, found = network or TASKS[dataset].networks[0], np.random.default_rng(len(dataset)), []
    for seed in range(n):
        base = 1 + 0.1 * rng.random()
        for arm, times in (("end to end", 1.0), ("RnC", factor), ("joint", 1.0 + 0.01 * rng.random())):
            for head in HEADS[arm]:
                worse = 1.0 if head == "ridge" else 1.5
                times_now = times * (1 + 0.02 * rng.random())
                found.append(
                    made(dataset, method(network, arm, head), seed, worse * times_now, base * worse * times_now)
                )
        found += [made(dataset, peer, seed, 1.2, 1.2 + 0.01 * seed) for peer in ("trees", "gaussian process")]
        found.append(made(dataset, "training mean", seed, 4.0, 4.0))
    return found


RECORDS = [one for dataset in DATASETS for one in arms_of(dataset, 0.8 if dataset != "naval" else 2.0)]
TABLE = tasks.frame(RECORDS)
CHOSEN = tasks.compared(TABLE)


def test_a_row_knows_its_task_network_arm_and_regressor():
    assert len(TABLE) == len(RECORDS)
    row = TABLE[(TABLE["dataset"] == "concrete") & (TABLE["arm"] == "joint")].iloc[0]
    assert (row["network"], row["head"], row["kind"], row["measured"]) == ("numbers", "own layer", "table", True)
    assert not TABLE.loc[TABLE["dataset"] == "naval", "measured"].any()
    assert set(TABLE.loc[TABLE["network"].isna(), "arm"]) == {"trees", "gaussian process", "training mean"}


def test_arms_of_another_effort_that_found_the_same_settings_have_the_same_rows(monkeypatch):
    first = {arm: space("numbers", arm)[1] for arm in ARMS}
    settings = {"numbers": first | {EQUAL_TIME: first["end to end"], "RnC, 15 trials": first["RnC"] | {"epochs": 50}}}
    monkeypatch.setattr(tasks, "settings_of", lambda dataset, profile, root: settings)
    table = tasks.frame(arms_of("concrete", 0.8))
    same = table[table["arm"] == EQUAL_TIME].drop(columns="arm").reset_index(drop=True)
    pd.testing.assert_frame_equal(same, table[table["arm"] == "end to end"].drop(columns="arm").reset_index(drop=True))
    assert "RnC, 15 trials" not in set(table["arm"])  # which has runs of its own


def test_tasks_are_compared_on_the_first_network_with_the_regressor_that_validation_chose():
    more = tasks.frame([*RECORDS, *arms_of("esol", 0.1, network="graphs")])
    chosen = tasks.compared(more)
    pd.testing.assert_frame_equal(chosen.reset_index(drop=True), CHOSEN.reset_index(drop=True))
    assert set(CHOSEN.loc[CHOSEN["network"].notna(), "head"]) == {"ridge"}
    assert len(CHOSEN) == len(DATASETS) * 4 * (3 + 3)


def test_the_estimate_is_over_real_tasks_alone_and_decides_nothing_before_all_are_there():
    answers = tasks.answers(CHOSEN)
    assert answers.index.tolist() == ["RnC against end to end", "joint against end to end"]
    assert set(answers["n"]) == {3} and set(answers["verdict"]) == {"not measured"}
    assert math.exp(answers.loc["RnC against end to end", "mean"]) == pytest.approx(0.8, rel=0.05)  # naval is out
    effects = tasks.against(CHOSEN[CHOSEN["measured"]], "RnC", "end to end")["effect"]
    interval = stats.ttest_1samp(effects, 0).confidence_interval()
    row = answers.loc["RnC against end to end"]
    assert (row["plain"], row["plain_low"], row["plain_high"]) == pytest.approx((effects.mean(), *interval))
    assert tasks.answers(CHOSEN[CHOSEN["dataset"].isin(["esol", "concrete"])]).empty
    assert tasks.answers(CHOSEN, [("RnC", EQUAL_TIME)]).empty
    assert set(answers["failed"]) == {()} and answers["needed"].isna().all()


def test_with_all_tasks_there_is_a_verdict_but_not_for_an_arm_that_failed_somewhere(monkeypatch):
    records = [one for name in tasks.REAL for one in arms_of(name, 0.8, n=3)]
    assert tasks.answers(tasks.compared(tasks.frame(records)))["verdict"].tolist() == ["holds", "practically equal"]
    lame = [one | {"metrics": {}} if one["dataset"] == "abalone" and ": RnC" in one["method"] and one["seed"] else one
            for one in records]  # fmt: skip
    answers = tasks.answers(tasks.compared(tasks.frame(lame)))
    assert answers["verdict"].tolist() == ["undecided", "practically equal"] and answers["failed"].iloc[0] == (
        "abalone",
    )
    # what is still to come is corrected for
    assert answers["p"].iloc[0] >= 3 * across.OverTasks.of(
        tasks.against(tasks.compared(tasks.frame(lame)), "RnC", "end to end")
    ).p  # fmt: skip


def test_groups_leave_out_one_kind_or_what_is_repeated():
    groups = tasks.groups()
    assert len(tasks.REAL) == 15 and groups["all"] == tasks.REAL
    assert len(groups["molecules alone"]) == 6 and len(groups["tables alone"]) == 8
    assert set(groups["all"]) - set(groups["without pictures"]) == {"latitude"}
    assert set(groups["all"]) - set(groups["without AqSolDB and FreeSolv"]) == {"aqsoldb", "freesolv"}
    found = tasks.over_groups(CHOSEN, "RnC", "end to end")
    assert found.index.tolist() == ["all"]  # of three tasks: the other groups have the same, or fewer
    assert math.isnan(found.loc["all", "lower"])
    assert found.loc["all", "mean"] == pytest.approx(tasks.answers(CHOSEN)["mean"].iloc[0])
    every = tasks.compared(tasks.frame([one for name in tasks.REAL for one in arms_of(name, 0.8, n=3)]))
    found = tasks.over_groups(every, "RnC", "end to end")
    heaviest = across.weights(tasks.against(every, "RnC", "end to end")).idxmax()
    last = f"without {TASKS[heaviest].source.title}, which counts most"
    assert found.index.tolist() == [*groups, last] and found.loc[last, "n"] == 14 and found["lower"].notna().all()


def test_with_one_regressor_in_both_arms_validation_has_no_say():
    same = tasks.same_regressor(TABLE).set_index(["arm", "head"])
    heads = [(arm, head or "own layer") for arm in ("RnC", "joint") for head in HEADS[arm]]
    assert same.index.tolist() == heads
    assert np.exp(same.loc["RnC", "mean"]).to_numpy() == pytest.approx(0.8, rel=0.05)
    neighbours = TABLE[(TABLE["head"] == "neighbours") & TABLE["measured"]]
    effects = across.effects(neighbours, "RnC", "end to end")
    assert same.loc[("RnC", "neighbours"), "mean"] == pytest.approx(across.OverTasks.of(effects).mean)


def test_what_choosing_a_regressor_costs_is_told_for_every_arm():
    found = tasks.regressors(TABLE)
    assert found.index.tolist() == list(ARMS) and (found["ridge"] == 1.0).all()
    assert found["cost"].tolist() == pytest.approx([1.0] * 3)  # ridge is the best on the test set too
    test = {"test": {"standardised": {"mae": 1.0}, "raw": {"mae": 3.0, "rmse": 1.0}}}
    worse = [
        one | {"metrics": one["metrics"] | test} if one["method"].endswith("RnC; ridge") else one for one in RECORDS
    ]
    table = tasks.frame(worse)
    lowest = table[(table["arm"] == "RnC") & table["measured"]].groupby(["dataset", "seed"])["test_mae_raw"].min()
    assert tasks.regressors(table).loc["RnC", "cost"] == pytest.approx(np.exp(np.log(3 / lowest).mean()))


def test_without_records_there_is_nothing_to_compare():
    empty = tasks.frame([])
    chosen = tasks.compared(empty)
    effects, of = tasks.against(chosen, "RnC", "end to end"), tasks.properties([])
    found = [
        chosen,
        effects,
        of,
        tasks.answers(chosen),
        tasks.over_groups(chosen, "RnC", "joint"),
        reached(empty),
        tasks.costs(empty),
        tasks.regressors(empty),
        tasks.same_regressor(empty),
        tasks.related(effects, of),
    ]
    assert all(one.empty for one in found)  # fmt: skip


def test_properties_come_from_the_records():
    of = tasks.properties(RECORDS)
    assert of.index.tolist() == list(DATASETS) and set(of.columns) == set(tasks.PROPERTIES)
    assert of.loc["esol", "n_train"] == 80 and of.loc["esol", "noise"] == pytest.approx((1.2 + 0.015) / 2)
    targets = [value for one in RECORDS if one["dataset"] == "esol" and one["method"] == "trees"
               for value in one["test"]["target"]]  # fmt: skip
    assert of.loc["esol", "skewness"] == pytest.approx(stats.skew(targets))
    equal = np.mean([a == b for i, a in enumerate(targets) for j, b in enumerate(targets) if i != j])
    assert of.loc["esol", "ties"] == pytest.approx(equal)


def test_a_relation_is_a_rank_correlation_over_tasks():
    effects = pd.DataFrame({"effect": [0.1, -0.2, 0.3]}, index=["a", "b", "c"])
    of = pd.DataFrame({name: [2.0, 1.0, 3.0] for name in tasks.PROPERTIES}, index=["a", "b", "c"])
    found = tasks.related(effects, of.assign(noise=[1.0, math.nan, 2.0]))
    assert found["rho"].tolist() == pytest.approx([1.0] * 3) and "noise" not in found.index


def test_the_winner_has_the_lowest_mean_validation_error_of_all_networks():
    assert winner(TABLE, "esol") == ("descriptors", "RnC")
    assert winner(TABLE, "naval")[1] != "RnC"
    more = tasks.frame([*RECORDS, *arms_of("esol", 0.1, n=2, network="graphs")])
    assert winner(more, "esol") == ("graphs", "RnC")
    # splits that only one network has do not count: here it has the higher error on them
    hard = [one | {"metrics": json.loads(json.dumps(one["metrics"]).replace("1.", "9."))} if one["seed"] > 1 else one
            for one in arms_of("esol", 0.9)]  # fmt: skip
    fewer = tasks.frame([*hard, *arms_of("esol", 0.95, n=2, network="graphs")])
    assert winner(fewer, "esol") == ("descriptors", "RnC")
    nets = by_network(more, "esol").set_index(["network", "arm"])
    assert set(nets["n"]) == {2} and len(nets) == 6
    assert nets.loc[("graphs", "RnC"), "rmse"] == pytest.approx(2 * nets.loc[("graphs", "RnC"), "mae"])


def test_ways_to_predict_a_task_are_those_of_all_networks_and_of_other_methods():
    graphs = [one for one in arms_of("esol", 0.1, n=2, network="graphs") if ": " in one["method"]]
    more = tasks.frame([*RECORDS, *graphs, *together("esol", 0.9)])
    found = ways(more, "esol")
    runs = found["method"].value_counts()
    assert dict(runs) == {
        **{f"{arm} (descriptors)": 4 for arm in (*ARMS, f"RnC, {ENSEMBLE}", f"end to end, {ENSEMBLE}")},
        **{f"{arm} (graphs)": 2 for arm in ARMS}, "extra trees": 4, "Gaussian process": 4, "mean": 4,
    }  # fmt: skip
    its = found[found["method"] == "RnC (descriptors)"].set_index("seed")["test_mae_raw"]
    of = CHOSEN[(CHOSEN["dataset"] == "esol") & (CHOSEN["arm"] == "RnC")].set_index("seed")["test_mae_raw"]
    pd.testing.assert_series_equal(its.sort_index(), of.sort_index())


@pytest.mark.parametrize("kind", ["table", "molecules", "images"])
def test_the_default_method_ranks_first_on_the_validation_sets_of_its_tasks(kind):
    names = [name for name in tasks.REAL if TASKS[name].source.kind == kind]
    records = [one for name in names for one in stored_records(name)]
    chosen = tasks.compared(tasks.frame(records))
    errors = across.errors(chosen[chosen["arm"].isin(ARMS)], "val_mae_raw")
    assert set(errors.index) == set(names) and errors.notna().all(axis=None)
    methods = {"RnC": "rnc", "joint": "joint", "end to end": "end_to_end"}
    assert Recipe.default(kind) == Recipe.default(kind, methods[across.ranks(errors).index[0]])


def test_networks_that_have_not_run_are_named():
    assert not_run(TABLE, "esol") == ["graphs", "both"] and not_run(TABLE, "concrete") == []
    more = tasks.frame([*RECORDS, *arms_of("esol", 0.1, n=2, network="graphs")])
    assert not_run(more, "esol") == ["both"] and not_run(TABLE, "latitude") == []


def test_an_aim_is_met_by_the_mean_and_has_an_interval():
    found = reached(TABLE)
    assert found["than"].tolist() == ["Gaussian process", "course project", "course project"]
    row = found.iloc[0]
    assert (
        row["winner"] == "RnC (descriptors)"
        and not row["alone"]
        and row["met"]
        and row["value"] < row["bound"] < row["twin"] * 2
    )
    errors = CHOSEN[CHOSEN["dataset"] == "esol"].pivot(index="seed", columns="arm", values="test_rmse_raw")
    off = errors["RnC"] - errors["gaussian process"]
    half = stats.t.ppf(0.975, 3) * off.std(ddof=1) * math.sqrt(1 / 4 + 1 / 10)  # 8 test samples to 80
    assert (row["low"], row["high"]) == pytest.approx((off.mean() - half, off.mean() + half))
    assert not found.iloc[1]["met"] and found.iloc[1]["bound"] == pytest.approx(0.212)
    chem = [made("esol", "chemprop", seed, 1.0, 2.0) for seed in range(4)]
    assert reached(tasks.frame([*RECORDS, *chem])).set_index("than").loc["0.9 × chemprop", "bound"] == 0.9 * 4
    beside = reached(TABLE, TABLE[TABLE["dataset"] == "concrete"]).iloc[-1]
    assert (beside["task"], beside["than"], beside["bound"]) == ("concrete", "published table", 4.603) and beside["met"]
    assert beside["n"] == 4


def together(dataset: str, factor: float, n: int = 4) -> list[dict]:
    """Ensembles of RnC and of its twin: errors of `arms_of`, times a factor."""
    network, found = TASKS[dataset].networks[0], []
    for one in arms_of(dataset, 0.8, n=n):
        if one["metrics"] and ": " in one["method"] and "joint" not in one["method"]:
            values = {part: its["raw"]["mae"] * factor for part, its in one["metrics"].items()}
            _, arm, head = parts_of(one["method"])
            name = method(network, f"{arm}, {ENSEMBLE}", None if head == "own layer" else head)
            found.append(made(dataset, name, one["seed"], values["val"], values["test"]))
    return found


def test_an_ensemble_stands_for_the_winner_where_its_validation_error_is_lower():
    alone = reached(TABLE).iloc[0]
    for factor, better in ((0.9, True), (1.1, False)):
        table = tasks.frame([*RECORDS, *together("esol", factor)])
        assert winner(table, "esol") == ("descriptors", "RnC")  # ensembles compete with single networks nowhere
        row = reached(table).iloc[0]
        times = factor if better else 1.0
        assert row["winner"] == ("RnC" + (f", {ENSEMBLE}" if better else "") + " (descriptors)")
        assert (row["value"], row["twin"]) == pytest.approx((times * alone["value"], times * alone["twin"]))
        pd.testing.assert_frame_equal(tasks.compared(table).reset_index(drop=True), CHOSEN.reset_index(drop=True))
        assert f"RnC, {ENSEMBLE}" in set(by_network(table, "esol")["arm"])
    some = tasks.frame([*RECORDS, *together("esol", 0.5, n=2)])  # unfinished: compared on the splits that both have
    assert reached(some).iloc[0]["n"] == 2


def test_ensembles_are_made_of_the_winner_and_of_its_twin(monkeypatch):
    settings = {
        network: {arm: space(network, arm)[1] for arm in ("end to end", "RnC")} for network in TASKS["esol"].networks
    }
    monkeypatch.delitem(protocol.WINNERS, "esol")
    before = protocol.runs("esol", settings, profile="paper")
    assert not any(run.recipe.ensemble for run in before)
    monkeypatch.setitem(protocol.WINNERS, "esol", ("both", "RnC"))
    made = protocol.runs("esol", settings, profile="paper")
    many = [run for run in made if run.recipe.ensemble]
    heads = {arm: len(HEADS[arm]) for arm in ("RnC", "end to end")}
    assert len(many) == 20 * sum(heads.values()) and {run.recipe.ensemble for run in many} == {5}
    assert {parts_of(run.method)[:2] for run in many} == {("both", f"{arm}, {ENSEMBLE}") for arm in heads}
    by_name = {run.method: run.recipe for run in made}
    for run in many:  # of the same settings as the network alone
        assert replace(run.recipe, ensemble=None) == by_name[run.method.replace(f", {ENSEMBLE}", "")]
    # the network that won has all splits, the other still ten
    seeds = {
        network: {run.seed for run in made if parts_of(run.method)[0] == network} for network in ("graphs", "both")
    }
    assert seeds == {"graphs": set(range(10)), "both": set(range(20))}
    assert set(before) <= set(made)
    monkeypatch.setitem(protocol.WINNERS, "esol", ("descriptors", "end to end"))
    arms = {parts_of(run.method)[1] for run in protocol.runs("esol", settings, profile="paper") if run.recipe.ensemble}
    assert arms == {f"end to end, {ENSEMBLE}"}  # a winner that is its own twin


def test_costs_are_medians_over_tasks_and_memory_is_that_of_the_run_which_trained_the_network():
    slow = {"stages": [{"name": "encoder", "wall_time": 14.0, "curve": {"epoch": [], "train_loss": []}}]}
    records = [one | slow if "RnC" in one["method"] else one for one in RECORDS]
    records = [one | {"run": one["run"] | {"peak_mb": 900 if "RnC; nei" in one["method"] else 50}} for one in records]
    costs = tasks.costs(tasks.frame(records))
    assert costs.loc["end to end"].tolist() == [3.5, 3.5, 3.5, 1.0, 50, 3]
    assert costs.loc["RnC"].tolist() == [14, 14, 14, 4, 900, 3]
    assert tasks.costs(TABLE)["memory"].isna().all()  # of a system that does not tell


def test_other_losses_stand_beside_the_arms_with_as_many_trials():
    names = [method("numbers", arm, "ridge") for arm in (*OTHERS, *(f"{arm}, 15 trials" for arm in ARMS))]
    more = [made("concrete", name, seed, 1.0, 1.0) for name in names for seed in range(2)]
    found = tasks.of_few(tasks.frame([*RECORDS, *more]), "concrete")
    assert set(found["arm"]) == {*OTHERS, *(f"{arm}, 15 trials" for arm in ARMS)} and len(found) == 2 * len(names)


def test_the_published_table_stands_beside_ours():
    trials = {"L1": 5.0, "L2": 9.0, "Huber": 4.7, "RnC": 4.9}
    records = [
        made("concrete", f"{name}, trial 1", fold, mae, mae) for name, mae in trials.items() for fold in range(FOLDS)
    ]
    records += [one for one in arms_of("concrete", 0.9, n=FOLDS) if one["method"] not in ("training mean", "trees")]
    found = beside_published(records)
    assert found["mae"].dropna().index.tolist()[:4] == list(trials)
    assert found.loc[["L1", "L2", "Huber", "RnC"], "within"].tolist() == [True, False, True, True]
    assert found["within"].isna().sum() == len(found) - 4
    assert set(PUBLISHED.index) < set(found.index) and found.loc["GAR", "mae_published"] == 4.603
    ours = tasks.frame([one for one in records if ": " in one["method"]])
    rnc = tasks.compared(ours).set_index("arm").loc["RnC", "test_mae_raw"]
    assert found.loc["RnC, this page", ["mae", "mae_sd"]].tolist() == pytest.approx([rnc.mean(), rnc.std()])


def test_names_of_tasks_are_separated_by_commas():
    assert tasks.named("all") == list(TASKS) and tasks.named(" esol,naval ") == ["esol", "naval"]
    for wrong in ("esoll", ",", "esol, x"):
        with pytest.raises(ValueError, match=r"^tasks: got .*; allowed: 'all', or esol, freesolv, "):
            tasks.named(wrong)


# --- grids ----------------------------------------------------------------------------------------------


def test_short_profiles_have_the_first_trial_without_packages_of_an_extra():
    made = {profile: experiments()["tasks"].runs(dataset="esol", profile=profile) for profile in ("quick", "smoke")}
    for profile, (n_splits, epochs) in {"quick": (2, 20), "smoke": (1, 3)}.items():
        assert {run.seed for run in made[profile]} == set(range(n_splits))
        stages = [stage for run in made[profile] for stage in (run.recipe.pretrain, run.recipe.fit) if stage]
        assert {stage.epochs for stage in stages} == {epochs}
        assert not {run.method for run in made[profile]} & {"catboost", "chemprop"}
    assert len(experiments()["tasks"].runs(dataset="diabetes", profile="quick", n_seeds=3)) == 3 * 18


def test_the_arms_stand_on_the_rows_of_the_published_table():
    made = experiments()["concrete"].runs(dataset="concrete", profile="smoke")
    assert {run.data.split for run in made} == {"published"} and {run.seed for run in made} == set(range(FOLDS))
    methods = {run.method for run in made}
    assert {name for name in methods if ", trial" in name} == {
        f"{name}, trial 0" for name in ("L1", "L2", "Huber", "RnC")
    }
    assert "boosting" in methods and "svr" not in methods and method("numbers", "joint", "ridge") in methods


def test_the_table_of_searches_has_a_row_for_each(tmp_path):
    path = tmp_path / "paper" / "search" / "diabetes-numbers-rnc.json"
    path.parent.mkdir(parents=True)
    trial = {
        "settings": {"width": 128},
        "state": "complete",
        "errors": {"ridge": 2.0, "neighbours": 3.0},
        "seconds": 36,
    }
    pruned = {"settings": {"width": 512}, "state": "pruned", "errors": {}, "seconds": 36}
    path.write_text(json.dumps({"trials": [trial, pruned, trial | {"errors": {"ridge": 1.0}}]}))
    beside = path.with_stem(f"{path.stem}-typical-of-others")
    beside.write_text(json.dumps({"trials": [trial | {"errors": {"ridge": 1.5}}]}))
    (row,) = search_table(tmp_path).to_dict("records")
    assert row == {
        "dataset": "diabetes", "network": "numbers", "arm": "RnC", "trials": 3, "pruned": 1, "diverged": 0,
        "hours": pytest.approx(0.03), "first": 2.0, "typical": 1.5, "best": 1.0, "width": 128,
    }  # fmt: skip
    assert search_table(tmp_path / "empty").empty
