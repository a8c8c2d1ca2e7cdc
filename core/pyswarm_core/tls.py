"""The cluster's certificates, and gRPC credentials made from them: every connection is TLS with both ends proven.

A certificate's common name is the node's id (or a user's name), its organizational unit the role. Only managers and
etcd members may be servers (extended key usage), so a worker's key cannot pose as a manager, though every certificate
carries the one name that all clients verify. grpc and cryptography are slow to import: only where they are used.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pyswarm_core.errors import InvalidInput, NotFound, PreconditionFailed
from pyswarm_core.files import put

if TYPE_CHECKING:
    import grpc
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

Role = Literal["manager", "worker", "client", "etcd", "registry"]
ROLES: tuple[str, ...] = get_args(Role)
SERVER_ROLES = frozenset({"manager", "etcd"})

SERVER_NAME = "pyswarm"
# Managers' and etcd members' certificates have this name too. etcd cannot tell roles apart, but its flags
# --client-cert-allowed-hostname and --peer-cert-allowed-hostname, set to this, keep workers and users out of the store.
STORE_NAME = "store.pyswarm"
CA_FILE, CERT_FILE, KEY_FILE, CA_KEY_FILE = "ca.pem", "cert.pem", "key.pem", "ca-key.pem"

AUTHORITY_DAYS = 3650
IDENTITY_DAYS = 365
# Certificates are valid from a little before they are made: hosts' clocks differ.
_BACKDATED = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate, its private key, and the authority that it trusts. All PEM."""

    ca_pem: bytes
    cert_pem: bytes
    key_pem: bytes = field(repr=False)

    def save(self, folder: Path | str) -> None:
        """Writes ca.pem, cert.pem and key.pem (mode 0600), each whole or not at all."""
        _write(Path(folder), {CA_FILE: self.ca_pem, CERT_FILE: self.cert_pem, KEY_FILE: self.key_pem})

    def save_certificate(self, folder: Path | str) -> None:
        """Replaces cert.pem alone: for one that is made for the same key."""
        _write(Path(folder), {CERT_FILE: self.cert_pem})

    @classmethod
    def load(cls, folder: Path | str) -> Identity:
        """Raises NotFound or PreconditionFailed when a file is not there or may not be read."""
        return cls(*(_read(Path(folder) / name) for name in (CA_FILE, CERT_FILE, KEY_FILE)))

    @property
    def subject(self) -> Peer:
        """Who this certificate says that we are. Raises InvalidInput if it is malformed."""
        return _subject(self.cert_pem)

    @property
    def expires_at(self) -> float:
        """Unix seconds."""
        return _certificate(self.cert_pem).not_valid_after_utc.timestamp()


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as its certificate says."""

    common_name: str
    role: str


@dataclass(frozen=True, slots=True)
class Authority:
    """The cluster's certificate authority: ECDSA P-256, self-signed."""

    ca_pem: bytes
    key_pem: bytes = field(repr=False)

    @classmethod
    def create(cls, common_name: str = "pyswarm CA", *, days: int = AUTHORITY_DAYS) -> Authority:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        builder = (
            _builder(name, name, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        certificate = builder.sign(key, hashes.SHA256())
        return cls(_pem(certificate), _private_pem(key))

    def issue(
        self,
        *,
        common_name: str,
        role: Role,
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
        days: float = IDENTITY_DAYS,
    ) -> Identity:
        """A new key and certificate. `names` (DNS) and `addresses` (IP) are added to the name that ours verify; etcd's
        own tools and its members verify those. Raises InvalidInput for an unknown role or a malformed address."""
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(
            key.public_key(), common_name=common_name, role=role, names=names, addresses=addresses, days=days
        )
        return Identity(self.ca_pem, certificate, _private_pem(key))

    def certify(
        self,
        public_key: ec.EllipticCurvePublicKey,
        *,
        common_name: str,
        role: Role,
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
        days: float = IDENTITY_DAYS,
    ) -> bytes:
        """As `issue`, for a key whose private half is elsewhere. PEM."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        if role not in ROLES:
            raise InvalidInput(f"unknown certificate role {role!r}: use one of {', '.join(ROLES)}")
        own: tuple[str, ...] = (SERVER_NAME, STORE_NAME) if role in SERVER_ROLES else (SERVER_NAME,)
        if role == "registry":
            own = ()  # it is nobody that a part of the cluster talks to
        try:
            alternatives: list[x509.GeneralName] = [
                *(x509.DNSName(name) for name in dict.fromkeys((*own, *names))),
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in dict.fromkeys(addresses)),
            ]
            subject = x509.Name(
                [
                    x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
                    x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                ]
            )
        except ValueError as error:
            raise InvalidInput(f"cannot make a certificate for {common_name}: {error}") from None
        ca = _certificate(self.ca_pem)
        ca_key = serialization.load_pem_private_key(self.key_pem, password=None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role in SERVER_ROLES or role == "registry":
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        builder = (
            _builder(subject, ca.subject, public_key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(authority_key, critical=False)
        )
        return _pem(builder.sign(ca_key, hashes.SHA256()))

    def save(self, folder: Path | str) -> None:
        """Writes ca.pem and ca-key.pem (mode 0600)."""
        _write(Path(folder), {CA_FILE: self.ca_pem, CA_KEY_FILE: self.key_pem})

    @classmethod
    def load(cls, folder: Path | str) -> Authority:
        """Raises NotFound or PreconditionFailed when a file is not there or may not be read."""
        return cls(*(_read(Path(folder) / name) for name in (CA_FILE, CA_KEY_FILE)))


def channel_options() -> list[tuple[str, Any]]:
    """For every channel of ours: whatever address it dials, the server must be called `pyswarm`, and no http_proxy
    from the environment comes between."""
    return [("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.enable_http_proxy", 0)]


def client_credentials(identity: Identity) -> grpc.ChannelCredentials:
    import grpc

    return grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.cert_pem)


def server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """Refuses clients without a certificate of the same authority."""
    import grpc

    pair = (identity.key_pem, identity.cert_pem)
    return grpc.ssl_server_credentials([pair], root_certificates=identity.ca_pem, require_client_auth=True)


def renewing_server_credentials(current: Callable[[], Identity], *, joining: bool = False) -> grpc.ServerCredentials:
    """As `server_credentials`, of what is current at each handshake. `joining`: for hosts that have no certificate yet,
    none is asked for, and the authority's own is presented, too: they know its digest."""
    import grpc

    shown: list[bytes] = []

    def configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
        shown[:] = [identity.cert_pem]
        chain = identity.cert_pem + identity.ca_pem if joining else identity.cert_pem
        roots = None if joining else identity.ca_pem
        return grpc.ssl_server_certificate_configuration([(identity.key_pem, chain)], root_certificates=roots)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        identity = current()
        return None if shown == [identity.cert_pem] else configuration(identity)  # None: as before

    return grpc.dynamic_ssl_server_credentials(
        configuration(current()),
        fetch,  # type: ignore[arg-type]  # the stubs do not know that None is allowed
        require_client_authentication=not joining,
    )


def peer_identity(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """Who calls. TLS has proven it already: this only reads it. Raises PreconditionFailed on a plaintext connection."""
    return _subject(peer_certificate(context))


def peer_certificate(context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """PEM. Raises PreconditionFailed as `peer_identity`."""
    certificates = context.auth_context().get("x509_pem_cert")
    if not certificates:
        raise PreconditionFailed("this call needs a client certificate: connect by TLS with one of this cluster")
    return bytes(next(iter(certificates)))


def validity_of(cert_pem: bytes) -> tuple[float, float]:
    """(from, to) in Unix seconds."""
    certificate = _certificate(cert_pem)
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def alternatives_of(cert_pem: bytes) -> tuple[list[str], list[str]]:
    """(DNS names, IP addresses) of a certificate."""
    from cryptography import x509

    try:
        found = _certificate(cert_pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    return found.get_values_for_type(x509.DNSName), [str(a) for a in found.get_values_for_type(x509.IPAddress)]


@lru_cache(maxsize=1024)
def _subject(cert_pem: bytes) -> Peer:
    from cryptography import x509

    subject = _certificate(cert_pem).subject

    def first(oid: x509.ObjectIdentifier) -> str:
        values = subject.get_attributes_for_oid(oid)
        return str(values[0].value) if values else ""

    return Peer(first(x509.NameOID.COMMON_NAME), first(x509.NameOID.ORGANIZATIONAL_UNIT_NAME))


def _certificate(pem: bytes) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise InvalidInput("a certificate cannot be read: it is not PEM, or damaged; have it issued again") from None


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.items():
        # A key is never readable by others, not even for a moment.
        put(folder / name, content, 0o600 if "key" in name else 0o644)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no TLS file {path}: have a certificate issued, or name the right folder") from None
    except OSError as error:
        raise PreconditionFailed(f"the TLS file {path} cannot be read: {error.strerror}") from None
