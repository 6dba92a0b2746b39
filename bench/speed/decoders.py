"""Engines that continue prompts, for `alea bench decode`: ours, torch's, transformers and llama.cpp, on one model."""

from __future__ import annotations

import ctypes
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from bench.peers.base import Unavailable
from bench.peers.gguf import write_gguf
from bench.peers.llama_cpp import llama_api
from model import Llama, Tokenizer, generate
from model.loading.weights import by_columns

WINDOW = 256  # positions that every engine has room for


@dataclass(frozen=True)
class Job:
    """To continue each prompt by `new_tokens`, no token ends a text."""

    folder: Path
    weights: torch.dtype  # that the matrices are stored in
    tokenizer: Tokenizer
    prompts: list[list[int]]  # of one length
    new_tokens: int
    sampling: dict[str, float]  # temperature and top_p


class Decoder(Protocol):
    """An engine with the model of a job loaded; it uses as many threads as torch."""

    def generate(self) -> list[list[int]]:
        """The new tokens of each prompt."""

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """One prompt, read at once: float32 [V] after it."""


class Alea:
    """Our `generate`."""

    def __init__(self, job: Job) -> None:
        self.job, self.llama = job, Llama.from_pretrained(job.folder, weights=job.weights)

    def generate(self) -> list[list[int]]:
        job = self.job
        options: dict[str, Any] = dict(eos_token_id=(), seed=0, model_logprobs=False, **job.sampling)
        rows = generate(self.llama, job.tokenizer, job.prompts, max_new_tokens=job.new_tokens, **options)
        return [row[0].ids for row in rows]

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> np.ndarray:
        hidden = self.llama.hidden(torch.tensor([list(ids)]))
        return self.llama.logits(hidden[0, -1]).numpy()


class Torch(Alea):
    """The same `generate`, but the forward pass is torch's, in float32."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if not self.llama.is_packed:
            raise Unavailable(f"it is what alea uses here: {self.llama.why_not_exact}")
        for module in self.llama.unpack().modules():
            if isinstance(module, nn.Linear):
                module.weight.data = by_columns(module.weight.data)  # torch is fastest so


class Transformers:
    """transformers' `generate` with its own warpers; it computes in the type of the weights."""

    def __init__(self, job: Job) -> None:
        try:
            from transformers import GenerationConfig, LlamaForCausalLM
            from transformers.utils import logging
        except ImportError as error:
            raise Unavailable(str(error)) from error
        logging.disable_progress_bar()
        self.job, self.llama = job, LlamaForCausalLM.from_pretrained(job.folder, dtype=job.weights).eval()
        self.llama.generation_config = GenerationConfig()  # without EOS

    def generate(self) -> list[list[int]]:
        job, ids = self.job, torch.tensor(self.job.prompts)
        options = dict(attention_mask=torch.ones_like(ids), pad_token_id=0, do_sample=True, top_k=0)
        out = self.llama.generate(ids, max_new_tokens=job.new_tokens, **options, **job.sampling)
        return out[:, ids.shape[1] :].tolist()

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self.llama(torch.tensor([list(ids)]), logits_to_keep=1).logits[0, -1].float().numpy()


class LlamaCpp:
    """llama.cpp through llama-cpp-python's low-level API: one batch a step, one sampler chain a sequence."""

    def __init__(self, job: Job) -> None:
        self.job, self.api = job, llama_api()
        self.api.llama_log_set(say_nothing, ctypes.c_void_p(0))
        llama = Llama.from_pretrained(job.folder, weights=job.weights)
        self.vocabulary = llama.config.vocab_size
        self.model = loaded(self.api, llama, job.weights)
        sequences, length = len(job.prompts), len(job.prompts[0])
        settings = self.api.llama_context_default_params()
        settings.n_seq_max, settings.n_ctx = sequences, sequences * max(WINDOW, length + job.new_tokens)
        settings.n_batch = settings.n_ubatch = size = max(WINDOW, sequences * length)
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        self.context = self.api.llama_init_from_model(self.model, settings)
        self.batch = self.api.llama_batch_init(size, 0, 1)
        weakref.finalize(self, free, self.api, self.model, self.context, self.batch)
        arrays = (self.batch.token, self.batch.pos, self.batch.logits, self.batch.n_seq_id)
        # NumPy's views of the batch fill faster than ctypes.
        self.token, self.position, self.wanted, ones = (np.ctypeslib.as_array(x, (size,)) for x in arrays)
        ones[:] = 1

    def decode(self, rows: list[tuple[int, int, int]], wanted: list[int]) -> None:
        """Reads a batch of (token, position, sequence); it computes logits at the places `wanted`."""
        count = self.batch.n_tokens = len(rows)
        self.token[:count], self.position[:count], sequences = zip(*rows, strict=True)
        self.wanted[:count] = 0
        self.wanted[wanted] = 1
        for place, sequence in enumerate(sequences):
            self.batch.seq_id[place][0] = sequence
        if self.api.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama_decode failed")

    def prefill(self, prompts: list[list[int]]) -> list[int]:
        """Returns the places of the last tokens in the batch."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        last = [end - 1 for end in accumulate(map(len, prompts))]
        self.decode([(token, p, i) for i, prompt in enumerate(prompts) for p, token in enumerate(prompt)], last)
        return last

    def generate(self) -> list[list[int]]:
        places, prompts = self.prefill(self.job.prompts), self.job.prompts
        chains, texts = [self.chain(seed) for seed in range(len(prompts))], [list[int]() for _ in prompts]
        for step in range(self.job.new_tokens):
            if step:
                places = list(range(len(texts)))
                self.decode([(texts[i][-1], len(prompts[i]) + step - 1, i) for i in places], places)
            for text, chain, place in zip(texts, chains, places, strict=True):
                text.append(self.api.llama_sampler_sample(chain, self.context, place))
        for chain in chains:
            self.api.llama_sampler_free(chain)
        return texts

    def chain(self, seed: int) -> Any:
        chain = self.api.llama_sampler_chain_init(self.api.llama_sampler_chain_default_params())
        self.api.llama_sampler_chain_add(chain, self.api.llama_sampler_init_temp(self.job.sampling["temperature"]))
        self.api.llama_sampler_chain_add(chain, self.api.llama_sampler_init_top_p(self.job.sampling["top_p"], 1))
        self.api.llama_sampler_chain_add(chain, self.api.llama_sampler_init_dist(seed))
        return chain

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self.logits_at(*self.prefill([list(ids)]))

    def logits_at(self, place: int) -> np.ndarray:
        return np.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, place), (self.vocabulary,)).copy()


def loaded(api: Any, llama: Llama, weights: torch.dtype) -> Any:
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "model.gguf"
        write_gguf(llama, weights, path)
        params = api.llama_model_default_params()
        params.use_mmap = False  # the file is removed
        model = api.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise Unavailable("it can't load the model")
    return model


def free(api: Any, model: Any, context: Any, batch: Any) -> None:
    api.llama_batch_free(batch)
    api.llama_free(context)
    api.llama_model_free(model)


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def say_nothing(level: int, text: bytes, data: Any) -> None:
    """In place of llama.cpp's log."""


PEERS: dict[str, Callable[[Job], Decoder]] = {"torch": Torch, "transformers": Transformers, "llama.cpp": LlamaCpp}
