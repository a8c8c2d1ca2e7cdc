"""Other people's firewalls: what in them would drop our traffic. We never change them; we say so."""

from __future__ import annotations

import asyncio
import json

from pyswarm_proxy.ruleset import TABLE


def drops_forwarding(listing: str) -> list[str]:
    """Chains of others that drop whatever they do not know, from `nft -j list chains`: "ip filter FORWARD". An accept
    in our table does not overrule them: a packet must pass all."""
    found = []
    for item in json.loads(listing or "{}").get("nftables", []):
        chain = item.get("chain", {})
        family, table = chain.get("family", ""), chain.get("table", "")
        if chain.get("hook") != "forward" or chain.get("policy") != "drop" or f"{family} {table}" == TABLE:
            continue
        if family in ("ip", "inet"):
            found.append(f"{family} {table} {chain['name']}")
    return found


async def warnings(command: str = "nft") -> tuple[str, ...]:
    """One sentence for each thing that somebody should mend; nothing when nft cannot tell."""
    try:
        process = await asyncio.create_subprocess_exec(
            command, "-j", "list", "chains", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except FileNotFoundError:
        return ()
    listing, _ = await process.communicate()
    if process.returncode != 0:
        return ()
    return tuple(
        f"the firewall chain '{name}' of another program drops forwarded packets, those of containers too: "
        "let it accept the interfaces psc* and psx* in both directions"
        for name in drops_forwarding(listing.decode(errors="replace"))
    )
