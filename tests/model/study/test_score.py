"""`alea score`. Oracle: softmax by hand in float64 NumPy, of transformers' logits, one sequence at a time."""

import io
import itertools
import json
import math

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor
from transformers import LlamaForCausalLM

from model import Llama, Tokenizer, cli
from model.commands import terminal
from model.loading.weights import BUILT_IN
from model.study import score as scoring
from model.study.score import Score, ids_by_text, one_token_ids, score

TOKENIZER = Tokenizer.from_pretrained()
STORYTELLER = Llama.from_pretrained()
THEIRS = LlamaForCausalLM.from_pretrained(BUILT_IN, dtype=torch.float32).eval()
SP = SentencePieceProcessor(model_file=str(BUILT_IN / "tokenizer.model"))
PROMPTS = ["Was the king happy?", "The old", "She asked him whether he would come to the castle, and he said:", ""]
CLOSE = dict(rel=2e-4)  # of probabilities from two float32 Llamas


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["score", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@torch.inference_mode()
def probabilities(ids: list[int]) -> np.ndarray:
    """float64 [V] of the token after ids, BOS added."""
    logits = THEIRS(torch.tensor([[SP.bos_id(), *ids]])).logits[0, -1].numpy().astype(np.float64)
    e = np.exp(logits - logits.max())
    return e / e.sum()


def spellings(word: str) -> set[int]:
    """Ids of the pieces that spell a word of two letters or more, looked up by name."""
    pieces = [space + case(word) for space in ("", "▁") for case in (str, str.lower, str.upper, str.title)]
    return {SP.piece_to_id(piece) for piece in pieces} - {SP.unk_id()}


def text_probabilities(prompt: str, pieces: list[str]) -> list[float]:
    """Of each piece after the prompt and the pieces before it."""
    ids, found = SP.encode(prompt), []
    for token in map(SP.piece_to_id, pieces):
        found.append(probabilities(ids)[token])
        ids = [*ids, token]
    return found


@pytest.mark.parametrize("prompt", PROMPTS)
def test_one_token_choices_by_hand(prompt):
    (ours,) = score(STORYTELLER, TOKENIZER, prompt, ["Yes", "no", " king"])
    p = probabilities(SP.encode(prompt))
    by_hand = {word: sum(p[i] for i in spellings(word)) for word in ("Yes", "no", "king")}
    assert [len(spellings(word)) for word in by_hand] == [3, 3, 3]
    for choice, (word, mass) in zip(ours.choices, by_hand.items(), strict=True):
        assert not choice.whole and {token.id for token in choice.tokens} == spellings(word)
        assert [token.piece for token in choice.tokens] == [SP.id_to_piece(token.id) for token in choice.tokens]
        for token in choice.tokens:
            assert math.exp(token.logprob) == pytest.approx(p[token.id], **CLOSE)
        assert choice.probability == pytest.approx(mass, **CLOSE)
        assert choice.logprob == choice.mean_logprob == pytest.approx(math.log(mass), abs=2e-4)
        assert choice.share == pytest.approx(mass / sum(by_hand.values()), **CLOSE)
    assert ours.coverage == pytest.approx(sum(by_hand.values()), **CLOSE)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_choices_of_several_tokens_by_hand(prompt):
    texts = {"YES sir": ["▁Y", "E", "S", "▁sir"], "no one": ["▁no", "▁one"]}
    by_hand = {text: text_probabilities(prompt, pieces) for text, pieces in texts.items()}
    (ours,) = score(STORYTELLER, TOKENIZER, prompt, list(texts))
    total = sum(math.prod(p) for p in by_hand.values())
    mean_total = sum(math.prod(p) ** (1 / len(p)) for p in by_hand.values())
    for choice, (text, p) in zip(ours.choices, by_hand.items(), strict=True):
        assert choice.whole and [token.piece for token in choice.tokens] == texts[text]
        assert [math.exp(token.logprob) for token in choice.tokens] == pytest.approx(p, **CLOSE)
        assert choice.logprob == pytest.approx(sum(map(math.log, p)), abs=1e-3)
        assert choice.mean_logprob == pytest.approx(np.log(p).mean(), abs=5e-4)
        assert choice.share == pytest.approx(math.prod(p) / total, rel=1e-3)
        assert choice.share_by_mean == pytest.approx(math.prod(p) ** (1 / len(p)) / mean_total, rel=1e-3)
    assert ours.coverage == pytest.approx(total, rel=1e-3)


def test_whole_scores_one_spelling_as_it_is_written():
    """So that case can be told apart: "Yes" and "yes" are two choices then."""
    (ours,) = score(STORYTELLER, TOKENIZER, "Was she happy?", ["Yes", "yes", "YES"], whole=True)
    p = probabilities(SP.encode("Was she happy?"))
    yes = [p[SP.piece_to_id(piece)] for piece in ("▁Yes", "▁yes")]
    yes.append(math.prod(text_probabilities("Was she happy?", ["▁Y", "E", "S"])))
    assert all(choice.whole for choice in ours.choices)
    assert [choice.probability for choice in ours.choices] == pytest.approx(yes, rel=1e-3)


def test_a_choice_that_begins_with_another_is_covered_once():
    """P(yes, then sir) is part of P(yes)."""
    (ours,) = score(STORYTELLER, TOKENIZER, "Was she happy?", ["yes", "yes sir", "no"])
    yes, _, no = ours.choices
    assert ours.coverage == pytest.approx(yes.probability + no.probability, rel=1e-12)
    assert sum(choice.share for choice in ours.choices) == pytest.approx(1, rel=1e-12)


def test_ids_of_one_text_are_all_counted_and_not_merged():
    """The letter A is a piece and a byte piece; both decode to "A"."""
    letter, byte = SP.piece_to_id("A"), SP.piece_to_id("<0x41>")
    assert TOKENIZER.sp.decode([letter]) == TOKENIZER.sp.decode([byte]) == "A"
    (ours,) = score(STORYTELLER, TOKENIZER, "The old", ["A", "king"])
    pieces = ["A", "a", "▁A", "▁a", "<0x41>", "<0x61>"]
    assert {token.id for token in ours.choices[0].tokens} == {SP.piece_to_id(piece) for piece in pieces}
    p = probabilities(SP.encode("The old"))
    assert ours.choices[0].probability == pytest.approx(sum(p[SP.piece_to_id(piece)] for piece in pieces), **CLOSE)


def test_spellings_in_llama_2(llama2_tokenizer):
    """Oracle: the pieces, looked up by name."""
    tokenizer = Tokenizer(llama2_tokenizer)
    names = ["Yes", "yes", "YES", "▁Yes", "▁yes", "▁YES"]
    sp = SentencePieceProcessor(model_file=str(llama2_tokenizer))
    known = {sp.piece_to_id(name) for name in names} - {sp.unk_id()}
    assert len(known) >= 4
    for given in ("Yes", " yes", "▁YES", "yEs"):
        assert set(one_token_ids(ids_by_text(tokenizer, 32000), given)) == known
    assert (
        one_token_ids(ids_by_text(tokenizer, 10), "Yes") == []
    )  # a model with fewer embeddings than the tokenizer has pieces


def numbers(result: Score) -> list[float]:
    own = [
        (c.logprob, c.mean_logprob, c.share, c.share_by_mean, *(t.logprob for t in c.tokens)) for c in result.choices
    ]
    return [result.coverage, *itertools.chain(*own)]


@pytest.mark.parametrize("choices", [["Yes", "No"], ["YES sir", "king", "no one at all"]])
def test_the_batch_does_not_matter(choices, monkeypatch):
    """Oracle: each prompt alone."""
    prompts = [
        *PROMPTS,
        "A much longer prompt, that makes the others be padded with a lot of tokens. " * 5 + "Is it?",
        "A",
    ]
    alone = [score(STORYTELLER, TOKENIZER, prompt, choices)[0] for prompt in prompts]
    for size in (2, 16):
        monkeypatch.setattr(scoring, "BATCH", size)
        together = score(STORYTELLER, TOKENIZER, prompts, choices)
        assert [result.prompt for result in together] == prompts
        for a, b in zip(alone, together, strict=True):
            assert numbers(a) == pytest.approx(numbers(b), rel=1e-4)
            assert [[t.id for t in c.tokens] for c in a.choices] == [[t.id for t in c.tokens] for c in b.choices]


def test_the_last_place_of_the_window_is_used(llama_folder):
    folder = llama_folder(vocab_size=4096, max_position_embeddings=8)
    llama = Llama.from_pretrained(folder)
    (fits,) = score(llama, TOKENIZER, "king king king king", ["yes sir go", "no"])
    assert [len(choice.tokens) for choice in fits.choices] == [3, 3]
    with pytest.raises(ValueError, match=r"prompts\[1\]: 6 prompt tokens \+ 3 of the choice 'yes sir go' = 9 > 8"):
        score(llama, TOKENIZER, ["A", "king king king king king"], ["yes sir go", "no"])


def test_logits_that_are_no_numbers_are_refused(llama_folder):
    llama = Llama.from_pretrained(llama_folder(vocab_size=4096))
    llama.norm.weight.data[0] = math.nan
    with pytest.raises(ValueError, match="llama: must give finite logits"):
        score(llama, TOKENIZER, "A", ["yes", "no"])


def test_json_is_one_object_a_prompt(capsys):
    _, out, err = run(capsys, "-p", "Was she happy?", "-p", "The old", "--choices", "Yes", "NO sir", "--json")
    found = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    results = score(STORYTELLER, TOKENIZER, ["Was she happy?", "The old"], ["Yes", "NO sir"])
    assert err == "" and len(found) == 2
    for line, result in zip(found, results, strict=True):
        assert list(line) == ["prompt", "choices", "coverage"] and line["coverage"] == pytest.approx(result.coverage)
        assert line["prompt"] == result.prompt
        for choice, ours in zip(line["choices"], result.choices, strict=True):
            assert set(choice) == set(vars(ours)) and (choice["choice"], choice["whole"]) == (ours.choice, ours.whole)
            assert [set(token) for token in choice["tokens"]] == [{"id", "piece", "logprob"}] * len(ours.tokens)
            assert all(isinstance(choice[n], float) for n in ("logprob", "probability", "mean_logprob", "share"))


def test_the_table_shows_ids_probabilities_and_coverage(capsys):
    status, out, err = run(capsys, "-p", "The [b]old[/b] :smile:", "--choices", "king", "queen")
    (result,) = score(STORYTELLER, TOKENIZER, "The [b]old[/b] :smile:", ["king", "queen"])
    assert status == 0 and err == "" and out.startswith("The [b]old[/b] :smile:\n")
    for choice in result.choices:
        assert f"{choice.share:.2%}" in out and f"{choice.probability:.3g}" in out
        assert all(f" {token.id} " in out and token.piece in out for token in choice.tokens)
    assert f"coverage {result.coverage:.3g}" in out and "mean" not in out


def test_notes_say_what_the_numbers_are(capsys):
    mixed = run(capsys, "-p", "Was she happy?", "--choices", "Yes", "MAYBE")[1]
    assert (
        "MAYBE: no spelling is one token" in mixed and "--whole treats all alike" in mixed and "share by mean" in mixed
    )
    assert "hardly answer so" in run(capsys, "-p", "Once upon a", "--choices", "Yes", "No")[1]
    assert "hardly answer so" not in run(capsys, "-p", "Once upon a", "--choices", "time", "No")[1]
    assert "(--whole)" in run(capsys, "-p", "Was she happy?", "--choices", "Yes", "No", "--whole")[1]


def test_a_prompt_that_ends_in_whitespace_is_warned_of(capsys):
    status, out, err = run(capsys, "-p", "A", "-p", "Is it good? ", "-p", "B\n", "--choices", "Yes", "No", "--json")
    assert status == 0 and err.count("\n") == 1 and "'Is it good? ' in prompts[1] and 1 more" in err
    yes = json.loads(out.splitlines()[1])["choices"][0]
    p = probabilities([*SP.encode("Is it good?"), SP.piece_to_id("▁")])  # nothing is stripped in secret
    assert yes["probability"] == pytest.approx(sum(p[i] for i in spellings("Yes")), **CLOSE)


def test_choices_add_up(capsys):
    """Given in one option or in two."""
    one, two = (("--choices", "Yes", "No", "king"), ("-c", "Yes", "No", "-c", "king"))
    assert run(capsys, "-p", "A", *one)[1] == run(capsys, "-p", "A", *two)[1]


def test_many_choices_say_what_lies_ahead(capsys, monkeypatch):
    """Where stderr is no terminal; on one, a bar moves with every batch."""
    monkeypatch.setattr(terminal, "MANY", 5)
    assert run(capsys, "-p", "A", "-p", "B", "--choices", "Yes", "No")[2] == ""
    assert "6 choices: this may take a while\n" in run(capsys, "-p", "A", "-p", "B", "--choices", "Yes", "No", "I")[2]
    seen: list[int] = []
    monkeypatch.setattr(scoring, "BATCH", 2)
    score(STORYTELLER, TOKENIZER, ["A", "B"], ["Yes", "the king", "MAYBE"], on_progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 6 and len(seen) > 1


def test_a_file_and_standard_input(capsys, monkeypatch, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffThe old\r\n\r\nWas Märchen true?\r\n".encode())
    by_file = run(capsys, "--file", str(path), "--choices", "Yes", "No", "--json")[1]
    assert [json.loads(line)["prompt"] for line in by_file.splitlines()] == ["The old", "Was Märchen true?"]
    monkeypatch.setattr("sys.stdin", io.StringIO("The old\n\nWas Märchen true?\n"))
    assert run(capsys, "--file", "-", "--choices", "Yes", "No", "--json")[1] == by_file
    table = run(capsys, "-p", "A", "--file", str(path), "--choices", "Yes", "No")[1]
    assert "[1/3] A" in table and "[3/3] Was Märchen true?" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "A"), "choices must be two texts or more, got 0: none"),
        (("-p", "A", "--choices", "Yes"), "choices must be two texts or more, got 1: Yes"),
        (("-p", "A", "--choices", "Yes", "Yes"), "choices must be distinct, got 'Yes' twice"),
        (("-p", "A", "--choices", "Yes", " yes"), "got 'Yes' and ' yes', both of which count Yes (1096)"),
        (("-p", "A", "--choices", "Yes", " Yes", "--whole"), "got 'Yes' and ' Yes', both of which count ▁Yes (3094)"),
        (("-p", "A", "--choices", "Yes", " "), "choices[1] must hold more than spaces, got ' '"),
        (("-p", "A", "--choices", "Yes", "\udc80"), "--choices must be valid UTF-8, got '\\udc80'"),
        (("-p", "\udce4", "--choices", "Yes", "No"), "--prompt must be valid UTF-8, got '\\udce4'"),
        (("-p", "A", "--choices", "Yes", " </s>"), "choices[1] must be a text, got ' </s>', the name of a token"),
        (("--choices", "Yes", "No"), "a prompt is needed: -p TEXT, -f FILE"),
        (("--file", "missing.txt", "--choices", "Yes", "No"), "--file must be a text file, or - for standard input"),
        (
            ("--file", "empty.txt", "--choices", "Yes", "No"),
            "--file must hold a prompt, one a line, got none in empty.txt",
        ),
        (("--file", "latin.txt", "--choices", "Yes", "No"), "--file must be UTF-8 text, got latin.txt"),
        (("-p", "king " * 600 + "?", "--choices", "Yes", "No"), "> 512, the model's window"),
        (("nowhere", "-p", "A", "--choices", "Yes", "No"), "nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"M\xe4rchen\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == ""
    assert err.startswith("alea score: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("choices", ["Yes", [1, 2], None])
def test_choices_of_another_type_are_refused(choices):
    with pytest.raises(TypeError, match="choices must be a list of texts"):
        score(STORYTELLER, TOKENIZER, "A", choices)
