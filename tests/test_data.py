"""Groups kept together by a split, samples taken by number, the cache, and downloads that are verified."""

from __future__ import annotations

import hashlib
import socket
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnclib.data import PARTS, Dataset, cache_dir, group_split, public_file, sample_numbers, take


def test_a_data_set_is_as_long_as_its_targets():
    data = Dataset(np.zeros((3, 2)), np.array([1.0, 2.0, 3.0]), checksum="0")
    assert len(data) == 3 and data.nuisance is None and not data.splits


# --- splits ---------------------------------------------------------------------------------------------


def set_of_each(split, n):
    where = np.full(n, "", dtype="<U5")
    for name in PARTS:
        where[getattr(split, name)] = name
    return where


# groups of one to three samples among at least forty: small enough to fill every set exactly
small_groups = st.lists(st.integers(1, 3), min_size=40, max_size=120).flatmap(
    lambda sizes: st.permutations([i for i, size in enumerate(sizes) for _ in range(size)])
)


@given(groups=small_groups, seed=st.integers(0, 2**32))
def test_a_split_holds_every_sample_once_and_tears_no_group(groups, seed):
    split = group_split(groups, seed)
    everything = np.concatenate([split.train, split.val, split.test])
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(groups)))
    where = set_of_each(split, len(groups))
    for group in set(groups):
        assert len({where[i] for i, g in enumerate(groups) if g == group}) == 1
    for name in PARTS:
        indices = getattr(split, name)
        assert indices.dtype.kind == "i" and (np.diff(indices) > 0).all()


@given(
    n_groups=st.integers(60, 150),
    pairs=st.integers(0, 20),
    seed=st.integers(0, 1000),
    fractions=st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.2, 0.3)]),
)
def test_the_sets_have_their_sizes_when_the_groups_are_small(n_groups, pairs, seed, fractions):
    groups = [*range(n_groups), *range(pairs)]  # single samples and some pairs
    split = group_split(groups, seed, fractions=fractions)
    n = len(groups)
    assert len(split.val) == round(fractions[1] * n)
    assert len(split.test) == round(fractions[2] * n)
    assert len(split.train) == n - len(split.val) - len(split.test)


@given(seed=st.integers(0, 1000), large=st.integers(6, 40), largest=st.sampled_from([5, 5.5]))
def test_a_large_group_goes_to_training_for_every_seed(seed, large, largest):
    groups = ["large"] * large + [f"five {i // 5}" for i in range(25)] + [f"single {i}" for i in range(50)]
    where = set_of_each(group_split(groups, seed, largest=largest), len(groups))
    assert set(where[:large]) == {"train"}


def test_groups_of_exactly_the_limit_are_drawn():
    groups = [f"five {i // 5}" for i in range(500)]
    tested = {group_split(groups, seed, largest=5).test[0] // 5 for seed in range(20)}
    assert len(tested) > 5


def test_a_split_is_the_seed_and_nothing_else():
    groups = [i // 2 for i in range(200)]
    splits = [group_split(groups, seed) for seed in range(10)]
    for seed, split in enumerate(splits):
        np.random.seed(seed + 77)  # noqa: NPY002 - the global state must not matter
        again = group_split(list(map(str, groups)), seed)
        for name in PARTS:
            np.testing.assert_array_equal(getattr(split, name), getattr(again, name))
    assert len({tuple(split.test) for split in splits}) == 10
    assert len({tuple(split.val) for split in splits}) == 10


def test_every_sample_is_tested_for_a_tenth_of_the_seeds():
    n, seeds = 100, 2000
    counts = Counter(int(i) for seed in range(seeds) for i in group_split(range(n), seed).test)
    fraction = np.array([counts[i] for i in range(n)]) / seeds
    assert abs(fraction.mean() - 0.1) < 1e-12
    assert np.abs(fraction - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / seeds)  # five standard errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"fractions": (0.8, 0.1)}, "fractions"),
        ({"fractions": (0.8, 0.2, 0.2)}, "fractions"),
        ({"fractions": (0.9, 0.1, 0.0)}, "fractions"),
        ({"fractions": (1.2, -0.1, -0.1)}, "fractions"),
        ({"seed": -1}, "seed"),
        ({"groups": []}, "groups"),
        ({"groups": range(3)}, "groups"),  # a tenth of three is no sample
        ({"groups": ["a"] * 100}, "groups"),
        ({"groups": range(100), "largest": 0}, "groups"),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=rf"^{named}: got .*; allowed: "):
        group_split(**({"groups": range(50), "seed": 0} | arguments))


# --- samples by number ----------------------------------------------------------------------------------


class Letters:
    """Inputs with a method of their own."""

    def __init__(self, letters):
        self.letters = letters

    def take(self, index):
        return "".join(self.letters[i] for i in index)


@given(index=st.lists(st.integers(0, 4), max_size=8))
def test_rows_of_an_array_are_taken_and_other_inputs_take_their_own(index):
    table = np.arange(15.0).reshape(5, 3)
    taken = take(table, index)
    assert taken.shape == (len(index), 3)
    for row, i in zip(taken, index, strict=True):
        assert np.array_equal(row, table[i])
    taken[:] = -1
    assert table.min() == 0  # of a copy
    assert take(Letters("abcde"), index) == "".join("abcde"[i] for i in index)


@pytest.mark.parametrize("index", [[-1], [0, 5], [True] * 5, [0.0], 3, [[0, 1]], ["0"]])
def test_what_is_no_list_of_sample_numbers_is_refused(index):
    # as NumPy has it, a mask or a negative number would mean other samples
    for refused in (lambda: sample_numbers(index, 5), lambda: take(np.zeros((5, 2)), index)):
        with pytest.raises(IndexError, match=r"^index: got .*; allowed: a sequence of sample numbers from 0 to 4"):
            refused()


# --- downloads ------------------------------------------------------------------------------------------

FILE = "folder/of/table.csv"
GOOD = b"number,value\n1,0.5\n2,1.1\n" + bytes(range(256))
BAD = GOOD.replace(b"1.1", b"9.1")
GOOD_SHA = hashlib.sha256(GOOD).hexdigest()


def get(server, *paths):
    return public_file(FILE, [server.url + path for path in paths], GOOD_SHA)


def cached_files():
    return sorted(path.name for path in cache_dir().rglob("*") if path.is_file())


def is_good(path):
    return path.name == "table.csv" and path.read_bytes() == GOOD


def test_a_file_is_downloaded_once(server):
    server.script["/a"] = [GOOD, 500]
    path = get(server, "/a")
    assert is_good(path) and path == cache_dir() / FILE
    assert is_good(get(server, "/a")) and is_good(get(server, "/dead"))
    assert server.requests == ["/a"]
    assert cached_files() == ["table.csv"]


def test_a_corrupt_download_is_tried_again(server):
    server.script["/a"] = [BAD, GOOD]
    assert is_good(get(server, "/a"))
    assert server.requests == ["/a", "/a"] and len(server.waits) == 1
    assert cached_files() == ["table.csv"]


def test_a_partial_download_is_tried_again(server):
    server.script["/a"] = [(GOOD[:100], len(GOOD)), GOOD]
    assert is_good(get(server, "/a"))
    assert server.requests == ["/a", "/a"]
    assert cached_files() == ["table.csv"]


@pytest.mark.parametrize("answer", [BAD, b"", (GOOD[:100], len(GOOD)), (GOOD[:100], 100), 404, 500])
def test_a_download_that_stays_bad_is_refused_and_nothing_is_left_behind(server, answer):
    server.script["/a"] = [answer]
    with pytest.raises(FileNotFoundError) as refusal:
        get(server, "/a")
    message = str(refusal.value)
    target = cache_dir() / FILE
    assert GOOD_SHA in message and str(target) in message and "RNC_DATA" in message and server.url in message
    assert cached_files() == []
    assert server.requests == ["/a", "/a"]
    server.script["/a"] = [GOOD]
    assert is_good(get(server, "/a"))  # and the next try can succeed


def test_a_corrupted_file_in_the_cache_is_replaced(server):
    server.script["/a"] = [GOOD]
    target = cache_dir() / FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(GOOD[:50])
    assert is_good(get(server, "/a"))
    assert target.read_bytes() == GOOD


def test_a_corrupted_file_in_the_cache_is_never_used(server):
    target = cache_dir() / FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(BAD)
    for paths in ([], ["/dead"]):
        with pytest.raises(FileNotFoundError, match="could not be downloaded"):
            get(server, *paths)


def test_the_second_address_is_used_where_the_first_is_dead(server):
    server.script["/b"] = [GOOD]
    assert is_good(get(server, "/dead", "/b"))
    assert server.requests == ["/dead", "/dead", "/b"]


def test_an_address_where_nobody_listens_is_passed_over(server):
    with socket.socket() as probe:  # a port that is free
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/a"
    server.script["/b"] = [GOOD]
    assert is_good(public_file(FILE, [nobody, server.url + "/b"], GOOD_SHA))


def test_a_cache_that_cannot_be_written_is_an_error_that_helps(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "file"))
    server.script["/a"] = [GOOD]
    with pytest.raises(FileNotFoundError, match="RNC_DATA"):
        get(server, "/a")


def test_rnc_data_comes_first(server, tmp_path, monkeypatch):
    path = tmp_path / "data" / FILE
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("RNC_DATA", str(tmp_path / "data"))
    server.script["/a"] = [GOOD]

    path.write_bytes(GOOD)
    assert is_good(get(server, "/a")) and server.requests == [] and cached_files() == []

    path.write_bytes(BAD)
    with pytest.raises(FileNotFoundError) as refusal:
        get(server, "/a")
    for part in (str(path), hashlib.sha256(BAD).hexdigest(), GOOD_SHA, "RNC_DATA"):
        assert part in str(refusal.value)
    assert server.requests == []
    assert path.read_bytes() == BAD  # left alone

    path.unlink()  # a folder without the file: as if it were unset
    assert is_good(get(server, "/a"))
    assert not path.exists()


def test_the_cache_is_where_rnc_cache_says(monkeypatch, tmp_path):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("RNC_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "rnclib"


def test_without_a_home_and_rnc_cache_there_is_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RNC_CACHE", raising=False)
    monkeypatch.setattr("rnclib.data.Path.home", no_home)
    with pytest.raises(FileNotFoundError, match=r"RNC_CACHE is unset and there is no home directory"):
        cache_dir()
