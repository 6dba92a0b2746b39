"""The tables of docs/scale.md from the records of this folder's scripts."""

from __future__ import annotations

from bench import runner
from bench.records import Record, three_digits

RAY_TRIALS = ("one worker", "two workers", "other blocks", "one engine killed", "all killed, then resumed")
RAY_CAPTION = (
    "Prompts of 40 tokens through Ray Data and vLLM on two cores, in float32. Drawn: lines, run by run; what is killed "
    "(SIGKILL) is killed after a third of them. Equal: lines of the joined file that are those of alea generate"
)
GRPO_CHAINS = ("T = 1", "T = 0.7", "top-p 0.9", "top-k 50", "min-p 0.05", "T = 0.7, top-p 0.9")
GRPO_CAPTION = (
    "16 texts of 64 tokens. Difference: of trl's logprob and the engine's, on the same logits, the greatest of all "
    "tokens; kept: the same with trl's softmax over the kept tokens. Ratio: trl's probability over the engine's, the "
    "mean of tokens, and of whole texts"
)


def ray_table(records: list[Record]) -> runner.Rows:
    """A line a trial."""
    return ["trial", "workers", "prompts in a block", "processes killed", "lines drawn", "equal"], [
        [
            record["trial"],
            *(
                ", then ".join(str(run[name]) for run in record["runs"])
                for name in ("workers", "block", "processes_killed", "drawn")
            ),
            f"{record['equal']} of {record['prompts']}",
        ]
        for record in records
    ]


def grpo_table(records: list[Record]) -> runner.Rows:
    """A line for each way to sample."""
    lines = []
    for record in records:
        difference, ratio = record["greatest_difference"], record["ratio"]
        figures = [difference["same_logits"], difference["same_logits_over_kept"]]
        figures += [ratio["token"]["mean"], ratio["text"]["mean"]]
        lines.append([record["chain"], *(in_digits(figure) for figure in figures)])
    return ["sampling", "difference", "kept", "ratio, token", "ratio, text"], lines


def in_digits(figure: float) -> str:
    """
    >>> in_digits(0.907), in_digits(2.9e-7)
    ('0.907', '2.9e-07')
    """
    return three_digits(figure) if figure >= 1e-3 else f"{figure:.2g}"
