"""The pages of docs/: what they show is run, what they link to is there, and what is not run says why."""

import re
from pathlib import Path

import pytest
from documents import DOCUMENTS, PAGES, ROOT, blocks, dead_links, malformed_links, run_document
from test_stairs import FLOORS

ALL_LONG = {"results.md"}  # every command takes minutes to hours, as the page says


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_document(page, tmp_path, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert dead_links(page) == []
    assert malformed_links(page) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_text_block_says_why_it_is_not_run(document: Path) -> None:
    """On the line of its fence, as in ``text output``: readers see the block alone."""
    silent = [block.line for block in blocks(document) if block.language == "text" and not block.note]
    assert silent == [] or document.name in ALL_LONG


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"(docs/{page.name})" not in readme] == []


def test_the_table_of_environment_variables_has_each_that_is_ours() -> None:
    files = [path for folder in ("ls_lightning", "hydra_plugins") for path in (ROOT / folder).rglob("*.py")]
    ours = re.compile(r"\bLS_[A-Z_]+\b")
    read = {name for path in files for name in ours.findall(path.read_text(encoding="utf-8"))}
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[A-Z_]+`.*?) \| .+ \| .+ \|$", page, re.M)
    assert {name for row in rows for name in ours.findall(row)} == read
    assert "LS_LIGHTNING_NATIVE" in read


def test_the_drawing_has_every_storey_on_its_floor() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `(\w+)` \| .+\. \|$", page, re.M)
    assert {storey: int(floor) for floor, storey in rows} == FLOORS
    drawing = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    drawn = re.findall(r'<text x="\d+" y="(\d+)"[^>]*>(\w+)</text>', drawing)
    floor_at = {int(y) - 1: int(text) for y, text in drawn if text.isdigit()}
    assert {text: floor_at[int(y)] for y, text in drawn if int(y) in floor_at and not text.isdigit()} == FLOORS
