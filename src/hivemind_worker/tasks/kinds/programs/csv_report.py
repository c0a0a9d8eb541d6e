"""The report of a table: one HTML page that needs nothing but itself, for the eye and for the printer."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import drawing
import given

MOST_COLUMNS = 200
"""Columns that the report shows; the summary has all."""

MOST_PLOTS = 50
"""Columns whose plots it shows: one takes 50 ms to draw, as long as a small column takes to be measured."""

MOST_ASSUMPTIONS = 20

_CELL = 120
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5d6878;--line:#dfe4ea;--ground:#f6f7f9;--card:#fff;
--bar:#2f6fb3;--warm:#c2562d;--cool:#2f6fb3;--note:#8a5a00;--note-ground:#fff6e0}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#98a3b3;--line:#333b47;--ground:#14181e;--card:#1c222b;
--bar:#6aa5e0;--warm:#e08a63;--cool:#6aa5e0;--note:#f0c060;--note-ground:#2e2716}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px}h3{font-size:16px;margin:0;overflow-wrap:anywhere}
p{margin:6px 0}.soft{color:var(--soft)}
.facts{display:flex;flex-wrap:wrap;gap:10px;margin:18px 0 0;padding:0;list-style:none}
.facts li{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:8px 16px;min-width:110px}
.facts b{display:block;font-size:20px;font-variant-numeric:tabular-nums}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,370px),1fr));gap:14px}
.card,.wide{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px;break-inside:avoid}
.wide{overflow-x:auto;margin:8px 0}
.card header{display:flex;gap:8px;align-items:baseline;justify-content:space-between}
.type{color:var(--soft);font-size:13px;white-space:nowrap}
.note{background:var(--note-ground);color:var(--note);border-radius:5px;padding:3px 8px;font-size:13.5px;margin:6px 0}
dl{display:grid;grid-template-columns:auto 1fr auto 1fr;gap:1px 10px;margin:8px 0;font-size:13.5px}
dt{color:var(--soft)}dd{margin:0;text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:3px 12px 3px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;white-space:nowrap}
th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right}
pre{margin:6px 0;white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px;color:var(--soft)}
svg{max-width:100%;height:auto;display:block;margin-top:6px;overflow:visible}
@media print{body{background:#fff}main{max-width:none;padding:0}}
"""


@dataclass(frozen=True)
class Rows:
    """The first rows of a group-by or a query, and how many there are."""

    names: list[str]
    rows: list[tuple[Any, ...]]
    count: int


def write(summary: dict[str, Any], shown: dict[str, Rows], queries: dict[str, str]) -> None:
    """Write ``report.html``."""
    title = summary["title"] or ", ".join(file["name"] for file in summary["files"][:3]) or "Table"
    body = [_head(title, summary), _assumptions(summary["assumptions"]), _troubles(summary)]
    if "group_by" in shown:
        body.append(_groups(summary["group_by"], shown["group_by"]))
    body += [_answer(name, told, shown.get(name), queries[name]) for name, told in summary["queries"].items()]
    body += [_correlations(summary["correlations"]), _columns(summary), _files(summary["files"])]
    (given.RESULTS / "report.html").write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n",
        encoding="utf-8",
        errors="backslashreplace",
    )


def _head(title: str, summary: dict[str, Any]) -> str:
    cells = summary["rows"] * len(summary["columns"])
    missing = sum(column["missing"] for column in summary["columns"])
    facts = [
        ("rows", f"{summary['rows']:,}"),
        ("columns", f"{len(summary['columns']):,}"),
        ("files", f"{len(summary['files']):,}"),
        ("bytes read", given.size(sum(file["bytes"] for file in summary["files"]))),
        ("cells missing", f"{100 * missing / cells:.2f} %" if cells else "–"),
    ]
    if summary["duplicate_rows"] is not None:
        facts.append(("repeated rows", f"{summary['duplicate_rows']:,}"))
    items = "".join(f'<li><b>{value}</b><span class="soft">{label}</span></li>' for label, value in facts)
    return f'<h1>{html.escape(title)}</h1>\n<ul class="facts">{items}</ul>'


def _assumptions(assumptions: list[str]) -> str:
    """How the files were read, for whoever sees that it is wrong."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in assumptions[:MOST_ASSUMPTIONS])
    more = len(assumptions) - MOST_ASSUMPTIONS
    rest = f'<p class="soft">{more:,} more are in summary.json.</p>' if more > 0 else ""
    return f'<h2>How it was read</h2><ul class="soft">{items}</ul>{rest}' if items else ""


def _troubles(summary: dict[str, Any]) -> str:
    rejected = summary["rejected"]
    parts = []
    if rejected["rows"]:
        least = "" if rejected["all_counted"] else "At least "
        rows = [(each["file"], each["line"], each["why"], each["text"]) for each in rejected["examples"]]
        parts.append(
            f"<h2>Rows left out</h2><p>{least}{rejected['rows']:,} rows do not fit the table. The first of them:</p>"
            + _table(["file", "line", "why", "text"], rows)
        )
    gaps = sorted(
        (column for column in summary["columns"] if column["missing"]), key=lambda each: -each["missing_percent"]
    )[:30]
    if gaps:
        names, values = [each["name"] for each in gaps], [each["missing_percent"] for each in gaps]
        picture = drawing.bars(names, values, "Missing values in percent, by column", width=620, full=100.0)
        parts.append(f'<h2>Missing values, in percent</h2><div class="wide">{picture}</div>')
    return "\n".join(parts)


def _groups(told: dict[str, Any], rows: Rows) -> str:
    by = ", ".join(told["by"])
    keys = len(told["by"])
    first = rows.rows[:15]
    labels = [" · ".join("(missing)" if each in (None, "") else str(each) for each in row[:keys]) for row in first]
    picture = drawing.bars(labels, [float(row[keys]) for row in first], f"Rows in each group of {by}", width=620)
    return (
        f'<h2>Groups by {html.escape(by)}</h2><div class="wide">{picture}</div>'
        + _table(rows.names, rows.rows)
        + _how_many(rows, told["file"])
    )


def _answer(name: str, told: dict[str, Any], rows: Rows | None, sql: str) -> str:
    head = f"<h2>Query {html.escape(name)}</h2><pre>{html.escape(sql[:4_000])}</pre>"
    if rows is None:
        return f'{head}<p class="note">{html.escape(told["error"])}</p>'
    return head + _table(rows.names, rows.rows) + _how_many(rows, told["file"])


def _how_many(rows: Rows, file: str) -> str:
    some = f"The first {len(rows.rows):,} of {rows.count:,} rows; all" if rows.count > len(rows.rows) else "All rows"
    return f'<p class="soft">{some} are in {html.escape(file)}.</p>'


def _correlations(told: dict[str, Any]) -> str:
    names = told["columns"]
    if len(names) < 2:
        return ""
    left = len(told["left_out"])
    more = f'<p class="soft">{left:,} more number columns are not compared.</p>' if left else ""
    picture = drawing.heat_map(names, told["matrix"], "Pearson correlation of every two number columns")
    return f'<h2>Correlations</h2><div class="wide">{picture}</div>{more}'


def _columns(summary: dict[str, Any]) -> str:
    columns = summary["columns"]
    cards = "\n".join(_card(column, plot=at < MOST_PLOTS) for at, column in enumerate(columns[:MOST_COLUMNS]))
    left = len(columns) - MOST_COLUMNS
    more = f'<p class="soft">{left:,} more columns are told in summary.json.</p>' if left > 0 else ""
    plots = f'<p class="soft">Plots are of the first {MOST_PLOTS}.</p>' if len(columns) > MOST_PLOTS else ""
    return f'<h2>Columns</h2>{plots}\n<div class="grid">\n{cards}\n</div>{more}'


def _card(column: dict[str, Any], *, plot: bool) -> str:
    facts: list[tuple[str, object]] = [
        ("values", column["values"]),
        ("distinct" if column["distinct_exact"] else "distinct ≈", column["distinct"]),
    ]
    if column["missing"]:
        facts.append(("missing", f"{column['missing']:,} ({column['missing_percent']:.3g} %)"))
    facts += [(label, column[label]) for label in ("min", "max", "mean", "std", "zeros", "negative") if label in column]
    for label in ("p05", "median", "p95"):
        if label in column.get("quantiles", {}):
            facts.append((label if column["quantiles_exact"] else f"{label} ≈", column["quantiles"][label]))
    if "shortest" in column:
        facts.append(("length", f"{column['shortest']:,} – {column['longest']:,}"))
    listed = "".join(
        f"<dt>{label}</dt><dd>{html.escape('–' if value is None else drawing.number(value))}</dd>"
        for label, value in facts
    )
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in column["notes"])
    picture = _plot(column) if plot else ""
    return (
        f'<section class="card"><header><h3>{html.escape(column["name"])}</h3>'
        f'<span class="type">{column["type"]}</span></header>{notes}<dl>{listed}</dl>{picture}</section>'
    )


def _plot(column: dict[str, Any]) -> str:
    name = column["name"]
    if drawn := column.get("histogram"):
        out = drawn["below"] + drawn["above"]
        beyond = f'<p class="soft">{out:,} values lie beyond the plot.</p>' if out else ""
        title, whole = f"How the values of {name} are spread", column["type"] == "integer"
        return drawing.histogram(drawn["edges"], drawn["counts"], title, whole=whole) + beyond
    if top := column.get("top"):
        names, counts = [each["value"] for each in top], [float(each["count"]) for each in top]
        return drawing.bars(names, counts, f"The commonest values of {name}")
    return ""


def _files(files: list[dict[str, Any]]) -> str:
    rows = []
    for file in files[:100]:
        mark = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", " ": "space"}
        packed = ", gzip" if file["compressed"] else ""
        rows.append(
            (
                file["name"],
                given.size(file["bytes"]),
                file["rows"],
                file["encoding"] + packed,
                mark.get(file["delimiter"], file["delimiter"]),
                "yes" if file["header"] else "no",
            )
        )
    names = ["file", "size", "rows", "encoding", "delimiter", "header"]
    more = f'<p class="soft">{len(files) - 100:,} more.</p>' if len(files) > 100 else ""
    return "<h2>Files</h2>" + _table(names, rows) + more


def _table(names: list[str], rows: list[tuple[Any, ...]]) -> str:
    right = [all(_is_number(row[at]) for row in rows if row[at] is not None) for at in range(len(names))]
    head = "".join(f"<th{_class(number)}>{html.escape(name)}</th>" for name, number in zip(names, right, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{_class(right[at])}>{_cell(value)}</td>" for at, value in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _class(number: bool) -> str:  # noqa: FBT001 - one of two classes
    return ' class="n"' if number else ""


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float)


def _cell(value: object) -> str:
    if value is None:
        return '<span class="soft">–</span>'
    if isinstance(value, str) and "." in value and _is_number(value):
        value = float(value)
    text = drawing.number(value)
    return html.escape(text if len(text) <= _CELL else text[: _CELL - 1] + "…")
