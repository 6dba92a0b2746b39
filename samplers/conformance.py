"""Does a sampler draw every token as often as it should? Statistical checks for any sampler callable.

A sampler is `sampler(logits, params, seed) -> tokens`. It gets float32 logits [B, V], which it must not write, a
SamplingParams, and an int that is new in each call. It returns B token ids as a tensor, an array or a list. `run` draws
from rows with a final distribution known in float64 (from `samplers.textbook`, never from our integer weights), and
returns one Finding per check.

Each check is one test of all its cases, with a false-alarm rate of one in a million (Bonferroni); a failure is not
drawn again. A pass means only that this number of draws cannot distinguish the sampler from the exact distribution.
Filters apply in the order of SamplingParams; penalties and biases are not judged.

>>> all(finding.passed for finding in run(alea(), draws=200))
True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import torch

from samplers.conformance_cases import LEVELS, PLAIN, Case, distributions, mask_cases, tail_case, zero_cases, zipf
from samplers.goodness_of_fit import cells, chi_square_tail, likelihood_ratio, pearson, poisson_tail
from samplers.params import SamplingParams, integer
from samplers.sampler import sample

Sampler: TypeAlias = "Callable[[torch.Tensor, SamplingParams, int], Any]"
Verdict: TypeAlias = "tuple[float, str]"  # of one case: the statistic and a message

DIGITS = 6.0  # a p-value below 10^-6 fails
NEVER = 1e-30  # a token below this probability must never be drawn
MISSED = 1e-9  # an undrawn kept token is missing if that was less probable than this; a few hundred are judged
MASK_DRAWS = 4096  # enough for every kept token of `mask_cases`
TAIL_SHARE = 3  # the row of the tail is long, so it gets a third of the draws
CALL_ROWS, CALL_LOGITS = 20_000, 1 << 22  # the limits of one call


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    check: its name. passed: True, False, or None if nothing could be judged (the message says why).
    statistic, limit: a statistic above the limit is a failure. In `zero_probability`, `masks` and `greedy` it is the
    number of errors, limit 0; elsewhere -log10(p), limit 6 (inf: wrong without statistics). NaN if nothing was judged.
    """

    check: str
    passed: bool | None
    statistic: float
    limit: float
    message: str


class Refused(Exception):
    """The sampler raised."""


class Malformed(Exception):
    """The sampler returned something other than B token ids."""


class Trial:
    """A sampler under test: calls it with rows and new seeds, and caches its counts.

    sampler: see the module. draws: int >= 1, from each ordinary row. seed: the first seed; each call takes the next.
    device: the device of the logits.
    """

    def __init__(self, sampler: Sampler, draws: int, seed: int = 0, device: str | torch.device = "cpu") -> None:
        self.sampler, self.device = sampler, device
        self.draws = integer("draws", draws, 1)
        self.seeds = count(integer("seed", seed))
        self.counted: dict[str, np.ndarray] = {}

    def call(self, logits: torch.Tensor, params: SamplingParams) -> np.ndarray:
        """One call on logits [B, V]: int64 [B]. Raises: Refused or Malformed."""
        seed = next(self.seeds)
        try:
            tokens = self.sampler(logits, params, seed)
        except Exception as error:  # the other cases go on, whatever the sampler raises
            raise Refused(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
        return token_ids(tokens, *logits.shape)

    def tokens(self, case: Case, draws: int) -> np.ndarray:
        """Tokens drawn from equal rows: int64 [draws]."""
        vocabulary = len(case.logits)
        rows = min(draws, CALL_ROWS, max(1, CALL_LOGITS // vocabulary))
        logits = torch.from_numpy(case.logits).to(self.device).repeat(rows, 1)
        calls = [self.call(logits[: min(rows, draws - done)], case.params) for done in range(0, draws, rows)]
        return np.concatenate(calls)

    def counts(self, case: Case, draws: int) -> np.ndarray:
        """How often each token was drawn: int64 [V]; cached for all checks of the case."""
        if case.name not in self.counted:
            self.counted[case.name] = np.bincount(self.tokens(case, draws), minlength=len(case.logits))
        return self.counted[case.name]


def run(sampler: Sampler, draws: int = 150_000, seed: int = 0, device: str | torch.device = "cpu") -> list[Finding]:
    """Every check on a sampler; about 3·10^9 logits at the default number of draws.

    Args:
        sampler: callable (logits [B, V], params, seed) -> B token ids. A case in which it raises is not judged.
        draws: int >= 1, from each ordinary row; to detect half the deviation takes four times as many.
        seed: int; the calls get seed, seed + 1, ...
        device: the device of the logits.
    Returns: the findings, `counts` first; if that fails, the others are meaningless and are not judged.
    Raises: TypeError or ValueError for draws or seed out of range.

    >>> [finding.check for finding in run(lambda logits, params, seed: [7] * len(logits), draws=20) if finding.passed]
    []
    """
    trial = Trial(sampler, draws, seed, device)
    first = counts(trial)
    if first.passed is False:
        reason = "not judged: it means something only where `counts` passes"
        return [first, *(Finding(check.__name__, None, math.nan, math.nan, reason) for check in CHECKS)]
    return [first, *(check(trial) for check in CHECKS)]


def report(findings: list[Finding]) -> str:
    """The findings as text, one per line.

    >>> print(report([Finding("tail", False, 7.25, 6.0, "1e-06: too few"), Finding("greedy", None, 0, 0, "no T=0")]))
    FAIL  tail              7.25 > 6    1e-06: too few
    —     greedy                        no T=0
    """
    return "\n".join(map(line, findings))


def line(finding: Finding) -> str:
    word = {True: "pass", False: "FAIL", None: "—"}[finding.passed]
    sign = ">" if finding.passed is False else "<="
    figures = "" if finding.passed is None else f"{finding.statistic:.3g} {sign} {finding.limit:g}"
    return f"{word:4}  {finding.check:16}  {figures:10}  {finding.message}"


def alea(backend: str = "auto") -> Sampler:
    """`samplers.sample` as a sampler.

    >>> alea()(torch.tensor([[0.0, 9.0, -torch.inf]] * 3), SamplingParams(temperature=0), 1).tolist()
    [1, 1, 1]
    """
    return lambda logits, params, seed: sample(logits, params, seed=seed, backend=backend).tokens


# The checks. Each judges its cases one by one.


def counts(trial: Trial) -> Finding:
    """B rows give B ids, each from its own row; rows of a batch and neighbouring seeds are independent."""
    judges = {
        "form": partial(form, trial),
        "own row": partial(own_row, trial),
        "logits": partial(logits_untouched, trial),
        "independence": partial(independence, trial),
    }
    return finding("counts", DIGITS, judges)


def chi_square(trial: Trial) -> Finding:
    """Pearson's χ² over all tokens of positive probability; rare tokens are pooled, none is dropped."""
    return goodness_of_fit("chi_square", trial, pearson)


def g_test(trial: Trial) -> Finding:
    """The likelihood ratio over the same cells; more sensitive to a token that is drawn far too rarely."""
    return goodness_of_fit("g_test", trial, likelihood_ratio)


def tail(trial: Trial) -> Finding:
    """Tokens of probability 1e-4, 1e-5, 1e-6 and 1e-8; each level is judged by its pooled count.

    float32 noise has 24 bits and nothing between 0 and 6e-8, which the last level detects. A single token of such a
    level is drawn too rarely to be judged, so errors that cancel within a level stay unseen.
    """
    return finding("tail", DIGITS, {f"{level:g}": partial(tail_level, trial, level) for level in LEVELS})


def zero_probability(trial: Trial) -> Finding:
    """Tokens at -inf, cut by a filter, or of probability below 1e-30 are never drawn, at any position."""
    return finding("zero_probability", 0, {case.name: partial(forbidden, trial, case) for case in zero_cases()})


def masks(trial: Trial) -> Finding:
    """All tokens of each filter's kept set are drawn, and no others."""
    return finding("masks", 0, {case.name: partial(kept_set, trial, case) for case in mask_cases()})


def greedy(trial: Trial) -> Finding:
    """T = 0 gives the first maximum with any seed, in a batch and alone."""
    return finding("greedy", 0, {"T=0": partial(first_maximum, trial)})


CHECKS = (chi_square, g_test, tail, zero_probability, masks, greedy)


def finding(check: str, limit: float, judges: Mapping[str, Callable[[], Verdict]]) -> Finding:
    """One Finding from the statistics of a check's cases; the worst case counts."""
    judged: dict[str, Verdict] = {}
    refused: dict[str, list[str]] = {}  # by error
    for name, judge in judges.items():
        try:
            judged[name] = judge()
        except Malformed as error:
            judged[name] = math.inf, str(error)
        except Refused as error:
            refused.setdefault(str(error), []).append(name)
    notes = [f"not supported: {shortened(names, 1)} ({error})" for error, names in refused.items()]
    if not judged:
        return Finding(check, None, math.nan, limit, "; ".join(notes))
    worst = max(judged, key=lambda name: judged[name][0])
    failed = [name for name in judged if judged[name][0] > limit]
    messages = [f"{name}: {judged[name][1]}" for name in failed or [worst]]
    if not failed and len(judged) > 1:
        messages = [f"{len(judged)} cases; the worst, {messages[0]}"]
    return Finding(check, not failed, judged[worst][0], limit, "; ".join([shortened(messages), *notes]))


def shortened(messages: list[str], most: int = 4) -> str:
    """
    >>> shortened(["a", "b", "c"], most=2)
    'a; b and 1 more'
    """
    return "; ".join(messages[:most]) + (f" and {len(messages) - most} more" if len(messages) > most else "")


def evidence(p_value: float, tests: int) -> float:
    """-log10 of a p-value, corrected for the number of tests (Bonferroni); at most 300."""
    return 0.0 - math.log10(min(max(p_value * tests, 1e-300), 1.0))


# The statistics behind the checks.


def goodness_of_fit(check: str, trial: Trial, statistic: Callable[[np.ndarray, np.ndarray], float]) -> Finding:
    cases = distributions()
    return finding(check, DIGITS, {case.name: partial(fit, trial, case, statistic, len(cases)) for case in cases})


def fit(trial: Trial, case: Case, statistic: Callable[[np.ndarray, np.ndarray], float], tests: int) -> Verdict:
    """How well the draws inside the kept set fit it; `masks` judges those outside."""
    p = case.probabilities
    drawn = trial.counts(case, max(1, trial.draws // max(1, len(p) // 1000)))  # a long row gets fewer draws
    inside = drawn[p > 0]
    if not inside.any():
        return math.inf, f"none of {drawn.sum():,} draws is in the kept set"
    observed, expected = cells(inside, p[p > 0] * inside.sum())
    value, freedom = statistic(observed, expected), len(expected) - 1
    message = f"{value:,.1f} at {freedom:,} degrees of freedom, {drawn.sum():,} draws"
    return evidence(chi_square_tail(value, freedom), tests), message


def form(trial: Trial) -> Verdict:
    """Batches of one row and more, vocabularies of one token and more; `token_ids` checks the form."""
    shapes = [(1, 1), (5, 1), (1, 2), (2, 3), (7, 100), (1000, 33)]
    for shape in shapes:
        trial.call(torch.zeros(shape, device=trial.device), PLAIN)
    return 0.0, f"{len(shapes)} shapes"


def token_ids(tokens: Any, rows: int, vocabulary: int) -> np.ndarray:
    """The tokens that a sampler returned, as int64 [B]. Raises: Malformed."""
    try:
        array = tokens.detach().cpu().numpy() if isinstance(tokens, torch.Tensor) else np.asarray(tokens)
    except (TypeError, ValueError) as error:
        raise Malformed(f"tokens must be {rows} integers, got {tokens!r}") from error
    if array.shape != (rows,):
        raise Malformed(f"tokens must have shape ({rows},), got {array.shape}")
    if array.dtype.kind not in "iu":
        raise Malformed(f"tokens must be integers, got {array.dtype}")
    if array.min() < 0 or array.max() >= vocabulary:
        raise Malformed(f"tokens must be in 0 .. {vocabulary - 1}, got {array.min()} to {array.max()}")
    return array.astype(np.int64)


def own_row(trial: Trial) -> Verdict:
    """Each row has one likely token, and the rows have different ones."""
    rows, vocabulary = 500, 601
    likely = np.arange(rows) * 7 % vocabulary
    logits = np.full((rows, vocabulary), -200, np.float32)
    logits[np.arange(rows), likely] = 0
    wrong = np.count_nonzero(trial.call(torch.from_numpy(logits).to(trial.device), PLAIN) != likely)
    return math.inf if wrong else 0.0, f"{wrong} of {rows} rows drew a token that only another row makes likely"


def logits_untouched(trial: Trial) -> Verdict:
    logits = torch.from_numpy(zipf(50)).to(trial.device).repeat(3, 1)
    before = logits.clone()
    trial.call(logits, SamplingParams(temperature=0.7))
    return (0.0, "only read") if torch.equal(logits, before) else (math.inf, "the sampler wrote into its logits")


def independence(trial: Trial) -> Verdict:
    """Pairs of draws from equal, flat rows agree with probability 1 / V, in a batch and under neighbouring seeds."""
    calls, rows, vocabulary = 20, min(max(2, trial.draws // 20), 1000), 1024
    logits = torch.zeros(rows, vocabulary, device=trial.device)
    drawn = np.array([trial.call(logits, PLAIN) for _ in range(calls)])  # [call, row]
    pairs = {
        "neighbouring rows": (drawn[:, 1:], drawn[:, :-1]),
        "distant rows": (drawn[:, rows // 2 : rows // 2 * 2], drawn[:, : rows // 2]),
        "the same row of the next seed": (drawn[1:], drawn[:-1]),
        "the next row of the next seed": (drawn[1:, 1:], drawn[:-1, :-1]),
        "the last row of the next seed": (drawn[1:, :-1], drawn[:-1, 1:]),
    }
    worst: Verdict = 0.0, "rows and seeds agree as often as chance has it"
    for name, (first, second) in pairs.items():
        agree, expected = int(np.count_nonzero(first == second)), first.size / vocabulary
        digits = evidence(poisson_tail(agree, expected), len(pairs))
        worst = max(worst, (digits, f"{name}: {agree:,} of {first.size:,} pairs agree, {expected:,.1f} expected"))
    return worst


def tail_level(trial: Trial, level: float) -> Verdict:
    case = tail_case()
    rare = np.isclose(case.probabilities, level, rtol=0.01)
    draws = max(1, trial.draws // TAIL_SHARE)
    drawn, expected = int(trial.counts(case, draws)[rare].sum()), draws * float(case.probabilities[rare].sum())
    visible = f"{100 * 5 / math.sqrt(expected):.0f}" if expected > 25 else "100 or more"  # five standard deviations
    message = f"{drawn:,} drawn, {expected:,.1f} expected in {draws:,} draws (a deviation of {visible} % would show)"
    return evidence(poisson_tail(drawn, expected), len(LEVELS)), message


def forbidden(trial: Trial, case: Case) -> Verdict:
    drawn = trial.counts(case, trial.draws)
    wrong = int(drawn[case.probabilities < NEVER].sum())
    return wrong, f"{wrong:,} of {trial.draws:,} draws are of tokens that must never come out"


def kept_set(trial: Trial, case: Case) -> Verdict:
    """The number of wrong tokens: cut but drawn, or kept but missing beyond chance."""
    p, draws = case.probabilities, min(trial.draws, MASK_DRAWS)
    drawn = trial.counts(case, draws)
    intruders = np.flatnonzero((p == 0) & (drawn > 0))
    missing = np.flatnonzero(((1 - p) ** draws < MISSED) & (drawn == 0))
    wrong = [f"token {i} (cut) came out {drawn[i]:,} times" for i in intruders]
    wrong += [f"token {i} (kept, probability {p[i]:.3g}) never came out" for i in missing]
    return len(wrong), f"{shortened(wrong, 2) or 'right'} in {draws:,} draws"


def first_maximum(trial: Trial) -> Verdict:
    """Rows of few distinct values, and so of many ties; some rows have -inf, some are constant."""
    rng = np.random.default_rng(0)
    logits = rng.integers(-3, 3, (200, 257)).astype(np.float32)
    logits[50:100] = np.where(logits[50:100] > 0, -np.inf, logits[50:100])
    logits[100:110] = 0
    expected = logits.argmax(1)  # NumPy returns the first maximum
    batches = [slice(0, 200)] * 5 + [slice(row, row + 1) for row in (0, 60, 105)]
    wrong = []
    for rows in batches:
        drawn = trial.call(torch.from_numpy(logits[rows]).to(trial.device), SamplingParams(temperature=0))
        wrong += [f"token {a}, not {b}" for a, b in zip(drawn, expected[rows], strict=True) if a != b]
    return len(wrong), f"{len(wrong)} rows wrong{': ' if wrong else ''}{shortened(wrong, 2)}"
