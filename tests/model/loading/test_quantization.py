"""Quantized matrices. Oracles: transformers with a BitsAndBytesConfig on the same folder, whose numbers ours must equal
to the bit; the papers' definitions, by hand in float64; and plain Llamas that hold the weights so computed.
"""

import json
import logging
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, LlamaForCausalLM

from model import Llama, Tokenizer, generate
from model.cli import main
from model.exact import is_quantized
from model.kv_cache import Slots
from model.loading import quantization
from model.loading.weights import stored_tensors
from samplers.extras import how_to_install

SCHEMES = [("int8", False), ("nf4", False), ("fp4", False), ("nf4", True)]
ALIGNED = {
    "grouped heads": dict(hidden_size=64, intermediate_size=128, num_key_value_heads=2, head_dim=32),
    "biases": dict(hidden_size=64, intermediate_size=192, attention_bias=True, mlp_bias=True),
    "tied": dict(hidden_size=128, intermediate_size=64, tie_word_embeddings=True),
}
CONFIGS = ALIGNED | {
    "blocks across rows": dict(num_key_value_heads=2, head_dim=10, mlp_bias=True),  # 48, 40 and 80 columns
    "a block and a half": dict(hidden_size=64, intermediate_size=96),
    "odd sizes": dict(hidden_size=33, num_attention_heads=3, head_dim=10, intermediate_size=77, vocab_size=101),
}
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FP4 = [0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4]  # by code, and from 8 on the negatives


def nf4_codes():
    """Quantiles of the normal distribution, 8 above 0 and 7 below it, so that 0 is one of the 16 (QLoRA, sect. 3)."""
    offset = 0.9677083  # the authors' 1 - (1/30 + 1/32) / 2, as their code writes it
    above = torch.special.ndtri(torch.linspace(offset, 0.5, 9, dtype=torch.float64)[:-1])
    below = -torch.special.ndtri(torch.linspace(offset, 0.5, 8, dtype=torch.float64)[:-1])
    codes = torch.cat((below, torch.zeros(1, dtype=torch.float64), above)).sort().values
    return codes / codes.abs().max()


def by_hand(linear):
    """float64 weights from the numbers that a projection holds."""
    if linear.weight.dtype == torch.int8:
        return linear.weight.data.double() * linear.weight.SCB.double()[:, None] / 127
    state, packed = linear.weight.quant_state, linear.weight.data.flatten().long()
    codes = nf4_codes() if state.quant_type == "nf4" else torch.tensor([*FP4, *(-c for c in FP4)], dtype=torch.float64)
    scales = state.absmax.double()
    if state.nested:  # 256 of them share a second scale
        second = state.state2.absmax.double().repeat_interleave(256)[: len(scales)]
        scales = state.state2.code.double()[state.absmax.long()] * second + state.offset.double()
    found = codes[torch.stack((packed >> 4, packed & 15), dim=1).flatten()]  # two in a byte, the first on top
    size = state.shape.numel()
    return (found[:size] * scales.repeat_interleave(64)[:size]).view(state.shape)


def projections(model):
    """Of ours or of transformers', by their names in a checkpoint."""
    return {
        name.removeprefix("model.").replace("qkv_proj.", "").replace("gate_up_proj.", ""): module
        for name, module in model.named_modules()
        if is_quantized(module)
    }


def numbers(linear):
    """All that a projection keeps of its weight."""
    if linear.weight.dtype == torch.int8:
        return [linear.weight.data, linear.weight.SCB]
    state = linear.weight.quant_state
    return [linear.weight.data, state.absmax, *([state.offset, state.state2.absmax] if state.nested else [])]


def theirs(folder, quantize, double_quant, dtype):
    config = BitsAndBytesConfig(load_in_8bit=True)
    if quantize != "int8":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantize,
            bnb_4bit_use_double_quant=double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    return LlamaForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=config, device_map="cpu").eval()


def ids_of(*shape):
    return torch.randint(0, 97, shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def plain_kernels(monkeypatch):
    """As on a CPU without AVX512-BF16, so that 4 bits are rounded no further."""
    monkeypatch.setattr(quantization.library().nn.modules, "has_avx512bf16", lambda: False)


def models():
    """Fast: every scheme on the first config, and on the others one scheme of 8 bits and one of 4."""
    for config, scheme in product(CONFIGS, SCHEMES):
        is_fast = config == "grouped heads" or scheme in (("int8", False), ("nf4", True))
        yield pytest.param(config, *scheme, marks=[pytest.mark.exhaustive] * (not is_fast))


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.exhaustive), torch.bfloat16], ids=str)
@pytest.mark.parametrize(("config", "quantize", "double_quant"), models())
@torch.no_grad()
def test_as_transformers_quantizes(llama_folder, config, quantize, double_quant, dtype):
    folder = llama_folder(dtype=torch.bfloat16, **CONFIGS[config])
    ours = Llama.from_pretrained(folder, dtype, quantize=quantize, double_quant=double_quant)
    other = theirs(folder, quantize, double_quant, dtype)
    found, expected = projections(ours), projections(other)
    assert found.keys() == expected.keys() and len(found) == 3 * len(MATRICES)
    for name, linear in found.items():
        for mine, wanted in zip(numbers(linear), numbers(expected[name]), strict=True):
            assert mine.dtype == wanted.dtype and torch.equal(mine, wanted), name
        assert quantize == "int8" or linear.compute_dtype == expected[name].compute_dtype == dtype
    if config in ALIGNED or quantize == "int8":  # other sizes bitsandbytes gets wrong in 4 bits, or stops at
        for name, linear in found.items():
            x = 3 * torch.randn(5, linear.in_features, generator=torch.Generator().manual_seed(1)).to(dtype)  # up to 9
            assert torch.equal(linear(x), expected[name](x)), name
        logits, wanted = ours(ids_of(2, 20)), other(ids_of(2, 20)).logits.float()
        spread = (wanted - Llama.from_pretrained(folder)(ids_of(2, 20))).abs().max()  # what quantizing does
        assert (logits - wanted).abs().max() < 0.15 * spread


@pytest.mark.parametrize(("config", "quantize", "double_quant"), models())
@torch.no_grad()
def test_weights_and_logits_by_hand(llama_folder, plain_kernels, config, quantize, double_quant):
    folder = llama_folder(**CONFIGS[config])
    model = Llama.from_pretrained(folder, quantize=quantize, double_quant=double_quant)
    tensors, stored = stored_tensors(model), load_file(folder / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {name: t.shape for name, t in stored.items()}
    for name, linear in projections(model).items():
        weight = by_hand(linear)
        torch.testing.assert_close(tensors[f"model.{name}.weight"].double(), weight, rtol=1e-5, atol=1e-7)
        stored[f"model.{name}.weight"] = weight.float()
    for name, tensor in stored.items():  # all else is as it was
        assert "_proj.weight" in name or torch.equal(tensors[name], tensor)
    save_file(stored, folder / "model.safetensors")
    logits, wanted = model(ids_of(2, 20)), Llama.from_pretrained(folder)(ids_of(2, 20))
    if quantize == "int8":  # whose product rounds its input too: 1 / 254 of a row's greatest at most
        assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()
    else:
        torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-4)


def test_an_adapter_is_merged_before(llama_folder, tmp_path):
    """The numbers are those of a checkpoint that holds the merged weights."""
    folder, adapter = llama_folder(), tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["v_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    name = "base_model.model.model.layers.{}.self_attn.v_proj.lora_{}.weight"
    factors = {name.format(layer, f): torch.randn((2, 48) if f == "A" else (48, 2)) for layer in range(3) for f in "AB"}
    save_file(factors, adapter / "adapter_model.safetensors")
    found = Llama.from_pretrained(folder, adapter=adapter, quantize="nf4")
    plain = Llama.from_pretrained(folder, quantize="nf4")
    merged = stored_tensors(Llama.from_pretrained(folder, adapter=adapter))
    save_file({name: tensor.contiguous() for name, tensor in merged.items()}, folder / "model.safetensors")
    expected = projections(Llama.from_pretrained(folder, quantize="nf4"))
    for name, linear in projections(found).items():
        pairs = zip(numbers(linear), numbers(expected[name]), strict=True)
        assert all(torch.equal(mine, wanted) for mine, wanted in pairs)
        assert torch.equal(linear.weight.data, projections(plain)[name].weight.data) == ("v_proj" not in name)


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 90), seed=st.integers(0, 99), scheme=st.sampled_from(SCHEMES[:3])
)
def test_every_weight_becomes_the_nearest_number(rows, columns, seed, scheme):
    """The error is half a step at most, and a whole piece more or less does not matter (AT_ONCE)."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).half().float()
    found = dequantized_weight(weight, *scheme)
    if scheme[0] == "int8":
        steps = weight.abs().amax(dim=1, keepdim=True) / 127
        assert (found - weight).abs().le(0.5 * steps * (1 + 1e-3)).all()
        return
    codes = nf4_codes() if scheme[0] == "nf4" else torch.tensor([*FP4, *(-c for c in FP4)], dtype=torch.float64)
    blocks = weight.flatten().double().split(64)
    scales = torch.cat([block.abs().max().expand(len(block)) for block in blocks])
    errors = (weight.flatten()[:, None].double() - codes * scales[:, None]).abs().amin(dim=1)
    assert torch.allclose((found - weight).abs().flatten().double(), errors, rtol=0, atol=1e-5)


def dequantized_weight(weight, quantize, double_quant):
    """By way of a model's only projection."""
    linear = torch.nn.ModuleDict({"layers": torch.nn.Sequential(torch.nn.Linear(*weight.shape[::-1], bias=False))})
    quantization.prepare(linear, quantize, double_quant, torch.float32)
    module = linear["layers"][0]
    module.weight = quantization.quantized(module, weight)
    return quantization.dequantized(module)


@pytest.mark.parametrize(("quantize", "double_quant"), SCHEMES)
def test_pieces_change_nothing(monkeypatch, quantize, double_quant):
    weight = torch.randn(70, 200, generator=torch.Generator().manual_seed(1))
    whole = dequantized_weight(weight, quantize, double_quant)
    monkeypatch.setattr(quantization, "AT_ONCE", 640)
    assert torch.equal(dequantized_weight(weight, quantize, double_quant), whole)


def test_double_quantization_rounds_the_scales_alone():
    """8 bits between the least and the greatest scale: the weights move by less than a hundredth of the greatest."""
    weight = torch.randn(256, 640, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.5, 1, 256)[:, None]
    once, twice = (dequantized_weight(weight, "nf4", double_quant) for double_quant in (False, True))
    assert 0 < (once - twice).abs().max() < 0.01 * weight.abs().max()
    assert torch.equal(once == 0, twice == 0)


@pytest.mark.parametrize(("quantize", "double_quant"), SCHEMES)
@torch.no_grad()
def test_the_fast_kernel_agrees_with_the_plain_one(llama_folder, monkeypatch, quantize, double_quant):
    """On a CPU with AVX512-BF16 4 bits round input and scales to bfloat16; elsewhere both are the same."""
    folder = llama_folder(**ALIGNED["grouped heads"])
    model = Llama.from_pretrained(folder, quantize=quantize, double_quant=double_quant)
    before = stored_tensors(model)
    fast = model(ids_of(2, 20))
    monkeypatch.setattr(quantization.library().nn.modules, "has_avx512bf16", lambda: False)
    plain = Llama.from_pretrained(folder, quantize=quantize, double_quant=double_quant)(ids_of(2, 20))
    assert (fast - plain).abs().max() < 0.03 * plain.abs().max()
    for name, tensor in stored_tensors(model).items():  # the packed weight can be read, and stays as it is
        torch.testing.assert_close(tensor.float(), before[name], rtol=2**-6, atol=1e-6)
    assert torch.equal(model(ids_of(2, 20)), fast)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("quantize", "double_quant"), SCHEMES)
@torch.no_grad()
def test_step_by_step(llama_folder, quantize, double_quant, dtype):
    """A padded prefill, ragged steps and dropped rows give what the whole rows give at once."""
    model = Llama.from_pretrained(llama_folder(), dtype, quantize=quantize, double_quant=double_quant)
    ids, lengths = ids_of(3, 20), [3, 9, 5]
    cache = model.new_cache(3, 20)
    assert (model.dtype, cache.keys.dtype, model.device.type) == (dtype, dtype, "cpu")
    model(ids[:, :9], cache)
    step = torch.stack([ids[row, length] for row, length in enumerate(lengths)])[:, None]
    model(step, cache, Slots.ragged(lengths, ids.device))
    cache.drop(0)  # rows 2 and 1 are left
    lengths = [6, 10]
    step = torch.stack([ids[2, 6], ids[1, 10]])[:, None]
    logits = model(step, cache, Slots.ragged(lengths, ids.device))[:, -1]
    for found, row, length in zip(logits, (2, 1), lengths, strict=True):
        whole = model(ids[row : row + 1, : length + 1])[0, -1]
        assert (found - whole).abs().max() < 0.1 * whole.abs().max()


@pytest.mark.parametrize(
    ("quantize", "double_quant"),
    [SCHEMES[0], SCHEMES[3], *(pytest.param(*s, marks=pytest.mark.exhaustive) for s in SCHEMES[1:3])],
)
@torch.no_grad()
def test_generate(quantize, double_quant):
    """The storyteller, whose down_proj no block of 64 divides: rows that end at different steps, told with what
    probability each token was drawn, which one pass over the whole text must confirm."""
    llama = Llama.from_pretrained(dtype=None, quantize=quantize, double_quant=double_quant)
    tokenizer = Tokenizer.from_pretrained()
    assert llama.dtype == torch.bfloat16
    prompts = ["Once upon a time", "The king said"]
    ends = tokenizer.encode(", . and the of", bos=False)
    texts = generate(
        llama,
        tokenizer,
        prompts,
        max_new_tokens=24,
        seed=3,
        num_return_sequences=2,
        eos_token_id=ends,
        temperature=1.0,
    )
    assert len({len(text.ids) for row in texts for text in row}) > 1
    apart = []
    for prompt, row in zip(prompts, texts, strict=True):
        for text in row:
            ids = tokenizer.encode(prompt) + text.ids
            logprobs = llama(torch.tensor([ids]))[0, -len(text.ids) - 1 : -1].log_softmax(-1)
            expected = logprobs[range(len(text.ids)), text.ids]
            apart.append((torch.tensor(text.model_logprobs) - expected).abs())
    assert torch.cat(apart).max() < 0.3 and torch.cat(apart).mean() < 0.05


def test_what_cannot_be_done_is_refused(llama_folder, monkeypatch):
    folder = llama_folder()
    for options, message in (
        (dict(quantize="int4"), "quantize must be one of int8, nf4, fp4, or None, got 'int4'"),
        (dict(quantize="int8", double_quant=True), "with quantize='nf4' or 'fp4', got quantize='int8'"),
        (dict(double_quant=True), "double_quant must go with quantize='nf4' or 'fp4', got quantize=None"),
        (dict(quantize="nf4", dtype=torch.float64), "dtype must be float32, float16, bfloat16 or None"),
    ):
        with pytest.raises(ValueError, match=message):
            Llama.from_pretrained(folder, **options)
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError) as caught:
        Llama.from_pretrained(folder, quantize="nf4")
    assert str(caught.value) == f"quantize='nf4' needs bitsandbytes: {how_to_install('quant')}"
    Llama.from_pretrained(folder)  # and nobody else needs it


def test_the_command_line(capsys, monkeypatch):
    assert main(["generate", "-p", "The king", "-n", "4", "--quantize", "nf4", "--double-quant"]) == 0
    assert capsys.readouterr().out.startswith("The king")
    assert main(["generate", "-p", "The king", "-n", "4", "--double-quant"]) != 0
    assert "double_quant must go with quantize" in capsys.readouterr().err
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    assert main(["generate", "-p", "The king", "-n", "4", "--quantize", "int8"]) != 0
    assert f"needs bitsandbytes: {how_to_install('quant')}" in capsys.readouterr().err


QUIET = """
import torch
from model import Llama
for scheme in ("int8", "nf4"):
    for dtype in (torch.float32, torch.float16):
        Llama.from_pretrained(dtype=dtype, quantize=scheme)(torch.tensor([[1, 2]]))
"""


@pytest.mark.exhaustive
def test_nothing_is_printed():
    """Of two warnings of bitsandbytes that nobody can act on; others come through."""
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout + done.stderr == ""
    record = logging.LogRecord("bitsandbytes", logging.WARNING, "", 0, "CUDA is broken", (), None)
    assert quantization.worth_showing(record)


MEASURE = """
import sys, torch
from pathlib import Path
from bench.loading.memory import weight_tensors
from model import Llama

def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

Llama.from_pretrained(sys.argv[1], None, quantize=sys.argv[3])  # a small one first: libraries and buffers
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
llama = Llama.from_pretrained(sys.argv[2], None, quantize=sys.argv[3])
print((status("VmHWM") - before) / sum(t.numel() * t.element_size() for t in weight_tensors(llama)))
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be measured on Linux alone")
def test_peak_memory_stays_near_the_quantized_weights(llama_folder):
    """82 MiB of weights in bfloat16 become 41; one tensor at a time is there twice, and a piece of it more often."""
    small = llama_folder("small", dtype=torch.bfloat16)
    size = dict(vocab_size=64, hidden_size=512, intermediate_size=1536, num_hidden_layers=13, num_attention_heads=8)
    large = llama_folder("large", dtype=torch.bfloat16, **size)
    command = [sys.executable, "-c", MEASURE, str(small), str(large), "int8"]
    peaks = [
        float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path.cwd()).stdout)
        for _ in range(3)  # the kernel's own pages add up to a half on a busy machine, now and then
    ]
    assert 0.9 < statistics.median(peaks) < 1.6
