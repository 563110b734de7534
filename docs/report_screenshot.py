"""Draw README's picture of report.html: ``python docs/report_screenshot.py`` writes docs/report.png.

Trains the sweep of docs/choosing-eps.md (35 jobs of some seconds each on one core), makes its report and photographs
the top of it in Chromium. Given a folder, the sweep in it is taken as it is:
``python docs/report_screenshot.py digits``.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

SWEEPS = ("eps=0,0.05,0.1,0.2 schedule=constant", "eps=0.05,0.1,0.2 schedule=linear")
OPTIONS = "seed=0,1,2,3,4 trainer=cpu trainer.max_epochs=40 metrics=full trainer.enable_progress_bar=False"
WIDTH, HEIGHT = 1280, 1234
COLOURS = 128


def train(folder: Path) -> None:
    """The jobs of both schedules."""
    for words in SWEEPS:
        name = words.rpartition("=")[2]
        command = [sys.executable, "-m", "ls_lightning.train", "-m", *words.split(), *OPTIONS.split()]
        subprocess.run([*command, f"hydra.sweep.dir={folder / name}"], check=True)


def photograph(page: Path, picture: Path) -> None:
    """The top of the page on a light ground, in few colours."""
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready]")
        tab.screenshot(path=picture)
        browser.close()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as spare:
        sweep = Path(sys.argv[1] if len(sys.argv) > 1 else spare)
        if len(sys.argv) == 1:
            train(sweep)
        subprocess.run(
            [sys.executable, "-m", "ls_lightning.report", str(sweep), f"out={spare}/report", "figures=none"], check=True
        )
        photograph(Path(spare) / "report" / "report.html", Path(__file__).parent / "report.png")
