"""A question's bytes to an answer's bytes, or to the decision to ask another server. Pure but for the shuffling."""

from __future__ import annotations

import random
from dataclasses import dataclass

from dnslib import EDNS0, OPCODE, PTR, QTYPE, RCODE, RR, SRV, A, DNSError, DNSHeader, DNSRecord

from pyswarm_agent.dns.table import Scope, Table

TTL = 1  # seconds: tasks come and go, and the next question costs little
MIN_UDP, MAX_UDP = 512, 4096
_IN, _ANY = 1, 255  # classes
_REVERSE = ".in-addr.arpa"


@dataclass(frozen=True, slots=True)
class Forward:
    """Nothing of ours: it is for these servers, () = the host's. `single`: a name of one label."""

    servers: tuple[str, ...]
    single: bool


def answer(data: bytes, table: Table, scope: Scope | None, rng: random.Random, *, tcp: bool) -> bytes | Forward | None:
    """None: it is no question, and is not answered. `scope` None: the asker is none of ours, and is refused."""
    try:
        query = DNSRecord.parse(data)
    except (DNSError, ValueError, IndexError):
        return None
    if query.header.qr:
        return None
    if query.header.opcode != OPCODE.QUERY or len(query.questions) != 1:
        return _failed(query, RCODE.NOTIMP)
    if scope is None:
        return _failed(query, RCODE.REFUSED)
    question = query.q
    name = str(question.qname)
    if question.qclass not in (_IN, _ANY):
        return _failed(query, RCODE.REFUSED)
    reply = _reply(query)
    if name.lower().rstrip(".").endswith(_REVERSE):
        done = _reverse(reply, table, scope, name)
    else:
        done = _forward_lookup(reply, table, scope, name, question.qtype, rng)
    if not done:
        return Forward(scope.servers, single="." not in name.rstrip("."))
    return _packed(query, reply, tcp)


def failure(data: bytes, code: int) -> bytes | None:
    """An answer to `data` that says only this."""
    try:
        return _failed(DNSRecord.parse(data), code)
    except (DNSError, ValueError, IndexError):
        return None


def truncated(query: bytes, reply: bytes) -> bytes:
    """`reply` as UDP can carry it to whoever asked `query`."""
    try:
        if len(reply) <= _udp_limit(DNSRecord.parse(query)):
            return reply
        whole = DNSRecord.parse(reply)
    except (DNSError, ValueError, IndexError):
        return reply
    return bytes(whole.truncate().pack())


def _forward_lookup(reply: DNSRecord, table: Table, scope: Scope, name: str, qtype: int, rng: random.Random) -> bool:
    if qtype == QTYPE.SRV:
        targets = table.targets(scope, name)
        if targets is None:
            return False
        rng.shuffle(targets)
        for t in targets:
            reply.add_answer(RR(name, QTYPE.SRV, ttl=TTL, rdata=SRV(0, 1, t.port, t.name)))
        for target, address in {t.name: t.address for t in targets}.items():
            reply.add_ar(RR(target, QTYPE.A, ttl=TTL, rdata=A(address)))
        return True
    addresses = table.addresses(scope, name)
    if addresses is None:
        # a name that has SRV records exists, whatever else is asked about it
        return "_" in name and bool(table.targets(scope, name))
    if qtype in (QTYPE.A, QTYPE.ANY):
        rng.shuffle(addresses)
        for address in addresses:
            reply.add_answer(RR(name, QTYPE.A, ttl=TTL, rdata=A(address)))
    return True  # known, but without records of another kind: no error, and nothing


def _reverse(reply: DNSRecord, table: Table, scope: Scope, name: str) -> bool:
    labels = name.lower().rstrip(".").removesuffix(_REVERSE).split(".")
    if len(labels) != 4 or not all(label.isdigit() and int(label) < 256 for label in labels):
        return False
    address = ".".join(str(int(label)) for label in reversed(labels))
    found = table.name_of(scope, address)
    if found is not None:
        if reply.q.qtype in (QTYPE.PTR, QTYPE.ANY):
            reply.add_answer(RR(name, QTYPE.PTR, ttl=TTL, rdata=PTR(found)))
        return True
    if table.is_ours(address):
        reply.header.rcode = RCODE.NXDOMAIN
        return True
    return False


def _reply(query: DNSRecord) -> DNSRecord:
    header = DNSHeader(id=query.header.id, bitmap=query.header.bitmap, qr=1, ra=1, aa=1, rcode=RCODE.NOERROR)
    reply = DNSRecord(header, q=query.q)
    if _edns(query) is not None:
        reply.add_ar(EDNS0(udp_len=MAX_UDP))
    return reply


def _failed(query: DNSRecord, code: int) -> bytes:
    header = DNSHeader(id=query.header.id, bitmap=query.header.bitmap, qr=1, ra=1, aa=0, rcode=code)
    return bytes(DNSRecord(header, questions=query.questions).pack())


def _packed(query: DNSRecord, reply: DNSRecord, tcp: bool) -> bytes:
    packed = bytes(reply.pack())
    if not tcp and len(packed) > _udp_limit(query):
        packed = bytes(reply.truncate().pack())
    return packed


def _edns(query: DNSRecord) -> RR | None:
    return next((rr for rr in query.ar if rr.rtype == QTYPE.OPT), None)


def _udp_limit(query: DNSRecord) -> int:
    edns = _edns(query)
    return MIN_UDP if edns is None else max(MIN_UDP, min(edns.rclass, MAX_UDP))
