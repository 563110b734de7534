"""The page that benchmarks write, `benchmarks/RESULTS.md`: a section each, between marks that name it."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).with_name("RESULTS.md")
HEAD = "# Results of the benchmarks\n\nEach section is written by the command that it names.\n"


def write_section(name: str, text: str, file: Path = PAGE) -> None:
    """Put the section `name` in its place on a page, at the end if it is new; the others stay as they are.

    Args:
        name: of the mark, e.g. `linear_loss` for `<!-- linear_loss -->`.
        text: Markdown that begins with a `## ` heading.
        file: the page.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    section = f"{begin}\n{text.strip()}\n{end}\n"
    page = file.read_text(encoding="utf-8") if file.exists() else HEAD
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    page = place.sub(lambda _: section, page) if place.search(page) else f"{page}\n{section}"
    partial = file.with_suffix(".part")
    partial.write_text(page, encoding="utf-8")
    partial.replace(file)


def machine(*packages: str) -> str:
    """One line: the processor, its cores, Python, and the versions of `packages`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [f"{name} {version(name)}" for name in packages]
    return ", ".join([_processor(), f"{cores} cores", f"Python {platform.python_version()}", *found])


def _processor() -> str:
    """The model's name where Linux tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
