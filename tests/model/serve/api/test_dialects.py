"""Oracle: /v1/completions, asked the same; the shapes are those of each API's documentation."""

import pytest

from model.serve.api.completions import CompletionBody
from model.serve.api.errors import Refusal
from model.serve.api.llama_cpp import LlamaCppBody
from model.serve.api.sagemaker import InvocationBody
from model.serve.api.tgi import GenerateBody, StreamBody
from model.serve.api.together import InferenceBody
from model.serve.api.tokens import DetokenizeBody, TokenizeBody

SAMPLING = dict(temperature=0.7, top_p=0.9, repetition_penalty=1.1, seed=3)


def expected(asking, **more) -> dict:
    body = dict(prompt="The fox", max_tokens=12, **SAMPLING, **more)
    return asking.whole(CompletionBody, **body)["choices"][0]


def test_together(asking):
    body = dict(model="storyteller", prompt="The fox", max_tokens=12, stop=["</s>"], **SAMPLING)
    reply = asking.whole(InferenceBody, **body)
    assert reply["output"]["choices"] == [{"text": expected(asking)["text"], "finish_reason": "length"}]
    assert reply["status"] == "finished" and reply["prompt"] == ["The fox"]
    *events, done = asking.streamed(InferenceBody, **body, stream_tokens=True)
    assert "".join(event["choices"][0]["text"] for event in events) == expected(asking)["text"] and done == "[DONE]"


def test_sagemaker(asking):
    body = dict(prompt="The fox", max_tokens_to_sample=12, **SAMPLING)
    assert asking.whole(InvocationBody, **body) == {"outputs": [expected(asking)["text"]]}
    events = asking.streamed(InvocationBody, **body, stream=True)
    assert len(events) > 3 and "".join(event["outputs"][0] for event in events) == expected(asking)["text"]


def test_text_generation_inference(asking):
    parameters = dict(max_new_tokens=12, details=True, decoder_input_details=True, **SAMPLING)
    reply = asking.whole(GenerateBody, inputs="The fox", parameters=parameters)
    wanted = expected(asking, logprobs=0, echo=True)
    logprobs = wanted["logprobs"]["token_logprobs"]
    details = reply["details"]
    assert "The fox" + reply["generated_text"] == wanted["text"]
    assert [token["logprob"] for token in details["prefill"] + details["tokens"]] == logprobs
    assert (details["finish_reason"], details["generated_tokens"], details["seed"]) == ("length", 12, 3)
    events = asking.streamed(StreamBody, inputs="The fox", parameters=parameters)
    assert [event["index"] for event in events] == list(range(1, 13))
    assert [event["token"] for event in events] == details["tokens"]
    assert events[-1]["generated_text"] == reply["generated_text"] and events[0]["generated_text"] is None
    greedy = dict(do_sample=False, return_full_text=True, max_new_tokens=5)
    zero = asking.whole(CompletionBody, prompt="The fox", max_tokens=5, temperature=0)["choices"][0]["text"]
    reply = asking.whole(GenerateBody, inputs="The fox", parameters=greedy)
    assert reply == {"generated_text": "The fox" + zero}


def test_llama_cpp(asking):
    penalty = {"repeat_penalty": 1.1, **{name: SAMPLING[name] for name in ("temperature", "top_p", "seed")}}
    body = dict(prompt="The fox", n_predict=12, n_probs=2, **penalty)
    reply = asking.whole(LlamaCppBody, **body)
    wanted = expected(asking, logprobs=2)
    assert (reply["content"], reply["stop"], reply["stop_type"]) == (wanted["text"], True, "limit")
    assert [one["logprob"] for one in reply["completion_probabilities"]] == wanted["logprobs"]["token_logprobs"]
    assert reply["generation_settings"]["repetition_penalty"] == 1.1
    events = asking.streamed(LlamaCppBody, **body, stream=True)
    assert "".join(event["content"] for event in events) == wanted["text"]
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
    several = asking.whole(LlamaCppBody, **{**body, "prompt": ["The fox", [1, 310]]})
    assert several[0]["content"] == wanted["text"] and several[1]["index"] == 1
    stopped = asking.whole(LlamaCppBody, **body, stop=[wanted["text"][5:9]])
    assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", wanted["text"][5:9])


def test_tokens(asking):
    service, tokenizer = asking.service, asking.service.tokenizer
    ids = tokenizer.encode("Zoë")
    assert TokenizeBody(prompt="Zoë").answer(service)["tokens"] == ids
    assert TokenizeBody(content="Zoë").answer(service)["tokens"] == ids[1:]
    pieces = TokenizeBody(content="Zoë", with_pieces=True).answer(service)["tokens"]
    data = [piece["piece"].encode() if isinstance(piece["piece"], str) else bytes(piece["piece"]) for piece in pieces]
    assert b"".join(data) == " Zoë".encode()
    assert DetokenizeBody(tokens=ids).answer(service)["prompt"] == "Zoë"


def test_a_seed_of_minus_one_asks_llama_cpp_for_any():
    assert LlamaCppBody(prompt="A", seed=-1).seed in LlamaCppBody(prompt="A").no_seed
    assert CompletionBody(prompt="A", seed=-1).seed not in CompletionBody(prompt="A").no_seed


REFUSED = [
    (InvocationBody, dict(prompt="A", max_tokens=1, max_tokens_to_sample=2), "max_tokens"),
    (LlamaCppBody, dict(prompt="A", repeat_penalty=1.1, repetition_penalty=1.2), "repeat_penalty"),
    (GenerateBody, dict(inputs="A", parameters=dict(do_sample=False, top_p=0.5)), "parameters.do_sample"),
    (StreamBody, dict(inputs="A", stream=False), "stream"),
]


@pytest.mark.parametrize(("kind", "fields", "param"), REFUSED)
def test_what_contradicts_itself_is_refused(asking, kind, fields, param):
    with pytest.raises(Refusal) as refusal:
        asking.prepared(kind, **fields)
    assert refusal.value.param == param
