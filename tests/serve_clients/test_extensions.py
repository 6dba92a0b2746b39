"""Oracle: what vLLM's documentation says of the fields that `model.generate` does not have."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Tokenize
from openai import OpenAI

ENDING = "He died."  # with seed 1, the story ends here after 31 tokens
EOS = 2


def complete(client: OpenAI, prompt: Any = ENDING, max_tokens: int = 40, **others: Any) -> Any:
    """One choice, as a dict, with the usage of its request."""
    openai = {name: others.pop(name) for name in ("logprobs", "echo", "stop", "temperature") if name in others}
    reply = client.completions.create(
        model="storyteller", prompt=prompt, max_tokens=max_tokens, seed=1, **openai, extra_body=others
    )
    return reply.choices[0].to_dict() | {"usage": reply.usage}


def test_min_tokens(client: OpenAI):
    plain, longer = complete(client), complete(client, min_tokens=35)
    assert (plain["finish_reason"], plain["usage"].completion_tokens) == ("stop", 31)
    assert longer["usage"].completion_tokens >= 35
    assert longer["text"].startswith(plain["text"])
    assert complete(client, min_tokens=30) == plain  # the end is the 31st token, after 30 others


def test_stop_token_ids(client: OpenAI, tokenize: Tokenize):
    plain = complete(client, logprobs=0)
    (*_, comma) = tokenize("a,", add_special_tokens=False)
    place = plain["logprobs"]["tokens"].index(",")
    stopped = complete(client, stop_token_ids=[comma])
    assert stopped["text"] == "".join(plain["logprobs"]["tokens"][:place])
    assert (stopped["finish_reason"], stopped["usage"].completion_tokens) == ("stop", place + 1)


def test_include_stop_str_in_output(client: OpenAI):
    whole = complete(client)["text"]
    cut = whole[: whole.index(",")]
    assert complete(client, stop=",")["text"] == cut
    assert complete(client, stop=",", include_stop_str_in_output=True)["text"] == cut + ","


def test_skip_special_tokens(client: OpenAI):
    forced = dict(allowed_token_ids=[EOS], ignore_eos=True, max_tokens=3)
    assert complete(client, **forced)["text"] == ""
    assert complete(client, **forced, skip_special_tokens=False)["text"] == "</s></s></s>"


def test_add_special_tokens(client: OpenAI, tokenize: Tokenize):
    bos, *ids = tokenize(ENDING)
    assert tokenize(ENDING, add_special_tokens=False) == ids
    without = complete(client, add_special_tokens=False)
    assert without == complete(client, prompt=ids)
    assert without["usage"].prompt_tokens == complete(client)["usage"].prompt_tokens - 1
    assert complete(client, prompt=[bos, *ids]) == complete(client)


def test_return_tokens_as_token_ids(client: OpenAI, tokenize: Tokenize):
    (king,) = tokenize("king", add_special_tokens=False)
    fields = dict(logprobs=2, max_tokens=3, allowed_token_ids=[king])
    by_text = complete(client, **fields)["logprobs"]
    by_id = complete(client, **fields, return_tokens_as_token_ids=True)["logprobs"]
    assert by_id["tokens"] == [f"token_id:{king}"] * 3
    assert by_id["token_logprobs"] == by_text["token_logprobs"]
    for top in by_id["top_logprobs"]:
        assert f"token_id:{king}" in top and all(key.startswith("token_id:") for key in top)


def test_allowed_token_ids(client: OpenAI, tokenize: Tokenize):
    ids = tokenize("king queen", add_special_tokens=False)
    assert set(complete(client, allowed_token_ids=ids)["text"].split()) == {"king", "queen"}


def test_prompt_logprobs(extended: OpenAI, client: OpenAI, tokenize: Tokenize):
    echoed = complete(client, echo=True, logprobs=2, max_tokens=1)["logprobs"]
    ids = tokenize(ENDING)
    first, *rest = complete(extended, prompt_logprobs=2, max_tokens=1)["prompt_logprobs"]
    assert first is None
    assert [step[str(token)]["logprob"] for step, token in zip(rest, ids[1:], strict=True)] == (
        echoed["token_logprobs"][1 : len(ids)]
    )
    for step in rest:
        assert len(step) in (2, 3)  # the token itself may be none of the two


def test_draw_stream(client: OpenAI):
    """Choice i of a request draws with the stream draw_stream + i."""

    def texts(n: int, **others: int) -> list[str]:
        fields = dict(model="storyteller", prompt=["The king", "The queen"], seed=1, n=n)
        return [choice.text for choice in client.completions.create(**fields, extra_body=others).choices]

    assert texts(2, draw_stream=0) == texts(2)
    assert texts(1, draw_stream=10) == [texts(2, draw_stream=10)[0], texts(2, draw_stream=9)[2]]


@pytest.mark.parametrize("fields", [dict(top_k=1), dict(min_p=1.0)], ids=str)
def test_the_narrowest_filters_are_greedy(client: OpenAI, fields: dict[str, Any]):
    assert complete(client, **fields)["text"] == complete(client, temperature=0)["text"]
