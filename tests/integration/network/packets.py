"""Hand-made frames, for those who would forge them."""

from __future__ import annotations

import socket
import struct

from tests.integration.network.bed import Place, inside


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2])) + (
        data[-1] << 8 if len(data) % 2 else 0
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_packet(source: str, destination: str, port: int, payload: bytes) -> bytes:
    """IPv4 with UDP, without a UDP checksum (0 = none, which is legal)."""
    udp = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 7, 0, 64, 17, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    check = _checksum(head + addresses)
    return head[:10] + struct.pack("!H", check) + addresses + udp


def frame(to: str, source: str, packet: bytes) -> bytes:
    return bytes.fromhex((to + source).replace(":", "")) + b"\x08\x00" + packet


def vxlan(vni: int, inner: bytes) -> bytes:
    return struct.pack("!II", 0x08000000, vni << 8) + inner


def send_frame(place: Place, device: str, data: bytes) -> None:
    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((device, 0x0800))
            sock.send(data)

    inside(place.path, work)


def send_udp(place: Place, address: str, port: int, data: bytes) -> None:
    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(data, (address, port))

    inside(place.path, work)
