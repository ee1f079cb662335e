"""How often the rule of the verdicts errs, by simulation: on one comparison, and on the family of primary ones.

``python -m rnclib.simulation`` writes the record that the verdict page shows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rnclib import results
from rnclib.claims import decide
from rnclib.paired import LEVEL, Paired

__all__ = ["family_errors", "one_comparison", "simulate"]

#: Pairs, and correlation that is assumed, of the primary comparisons: on ESOL and on sets of faces.
FAMILY = (*((n, 1 / 9) for n in (20, 20, 20, 22, 10, 20, 20)), *((16, 0.0),) * 7)
CORRELATIONS = (0.0, 0.1, 0.2, 0.3)


def _differences(rng: np.random.Generator, repeats: int, n: int, correlation: float) -> np.ndarray:
    """Normal differences of mean 0 and variance 1, any two of a row correlated; shape (repeats, n)."""
    shared, own = rng.standard_normal((repeats, 1)), rng.standard_normal((repeats, n))
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


def one_comparison(n: int, correlation: float, assumed: float, *, repeats: int, seed: int) -> dict[str, float]:
    """Coverage of the 95% interval, and type I error of the two-sided test, for one comparison.

    Parameters
    ----------
    n : int
        Pairs.
    correlation, assumed : float
        Between any two differences, as it is and as the test takes it to be.
    repeats, seed : int
    """
    draws = _differences(np.random.default_rng(seed), repeats, n, correlation)
    tests = [Paired(draw, assumed) for draw in draws]
    inside = [low < 0 < high for _, low, high in (test.interval() for test in tests)]
    return {"coverage": float(np.mean(inside)), "type_1": float(np.mean([test.p < LEVEL for test in tests]))}


def family_errors(added: float, *, repeats: int, seed: int) -> dict[str, float]:
    """How often at least one of the primary comparisons gets a false verdict, if they are independent.

    Parameters
    ----------
    added : float
        To the correlation of the molecular comparisons, beyond what is assumed.
    repeats, seed : int

    Returns
    -------
    dict
        ``different``: a claim holds or does not hold, though there is no difference at all; ``equal``: methods are
        called practically equal, though they differ by the margin.
    """
    rng = np.random.default_rng(seed)
    wrong = {"different": 0, "equal": 0}
    draws = [_differences(rng, repeats, n, assumed + (added if assumed else 0.0)) for n, assumed in FAMILY]
    for number in range(repeats):
        rows = [(draw[number], assumed) for draw, (_, assumed) in zip(draws, FAMILY, strict=True)]
        nothing = decide(pd.DataFrame(list(_table(rows, effect=0.0, margin=0.1))))["verdict"]
        wrong["different"] += bool(nothing.isin(["holds", "does not hold"]).any())
        margin = decide(pd.DataFrame(list(_table(rows, effect=2.0, margin=2.0))))["verdict"]
        wrong["equal"] += bool((margin == "practically equal").any())
    return {name: count / repeats for name, count in wrong.items()}


def _table(rows: list[tuple[np.ndarray, float]], *, effect: float, margin: float) -> Iterator[dict]:
    """What `decide` asks for, of differences that are moved by an effect."""
    for differences, correlation in rows:
        paired = Paired(differences + effect, correlation)
        _, low, high = paired.interval()
        yield {
            "text": "claim", "primary": True, "effect": "difference", "complete": True, "mixed": 0,
            "p": paired.p, "p_equal": paired.p_equal(-margin, margin), "low": low, "high": high,
            "margin_low": -margin, "margin_high": margin,
        }  # fmt: skip


def simulate(repeats: int = 4000, family_repeats: int = 600, seed: int = 0) -> dict[str, Any]:
    """Error rates over correlations, those that are assumed rightly and those that are not.

    Parameters
    ----------
    repeats, family_repeats, seed : int

    Returns
    -------
    dict
        ``one`` and ``family``: lists of rows; ``repeats`` and ``family_repeats``: how often each was drawn.
    """
    one = [
        {"n": n, "correlation": correlation, "assumed": assumed}
        | one_comparison(n, correlation, assumed, repeats=repeats, seed=seed)
        for n in (10, 20)
        for correlation in CORRELATIONS
        for assumed in sorted({correlation, 1 / 9})
    ]
    family = [{"added": added} | family_errors(added, repeats=family_repeats, seed=seed) for added in (0.0, 0.1, 0.2)]
    return {"repeats": repeats, "family_repeats": family_repeats, "one": one, "family": family}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the record.

    Parameters
    ----------
    argv : sequence of str, optional
        By default those that the program was called with.
    """
    parser = argparse.ArgumentParser(prog="python -m rnclib.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--results-dir", type=Path, default=None, help="folder of the records (default: book/results)")
    root = parser.parse_args(argv).results_dir or results.results_dir()
    path = results.folder(root, "paper", "simulation") / "verdicts.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    commit, _ = results.commit()
    results.write_text(path, json.dumps({"commit": commit, **simulate()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
