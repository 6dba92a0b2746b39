"""Oracle: the text without speculation, which is that of alea's own `generate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from engines import CHAIN, PROMPTS, alea_ids, ids_of, new_engine, requests
from vllm import LLM
from vllm.v1.worker.gpu.spec_decode import rejection_sampler
from vllm.v1.worker.gpu.spec_decode.ngram.speculator import NgramGPUSpeculator

FEW, STEPS, DRAFTS = PROMPTS[:4], 16, 3
RIGHT = dict(zip(FEW, alea_ids(FEW, max_new_tokens=STEPS, **CHAIN), strict=True))


class Guess:
    """In place of vLLM's search for the tokens that come next: it knows them. Each `wrong_every`th is wrong."""

    wrong_every = 0

    def propose(self, speculator: NgramGPUSpeculator, batch: Any, dummy_run: bool) -> torch.Tensor:
        drafts = speculator.drafts[: batch.num_reqs]
        if not dummy_run:
            states = speculator.req_states
            for row, slot in enumerate(batch.idx_mapping.tolist()):
                start, end = int(states.prompt_len.gpu[slot]), int(states.total_len.gpu[slot])
                text = self.text_that_begins(states.all_token_ids.gpu[slot, start:end].tolist())
                for place, token in enumerate((text + [0] * DRAFTS)[end - start :][:DRAFTS]):
                    wrong = self.wrong_every and (end + place) % self.wrong_every == 0
                    drafts[row, place] = (token + 1) % 4096 if wrong else token
        return drafts

    @staticmethod
    def text_that_begins(ids: list[int]) -> list[int]:
        return next((text for text in RIGHT.values() if text[: len(ids)] == ids), ids)


@pytest.fixture(scope="module")
def guess() -> Guess:
    return Guess()


@pytest.fixture(scope="module")
def speculating(guess: Guess) -> Iterator[LLM]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            NgramGPUSpeculator,
            "propose",
            lambda self, batch, *_, dummy_run=False, **__: guess.propose(self, batch, dummy_run),
        )
        config = dict(method="ngram", num_speculative_tokens=DRAFTS, prompt_lookup_max=2, prompt_lookup_min=1)
        yield new_engine(max_model_len=128, max_num_seqs=4, speculative_config=config)


@pytest.mark.parametrize(("wrong_every", "least", "most"), [(0, 3.5, 4), (1, 1, 1), (4, 1.2, 3.5)])
def test_drafts(
    speculating: LLM, guess: Guess, monkeypatch: pytest.MonkeyPatch, wrong_every: int, least: float, most: float
):
    """The text is the same, and so many tokens a step come of right drafts, of wrong ones, and of both."""
    accepted = []
    real = rejection_sampler.rejection_sample

    def counted(*arguments, **keywords):
        out = real(*arguments, **keywords)
        accepted.extend(out[1].tolist())
        return out

    monkeypatch.setattr(rejection_sampler, "rejection_sample", counted)
    guess.wrong_every = wrong_every
    assert ids_of(speculating, FEW, requests(4, **CHAIN, max_tokens=STEPS)) == list(RIGHT.values())
    assert least <= sum(accepted) / len(accepted) <= most


def test_filters_of_extra_args(speculating: LLM, guess: Guess):
    """vLLM refuses its own min_p where it speculates; this engine's does what it does without."""
    guess.wrong_every = 2
    own = dict(temperature=1.0, typical_p=0.8, min_p=0.02)
    assert ids_of(speculating, FEW, requests(4, extra=own, max_tokens=8)) == alea_ids(FEW, max_new_tokens=8, **own)
