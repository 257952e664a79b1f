"""Prometheus' figures of a server: all series are there from the start, and their labels come from closed sets."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trivec._version import __version__
from trivec.server._models import Model

REASONS = ("overloaded", "timeout", "disconnected", "draining", "too_large", "auth", "origin")
_OF_MODELS = ("200", "400", "413", "422", "429", "500", "503")
_OF_NONE = ("200", "400", "401", "404")
NO_MODEL = "-"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10, 60)
_COUNTS = (1, 4, 16, 64, 256, 1024)
_TOKENS = (8, 32, 128, 512, 2048, 8192, 32768, 262144)


class Metrics:
    """Counters, histograms, and gauges that are read when they are asked for."""

    def __init__(self, models: Sequence[Model], routes: Iterable[str]) -> None:
        self.registry = registry = CollectorRegistry()
        self._of = cache(_child)  # `labels` takes longer than what it counts
        names = [model.name for model in models]
        by_model = ["model"]
        self.requests = Counter(
            "trivec_requests", "Requests answered.", ["route", "model", "status"], registry=registry
        )
        self.texts = Counter("trivec_texts", "Texts or pairs answered.", ["model", "output"], registry=registry)
        self.tokens = Counter("trivec_tokens", "Tokens read.", by_model, registry=registry)
        self.truncated = Counter("trivec_truncated_texts", "Texts that were cut.", by_model, registry=registry)
        self.rejected = Counter("trivec_rejected", "Requests refused or dropped.", ["reason"], registry=registry)
        self.ignored = Counter("trivec_ignored_fields", "Requests with a field that nobody knows.", registry=registry)
        self.duration = Histogram(
            "trivec_request_duration_seconds", "First byte in to last byte out.", ["route", "model"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.queue_seconds = _seconds("trivec_queue_duration_seconds", "From tokens to their first run.", registry)
        self.tokenize_seconds = _seconds("trivec_tokenization_duration_seconds", "Texts to tokens.", registry)
        self.run_seconds = _seconds("trivec_inference_duration_seconds", "One window.", registry)
        self.input_tokens = Histogram(
            "trivec_input_tokens", "Tokens of a request.", by_model, buckets=_TOKENS, registry=registry
        )
        self.window_texts = Histogram(
            "trivec_window_texts", "Rows of a window.", by_model, buckets=_COUNTS, registry=registry
        )
        self.window_tokens = Histogram(
            "trivec_window_tokens", "Tokens of a window.", by_model, buckets=_TOKENS, registry=registry
        )
        self.in_flight = Gauge("trivec_requests_in_flight", "Requests that are being answered.", registry=registry)
        self.connections = Gauge("trivec_connections", "Open connections.", registry=registry)
        registry.register(_Queues(models))
        ProcessCollector(registry=registry)
        self._begin(names, list(routes))

    def _begin(self, names: Sequence[str], routes: Sequence[str]) -> None:
        """Every series at 0."""
        for route in routes:
            for name in (*names, NO_MODEL):
                self.duration.labels(route, name)
                for status in _OF_NONE if name == NO_MODEL else _OF_MODELS:
                    self.requests.labels(route, name, status)
        for name in names:
            for output in ("dense", "sparse", "colbert", "score"):
                self.texts.labels(name, output)
            for series in (self.tokens, self.truncated, self.queue_seconds, self.tokenize_seconds, self.run_seconds,
                           self.input_tokens, self.window_texts, self.window_tokens):  # fmt: skip
                series.labels(name)
        for reason in REASONS:
            self.rejected.labels(reason)

    # ---- what happens ------------------------------------------------------------------------------------------------

    def window(self, model: str, rows: int, tokens: int, seconds: float) -> None:
        """A window is through; from the thread that ran it."""
        self._of(self.run_seconds, model).observe(seconds)
        self._of(self.window_texts, model).observe(rows)
        self._of(self.window_tokens, model).observe(tokens)

    def represented(
        self, model: str, outputs: Sequence[str], texts: int, tokens: int, truncated: int, times: Sequence[float]
    ) -> None:
        """A request's texts are through; `times` are the seconds of tokenizing, and of waiting."""
        self._of(self.tokens, model).inc(tokens)
        self._of(self.input_tokens, model).observe(tokens)
        self._of(self.tokenize_seconds, model).observe(times[0])
        self._of(self.queue_seconds, model).observe(times[1])
        if truncated:
            self._of(self.truncated, model).inc(truncated)
        for output in outputs:
            self._of(self.texts, model, output).inc(texts)

    def answered(self, route: str, model: str, status: int, seconds: float) -> None:
        """An answer is out."""
        self._of(self.requests, route, model, str(status)).inc()
        self._of(self.duration, route, model).observe(seconds)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them; without when each began, a third of the lines."""
        lines = generate_latest(self.registry).split(b"\n")
        return b"\n".join(line for line in lines if b"_created" not in line)


def _child(series: Any, *labels: str) -> Any:  # noqa: ANN401 - a counter or a histogram
    return series.labels(*labels)


def _seconds(name: str, what: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, what, ["model"], buckets=_SECONDS, registry=registry)


class _Queues(Collector):
    """What waits, asked for when it is read: a gauge that every request moved would cost each of them."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        """As of prometheus_client."""
        texts = GaugeMetricFamily("trivec_queue_texts", "Rows that wait.", labels=["model"])
        tokens = GaugeMetricFamily("trivec_queue_tokens", "Tokens that wait.", labels=["model"])
        wait = GaugeMetricFamily("trivec_estimated_wait_seconds", "What they are to take.", labels=["model"])
        labels = ["model", "fingerprint", "precision", "device", "version"]
        info = GaugeMetricFamily("trivec_model_info", "What is served.", labels=labels)
        for model in self._models:
            queue, encoder = model.queue, model.encoder
            texts.add_metric([model.name], queue.waiting_texts if queue else 0)
            tokens.add_metric([model.name], queue.waiting_tokens if queue else 0)
            wait.add_metric([model.name], queue.seconds() if queue else 0)
            if encoder is not None:
                info.add_metric([model.name, encoder.fingerprint, encoder.precision, encoder.device, __version__], 1)
        return [texts, tokens, wait, info]
