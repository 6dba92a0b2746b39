"""Oracles: the stream is the whole in pieces; `generate` and its logprobs; openai's clients in tests/serve_clients."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model import generate
from model.decoding.writer import Writer
from model.serve.api.completions import CompletionBody
from model.serve.api.errors import Refusal
from tests.conftest import examples

ASK = dict(prompt="Once upon a time", max_tokens=24, seed=7)


def joined(events: list, index: int) -> dict:
    """One choice of a stream."""
    parts = [choice for event in events[:-1] for choice in event["choices"] if choice["index"] == index]
    logprobs = None
    if parts[0]["logprobs"] is not None:
        logprobs = {name: [x for part in parts for x in part["logprobs"][name]] for name in parts[0]["logprobs"]}
    text = "".join(part["text"] for part in parts)
    assert all(part["finish_reason"] is None for part in parts[:-1])
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": parts[-1]["finish_reason"]}


STOPS = [None, " a", ["was a", "king"], ["e t"], "\ufffd"]


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 2),
    echo=st.booleans(),
    logprobs=st.sampled_from([None, 0, 2]),
    stop=st.sampled_from(STOPS),
    prompt=st.sampled_from(["A", "Zoë é 日本", ["The fox", "B"], [5, 6, 7]]),
    temperature=st.sampled_from([0.0, 1.0, 5.0]),
    every=st.integers(1, 9),
    special=st.booleans(),
)
@examples(60)
def test_a_stream_is_the_whole_in_pieces(asking, seed, n, echo, logprobs, stop, prompt, temperature, every, special):
    """At T = 5 texts have broken characters and special tokens."""
    more = dict(n=n, echo=echo, logprobs=logprobs, stop=stop, temperature=temperature, top_p=1.0)
    body = {**ASK, **more, "prompt": prompt, "seed": seed, "skip_special_tokens": not special}
    whole = asking.whole(CompletionBody, **body)
    events = asking.streamed(CompletionBody, every, **body, stream=True)
    assert events[-1] == "[DONE]"
    assert [joined(events, choice["index"]) for choice in whole["choices"]] == whole["choices"]


def test_logprobs_are_those_of_generate(asking):
    (choice,) = asking.whole(CompletionBody, **ASK, logprobs=3, stop=["lit"])["choices"]
    service = asking.service
    options = dict(max_new_tokens=24, seed=7, logprobs=3, stop_strings=["lit"], do_sample=True)
    ((alone,),) = generate(service.llama, service.tokenizer, "Once upon a time", **options)
    expected = alone.completion_logprobs.to_openai()
    expected["text_offset"] = [offset + len(ASK["prompt"]) for offset in expected["text_offset"]]
    assert choice["text"] == alone.text and choice["logprobs"] == expected


def test_an_echo_without_new_tokens_reads_the_prompt(asking):
    body = dict(prompt="Once upon a time", max_tokens=0, echo=True, logprobs=0)
    found = asking.whole(CompletionBody, **body)
    (choice,) = found["choices"]
    assert choice["text"] == "Once upon a time" and choice["finish_reason"] == "length"
    assert choice["logprobs"]["tokens"] == ["<s>", " Once", " upon", " a", " time"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 4, 9, 11]
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert found["usage"] == {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}


def test_the_best_of_several(asking):
    many = asking.whole(CompletionBody, **ASK, n=5, logprobs=0)["choices"]
    best = asking.whole(CompletionBody, **ASK, n=2, best_of=5)["choices"]
    means = [sum(choice["logprobs"]["token_logprobs"]) / len(choice["logprobs"]["tokens"]) for choice in many]
    order = sorted(range(5), key=lambda i: -means[i])
    assert [choice["text"] for choice in best] == [many[i]["text"] for i in order[:2]]
    assert [choice["index"] for choice in best] == [0, 1] and best[0]["logprobs"] is None


def test_choices_are_numbered_through_and_one_can_be_drawn_alone(asking):
    several = asking.whole(CompletionBody, **{**ASK, "prompt": ["The fox", "A"]}, n=2)["choices"]
    alone = asking.whole(CompletionBody, **{**ASK, "prompt": "A"}, draw_stream=3)["choices"]
    assert [choice["index"] for choice in several] == [0, 1, 2, 3]
    assert alone[0]["text"] == several[3]["text"] != several[2]["text"]


REFUSED = [
    (dict(prompt="A", tools=[]), "tools"),
    (dict(prompt="A", suffix="B"), "suffix"),
    (dict(prompt="A", top_p=2), "top_p"),
    (dict(prompt="A", temperature=1e-9), "temperature"),
    (dict(prompt="A", n=3, best_of=2), "best_of"),
    (dict(prompt="A", best_of=2, stream=True), "best_of"),
    (dict(prompt="A", max_tokens=0), "max_tokens"),
    (dict(prompt="A", max_tokens=511), "max_tokens"),
    (dict(prompt=[4096]), "prompt"),
    (dict(prompt=[]), "prompt"),
    (dict(prompt=[1] * 513), "prompt"),
    (dict(prompt="A", model="gpt"), "model"),
    (dict(prompt="A", logit_bias={"4096": 1.0}), "logit_bias"),
    (dict(prompt="A", stop_token_ids=[-1]), "stop_token_ids[0]"),
    (dict(prompt="A", stream_options={"include_usage": True}), "stream_options"),
    (dict(prompt="A", response_format={"type": "sound"}), "response_format.type"),
    (dict(max_tokens=3), "prompt"),
    (dict(prompt="A", allowed_token_ids=[2], min_tokens=1), "min_tokens"),
    (dict(prompt="A", frequency_penalty=-3e38), "frequency_penalty"),
    (dict(prompt="A", n=256, max_tokens=500, logprobs=100), "logprobs"),
    (dict(prompt=["A"] * 1000, n=2), "n"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_is_wrong_is_named(asking, fields, param):
    with pytest.raises(Refusal) as refusal:
        asking.prepared(CompletionBody, **fields)
    assert refusal.value.param == param
    assert param.split("[")[0].split(".")[0] in str(refusal.value)


def test_a_reader_in_another_thread_never_loses_the_end(asking, monkeypatch):
    """It may come at any moment: here, whenever the text grows. The beginning of a stop string is held to the end."""
    body = {**ASK, "stop": ["zzz", "cottage, and", "a pretty little cottage x"], "max_tokens": 12}
    (whole,) = asking.whole(CompletionBody, **body)["choices"]
    request, reply = asking.prepared(CompletionBody, **body, stream=True)
    show, events = Writer.show, []

    def shown_and_read(writer: Writer, text: str) -> None:
        show(writer, text)
        events.extend(reply.news())

    monkeypatch.setattr(Writer, "show", shown_and_read)
    asking.engine.submit(request)
    while asking.engine.is_busy:
        asking.engine.step()
    events += [*reply.news(), *reply.end()]
    assert joined([*map(json.loads, events[:-1]), "[DONE]"], 0) == whole


def test_prompts_of_several_choices_are_recorded_once(asking):
    body = dict(prompt=["The fox", "A wolf"], n=3, max_tokens=2, seed=1, echo=True, logprobs=1, prompt_logprobs=4)
    choices = asking.whole(CompletionBody, **body)["choices"]
    assert choices[0]["prompt_logprobs"] == choices[2]["prompt_logprobs"] != choices[3]["prompt_logprobs"]
    for choice in choices:
        top = [step for step in choice["logprobs"]["top_logprobs"] if step is not None]
        assert all(len(step) <= 2 for step in top)
        assert all(len(step) >= 4 for step in choice["prompt_logprobs"][1:])


def test_a_million_wrong_items_are_refused_at_the_first():
    """Else pydantic makes an error of each: seconds, and a gigabyte."""
    for raw in (b'{"prompt": [' + b"-1," * 300000 + b"-1]}", b'{"stop": [' + b"1," * 300000 + b'1], "prompt": "A"}'):
        with pytest.raises(ValidationError) as error:
            CompletionBody.model_validate_json(raw)
        assert error.value.error_count() < 10
