"""The tree of a beam search in the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from model.commands.terminal import console, piece_text
from model.study.beam_tree import BeamTree, Node

INDENT = 4  # columns per step, rich's


def show(tree: BeamTree) -> None:
    out, wide = console(), console()
    wide.width = out.width + INDENT * tree.steps  # else rich omits deep nodes
    wide.print(drawn(tree), no_wrap=True, overflow="ignore", crop=False)
    out.print()
    out.print(texts_table(tree))
    out.print(f"seed {tree.seed}" if tree.is_drawn else tree.remark())


def drawn(tree: BeamTree) -> Tree:
    """A line per node: the piece, its logprob and the sum; pruned nodes are grey."""
    top = Tree(Text(piece_text(tree.prompt)), guide_style="dim")
    branches = {tree.root: top}
    for node in tree.root.walk():
        for child in node.children:
            branches[child] = branches[node].add(label(tree, child))
    return top


def label(tree: BeamTree, node: Node) -> Text:
    beam = node.beam
    style = "dim" if beam.fate == "pruned" else "bold" if node.leads_to else ""
    text = Text(piece_text(tree.piece(beam.token)), style=style)
    text.append(f"  {beam.logprob:.2f}  Σ {beam.total:.2f}", style="" if style == "bold" else style)
    if node.is_greedy:
        text.append("  greedy", style="yellow")
    if ending := tree.ending(node):
        text.append(f"  {ending}", style="bold green" if node.rank else style)
    return text


def texts_table(tree: BeamTree) -> Table:
    """The finished texts, the best first, and the greedy text."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("", "score", "sum", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("text")
    named = [(f"#{rank}", text) for rank, text in enumerate(tree.texts, 1)]
    named += [] if tree.greedy is None else [("greedy", tree.greedy)]
    for name, text in named:
        numbers = (f"{text.score:.3f}", f"{text.total:.2f}", str(len(text.ids)))
        table.add_row(name, *numbers, Text(tree.prompt + text.text))
    return table
