"""What the package itself answers, without a server: `python -m tests.serve_clients.answers` in the package's own
environment. Questions on standard input, answers on standard output, both one JSON list.

A question is {"call": "generate", ...} with the keywords of `model.generate`, or {"call": "score", ...} with those of
`model.study.score.score`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from model import Llama, Tokenizer, generate
from model.study.score import score


def main() -> None:
    model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    calls = {"generate": generate, "score": score}

    def answer(call: str, **keywords: Any) -> Any:
        result = calls[call](model, tokenizer, **keywords)
        return (
            [[asdict(text) for text in texts] for texts in result] if call == "generate" else list(map(asdict, result))
        )

    json.dump([answer(**question) for question in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
