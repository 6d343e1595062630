"""Draws bars as SVG: one panel a row of the table, one bar a program; text stays text, light and dark follow the reader."""

from html import escape

WIDTH, LABEL, RIGHT = 720, 96, 90
BAR, GAP, TITLE = 16, 6, 26
TOP, FOOT = 44, 12

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 16px; font-weight: 600; }
  .panel { font-weight: 600; }
  .value { font-variant-numeric: tabular-nums; }
  .axis { stroke: #8c959f; stroke-width: 1; }
  .adsproxy { fill: #0969da; } .other { fill: #8c959f; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .axis { stroke: #6e7681; }
    .adsproxy { fill: #4493f8; } .other { fill: #6e7681; }
  }
"""


def number(value):
    """Three digits at least, without decimals from a hundred on."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def panel(row, names, top, largest):
    """The elements of one row and where the next one begins. Its bars are as long as their share of `largest`."""
    parts = [f'<text class="panel" x="0" y="{top + 14}">{escape(row["title"])}, {escape(row["unit"])}</text>']
    top += TITLE
    first = top
    room = WIDTH - LABEL - RIGHT
    for name, cell in row["values"].items():
        length = max(1.0, cell["median"] / largest * room)
        kind = "adsproxy" if name == "adsproxy" else "other"
        middle = top + BAR - 4
        parts += [
            f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(names[name])}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR}"/>',
            f'<text class="value" x="{LABEL + length + 6:.1f}" y="{middle}">'
            f'{number(cell["median"])} {escape(row["unit"])}</text>',
        ]
        top += BAR + GAP
    parts.append(f'<line class="axis" x1="{LABEL}" y1="{first - 3}" x2="{LABEL}" y2="{top - GAP + 3}"/>')
    return parts, top + 8


def draw(title, rows, names, has_one_scale):
    """A chart of rows, whose bars have one scale or each row its own."""
    most = [max(cell["median"] for cell in row["values"].values()) for row in rows]
    parts, top = [], TOP
    for row, own in zip(rows, most):
        more, top = panel(row, names, top, max(most) if has_one_scale else own)
        parts += more
    said = "; ".join(f"{row['title']}: " + ", ".join(
        f"{names[name]} {number(cell['median'])} {row['unit']}" for name, cell in row["values"].items()) for row in rows)
    height = top + FOOT
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 0 {WIDTH + 24} {height}" width="{WIDTH + 24}" '
        f'height="{height}" role="img" aria-labelledby="title what">',
        f'<title id="title">{escape(title)}</title>', f'<desc id="what">{escape(said)}</desc>',
        f"<style>{STYLE}</style>", f'<text class="title" x="0" y="24">{escape(title)}. Less is better.</text>',
        *parts, "</svg>", ""])
