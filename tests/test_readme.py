"""README and its neighbours: what they show is run, and what they link to is there; and how that is found out."""

from pathlib import Path

import pytest
from documents import ROOT, anchors, blocks, dead_links, malformed_links, run_document

TOP = sorted(ROOT.glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("document", TOP, ids=lambda path: path.name)
def test_every_block_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_document(document, tmp_path, monkeypatch)


@pytest.mark.parametrize("document", TOP, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    assert dead_links(document) == []
    assert malformed_links(document) == []


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


@pytest.mark.parametrize("link", ["gone.md", "other.md#gone", "#gone", "../docs/gone.png", "picture.png#a"])
@pytest.mark.parametrize("form", ["[it]({})", "![it]({})", '<img src="{}">', '<p>\n<a href="{}">it</a></p>'])
def test_a_dead_link_is_found(sample: Path, link: str, form: str) -> None:
    with sample.open("a") as file:
        file.write(f"\n{form.format(link)}\n")
    assert dead_links(sample) == [link]


@pytest.mark.parametrize(
    ("heading", "anchors_of_it"),
    [
        ("## Losses, and `eps`", {"losses-and-eps"}),
        ("## [A link](other.md) here", {"a-link-here"}),
        ("## Twice\n\n## Twice", {"twice", "twice-1"}),
    ],
)
def test_headings_are_named_as_on_github(sample: Path, heading: str, anchors_of_it: set[str]) -> None:
    sample.write_text(f"{heading}\n")
    assert anchors(sample) == anchors_of_it


@pytest.mark.parametrize(
    "link",
    [
        "http://example.org/x",
        "https://localhost/x",
        "https:/example.org/x",
        "https://arxiv.org/1706.04599",
        "https://github.com/Lightning-AI/pytorch-lightning/issues/many",
        "ftp://example.org",
    ],
)
def test_a_malformed_link_is_found(sample: Path, link: str) -> None:
    assert malformed_links(sample) == []
    with sample.open("a") as file:
        file.write(f"\n[it]({link})\n")
    assert malformed_links(sample) == [link]


def test_an_error_names_the_line_of_the_document(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample.write_text("# Title\n\n```python\nx = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_document(sample, sample.parent.parent / "cwd", monkeypatch)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (sample, 5)
