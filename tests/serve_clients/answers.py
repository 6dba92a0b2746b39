"""What the package itself answers, without a server: `python -m tests.serve_clients.answers` in the package's own
environment. Questions on standard input, answers on standard output, one line of JSON each.

A question is {"call": "generate", ...} with the keywords of `model.generate`, or {"call": "score", ...} with those of
`model.study.score.score`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from model import Llama, Tokenizer, generate
from model.decoding.writer import Generation
from model.study.score import score


def main() -> None:
    model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()

    def answer(call: str, **keywords: Any) -> list[Any]:
        if call == "score":
            return [asdict(one) for one in score(model, tokenizer, **keywords)]
        return [[as_json(text) for text in texts] for texts in generate(model, tokenizer, **keywords)]

    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)


def as_json(text: Generation) -> dict[str, Any]:
    logprobs = text.completion_logprobs
    return asdict(text) | {"completion_logprobs": logprobs and logprobs.to_openai()}


if __name__ == "__main__":
    main()
