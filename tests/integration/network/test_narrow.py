from __future__ import annotations

from tests.integration.network.bed import CLIENT, Bed


async def test_one_host_answers_by_vip_and_published_port(bed: Bed) -> None:
    await bed.task("web1", 1, service="web")
    other = await bed.task("other", 1, last=6)
    bed.service("web", bed.endpoint("web1"), vip="10.200.0.2", published=8080)
    await bed.apply()
    assert await other.ask("10.200.0.2", 80) == f"web1 {bed.address('other')}"
    assert await bed.client.ask("10.90.0.11", 8080) == f"web1 {CLIENT}"
    assert await bed.client.ask_udp("10.90.0.11", 8080) == f"web1 {CLIENT} 6"
    assert (await bed.host(1).ask("127.0.0.1", 8080)).startswith("web1")
    assert (await bed.host(1).ask("10.200.0.2", 80)).startswith("web1")
