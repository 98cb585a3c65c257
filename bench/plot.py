# Plots as SVG, without scripts: lines over time and bars beside each other. Text and axes take the page's own colour, so that they are
# read on white and on black alike; curves differ by colour and by dashes. A plot is a dict, as it stands in the JSON beside the page:
#   {"kind": "lines", "title", "x": "time, s", "y": "MB/s", "series": [{"name", "points": [[x, y], ...]}, ...],
#    "marks": [[x, text], ...], "goal": [y, text], "log": bool, "y_max": number}      the last four may be missing
#   {"kind": "bars", "title", "y": "MB/s", "names": [of each group], "series": [{"name", "values": [of each group]}, ...], "goal"}
# A y of None is a gap.
import html
import math

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, BOTTOM = 62, 16, 46
# Of middle lightness, told apart by most who see few colours; dashes tell the rest.
COLOURS = ["#2f86d6", "#e07b00", "#0f9d6b", "#d6477b", "#9467d8", "#8a8f1d", "currentColor"]
DASHES = ["", "9 3", "3 3", "12 3 3 3", "6 2 1 2", "1 3", "15 4"]
GOAL = 'stroke="currentColor" stroke-opacity="0.75" stroke-width="1.4" stroke-dasharray="2 3"'
FAINT = 'stroke="currentColor" stroke-opacity="0.18"'


def escape(text):
    return html.escape(str(text), quote=True)


def label(x, y, text, anchor="start", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>'


def rule(x1, y1, x2, y2, style):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def nice_ticks(low, high, most=6):
    """Multiples of 1, 2 or 5 times a power of ten that cover low to high."""
    span = (high - low) or 1.0
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(m for m in (1, 2, 5, 10, 20) if span / (step * m) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def decades(low, high):
    return [10.0 ** n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


class Scale:
    """From values to places; logarithmic if asked for."""

    def __init__(self, ticks, start, end, log=False):
        self.ticks, self.start, self.end, self.log = ticks, start, end, log

    def __call__(self, value):
        low, high = self.ticks[0], self.ticks[-1]
        value = min(max(value, low), high)
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (self.end - self.start) * (value - low) / ((high - low) or 1.0)


def legend(plot):
    """Rows of samples with names, and where the plot may begin below them."""
    samples = []  # what draws it at x, y; the name
    for n, s in enumerate(plot["series"]):
        colour, dash = COLOURS[n % len(COLOURS)], DASHES[n % len(DASHES)]
        if plot["kind"] == "lines":
            style = f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"'
            samples.append((lambda x, y, style=style: rule(x, y - 4, x + 24, y - 4, style), s["name"]))
        elif len(plot["series"]) > 1:
            samples.append((lambda x, y, colour=colour: f'<rect x="{x + 10:.1f}" y="{y - 10}" width="12" height="12" fill="{colour}"/>',
                            s["name"]))
    if plot.get("goal"):
        samples.append((lambda x, y: rule(x, y - 4, x + 24, y - 4, GOAL), plot["goal"][1]))
    parts, x, y = [], LEFT, 40
    for sample, name in samples:
        width = 28 + 6.8 * len(name) + 14
        if x + width > WIDTH - RIGHT and x > LEFT:
            x, y = LEFT, y + 18
        parts += [sample(x, y), label(x + 28, y, name)]
        x += width
    return parts, y + 14


def y_axis(scale, title, top):
    parts = []
    for tick in scale.ticks:
        y = scale(tick)
        parts.append(rule(LEFT, y, WIDTH - RIGHT, y, FAINT))
        parts.append(label(LEFT - 6, y + 4, f"{tick:g}", "end"))
    middle = (top + HEIGHT - BOTTOM) / 2
    parts.append(label(14, middle, title, "middle", f'transform="rotate(-90 14 {middle:.1f})"'))
    return parts


def frame(title, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            f'aria-label="{escape(title)}" font-family="sans-serif" font-size="12" fill="currentColor">'
            + label(LEFT, 18, title, extra='font-size="13" font-weight="bold"') + "".join(parts) + "</svg>")


def curve(points, x, y, n):
    """A gap in the values is one in the curve."""
    parts, run = [], []
    for px, py in [*points, [0, None]]:
        if py is not None:
            run.append(f"{x(px):.1f},{y(py):.1f}")
            continue
        if run:
            parts.append(" ".join(run if len(run) > 1 else run * 2))
        run = []
    colour, dash = COLOURS[n % len(COLOURS)], DASHES[n % len(DASHES)]
    path = "".join("M" + part.replace(" ", "L") for part in parts)
    return (f'<path class="curve" d="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round" '
            f'stroke-dasharray="{dash}"/>')


def y_scale(values, plot, top):
    high = max([plot.get("y_max") or 0, plot["goal"][0] if plot.get("goal") else 0, *values]) or 1.0
    if plot.get("log"):
        positive = [v for v in [*values, high] if v > 0]
        positive += [plot["goal"][0]] if plot.get("goal") else []
        ticks = decades(min(positive), max(max(positive), min(positive) * 1.0001))
    else:
        ticks = nice_ticks(0, high)
    return Scale(ticks, HEIGHT - BOTTOM, top, plot.get("log", False))


def lines(plot):
    parts, top = legend(plot)
    top += 14 if plot.get("marks") else 0
    points = [p for s in plot["series"] for p in s["points"]]
    xs = [p[0] for p in points] + [m[0] for m in plot.get("marks", [])] or [0.0, 1.0]
    y = y_scale([p[1] for p in points if p[1] is not None], plot, top)
    x = Scale([0 if 0 < min(xs) < max(xs) / 4 else min(xs), max(xs)], LEFT, WIDTH - RIGHT)
    parts += y_axis(y, plot["y"], top)
    for tick in [t for t in nice_ticks(x.ticks[0], x.ticks[1], 10) if x.ticks[0] <= t <= x.ticks[1]]:
        parts.append(label(x(tick), HEIGHT - BOTTOM + 16, f"{tick:g}", "middle"))
        parts.append(rule(x(tick), HEIGHT - BOTTOM, x(tick), HEIGHT - BOTTOM + 4, 'stroke="currentColor"'))
    parts.append(label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, plot["x"], "middle"))
    parts.append(rule(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, 'stroke="currentColor"'))
    for at, text in plot.get("marks", []):
        parts.append(rule(x(at), top, x(at), HEIGHT - BOTTOM, 'stroke="currentColor" stroke-opacity="0.5" stroke-dasharray="4 4"'))
        parts.append(label(x(at) + 3, top - 4, text, extra='font-size="11"'))
    if plot.get("goal"):
        parts.append(rule(LEFT, y(plot["goal"][0]), WIDTH - RIGHT, y(plot["goal"][0]), GOAL))
    parts += [curve(s["points"], x, y, n) for n, s in enumerate(plot["series"])]
    return frame(plot["title"], parts)


def bars(plot):
    parts, top = legend(plot)
    y = y_scale([v for s in plot["series"] for v in s["values"] if v is not None], plot, top)
    parts += y_axis(y, plot["y"], top)
    width = (WIDTH - RIGHT - LEFT) / max(len(plot["names"]), 1)
    bar = 0.76 * width / len(plot["series"])
    for g, name in enumerate(plot["names"]):
        left = LEFT + width * (g + 0.12)
        parts.append(label(LEFT + width * (g + 0.5), HEIGHT - BOTTOM + 18, name, "middle"))
        for n, s in enumerate(plot["series"]):
            value = s["values"][g]
            if value is None:
                continue
            at, colour = left + bar * n, COLOURS[n % len(COLOURS)]
            parts.append(f'<rect class="bar" x="{at:.1f}" y="{y(value):.1f}" width="{max(bar - 2, 1):.1f}" '
                         f'height="{HEIGHT - BOTTOM - y(value):.1f}" fill="{colour}"/>')
            if bar > 24:
                parts.append(label(at + bar / 2 - 1, y(value) - 4, f"{value:.3g}", "middle", 'font-size="10.5"'))
    parts.append(rule(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, 'stroke="currentColor"'))
    if plot.get("goal"):
        parts.append(rule(LEFT, y(plot["goal"][0]), WIDTH - RIGHT, y(plot["goal"][0]), GOAL))
    return frame(plot["title"], parts)


def svg(plot):
    return {"lines": lines, "bars": bars}[plot["kind"]](plot)
