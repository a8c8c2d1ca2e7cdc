"""`python -m tests.simulation.faults [NAME…]`: are they found?"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="groups, or parts of names; all when none is given")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=24, help="how many seeds each fault gets at most")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    again = {"PYTHONHASHSEED": "0", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    if any(os.environ.get(name) != value for name, value in again.items()):
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation.faults", *sys.argv[1:]], os.environ | again)

    from tests.simulation.faults.hunt import Found, broken, hunt_all
    from tests.simulation.faults.planted import GROUPS, chosen, load

    faults = load()
    names = chosen(arguments.names)
    results: dict[str, Found] = {}
    for found in hunt_all(names, arguments.seed, arguments.seeds, arguments.jobs):
        results[found.name] = found
        how = f"seed {found.seed}, {found.hours:.2f} h: {found.invariant}" if found.invariant else found.why.upper()
        print(f"{faults[found.name].group:9} {found.name}: {how} ({found.seconds:.0f} s)", flush=True)
    unsound = broken({found.seed for found in results.values() if found.invariant}, arguments.jobs)
    for name, found in results.items():
        if found.invariant and found.seed in unsound:
            print(f"{name}: seed {found.seed} fails without it, too: that does not count")
            results[name] = replace(found, invariant="")
    print()
    for group in GROUPS:
        of_group = [name for name in names if faults[name].group == group]
        if of_group:
            print(f"{group:9} {sum(bool(results[name].invariant) for name in of_group)} of {len(of_group)}")
    caught = sum(bool(found.invariant) for found in results.values())
    print(f"found {caught} of {len(names)}: {100 * caught / max(1, len(names)):.0f} %")
    return 0 if caught == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
