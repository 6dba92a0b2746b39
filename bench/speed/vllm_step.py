"""Sampling in a step of vLLM's engine, stock and ours, on the same logits: verified and timed."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

from bench.cases import Case, switched_on
from bench.records import Record, quantiles
from bench.speed.timing import in_turn
from samplers import filter_logits, sample
from samplers.params import pack
from samplers.vllm import Draw

SEED, PROMPT = 7, 4  # ids of a prompt
NAMES = ["stock", "alea"]


def measured(case: Case, rounds: int) -> Record:
    timer = Timer(case, rounds)
    with TemporaryDirectory() as folder:
        llm = engine(Path(folder), case)
        try:
            timer.install(llm.llm_engine.model_executor.driver_worker.worker.model_runner)
            llm.generate(*requests(case, rounds), use_tqdm=False)
        finally:
            llm.llm_engine.engine_core.shutdown()
            del llm
            cleanup_dist_env_and_memory()
    return {
        "vocabulary": case.vocabulary,
        "batch": case.batch,
        "filters": case.filters,
        "rounds": rounds,
        "milliseconds": {name: quantiles([1e3 * s for s in times]) for name, times in timer.seconds.items()},
    }


def engine(folder: Path, case: Case) -> LLM:
    """A model of one layer and random weights: its logits are replaced by the rows of the case."""
    sizes = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1)
    config = LlamaConfig(vocab_size=case.vocabulary, tie_word_embeddings=True, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    options: dict[str, Any] = dict(dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=case.batch)
    return LLM(str(folder), skip_tokenizer_init=True, logits_processors=[Draw], **options)


def requests(case: Case, rounds: int) -> tuple[list[dict[str, list[int]]], list[SamplingParams]]:
    """One for each row; request i has stream i, and each gives `rounds` tokens after one to warm up."""
    prompts = [{"prompt_token_ids": [1 + i % 7] * PROMPT} for i in range(case.batch)]
    own = switched_on(case.params)
    params = [
        SamplingParams(
            **own, seed=SEED, max_tokens=rounds + 1, ignore_eos=True, detokenize=False, extra_args={"stream": i}
        )
        for i in range(case.batch)
    ]
    return prompts, params


class Timer:
    """In place of the runner's `_sample`: both samplers in turn, on the rows of the case; ours goes on."""

    def __init__(self, case: Case, rounds: int) -> None:
        self.case, self.rounds = case, rounds
        self.seconds: dict[str, list[float]] = {name: [] for name in NAMES}
        self.step = 0

    def install(self, runner: Any) -> None:
        self.runner, self.sample = runner, runner._sample
        runner._sample = self

    def __call__(self, logits: torch.Tensor, *arguments: Any) -> Any:
        outputs, metadata = {}, self.runner.input_batch.sampling_metadata
        processors, generators = metadata.logitsprocs.argmax_invariant, dict(metadata.generators)
        if len(generators) != len(logits):
            raise RuntimeError(f"vLLM's sampler needs a seed for each of {len(logits)} requests, got {len(generators)}")
        ours = next(processor for processor in processors if isinstance(processor, Draw))
        for name in in_turn(NAMES, self.step):
            if name == "stock":
                processors.remove(ours)
            rows = self.case.logits[: len(logits)].clone()  # vLLM's sampler writes into them
            began = time.perf_counter()
            outputs[name] = self.sample(rows, *arguments)
            if len(logits) == self.case.batch and self.step:
                self.seconds[name].append(time.perf_counter() - began)
            if name == "stock":
                processors.append(ours)
            metadata.generators.update(generators)  # ours leaves none
        self.verify({name: output.sampled_token_ids[:, 0] for name, output in outputs.items()})
        self.step += 1
        return outputs["alea"]

    def verify(self, tokens: dict[str, torch.Tensor]) -> None:
        """Raises: RuntimeError if ours are not those of `samplers.sample`, or the filters would cut one of vLLM's."""
        size = len(tokens["alea"])
        rows, packed = self.case.logits[:size], pack(self.case.params)
        alone = partial(sample, params=packed, seed=SEED, position=self.step)
        expected = [int(alone(rows[i], stream=[i]).tokens[0]) for i in range(size)]
        if tokens["alea"].tolist() != expected:
            raise RuntimeError(f"the tokens of samplers.vllm:Draw at step {self.step} are not those of samplers.sample")
        if (filter_logits(rows, packed).gather(1, tokens["stock"].long()[:, None]) == -torch.inf).any():
            raise RuntimeError(f"vLLM's sampler drew a token at step {self.step} that the filters exclude")
