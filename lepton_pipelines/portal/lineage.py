"""A model's lineage: what it came from and what it became, as a graph of ledger entries, and as a picture.

Columns, from left to right: data products, members' rows, the run, the version, its scores and aliases. The picture is
an SVG of a template; the same graph is a list beside it, for who does not see pictures.
"""

from dataclasses import dataclass

from lepton_pipelines.ledger.history import History
from lepton_pipelines.portal.messages import Lineage, LineageNode

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 220, 64, 60, 18, 8
COLUMNS = {"product": 0, "member": 1, "run": 2, "model": 3, "score": 4, "alias": 4, "offer": 4}


def lineage_of(history: History, name: str, number: int) -> Lineage:
    """Return the graph of a published version."""
    version = history.runs.versions[name, number]
    published = version.published
    run = history.runs.by_id[published.run]
    nodes = [
        LineageNode(
            id="model",
            kind="model",
            title=f"{name} v{number}",
            lines=[f"published by {published.author.organisation}", f"file {published.digest[:12]}…"],
            index=version.index,
        ),
        LineageNode(
            id="run",
            kind="run",
            title=f"run {published.run}",
            lines=[f"{run.trees} trees, {run.state}", f"manifest {run.opened.manifest[:12]}…"],
            index=run.index,
        ),
    ]
    edges = [("run", "model")]
    for member in run.members:
        index, joined = run.joined.get(member, (None, None))
        rows = "rows not told" if joined is None or joined.rows is None else f"{joined.rows:,} rows"
        committed = "did not join" if joined is None else f"commitment {joined.dataset.rpartition(':')[2][:12]}…"
        nodes.append(
            LineageNode(id=f"member {member}", kind="member", title=member, lines=[rows, committed], index=index)
        )
        edges.append((f"member {member}", "run"))
    for (product, grant), given in sorted(history.grants.by_id.items()):
        if published.run in given.used_by:
            ident = f"grant {product} {grant}"
            lines = [f"grant {grant}", given.asked.purpose]
            nodes.append(LineageNode(id=ident, kind="product", title=product, lines=lines, index=given.index))
            edges.append((ident, f"member {product.split('/')[0]}"))
    nodes, edges = _what_became(history, name, number, nodes, edges)
    return Lineage(nodes=nodes, edges=edges)


def _what_became(
    history: History, name: str, number: int, nodes: list[LineageNode], edges: list[tuple[str, str]]
) -> tuple[list[LineageNode], list[tuple[str, str]]]:
    """Add scores, aliases and the offer."""
    published = history.runs.versions[name, number].published
    run = history.runs.by_id[published.run]
    for index, evaluation in run.evaluations:
        passed = f"{sum(evaluation.gates.values())} of {len(evaluation.gates)} gates passed"
        scores = [f"{metric} {score:.3f}" for metric, score in sorted(evaluation.metrics.items())[:1]]
        title = f"scored by {evaluation.author.organisation}"
        nodes.append(LineageNode(id=f"score {index}", kind="score", title=title, lines=[*scores, passed], index=index))
        edges.append(("model", f"score {index}"))
    for (model, alias), holds in sorted(history.runs.aliases.items()):
        if (model, holds) == (name, number):
            nodes.append(LineageNode(id=f"alias {alias}", kind="alias", title=alias, lines=["serves under this name"]))
            edges.append(("model", f"alias {alias}"))
    offered = history.runs.offers.get((f"{published.author.organisation}/{name}", number))
    if offered is not None:
        lines = ["on offer to others", f"card {offered[1].card[:12]}…"]
        nodes.append(LineageNode(id="offer", kind="offer", title=offered[1].offer, lines=lines, index=offered[0]))
        edges.append(("model", "offer"))
    return nodes, edges


@dataclass(frozen=True)
class Box:
    """A node in the picture. x, y: of its upper left corner."""

    node: LineageNode
    x: int
    y: int


@dataclass(frozen=True)
class Picture:
    """Boxes and the curves between them, in pixels."""

    width: int
    height: int
    boxes: list[Box]
    curves: list[str]


def picture(lineage: Lineage) -> Picture:
    """Lay a graph out: a column a kind, each centred."""
    used = sorted({COLUMNS[node.kind] for node in lineage.nodes})
    columns = {column: [n for n in lineage.nodes if COLUMNS[n.kind] == column] for column in used}
    tallest = max(len(nodes) for nodes in columns.values())
    height = 2 * MARGIN + tallest * HEIGHT + (tallest - 1) * GAP_Y
    boxes: dict[str, Box] = {}
    for place, column in enumerate(used):
        nodes = columns[column]
        taken = len(nodes) * HEIGHT + (len(nodes) - 1) * GAP_Y
        for row, node in enumerate(nodes):
            y = (height - taken) // 2 + row * (HEIGHT + GAP_Y)
            boxes[node.id] = Box(node, MARGIN + place * (WIDTH + GAP_X), y)
    curves = [_curve(boxes[one], boxes[other]) for one, other in lineage.edges if one in boxes and other in boxes]
    width = 2 * MARGIN + len(used) * WIDTH + (len(used) - 1) * GAP_X
    return Picture(width, height, list(boxes.values()), curves)


def _curve(one: Box, other: Box) -> str:
    x1, y1, x2, y2 = one.x + WIDTH, one.y + HEIGHT // 2, other.x, other.y + HEIGHT // 2
    middle = (x1 + x2) // 2
    return f"M{x1},{y1} C{middle},{y1} {middle},{y2} {x2 - 7},{y2}"
