"""What peers.py found, as a chart in SVG: for each model a bar per peer, as long as the logarithm of the ratio."""

from html import escape
from math import ceil, floor, log2

COLOURS = ["#1f6feb", "#d29922", "#2da44e", "#8250df"]
LEFT, WIDTH, RIGHT = 210, 640, 30  # names, bars, room for the last label of the axis
TITLE, LEGEND, BAR, GAP = 64, 18, 9, 7  # height of the title, of a peer in the legend, of a bar; space between models
GREY = "#57606a"


def text(x, y, what, size=12, anchor="start", colour="#1f2328"):
    """A line of text."""
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(what)}</text>'


def rectangle(x, y, width, height, colour):
    """A filled rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


class Axis:
    """Logarithms of ratios, from one power of two to another, as positions."""

    def __init__(self, ratios, top, bottom):
        self.top, self.bottom = top, bottom
        self.low = min([-1, *(floor(log2(ratio)) for ratio in ratios)])
        self.high = max([1, *(ceil(log2(ratio)) for ratio in ratios)])

    def at(self, ratio):
        """Where a ratio stands."""
        return LEFT + WIDTH * (log2(ratio) - self.low) / (self.high - self.low)

    def lines(self):
        """A line and a label for every power of two."""
        for power in range(self.low, self.high + 1):
            x, colour = self.at(2.0**power), GREY if power == 0 else "#d8dee4"
            yield f'<line x1="{x:.1f}" y1="{self.top - 4}" x2="{x:.1f}" y2="{self.bottom}" stroke="{colour}"/>'
            yield text(x, self.bottom + 16, f"1/{2**-power}" if power < 0 else f"{2**power}", anchor="middle")


def title(report, peers):
    """What is shown, on what, and which colour is which peer."""
    machine = report["about"]
    yield text(12, 22, "Time of rabot divided by that of each peer: to the left of 1, rabot is faster", 14)
    yield text(12, 42, f"{machine['cpu']}, one thread, {machine['time'][:10]}; {machine['rabot']}", colour=GREY)
    for index, (peer, colour) in enumerate(zip(peers, COLOURS)):
        mean, y = report["means"][peer], TITLE + index * LEGEND
        known = f"geometric mean {mean['mean']:.2f} of {mean['of']} models" if mean["of"] else "no model"
        yield rectangle(12, y - 9, 10, 10, colour)
        yield text(28, y, f"{machine['peers'][peer]}: {known}")


def bars(row, peers, axis, y):
    """The name of a model and its bars."""
    yield text(LEFT - 8, y + len(peers) * BAR / 2 + 4, row["model"], anchor="end")
    for index, (peer, colour) in enumerate(zip(peers, COLOURS)):
        ratio, top = row["ratios"].get(peer), y + index * BAR
        if ratio is None:
            who = "rabot" if row["engines"]["rabot"]["wrong"] else peer
            why = "fails" if "failed" in row["engines"][who] else "is wrong"
            yield text(axis.at(1) + 4, top + BAR - 1, f"{who} {why}", 9, colour=GREY)
            continue
        ends = sorted((axis.at(ratio), axis.at(1)))
        yield rectangle(ends[0], top, ends[1] - ends[0], BAR - 1, colour)


def svg(report):
    """The chart."""
    rows, peers = report["models"], list(report["about"]["peers"])
    step, top = len(peers) * BAR + GAP, TITLE + len(peers) * LEGEND + 6
    bottom = top + len(rows) * step
    axis = Axis([ratio for row in rows for ratio in row["ratios"].values()], top, bottom)
    width, height = LEFT + WIDTH + RIGHT, bottom + 30
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">']
    parts += [rectangle(0, 0, width, height, "#ffffff"), *title(report, peers), *axis.lines()]
    for index, row in enumerate(rows):
        parts += bars(row, peers, axis, top + index * step)
    return "\n".join([*parts, "</svg>\n"])
