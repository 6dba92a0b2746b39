"""What Prometheus reads: vLLM's names under our prefix, so that its dashboards fit."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric

from model.serve.api.reader import FINISH_REASONS
from model.serve.engine.engine import Engine
from model.serve.engine.observer import Observer
from model.serve.engine.request import Choice, Request

WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics(Observer):
    """Counts the work of one engine, in a registry of its own."""

    def __init__(self, name: str) -> None:
        self.registry, self.name = CollectorRegistry(), name
        self.prompt_tokens = self.made(Counter, "prompt_tokens", "prompt tokens read by the model")
        self.new_tokens = self.made(Counter, "generation_tokens", "tokens drawn")
        self.queries = self.made(Counter, "prefix_cache_queries", "tokens of prompts that were looked up")
        self.hits = self.made(Counter, "prefix_cache_hits", "tokens of prompts that need not be read again")
        self.first = self.made(
            Histogram, "time_to_first_token_seconds", "from arrival to the first token", buckets=WAITS
        )
        self.gaps = Gaps(name)
        self.registry.register(self.gaps)
        self.whole = self.made(Histogram, "e2e_request_latency_seconds", "from arrival to the end", buckets=WAITS)
        self.ends = Counter(
            "alea:request_success", "texts by why they ended", ["model_name", "finished_reason"], registry=self.registry
        )
        self.failures = Counter(
            "alea:request_failure", "requests that failed", ["model_name", "code"], registry=self.registry
        )
        for reason in sorted({value for value in FINISH_REASONS.values() if value}):
            self.ends.labels(name, reason)

    def made(self, kind: Any, name: str, text: str, **options: Any) -> Any:
        return kind(f"alea:{name}", text, ["model_name"], registry=self.registry, **options).labels(self.name)

    def watch(self, engine: Engine) -> None:
        """The gauges read the engine when somebody asks."""
        self.made(Gauge, "num_requests_running", "texts in the batch").set_function(lambda: len(engine.running))
        self.made(Gauge, "num_requests_waiting", "texts that wait").set_function(lambda: len(engine.waiting))
        self.made(Gauge, "kv_cache_usage_perc", "share of the cache set aside, 1 = all").set_function(
            lambda: engine.rows.usage
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def began(self, choice: Choice, reused: int) -> None:
        self.queries.inc(len(choice.prompt))
        self.hits.inc(reused)

    def read_prompts(self, tokens: int) -> None:
        self.prompt_tokens.inc(tokens)

    def drew(self, choices: list[Choice], now: float) -> None:
        self.new_tokens.inc(len(choices))
        for choice in dict.fromkeys(choices):  # tokens that a grammar forces come together
            if choice.last_token_at:
                self.gaps.put(now - choice.last_token_at)
            else:
                self.first.observe(now - choice.request.arrived)

    def ended(self, choice: Choice) -> None:
        self.ends.labels(self.name, FINISH_REASONS[choice.generation.finish_reason]).inc()

    def request_ended(self, request: Request) -> None:
        self.whole.observe(time.monotonic() - request.arrived)
        if request.failure is not None:
            self.failures.labels(self.name, request.failure.code).inc()


class Gaps:
    """The time between two tokens of a text, counted faster than by prometheus_client's own histogram."""

    def __init__(self, model: str) -> None:
        self.model, self.counts, self.sum = model, [0] * (len(WAITS) + 1), 0.0

    def put(self, seconds: float) -> None:
        self.counts[bisect_left(WAITS, seconds)] += 1
        self.sum += seconds

    def collect(self) -> Iterator[Metric]:
        names = [*map(str, WAITS), "+Inf"]
        buckets = [*zip(names, accumulate(self.counts), strict=True)]
        family = HistogramMetricFamily(
            "alea:inter_token_latency_seconds", "between two tokens of a text", labels=["model_name"]
        )
        family.add_metric([self.model], buckets, self.sum)
        yield family
