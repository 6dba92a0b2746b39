"""The tree of a beam search: every candidate of every step with its fate, and the greedy text for comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch

from model.decoding.beam_search import Beam, BeamRules, CandidateSelector, Search, beam_search
from model.decoding.beam_texts import to_generation
from model.decoding.options import eos_ids_of
from model.decoding.prompts import new_token_limits, prefill
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers import SamplingParams
from samplers.tracing import asdict_of, finite

GREEDY = SamplingParams(temperature=0.0)


@dataclass(eq=False)
class Node:
    """A token of the tree. Its children are the tokens tried after it, in the search's order.

    beam: the token's numbers and fate. score: of a finished text, else None. rank: of a returned text, 1 for the best,
    else None. leads_to: the rank of the best returned text through this node. is_greedy: on the greedy text.
    """

    beam: Beam
    children: list[Node] = field(default_factory=list)
    score: float | None = None
    rank: int | None = None
    leads_to: int | None = None
    is_greedy: bool = False

    def walk(self) -> Iterator[Node]:
        """This node and all below it, each before its children."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)


@dataclass(frozen=True)
class Text:
    """A whole continuation. total: nats, the sum of logprobs; score: total / len(ids) ** length_penalty."""

    text: str
    ids: list[int]
    logprobs: list[float]
    total: float
    score: float
    finish_reason: str


@dataclass(frozen=True)
class BeamTree:
    """A prompt, the tree that follows it, the finished texts (the best first), and the greedy text.

    params: at T > 0 the beams are drawn with these and the seed; at T = 0 only the penalties count. greedy: None if
    the beams were drawn, since their sums are of other probabilities.
    """

    prompt: str
    rules: BeamRules
    params: SamplingParams
    seed: int
    root: Node
    texts: list[Text]
    greedy: Text | None
    tokenizer: Tokenizer

    @property
    def is_drawn(self) -> bool:
        return self.params.temperature != 0

    def piece(self, token: int) -> str:
        """A token as the vocabulary writes it: `▁time`, `<0x0A>`, `</s>`."""
        return self.tokenizer.pieces([token])[0]

    @property
    def nodes(self) -> list[Node]:
        """Every token of the tree, each before its children."""
        return list(self.root.walk())[1:]

    @cached_property
    def steps(self) -> int:
        return max(node.beam.length for node in self.root.walk())

    def ending(self, node: Node) -> str:
        """The fate of a text that ends at this node; "" if it goes on or was pruned at once."""
        if node.score is not None:
            return f"#{node.rank} score {node.score:.3f}" if node.rank else f"finished, score {node.score:.3f}"
        if node.children or node.beam.fate == "pruned":
            return ""
        return "open at the end" if node.beam.length == self.steps else "given up"

    def remark(self) -> str:
        """Where the best text leaves the greedy one, and which of the two wins; "" without a greedy text."""
        if self.greedy is None:
            return ""
        best, greedy = self.texts[0], self.greedy
        if best.ids == greedy.ids:
            return "The best text is the greedy one."
        step = next(i for i, (a, b) in enumerate(zip(best.ids, greedy.ids, strict=False)) if a != b)
        of_best, of_greedy = (f'"{self.piece(text.ids[step])}" ({text.logprobs[step]:.2f})' for text in (best, greedy))
        scores = f"{best.score:.3f} against {greedy.score:.3f}"
        if best.score < greedy.score:
            end = "the search lost sight of a better one"
        else:
            end = "it begins worse and scores better"
        return f"At step {step + 1} the best text takes {of_best}, greedy {of_greedy}: {end}, {scores}."

    def to_dict(self) -> dict[str, Any]:
        """For JSON. The nodes are one list; each has the index of its parent, None right after the prompt."""
        indices: dict[Beam | None, int] = {node.beam: index for index, node in enumerate(self.nodes)}
        rules = {name: getattr(self.rules, name) for name in ("num_beams", "length_penalty", "early_stopping")}
        params = {n: v for n, v in asdict_of(self.params).items() if v != getattr(SamplingParams(), n)}
        return {
            "prompt": self.prompt,
            "rules": rules | {"candidates": self.rules.candidates},
            "params": finite(params),
            "seed": self.seed if self.is_drawn else None,
            "texts": [dataclasses.asdict(text) for text in self.texts],
            "greedy": None if self.greedy is None else dataclasses.asdict(self.greedy),
            "nodes": [
                {
                    "parent": indices.get(node.beam.parent),
                    "step": node.beam.length,
                    "token": node.beam.token,
                    "piece": self.piece(node.beam.token),
                    "logprob": node.beam.logprob,
                    "model_logprob": node.beam.model_logprob,
                    "total": node.beam.total,
                    "fate": node.beam.fate,
                    "score": node.score,
                    "rank": node.rank,
                    "greedy": node.is_greedy,
                }
                for node in self.nodes
            ],
        }


@torch.inference_mode()
def grow(
    model: Llama,
    tokenizer: Tokenizer,
    prompt: str,
    params: SamplingParams = GREEDY,
    *,
    num_beams: int,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    seed: int = 0,
    max_new_tokens: int = 5,
    eos_token_id: Sequence[int] | None = None,
) -> BeamTree:
    """Search as `generate` does with the same arguments (prompt 0), and keep every candidate.

    params: at T = 0 beam search, with the penalties; above 0 beam sampling. The model's generation_config is not used.
    num_beams: int >= 1. length_penalty, early_stopping: as in `BeamRules`. max_new_tokens: int >= 1. eos_token_id:
    default the model's.
    Raises: ValueError or TypeError naming the argument; ValueError if prompt and continuation exceed the window.

    >>> tree = grow(Llama.from_pretrained(), Tokenizer.from_pretrained(), "The king", num_beams=2, max_new_tokens=3)
    >>> len(tree.nodes), len(tree.texts), [node.beam.fate for node in tree.root.children]
    (12, 2, ['kept', 'kept', 'pruned', 'pruned'])
    """
    ids = tokenizer.encode(prompt)
    (limit,) = new_token_limits([ids], max_new_tokens, None, model.config.max_position_embeddings)
    rules = BeamRules(num_beams, length_penalty, early_stopping, eos_ids_of(model, eos_token_id))
    search = Search(ids, limit, rules)
    root = run_search(model, search, params, seed)
    greedy = None
    if params.temperature == 0:  # greedy decoding is a search with one beam that stops at the first EOS
        greedy_search = Search(ids, limit, dataclasses.replace(rules, num_beams=1, early_stopping=True))
        run_search(model, greedy_search, params)
        (greedy,) = finished_texts(greedy_search, tokenizer)
        mark_greedy(root, greedy.ids)
    return BeamTree(prompt, rules, params, seed, root, finished_texts(search, tokenizer), greedy, tokenizer)


def run_search(model: Llama, search: Search, params: SamplingParams, seed: int = 0) -> Node:
    """Run a search and return the root of the tree of its candidates."""
    root = Node(search.live[0])
    nodes = {root.beam: root}

    def on_step(search: Search, candidates: list[Beam]) -> None:
        for beam in candidates:
            nodes[beam] = Node(beam, score=search.score(beam) if beam.fate == "finished" else None)
            nodes[cast(Beam, beam.parent)].children.append(nodes[beam])

    logits, cache = prefill(model, [search.prompt], len(search.prompt) + search.max_new_tokens)
    selector = CandidateSelector(params, search.rules, model.config.vocab_size, seed)
    beam_search(model, logits, cache, [search], selector, on_step)
    for rank, finished in reversed(list(enumerate(search.finished, 1))):  # the best last: its rank wins
        nodes[finished].rank = rank
        for beam in finished.path():
            nodes[beam].leads_to = rank
    return root


def finished_texts(search: Search, tokenizer: Tokenizer) -> list[Text]:
    texts = []
    for beam in search.finished:
        text = to_generation(search, beam, tokenizer)
        texts.append(Text(text.text, text.ids, text.logprobs, beam.total, search.score(beam), text.finish_reason))
    return texts


def mark_greedy(root: Node, ids: Sequence[int]) -> None:
    """Mark the nodes of the greedy text, as far as the tree has them."""
    node = root
    for token in ids:
        matching = [child for child in node.children if child.beam.token == token]
        if not matching:
            return
        (node,) = matching
        node.is_greedy = True
