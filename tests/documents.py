"""What the documents show is run: Python blocks, command lines, configuration, links.

A document's blocks run in order, in one working directory that is empty at first. Its Python blocks share a
namespace. A block that begins with ``# some_file.py`` (or .yaml) is also written to that file, so that a
command may name it. A block of the language ``text`` is not run; what stands behind that word says why.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from omegaconf import OmegaConf

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]
NOT_RUN = {"text", "console"}
SMALL = ["trainer.max_epochs=1", "~callbacks.pictures"]
# Set-up and tools that a test must not run: they install, start other systems, or run the tests themselves.
SETUP = [
    r"\S*python3? -m (venv|pip|pytest)\b",
    r"\S*pip install\b",
    r"(docker|git|cd|pre-commit|nvidia-smi)\b",
    r"bash \.ci/run$",
    r"\S*/activate$|(source|\.) \S*/activate$",
]
WEB = re.compile(r"[a-z][a-z0-9+.-]*:")
FORMS = {  # paths of sites that are often cited
    "arxiv.org": r"/abs/\d{4}\.\d{4,5}(v\d+)?",
    "github.com": r"/[\w.-]+(/[\w.-]+(/((issues|pull|discussions)/\d+|(blob|tree|releases)/\S+)?)?)?",
    "doi.org": r"/10\.\d{4,}/\S+",
}
JOB = re.compile(r"\S*python3? (?=-m ls_lightning\.|\S+\.py\b)")


class Block(NamedTuple):
    """A fenced block; on the line of its fence, ``note`` is what follows the language."""

    language: str
    text: str
    line: int
    note: str


def blocks(document: Path) -> list[Block]:
    tokens = MarkdownIt().parse(document.read_text(encoding="utf-8"))
    fences = [(*token.info.strip().partition(" "), token) for token in tokens if token.type == "fence"]
    return [Block(language, token.content, token.map[0] + 2, note) for language, _, note, token in fences if token.map]


def commands(text: str) -> Iterator[str]:
    """The simple commands of a shell block, without comments and continuations."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=False, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, "&&"]:
            if word in {"&&", ";"}:
                if command:
                    yield " ".join(command)
                command = []
            else:
                command.append(word)


def run_command(command: str, folder: Path) -> None:
    """Run what a reader would type, with this interpreter and one epoch."""
    words = shlex.split(command)
    settings = {}
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, settings[name] = words.pop(0).partition("=")
    command = shlex.join(words)
    if any(re.match(pattern, command) for pattern in SETUP):
        return
    if not JOB.match(command):
        pytest.fail(f"no test knows how to check the command {command!r}")
    arguments = [str(ROOT / word) if word.endswith(".py") and (ROOT / word).exists() else word for word in words[1:]]
    if arguments[:2] == ["-m", "ls_lightning.train"]:
        arguments += SMALL
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "WANDB_MODE": "offline", "MPLBACKEND": "Agg", "PYTHONPATH": path, **settings},
        capture_output=True,
        text=True,
        timeout=500,
    )
    if done.returncode != 0:
        pytest.fail(f"{command} exited with {done.returncode}:\n{done.stdout}{done.stderr}", pytrace=False)


def run_document(document: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    module = ModuleType(f"blocks_of_{document.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(document):
        if named := re.match(r"# (\S+\.(?:py|ya?ml))\n", block.text):
            file = folder / named[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        if block.language == "python":
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, str(document), "exec"), module.__dict__)
        elif block.language == "sh":
            for command in commands(block.text):
                run_command(command, folder)
        elif block.language == "yaml":
            OmegaConf.create(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language not in NOT_RUN:
            pytest.fail(f"{document.name}:{block.line}: no test knows blocks of the language {block.language!r}")


def links(document: Path) -> Iterator[str]:
    def walk(tokens: list[Token]) -> Iterator[str]:
        for token in tokens:
            for name in ("href", "src"):
                if token.attrGet(name):
                    yield str(token.attrGet(name))
            if token.type in {"html_inline", "html_block"}:
                yield from re.findall(r"""(?:href|src)=["']([^"']+)""", token.content)
            yield from walk(token.children or [])

    yield from walk(MarkdownIt().parse(document.read_text(encoding="utf-8")))


def dead_links(document: Path) -> list[str]:
    """Links to files that are not there and to headings that no document has; the web is not looked at."""
    dead = []
    for link in links(document):
        path, _, anchor = unquote(link).partition("#")
        if WEB.match(path):
            continue
        target = (document.parent / path) if path else document
        if not target.exists() or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            dead.append(link)
    return dead


def malformed_links(document: Path) -> list[str]:
    """Links to the web that cannot be right, as far as can be told without asking it."""
    return [link for link in links(document) if WEB.match(link) and not _well_formed(link)]


def _well_formed(link: str) -> bool:
    address = urlsplit(link)
    host = address.hostname or ""
    if address.scheme != "https" or not re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", host) or re.search(r"\s", link):
        return False
    form = FORMS.get(host.removeprefix("www."))
    return form is None or re.fullmatch(form, address.path) is not None


def anchors(document: Path) -> set[str]:
    """What GitHub calls the headings; the second of one name ends in -1."""
    tokens = MarkdownIt().parse(document.read_text(encoding="utf-8"))
    headings = [after.children or [] for token, after in pairwise(tokens) if token.type == "heading_open"]
    found: dict[str, int] = {}
    for heading in headings:
        title = "".join(child.content for child in heading if child.type in {"text", "code_inline"})
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {f"{name}-{k}" if k else name for name, last in found.items() for k in range(last + 1)}
