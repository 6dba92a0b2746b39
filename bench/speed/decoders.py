"""Engines that continue prompts, for `alea bench decode`: ours, transformers and llama.cpp, on the same weights."""

from __future__ import annotations

import ctypes
import tempfile
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from bench.peers.base import Unavailable
from bench.peers.gguf import write_gguf
from bench.peers.llama_cpp import llama_api
from model import Llama, Tokenizer, generate
from model.config import BUILT_IN
from model.kv_cache import Slots

SAMPLING = {"temperature": 0.8, "top_p": 0.95}


class Decoder(Protocol):
    """One engine with a model loaded."""

    def generate(self, new_tokens: int) -> object:
        """Continue every prompt by `new_tokens`, drawn with SAMPLING."""

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """One prompt at once: float32 [V] after it."""


class Alea:
    """Our `generate`."""

    def __init__(self, folder: Path, prompts: list[list[int]], weights: torch.dtype) -> None:
        self.llama = Llama.from_pretrained(folder, weights=weights)
        tokenizer = Tokenizer.from_pretrained(BUILT_IN if not (folder / "tokenizer.model").exists() else folder)
        self.call = partial(generate, self.llama, tokenizer, prompts, eos_token_id=(), seed=0, model_logprobs=False)

    def generate(self, new_tokens: int) -> object:
        return self.call(max_new_tokens=new_tokens, **SAMPLING)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> np.ndarray:
        hidden = self.llama.hidden(torch.tensor([list(ids)]), slots=Slots.prompts([len(ids)], self.llama.device))
        return self.llama.logits(hidden[0, -1]).numpy()


class Transformers:
    """transformers' `generate` with its own warpers; weights and activations in dtype."""

    def __init__(self, folder: Path, prompts: list[list[int]], weights: torch.dtype) -> None:
        try:
            from transformers import GenerationConfig, LlamaForCausalLM
        except ImportError as error:
            raise Unavailable(str(error)) from error
        self.llama = LlamaForCausalLM.from_pretrained(folder, dtype=weights).eval()
        self.llama.generation_config = GenerationConfig()  # no EOS: every sequence runs to its full length
        self.ids = torch.tensor(prompts)

    def generate(self, new_tokens: int) -> object:
        mask = torch.ones_like(self.ids)
        return self.llama.generate(
            self.ids,
            attention_mask=mask,
            pad_token_id=0,
            max_new_tokens=new_tokens,
            do_sample=True,
            top_k=0,
            **SAMPLING,
        )

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self.llama(torch.tensor([list(ids)]), logits_to_keep=1).logits[0, -1].float().numpy()


class LlamaCpp:
    """llama.cpp through llama-cpp-python's low-level API: one batch a step, one sampler chain a sequence."""

    def __init__(self, folder: Path, prompts: list[list[int]], weights: torch.dtype, threads: int) -> None:
        self.api, self.prompts = llama_api(), prompts
        llama = Llama.from_pretrained(folder, weights=weights)
        self.vocabulary = llama.config.vocab_size
        silence(self.api)
        with tempfile.TemporaryDirectory() as home:
            path = Path(home) / "model.gguf"
            write_gguf(llama, weights, path)
            params = self.api.llama_model_default_params()
            params.use_mmap = False
            self.model = self.api.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise Unavailable("llama.cpp can't load the model")
        window = llama.config.max_position_embeddings
        settings = self.api.llama_context_default_params()
        settings.n_ctx = window * len(prompts)
        settings.n_batch = settings.n_ubatch = max(512, sum(map(len, prompts)))
        settings.n_seq_max = len(prompts)
        settings.n_threads = settings.n_threads_batch = threads
        self.context = self.api.llama_init_from_model(self.model, settings)
        self.batch = self.api.llama_batch_init(settings.n_batch, 0, 1)
        weakref.finalize(self, free, self.api, self.model, self.context, self.batch)
        # The batch's arrays as NumPy's, which fill faster than ctypes.
        size = settings.n_batch
        self.token, self.position = (np.ctypeslib.as_array(x, (size,)) for x in (self.batch.token, self.batch.pos))
        self.wanted = np.ctypeslib.as_array(self.batch.logits, (size,))
        np.ctypeslib.as_array(self.batch.n_seq_id, (size,))[:] = 1

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], last: list[int]
    ) -> None:
        """One batch; logits are computed at the places `last`."""
        count = len(tokens)
        self.batch.n_tokens = count
        self.token[:count], self.position[:count], self.wanted[:count] = tokens, positions, 0
        self.wanted[last] = 1
        for i, sequence in enumerate(sequences):
            self.batch.seq_id[i][0] = sequence
        if self.api.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama_decode failed")

    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Returns the places of the prompts' last tokens in the batch."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        tokens = [(i, p, number) for number, prompt in enumerate(prompts) for p, i in enumerate(prompt)]
        last = np.cumsum([len(prompt) for prompt in prompts]) - 1
        ids, positions, sequences = zip(*tokens, strict=True)
        self.decode(ids, positions, sequences, last.tolist())
        return last.tolist()

    def generate(self, new_tokens: int) -> object:
        chains = [self.chain(seed) for seed in range(len(self.prompts))]
        places, texts = self.prefill(self.prompts), [list(prompt) for prompt in self.prompts]
        for step in range(new_tokens):
            for text, chain, place in zip(texts, chains, places, strict=True):
                text.append(self.api.llama_sampler_sample(chain, self.context, place))
            if step + 1 < new_tokens:
                places = list(range(len(texts)))
                self.decode([text[-1] for text in texts], [len(text) - 1 for text in texts], places, places)
        for chain in chains:
            self.api.llama_sampler_free(chain)
        return texts

    def chain(self, seed: int) -> Any:
        chain = self.api.llama_sampler_chain_init(self.api.llama_sampler_chain_default_params())
        for stage in (
            self.api.llama_sampler_init_temp(SAMPLING["temperature"]),
            self.api.llama_sampler_init_top_p(SAMPLING["top_p"], 1),
            self.api.llama_sampler_init_dist(seed),
        ):
            self.api.llama_sampler_chain_add(chain, stage)
        return chain

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        (place,) = self.prefill([ids])
        return np.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, place), (self.vocabulary,)).copy()


def free(api: Any, model: Any, context: Any, batch: Any) -> None:
    api.llama_batch_free(batch)
    api.llama_free(context)
    api.llama_model_free(model)


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def say_nothing(level: int, text: bytes, data: Any) -> None:
    pass


def silence(api: Any) -> None:
    """Its log of a loaded model, which is no error."""
    api.llama_log_set(say_nothing, ctypes.c_void_p(0))
