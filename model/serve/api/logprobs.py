"""Logprobs in the formats of OpenAI's completions, of its chat completions, and of vLLM's prompts."""

from __future__ import annotations

from collections.abc import Sequence
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


def of_completion(
    names: Names, ids: Sequence[int], logprobs: Sequence[TokenLogprob | None], offsets: Sequence[int], count: int
) -> dict[str, Any]:
    """logprobs: None for the first token of a prompt. count: of the alternatives."""
    tops: list[dict[str, float] | None] = []
    for logprob in logprobs:
        if logprob is None or count == 0:
            tops.append(None)
        else:
            drawn = Alternative(logprob.id, names.of(logprob.id), logprob.logprob)
            tops.append(keyed(drawn, names.alternatives(logprob)))
    return {
        "tokens": [names.of(token) for token in ids],
        "token_logprobs": [None if logprob is None else finite(logprob.logprob) for logprob in logprobs],
        "top_logprobs": tops,
        "text_offset": list(offsets),
    }


def of_chat(names: Names, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = list(names.tokenizer.token_bytes(token))
        return {"token": names.of(token), "bytes": data, "logprob": finite(logprob)}

    content = [
        {**entry(one.id, one.logprob), "top_logprobs": [entry(token, logprob) for token, logprob in one.top]}
        for one in logprobs
    ]
    return {"content": content, "refusal": None}


def of_prompt(names: Names, logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: by id, the token itself among the alternatives; null for the first."""
    found: list[dict[str, Any] | None] = [None]
    for one in logprobs:
        by_id = dict([*one.top, (one.id, one.logprob)])
        found.append(
            {
                str(token): {"logprob": finite(logprob), "decoded_token": names.of(token)}
                for token, logprob in by_id.items()
            }
        )
    return found
