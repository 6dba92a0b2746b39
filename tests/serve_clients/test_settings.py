"""Oracle: `model.generate` in a process of its own. A server's answer is that of the package, to the last bit."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from conftest import Ask
from openai import OpenAI

STORY = "The dragon"
ENDING = "He died."  # with seed 1, the story ends here after 31 tokens
SYSTEM, USER = "You tell tales.", "Tell me of the king."
CHAT = f"{SYSTEM}\n{USER}\n"  # as the built-in model reads these two messages
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
LENGTH = 16


class Setting(NamedTuple):
    """What a request says, in OpenAI's fields and in others, and the keywords of `generate` that mean the same."""

    openai: dict[str, Any]
    others: dict[str, Any]
    generate: dict[str, Any]


def openai_field(**fields: Any) -> Setting:
    return Setting(fields, {}, fields)


def other_field(**fields: Any) -> Setting:
    return Setting({}, fields, fields)


SETTINGS = {
    "generation_config": openai_field(),
    "temperature": openai_field(temperature=1.3),
    "greedy": openai_field(temperature=0),
    "top_p": openai_field(top_p=0.4),
    "top_p off": openai_field(temperature=1, top_p=1),
    "presence_penalty": openai_field(presence_penalty=1.5),
    "frequency_penalty": openai_field(frequency_penalty=-0.7),
    "stop": Setting(dict(stop=" and"), {}, dict(stop_strings=[" and"])),
    "stops": Setting(dict(stop=[" the", ",", "zzz"]), {}, dict(stop_strings=[" the", ",", "zzz"])),
    "top_k": other_field(top_k=3),
    "top_k off": other_field(top_k=0),
    "min_p": other_field(min_p=0.2),
    "typical_p": other_field(typical_p=0.3),
    "epsilon_cutoff": other_field(epsilon_cutoff=0.05),
    "eta_cutoff": other_field(eta_cutoff=0.05),
    "repetition_penalty": other_field(repetition_penalty=1.8),
    "several": Setting(
        dict(temperature=1.1, presence_penalty=0.5),
        dict(top_k=20, min_p=0.02),
        dict(temperature=1.1, presence_penalty=0.5, top_k=20, min_p=0.02),
    ),
    "draw_stream": Setting({}, dict(draw_stream=5), dict(stream=[5])),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_completion(name: str, client: OpenAI, ask: Ask):
    setting = SETTINGS[name]
    ((answer,),) = ask("generate", prompts=STORY, seed=7, logprobs=2, max_new_tokens=LENGTH, **setting.generate)
    reply = client.completions.create(
        model="storyteller",
        prompt=STORY,
        max_tokens=LENGTH,
        seed=7,
        logprobs=2,
        **setting.openai,
        extra_body=setting.others,
    )
    (choice,) = reply.choices
    assert choice.text == answer["text"]
    assert choice.finish_reason == reason(answer)
    assert choice.logprobs.tokens == answer["completion_logprobs"]["tokens"]
    assert choice.logprobs.token_logprobs == answer["completion_logprobs"]["token_logprobs"]
    assert choice.logprobs.top_logprobs == answer["completion_logprobs"]["top_logprobs"]
    assert reply.usage.completion_tokens == len(answer["ids"])


@pytest.mark.parametrize("name", SETTINGS)
def test_chat(name: str, client: OpenAI, ask: Ask):
    """With the built-in model a line break ends a chat, besides the strings that the request names."""
    setting = SETTINGS[name]
    keywords = setting.generate | {"stop_strings": [*setting.generate.get("stop_strings", []), "\n"]}
    ((answer,),) = ask("generate", prompts=CHAT, seed=7, logprobs=0, max_new_tokens=LENGTH, **keywords)
    reply = client.chat.completions.create(
        model="storyteller",
        messages=MESSAGES,
        max_completion_tokens=LENGTH,
        seed=7,
        logprobs=True,
        **setting.openai,
        extra_body=setting.others,
    )
    (choice,) = reply.choices
    assert choice.message.content == answer["text"].strip()
    assert choice.message.role == "assistant"
    assert choice.finish_reason == reason(answer)
    assert [token.logprob for token in choice.logprobs.content] == answer["completion_logprobs"]["token_logprobs"]
    assert reply.usage.completion_tokens == len(answer["ids"])


def reason(answer: dict[str, Any]) -> str:
    return {"eos": "stop"}.get(answer["finish_reason"], answer["finish_reason"])


def test_several_prompts_and_choices(client: OpenAI, ask: Ask):
    prompts = ["The king", "The queen"]
    texts = ask("generate", prompts=prompts, num_return_sequences=3, seed=11, max_new_tokens=9)
    reply = client.completions.create(model="storyteller", prompt=prompts, n=3, seed=11, max_tokens=9)
    assert [choice.index for choice in reply.choices] == list(range(6))
    assert [choice.text for choice in reply.choices] == [answer["text"] for group in texts for answer in group]


def test_choices_of_a_chat(client: OpenAI, ask: Ask):
    (texts,) = ask("generate", prompts=CHAT, num_return_sequences=3, seed=11, max_new_tokens=9, stop_strings="\n")
    reply = client.chat.completions.create(model="storyteller", messages=MESSAGES, n=3, seed=11, max_tokens=9)
    assert [choice.message.content for choice in reply.choices] == [answer["text"].strip() for answer in texts]


def test_the_end_of_a_story(client: OpenAI, ask: Ask):
    ((ended,),) = ask("generate", prompts=ENDING, seed=1, max_new_tokens=40)
    ((going_on,),) = ask("generate", prompts=ENDING, seed=1, max_new_tokens=40, eos_token_id=[])
    assert (len(ended["ids"]), ended["finish_reason"], len(going_on["ids"])) == (31, "eos", 40)

    def reply(**others: Any) -> tuple[str, str, int]:
        reply = client.completions.create(model="storyteller", prompt=ENDING, seed=1, max_tokens=40, extra_body=others)
        return reply.choices[0].text, reply.choices[0].finish_reason, reply.usage.completion_tokens

    assert reply() == (ended["text"], "stop", 31)
    assert reply(ignore_eos=True) == (going_on["text"], "length", 40)
