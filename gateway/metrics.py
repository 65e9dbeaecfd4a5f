"""The gateway's Prometheus metrics; a label is never a value of a file."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_RECEIVE_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_ANSWER_S = (0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 1800, 7200, 86400)


class ReceivingMetrics:
    """Instances and associations that came."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Declare the metrics in a registry."""
        self.received = Counter(
            "cxr_gateway_received", "Instances acknowledged: new, duplicate, or conflict (the UID "
            "came before with another data set).", ("peer", "kind"), registry=registry,
        )  # fmt: skip
        self.refused = Counter(
            "cxr_gateway_refused", "Instances refused: disk, queue, sop_class, no_instance, "
            "unreadable.", ("reason",), registry=registry,
        )  # fmt: skip
        self.associations_refused = Counter(
            "cxr_gateway_associations_refused", "Associations rejected: called, caller, "
            "address, limit.", ("reason",), registry=registry,
        )  # fmt: skip
        self.associations = Gauge(
            "cxr_gateway_associations", "Open associations.", registry=registry
        )
        self.receive_duration = Histogram(
            "cxr_gateway_receive_seconds", "From the last byte to durable.",
            registry=registry, buckets=_RECEIVE_S,
        )  # fmt: skip
        self.skipped = Counter(
            "cxr_gateway_skipped", "Instances that get no answer.", ("reason",), registry=registry
        )


class ScoringMetrics:
    """Answers, and what readers say of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Declare the metrics in a registry."""
        self.scored = Counter(
            "cxr_gateway_scored", "Answers.", ("rule", "label", "silent"), registry=registry
        )
        self.superseded = Counter(
            "cxr_gateway_superseded", "Results that a later image of the study made obsolete "
            "before they were sent.", registry=registry,
        )  # fmt: skip
        self.verdicts = Counter(
            "cxr_gateway_verdicts", "Readers' verdicts.", ("verdict",), registry=registry
        )
        self.service_up = Gauge(
            "cxr_gateway_service_up", "Whether the last try reached the service.",
            registry=registry,
        )  # fmt: skip


class DeliveryMetrics:
    """Results on their way to an archive."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Declare the metrics in a registry."""
        self.sent = Counter(
            "cxr_gateway_sent", "Results that an archive accepted.", ("destination",),
            registry=registry,
        )  # fmt: skip
        self.confirmed = Counter(
            "cxr_gateway_confirmed", "Results that an archive says it holds.", ("destination",),
            registry=registry,
        )  # fmt: skip
        self.retried = Counter(
            "cxr_gateway_retried", "Requests to be tried again: of the service, or of an archive.",
            ("target",), registry=registry,
        )  # fmt: skip
        self.dead = Counter(
            "cxr_gateway_dead", "Given up: dead letters.", ("target",), registry=registry
        )
        self.answer_duration = Histogram(
            "cxr_gateway_answer_seconds", "From the last byte of an image to its result in the "
            "archive.", ("destination",), registry=registry, buckets=_ANSWER_S,
        )  # fmt: skip
        self.destination_up = Gauge(
            "cxr_gateway_destination_up", "Whether the last try reached the archive.",
            ("destination",), registry=registry,
        )  # fmt: skip


class BacklogMetrics:
    """What waits, and the room for it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Declare the metrics in a registry."""
        self.waiting = Gauge(
            "cxr_gateway_waiting", "Rows by state: received, scored, sent, dead.", ("state",),
            registry=registry,
        )  # fmt: skip
        self.oldest_unsent = Gauge(
            "cxr_gateway_oldest_unsent_seconds", "Age of the oldest image without its result in "
            "the archive; 0 if none waits.", registry=registry,
        )  # fmt: skip
        self.spool_bytes = Gauge(
            "cxr_gateway_spool_bytes", "Bytes of received files.", registry=registry
        )
        self.disk_free_ratio = Gauge(
            "cxr_gateway_disk_free_ratio", "Free share of the spool's disk.", registry=registry
        )


class GatewayMetrics(ReceivingMetrics, ScoringMetrics, DeliveryMetrics, BacklogMetrics):
    """Counters of what happened, and gauges of what waits."""

    def __init__(self) -> None:
        """Make the metrics in a registry of their own."""
        self.registry = CollectorRegistry()
        ReceivingMetrics.__init__(self, self.registry)
        ScoringMetrics.__init__(self, self.registry)
        DeliveryMetrics.__init__(self, self.registry)
        BacklogMetrics.__init__(self, self.registry)

    def render(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)
