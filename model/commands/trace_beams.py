"""`alea trace --beams`: the tree of a beam search, in a terminal, as JSON or as a page."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from model import files
from model.commands.arguments import chosen_seed, given_sampling, load_model
from model.commands.trace import WIDTH, settings, visible

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from model.study.beam_tree import BeamTree, Node

INDENT = 4  # characters a step, rich's


def run(arguments: argparse.Namespace, beams: dict[str, Any]) -> int:
    from model.study.beam_tree import grow
    from samplers import SamplingParams

    if arguments.top is not None:
        raise ValueError("--top is of the stages; --beams shows every candidate of the search")
    sampling = given_sampling(arguments)
    params = SamplingParams(**sampling if arguments.sample else {"temperature": 0.0, **sampling})  # 0: the best
    llama, tokenizer = load_model(arguments)
    seed = chosen_seed(arguments)
    tree = grow(
        llama,
        tokenizer,
        arguments.prompt,
        params,
        seed=seed,
        max_new_tokens=arguments.max_new_tokens,
        **beams,
    )
    if arguments.json:
        print(json.dumps(tree.to_dict(), ensure_ascii=False, allow_nan=False))
    if arguments.html is not None:
        from model.study import beam_page

        page = beam_page.render(tree, settings(arguments, sampling, seed))
        files.write(arguments.html, page, "--html", arguments.overwrite)
        print(f"wrote {arguments.html}: {len(tree.nodes)} candidates", file=sys.stderr)
    if not (arguments.json or arguments.html):
        show(tree)
    return 0


def show(tree: BeamTree) -> None:
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else WIDTH, highlight=False)
    wide = Console(width=console.width + INDENT * tree.steps, highlight=False)  # else rich leaves out what is deep
    wide.print(drawn(tree), no_wrap=True, overflow="ignore", crop=False)
    console.print()
    console.print(texts_table(tree))
    console.print(f"seed {tree.seed}" if tree.is_drawn else tree.remark(), markup=False)


def drawn(tree: BeamTree) -> Tree:
    """The nodes, each the piece, its logprob and the sum; what was pruned is grey."""
    from rich.text import Text
    from rich.tree import Tree

    top = Tree(Text(visible(tree.prompt)), guide_style="dim")
    branches = {tree.root: top}
    for node in tree.root.walk():
        for child in node.children:
            branches[child] = branches[node].add(label(tree, child))
    return top


def label(tree: BeamTree, node: Node) -> Text:
    from rich.text import Text

    beam = node.beam
    style = "dim" if beam.fate == "pruned" else "bold" if node.leads_to else ""
    text = Text(visible(tree.piece(beam.token)), style=style)
    text.append(f"  {beam.logprob:.2f}  Σ {beam.total:.2f}", style="" if style == "bold" else style)
    if node.is_greedy:
        text.append("  greedy", style="yellow")
    if ending := tree.ending(node):
        text.append(f"  {ending}", style="bold green" if node.rank else style)
    return text


def texts_table(tree: BeamTree) -> Any:
    """The finished texts, the best first, and the greedy one."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

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
