"""Print the dependencies that pyproject.toml names, so that an image holds them in a layer below the source.

Usage: python requirements.py pyproject.toml [extra ...]
"""

import sys
import tomllib


def requirements(pyproject: str, extras: list[str]) -> list[str]:
    """The core dependencies and those of the extras, one requirement an item."""
    with open(pyproject, "rb") as file:
        project = tomllib.load(file)["project"]
    known = project["optional-dependencies"]
    if unknown := set(extras) - known.keys():
        raise SystemExit(f"extras must be among {', '.join(known)}, got {', '.join(sorted(unknown))}.")
    return [*project["dependencies"], *(requirement for extra in extras for requirement in known[extra])]


if __name__ == "__main__":
    print(*requirements(sys.argv[1], sys.argv[2:]), sep="\n")
