"""The notebook runs from top to bottom and shows what its text says; LS_REFRESH=1 keeps the outputs of the run."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from documents import dead_links
from nbclient import NotebookClient

TOUR = Path(__file__).parent.parent / "examples" / "tour.ipynb"


def outputs(notebook):
    """Of each code cell what it shows: text, pictures."""
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return [
        sorted({"picture" if "image/png" in o.get("data", {}) else o.get("name", "?") for o in cell}) for cell in cells
    ]


def said(notebook):
    found = [o.text for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "stream"]
    return "\n".join(found)


@pytest.fixture
def kept():
    return nbformat.read(TOUR, 4)


@pytest.mark.slow
def test_it_runs(kept, tmp_path, monkeypatch):
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # not the ones in the user's home
        monkeypatch.setenv(variable, str(tmp_path / variable))
    ran = nbformat.read(TOUR, 4)
    NotebookClient(
        ran,
        timeout=500,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
        coalesce_streams=True,
        record_timing=False,
    ).execute()
    if os.environ.get("LS_REFRESH"):
        nbformat.write(ran, TOUR)
    gaps = [float(gap) for gap in re.findall(r"confidence - accuracy (\S+)%", said(ran))]
    plain, smoothed, faded = gaps
    assert abs(smoothed) < 5 < faded < plain
    temperature, before, after = map(float, *re.findall(r"T = (\S+): ECE (\S+)% -> (\S+)%", said(ran)))
    assert temperature > 1.5
    assert after < before / 2
    assert "4 jobs: 4 complete." in said(ran)
    if not os.environ.get("LS_REFRESH"):
        assert outputs(ran) == outputs(kept)


def test_its_outputs_are_there_and_small(kept):
    assert sum("picture" in shown for shown in outputs(kept)) == 5
    assert "4 jobs: 4 complete." in said(kept)
    assert TOUR.stat().st_size < 300_000
    assert not re.search(r"/(tmp|home|root|work|Users)/|\x1b", said(kept))


def test_its_links_lead_somewhere(kept, tmp_path):
    page = TOUR.with_suffix(".md")
    text = "\n\n".join(cell.source for cell in kept.cells if cell.cell_type == "markdown")
    target = tmp_path / "examples" / page.name
    target.parent.mkdir()
    target.write_text(text, encoding="utf-8")
    for name in ("README.md", "docs"):
        (tmp_path / name).symlink_to(TOUR.parent.parent / name)
    assert dead_links(target) == []
