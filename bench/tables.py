"""What peers.py found, in Markdown."""


def cell(figures, key, form):
    """A figure of an engine, or why there is none."""
    if "failed" in figures:
        return "fails"
    text = "-" if figures[key] is None else format(figures[key], form)
    return f"{text} (wrong)" if figures["wrong"] and key in ("median_ms", "error") else text


def line(cells):
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def heading(columns):
    """The first two rows of a table: the first column is text, the others are numbers."""
    yield line(columns)
    yield "|---|" + "---:|" * (len(columns) - 1)


def ratio(value):
    """A ratio, if there is one."""
    return "-" if value is None else f"{value:.2f}"


def times(report, peers):
    """Times of a run, and their ratios."""
    names = ["rabot", *peers]
    to_fastest = ["to the fastest"] if len(peers) > 1 else []
    yield from heading(["model", *(f"{name} ms" for name in names), *(f"to {peer}" for peer in peers), *to_fastest])
    for row in report["models"]:
        cells = [cell(row["engines"][name], "median_ms", ".3f") for name in names]
        cells += [ratio(row["ratios"].get(peer)) for peer in peers]
        yield line([row["model"], *cells, *([ratio(row["ratio_to_fastest"])] if to_fastest else [])])
    means = [report["means"][peer] for peer in peers] + ([report["mean_to_fastest"]] if to_fastest else [])
    cells = [f"**{ratio(mean['mean'])}** ({mean['of']})" for mean in means]
    yield line(["geometric mean (of how many models)", *[""] * len(names), *cells])


def figures(report, peers, key, form):
    """A figure of every engine."""
    names = ["rabot", *peers]
    yield from heading(["model", *names])
    for row in report["models"]:
        yield line([row["model"], *(cell(row["engines"][name], key, form) for name in names)])


def remarks(report):
    """Everything that is missing from the tables, and why."""
    for row in report["models"]:
        for name, figures in row["engines"].items():
            if reason := figures.get("failed") or figures["wrong"]:
                what = "fails" if "failed" in figures else "is wrong"
                yield f"- {row['model']}: {name} {what}, and is left out of means: {reason}"
        if row["no_reference"]:
            yield f"- {row['model']}: no outputs in float64, so errors are not known: {row['no_reference']}"
    for name, reason in report["failed"].items():
        yield f"- {name}: not measured: {reason}"


def empty_memory(report, peer):
    """Memory of a peer's process before it loads a model."""
    found = [row["engines"][peer].get("empty_rss_mb") for row in report["models"]]
    return next((f"{peer} {mb:.0f}" for mb in found if mb is not None), None)


def tables(report):
    """The lines of all tables, with what has to be known to read them."""
    machine = report["about"]
    peers = list(machine["peers"])
    versions = ", ".join(machine["peers"].values())
    yield f"{machine['cpu']}, CPU {machine['pinned_to']}, one thread; {machine['time'][:10]}."
    yield f"{machine['rabot']} against {versions}; medians of {machine['rounds']} interleaved rounds of"
    yield f"{machine['seconds']:g} s each. Ratios: rabot's time divided by the peer's; below 1, rabot is faster."
    yield ""
    yield from times(report, peers)
    yield from ["", "Milliseconds from the file to what can run:", ""]
    yield from figures(report, peers, "compile_ms", ".1f")
    empty = ", ".join(filter(None, (empty_memory(report, peer) for peer in peers))) or "none"
    yield from ["", f"Peak memory in MB; of that, Python before there is a model: {empty}", ""]
    yield from figures(report, peers, "peak_rss_mb", ".0f")
    yield from ["", "Error: largest difference from outputs in float64, divided by the largest of these:", ""]
    yield from figures(report, peers, "error", ".1e")
    found = list(remarks(report))
    if found:
        yield from ["", *found]
