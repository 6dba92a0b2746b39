"""Logprobs in the formats of OpenAI's completions, of its chat completions, and of vLLM's prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from model.decoding.logprobs import Alternative, finite, keyed, token_text
from model.serve.engine.request import TokenLogprob
from model.tokenizer import Tokenizer


class Names:
    """How tokens are named: by their text, or by their ids."""

    def __init__(self, tokenizer: Tokenizer, by_id: bool) -> None:
        self.tokenizer, self.by_id = tokenizer, by_id

    def of(self, token: int) -> str:
        return f"token_id:{token}" if self.by_id else token_text(self.tokenizer, token)

    def alternatives(self, logprob: TokenLogprob) -> list[Alternative]:
        return [Alternative(token, self.of(token), value) for token, value in logprob.top]


def cut(logprob: TokenLogprob, count: int) -> TokenLogprob:
    """With fewer alternatives."""
    return replace(logprob, top=logprob.top[:count])


def of_completion(
    names: Names, ids: Sequence[int], logprobs: Sequence[TokenLogprob | None], offsets: Sequence[int]
) -> dict[str, Any]:
    """logprobs: None for the first token of a prompt."""

    def top(logprob: TokenLogprob | None) -> dict[str, float] | None:
        if logprob is None:
            return None
        drawn = Alternative(logprob.id, names.of(logprob.id), logprob.logprob)
        return keyed(drawn, names.alternatives(logprob))

    return {
        "tokens": [names.of(token) for token in ids],
        "token_logprobs": [None if logprob is None else finite(logprob.logprob) for logprob in logprobs],
        "top_logprobs": [top(logprob) for logprob in logprobs],
        "text_offset": list(offsets),
    }


def of_chat(names: Names, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    content = [
        {
            **named(names, one.id, one.logprob),
            "top_logprobs": [named(names, token, logprob) for token, logprob in one.top],
        }
        for one in logprobs
    ]
    return {"content": content, "refusal": None}


def named(names: Names, token: int, logprob: float) -> dict[str, Any]:
    return {"token": names.of(token), "bytes": list(names.tokenizer.token_bytes(token)), "logprob": finite(logprob)}


def of_prompt(names: Names, logprobs: Sequence[TokenLogprob], count: int) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: by id, the token itself among the alternatives; null for the first."""
    found: list[dict[str, Any] | None] = [None]
    for one in logprobs:
        by_id = dict([*one.top[:count], (one.id, one.logprob)])
        found.append(
            {
                str(token): {"logprob": finite(logprob), "decoded_token": names.of(token)}
                for token, logprob in by_id.items()
            }
        )
    return found
