"""The settings and all that is open while the gateway runs; scoring and delivering share it."""

from dataclasses import dataclass

from gateway.audit import Audit
from gateway.database import Database
from gateway.hashing import SiteKey
from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.spool import Spool


@dataclass(frozen=True, slots=True)
class OpenResources:
    """The settings, and all that is open while the gateway runs."""

    settings: GatewaySettings
    database: Database
    spool: Spool
    metrics: GatewayMetrics
    audit: Audit
    key: SiteKey
