"""Logits that depend on the tokens alone: the same bits however the tokens are computed.

Oracles: llama.py with the operations of model/reference/; the same tokens alone, one at a time; float64.
"""

import copy
import itertools
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from model import Llama, Tokenizer, block_cache, exact, generate, packed
from model.cli import main
from model.config import LlamaConfig
from model.kv_cache import Slots
from model.loading import weights
from model.loading.weights import stored_tensors
from tests.conftest import examples
from tests.model.exactness import CONFIGS, bits, isa, isas, needs_native, reference_operations

pytestmark = needs_native
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def memory_full_of_nan(monkeypatch):
    """What no token has written must not be read."""
    take = block_cache.Blocks.take

    def full_of_nan(self: block_cache.Blocks) -> int:
        block = take(self)
        self.numbers(block)[:] = np.nan
        return block

    monkeypatch.setattr(block_cache.Blocks, "take", full_of_nan)


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_reference(llama_folder, monkeypatch, name):
    """llama.py describes what C++ does, on every instruction set; in one layer, as Python takes long."""
    model = Llama.from_pretrained(llama_folder(**CONFIGS[name] | {"num_hidden_layers": 1}))
    vocabulary = model.config.vocab_size
    ids = torch.randint(0, vocabulary, (2, 21))
    found = []
    for each in isas():
        with isa(each):
            found.append(bits(model(ids)))
    with reference_operations(monkeypatch):
        described = bits(model.unpack()(ids))
    for logits in found:
        assert (logits == described).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_no_farther_from_float64_than_transformers(llama_folder, name):
    folder = llama_folder(**CONFIGS[name])
    ids = torch.randint(0, 97, (4, 60))
    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    logits, oracle = theirs(ids).logits.double(), theirs.double()(ids).logits
    distance = (logits - oracle).pow(2).mean().sqrt()
    ours = Llama.from_pretrained(folder)(ids)
    assert (ours - logits).abs().max() < 1e-4
    assert (ours - oracle).pow(2).mean().sqrt() <= 1.2 * distance


STORYTELLER = None if not isas() else Llama.from_pretrained()
TOKENS = torch.randint(5, 4096, (8, 70), generator=torch.Generator().manual_seed(0))


def alone(row: int, count: int) -> np.ndarray:
    """A sequence's logits, one token at a time, by one thread: [count, V]."""
    if row not in ALONE:
        cache = STORYTELLER.new_cache(1, TOKENS.shape[1])
        steps = [
            STORYTELLER(TOKENS[row, i][None, None], cache, Slots.ragged([i], CPU))[0] for i in range(TOKENS.shape[1])
        ]
        ALONE[row] = bits(torch.cat(steps))
    return ALONE[row][:count]


ALONE: dict[int, np.ndarray] = {}


@given(st.data())
@examples(40)
def test_any_schedule(data: st.DataObject):
    """Any sequences together, in chunks of any size, in any order, on any threads and instruction set."""
    rows = data.draw(st.lists(st.integers(0, len(TOKENS) - 1), min_size=1, max_size=5), "sequences")
    lengths = [0] * len(rows)
    exact, cache = STORYTELLER.exact_pass, STORYTELLER.new_cache(len(rows), TOKENS.shape[1])
    while min(lengths) < 40:
        takers = data.draw(st.permutations(range(len(rows))), "order")[: data.draw(st.integers(1, len(rows)), "rows")]
        chunks = {i: min(data.draw(st.integers(1, 30), "chunk"), TOKENS.shape[1] - lengths[i]) for i in takers}
        chunks = {i: size for i, size in chunks.items() if size}
        if not chunks:
            continue
        where = np.concatenate([np.full(size, i) for i, size in chunks.items()])
        positions = np.concatenate([np.arange(lengths[i], lengths[i] + size) for i, size in chunks.items()])
        tokens = np.array([TOKENS[rows[i], p] for i, p in zip(where, positions, strict=True)])
        with (
            isa(data.draw(st.sampled_from(isas()[:2]), "instruction set")),
            threads(data.draw(st.sampled_from([1, 2, 3, 8]))),
        ):
            found = bits(STORYTELLER.logits(torch.from_numpy(exact.read(tokens, where, positions, cache))))
        for i, position, logits in zip(where, positions, found, strict=True):
            assert (logits == alone(rows[i], len(TOKENS[0]))[position]).all()
        lengths = [length + chunks.get(i, 0) for i, length in enumerate(lengths)]


class threads:  # noqa: N801  # reads as a word
    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.count)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)


def test_large_work_on_several_threads(tmp_path):
    """Matrices large enough to be shared between threads."""
    torch.manual_seed(0)
    config = LlamaConfig(4096, 512, 1408, 2, 8, 4, 64, 512, 1e-5)
    model = Llama(config).pack().eval()
    ids = torch.randint(0, 4096, (3, 250))
    found = []
    for count in (1, 2, 3, 8):
        with threads(count):
            found.append(bits(model(ids)))
    assert all((logits == found[0]).all() for logits in found)


def test_a_padded_prompt():
    """Padding is not computed; what stands there is 0."""
    lengths = [9, 30, 1]
    hidden = STORYTELLER.hidden(TOKENS[:3, :30], slots=Slots.prompts(lengths, CPU))
    for row, length in enumerate(lengths):
        assert (bits(STORYTELLER.logits(hidden[row, :length])) == alone(row, length)).all()
        assert not hidden[row, length:].any()


def test_continued_from_a_cached_prefix():
    """Copies of a row share its blocks, and each gets a block of its own when it writes."""
    cache = STORYTELLER.new_cache(1, 70)
    STORYTELLER(TOKENS[:1, :37], cache)
    shared = cache.repeat(3)
    written = len(cache.blocks.users) - len(cache.blocks.free)
    assert written == 3  # the blocks of 37 positions, whatever the number of copies
    others = torch.stack([TOKENS[0, 37:50], TOKENS[1, 37:50], TOKENS[2, 37:50]])
    logits = STORYTELLER(others, shared, Slots.aligned(3, 37, 13, CPU))
    for row in range(3):
        whole = STORYTELLER(torch.cat((TOKENS[0, :37], others[row]))[None])[0, 37:]
        assert (bits(logits[row]) == bits(whole)).all()
    after = STORYTELLER(TOKENS[:1, 37:50], cache, Slots.aligned(1, 37, 13, CPU))
    assert (bits(after) == bits(logits[:1])).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_16_bit_weights_widen_exactly(llama_folder, kind):
    """Kept in 16 bits or widened to float32, weights give the same bits."""
    folder = llama_folder(dtype=kind, num_key_value_heads=2)
    ids = torch.randint(0, 97, (2, 30))
    kept, widened = Llama.from_pretrained(folder), Llama.from_pretrained(folder, weights=torch.float32)
    assert kept.lm_head.panels.dtype == kept.embed_tokens.weight.dtype == kind
    assert widened.lm_head.panels.dtype == torch.float32
    assert (bits(kept(ids)) == bits(widened(ids))).all()
    rounded = Llama.from_pretrained(llama_folder(name="wide", num_key_value_heads=2), weights=kind)
    assert rounded.lm_head.panels.dtype == kind
    dense = Llama.from_pretrained(llama_folder(name="wide", num_key_value_heads=2))
    for name, tensor in stored_tensors(rounded).items():
        assert (tensor.float() == stored_tensors(dense)[name].to(kind).float()).all()


@pytest.mark.exhaustive
def test_texts_in_any_batch(tmp_path):
    """The command's answers, byte for byte: batches of 1, 7 and 64, one and two threads, each instruction set."""
    words = ["king", "wolf", "witch", "old woman", "princess", "tailor", "bear", "giant"]
    begins = ["The", "Once there was a", "Then the", "Far away lived a", "A poor", "So the", "And the", "My"]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{a} {b}\n" for a, b in itertools.product(begins, words)))
    program = """
import sys, torch
from model import packed
from model.cli import main
packed._native.use_isa(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
sys.exit(main(sys.argv[3:]))
"""
    found = set()
    cases = [(isas()[0], 1, 1), (isas()[0], 2, 64), (isas()[-1], 1, 7), (isas()[min(1, len(isas()) - 1)], 2, 7)]
    for number, (name, count, size) in enumerate(cases):
        out = tmp_path / f"{number}.jsonl"
        command = ["generate", "--file", prompts, "-n", 6, "--seed", 7, "--top-p", 0.9, "--temperature", 1.2]
        command += ["--batch-size", size, "-o", out]
        subprocess.run([sys.executable, "-c", program, name, *map(str, (count, *command))], check=True)
        found.add(out.read_bytes())
    assert len(found) == 1


def test_beams_in_any_batch():
    tokenizer = Tokenizer.from_pretrained()
    prompts = ["The king", "Once upon a time there was", "A wolf and a"]
    options = dict(num_beams=3, do_sample=False, num_return_sequences=3, max_new_tokens=20)
    together = generate(STORYTELLER, tokenizer, prompts, **options)
    for prompt, texts in zip(prompts, together, strict=True):
        assert generate(STORYTELLER, tokenizer, prompt, **options)[0] == texts


def test_blocks_are_given_back():
    cache = STORYTELLER.new_cache(2, 64)
    STORYTELLER(TOKENS[:2, :40], cache)
    blocks = cache.blocks

    def used() -> int:
        return len(blocks.users) - len(blocks.free)

    assert used() == 6
    more = cache.repeat(2)
    del cache
    assert used() == 6
    more.drop(0)
    more.drop(0)  # only the copies of the second row are left
    more.drop(1)
    assert used() == 3
    del more
    assert used() == 0 and not blocks.users.any()


def test_positions_beyond_the_cache():
    cache = STORYTELLER.new_cache(1, 32)
    with pytest.raises(ValueError, match="positions must be below 32, got 32"):
        STORYTELLER(TOKENS[:1, :33], cache)
    with pytest.raises(ValueError, match=r"ids must be in 0 \.\. 4095, got 4096"):
        STORYTELLER(torch.tensor([[4096]]))


@pytest.mark.parametrize("positions", [[2], [5], [4, 3], [3, 5], [3, 3], [-1]])
def test_positions_follow_each_other(positions):
    """Nothing reads what a row has not written."""
    cache = STORYTELLER.new_cache(2, 32)
    STORYTELLER(TOKENS[:2, :3], cache)
    rows = np.ones(len(positions), int)
    calls = lambda: STORYTELLER.exact_pass.read(TOKENS[0, : len(rows)].numpy(), rows, np.array(positions), cache)  # noqa: E731
    if positions == [2]:  # again, with another token
        assert calls().shape == (1, 256)
    else:
        with pytest.raises(ValueError, match="positions of a row must follow each other: row 1 has "):
            calls()
    assert cache.lengths.tolist() == [3, 3]


def test_a_shared_block_is_copied_before_it_is_written():
    """Also at its first slot, since the row goes on reading the others."""
    cache = STORYTELLER.new_cache(1, 70)
    STORYTELLER(TOKENS[:1, :40], cache)
    other = cache.repeat(1)
    STORYTELLER(TOKENS[:1, 16:17], cache, Slots.aligned(1, 16, 1, CPU))  # the same token again
    for each in (cache, other, copy.copy(other)):
        logits = STORYTELLER(TOKENS[:1, 40:41], each, Slots.aligned(1, 40, 1, CPU))[0]
        assert (bits(logits) == alone(0, 41)[40:]).all()


def test_a_refused_call_changes_nothing():
    cache = STORYTELLER.new_cache(1, 70)
    STORYTELLER(TOKENS[:1, :40], cache)
    with pytest.raises(ValueError, match="ids must be in"):
        STORYTELLER(torch.tensor([[5000]]), cache, Slots.aligned(1, 40, 1, CPU))
    with pytest.raises(ValueError, match="ids must have at most 1 rows, as the cache, got 2"):
        STORYTELLER(TOKENS[:2, 40:41], cache, Slots.aligned(2, 40, 1, CPU))
    logits = STORYTELLER(TOKENS[:1, 40:41].int(), cache, Slots.aligned(1, 40, 1, CPU))[0]
    assert (bits(logits) == alone(0, 41)[40:]).all()
    assert STORYTELLER(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3, 4096)
    with pytest.raises(ValueError, match="x must have the matrix's inputs"):
        STORYTELLER.logits(torch.zeros(2, 128))


def test_state_dicts_that_do_not_fit(llama_folder):
    model = Llama.from_pretrained(llama_folder())
    ids = torch.randint(0, 97, (1, 9))
    before, state = bits(model(ids)), model.state_dict()
    name = "layers.0.mlp.down_proj.weight"
    for wrong, message in (
        ({name: state[name].T.contiguous()}, f"size mismatch for {name}"),
        ({name + "s": state[name]}, "Unexpected key"),
    ):
        with pytest.raises(RuntimeError, match=message):
            model.load_state_dict(state | wrong)
    with pytest.raises(RuntimeError, match=f"Missing key.*{name}"):
        model.load_state_dict({key: value for key, value in state.items() if key != name})
    assert (bits(model(ids)) == before).all()
    model.load_state_dict({key: value * 2 for key, value in state.items()}, assign=True)
    assert (bits(model(ids)) != before).any()


def test_weights_that_move(llama_folder):
    """New data of a Parameter counts from the next pass on."""
    model = Llama.from_pretrained(llama_folder(attention_bias=True))
    ids = torch.randint(0, 97, (1, 9))
    model(ids)
    for weight in (model.norm.weight, model.layers[0].self_attn.qkv_proj.bias, model.lm_head.panels):
        weight.data = weight.data * 2
        fresh = copy.deepcopy(model)
        assert (bits(model(ids)) == bits(fresh(ids))).all()


def test_state_dict_copies_and_pickles(llama_folder):
    folder = llama_folder(attention_bias=True)
    model, other = Llama.from_pretrained(folder), Llama.from_pretrained(llama_folder(name="b", attention_bias=True))
    ids = torch.randint(0, 97, (1, 9))
    before = bits(model(ids))
    dense = Llama.from_pretrained(folder).unpack()
    state = model.state_dict()
    assert state.keys() == dense.state_dict().keys()
    assert all((state[name] == value).all() for name, value in dense.state_dict().items())
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (bits(same(ids)) == before).all()
    doubled = {name: value * 2 for name, value in state.items()}
    other.load_state_dict(doubled)
    dense.load_state_dict(doubled)
    assert (bits(other(ids)) == bits(dense.pack()(ids))).all() and (bits(other(ids)) != before).any()


def test_a_tied_model_through_its_state_dict(llama_folder):
    model = Llama.from_pretrained(llama_folder(tie_word_embeddings=True))
    ids = torch.randint(0, 97, (1, 9))
    before = bits(model(ids))
    fresh = Llama(model.config)
    fresh.load_state_dict(model.state_dict())
    assert (bits(fresh.pack()(ids)) == before).all()
    state = {name: value * 0 for name, value in model.state_dict().items()}
    model.load_state_dict({"embed_tokens.weight": state["embed_tokens.weight"]}, strict=False)
    assert not model(ids).any()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        lambda model: model.requires_grad_(),
        lambda model: model.bfloat16(),
        lambda model: model.to(torch.float16),
    ],
)
def test_unpacks_where_it_must(llama_folder, change):
    model = Llama.from_pretrained(llama_folder())
    ids = torch.randint(0, 97, (1, 9))
    exact = model(ids)
    with pytest.warns(RuntimeWarning, match="another text in another batch, until pack"):
        change(model)
    assert not model.is_packed and "pack()" in model.why_not_exact
    torch.testing.assert_close(model(ids), exact, atol=0.2, rtol=0)
    if model.dtype == torch.float32:
        assert (bits(model.pack()(ids)) == bits(exact)).all()


def test_stays_packed(llama_folder):
    model = Llama.from_pretrained(llama_folder(dtype=torch.bfloat16))
    assert model.eval().float().cpu().to("cpu", torch.float32).requires_grad_(False).is_packed
    with pytest.raises(RuntimeError, match="unpack"):
        model.layers.half()


def test_packs_16_bit_weights(llama_folder):
    """A model that computed in 16 bits computes in float32 once it is packed, with the weights that it had."""
    folder = llama_folder(dtype=torch.bfloat16, attention_bias=True)
    ids = torch.randint(0, 97, (1, 9))
    packed_later = Llama.from_pretrained(folder, dtype=torch.bfloat16).pack()
    assert packed_later.dtype == torch.float32 and packed_later.lm_head.panels.dtype == torch.bfloat16
    assert (bits(packed_later(ids)) == bits(Llama.from_pretrained(folder)(ids))).all()


def test_trains_after_unpacking(llama_folder):
    model = Llama.from_pretrained(llama_folder(tie_word_embeddings=True)).unpack().train().requires_grad_()
    with torch.enable_grad():
        model(torch.randint(0, 97, (2, 9))).sum().backward()
    assert model.embed_tokens.weight is model.lm_head.weight
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_cache_from_before(llama_folder):
    model, ids = Llama.from_pretrained(llama_folder()), torch.randint(0, 97, (1, 9))
    old = model.new_cache(1, 20)
    model.unpack()
    with pytest.raises(TypeError, match="since the weights were unpacked"):
        model(ids, old)
    old = model.new_cache(1, 20)
    model.pack()
    with pytest.raises(TypeError, match="since the weights were packed"):
        model(ids, old)


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(dtype=torch.bfloat16), "it computes in bfloat16"),
        (dict(max_position_embeddings=2**20), "max_position_embeddings is above 524,288"),
        (dict(rope_parameters=dict(rope_type="linear", factor=0.5, rope_theta=1e4)), "more than 1 radian"),
    ],
)
def test_why_not(llama_folder, options, reason):
    dtype = options.pop("dtype", torch.float32)
    model = Llama.from_pretrained(llama_folder(**options), dtype=dtype)
    assert reason in model.why_not_exact and not model.is_packed
    assert model(torch.randint(0, 97, (1, 9))).isfinite().all()
    if "computes" not in reason:
        with pytest.raises(ValueError, match=reason):
            model.pack()


def test_without_the_extension(llama_folder, monkeypatch, capsys):
    """torch runs the model, and says what that means."""
    reason = "model._native is not built"
    for module in (packed, exact, weights):
        monkeypatch.setattr(module, "MISSING", reason)
    folder = llama_folder(dtype=torch.bfloat16)
    with pytest.warns(RuntimeWarning, match="not built; torch runs the model, so a text may depend on its batch"):
        model = Llama.from_pretrained(folder)
    ids = torch.randint(0, 97, (2, 9))
    assert model.dtype == torch.float32 and model.why_not_exact == reason
    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-4, rtol=0)
    assert main(["info", str(folder)]) == 0
    assert f"no: {reason}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, answer",
    [
        ([], "yes"),
        (["--dtype", "bfloat16"], "no: it computes in bfloat16"),
        (["--dtype", "auto", "--weights", "float16"], "yes"),
        (["--quantize", "nf4"], "no: bitsandbytes computes its products in nf4"),
    ],
)
def test_what_info_says(capsys, options, answer):
    assert main(["info", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["exact"] == answer
