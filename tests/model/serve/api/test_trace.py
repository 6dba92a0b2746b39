"""Oracle: `trace_decoding` of the same prompt, seed and parameters; `samplers.sample` for a mask and for penalties."""

import json
from typing import Any

import numpy as np
import pytest

import samplers
from model.chat.conversation import encode_chat
from model.serve.api.chat import ChatBody
from model.serve.api.completions import CompletionBody
from model.serve.api.errors import Refusal
from model.serve.api.trace import MOST_BYTES, TraceBody, check_memory
from model.study.decoding_trace import trace_decoding
from model.study.trace_page import step_data
from samplers import SamplingParams
from samplers.tracing import finite

FIELDS = ("prompt", "text", "ended", "prompt_tokens", "steps")
OFF = dict(temperature=1.0, top_p=1.0)  # against the model's generation_config.json
SETTINGS = {
    "nothing cut": OFF,
    "greedy": dict(temperature=0.0, top_p=1.0),
    "filters": dict(temperature=0.8, top_k=50, top_p=0.9, epsilon_cutoff=0.01),
    "penalties": OFF | dict(repetition_penalty=1.3, presence_penalty=0.4, logit_bias={"300": 2.0}),
}


def expected(asking: Any, prompt: Any, settings: dict[str, Any], seed: int, steps: int, top: int) -> dict[str, Any]:
    values = dict(settings)
    if "logit_bias" in values:
        values["logit_bias"] = {int(token): bias for token, bias in values["logit_bias"].items()}
    limits = dict(seed=seed, stream=5, max_new_tokens=steps, top=top)
    return traced(asking, prompt, SamplingParams(**values), **limits).to_dict()


def traced(asking: Any, prompt: Any, params: SamplingParams, **more: Any) -> Any:
    return trace_decoding(asking.service.llama, asking.service.tokenizer, prompt, params, **more)


def body(settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    return dict(prompt="The king and the fox", seed=3, draw_stream=5, max_tokens=9, top=4, **settings, **more)


@pytest.mark.parametrize("name", SETTINGS)
def test_alone_and_among_others_at_once_and_in_events(asking, name):
    settings = SETTINGS[name]
    alone = asking.whole(TraceBody, **body(settings))
    wanted = expected(asking, "The king and the fox", settings, 3, 9, 4)
    assert {field: alone[field] for field in FIELDS} == json.loads(json.dumps(wanted))
    others = [asking.prepared(CompletionBody, prompt=f"Tale {i}", max_tokens=40, seed=i)[0] for i in range(8)]
    for one in others:
        asking.engine.submit(one)
    first, *steps, last, done = asking.streamed(TraceBody, every=3, stream=True, **body(settings))
    assert done == "[DONE]" and [step["step"] for step in steps] == alone["steps"]
    assert {**first, **last, "steps": alone["steps"]} | {"id": "", "object": "", "created": 0} == alone | {
        "id": "", "object": "", "created": 0,
    }  # fmt: skip
    text = asking.whole(CompletionBody, **{k: v for k, v in body(settings).items() if k != "top"})["choices"][0]["text"]
    assert alone["text"] == "The king and the fox" + text


def test_a_chat(asking):
    messages = [{"role": "user", "content": "Who are you?"}]
    fields = dict(messages=messages, seed=5, max_tokens=12, **OFF)
    reply = asking.whole(TraceBody, **fields)
    prompt = encode_chat(asking.service.tokenizer, messages, "plain")
    wanted = traced(asking, prompt, SamplingParams(), seed=5, max_new_tokens=reply["usage"]["completion_tokens"])
    assert {field: reply[field] for field in FIELDS} == json.loads(json.dumps(wanted.to_dict()))
    answer = asking.whole(ChatBody, **fields)["choices"][0]
    assert reply["finish_reason"] == answer["finish_reason"]
    assert answer["message"]["content"] in reply["text"]


def test_an_end_and_a_stop(asking):
    ended = asking.whole(TraceBody, prompt="He died.", seed=1, max_tokens=40)
    assert (ended["ended"], ended["finish_reason"], len(ended["steps"])) == (True, "stop", 31)
    stopped = asking.whole(TraceBody, prompt="The king", seed=1, max_tokens=40, stop=" the")
    assert (stopped["ended"], stopped["finish_reason"]) == (False, "stop") and stopped["text"].endswith(" the")


def test_masks_are_those_of_each_draw(asking):
    """The end is excluded for two tokens; then it may come, and with this bias it does."""
    fields = dict(prompt="A", seed=1, max_tokens=9, min_tokens=2, allowed_token_ids=[2, 300, 301], logit_bias={"2": 90})
    steps = asking.whole(TraceBody, **fields, **OFF)["steps"]
    assert [step["stages"][1]["name"] for step in steps] == ["allowed"] * 3
    assert [step["stages"][1]["survivors"] for step in steps] == [2, 2, 3] and steps[-1]["token"] == 2


def test_what_the_page_needs(asking):
    """Enough to draw again."""
    fields = dict(prompt="The king", seed=3, max_tokens=3, allowed_token_ids=list(range(3, 2000)), **OFF)
    reply = asking.whole(TraceBody, logits=True, **fields)
    plain = asking.whole(TraceBody, **fields)["steps"]
    assert [{k: v for k, v in step.items() if k != "page"} for step in reply["steps"]] == plain
    allowed = np.isin(np.arange(4096), fields["allowed_token_ids"])
    again = traced(asking, "The king", SamplingParams(), seed=3, max_new_tokens=1).steps[0]
    wanted = samplers.trace(again.logits, seed=3, stream=[0], allowed=allowed)
    assert reply["steps"][0]["page"] == json.loads(json.dumps(finite(step_data(wanted))))


def test_null_is_the_default(asking):
    given, absent = (asking.whole(TraceBody, prompt="The king", max_tokens=2, seed=1, **more)["steps"]
                     for more in (dict(top=None, logits=None), {}))  # fmt: skip
    assert given == absent and len(absent[0]["candidates"]) in (20, 21) and "page" not in absent[0]


def test_logits_are_dropped_once_they_are_told(asking):
    request, reply = asking.prepared(TraceBody, prompt="The king", max_tokens=5, stream=True)
    asking.engine.submit(request)
    while asking.engine.is_busy:
        asking.engine.step()
    draws = request.choices[0].draws
    assert len(draws) == 5 and not list(reply.news())
    for left in (4, 3):
        assert reply.work() and len(draws) == left
    assert len(list(reply.news())) == 1 + 2  # the prompt, and the steps
    assert all(reply.work() for _ in range(3)) and not reply.work()
    assert len(list(reply.news())) == 3 and not list(reply.news())


REFUSED = [
    (dict(prompt="A", n=2), "n"),
    (dict(prompt="A", best_of=2), "best_of"),
    (dict(prompt=["A", "B"]), "prompt"),
    (dict(prompt="A", messages=[{"role": "user", "content": "x"}]), "prompt"),
    (dict(), "prompt"),
    (dict(prompt="A", echo=True), "echo"),
    (dict(prompt="A", logprobs=1), "logprobs"),
    (dict(prompt="A", prompt_logprobs=1), "prompt_logprobs"),
    (dict(prompt="A", stream=True, stream_options={}), "stream_options"),
    (dict(messages=[{"role": "user", "content": "x"}], logprobs=True), "logprobs"),
    (dict(messages=[{"role": "user", "content": "x"}], logprobs=None, top_logprobs=2), "top_logprobs"),
    (dict(prompt="A", top=0), "top"),
    (dict(prompt="A", top=101), "top"),
    (dict(prompt="A", logits=1), "logits"),
]


@pytest.mark.parametrize(("fields", "name"), REFUSED)
def test_refused_by_name(asking, fields, name):
    with pytest.raises(Refusal) as refused:
        asking.prepared(TraceBody, **fields)
    assert (refused.value.status, refused.value.param) == (400, name) and name in str(refused.value)


def test_the_memory_of_a_trace_is_bounded():
    vocabulary = 32_000
    most = MOST_BYTES // (4 * vocabulary)
    check_memory(most, vocabulary)
    check_memory(1, MOST_BYTES)  # one step is always possible
    with pytest.raises(Refusal, match=f"^max_tokens: .*{most + 1} x 32000 x 4 bytes = .* at most {most}") as refused:
        check_memory(most + 1, vocabulary)
    assert refused.value.param == "max_tokens"
