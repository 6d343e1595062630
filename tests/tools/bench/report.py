"""Writes the figures into docs/performance.md, between two markers, and its charts: no figure there is typed by hand."""

import json
from pathlib import Path

import chart
import goals

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE, DIRECTORY = DOCS / "performance.md", DOCS / "performance"
FIGURES = DIRECTORY / "figures.json"
BEGIN, END = "<!-- written by tests/bench: begin -->\n", "<!-- written by tests/bench: end -->\n"


def known_goals():
    cases = [*goals.LOADS, goals.LATENCY, *goals.TRANSFERS, goals.IDLE, goals.FRESH, goals.START, goals.WORKERS]
    return {case.title: case.goals for case in cases}


def table(rows):
    lines = ["| | " + " | ".join(goals.NAMES.values()) + " | goal of adsproxy |",
             "|---|" + "--:|" * len(goals.NAMES) + "---|"]
    for row in rows:
        cells = {name: f"{chart.number(cell['median'])} {row['unit']}" for name, cell in row["values"].items()}
        medians = {name: cell["median"] for name, cell in row["values"].items()}
        wanted = "; ".join(goals.text(goal, medians) for goal in known_goals()[row["title"]])
        lines.append(f"| {row['title']} | " + " | ".join(cells.get(name, "") for name in goals.NAMES) + f" | {wanted} |")
    return lines


def origin(figures):
    machine, versions = figures["machine"], figures["versions"]
    names = {"wrk": "wrk", "rustc": "rustc", **goals.NAMES}
    programs = ", ".join(f"{names[name]} {version}" for name, version in versions.items())
    return [f"Measured on {figures['date']}: {programs}; adsproxy built by `{figures['build']}`. Machine: {machine['cpu']}, "
            f"{machine['cpus']} CPUs, {machine['memory_gib']} GiB,", f"{machine['kernel']}. Medians of {figures['rounds']} "
            f"rounds; of load: {figures['secs']} s each. "
            "[performance/figures.json](performance/figures.json) has the least and the most, too."]


def section(figures):
    """What stands between the markers."""
    lines = [*origin(figures), "", *table(figures["rows"]), ""]
    for name, (title, _, _) in goals.CHARTS.items():
        lines += [f"![{title}](performance/{name}.svg)", ""]
    return "\n".join(lines)


def files(figures):
    """Every file that the figures make, by its path."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = {FIGURES: json.dumps(figures, indent=1, ensure_ascii=False) + "\n",
            PAGE: before + BEGIN + section(figures) + END + after}
    rows = {row["title"]: row for row in figures["rows"]}
    for name, (title, titles, has_one_scale) in goals.CHARTS.items():
        drawn = [rows[one] for one in titles if one in rows]
        made[DIRECTORY / f"{name}.svg"] = chart.draw(title, drawn, goals.NAMES, has_one_scale)
    return made


def write(figures):
    DIRECTORY.mkdir(exist_ok=True)
    for path, text in files(figures).items():
        path.write_text(text)
        print(f"written: {path.relative_to(DOCS.parent)}")


def read():
    return json.loads(FIGURES.read_text())


def check():
    """Whether the page and its charts are what the file of figures gives."""
    other = [path for path, text in files(read()).items() if path.read_text() != text]
    for path in other:
        print(f"{path.relative_to(DOCS.parent)} is not what {FIGURES.relative_to(DOCS.parent)} gives: tests/bench report")
    return not other
