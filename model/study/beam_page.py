"""The page of `alea trace --beams --html`: a beam search drawn as a tree, in one file without network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

from model.study.beam_tree import BeamTree, Node, Text
from model.study.page import filled, part

ROW, TOP, GAP = 36, 34, 46  # pixels: height of a row, above the first row, between two columns
CHARACTER, SMALL = 8, 5.8  # pixels: width of a character of a piece, and of the numbers below it
PROMPT_LENGTH = 30  # characters of the prompt shown at the root
ENDING_WIDTH = 150  # pixels right of the last column for the fate of a text
LEGEND = {
    "best": "the best text",
    "returned": "the other finished texts",
    "kept": "kept for some steps",
    "pruned": "pruned at once",
    "greedy": "greedy: the most probable token at every step",
}


def render(tree: BeamTree, settings: Mapping[str, str]) -> str:
    """The page as text.

    settings: for the footer.
    """
    shown = [name for name in LEGEND if name != "greedy" or tree.greedy is not None]
    values = {
        "page.css": part("page.css"),
        "beams.css": part("beams.css"),
        "summary": escape(summary(tree)),
        "length_penalty": f"{tree.rules.length_penalty:g}",
        "added": "its ln p after penalties" + (" and temperature" if tree.is_drawn else ""),
        "texts": "\n".join(text_rows(tree)),
        "remark": escape(tree.remark()),
        "legend": "".join(f'<span><i class="{name}"></i>{LEGEND[name]}</span>' for name in shown),
        "tree": "\n".join(drawing(tree)),
        "settings": "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in settings.items()),
    }
    return filled("beams.html", values)


def summary(tree: BeamTree) -> str:
    kind = "Beam sampling" if tree.is_drawn else "Beam search"
    rules = tree.rules
    stopping = {"False": "no", "True": "yes"}.get(str(rules.early_stopping), "never")
    return (
        f"{kind} with {rules.num_beams} beams, {rules.candidates} candidates a step, {tree.steps} steps; "
        f"length penalty {rules.length_penalty:g}, early stopping: {stopping}."
    )


def text_rows(tree: BeamTree) -> Iterator[str]:
    yield "<thead><tr><th></th><th>score</th><th>sum</th><th>tokens</th><th>text</th></tr></thead><tbody>"
    for rank, text in enumerate(tree.texts, 1):
        yield text_row("first" if rank == 1 else "", f"#{rank}", tree.prompt, text)
    if tree.greedy is not None:
        yield text_row("greedy", "greedy", tree.prompt, tree.greedy)
    yield "</tbody>"


def text_row(css_class: str, name: str, prompt: str, text: Text) -> str:
    numbers = f"<td>{text.score:.3f}</td><td>{text.total:.2f}</td><td>{len(text.ids)}</td>"
    whole = f'<span class="prompt">{escape(prompt)}</span>{escape(text.text)}'
    return f'<tr><td class="{css_class}">{name}</td>{numbers}<td>{whole}</td></tr>'


class Layout:
    """The place of each node, in pixels. Each step has a column, each leaf a row; a parent is in its first child's row.

    The best text is in the top row, which is visible however large the tree is.
    left: the left edge of each column, the prompt's at 0. right: the right edge of each node's text. y: the middle of
    each node's row.
    """

    def __init__(self, tree: BeamTree) -> None:
        nodes = list(tree.root.walk())
        self.y: dict[Node, float] = {}
        for row, leaf in enumerate(leaves(tree.root)):
            self.y[leaf] = TOP + row * ROW + ROW / 2
        for node in reversed(nodes):  # children before their parents
            if node.children:
                self.y[node] = min(self.y[child] for child in node.children)
        self.left, self.right = [0.0], {tree.root: float(CHARACTER * len(prompt_end(tree.prompt)))}
        for step in range(1, tree.steps + 1):
            self.left.append(max(x for node, x in self.right.items() if node.beam.length == step - 1) + GAP)
            for node in nodes:
                if node.beam.length == step:
                    self.right[node] = self.left[step] + text_width(tree, node)
        self.width = max(self.right.values()) + ENDING_WIDTH
        self.height = TOP + ROW * sum(not node.children for node in nodes)


def leaves(root: Node) -> Iterator[Node]:
    """From the top. Children are ordered by the best text that they lead to, then by the search's order."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not node.children:
            yield node
        waiting += sorted(node.children, key=lambda child: child.leads_to or math.inf)[::-1]


def prompt_end(prompt: str) -> str:
    """The end of a prompt, on one line.

    >>> prompt_end("Once upon a time there was a king who had three\\nsons")
    '… was a king who had three sons'
    """
    line = " ".join(prompt.split())
    return line if len(line) <= PROMPT_LENGTH else "… " + line[-PROMPT_LENGTH:].partition(" ")[2]


def text_width(tree: BeamTree, node: Node) -> float:
    return max(CHARACTER * len(tree.piece(node.beam.token)), SMALL * len(logprobs_text(node)))


def logprobs_text(node: Node) -> str:
    return f"{node.beam.logprob:.2f}  Σ {node.beam.total:.2f}"


def drawing(tree: BeamTree) -> Iterator[str]:
    """The tree as SVG."""
    layout = Layout(tree)
    width, height = f"{layout.width:g}", f"{layout.height:g}"
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    yield f'<svg class="tree" {size} role="img" aria-label="the tree of candidates">'
    for step in range(1, tree.steps + 1):
        yield f'<text class="step" x="{layout.left[step]:g}" y="14">step {step}</text>'
    for parent in tree.root.walk():
        for child in sorted(parent.children, key=importance, reverse=True):  # the best on top
            yield edge(layout, parent, child, kind(child))
            if child.is_greedy:
                yield edge(layout, parent, child, "greedy")
    yield f'<text x="0" y="{layout.y[tree.root] + 4:g}">{escape(prompt_end(tree.prompt))}</text>'
    for node in tree.nodes:
        yield token_box(layout, tree, node)
    yield "</svg>"


def kind(node: Node) -> str:
    """The node's entry in LEGEND."""
    if node.leads_to is not None:
        return "best" if node.leads_to == 1 else "returned"
    return "pruned" if node.beam.fate == "pruned" else "kept"


def importance(node: Node) -> int:
    return list(LEGEND).index(kind(node))


def edge(layout: Layout, parent: Node, child: Node, css_class: str) -> str:
    """A curve from the right side of a node to the left side of its child."""
    step = child.beam.length
    x0, x1, y0, y1 = layout.right[parent] + 4, layout.left[step] - 6, layout.y[parent], layout.y[child]
    middle = (x0 + x1) / 2
    return f'<path class="{css_class}" d="M{x0:g} {y0:g}C{middle:g} {y0:g} {middle:g} {y1:g} {x1:g} {y1:g}"/>'


def token_box(layout: Layout, tree: BeamTree, node: Node) -> str:
    """A token: its piece, its numbers, and the fate of a text that ends here."""
    beam = node.beam
    x, y, right = layout.left[beam.length], layout.y[node], layout.right[node]
    ending = tree.ending(node)
    after = f'<text class="ending" x="{right + 8:g}" y="{y + 4:g}">{escape(ending)}</text>' if ending else ""
    return (
        f'<g class="{kind(node)}"><title>{escape(tooltip(tree, node))}</title>'
        f'<rect x="{x - 4:g}" y="{y - ROW / 2 + 1:g}" width="{right - x + 6:g}" height="{ROW - 2}" rx="4"/>'
        f'<text class="piece" x="{x:g}" y="{y - 1:g}">{escape(tree.piece(beam.token))}</text>'
        f'<text class="numbers" x="{x:g}" y="{y + 12:g}">{logprobs_text(node)}</text>{after}</g>'
    )


def tooltip(tree: BeamTree, node: Node) -> str:
    beam = node.beam
    lines = [
        f"{tree.piece(beam.token)} (id {beam.token}), step {beam.length}: {beam.fate}",
        f"p under the model {math.exp(beam.model_logprob):.4f}, ln p {beam.model_logprob:.4f}",
        f"added to the sum {beam.logprob:.4f}, sum {beam.total:.4f}",
    ]
    if node.score is not None:
        lines.append(f"score {node.score:.4f}" + (f", rank {node.rank}" if node.rank else ""))
    if node.is_greedy:
        lines.append("on the greedy text")
    return "\n".join(lines)
