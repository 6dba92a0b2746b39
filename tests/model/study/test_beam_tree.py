"""The beam tree. Oracles: `generate` for the texts, sums that add up, an XML parser for the page."""

import json
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import Llama, Tokenizer, generate
from model.cli import main
from model.study import beam_page
from model.study.beam_tree import grow
from samplers import SamplingParams
from tests.conftest import examples

LLAMA, TOKENIZER = Llama.from_pretrained(), Tokenizer.from_pretrained()
SEARCH = dict(num_beams=3, max_new_tokens=6)
COMMAND = ["trace", "-p", "There was once", "--beams", "3", "-n", "6"]


@st.composite
def options(draw):
    beams = dict(num_beams=draw(st.integers(1, 4)), max_new_tokens=draw(st.integers(1, 6)))
    beams |= dict(length_penalty=draw(st.sampled_from([-1.0, 0.0, 1.0, 2.0])), seed=draw(st.integers(0, 99)))
    beams |= dict(early_stopping=draw(st.sampled_from([True, False, "never"])), eos_token_id=[310, 343, 318, 261])
    params = draw(st.sampled_from([dict(temperature=0.0, repetition_penalty=1.2), dict(temperature=1.5, top_k=30)]))
    return beams, SamplingParams(**params)


@examples(40)
@given(options(), st.sampled_from(["The dragon", "There was once"]))
def test_the_sums_add_up_and_every_fate_is_told(given, prompt):
    beams, params = given
    tree = grow(LLAMA, TOKENIZER, prompt, params, **beams)
    count, ends = beams["num_beams"], beams["eos_token_id"]
    by_step: dict[int, list] = {}
    for node in tree.root.walk():
        for child in node.children:
            one = child.beam
            assert one.parent is node.beam and one.total == node.beam.total + one.logprob
            assert one.length == node.beam.length + 1
            assert one.fate != "kept" or one.token not in ends
            assert (child.score is not None) == (one.fate == "finished")
            assert child.score is None or child.score == one.total / one.length ** beams["length_penalty"]
            by_step.setdefault(one.length, []).append(child)
        assert not node.children or node is tree.root or node.beam.fate == "kept"
        if node.children and node.leads_to:
            assert node is tree.root or node.leads_to == min(child.leads_to or 99 for child in node.children)
    assert sorted(by_step) == list(range(1, tree.steps + 1))
    for nodes in by_step.values():
        kept = [node.beam.total for node in nodes if node.beam.fate == "kept"]
        open_sums = [node.beam.total for node in nodes if node.beam.fate == "pruned" and node.beam.token not in ends]
        assert len(nodes) <= tree.rules.candidates and len(kept) <= count
        assert not kept or not open_sums or min(kept) >= max(open_sums)  # the best of the open ones lived on
    ranks = [(node.rank, node.score) for node in tree.nodes if node.rank]
    assert [text.score for text in tree.texts] == [score for _, score in sorted(ranks)]
    assert [text.score for text in tree.texts] == sorted((text.score for text in tree.texts), reverse=True)


@pytest.mark.parametrize("params", [dict(do_sample=False), dict(temperature=1.3, top_k=20, top_p=1.0)])
def test_the_texts_are_those_of_generate(params):
    told = SamplingParams(temperature=0.0) if "do_sample" in params else SamplingParams(**params)
    tree = grow(LLAMA, TOKENIZER, "There was once", told, seed=5, length_penalty=0.5, **SEARCH)
    arguments = SEARCH | params | dict(num_return_sequences=3, length_penalty=0.5, seed=5)
    (row,) = generate(LLAMA, TOKENIZER, "There was once", **arguments)
    for one, text in zip(row, tree.texts, strict=True):
        assert (one.ids, one.text, one.score, one.logprobs) == (text.ids, text.text, text.score, text.logprobs)
        assert one.finish_reason == text.finish_reason


def test_greedy_loses_to_what_began_worse():
    tree = grow(LLAMA, TOKENIZER, "There was once", **SEARCH)
    (greedy,) = generate(LLAMA, TOKENIZER, "There was once", max_new_tokens=6, do_sample=False)[0]
    assert tree.greedy.ids == greedy.ids and tree.greedy.total == pytest.approx(sum(greedy.model_logprobs), abs=1e-4)
    walked = [node.beam.token for node in tree.nodes if node.is_greedy]
    assert 0 < len(walked) < 6 and walked == greedy.ids[: len(walked)]
    first = {node.beam.token: node.beam.total for node in tree.root.children}
    assert first[tree.texts[0].ids[0]] < first[greedy.ids[0]] and tree.texts[0].score > tree.greedy.score
    assert "it begins worse and scores better, -0.592 against -0.848" in tree.remark()
    assert grow(LLAMA, TOKENIZER, "There was once", num_beams=1).remark() == "The best text is the greedy one."


def test_greedy_ends_at_its_first_end():
    """However long the beams go on: the greedy text has no second thoughts."""
    (free,) = generate(LLAMA, TOKENIZER, "There was once", max_new_tokens=6, do_sample=False)[0]
    rules = dict(early_stopping="never", length_penalty=2.0)
    for number, end in enumerate(free.ids, 1):
        tree = grow(LLAMA, TOKENIZER, "There was once", eos_token_id=[end], **rules, **SEARCH)
        assert tree.greedy.ids == free.ids[:number] and tree.greedy.finish_reason == "eos"
        assert tree.greedy.score == tree.greedy.total / number**2


def test_greedy_may_win():
    """Three beams lose sight of the greedy text, whose third token was none of the best, and which ends better."""
    tree = grow(LLAMA, TOKENIZER, "The dragon", **SEARCH)
    assert tree.greedy.score > tree.texts[0].score and tree.greedy.ids not in [text.ids for text in tree.texts]
    assert tree.remark().endswith("the search lost sight of a better one, -1.537 against -1.485.")


def test_printed(capsys):
    assert main(COMMAND) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("There␣was␣once\n├── ▁a  -0.67  Σ -0.67  greedy\n│   ├── ▁man  -1.71  Σ -2.38  greedy\n")
    assert printed.count(" Σ ") == 36 and "▁had  -0.56  Σ -3.46  greedy  given up" in printed
    assert "▁who  -0.29  Σ -3.55  #1 score -0.592" in printed
    assert re.search(r"greedy +-0.848 +-5.09 +6 +There was once a man who had three sons", printed)


@pytest.mark.exhaustive
def test_a_deep_tree_is_printed_whole(capsys):
    """Deeper than the terminal is wide: a line a candidate, none of them cut or wrapped."""
    tree = grow(Llama.from_pretrained(), Tokenizer.from_pretrained(), "The king", num_beams=2, max_new_tokens=50)
    assert main(["trace", "-p", "The king", "--beams", "2", "-n", "50"]) == 0
    lines = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert len(lines) == 1 + len(tree.nodes)
    for line, node in zip(lines[1:], tree.nodes, strict=True):
        assert line.index("── ") == 4 * (node.beam.length - 1) + 1
        assert f"  {node.beam.logprob:.2f}  Σ {node.beam.total:.2f}" in line


def test_json(capsys):
    assert main([*COMMAND, "--json", "--length-penalty", "0", "--early-stopping", "never"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"JSON has no {name}"))
    tree = grow(LLAMA, TOKENIZER, "There was once", length_penalty=0.0, early_stopping="never", **SEARCH)
    assert told == json.loads(json.dumps(tree.to_dict())) and len(told["nodes"]) == 36
    assert told["rules"] == {"num_beams": 3, "length_penalty": 0.0, "early_stopping": "never", "candidates": 6}
    for node in told["nodes"]:
        before = {"total": 0.0, "step": 0} if node["parent"] is None else told["nodes"][node["parent"]]
        assert node["total"] == before["total"] + node["logprob"] and node["step"] == before["step"] + 1
    best = next(node for node in told["nodes"] if node["rank"] == 1)
    path = []
    while best is not None:
        path.insert(0, best["token"])
        best = None if best["parent"] is None else told["nodes"][best["parent"]]
    assert path == told["texts"][0]["ids"]


def test_beams_are_drawn_by_the_seed(capsys):
    words = [*COMMAND, "--json", "--sample", "--top-k", "30", "--temperature", "1.5", "--seed"]
    outputs = []
    for seed in "778":
        assert main([*words, seed]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1] != outputs[2] and outputs[0]["greedy"] is None
    assert outputs[2]["seed"] == 8 and outputs[2]["params"] == {"temperature": 1.5, "top_k": 30}
    assert main([word for word in words if word != "--json"] + ["8"]) == 0
    assert capsys.readouterr().out.endswith("seed 8\n")


NASTY = "<script>alert(1)</script> & \"{{ tree }}\" 'x' ]]>"


@pytest.mark.parametrize("sampling", [[], ["--sample", "--seed", "4", "--top-p", "0.9"]])
def test_a_page(tmp_path, capsys, sampling):
    """It is well-formed, loads nothing, holds every candidate with its numbers, and token text stays text."""
    path = tmp_path / "beams.html"
    assert main([*COMMAND, "-p", NASTY, "--html", str(path), *sampling]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "candidates" in captured.err
    page = path.read_text(encoding="utf-8")
    svg = ET.fromstring(page[page.index('<svg class="tree"') : page.index("</svg>") + 6])
    params = SamplingParams(top_p=0.9) if sampling else SamplingParams(temperature=0.0)
    tree = grow(LLAMA, TOKENIZER, NASTY, params, seed=4, **SEARCH)
    pieces = [one.text for one in svg.iter("text") if one.get("class") == "piece"]
    assert pieces == [tree.piece(node.beam.token) for node in tree.nodes]
    numbers = [one.text for one in svg.iter("text") if one.get("class") == "numbers"]
    assert numbers == [f"{node.beam.logprob:.2f}  Σ {node.beam.total:.2f}" for node in tree.nodes]
    classes = [one.get("class") for one in svg.iter("g")]
    assert classes.count("best") == 6 and "pruned" in classes
    edges = [one.get("class") for one in svg.iter("path")]
    assert len(edges) - edges.count("greedy") == len(tree.nodes) and edges.count("best") == 6
    assert ("greedy" in edges) == (not sampling)
    assert NASTY not in page and any(one.text == "… & \"{{ tree }}\" 'x' ]]>" for one in svg.iter("text"))
    assert not re.search(r"https?:|<script|src=|@import|url\((?!#)", page)
    assert "the built-in storyteller" in page and "alea-sampling 0." in page
    assert ("top_p 0.9" in page) == bool(sampling)


def test_pieces_are_escaped():
    params = SamplingParams(temperature=0.0, logit_bias={2: 20.0})
    tree = grow(LLAMA, TOKENIZER, "The dragon", params, num_beams=2, max_new_tokens=2)
    svg = ET.fromstring("\n".join(beam_page.drawing(tree)))
    assert tree.to_dict()["params"] == {"temperature": 0.0, "logit_bias": {"2": 20.0}}
    assert next(one.text for one in svg.iter("text") if one.get("class") == "piece") == "</s>"


def test_nothing_overlaps():
    tree = grow(LLAMA, TOKENIZER, "The dragon", num_beams=4, max_new_tokens=9)
    at = beam_page.Layout(tree)
    columns: dict[int, list[float]] = {}
    for node in tree.root.walk():
        ranks = [child.leads_to or 99 for child in sorted(node.children, key=at.y.__getitem__)]
        assert ranks == sorted(ranks)
        others = [at.y[child] for child in node.children if child.leads_to is None]
        assert others == sorted(others)  # in the search's order
    top = [node for node in tree.root.walk() if at.y[node] == beam_page.TOP + beam_page.ROW / 2]
    assert top == [node for node in tree.root.walk() if node is tree.root or node.leads_to == 1]
    for node in tree.nodes:
        columns.setdefault(node.beam.length, []).append(at.y[node])
        assert at.left[node.beam.length] < at.right[node] <= at.width and 0 < at.y[node] < at.height
    for step, rows in columns.items():
        rows.sort()
        assert all(b - a >= beam_page.ROW for a, b in pairwise(rows))
        before = max(x for node, x in at.right.items() if node.beam.length == step - 1)
        assert before + beam_page.GAP == pytest.approx(at.left[step])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beams", "3", "--top-p", "0.9"], "--top-p needs --sample if --beams is given"),
        (["--beams", "3", "--temperature", "0.5"], "--temperature needs --sample if --beams is given"),
        (["--beams", "3", "--top", "5"], "--top must not be given with --beams, which shows every candidate"),
        (["--beams", "0"], "num_beams must be an integer >= 1, got 0"),
        (["--beams", "3", "--length-penalty", "inf"], "length_penalty must be in [-50, 50], got inf"),
        (["--beams", "3", "-n", "600"], "3 prompt tokens + 600 new = 603 > 512"),
        (["--sample"], "--sample needs --beams N"),
        (["--length-penalty", "0"], "--length-penalty needs --beams N"),
        (["--early-stopping", "no"], "--early-stopping needs --beams N"),
        (["--beams", "2", "--html", "nowhere/beams.html"], "nowhere: no such folder"),
    ],
)
def test_errors(words, message, capsys):
    assert main(["trace", "-p", "The dragon", *words]) == 2
    assert message in capsys.readouterr().err


def test_penalties_hold_without_sampling(capsys):
    assert main([*COMMAND, "--json", "--repetition-penalty", "1.7"]) == 0
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    ratios = {round(node["logprob"] / node["model_logprob"], 3) for node in nodes}
    assert ratios == {1.0, 1.7}
