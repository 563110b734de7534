"""report.html: the whole report as one file that opens offline."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import time
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from string import Template

from ls_lightning.report.content import Report
from ls_lightning.report.html_data import figure_data
from ls_lightning.report.html_table import difference_table, glance_table, left_out_table, mean_table, minus
from ls_lightning.sweep.table import stage_of

_PAGE = Path(__file__).parent / "page"
_SCRIPTS = (  # each knows those before it
    *("state", "words", "tables", "filters", "look", "legend"),
    *("against_eps", "pareto", "over_training", "reliability", "risk", "side_by_side", "main"),
)


def html_report(report: Report, refresh: float | None = None) -> str:
    """The text of ``report.html``.

    Nothing is fetched: styles, scripts, numbers and plotly.js, compressed, are inside, and a content security policy
    forbids the rest. Without JavaScript the answer and the tables are still there. The text is ASCII, so that it reads
    the same in whatever encoding it is written or served.

    Args:
        report: what it says.
        refresh: seconds after which the page loads itself again; None for a report that stays as it is.

    Raises:
        ModuleNotFoundError: plotly is not installed.
    """
    data = json.dumps({**figure_data(report), "refresh": refresh}, allow_nan=False, separators=(",", ":"))
    stage, level = stage_of(report.groups), report.level
    words = {
        "title": escape(report.answers[0][1] if report.answers else "No answer"),
        "answers": "\n".join(_answer(report, *answer) for answer in report.answers),
        "counts": escape(report.counts),
        "stage": stage,
        "level": f"{100 * level:g}",
        "spread": report.spread,
        "means": mean_table(report.groups, report.measures, list(report.choices.values()), level),
        "differences": difference_table(report.groups, report.measures, level),
        "left_out": left_out_table(report.left_out),
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    code = {
        "nonce": hashlib.sha256(data.encode()).hexdigest()[:32],
        "style": (_PAGE / "report.css").read_text(encoding="utf-8"),
        "script": "\n".join((_PAGE / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS),
        "data": data.replace("<", "\\u003c"),  # so that no text in it ends the script
        "plotly": _packed_plotly(),
    }
    ascii_words = {name: text.encode("ascii", "xmlcharrefreplace").decode() for name, text in words.items()}
    return Template((_PAGE / "report.html").read_text(encoding="utf-8")).substitute(ascii_words, **code)


@cache
def _packed_plotly() -> str:
    """plotly.js as gzip in base64, 2 MB instead of 5; from the installed package, without importing it."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("report.html needs plotly: pip install 'ls-lightning[report]'.", name="plotly")
    script = (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, mtime=0)).decode()


def _answer(report: Report, setting: str, title: str, paragraphs: list[str]) -> str:
    named = f'<p class="setting">{escape(setting)}</p>' if setting else ""
    choice = report.choices.get(setting)
    glance = "" if choice is None else glance_table(choice, report.level)
    reasons = "".join(map(_paragraph, paragraphs))
    return f'<article>{named}<h2>{_prose(title)}</h2><div class="why"><div>{reasons}</div>{glance}</div></article>'


def _paragraph(paragraph: str) -> str:
    text, *command = paragraph.split("\n")
    lines = escape("\n".join(command))
    return f"<p>{_prose(text)}</p>" + (f"<pre><code>{lines}</code></pre>" if command else "")


def _prose(text: str) -> str:
    return escape(minus(text).replace(" -> ", " → "))
