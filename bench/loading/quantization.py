"""`alea bench quantization`: what fewer bits do to the storyteller's distributions, and to what is drawn from them."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from bench import measure, runner
from bench.loading import schemes
from bench.loading.loaders import ours
from model.config import BUILT_IN

HELP = "KL divergence, tokens that stay the same and speed of the built-in model in 16, 8 and 4 bits, against float32"
EXACT = "float32"
SCHEMES = [scheme for scheme in schemes.SCHEMES if scheme != EXACT]
TEXTS, TOKENS = 16, 256  # that the model itself drew in float32, at T = 1
PROMPT = "Once upon a time"
TIMED = 32  # new tokens of a call of generate, one sequence
SEED = 0
CAPTION = (
    "KL(p || q) in nats at each token, from the model's distribution in float32 to the scheme's. Same top: the most "
    "probable token stays. Same draw: so does the token drawn at T = 1 with the same random bits. Of quantised models "
    "embedding, norms and lm_head are in bfloat16. Tokens/s: of generate, one sequence"
)

Record = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = f"some of {', '.join(SCHEMES)}; default all of them"
    parser.add_argument("--dtypes", nargs="+", default=SCHEMES, metavar="NAME", help=names)
    parser.add_argument("--texts", type=int, default=TEXTS, metavar="N", help=f"default {TEXTS}")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help=f"of a text; default {TOKENS}")
    runner.add_options(parser, "quantization", "two texts of 32 tokens, two rounds", rounds=7)


def run(arguments: argparse.Namespace) -> int:
    import torch

    if arguments.quick:
        arguments.texts, arguments.tokens, arguments.rounds = 2, 32, 2
    check_options(arguments)
    torch.set_num_threads(arguments.threads)
    chosen, texts = [EXACT, *arguments.dtypes], drawn(arguments.texts, arguments.tokens)
    speeds = tokens_a_second(chosen, arguments.rounds)
    record = partial(measured, texts=texts, exact=logits(EXACT, texts), rounds=arguments.rounds, speeds=speeds)
    records = runner.collect("quantization", chosen, record, arguments.save, tell)
    if records:
        title = f"the storyteller beside itself in float32, over {arguments.texts} texts that it drew so at T = 1"
        runner.print_table(title, *rows(records), caption=f"{CAPTION}.")
    return 0


def check_options(arguments: argparse.Namespace) -> None:
    """Raises: ValueError naming the option."""
    runner.check_options(arguments, texts=1, tokens=1)
    runner.check_names("dtypes", arguments.dtypes, SCHEMES)


def drawn(texts: int, tokens: int) -> Any:
    """Ids int64 [texts, prompt + tokens] of texts that the model draws in float32."""
    import torch

    from model import Tokenizer, generate

    tokenizer = Tokenizer.from_pretrained()
    prompt = tokenizer.encode(PROMPT)
    sampling: Record = dict(do_sample=True, temperature=1.0, top_p=1.0, top_k=0, seed=SEED, eos_token_id=())
    (found,) = generate(
        loaded(EXACT), tokenizer, [prompt], max_new_tokens=tokens, num_return_sequences=texts, **sampling
    )
    return torch.tensor([prompt + text.ids for text in found])


def loaded(scheme: str) -> Any:
    return ours(BUILT_IN, schemes.SCHEMES[scheme])


def logits(scheme: str, texts: Any) -> Any:
    """float32 [tokens, V] of all texts one below the other, each text read alone."""
    import torch

    llama = loaded(scheme)
    with torch.inference_mode():
        return torch.cat([llama(text[None])[0] for text in texts])


def measured(scheme: str, texts: Any, exact: Any, rounds: int, speeds: dict[str, dict[str, float]]) -> Record:
    """One record: how far the scheme is from float32 at every token, and how fast."""
    import torch

    found = logits(scheme, texts)
    divergences = divergence(exact, found)
    return {
        "benchmark": "quantization",
        "model": "storyteller",
        "dtype": scheme,
        "texts": len(texts),
        "tokens": texts.numel(),
        "seed": SEED,
        "kl": {
            "mean": four_digits(divergences.mean()),
            "p99": four_digits(torch.quantile(divergences, 0.99)),
            "max": four_digits(divergences.max()),
        },
        "same_top": four_digits((exact.argmax(-1) == found.argmax(-1)).double().mean()),
        "same_draw": four_digits((draws(exact, texts) == draws(found, texts)).double().mean()),
        "rounds": rounds,
        "tokens_a_second": speeds[scheme],
        **measure.circumstances(),
    }


def divergence(exact: Any, found: Any) -> Any:
    """KL(p || q) = sum p (ln p - ln q) in nats, float64 [rows], from the logits of p and of q, [rows, V].

    >>> import torch
    >>> p, q = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log(), torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    >>> divergence(p, q).numpy().round(4)
    array([0.    , 0.1438])
    """
    ln_p, ln_q = (some.double().log_softmax(-1) for some in (exact, found))
    return (ln_p.exp() * (ln_p - ln_q)).sum(-1).clamp(min=0)  # rounding can leave -1e-17


def draws(logits: Any, texts: Any) -> Any:
    """The token drawn at T = 1 at each place of each text, by stream and position."""
    import torch

    import samplers

    count, length = texts.shape
    streams = torch.arange(count).repeat_interleave(length)
    positions = torch.arange(length).repeat(count)
    return samplers.sample(logits, samplers.SamplingParams(), seed=SEED, stream=streams, position=positions).tokens


def tokens_a_second(chosen: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Of generate, one sequence, as quantiles; the schemes take turns."""
    from model import Tokenizer, generate

    call = partial(generate, max_new_tokens=TIMED, eos_token_id=(), model_logprobs=False)
    tokenizer = Tokenizer.from_pretrained()
    calls = {scheme: partial(call, loaded(scheme), tokenizer, [PROMPT]) for scheme in chosen}
    seconds = measure.interleaved(calls, rounds)
    return {scheme: measure.quantiles([TIMED / each for each in times]) for scheme, times in seconds.items()}


def four_digits(value: Any) -> float:
    return float(f"{float(value):.4g}")


def rows(records: list[Record]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells."""
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


def tell(record: Record) -> None:
    print(f"{record['dtype']}: {record['kl']['mean']:.3g} nats a token")
