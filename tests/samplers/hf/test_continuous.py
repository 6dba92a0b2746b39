"""Oracle: `generate` on the same prompts, one at a time, with each request's parameters, seed and stream."""

import pytest
import torch
from transformers import GenerationConfig, WatermarkingConfig

from samplers import SamplingParams, hf

continuous = pytest.importorskip("samplers.hf.continuous", reason="this transformers has no such processors")
from transformers import ContinuousBatchingConfig  # noqa: E402

NEW = 6
SAMPLING = dict(do_sample=True, temperature=0.7, top_k=40, top_p=0.9, max_new_tokens=NEW)
SMALL = dict(num_blocks=16, max_batch_tokens=32)  # of the cache; transformers' default takes most of the memory


@pytest.fixture
def prompts(ids) -> list[list[int]]:
    """Of different lengths."""
    return [ids[0].tolist(), ids[1, :3].tolist(), ids[2, :4].tolist()]


def config(**options) -> GenerationConfig:
    return GenerationConfig(**{**SAMPLING, "eos_token_id": -1, "pad_token_id": 0} | options)


def batch(llama, prompts, generation_config=None, **options) -> list[list[int]]:
    """What `generate_batch` adds to each prompt."""
    outputs = llama.generate_batch(
        prompts,
        generation_config=generation_config or config(),
        continuous_batching_config=ContinuousBatchingConfig(**SMALL, **options),
    )
    assert all(output.error is None for output in outputs.values())
    return [output.generated_tokens for output in outputs.values()]


def one(llama, prompt, params=None, **options) -> list[int]:
    """What generate adds to a prompt."""
    hf.attach(llama, params, **options)
    arguments = {**SAMPLING, "eos_token_id": None} if params is None else dict(do_sample=True, max_new_tokens=NEW)
    return llama.generate(torch.tensor([prompt]), **arguments)[0, len(prompt) :].tolist()


@pytest.mark.parametrize("per_request", [False, True])
def test_requests_draw_as_rows_do(llama, prompts, per_request):
    texts = batch(hf.attach(llama, seed=5), prompts, per_request_processors=per_request)
    assert texts == [one(llama, prompt, seed=5, stream=number) for number, prompt in enumerate(prompts)]


def test_parameters_seeds_and_streams_by_request(llama, prompts):
    params = [SamplingParams(top_k=3), SamplingParams(temperature=0.4), SamplingParams(min_p=0.02, top_p=0.8)]
    seeds, streams = [11, 12, 13], [7, 2**40, -1]
    hf.attach(llama, params, seed=seeds, stream=streams)
    texts = batch(llama, prompts, config(temperature=1.0, top_k=50, top_p=1.0))
    rows = zip(prompts, params, seeds, streams, strict=True)
    assert texts == [one(llama, prompt, p, seed=seed, stream=stream) for prompt, p, seed, stream in rows]


def test_a_request_asks_for_its_own(llama, prompts):
    hf.attach(llama, seed=5)
    asked = [dict(seed=1), dict(seed=2, stream=30, temperature=0.5, top_k=4), dict(top_p=0.3)]
    settings = ContinuousBatchingConfig(**SMALL)
    texts = {}
    with llama.continuous_batching_context_manager(config(), continuous_batching_config=settings) as manager:
        names = [manager.add_request(p, max_new_tokens=NEW, **a) for p, a in zip(prompts, asked, strict=True)]
        for _ in names:
            output = manager.get_result(timeout=30)
            texts[output.request_id] = output.generated_tokens
    expected = [
        one(llama, prompts[0], SamplingParams(temperature=0.7, top_k=40, top_p=0.9), seed=1, stream=0),
        one(llama, prompts[1], SamplingParams(temperature=0.5, top_k=4, top_p=0.9), seed=2, stream=30),
        one(llama, prompts[2], SamplingParams(temperature=0.7, top_k=40, top_p=0.3), seed=5, stream=2),
    ]
    assert [texts[name] for name in names] == expected


def test_a_request_that_asks_for_nonsense_fails_alone(llama, prompts):
    hf.attach(llama, seed=5)
    settings = ContinuousBatchingConfig(**SMALL)
    outputs = {}
    with llama.continuous_batching_context_manager(config(), continuous_batching_config=settings) as manager:
        manager.add_request(prompts[0], request_id="bad", top_p=1.2)
        manager.add_request(prompts[0], request_id="unknown", top_h=0.5)
        manager.add_request(prompts[0], request_id="good", max_new_tokens=NEW, stream=0)
        for _ in range(3):
            output = manager.get_result(timeout=30)
            outputs[output.request_id] = output
    assert "top_p must be in [0, 1], got 1.2" in outputs["bad"].error and "top_h" in outputs["unknown"].error
    assert outputs["good"].generated_tokens == one(llama, prompts[0], seed=5, stream=0)


def test_logprobs(llama, prompts):
    hf.attach(llama, seed=5)
    settings = ContinuousBatchingConfig(**SMALL, return_logprobs=True)
    outputs = llama.generate_batch(prompts[:1], config(), continuous_batching_config=settings)
    (output,) = outputs.values()
    ids = torch.tensor([prompts[0]])
    stock = llama.generate(
        ids, **SAMPLING, eos_token_id=None, return_dict_in_generate=True, output_scores=True
    )  # of the same text
    assert stock.sequences[0, 5:].tolist() == output.generated_tokens
    expected = llama.compute_transition_scores(stock.sequences, stock.scores, normalize_logits=True)[0]
    torch.testing.assert_close(torch.tensor(output.logprobs), expected, rtol=0, atol=1e-4)


@pytest.mark.exhaustive
def test_greedy_is_left_alone(llama, prompts):
    greedy = config(do_sample=False, temperature=1.0, top_k=50, top_p=1.0)
    stock = batch(llama, prompts, greedy)
    assert batch(hf.attach(llama, seed=5), prompts, greedy) == stock


@pytest.mark.parametrize(
    ("option", "named"), [(dict(top_h=0.5), "top_h"), (dict(watermarking_config=WatermarkingConfig()), "watermarking")]
)
def test_steps_aside_with_a_warning(llama, option, named):
    hf.attach(llama, seed=5)
    with pytest.warns(UserWarning, match=named):
        llama.init_continuous_batching(config(**option), ContinuousBatchingConfig(**SMALL))


@pytest.mark.parametrize("name", ["seed", "stream", "params"])
def test_too_few_for_the_requests(llama, prompts, name):
    """The request fails and says why; transformers fails the others of its batch with it."""
    values = [SamplingParams()] * 2 if name == "params" else [1, 2]
    hf.attach(llama, **{"seed": 5, name: values})
    outputs = llama.generate_batch(prompts, config(), continuous_batching_config=ContinuousBatchingConfig(**SMALL))
    assert any(f"{name} must be one or one a request, got 2" in (output.error or "") for output in outputs.values())


class Named:
    def __init__(self, request_id, num_children=0):
        self.request_id, self.num_children = request_id, num_children


@pytest.mark.parametrize(
    ("request_id", "children", "number"),
    [("req_7", 0, 7), ("req_7", 2, 23), ("req_7__child#0", 2, 21), ("req_7__child#1", 2, 22)],
)
def test_numbers_of_requests_are_those_of_rows(request_id, children, number):
    """Row i·n + j of generate with num_return_sequences = n."""
    assert continuous.number_of(Named(request_id, children)) == number


def test_numbers_of_named_requests():
    numbers = {continuous.number_of(Named(name)) for name in ("a", "b", "chat-17", "req_x")}
    assert len(numbers) == 4 and all(-(2**63) <= number < 2**63 for number in numbers)
    assert continuous.number_of(Named("a")) == continuous.number_of(Named("a"))
