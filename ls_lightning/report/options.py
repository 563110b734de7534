"""The command line of the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ls_lightning.errors import ConfigError, did_you_mean
from ls_lightning.sweep.criterion import Criterion, parse_criterion
from ls_lightning.sweep.measures import metric_key

FORMATS = ("png", "svg", "pdf")
NO_MATPLOTLIB = "Figures are left out: they need matplotlib: pip install 'ls-lightning[plot]'."
NO_PLOTLY = "report.html is left out: it needs plotly: pip install 'ls-lightning[report]'."

HELP = """\
Say which eps, and why: read the folders of jobs, print a table and an answer, leave report.html, report.md,
sweep.csv and figures.

  python -m ls_lightning.report                       the newest sweep in multirun/, outputs/ or a folder here
  python -m ls_lightning.report sweep other/job       these sweeps and jobs
  python -m ls_lightning.report sweep select=nll+0.5*ece out=report
  python -m ls_lightning.report compare=sweep/0,sweep/3     two or more jobs, mini-batch by mini-batch

Keys
  select=nll       what picks eps on validation: nll, accuracy, ece, brier, aurc, any other of ours, or a weighted sum
                   (lower is better: accuracy counts as error rate, the gap by its size); nll_scaled is the NLL that
                   temperature scaling leaves; what your module logs, with its better side: score:max
  columns=acc,f1   metrics of the tables, yours among them; all shows every one
  out=<folder>     where the files go; usually report/ in the sweep's folder
  figures=png,svg  their formats (png, svg, pdf), or none
  html=true        report.html: one file with interactive figures and tables; false leaves it out
  upload=true      log table, answer and figures to a run of wandb, offline unless WANDB_MODE says otherwise
  level=0.95       of the intervals over seeds
  compare=a,b      jobs (or a sweep of few) to overlay instead of a report
  smooth=0.9       weight of the past in the curves of compare; 0 turns smoothing off
  watch=5          refresh every so many seconds until Ctrl-C; --watch is the same
"""


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Args:
        folders: of sweeps and jobs; empty for the newest sweep.
        select: what picks eps.
        columns: metrics of the tables; None for the usual ones.
        out: where files go; None for the usual place.
        figures: formats of the figures; empty for none.
        html: whether report.html is written.
        upload: whether the report is logged to wandb.
        level: of the intervals, in (0, 1).
        compare: jobs, or folders of them, to overlay; empty for a report.
        smooth: weight of the past in curves, in [0, 1).
        watch: seconds between two refreshes; None for a single report.
    """

    folders: tuple[Path, ...] = ()
    select: Criterion = field(default_factory=lambda: parse_criterion("nll"))
    columns: tuple[str, ...] | None = None
    out: Path | None = None
    figures: tuple[str, ...] = ("png", "svg")
    html: bool = True
    upload: bool = False
    level: float = 0.95
    compare: tuple[Path, ...] = ()
    smooth: float = 0.9
    watch: float | None = None


def parse_options(words: Sequence[str]) -> Options:
    """Read the command line.

    Raises:
        ConfigError: a key is not known, or a value is out of range.

    Example:
        >>> options = parse_options(["select=ece", "figures=none"])
        >>> options.select.label, options.figures, options.folders
        ('ECE', (), ())
    """
    options, seen = Options(), set[str]()
    for word in words:
        if word == "--watch":
            word = "watch=5"
        key, equals, text = word.partition("=")
        if not equals or Path(word).is_dir() or key == "hydra.sweep.dir":
            options = replace(options, folders=(*options.folders, _folder(text if key == "hydra.sweep.dir" else word)))
            continue
        key = key.removeprefix("report.")
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f" Keys: {', '.join(_KEYS)}; --help explains them."
            raise ConfigError(f"{key} is not a key of the report.{hint}")
        if key in seen:
            raise ConfigError(f"{key} must be given once, got it twice.")
        seen.add(key)
        options = replace(options, **{key: _KEYS[key](text)})
    if options.compare and (options.folders or seen & _OF_REPORTS):
        other = next(iter(sorted(seen & _OF_REPORTS)), None) or str(options.folders[0])
        raise ConfigError(f"compare overlays the jobs that it names, so {other} would be ignored. Leave it away.")
    if options.upload and (options.watch is not None or options.compare):
        other = "compare" if options.compare else "watch"
        raise ConfigError(f"upload logs one finished report, got {other} too. Leave one of the two away.")
    if "smooth" in seen and not options.compare:
        raise ConfigError("smooth is for the curves of compare=a,b and would be ignored. Leave it away.")
    return options


def _folder(text: str) -> Path:
    if text.startswith("-"):
        raise ConfigError(
            f"unknown option {text}. A value is set by key=value, e.g. select=ece; --help lists the keys."
        )
    if not Path(text).is_dir():
        raise ConfigError(f"{text} must be a folder of jobs, or key=value; there is no such folder in {Path.cwd()}.")
    return Path(text)


def _out(text: str) -> Path:
    path = Path(text)
    if not text or (path.exists() and not path.is_dir()):
        raise ConfigError(f"out must be a folder, got {text!r}.")
    return path


def _figures(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if names in (("none",), ("false",)):
        return ()
    if wrong := [name for name in names if name not in FORMATS]:
        raise ConfigError(f"figures must be none, or formats out of {', '.join(FORMATS)}, got {wrong[0]!r}.")
    return names


def _flag(key: str) -> Callable[[str], bool]:
    def read(text: str) -> bool:
        if text not in ("true", "false"):
            raise ConfigError(f"{key} must be true or false, got {text!r}.")
        return text == "true"

    return read


def _columns(text: str) -> tuple[str, ...]:
    names = tuple(metric_key(name.strip()) for name in text.strip("[]").split(","))
    if not all(names):
        raise ConfigError(f"columns must be metrics such as acc,nll,f1, or all, got {text!r}.")
    return tuple(dict.fromkeys(names))


def _compare(text: str) -> tuple[Path, ...]:
    return tuple(_folder(name.strip()) for name in text.split(","))


def _number(key: str, needed: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not fits(value):
            raise ConfigError(f"{key} must be {needed}, got {text!r}.")
        return value

    return read


_OF_REPORTS = {"select", "columns", "html"}
_KEYS: dict[str, Callable[[str], Any]] = {
    "select": parse_criterion,
    "columns": _columns,
    "out": _out,
    "figures": _figures,
    "html": _flag("html"),
    "upload": _flag("upload"),
    "level": _number("level", "a number in (0, 1)", lambda x: 0 < x < 1),
    "compare": _compare,
    "smooth": _number("smooth", "a number in [0, 1)", lambda x: 0 <= x < 1),
    "watch": _number("watch", "a number of seconds above 0", lambda x: 0 < x < math.inf),
}
