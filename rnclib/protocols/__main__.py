"""Command line: train the runs of a chapter, or those that verdicts rest on, that have no record yet."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from rnclib.chapters import experiments
from rnclib.chapters.claims import steps
from rnclib.experiment import key
from rnclib.fitting import check_device, processes
from rnclib.grid import Grid, run_grid, run_on_one_machine
from rnclib.protocols.settings import search_tasks
from rnclib.protocols.tasks import TASKS

if TYPE_CHECKING:
    from rnclib.chapters.base import Experiment
    from rnclib.experiment import Run

_GO_ON = "What was finished is kept; the same command does the rest."


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: an integer of at least 1")
    return int(text)


def for_verdicts(only: Sequence[str] = (), *, results_dir: str | None = None, device: str = "cpu") -> None:
    """Make the runs that verdicts rest on, step by step, each step on one machine.

    On another machine than that of most of its records a step is left out, and a sentence says so.

    Parameters
    ----------
    only : sequence of str
        Names of steps, see `rnclib.chapters.claims.steps`; by default all.
    results_dir : path, optional
        See `rnclib.grid.run_grid`.
    device : str
        See `rnclib.fitting.Execution`.
    """
    check_device(device)
    every = steps()
    if unknown := sorted(set(only) - set(every)):
        raise ValueError(f"only: got {unknown}; allowed: {', '.join(map(repr, every))}")
    for name, runs in every.items():
        if not only or name in only:
            print(f"{name}: {run_on_one_machine(runs, results_dir=results_dir, device=device)}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rnclib.protocols",
        description="Train the runs of a chapter that have no record yet. Under torchrun, processes share each run.",
    )
    chapters = parser.add_subparsers(dest="chapter", required=True)
    for name, experiment in experiments().items():
        about = (experiment.grid.__doc__ or "").splitlines()[0]
        chapter = chapters.add_parser(name, argument_default=argparse.SUPPRESS, help=about, description=about)
        chapter.add_argument("--dataset", required=True, help=f"one of {', '.join(experiment.datasets)}, or all")
        chapter.add_argument("--profile", required=True, help="paper, quick or smoke")
        if experiment.seeded:
            chapter.add_argument("--n-seeds", type=_positive, help="splits or seeds (default: the profile's)")
        for option, values in experiment.options.items():
            if option == "exclude":
                chapter.add_argument("--exclude", nargs="*", metavar="FILE", help="photographs to leave out")
            elif option != "tuned":
                allowed = None if values is None else f"one of {', '.join(map(str, values))}"
                chapter.add_argument(f"--{option.replace('_', '-')}", help=allowed)
        chapter.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: cpu)")
        chapter.add_argument("--results-dir", default=None, help="folder of the records (default: book/results)")
        chapter.add_argument("--refresh", action="store_true", default=False, help="train every run anew")
    verdicts = chapters.add_parser(
        "verdicts",
        help="What verdicts rest on.",
        description=(for_verdicts.__doc__ or "").partition("\n\n    Parameters")[0],
    )
    verdicts.add_argument("--only", nargs="*", default=[], metavar="STEP", help=f"of {', '.join(map(repr, steps()))}")
    verdicts.add_argument("--device", default="cpu")
    verdicts.add_argument("--results-dir", default=None)
    search = chapters.add_parser("search", help=(search_tasks.__doc__ or "").splitlines()[0])
    search.add_argument("--only", nargs="*", default=[], metavar="TASK", help=f"of {', '.join(TASKS)}")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train what has no record.

    Parameters
    ----------
    argv : sequence of str, optional
        By default those that the program was called with.
    """
    parser = _parser()
    options = vars(parser.parse_args(argv))
    try:
        _carry_out(options, parser)
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: interrupted. {_GO_ON}\n")
    except (OSError, BrokenProcessPool) as error:  # a full disk, a lost scheduler; a process that was killed
        parser.exit(1, f"\n{parser.prog}: {str(error).strip().rstrip('.')}. {_GO_ON}\n")


def _carry_out(options: dict[str, Any], parser: argparse.ArgumentParser) -> None:
    commands: dict[str, Callable[..., None]] = {"verdicts": for_verdicts, "search": search_tasks}
    if (command := commands.get(options["chapter"])) is not None:
        try:
            command(**{name: value for name, value in options.items() if name != "chapter"})
        except (FileNotFoundError, ValueError) as error:
            parser.error(str(error))
        return
    name, device, results_dir, refresh = (options.pop(one) for one in ("chapter", "device", "results_dir", "refresh"))
    experiment = experiments()[name]
    dataset = options.pop("dataset")
    try:
        check_device(device)
        datasets = experiment.datasets if dataset == "all" else (dataset,)
        grids = [_checked(experiment, one, options) for one in datasets]
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    for runs in grids:
        if experiment.one_machine and options["profile"] == "paper" and not refresh:
            grid: Grid | str = run_on_one_machine(runs, results_dir=results_dir, device=device)
        else:
            grid = run_grid(runs, results_dir=results_dir, refresh=refresh, device=device)
        if processes()[1] == 0:
            print(grid, flush=True)


def _checked(experiment: Experiment, dataset: str, options: dict[str, Any]) -> list[Run]:
    """The runs of a data set that can be had."""
    runs = experiment.runs(dataset=dataset, **options)
    if not runs:
        raise ValueError(
            f"options: got {options}, which leave no runs; allowed: those of {experiment.name} on {dataset}"
        )
    key(runs[0])  # finds the data, or says how to get them
    return runs


if __name__ == "__main__":
    main()
