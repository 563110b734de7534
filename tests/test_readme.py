"""What the documents show is run: Python blocks, command lines, configuration, links.

A document's blocks run in order, in one working directory that is empty at first. Its Python blocks share a
namespace. A block that begins with ``# some_file.py`` (or .yaml) is also written to that file, so that a
command may name it.
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
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from omegaconf import OmegaConf

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = {"text", "console"}
SMALL = "trainer.max_epochs=1"
# Set-up and tools that a test must not run: they install, start other systems, or run the tests themselves.
SETUP = [
    r"\S*python3? -m (venv|pip|pytest)\b",
    r"\S*pip install\b",
    r"(docker|git|cd|pre-commit|nvidia-smi)\b",
    r"bash \.ci/run$",
    r"\S*/activate$|(source|\.) \S*/activate$",
]
JOB = re.compile(r"\S*python3? (?=-m ls_lightning\.|\S+\.py\b)")


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks(document: Path) -> list[Block]:
    tokens = MarkdownIt().parse(document.read_text(encoding="utf-8"))
    return [
        Block(token.info.strip(), token.content, token.map[0] + 2)
        for token in tokens
        if token.type == "fence" and token.map
    ]


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
        arguments.append(SMALL)
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
        if re.match(r"[a-z][a-z0-9+.-]*:", path):
            continue
        target = (document.parent / path) if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def anchors(document: Path) -> set[str]:
    tokens = MarkdownIt().parse(document.read_text(encoding="utf-8"))
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_document(document, tmp_path, monkeypatch)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    assert dead_links(document) == []


def test_the_first_screen_has_the_two_commands() -> None:
    """``.ci/run`` takes them from there."""
    first = [block for block in blocks(ROOT / "README.md") if block.language == "sh"][:2]
    run, check = (block.text.strip() for block in first)
    assert run == (
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[data,plot]' "
        "&& .venv/bin/python -m ls_lightning.train loss=kl eps=0.1"
    )
    assert check == (
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' "
        "&& .venv/bin/python -m pytest -n 2 --dist loadfile"
    )
    assert first[1].line < 40


SAMPLE = """
# A sample

See [the other](other.md), [a part](#a-sample), <img src="picture.png"> and [the web](https://example.org/x).

```python
# sample_nets.py
class Net:
    size = 3
```

```python
from sample_nets import Net as Imported
assert Imported.size == Net.size
total = Net.size + 1
```

```python
from pathlib import Path
Path("total.txt").write_text(str(total))
assert not Path("README.md").exists()
```

```yaml
# conf/mine.yaml
a: [1, 2]
```

```sh
python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/python show.py  # a comment
GREETING='good day' python show.py \\
  key=value
```

```text
anything
```
"""
SHOW = """
import os, sys
from pathlib import Path
with Path("shown.txt").open("a") as file:
    print(os.environ.get("GREETING"), Path("total.txt").read_text(), *sys.argv[1:], file=file)
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "cwd").mkdir()
    for name in ("other.md", "picture.png"):
        (tmp_path / "docs" / name).touch()
    (tmp_path / "cwd" / "show.py").write_text(SHOW)
    document = tmp_path / "docs" / "sample.md"
    document.write_text(SAMPLE)
    return document


def test_a_sample_runs_in_order(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sample.parent.parent / "cwd"
    run_document(sample, folder, monkeypatch)
    assert (folder / "shown.txt").read_text() == "None 4\ngood day 4 key=value\n"
    assert (folder / "conf" / "mine.yaml").read_text() == "# conf/mine.yaml\na: [1, 2]\n"
    assert dead_links(sample) == []


@pytest.mark.parametrize(
    ("added", "complaint"),
    [
        ("```python\nassert total == 5\n```", "AssertionError"),
        ("```python\ntotal = \n```", "SyntaxError"),
        ("```python\nimport no_such_module\n```", "no_such_module"),
        ("```sh\npython show.py && python missing.py\n```", "missing.py"),
        ("```sh\npython -m ls_lightning.train eps=1.5\n```", "exited with 2"),
        ("```sh\nrm -rf everything\n```", "no test knows how to check the command 'rm -rf everything'"),
        ("```yaml\na: [1\n```", "ParserError"),
        ("```toml\na = \n```", "TOMLDecodeError"),
        ("```ruby\nputs 1\n```", "no test knows blocks of the language 'ruby'"),
        ("```\nputs 1\n```", "no test knows blocks of the language ''"),
    ],
)
def test_a_broken_block_is_found(sample: Path, monkeypatch: pytest.MonkeyPatch, added: str, complaint: str) -> None:
    with sample.open("a") as file:
        file.write(f"\n{added}\n")
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        run_document(sample, sample.parent.parent / "cwd", monkeypatch)
    assert complaint in f"{caught.typename}: {caught.value}"


@pytest.mark.parametrize("link", ["gone.md", "other.md#gone", "#gone", "../docs/gone.png"])
@pytest.mark.parametrize("form", ["[it]({})", "![it]({})", '<img src="{}">', '<p>\n<a href="{}">it</a></p>'])
def test_a_dead_link_is_found(sample: Path, link: str, form: str) -> None:
    with sample.open("a") as file:
        file.write(f"\n{form.format(link)}\n")
    assert dead_links(sample) == [link]


def test_an_error_names_the_line_of_the_document(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample.write_text("# Title\n\n```python\nx = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_document(sample, sample.parent.parent / "cwd", monkeypatch)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (sample, 5)
