"""Two published findings, looked for in kind, as the section "Published comparisons" of docs/results.md.

    python benchmarks/published.py                      # scikit-learn's digits
    python benchmarks/published.py cifar10=<folder>     # and a subset of CIFAR-10, as `benchmarks/regimes.py` takes it

Runs, tables and intervals are those of `benchmarks/regimes.py`. Keys: `seeds=5`, `page=docs/results.md`,
and `cache=outputs/published.jsonl`, where every run is kept: a run broken off goes on.
"""

import sys
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from image_subsets import cifar10_subset
from regime_table import paired
from regimes import _IMAGES, Cache, Regime, measure
from results_page import write_section

from ls_lightning.config import register_schema

DOCS = Path(__file__).parent.parent / "docs" / "results.md"
NOISE = ("loss=ce eps=0.1", "loss=ce eps=0.2", "loss=ce eps=0.4")
OVERCONFIDENT = ("loss=ce eps=0.05", "loss=ce eps=0.1")
_CIFAR10 = _IMAGES.format("cifar10")

DIGITS = {
    "Lukasik on digits": Regime("data=digits data.label_noise=0.2", NOISE),
    "Müller on digits": Regime("data=digits data.input_noise=0.5", OVERCONFIDENT),
}
CIFAR10 = {
    "Lukasik on CIFAR-10": Regime(f"{_CIFAR10} data.label_noise=0.2", NOISE),
    "Müller on CIFAR-10": Regime(_CIFAR10, OVERCONFIDENT),
}
CLAIMS = """\
- **Lukasik et al. 2020** ([arXiv:2003.02819](https://arxiv.org/abs/2003.02819)): where one training label in five is
  drawn anew at random, smoothing raises the accuracy on clean test data. ResNet-32 and ResNet-56 on CIFAR-10 and
  CIFAR-100 there; here one in five gets another class, which is a little more noise.
- **Müller et al. 2019** ([arXiv:1906.02629](https://arxiv.org/abs/1906.02629), table 3): smoothing and a temperature
  lower the ECE of an overconfident network alike. ResNet-56 on CIFAR-100 there: 15.0 % plain, 2.1 % with T, 2.4 % with
  eps 0.05.

What differs here: networks of some ten thousand parameters, trained for seconds, and digits of 8 x 8 pixels (for
Müller drowned in noise, so that the network is overconfident). So directions are compared, not sizes. A difference
counts where its 95 % interval leaves 0 out; "alike" is said where none can be told."""
OF_CIFAR10 = """\
CIFAR-10 is a subset here: 4,000 training images, from JPEG files, which are lossy, at half the resolution."""


class Difference(NamedTuple):
    """Of two settings paired by seed: its mean, and half of its 95 % interval, in points."""

    mean: float
    half: float

    @property
    def word(self) -> str:
        """Which way, as far as the interval tells."""
        return "no difference that 95 % would carry" if abs(self.mean) <= self.half else ("-" if self.mean < 0 else "+")

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ± {self.half:.1f}"


def points(runs: list[dict[str, Any]], source: str, key: str) -> list[float]:
    """One measure of each run, in per cent."""
    return [100 * run[source][key] for run in runs]


def of_accuracy(runs: dict[str, list[dict[str, Any]]], plain: str) -> list[str]:
    """What each eps does to accuracy."""
    before = points(runs[plain], "plain", "acc")
    said = {"+": "as published", "-": "the opposite of what is published"}
    lines = []
    for row in (row for row in runs if row != plain):
        after = points(runs[row], "plain", "acc")
        found = Difference(*paired(after, before))
        verdict = said.get(found.word, found.word)
        lines.append(f"- `{row}`: accuracy {mean(before):.1f} -> {mean(after):.1f} % ({found}): {verdict}.")
    return lines


def of_calibration(runs: dict[str, list[dict[str, Any]]], plain: str) -> list[str]:
    """What each eps does to the ECE, beside the temperature of the plain network."""
    before, scaled = (points(runs[plain], source, "ece") for source in ("plain", "scaled"))
    by_scaling = Difference(*paired(scaled, before))
    lines = []
    for row in (row for row in runs if row != plain):
        after = points(runs[row], "plain", "ece")
        by_smoothing, between = Difference(*paired(after, before)), Difference(*paired(after, scaled))
        both = by_smoothing.word == by_scaling.word == "-"
        alike = {"+": "the temperature lowers it further", "-": "smoothing lowers it further"}
        verdict = (
            f"both lower it, {alike.get(between.word, 'alike')}" if both else "that both lower it, 95 % would not carry"
        )
        lines.append(
            f"- `{row}`: ECE {mean(before):.1f} -> {mean(after):.1f} % ({by_smoothing}); a temperature of the plain "
            f"network {mean(scaled):.1f} % ({by_scaling}); smoothed minus scaled {between}: {verdict}."
        )
    return lines


def section(regimes: dict[str, Regime], seeds: int, cache: Cache, files: dict[str, Path]) -> str:
    """Train what the cache lacks; the tables, and above each what it says of the claim."""
    page = measure(regimes, seeds, cache, files)
    for name, regime in regimes.items():
        settings = {row: f"{regime.settings} {row}" for row in (regime.plain, *regime.methods)}
        runs = {row: [cache.runs[one, seed] for seed in range(seeds)] for row, one in settings.items()}
        said = (of_accuracy if name.startswith("Lukasik") else of_calibration)(runs, regime.plain)
        page = page.replace(f"### {name}\n\n", f"### {name}\n\n" + "\n".join(said) + "\n\n")
    return page


def main(options: dict[str, str]) -> None:
    """Measure the digits and, if they are given, the images; write the section."""
    given = {"cache": "outputs/published.jsonl", "page": str(DOCS), **options}
    unknown = given.keys() - {"cifar10", "seeds", "page", "cache"}
    if unknown:
        sys.exit(f"{min(unknown)} is not a key; see the head of {__file__}.")
    cache = Cache(Path(given["cache"]))
    parts = [section(DIGITS, int(given.get("seeds", 5)), cache, {})]
    command = "python benchmarks/published.py"
    if folder := given.get("cifar10"):
        files = {"cifar10": cifar10_subset(Path(folder), cache.path.parent)}
        parts.append(section(CIFAR10, int(given.get("seeds", 5)), cache, files))
        command += " cifar10=<folder>"
        parts.insert(0, OF_CIFAR10)
    head = f"## Published comparisons\n\n```text\n{command}\n```\n\n{CLAIMS}"
    write_section("published", "\n\n".join([head, *parts]), Path(given["page"]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    register_schema()
    main(dict(word.partition("=")[::2] for word in sys.argv[1:]))
