"""The one TOML file: the node, its peers, the service, the archives and the rules.

The file is checked whole at the start; a message names the line that is wrong.
"""

import re
import tomllib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.toml_lines import find_line

View = Literal["PA", "AP", "LATERAL", "unstated"]
ResultKind = Literal["sr", "sc"]

STOW_SOURCE = "STOW-RS"
"""What `calling_ae` is of an image that came over HTTP."""

_CODE = re.compile(r"[A-Z0-9 _]{1,16}|unstated")


class GatewayConfigError(Exception):
    """The file can't be used; the message names file, line and fault, one a line."""


def _ae_title(title: str) -> str:
    """Check an AE title (PS3.5 6.2, VR AE): 1 to 16 printable ASCII characters, no backslash."""
    stripped = title.strip(" ")
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", stripped):
        raise ValueError("an AE title has 1 to 16 ASCII characters and no backslash")
    return stripped


def _code(value: str) -> str:
    if not _CODE.fullmatch(value):
        raise ValueError('must be a DICOM code in capital letters, such as "CHEST", or "unstated"')
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Code = Annotated[str, AfterValidator(_code)]
Network = IPv4Network | IPv6Network
Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,47}$")]


class _Table(BaseModel):
    """A table of the file: an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Tls(_Table):
    """Certificates of one side (PS3.15 B.12, BCP 195): own, and the authority of the peers'."""

    certificate: Path
    key: Path
    peers_ca: Path


class NodeSettings(_Table):
    """The DICOM node itself."""

    ae_title: AeTitle = "CXRGATE"
    host: str = "0.0.0.0"  # noqa: S104 - a DICOM node is there for its network; peers are allow-listed
    port: Port = 11112
    folder: Path = Path("/var/lib/cxr-gateway")
    tls: Tls | None = None
    accept_any_peer: bool = False
    max_associations: int = Field(50, ge=1, le=500)
    max_associations_per_peer: int = Field(16, ge=1, le=500)
    idle_seconds: float = Field(60, ge=1, le=3600)
    max_instance_mb: int = Field(256, ge=1, le=2000)
    min_free_percent: float = Field(10, ge=0, le=99)
    min_free_gb: float = Field(5, ge=0)
    max_waiting: int = Field(100_000, ge=1)
    remember_days: float = Field(90, ge=1)
    audit_uids: Literal["hashed", "plain"] = "hashed"


class Http(_Table):
    """Where STOW-RS, the page, metrics and verdicts are served."""

    host: str = "127.0.0.1"
    port: Port = 8043
    key_file: Path | None = None
    tls: Tls | None = None

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        """Ask for a key or certificates if other machines can connect."""
        is_local = self.host == "localhost" or _is_loopback(self.host)
        if not is_local and self.key_file is None and self.tls is None:
            raise ValueError("beyond the loopback, name a key_file or [http.tls]")
        return self


class ServiceSettings(_Table):
    """The service that answers."""

    url: str = Field("http://127.0.0.1:8000", pattern=r"^https?://[^/]")
    key_file: Path | None = None
    workers: int = Field(4, ge=1, le=32)
    timeout_seconds: float = Field(60, gt=0)


class Peer(_Table):
    """Who may send."""

    ae_title: AeTitle
    addresses: tuple[Network, ...] = ()


class Destination(_Table):
    """An archive: by STOW-RS (`stow_url`) or by C-STORE (`ae_title`, `host`, `port`)."""

    name: Name
    stow_url: str | None = Field(None, pattern=r"^https?://[^/]")
    key_file: Path | None = None
    user_file: Path | None = None
    ae_title: AeTitle | None = None
    host: str | None = None
    port: Port | None = None
    tls: Tls | None = None
    confirm: Literal["query", "none"] = "query"
    workers: int = Field(2, ge=1, le=16)
    timeout_seconds: float = Field(30, gt=0)
    settle_seconds: float = Field(2, ge=0)
    give_up_days: float = Field(7, gt=0)

    @model_validator(mode="after")
    def _is_one_way(self) -> Self:
        dimse = (self.ae_title, self.host, self.port)
        if self.stow_url is None and None in dimse:
            raise ValueError("name stow_url, or else ae_title, host and port")
        if self.stow_url is not None and any(value is not None for value in dimse):
            raise ValueError("name stow_url or ae_title, host and port, not both")
        return self


class AgeRange(_Table):
    """Ages in years, both ends included."""

    min: float = Field(0, ge=0)
    max: float = Field(150, ge=0)
    unstated: bool = True


class Rule(_Table):
    """Which images are answered how; the first rule that matches an image decides."""

    name: Name
    calling_ae: tuple[AeTitle, ...] = ()
    modality: tuple[Code, ...] = ()
    body_part: tuple[Code, ...] = ()
    view: tuple[View, ...] = ()
    age_years: AgeRange | None = None
    skip: bool = False
    model: str | None = Field(None, max_length=64)
    operating_point: str | None = Field(None, max_length=64)
    prevalence: float | None = Field(None, ge=0.0001, le=0.9999)
    results: tuple[ResultKind, ...] = ("sr",)
    destinations: tuple[str, ...] = ()
    silent: bool = False

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if not (self.destinations or self.silent or self.skip):
            raise ValueError("name destinations, or else say silent = true or skip = true")
        if self.destinations and "sr" not in self.results:
            raise ValueError('results must hold "sr": the picture accompanies the report')
        return self


class GatewaySettings(_Table):
    """The whole file."""

    node: NodeSettings = NodeSettings()
    http: Http = Http()
    service: ServiceSettings = ServiceSettings()
    peers: tuple[Peer, ...] = ()
    destinations: tuple[Destination, ...] = ()
    rules: tuple[Rule, ...] = Field(min_length=1)

    @property
    def destination_names(self) -> frozenset[str]:
        """Names of all destinations."""
        return frozenset(destination.name for destination in self.destinations)

    @property
    def named_callers(self) -> frozenset[str]:
        """AE titles that peers or rules name; all others are one to metrics and tables."""
        titles = {peer.ae_title for peer in self.peers}
        return frozenset(titles.union(*(rule.calling_ae for rule in self.rules)))


def load_settings(path: Path, *, needs_files: bool = False) -> GatewaySettings:
    """Read and check the file; raises `GatewayConfigError`.

    Args:
        path: the TOML file.
        needs_files: whether the keys and certificates that it names must be there.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as exc:
        raise GatewayConfigError(f"{path}: can't be read: {type(exc).__name__}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise GatewayConfigError(f"{path}: {exc}") from exc
    try:
        settings = GatewaySettings.model_validate(document)
    except ValidationError as exc:
        faults = [(error["loc"], error["msg"]) for error in exc.errors(include_url=False)]
        raise GatewayConfigError(_report(path, text, faults)) from exc
    crossed = list(_cross_faults(settings))
    if needs_files:
        crossed += _missing_files(settings.model_dump(exclude={"node": {"folder"}}), ())
    if crossed:
        raise GatewayConfigError(_report(path, text, crossed))
    return settings


def _missing_files(value: object, place: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], str]]:
    """List the files that the settings name and that are not there."""
    if isinstance(value, Path):
        return [] if value.is_file() else [(place, f"there is no file {value}")]
    inner: Iterable[tuple[Any, object]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, tuple):
        inner = enumerate(value)
    return [fault for key, one in inner for fault in _missing_files(one, (*place, key))]


def _report(path: Path, text: str, faults: list[tuple[tuple[Any, ...], str]]) -> str:
    lines = [
        f"{path}:{find_line(text, place)}: {'.'.join(map(str, place))}: {message}"
        for place, message in faults
    ]
    return "\n".join(lines)


def _cross_faults(settings: GatewaySettings) -> list[tuple[tuple[Any, ...], str]]:
    """List what is wrong between tables: places and messages."""
    faults: list[tuple[tuple[Any, ...], str]] = []
    known = {destination.name for destination in settings.destinations}
    titles = {peer.ae_title for peer in settings.peers}
    for index, rule in enumerate(settings.rules):
        unknown = sorted(set(rule.destinations) - known)
        if unknown:
            place = ("rules", index, "destinations")
            faults.append((place, f"there is no destination {', '.join(unknown)}"))
        strangers = sorted(set(rule.calling_ae) - titles - {STOW_SOURCE})
        if strangers and not settings.node.accept_any_peer:
            place = ("rules", index, "calling_ae")
            faults.append((place, f"no [[peers]] entry admits {', '.join(strangers)}"))
    for table, names in (
        ("rules", [rule.name for rule in settings.rules]),
        ("destinations", [destination.name for destination in settings.destinations]),
        ("peers", [peer.ae_title for peer in settings.peers]),
    ):
        key = "ae_title" if table == "peers" else "name"
        faults += [
            ((table, index, key), f"the name {name} is used twice")
            for index, name in enumerate(names)
            if name in names[:index]
        ]
    if not settings.peers and not settings.node.accept_any_peer:
        faults.append((("node",), "name [[peers]], or say accept_any_peer = true"))
    return faults
