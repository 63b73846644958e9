# SPDX-License-Identifier: BSD-2-Clause
"""Results as a table for people, JSON for programs and a bar chart (SVG) for documents."""
import html
import json
import os
import platform
import statistics
import time

COLOURS = ["#9e9e9e", "#d95f02", "#7570b3", "#e6ab02", "#1b9e77", "#0b5d46"]


def machine(path):
    """Describe where a measurement was made."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
    best, kind = "", "?"
    with open("/proc/self/mounts", encoding="utf-8") as f:
        for line in f:
            _, where, fstype = line.split()[:3]
            if os.path.realpath(path).startswith(where) and len(where) >= len(best):
                best, kind = where, fstype
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "file_system": kind,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "load": os.getloadavg()[0]}


def median(rounds):
    """Merge rounds [{figure: value}] into {figure: median}."""
    names = {n: None for r in rounds for n in r}
    return {n: statistics.median(r[n] for r in rounds if r.get(n) is not None) for n in names if any(r.get(n) is not None for r in rounds)}


def short(value):
    if value is None:
        return "-"
    for limit, unit in ((10_000_000, "M"), (10_000, "k")):
        if abs(value) >= limit:
            return f"{value / {'M': 1e6, 'k': 1e3}[unit]:.0f}{unit}" if value >= 100 * limit / 10 else f"{value / {'M': 1e6, 'k': 1e3}[unit]:.1f}{unit}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def table(results, base=None, goals=None):
    """results: {subject: {figure: value}}. With base, the other columns show their ratio to it as well. goals: {figure: text}, a last column."""
    subjects = list(results)
    figures = list({f: None for s in subjects for f in results[s]})
    rows = [["", *subjects, *(["goal"] if goals else [])]]
    for f in figures:
        row = [f]
        for s in subjects:
            value = results[s].get(f)
            cell = short(value)
            if base and s != base and value is not None and results[base].get(f):
                cell += f" ({value / results[base][f]:.2f})"
            row.append(cell)
        rows.append(row + ([goals.get(f, "")] if goals else []))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))) for r in rows)


def chart(results, title, note, log_floor=None, base=None):
    """A horizontal bar chart as SVG text; with base, bars are ratios to it; logarithmic from log_floor up if given."""
    import math
    subjects = [s for s in results if s != base]
    figures = list({f: None for s in results for f in results[s]})
    left, width, bar, gap = 240, 620, 11, 12

    def value(s, f):
        v = results[s].get(f)
        if v is None:
            return None
        return v / results[base][f] if base and results[base].get(f) else None if base else v
    values = [v for s in subjects for f in figures if (v := value(s, f))]
    top = max(values, default=1)

    def length(v):
        if log_floor:
            return width * max(0.0, math.log(max(v, log_floor) / log_floor) / math.log(max(top, log_floor * 10) / log_floor))
        return width * v / top
    y, out = 58 + 16 * ((len(subjects) + 3) // 4), []
    for f in figures:
        shown = [(s, value(s, f)) for s in subjects if value(s, f) is not None]
        if not shown:
            continue
        out.append(f'<text x="{left - 8}" y="{y + bar * len(shown) / 2 + 4:.0f}" text-anchor="end">{html.escape(f)}</text>')
        for s, v in shown:
            colour = COLOURS[list(results).index(s) % len(COLOURS)]
            out.append(f'<rect x="{left}" y="{y}" width="{max(1.0, length(v)):.1f}" height="{bar - 1}" fill="{colour}"/>'
                       f'<text x="{left + max(1.0, length(v)) + 4:.1f}" y="{y + bar - 2}" class="v">{html.escape(f"{v:.2f}" if base else short(v))}</text>')
            y += bar
        y += gap
    if base:
        one = left + length(1.0)
        out.append(f'<line x1="{one:.1f}" y1="50" x2="{one:.1f}" y2="{y}" stroke="#444" stroke-dasharray="3 3"/>')
    legend = "".join(f'<rect x="{left + 160 * (i % 4)}" y="{40 + 16 * (i // 4)}" width="10" height="10" fill="{COLOURS[list(results).index(s) % len(COLOURS)]}"/>'
                     f'<text x="{left + 14 + 160 * (i % 4)}" y="{49 + 16 * (i // 4)}">{html.escape(s)}</text>' for i, s in enumerate(subjects))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 80}" height="{y + 10}" font-family="sans-serif" font-size="11">'
            f'<style>.v{{font-size:9px;fill:#333}}</style><rect width="100%" height="100%" fill="white"/>'
            f'<text x="8" y="18" font-size="14" font-weight="bold">{html.escape(title)}</text>'
            f'<text x="8" y="33" fill="#555">{html.escape(note)}</text>{legend}{"".join(out)}</svg>\n')


def lines(series, title, note, xlabel, ylabel, log=False):
    """Lines through points as SVG text. series: {subject: [(x, y)]}; log: the y axis is logarithmic."""
    import math
    width, height, left, top = 640, 320, 70, 60

    def up(y):
        return math.log10(max(y, 0.01)) if log else y
    points = [p for v in series.values() for p in v]
    right = max((x for x, _ in points), default=1) or 1
    low = min((up(y) for _, y in points), default=0) if log else 0
    high = max((up(y) for _, y in points), default=1)
    low, high = (math.floor(low), math.ceil(high)) if log else (0, high or 1)
    high = high if high > low else low + 1

    def at(x, y):
        return f"{left + width * x / right:.1f},{top + height * (1 - (up(y) - low) / (high - low)):.1f}"
    ticks = [10.0 ** e for e in range(low, high + 1)] if log else [high * i / 4 for i in range(5)]
    out = []
    for y in ticks:
        place = at(0, y).split(",")[1]
        out.append(f'<line x1="{left}" y1="{place}" x2="{left + width}" y2="{place}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{float(place) + 4:.1f}" text-anchor="end">{short(y)}</text>')
    for i in range(5):
        out.append(f'<text x="{left + width * i / 4:.0f}" y="{top + height + 16}" text-anchor="middle">{short(right * i / 4)}</text>')
    for i, (name, v) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(at(x, y) for x, y in v)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
                   f'<rect x="{left + 110 * i}" y="40" width="10" height="10" fill="{colour}"/><text x="{left + 14 + 110 * i}" y="49">{html.escape(name)}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{top + height + 45}" font-family="sans-serif" font-size="11">'
            f'<rect width="100%" height="100%" fill="white"/><text x="8" y="18" font-size="14" font-weight="bold">{html.escape(title)}</text>'
            f'<text x="8" y="33" fill="#555">{html.escape(note)}</text>{"".join(out)}'
            f'<text x="{left + width / 2:.0f}" y="{top + height + 34}" text-anchor="middle">{html.escape(xlabel)}</text>'
            f'<text x="14" y="{top + height / 2:.0f}" transform="rotate(-90 14 {top + height / 2:.0f})" text-anchor="middle">{html.escape(ylabel)}</text></svg>\n')


def save(out, name, text):
    """Write OUT/name."""
    os.makedirs(out, exist_ok=True)
    with open(f"{out}/{name}", "w", encoding="utf-8") as f:
        f.write(text)
    print(f"{out}/{name}")


def write(out, name, results, info, svg):
    """Write OUT/name.json and OUT/name.svg."""
    os.makedirs(out, exist_ok=True)
    with open(f"{out}/{name}.json", "w", encoding="utf-8") as f:
        json.dump({"machine": info, "results": results}, f, indent=1)
        f.write("\n")
    with open(f"{out}/{name}.svg", "w", encoding="utf-8") as f:
        f.write(svg)
    print(f"\n{out}/{name}.json, {out}/{name}.svg")
