"""`alea bench quantization`: the effect of fewer bits on the storyteller's distributions and on the tokens drawn."""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

import samplers
from bench import runner
from bench.loading import schemes
from bench.loading.loaders import load_ours
from bench.records import Record, four_digits, quantiles
from bench.speed.timing import interleaved
from model import Llama, Tokenizer, generate
from model.config import BUILT_IN

EXACT = "float32"
SCHEMES = [scheme for scheme in schemes.SCHEMES if scheme != EXACT]
TEXTS, TOKENS = 16, 256  # that the model itself drew in float32, at T = 1
PROMPT = "Once upon a time"
TIMED = 32  # new tokens of a call of generate, one sequence
SEED = 0
CAPTION = (
    "KL(p || q) in nats at each token, from the model's distribution in float32 to the scheme's. Same top: the most "
    "probable token stays. Same draw: so does the token drawn at T = 1 with the same random bits. Of quantized models "
    "embedding, norms and lm_head are in bfloat16. Tokens/s: of generate, one sequence"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = f"some of {', '.join(SCHEMES)}; default all of them"
    parser.add_argument("--dtypes", nargs="+", default=SCHEMES, metavar="NAME", help=names)
    parser.add_argument("--texts", type=int, default=TEXTS, metavar="N", help=f"default {TEXTS}")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help=f"of a text; default {TOKENS}")
    runner.add_options(parser, "quantization", "two texts of 32 tokens, two rounds", rounds=7)


def run(arguments: argparse.Namespace) -> int:
    if arguments.quick:
        arguments.texts, arguments.tokens, arguments.rounds = 2, 32, 2
    runner.check_options(arguments, texts=1, tokens=1)
    runner.check_names("dtypes", arguments.dtypes, SCHEMES)
    torch.set_num_threads(arguments.threads)
    chosen, texts = [EXACT, *arguments.dtypes], drawn(arguments.texts, arguments.tokens)
    speeds = tokens_a_second(chosen, arguments.rounds)
    measure = partial(measured, texts=texts, exact=logits(EXACT, texts), rounds=arguments.rounds, speeds=speeds)
    records = runner.collect("quantization", chosen, measure, arguments.save)
    if records:
        title = f"the storyteller compared with itself in float32, over {arguments.texts} texts that it drew at T = 1"
        runner.print_table(title, table(records), f"{CAPTION}.")
    return 0


def drawn(texts: int, tokens: int) -> Tensor:
    """Ids int64 [texts, prompt + tokens] of texts that the model draws in float32."""
    tokenizer = Tokenizer.from_pretrained()
    prompt = tokenizer.encode(PROMPT)
    sampling: Record = dict(do_sample=True, temperature=1.0, top_p=1.0, top_k=0, seed=SEED, eos_token_id=())
    (found,) = generate(
        loaded(EXACT), tokenizer, [prompt], max_new_tokens=tokens, num_return_sequences=texts, **sampling
    )
    return torch.tensor([prompt + text.ids for text in found])


def loaded(scheme: str) -> Llama:
    return load_ours(BUILT_IN, schemes.SCHEMES[scheme])


def logits(scheme: str, texts: Tensor) -> Tensor:
    """float32 [tokens, V] of all texts one below the other, each text read alone."""
    llama = loaded(scheme)
    with torch.inference_mode():
        return torch.cat([llama(text[None])[0] for text in texts])


def measured(scheme: str, texts: Tensor, exact: Tensor, rounds: int, speeds: dict[str, dict[str, float]]) -> Record:
    """The distance of the scheme from float32 at every token, and its speed."""
    found = logits(scheme, texts)
    divergences = divergence(exact, found)
    return {
        "model": "storyteller",
        "dtype": scheme,
        "texts": len(texts),
        "tokens": texts.numel(),
        "seed": SEED,
        "kl": {
            "mean": four_digits(divergences.mean().item()),
            "p99": four_digits(torch.quantile(divergences, 0.99).item()),
            "max": four_digits(divergences.max().item()),
        },
        "same_top": four_digits((exact.argmax(-1) == found.argmax(-1)).double().mean().item()),
        "same_draw": four_digits((draws(exact, texts) == draws(found, texts)).double().mean().item()),
        "rounds": rounds,
        "tokens_a_second": speeds[scheme],
    }


def divergence(exact: Tensor, found: Tensor) -> Tensor:
    """KL(p || q) = sum p (ln p - ln q) in nats, float64 [rows], from the logits of p and of q, [rows, V].

    >>> p, q = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log(), torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    >>> divergence(p, q).numpy().round(4)
    array([0.    , 0.1438])
    """
    ln_p, ln_q = (logits.double().log_softmax(-1) for logits in (exact, found))
    return (ln_p.exp() * (ln_p - ln_q)).sum(-1).clamp(min=0)  # rounding can leave -1e-17


def draws(logits: Tensor, texts: Tensor) -> Tensor:
    """The tokens drawn at T = 1 at each place of each text, by stream and position."""
    count, length = texts.shape
    streams = torch.arange(count).repeat_interleave(length)
    positions = torch.arange(length).repeat(count)
    return samplers.sample(logits, samplers.SamplingParams(), seed=SEED, stream=streams, position=positions).tokens


def tokens_a_second(chosen: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Of generate, one sequence, as quantiles; the schemes take turns."""
    call = partial(generate, max_new_tokens=TIMED, eos_token_id=(), model_logprobs=False)
    tokenizer = Tokenizer.from_pretrained()
    calls = {scheme: partial(call, loaded(scheme), tokenizer, [PROMPT]) for scheme in chosen}
    seconds = interleaved(calls, rounds)
    return {scheme: quantiles([TIMED / s for s in times]) for scheme, times in seconds.items()}


def table(records: list[Record]) -> runner.Rows:
    """A line a scheme."""
    headings = ["weights", "KL, mean", "KL, 99 % below", "KL, greatest", "same top", "same draw", "tokens/s"]
    return headings, [
        [
            record["dtype"],
            *(f"{record['kl'][figure]:.2g}" for figure in ("mean", "p99", "max")),
            *(f"{record[figure]:.1%}" for figure in ("same_top", "same_draw")),
            f"{record['tokens_a_second']['p50']:,.0f}",
        ]
        for record in records
    ]
