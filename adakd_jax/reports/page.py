"""One HTML file that needs nothing else: style, script and data are inside it."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup

from adakd_jax.reports.answers import exchanges
from adakd_jax.reports.charts import svg
from adakd_jax.reports.curves import charts_of
from adakd_jax.reports.gather import RunRecord
from adakd_jax.reports.sizes import size_charts
from adakd_jax.reports.tables import differences, evaluation_table, facts, headline
from adakd_jax.reports.tokens import passages, token_data
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

_SHOWN_EXCHANGES = 5
_STYLES = ("page.css", "tokens.css")
_SCRIPTS = ("charts.js", "tokens.js")


def render(runs: Sequence[RunRecord]) -> str:
    """The page of some runs.

    Everything that comes from a run is escaped, as text and inside the data for the script. Should
    markup get through in spite of that, the page's policy lets nothing run but its own script and
    lets nothing be fetched.
    """
    script, digest = script_and_digest(_SCRIPTS)
    return (
        environment()
        .get_template("page.html")
        .render(
            title=_title(runs),
            runs=[
                {
                    "name": run.name,
                    "facts": facts(run),
                    "headline": headline(run),
                    "settings": run.settings_text,
                    "commands": [start.get("command", "") for start in run.starts],
                }
                for run in runs
            ],
            charts=[(chart, svg(chart)) for chart in charts_of(runs)],
            table=evaluation_table(runs),
            sizes=[(chart, svg(chart)) for chart in size_charts(runs)],
            exchanges=exchanges(runs),
            shown_exchanges=_SHOWN_EXCHANGES,
            differences=differences(runs),
            passages=passages(runs),
            token_data=token_data(runs),
            style=styles(),
            script=script,
            script_digest=digest,
        )
    )


def environment() -> jinja2.Environment:
    """Where the templates of pages are; what stands in them is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("adakd_jax.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def styles() -> Markup:
    """The style sheet of pages."""
    return Markup("\n".join(map(_asset, _STYLES)))


def script_and_digest(names: Sequence[str]) -> tuple[Markup, str]:
    """Some scripts as one, and what a page's policy has to allow for it."""
    script = "\n".join(map(_asset, names))
    return Markup(script), _digest(script)


def write(page: str, output: str) -> epath.Path:
    """Write the page at once, local or gs://, and its folder if absent.

    Raises:
        ValueError: `output` is a folder.
    """
    path = user_path(output)
    if path.is_dir():
        raise ValueError(f"{output} is a folder; valid: the name of a file, as {path}/report.html")
    write_whole(path, page)
    return path


def _title(runs: Sequence[RunRecord]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs compared"
    teacher = runs[0].story.get("teacher")
    return f"{teacher.rsplit('/', 1)[-1]}, distilled" if teacher else runs[0].name


def _asset(name: str) -> str:
    folder: Any = resources.files("adakd_jax.reports")
    return (folder / "templates" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """What the page's policy allows, as CSP names it."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
