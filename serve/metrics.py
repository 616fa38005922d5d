"""Figures for Prometheus, named as vLLM names them, with the prefix `tsp:`."""

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from .ticket import Ticket
from .worker import MISMATCH, Message

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds of the histograms of requests."""
TOKEN_SECONDS = (0.0001, 0.00025, 0.0005, *SECONDS[:12])
"""Bounds of the histogram of tokens."""


class Metrics:
    """Of one server, in a registry of its own. model: its name, which labels everything."""

    def __init__(self, model: str) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self._model = model
        self.running = self._gauge("num_requests_running", "Requests that a device is at.")
        self.waiting = self._gauge("num_requests_waiting", "Requests that wait for a device.")
        self.in_service = self._gauge("devices_in_service", "Devices that answer.")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts, cached ones included.")
        self._cached = self._counter("prompt_tokens_cached", "Tokens of prompts that were in the cache.")
        self._generated = self._counter("generation_tokens", "Tokens that were made.")
        self._succeeded = self._counter("request_success", "Requests with an answer.", "finished_reason")
        self._aborted = self._counter("aborted", "Requests whose client left.")
        self._refused = self._counter("refused", "Requests that waited in vain.")
        self._faults = self._counter("device_faults", "Requests that a device failed.", "device", "kind")
        self._cycles = self._counter("device_cycles", "Cycles that devices counted.", "device")
        self._mismatches = self._counter("schedule_mismatch", "Tokens that took other cycles than predicted.")
        self._corrected = self._counter("link_errors_corrected", "Errors on links that were corrected.", "device")
        self._uncorrectable = self._counter("link_errors_uncorrectable", "Errors that were not.", "device")
        self._first = self._histogram("time_to_first_token_seconds", "From the request to its first token.")
        self._between = self._histogram("inter_token_latency_seconds", "From a token to the next.", TOKEN_SECONDS)
        self._whole = self._histogram("e2e_request_latency_seconds", "From the request to the last token.")
        self._queued = self._histogram("request_queue_time_seconds", "In the queue.")

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"tsp:{name}", text, ["model_name"], registry=self.registry).labels(self._model)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        counter = Counter(f"tsp:{name}", text, ["model_name", *labels], registry=self.registry)
        return counter if labels else counter.labels(self._model)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...] = SECONDS) -> Histogram:
        return Histogram(f"tsp:{name}", text, ["model_name"], buckets=bounds, registry=self.registry).labels(
            self._model)

    def observe(self, ticket: Ticket, message: Message) -> None:
        """Count what has become of a ticket."""
        kind, now = message["is"], time.monotonic()
        if kind == "begun":
            self._prompt.inc(len(ticket.question.prompt))
            self._cached.inc(message["cached"])
            self._queued.observe(now - ticket.asked)
        elif kind in ("prompt", "piece"):
            if message["measured"] is not None:
                self._cycles.labels(self._model, _device(ticket)).inc(message["measured"])
            if kind == "piece":
                self._piece(ticket, now)
        elif kind == "end":
            self._end(ticket, message, now)
        elif kind == "fault":
            self._fault(ticket, message["kind"])
        elif kind == "left":
            self._aborted.inc()
        elif kind == "refused":
            self._refused.inc()

    def _piece(self, ticket: Ticket, now: float) -> None:
        self._generated.inc()
        if ticket.last is None:
            self._first.observe(now - ticket.asked)
        else:
            self._between.observe(now - ticket.last)

    def _end(self, ticket: Ticket, message: Message, now: float) -> None:
        corrected, uncorrectable = message["link_errors"]
        self._corrected.labels(self._model, _device(ticket)).inc(corrected)
        self._uncorrectable.labels(self._model, _device(ticket)).inc(uncorrectable)
        if ticket.left:
            self._aborted.inc()
            return
        self._succeeded.labels(self._model, ticket.finish or "length").inc()
        self._whole.observe(now - ticket.asked)

    def _fault(self, ticket: Ticket, kind: str) -> None:
        self._faults.labels(self._model, _device(ticket), kind).inc()
        if kind == MISMATCH:
            self._mismatches.inc()

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)


def _device(ticket: Ticket) -> str:
    return ticket.device or ""
