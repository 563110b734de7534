"""report.html as text: nothing from outside, nothing of the user's unescaped, numbers that are those of the jobs."""

import json
import re
import statistics
from html.parser import HTMLParser
from importlib.util import find_spec

import pytest
from job_folders import bins, measured, write_job, write_sweep

from ls_lightning.report import __main__ as report

EVIL = "</script><script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'>&amp;"
VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """Tags with their attributes, the text of every script, and the text outside of scripts and styles."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.scripts, self.words, self.open = [], {}, [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []
        self.data = json.loads(self.scripts["data"])
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "script":
            self.scripts[attributes.get("id", "code")] = data
        elif tag != "style":
            self.words.append(data)


def make(folder, capsys, *words):
    assert report.main([str(folder), "figures=none", *words]) == 0
    return Page(folder / "report" / "report.html"), capsys.readouterr().out


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path / "sweep", lambda eps: 0.5 + 20 * (eps - 0.1) ** 2, seeds=range(3), noise=0.01)


def test_the_answer_and_every_group_are_there(sweep, capsys):
    page, out = make(sweep, capsys)
    assert "report:report.html,report.md,sweep.csv" in "".join(out.split())  # a long path is broken anywhere
    answer = re.search(r"^eps 0\.1: ECE .*", out, re.MULTILINE)[0].replace("->", "→")
    assert answer in page.text
    assert "9 jobs: 9 complete." in page.text
    rows = [attributes for tag, attributes in page.tags if tag == "tr" and "data-group" in attributes]
    assert [row["class"] for row in rows] == ["plain", "scaled"] * 2 + ["plain chosen", "scaled"] + ["plain"] * 2
    assert [group["eps"] for group in page.data["groups"]] == [0, 0.05, 0.1]


def test_nothing_comes_from_outside(sweep, capsys):
    page, _ = make(sweep, capsys)
    assert {value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")} == {
        "#main"
    }
    assert not {"link", "img", "iframe"} & {tag for tag, _ in page.tags}
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert (sweep / "report" / "report.html").read_bytes().isascii(), "the same in every encoding"


def test_numbers_are_those_of_the_jobs(sweep, capsys):
    page, _ = make(sweep, capsys, "level=0.9")
    for group in page.data["groups"]:
        found = [json.loads(path.read_text()) for path in sorted(sweep.glob("*/result.json"))]
        jobs = [result for result in found if result["eps"] == group["eps"]]
        for kind, metrics in (
            ("plain", [job["metrics"]["test"] for job in jobs]),
            ("scaled", [job["temperature"]["metrics"]["test"] for job in jobs]),
        ):
            for key, scale in (("acc", 100), ("nll", 1), ("ece", 100), ("gap", 100)):
                values = [scale * one[key] for one in metrics]
                mean, half = group[kind][key]
                assert mean == pytest.approx(statistics.fmean(values), rel=1e-4)
                # t(0.95, 2) of a table
                assert half == pytest.approx(2.91999 * statistics.stdev(values) / 3**0.5, rel=1e-4)
        one = bins()
        assert group["bins"] == [[3 * n for n in one["counts"]], one["confidence"], one["accuracy"]]
        assert group["epsCurve"] == [[0, 39], [group["eps"]] * 2]
        assert group["T"] == 1.5


def test_the_curve_of_a_schedule_keeps_its_corners(tmp_path, capsys):
    job = write_job(tmp_path / "0", 0.1, schedule="linear", val=measured(0.5), test=measured(0.5))
    values = [0.1 if k < 50 else 0.1 * (99 - k) / 49 for k in range(100)]
    (job / "metrics.csv").write_text("step,ls/eps\n" + "".join(f"{k},{v}\n" for k, v in enumerate(values)))
    steps, kept = make(tmp_path, capsys)[0].data["groups"][0]["epsCurve"]
    assert len(steps) < 6
    for k, value in enumerate(values):
        right = next(i for i, step in enumerate(steps) if step >= k)
        left = max(0, right - 1)
        share = (k - steps[left]) / max(1, steps[right] - steps[left])
        assert kept[left] + share * (kept[right] - kept[left]) == pytest.approx(value, abs=1e-3)


def test_what_the_user_wrote_is_text(sweep, capsys):
    failed = write_job(sweep / "failed", 0.1, 7)
    (failed / "result.json").unlink()
    (failed / "job.log").write_text(f"ValueError: {EVIL}\n")
    (failed / "overrides.yaml").write_text(json.dumps({"overrides": [f"name={EVIL}"], "config": "abc"}))
    for number, named in enumerate(({"loss": "none"}, {"schedule": EVIL})):
        result = json.loads((sweep / "0" / "result.json").read_text()) | {"loss": EVIL, "seed": 50 + number} | named
        (sweep / f"evil{number}").mkdir()
        (sweep / f"evil{number}" / "result.json").write_text(json.dumps(result | {"eps": 0.3}))
    page, _ = make(sweep, capsys)
    assert list(page.scripts) == ["data", "plotly", "code"]
    assert sum(tag == "script" for tag, _ in page.tags) == 3
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in page.tags)
    assert f"ValueError: {EVIL}" in page.text
    assert f"name={EVIL}" in page.text
    assert EVIL in {group["loss"] for group in page.data["groups"]}
    assert EVIL in {group["schedule"] for group in page.data["groups"]}


@pytest.mark.parametrize("left_out", [True, False])
def test_without_html_or_plotly_the_other_forms_are_written(sweep, capsys, monkeypatch, left_out):
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "plotly" else find_spec(name))
    words = ["html=false"] if left_out else []
    assert report.main([str(sweep), "figures=none", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "needs plotly" in line] == ([] if left_out else [report.NO_PLOTLY])
    assert sorted(path.name for path in (sweep / "report").iterdir()) == ["report.md", "sweep.csv"]


def test_a_page_of_watch_loads_itself_again(sweep, capsys, monkeypatch):
    assert make(sweep, capsys)[0].data["refresh"] is None

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", interrupt)
    assert make(sweep, capsys, "watch=7")[0].data["refresh"] == 7


@pytest.mark.parametrize(
    "stages",
    [{"val": measured(0.5)}, {"test": measured(0.5)}, {"val": {"nll": 0.5}}, {"test": {"acc": 0.9}}],
    ids=["validation alone", "test alone", "NLL alone", "accuracy alone"],
)
def test_little_is_enough(tmp_path, capsys, stages):
    for eps in (0, 0.1):
        write_job(tmp_path / str(eps), eps, **stages, reliability={"test": None})
    page, _ = make(tmp_path, capsys)
    assert len(page.data["groups"]) == 2
    assert all(half is None for group in page.data["groups"] for _, half in group["plain"].values())
    assert ("No answer" in page.text) == ("val" not in stages)


def test_an_answer_for_each_setting(sweep, capsys):
    write_sweep(sweep / "noisy", lambda eps: 0.9 - eps, grid=(0, 0.1), seeds=range(3), noise=0.01, label_noise=0.4)
    page, _ = make(sweep, capsys)
    assert [one["name"] for one in page.data["settings"]] == ["data.label_noise=0.0", "data.label_noise=0.4"]
    for one in page.data["settings"]:
        assert page.data["groups"][one["baseline"]]["eps"] == 0
        assert page.data["groups"][one["chosen"]]["eps"] == 0.1
        assert page.text.count(one["name"]) > 1
