"""Oracle: replies made by hand, right and wrong. The check of all other tests must itself be able to fail."""

import copy
from typing import Any

import pytest
from pydantic import ValidationError
from replies import check_error, check_events, check_object

COMPLETION: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "text": "a", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def changed(**choice: Any) -> dict[str, Any]:
    reply = copy.deepcopy(COMPLETION)
    reply["choices"][0].update(choice)
    return reply


def test_a_right_reply():
    check_object(COMPLETION)
    check_object(changed(finish_reason=None))
    check_object(changed(logprobs=dict(tokens=["a", "b"], token_logprobs=[None, -1.0], top_logprobs=None)))


@pytest.mark.parametrize("choice", [dict(stop_reason=None), dict(logprobs=dict(tokens=[], ids=[]))], ids=str)
def test_a_field_too_many(choice: dict[str, Any]):
    with pytest.raises(AssertionError, match="lacks"):
        check_object(changed(**choice))


@pytest.mark.parametrize(
    "choice",
    [dict(index="0"), dict(text=None), dict(finish_reason="eos"), dict(logprobs=dict(token_logprobs=[-1.0, None]))],
    ids=str,
)
def test_a_wrong_value(choice: dict[str, Any]):
    with pytest.raises(ValidationError):
        check_object(changed(**choice))


@pytest.mark.parametrize("error", [dict(message="no"), dict(message="no", type="t", param=None, code=400)], ids=str)
def test_a_wrong_error(error: dict[str, Any]):
    with pytest.raises((AssertionError, ValidationError)):
        check_error({"error": error})


@pytest.mark.parametrize("text", ["data: {}\n\n", "data: [DONE]\n", "event: x\n\ndata: [DONE]\n\n"])
def test_a_wrong_stream(text: str):
    with pytest.raises(AssertionError):
        check_events(text)
