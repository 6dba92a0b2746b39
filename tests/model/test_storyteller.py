"""The built-in checkpoint, and what trained and measured it. Oracles: brute force, transformers, the model card."""

import json
import math
import re
from collections import Counter
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForCausalLM, AutoTokenizer

from model import Llama, Tokenizer, generate
from model.loading.checkpoint import SINGLE
from model.loading.weights import BUILT_IN
from model.storyteller.corpus import BLOCK, HOLD_OUT, TrainingStream, blocks, held_out_texts, training_paragraphs
from model.storyteller.evaluate import DISCOUNT, NGram, bits_per_byte
from tests.conftest import SHARED

SP = SentencePieceProcessor(model_file=str(BUILT_IN / "tokenizer.model"))


@pytest.fixture
def corpus(tmp_path):
    """A small corpus: 3,300 numbered paragraphs in two files."""
    for name, lines in (("a", range(1800)), ("b", range(1800, 3300))):
        (tmp_path / f"{name}.txt").write_text("".join(f"Once upon a time number {i} came.\n" for i in lines))
    return tmp_path


def test_it_is_small_and_transformers_reads_it():
    assert (BUILT_IN / SINGLE).stat().st_size <= 10_000_000
    theirs = AutoModelForCausalLM.from_pretrained(BUILT_IN, dtype=torch.float32).eval()
    ids = torch.tensor([Tokenizer.from_pretrained().encode("Once upon a time there was a king")])
    with torch.no_grad():
        torch.testing.assert_close(Llama.from_pretrained()(ids), theirs(ids).logits, rtol=0, atol=1e-4)
    assert theirs.generation_config.do_sample


OURS, THEIRS = Tokenizer.from_pretrained(), AutoTokenizer.from_pretrained(BUILT_IN)
PIECES = ["Once", "upon a time", ",", "\n", " ", "  ", "“the king’s", "naïve", "🐉", "日本", "…", "\t", "---", "1,024"]
SPECIAL = ("<s>", "</s>", "<unk>")  # which sentencepiece takes for text


@given(
    st.lists(st.sampled_from(PIECES)).map("".join)
    | st.text(st.characters(codec="utf-8", exclude_characters="\u2581\x00"))
)
def test_transformers_tokenizer_gives_the_same_ids(text: str):
    if not any(name in text for name in SPECIAL):
        ids = OURS.encode(text)
        assert THEIRS(text).input_ids == ids
        assert THEIRS.decode(ids, skip_special_tokens=True) == OURS.decode(ids)


COMMON = "the and of to a in he was that it his said with her you they had for she him as not all i but"


def test_it_tells_a_story_in_english():
    """As in any English tale, a quarter to three quarters of the words are among the most common ones."""
    prompts, common = ["Once upon a time"], set(COMMON.split(" "))
    llama, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    lengths = dict(max_new_tokens=150, num_return_sequences=4, eos_token_id=())
    for story in generate(llama, tokenizer, prompts, seed=1, **lengths)[0]:
        words = re.findall("[a-z]+", story.text.lower())
        assert len(words) > 80
        assert 0.25 < sum(word in common for word in words) / len(words) < 0.75


def test_one_block_in_fifty_is_held_out(corpus):
    parts = list(blocks(corpus))
    held = [block for block, held_out in parts if held_out]
    assert len(parts) == math.ceil(1800 / BLOCK) + math.ceil(1500 / BLOCK) and len(held) == round(len(parts) / HOLD_OUT)
    training = set(training_paragraphs(corpus))
    assert len(training) + sum(map(len, held)) == 3300
    assert not training & {line for text in held_out_texts(corpus) for line in text.splitlines()}


def test_windows_begin_at_paragraphs_and_cover_the_stream():
    lines = [f"The {word} went to the well." for word in ("king", "queen", "fox", "hen", "miller", "giant")] * 30
    lines[90] = "Once upon a time there was a cat."
    stream = TrainingStream(lines, SP)
    length, seen = 64, set()
    for paragraph in stream.epoch(length, np.random.default_rng(0)):
        window = stream.window(paragraph, length)
        assert window.shape == (length + 1,) and window[0] == SP.bos_id()
        text = SP.decode([i for i in window.tolist() if i not in (SP.bos_id(), SP.eos_id())])
        assert text.startswith(lines[paragraph])
        seen |= set(range(paragraph, paragraph + text.count(".")))
    assert seen == set(range(min(seen), max(seen) + 1)) and min(seen) < 16 and max(seen) > 150
    at = stream.window(88, 200).tolist()
    opening = at.index(SP.eos_id())
    assert at[opening + 1] == SP.bos_id()
    assert SP.decode(at[opening + 2 :]).startswith("Once upon a time there was a cat.")


def test_ngram_by_brute_force():
    rng = np.random.default_rng(0)
    ids, test = rng.integers(0, 6, 400), rng.integers(0, 6, 60)

    def probability(context: tuple[int, ...], token: int) -> float:
        if not context:
            return (Counter(ids.tolist())[token] + 1) / (len(ids) + 6)
        n = len(context) + 1
        after = Counter(tuple(ids[i : i + n].tolist()) for i in range(len(ids) - n + 1))
        after = {gram: count for gram, count in after.items() if gram[:-1] == context}
        if not after:
            return probability(context[1:], token)
        kept = max(after.get((*context, token), 0) - DISCOUNT, 0)
        return (kept + DISCOUNT * len(after) * probability(context[1:], token)) / sum(after.values())

    expected = -sum(math.log(probability(tuple(test[i - 4 : i].tolist()), test[i])) for i in range(4, len(test)))
    assert NGram(ids, 6).nats(test) == pytest.approx(expected)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with torch 2.9")
def test_training_runs_resumes_and_exports(corpus, tmp_path, monkeypatch):
    """By a clock that advances 0.25 s whenever it is read."""
    from model.storyteller import train

    seconds = count(step=0.25)
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    out = tmp_path / "out"
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=8, max_position_embeddings=32)
    monkeypatch.setattr(train, "CONFIG", train.CONFIG | sizes | dict(vocab_size=300))
    monkeypatch.setattr(train, "TOKENS_A_STEP", 64)
    arguments = ["train", "--corpus", str(corpus), "--out", str(out), "--minutes", "0.01", "--save-every", "0"]
    monkeypatch.setattr("sys.argv", arguments)
    train.main()
    first = torch.load(out / "state.pt", weights_only=True)["steps"]
    arguments[arguments.index("0.01")] = "0.02"
    train.main()
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] > first > 1
    assert log[-1]["bits_per_byte"] < log[0]["bits_per_byte"]
    exported = Llama.from_pretrained(out)
    assert (
        bits_per_byte(exported, SentencePieceProcessor(model_file=str(out / "tokenizer.model")), held_out_texts(corpus))
        < 8
    )


def test_bits_per_byte_scores_every_token_once():
    model, text = Llama.from_pretrained(), "The king said to the queen: " * 3
    ids = torch.tensor([[SP.bos_id(), *SP.encode(text)]])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids)[0, :-1].double(), dim=-1)
    expected = -logprobs.gather(1, ids[0, 1:, None]).sum().item() / math.log(2) / len(text.encode())
    assert bits_per_byte(model, SP, [text]) == pytest.approx(expected, rel=1e-5)
    # Uniform predictions: every token costs log2 V, whatever the windows.
    model.norm.weight.data.zero_()
    long = text * 40
    assert bits_per_byte(model, SP, [long]) == pytest.approx(12 * len(SP.encode(long)) / len(long.encode()), rel=1e-5)


@pytest.mark.exhaustive
@pytest.mark.skipif(not (SHARED / "corpus").is_dir(), reason="the corpus is no part of the project")
def test_the_card_tells_the_truth():
    card = (BUILT_IN / "README.md").read_text()
    claimed = float(re.search(r"\*\*([\d.]+) bits per byte\*\*", card).group(1))
    measured = bits_per_byte(Llama.from_pretrained(), SP, held_out_texts(SHARED / "corpus"))
    assert measured == pytest.approx(claimed, abs=5e-4)
    assert measured <= 1.25
    log = [json.loads(line) for line in (BUILT_IN / "log.jsonl").read_text().splitlines()]
    assert log[-1]["bits_per_byte"] == pytest.approx(measured, abs=0.01)
