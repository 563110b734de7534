"""report.html in a real browser: Debian's Chromium without a window, driven by Playwright."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from contextlib import contextmanager

import pytest
from job_folders import history, measured, write_job, write_sweep

from ls_lightning.report import __main__ as report
from ls_lightning.report.pareto import front

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium was found: apt-get install chromium"),
]
EVIL = "</script><script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'>"
CURVE = {"coverage": [0.25, 0.5, 0.75, 1.0], "risk": [0.0, 0.02, 0.05, 0.1]}
CURVE |= {"lower": CURVE["risk"], "upper": CURVE["risk"]}


def valley(eps):
    return 0.5 + 20 * (eps - 0.1) ** 2


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two losses, two schedules, a metric that one group lacks, a job that failed, and words that are dangerous."""
    root = tmp_path_factory.mktemp("browser") / "sweep"
    for loss, schedule, grid in (
        ("ce", "constant", (0, 0.05, 0.1)),
        ("ce", "linear", (0.05, 0.1)),
        ("kl", "constant", (0.1, 0.2)),
    ):
        folder = root / f"{loss}_{schedule}"
        curves = {"risk_coverage": {"test": CURVE}}
        write_sweep(folder, valley, grid=grid, seeds=range(3), noise=0.01, loss=loss, schedule=schedule, **curves)
    failed = write_job(root / "failed", 0.1, 9)
    (failed / "result.json").unlink()
    (failed / "job.log").write_text(f"ValueError: {EVIL}\n")
    (failed / "overrides.yaml").write_text(json.dumps({"overrides": [f"name={EVIL}"]}))
    without = {key: value for key, value in measured(0.7).items() if key != "brier"}
    evil = write_job(root / "evil", 0.3, 0, val=measured(0.7), test=without)
    stored = json.loads((evil / "result.json").read_text())
    (evil / "result.json").write_text(json.dumps(stored | {"loss": EVIL}))
    assert report.main([str(root), "figures=none"]) == 0
    return root / "report" / "report.html"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened(browser, path, **options):
    """A page that has drawn its figures, and at its end has fetched and complained of nothing."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **options})
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    if options.get("java_script_enabled", True):
        page.wait_for_selector("html[data-ready]", timeout=120_000)
    yield page
    assert complaints == []
    assert {url for url in requests if not url.startswith(("data:", "blob:"))} == {path.as_uri()}
    context.close()


def cells(page, column, table="means"):
    """The visible texts of a column."""
    script = """([table, column]) => [...document.querySelectorAll(`#${table} tbody tr`)]
        .filter((row) => row.getClientRects().length).map((row) => row.cells[column].textContent)"""
    return page.evaluate(script, [table, column])


def number(text):
    found = re.match(r"[+\u2212]?[\d.]+", text)
    return None if found is None else float(found[0].replace("\u2212", "-"))


def traces(page, figure):
    return page.locator(f"#{figure} .scatterlayer .trace").count()


FIGURES = ("against-eps-acc", "against-eps-nll", "against-eps-ece", "against-eps-gap", "pareto", "over-training")
FIGURES += ("reliability-0", "reliability-1", "reliability-2", "risk-coverage")


def test_every_figure_is_drawn(browser, sweep):
    with opened(browser, sweep) as page:
        for name in FIGURES:
            assert page.locator(f"#{name} .main-svg").count() >= 1, name
            assert page.locator(f"#{name} h3").inner_text() != "", name
            assert page.locator(f"#{name} .plot").get_attribute("aria-label"), name
        assert traces(page, "against-eps-ece") > 5
        assert page.locator("#reliability-0 .barlayer .point path").count() >= 4
        assert "stolen" not in page.evaluate("Object.keys(window)")
        assert EVIL in page.locator("#left-out").inner_text()
        assert EVIL in page.locator("#filters").inner_text()


def test_figures_show_the_numbers_of_the_jobs(browser, sweep):
    found = [json.loads(path.read_text()) for path in sweep.parent.parent.glob("*_*/*/result.json")]
    test = {}
    for job in found:
        schedule = "-" if job["eps"] == 0 else job["schedule"].partition("(")[0]
        test.setdefault((job["loss"], schedule, job["eps"]), []).append(job["metrics"]["test"])

    def means(key, *names):
        groups = [("ce", "-", 0), *sorted(name for name in test if name[:2] == names)]
        return [pytest.approx(statistics.fmean(one[key] for one in test[group]), rel=1e-4) for group in groups]

    with opened(browser, sweep) as page:
        shown = page.evaluate("document.querySelector('#against-eps-nll .plot').data")
        lines = [trace["y"] for trace in shown if trace["mode"] == "lines+markers"]
        assert lines[-3:] == [
            means("nll", *names) for names in (("ce", "Constant"), ("ce", "Linear"), ("kl", "Constant"))
        ]
        points = [
            (100 * statistics.fmean(one["ece"] for one in jobs), 100 * statistics.fmean(one["acc"] for one in jobs))
            for jobs in [*test.values(), [measured(0.7)]]
        ]
        assert page.locator("#pareto h3").inner_text().startswith(f"{len(front(points))} of {len(points)} are beaten")
        # counts 20 and 80, confidence 0.6 and 0.95, accuracy 0.5 and 0.9
        assert page.locator("#reliability-0 h3").inner_text() == "Overconfident by 6.0 points"
        said = "ECE 6.0 %, accuracy 82.0 %, confidence 88.0 %, test n = 300"
        assert page.locator("#reliability-0 p").inner_text().replace("\xa0", " ") == said
        assert "plain training: 10.0 % errors" in page.locator("#risk-legend").inner_text()
        (best,) = [
            trace
            for trace in page.evaluate("document.querySelector('#risk-coverage .plot').data")
            if "Best possible" in str(trace.get("hovertext"))
        ]
        assert best["y"] == pytest.approx([0, 0, 0, 10])


@pytest.mark.parametrize("table", ["means", "differences", "left-out"])
def test_a_heading_sorts(browser, sweep, table):
    with opened(browser, sweep) as page:
        headings = page.locator(f"#{table} thead th")
        names = headings.all_inner_texts()
        assert len(names) >= 4
        for column, name in enumerate(names):
            before = cells(page, column, table)
            for sort, down in (("ascending", False), ("descending", True)):
                headings.nth(column).locator("button").click()
                assert headings.nth(column).get_attribute("aria-sort") == sort
                assert page.locator(f'#{table} th[aria-sort="none"]').count() == len(names) - 1
                after = cells(page, column, table)
                assert sorted(after) == sorted(before), name
                if "number" in (headings.nth(column).get_attribute("class") or ""):
                    values = [value for value in map(number, after) if value is not None]
                    assert values == sorted(values, reverse=down), name
                    assert all(number(text) is None for text in after[len(values) :]), "what is missing comes last"
                else:
                    assert len(set(after)) == sum(a != b for a, b in zip(after, [None, *after], strict=False)), name


def test_filters_act_on_tables_and_figures(browser, sweep):
    with opened(browser, sweep) as page:
        assert page.locator("#status").inner_text() == "8 of 8 groups shown"
        lines, options = traces(page, "against-eps-nll"), page.locator("#reliability-0 option").count()
        page.locator("#filters").get_by_label("linear decay").uncheck()
        assert "linear decay" not in cells(page, 1) + cells(page, 1, "differences")
        assert (len(cells(page, 1)), page.locator("#status").inner_text()) == (11, "6 of 8 groups shown")
        assert traces(page, "against-eps-nll") == lines - 3
        assert page.locator("#reliability-0 option").count() == options - 4
        assert "linear decay" not in page.locator("#legend").inner_text()
        page.locator("#filters").get_by_label("kl").uncheck()
        assert set(cells(page, 0)) == {"ce", EVIL}
        page.locator("#filters").get_by_label("plain training").uncheck()
        assert "0" not in cells(page, 2)
        page.get_by_label("scaled", exact=True).check(force=True)
        assert set(map(number, cells(page, 4))) == {1.5}
        page.reload()  # choices outlive a reload, as --watch needs it
        page.wait_for_selector("html[data-ready]")
        assert set(map(number, cells(page, 4))) == {1.5}
        assert not page.locator("#filters").get_by_label("linear decay").is_checked()


def test_a_setting_has_figures_of_its_own(browser, tmp_path):
    for noise in (0.0, 0.4):
        folder = tmp_path / f"noise{noise}"
        write_sweep(
            folder, lambda eps, noise=noise: noise + valley(eps), grid=(0, 0.1), seeds=range(2), label_noise=noise
        )
    assert report.main([str(tmp_path), "figures=none"]) == 0
    with opened(browser, tmp_path / "report" / "report.html") as page:
        assert len(cells(page, 0)) == 8
        heights = []
        for number in ("0", "1"):
            page.get_by_label("Setting").select_option(number)
            (setting,) = set(cells(page, 0))
            assert f"Setting: {setting}." in page.locator("#figures-caption").inner_text()
            heights.append(page.evaluate("document.querySelector('#against-eps-nll .plot').data.at(-1).y[0]"))
        assert heights[1] - heights[0] == pytest.approx(0.4)


def test_hovering_shows_values(browser, sweep):
    wanted = {
        "#against-eps-ece .scatterlayer .points path >> nth=1": r"ECE \d\.\d ±\d\.\d %3 seeds",
        "#pareto .scatterlayer .points path >> nth=-1": r"ECE \d+\.\d.*accuracy \d\d\.\d",
        "#reliability-0 .barlayer .point path >> nth=0": r"Confidence.*accuracy.*n = \d+",
    }
    with opened(browser, sweep) as page:
        for place, words in wanted.items():
            page.locator(place).scroll_into_view_if_needed()
            box = page.locator(place).bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + 1)
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            hovered = page.locator(".hoverlayer .hovertext")
            hovered.first.wait_for()
            assert re.search(words, " ".join(hovered.first.text_content().split())), place
            page.mouse.move(0, 0)


def press_until(page, selector, key="Tab"):
    """How the focus is outlined when it is there."""
    for _ in range(200):
        page.keyboard.press(key)
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    raise AssertionError(f"{selector} cannot be reached by {key}")


def test_the_keyboard_is_enough(browser, sweep):
    with opened(browser, sweep) as page:
        assert press_until(page, ".skip") != "none"
        assert page.locator(".skip").bounding_box()["y"] > 0
        page.keyboard.press("Enter")
        assert press_until(page, 'input[value="linear decay"]') != "none"
        page.keyboard.press("Space")
        assert "linear decay" not in cells(page, 1)
        press_until(page, 'input[name="rows"]:checked')
        page.keyboard.press("ArrowRight")
        assert set(map(number, cells(page, 4))) == {1.0}
        assert press_until(page, "#reliability-1 select") != "none"
        chosen = page.locator("#reliability-1 select").input_value()
        page.keyboard.press("ArrowDown")
        assert page.locator("#reliability-1 select").input_value() != chosen
        assert press_until(page, "#means th:nth-child(7) button") != "none"
        page.keyboard.press("Enter")
        values = list(map(number, cells(page, 6)))
        assert values == sorted(values)
        assert page.evaluate("document.activeElement.textContent") == "NLL", "the focus stays"


def paint(page):
    """Of the page and of a figure's axis labels."""
    script = """() => [getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector("#pareto .xtick text")).fill]"""
    return page.evaluate(script)


def light(colour):
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_dark_and_light(browser, sweep):
    with opened(browser, sweep) as page:
        bright = paint(page)
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(f"() => getComputedStyle(document.body).backgroundColor !== '{bright[0]}'")
        dark = paint(page)
        assert (light(bright[0]) > 240, light(dark[0]) < 40) == (True, True)
        assert light(dark[1]) > light(bright[1]) + 30
        page.get_by_label("Light").check(force=True)
        assert paint(page) == bright
        page.get_by_label("Dark").check(force=True)
        page.emulate_media(color_scheme="light")
        assert paint(page) == dark


@pytest.mark.parametrize("width", [320, 375, 768])
def test_a_narrow_screen_scrolls_down_alone(browser, sweep, width):
    with opened(browser, sweep, viewport={"width": width, "height": 720}, has_touch=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in FIGURES:
            box = page.locator(f"#{name}").bounding_box()
            assert box["x"] >= 0, name
            assert box["x"] + box["width"] <= width, name
        assert float(page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")) >= 15


def test_without_scripts_there_are_answer_and_tables(browser, sweep):
    with opened(browser, sweep, java_script_enabled=False) as page:
        assert page.locator("#answers h2").is_visible()
        assert page.locator("#means tbody tr").count() == 15
        assert page.locator("noscript").is_visible()
        assert not page.locator("#filters").is_visible()


def test_on_paper(browser, sweep):
    with opened(browser, sweep, color_scheme="dark") as page:
        before = paint(page), page.locator("#pareto .main-svg").first.bounding_box()["width"]
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert light(paint(page)[0]) > 240
        assert page.locator("#pareto .main-svg").first.bounding_box()["width"] < 340, "two fit side by side"
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert (paint(page), page.locator("#pareto .main-svg").first.bounding_box()["width"]) == before
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("#filters").is_visible()
        assert page.locator("#means").is_visible()
        assert page.pdf().startswith(b"%PDF")


def test_five_hundred_jobs(browser, tmp_path, capsys):
    """Each of its own eps, loss and schedule, with bins and curves at full length: the most that they can weigh."""
    full = {"counts": [7.0] * 15, "confidence": [k / 15 + 0.0312345 for k in range(15)]}
    full["accuracy"] = [k / 15 + 0.0123456 for k in range(15)]
    curve = {name: [0.01 * k + 0.00012345 * (name != "coverage") for k in range(1, 101)] for name in CURVE}
    found = {"reliability": {"test": full}, "risk_coverage": {"test": curve}}
    for k in range(500):
        nll = 0.3 + 0.001 * k
        temperature = {"T": 1.2, "metrics": {"test": measured(nll)}, **found}
        keys = {"loss": ("ce", "kl")[k % 2], "schedule": ("linear", "cosine")[k // 2 % 2]}
        keys |= {"val": measured(nll), "test": measured(nll + 0.1), "temperature": temperature}
        job = write_job(tmp_path / str(k), (1 + k // 4) / 200, steps=0, **keys, **found)
        lines = (f"{step},{k / 999 * (1 - step / 300) ** 2}" for step in range(300))
        (job / "metrics.csv").write_text("step,ls/eps\n" + "\n".join(lines) + "\n")
    assert report.main([str(tmp_path), "figures=none"]) == 0
    assert "500 jobs: 500 complete" in capsys.readouterr().out
    path = tmp_path / "report" / "report.html"
    assert path.stat().st_size < 6_000_000
    with opened(browser, path) as page:
        assert page.locator("#means tbody tr").count() == 1_000
        page.locator("#means th button").nth(6).click()
        values = list(map(number, cells(page, 6)))
        assert values == sorted(values)
        page.locator("#filters").get_by_label("cosine decay").uncheck()
        assert set(cells(page, 1)) == {"linear decay"}


def test_watch_writes_and_the_page_follows(browser, tmp_path):
    write_sweep(tmp_path, valley, grid=(0, 0.1), seeds=range(2))
    command = [sys.executable, "-m", "ls_lightning.report", str(tmp_path), "figures=none", "watch=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "COLUMNS": "200"}) as process:
        try:
            while b"refreshed every" not in process.stdout.readline():
                pass
            with opened(browser, tmp_path / "report" / "report.html") as page:
                write_job(tmp_path / "new", 0.2, 0, val=measured(0.4), test=measured(0.5))
                (tmp_path / "new" / "metrics.csv").write_text(history(0.2, 0))
                page.get_by_text("5 jobs: 5 complete.").wait_for(timeout=120_000)
                page.get_by_label("load again").uncheck()
        finally:
            process.terminate()
