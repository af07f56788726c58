"""Draws the benchmark's chart as SVG: bars of medians, a panel a question."""

PANELS = [
    ("SOCKS download, CPU s/GB", "socks", "get1 CPU s/GB"),
    ("SOCKS upload, CPU s/GB", "socks", "put1 CPU s/GB"),
    ("CPU us a new connection", "rate", "CPU us a connection"),
    ("1000 idle SOCKS flows, MiB", "memory", "1000 idle MiB"),
    ("tun 1500 download, CPU s/GB", "tun 1500", "get1 CPU s/GB"),
    ("tun 1500 upload, CPU s/GB", "tun 1500", "put1 CPU s/GB"),
    ("tun 9000 download, CPU s/GB", "tun 9000", "get1 CPU s/GB"),
    ("tun 9000 upload, CPU s/GB", "tun 9000", "put1 CPU s/GB"),
    ("tun 1500 download, Gbit/s (more is better)", "tun 1500", "get1 Gbit/s"),
    ("tun 9000 upload, Gbit/s (more is better)", "tun 9000", "put1 Gbit/s"),
    ("KiB an idle tun flow", "idle", "KiB an idle flow"),
    ("wake-ups in 10 s, 1000 idle flows", "idle", "wake-ups in 10 s"),
]
COLOURS = {"ours": "#1f6feb"}
WIDTH, PANEL, ROW, COLUMNS = 880, 440, 18, 2


def draw(medians):
    """The chart as SVG text; a panel without figures is left out."""
    panels = [(title, medians[part][key]) for title, part, key in PANELS if key in medians.get(part, {})]
    out, y = [], 10
    for index in range(0, len(panels), COLUMNS):
        line = panels[index : index + COLUMNS]
        for column, (title, row) in enumerate(line):
            out.append(panel(column * PANEL + 10, y, title, row))
        y += 34 + ROW * max(len(row) for _, row in line)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">'
    return head + f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>' + "".join(out) + "</svg>\n"


def panel(x, y, title, row):
    """One panel: a title, and a bar for each candidate."""
    most = max(row.values()) or 1
    out = [f'<text x="{x}" y="{y + 12}" font-weight="bold" fill="#24292f">{title}</text>']
    for index, (who, value) in enumerate(row.items()):
        top, length = y + 20 + index * ROW, max(1, value / most * 200)
        out.append(f'<text x="{x}" y="{top + 11}" fill="#57606a">{who}</text>')
        out.append(f'<rect x="{x + 120}" y="{top + 1}" width="{length:.1f}" height="{ROW - 5}" fill="{COLOURS.get(who, "#afb8c1")}"/>')
        out.append(f'<text x="{x + 126 + length:.1f}" y="{top + 11}" fill="#24292f">{value:.2f}</text>')
    return "".join(out)
