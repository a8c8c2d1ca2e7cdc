"""What a host and a manager exchange when the host becomes a member: join tokens, and requests for certificates."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyswarm_core.errors import InvalidInput
from pyswarm_core.ids import ALPHABET

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

PREFIX = "PYSWTKN-1"
DIGEST_LENGTH = 50  # 256 bits in base 36
SECRET_LENGTH = 25  # 129 bits


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`digest`: of the cluster's authority (see `digest_of`). `secret`: says which roles its holder may have."""

    digest: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{PREFIX}-{self.digest}-{self.secret}"

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises InvalidInput, which does not repeat the text: it may hold most of a secret."""
        prefix, _, rest = text.strip().partition(f"{PREFIX}-")
        digest, _, secret = rest.partition("-")
        well_formed = len(digest) == DIGEST_LENGTH and len(secret) == SECRET_LENGTH
        if prefix or not well_formed or not set(digest + secret) <= set(ALPHABET):
            raise InvalidInput(
                f"this is not a join token ({PREFIX}-… with {DIGEST_LENGTH} and {SECRET_LENGTH} characters); copy the "
                "whole line that 'pyswarm swarm join-token worker' prints on a manager"
            )
        return cls(digest, secret)


def new_secret() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))


def digest_of(certificate_der: bytes) -> str:
    """SHA-256 in base 36."""
    number = int.from_bytes(hashlib.sha256(certificate_der).digest(), "big")
    digits = []
    for _ in range(DIGEST_LENGTH):
        number, digit = divmod(number, 36)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def digest_of_pem(certificate_pem: bytes) -> str:
    import ssl

    return digest_of(ssl.PEM_cert_to_DER_cert(certificate_pem.decode()))


def new_request() -> tuple[bytes, bytes]:
    """(private key, request for a certificate), PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key, request_of(key)


def request_of(key_pem: bytes) -> bytes:
    """A request for a certificate, PEM. It names nobody: who it is for is the signer's word. Raises InvalidInput."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except ValueError:
        raise InvalidInput("a private key cannot be read: it is not PEM, or damaged") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput("a private key is not of the kind that this cluster uses, ECDSA on P-256")
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def public_key_of(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    """Of a request that its key's holder has signed. Raises InvalidInput for any other."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key, is_signed = request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput("a request for a certificate cannot be read: it is not PEM, or damaged") from None
    if not is_signed or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("a request for a certificate must be signed by its own key, an ECDSA key on P-256")
    return key
