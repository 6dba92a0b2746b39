"""LoRA adapters, made by PEFT on small Llamas. The oracle is PEFT: from the same folders it has the same logits."""

import json
import shutil
import warnings
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from model import Llama, Tokenizer
from model.cli import main
from model.loading.lora import LoraConfig
from model.loading.weights import stored_tensors

IDS = torch.tensor([[1, 5, 9, 33, 2, 60]])
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


@pytest.fixture(autouse=True)
def no_model_card(monkeypatch):
    """PEFT writes one beside each adapter, which takes as long as the rest."""
    monkeypatch.setattr(PeftModel, "create_or_update_model_card", lambda *_: None)


def make_adapter(folder, config=None, cast=None):
    """An adapter for the Llama in `folder`, random in every tensor that PEFT trains, saved by PEFT."""
    path = folder.parent / "adapter"
    shutil.rmtree(path, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT talks about tied weights, fan_in_fan_out and saved embeddings
        config = PeftLoraConfig(**({"r": 4, "target_modules": ATTENTION, "task_type": "CAUSAL_LM"} | (config or {})))
        peft = get_peft_model(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), config)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in (p for p in peft.parameters() if p.requires_grad):
                parameter.copy_(torch.randn_like(parameter) * 0.2)
        peft.save_pretrained(path)
    if cast is not None:
        rewrite(path, lambda tensors: tensors.update({name: t.to(cast) for name, t in tensors.items()}))
    return path


def rewrite(adapter, change):
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


def reconfigure(adapter, **changes):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def peft_logits(folder, adapter):
    """As PEFT computes them, with A and B beside the weights and merged into them."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        peft = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), adapter).eval()
        beside = peft(IDS).logits
        return beside, peft.merge_and_unload()(IDS).logits


def agrees(folder, adapter):
    ours = Llama.from_pretrained(folder, adapter=adapter)(IDS)
    for theirs in peft_logits(folder, adapter):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, Llama.from_pretrained(folder)(IDS), atol=0.1)  # the adapter does something


def refused(folder, adapter, error, *parts):
    with pytest.raises(error) as caught:
        Llama.from_pretrained(folder, adapter=adapter)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


CONFIGS = {
    "alpha": {"lora_alpha": 3},
    "rslora": {"use_rslora": True, "lora_alpha": 6},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\..*\.o_proj": 6, "model.layers.2.self_attn.v_proj": 1, "_proj": 40},
        "alpha_pattern": {"self_attn.q_proj": 16, ".*v_proj": 5, "layers": 100},
    },
    "patterns with rslora": {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"k_proj": 2}},
    "default targets": {"target_modules": None},
    "one module": {"target_modules": ["model.layers.1.mlp.gate_proj"]},
    "regex": {"target_modules": r".*\.(gate|up|down)_proj"},
    "all-linear": {"target_modules": "all-linear", "exclude_modules": ["o_proj", "layers.0.mlp.up_proj"]},
    "exclude by regex": {"exclude_modules": r"model\.layers\.[01]\..*q_proj"},
    "one layer": {"layers_to_transform": 1},
    "layers": {"layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "one layer of any pattern": {"layers_to_transform": [1], "layers_pattern": ""},
    "layers by one of two patterns": {"layers_to_transform": [2], "layers_pattern": ["h", "layers"]},
    "an exact name heeds no layers": {
        "layers_to_transform": [2],
        "target_modules": ["model.layers.0.mlp.up_proj", "k_proj"],
    },
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"], "use_rslora": True},
    "embedding and head, with the rest": {"target_modules": r".*(_proj|lm_head|embed_tokens)"},
    "whole modules": {"modules_to_save": ["lm_head", "embed_tokens", "post_attention_layernorm"]},
    "a whole block": {"modules_to_save": ["layers.1.mlp"], "target_modules": "all-linear"},
    "fan_in_fan_out, of which a Llama has none": {"fan_in_fan_out": True},
    "gaussian": {"init_lora_weights": "gaussian", "lora_dropout": 0.3, "inference_mode": False},
}


TARGETS = (  # test_modules_are_matched_as_peft_matches_them has them too
    "one module",
    "exclude by regex",
    "one layer",
    "one layer of any pattern",
    "layers by one of two patterns",
    "an exact name heeds no layers",
)


@pytest.mark.parametrize(
    "config",
    [pytest.param(c, id=name, marks=[pytest.mark.exhaustive] * (name in TARGETS)) for name, c in CONFIGS.items()],
)
def test_logits_are_those_of_peft(llama_folder, config):
    folder = llama_folder(num_key_value_heads=2)
    agrees(folder, make_adapter(folder, config))


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases(llama_folder, bias):
    folder = llama_folder(attention_bias=True, mlp_bias=True)
    adapter = make_adapter(folder, {"bias": bias, "target_modules": ["q_proj", "down_proj"]})
    assert any(name.endswith("bias") for name in load_file(adapter / "adapter_model.safetensors"))
    agrees(folder, adapter)


@pytest.mark.parametrize("cast", [torch.float16, torch.bfloat16])
def test_half_precision_adapters_and_bases(llama_folder, cast):
    folder = llama_folder(dtype=cast)
    agrees(folder, make_adapter(folder, {"target_modules": "all-linear"}, cast))


def test_sharded_and_tied_bases(llama_folder):
    folder = llama_folder(max_shard_size="40KB", tie_word_embeddings=True)
    agrees(folder, make_adapter(folder, {"target_modules": "all-linear"}))


@pytest.mark.parametrize("targets", [None, "all-linear", "ALL-LINEAR"])
def test_targets_that_peft_writes_out_when_it_saves(llama_folder, targets):
    folder = llama_folder()
    adapter = make_adapter(folder, {"target_modules": targets})
    reconfigure(adapter, target_modules=targets)
    agrees(folder, adapter)


def test_a_name_with_its_own_adapter_in_it(llama_folder):
    """`lora_A.default.weight`, as a plain state_dict has it; PEFT reads it too."""
    folder = llama_folder()
    adapter = make_adapter(folder)
    rewrite(adapter, lambda t: [t.update({k.replace(".weight", ".default.weight"): t.pop(k)}) for k in list(t)])
    agrees(folder, adapter)


def test_a_configuration_of_the_first_peft(llama_folder):
    """Few fields, two of which are gone today; the oracle is the same adapter with today's."""
    folder = llama_folder()
    adapter = make_adapter(folder, {"r": 8, "lora_alpha": 16})
    today = Llama.from_pretrained(folder, adapter=adapter)(IDS)
    old = {
        "base_model_name_or_path": "/nowhere",
        "bias": "none",
        "enable_lora": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "merge_weights": False,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 8,
        "target_modules": ATTENTION,
        "task_type": "CAUSAL_LM",
    }
    (adapter / "adapter_config.json").write_text(json.dumps(old))
    assert torch.equal(Llama.from_pretrained(folder, adapter=adapter)(IDS), today)


def test_the_sum_is_rounded_once(llama_folder):
    """W + scale · B · A in float64 from the files, rounded to bfloat16, is what a bfloat16 model holds."""
    folder = llama_folder()
    adapter = make_adapter(folder, {"target_modules": ["down_proj"], "lora_alpha": 3})
    tensors = {k: t.double() for k, t in load_file(adapter / "adapter_model.safetensors").items()}
    merged = stored_tensors(Llama.from_pretrained(folder, adapter=adapter, dtype=torch.bfloat16))
    for name, base in load_file(folder / "model.safetensors").items():
        module = "base_model.model." + name.removesuffix(".weight")
        if "down_proj" in name:
            base = base.double() + 3 / 4 * tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]
        exact = (merged[name] == base.to(torch.bfloat16)).float().mean()
        assert exact == 1 if "down_proj" not in name else exact > 0.99  # a float32 sum may fall on the other side


def test_merged_first_and_quantized_then(llama_folder):
    """Int8 keeps the merged weights, rounded to float16, to half of a 127th of each row's largest."""
    pytest.importorskip("bitsandbytes")
    folder = llama_folder()
    adapter = make_adapter(folder, {"target_modules": ["down_proj"]})
    kept = stored_tensors(Llama.from_pretrained(folder, adapter=adapter, quantize="int8"))
    for name, merged in stored_tensors(Llama.from_pretrained(folder, adapter=adapter)).items():
        if "_proj" in name:
            step = merged.abs().amax(1, keepdim=True) / 127
            assert ((kept[name] - merged).abs() <= 0.6 * step).all()


def test_the_files_stay_as_they_are(llama_folder):
    folder = llama_folder()
    adapter = make_adapter(folder)
    paths = [path for parent in (folder, adapter) for path in parent.iterdir()]
    before = {path: path.read_bytes() for path in paths}
    Llama.from_pretrained(folder, adapter=adapter)
    assert {path: path.read_bytes() for path in paths} == before


def test_the_command(capsys, tmp_path):
    """An adapter of rank 1 that adds the embedding of a word to the last layer's output, hence to the word's logit."""
    llama, tok = Llama.from_pretrained().unpack(), Tokenizer.from_pretrained()  # hooks need torch's modules
    (dragon,) = tok.encode("dragon", bos=False)
    name = "base_model.model.model.layers.4.mlp.down_proj"
    inputs = []
    llama.layers[4].mlp.down_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0]))
    llama(torch.tensor([tok.encode("Once upon a time there was a king.")]))
    a, b = inputs[0].mean(0), llama.embed_tokens.weight[dragon].detach()
    factors = {f"{name}.lora_A.weight": a[None] / a.norm() ** 2, f"{name}.lora_B.weight": b[:, None].clone()}
    save_file(factors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 16, "target_modules": ["layers.4.mlp.down_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    command = ["generate", "-p", "Once upon a time there was", "-n", "20", "--temperature", "0"]
    assert main(command) == 0
    assert "dragon" not in capsys.readouterr().out
    assert main([*command, "--adapter", str(tmp_path)]) == 0
    assert "dragon" in capsys.readouterr().out
    assert main([*command, "--adapter", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


# Configurations over the names of a Llama of 12 layers; the oracle is the function that PEFT itself decides by.
MODULES = [f"model.layers.{i}.{m}" for i in (0, 1, 11) for m in ("self_attn.q_proj", "mlp.up_proj")]
MODULES += ["model.embed_tokens", "lm_head"]
ENDINGS = st.sampled_from(
    ["q_proj", "proj", "mlp.up_proj", "self_attn", "1.mlp.up_proj", "lm_head", "tokens", *MODULES]
)
REGEXES = st.sampled_from(
    [
        ".*",
        "q_proj",
        "model.layers",
        r".*\.1\..*",
        r"model\.layers\.\d\.mlp\..*|lm_head",
        "1.self_attn.q_proj",
        "(l)m.*",
    ]
)
NUMBERS = st.integers(1, 64)


@given(
    target_modules=st.lists(ENDINGS, min_size=1) | REGEXES,
    exclude_modules=st.lists(ENDINGS, max_size=2) | REGEXES | st.none(),
    layers_to_transform=st.none() | st.integers(0, 12) | st.lists(st.integers(0, 12), max_size=3),
    layers_pattern=st.sampled_from([None, [], "", "layers", "lay.*", "h", ["h", "layers"], ["layers", "h"]]),
    modules_to_save=st.none() | st.lists(st.sampled_from(["lm_head", "mlp", "layers.1", "tokens", "proj"]), max_size=2),
)
def test_modules_are_matched_as_peft_matches_them(**given_fields):
    if isinstance(given_fields["target_modules"], str):
        given_fields["layers_to_transform"] = None
    ours = LoraConfig.from_dict({"peft_type": "LORA", **given_fields})
    lists_as_sets = {k: set(v) if isinstance(v, list) and k[-7:] == "modules" else v for k, v in given_fields.items()}
    theirs = SimpleNamespace(**lists_as_sets)
    for module in MODULES:
        assert ours.targets(module) == bool(check_target_module_exists(theirs, module)), module


@given(
    r=NUMBERS,
    alpha=NUMBERS | st.floats(0.01, 100),
    rslora=st.booleans(),
    ranks=st.dictionaries(ENDINGS | REGEXES, NUMBERS, max_size=4),
    alphas=st.dictionaries(ENDINGS | REGEXES, NUMBERS, max_size=4),
)
def test_ranks_and_scales_are_those_of_peft(r, alpha, rslora, ranks, alphas):
    ours = LoraConfig(r, alpha, rslora, rank_pattern=ranks, alpha_pattern=alphas)
    for module in MODULES:
        rank = ranks.get(get_pattern_key(ranks.keys(), module), r)
        assert ours.rank(module) == rank
        numerator = alphas.get(get_pattern_key(alphas.keys(), module), alpha)
        assert ours.scale(module) == numerator / (rank**0.5 if rslora else rank)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("peft_type", "IA3", "peft_type must be one of LORA, got 'IA3'"),
        ("task_type", "SEQ_CLS", "task_type must be one of CAUSAL_LM, None, got 'SEQ_CLS'"),
        ("bias", "some", "bias must be one of none, all, lora_only, None, got 'some'"),
        *[
            ("init_lora_weights", value, f"got {value!r}")
            for value in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")
        ],
        *[
            (field, value, f"{field!r} is not supported: must be absent, null, false or empty, got {value!r}")
            for field, value in [
                ("use_dora", True),
                ("lora_bias", True),
                ("layer_replication", [[0, 2], [1, 3]]),
                ("megatron_config", {"a": 1}),
                ("trainable_token_indices", [5]),
                ("target_parameters", ["q_proj.weight"]),
                ("alora_invocation_tokens", [1, 2]),
                ("use_qalora", True),
                ("use_bdlora", {"nblocks": 2}),
                ("kasa_config", {"beta": 1e-4}),
                ("enable_lora", [True, False, True]),
                ("of_next_year", 1),
            ]
        ],
        ("r", 0, "r must be an integer >= 1 and < 2^31, got 0"),
        ("lora_alpha", "16", "lora_alpha must be a number between -2^31 and 2^31, got '16'"),
        ("lora_alpha", 10**400, "lora_alpha must be a number between"),
        ("lora_alpha", float("nan"), "lora_alpha must be a number between -2^31 and 2^31, got nan"),
        ("use_rslora", 1, "use_rslora must be true or false, got 1"),
        ("rank_pattern", {"q_proj": 2.0}, "rank_pattern['q_proj'] must be an integer >= 1 and < 2^31, got 2.0"),
        ("alpha_pattern", {"q_proj": True}, "alpha_pattern['q_proj'] must be a number"),
        ("alpha_pattern", [1], "alpha_pattern must be an object of regexes and numbers, got [1]"),
        ("rank_pattern", {"(": 2}, "the regex '(' is not valid"),
        ("target_modules", "*", "the regex '*' is not valid"),
        ("target_modules", 7, "target_modules must be str or a list of str, got 7"),
        ("target_modules", [], "target_modules must match a linear layer or the embedding of this Llama, got ()"),
        ("target_modules", ["query_key_value"], "must match a linear layer or the embedding of this Llama"),
        ("layers_to_transform", [True], "layers_to_transform must be int or a list of int, got (True,)"),
        ("layers_pattern", [1], "layers_pattern must be str or a list of str, got (1,)"),
        ("modules_to_save", {"a": 1}, "modules_to_save must be str or a list of str, got {'a': 1}"),
    ],
)
def test_configurations_that_are_refused(llama_folder, field, value, message):
    folder = llama_folder(num_hidden_layers=1)
    adapter = make_adapter(folder)
    reconfigure(adapter, **{field: value})
    refused(folder, adapter, ValueError, "adapter_config.json", message)


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules"])
def test_a_regex_that_never_ends_elsewhere(llama_folder, field):
    """`re` would try 2^30 ways through it, for every module."""
    folder = llama_folder()
    adapter = make_adapter(folder)
    reconfigure(adapter, **{field: r"(([a-z.0-9_])+)+\!"})
    if field == "target_modules":
        refused(folder, adapter, ValueError, "target_modules must match a linear layer")
    else:
        Llama.from_pretrained(folder, adapter=adapter)


def test_a_regex_takes_no_layers(llama_folder):
    folder = llama_folder()
    adapter = make_adapter(folder)
    reconfigure(adapter, target_modules=".*", layers_to_transform=[1])
    refused(folder, adapter, ValueError, "layers_to_transform needs a list of target_modules, got '.*'")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(A), f"tensor {A!r} is missing, though adapter_config.json speaks of its module"),
        (lambda t: t.pop(B), f"tensor {B!r} is missing"),
        (lambda t: [t.pop(A), t.pop(B)], f"tensor {A!r} is missing"),
        (lambda t: t.update({A: torch.zeros(5, 48)}), f"tensor {A!r} must have shape (4, 48), got (5, 48)"),
        (lambda t: t.update({B: torch.zeros(4, 48)}), f"tensor {B!r} must have shape (48, 4), got (4, 48)"),
        (lambda t: t.update({A: torch.zeros(4, 48, dtype=torch.int8)}), f"tensor {A!r} must be one of F64, F32, F16"),
        *[
            (lambda t, name=name: t.update({name: torch.zeros(4, 48)}), f"tensor {name!r} is no part of the adapter")
            for name in (
                A.replace("layers.0", "layers.3"),  # a layer that the model does not have
                A.replace("q_proj", "query"),
                A.replace("self_attn.q_proj", "mlp.up_proj"),  # one that the configuration does not speak of
                A.removeprefix("base_model.model."),
                A.replace("lora_A.weight", "lora_magnitude_vector"),
                A.replace("lora_A", "lora_embedding_A"),
            )
        ],
        (lambda t: t.update({A.replace("weight", "default.weight"): t[A].clone()}), "says the same as"),
    ],
)
def test_tensors_that_are_refused(llama_folder, change, message):
    folder = llama_folder()
    adapter = make_adapter(folder)
    rewrite(adapter, change)
    refused(folder, adapter, ValueError, "adapter_model.safetensors: tensor", message)


def test_a_rank_other_than_the_configuration_says(llama_folder):
    folder = llama_folder()
    adapter = make_adapter(folder)
    reconfigure(adapter, r=8)
    refused(folder, adapter, ValueError, "lora_A.weight' must have shape (8, 48), got (4, 48)")


def test_whole_modules_that_are_not_there(llama_folder):
    folder = llama_folder()
    adapter = make_adapter(folder)
    reconfigure(adapter, modules_to_save=["lm_head"])
    refused(folder, adapter, ValueError, "tensor 'base_model.model.lm_head.weight' is missing")


@pytest.mark.parametrize(
    "config",
    [{"target_modules": ["q_proj", "lm_head"]}, {"target_modules": ["embed_tokens"]}, {"modules_to_save": ["lm_head"]}],
)
def test_tied_embeddings_are_not_changed(llama_folder, config):
    """PEFT changes one of the two beside the weights, both when it merges: no answer is right."""
    folder = llama_folder(tie_word_embeddings=True)
    adapter = make_adapter(folder, config)
    refused(folder, adapter, ValueError, "adapter_model.safetensors: tensor", "would change one of two tied embeddings")


def test_folders_that_are_refused(llama_folder):
    folder = llama_folder()
    adapter = make_adapter(folder)
    refused(folder, adapter / "nowhere", FileNotFoundError, "nowhere: no such folder")
    weights, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size - 100)
    refused(folder, adapter, ValueError, "adapter_model.safetensors: truncated")
    weights.unlink()
    refused(folder, adapter, FileNotFoundError, "adapter_model.safetensors: no such file")
    (adapter / "adapter_model.bin").write_bytes(b"never read")
    refused(folder, adapter, FileNotFoundError, "found adapter_model.bin, a pickle, which could run code")
    config.write_text("[]")
    refused(folder, adapter, ValueError, "adapter_config.json: must hold a JSON object, got list")
    config.unlink()
    refused(folder, adapter, FileNotFoundError, "adapter_config.json: no such file")


def test_an_adapter_for_another_model(llama_folder):
    adapter = make_adapter(llama_folder("other", hidden_size=64), {"target_modules": ["q_proj"]})
    refused(llama_folder(), adapter, ValueError, "lora_A.weight' must have shape (4, 48), got (4, 64)")
