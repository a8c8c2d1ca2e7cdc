"""What the runtime and conmon say when a container cannot be made → one sentence; would it fail again? Pure."""

from __future__ import annotations

import re

from pyswarm_agent.interfaces import ContainerFailure

# (pattern, sentence, final), tried in order. crun and runc word the same things differently. Groups fill {0}.
_KNOWN: tuple[tuple[str, str, bool], ...] = (
    (
        r"""executable file [`'"]?(.+?)[`'"]? not found|exec: ["']?(.+?)["']?: executable file not found""",
        "the command {0} is not in the image's PATH",
        True,
    ),
    (
        r"""(?:open executable|executable path|exec:?|stat) [`'"]?(/[^`'":]*)[`'"]?:? .*?no such file or directory""",
        "the command {0} does not exist in the image",
        True,
    ),
    (
        r"""(?:open executable|executable path|exec:?|stat) [`'"]?(/?[^`'": ]+)[`'"]?:? .*?permission denied""",
        "the command {0} may not be executed by this user",
        True,
    ),
    (r"(?:open executable|exec).*?: permission denied", "the command may not be executed by this user", True),
    (r"exec format error", "the command is for another architecture than this host's", True),
    (r"executable path is empty|path to executable not found", "there is no command to run", True),
    (r"chdir.*?permission denied", "the working directory may not be entered by this user", True),
    (r"no space left on device", "this host's disk is full", False),
    (r"cannot allocate memory|out of memory", "this host has no memory left for another container", False),
    (r"resource temporarily unavailable", "this host has no processes left for another container", False),
)

_PREFIX = re.compile(r"^((\d{4}-\d\d-\d\dT\S+|time=\S+|level=\S+|\[conmon:\w\]:|<error>:?)\s*)+")


def translate(message: str, done: str) -> ContainerFailure:
    """`done`: created, started or deleted. What is not known is passed on, on one line, and may be tried again."""
    text = plain(message)
    for pattern, sentence, final in _KNOWN:
        if found := re.search(pattern, text, re.IGNORECASE):
            name = next((group for group in found.groups() if group), "")
            return ContainerFailure(sentence.format(repr(name)), final=final)
    return ContainerFailure(f"the container could not be {done}: {text or 'the runtime gave no reason'}", final=False)


def plain(message: str) -> str:
    """Without log prefixes, JSON or line ends."""
    lines = []
    for line in message.strip().splitlines():
        if found := re.search(r'(?:"msg":\s*|msg=)"((?:[^"\\]|\\.)*)"', line):
            line = found[1].replace('\\"', '"')
        line = _PREFIX.sub("", line)
        if line.strip():
            lines.append(line.strip())
    return "; ".join(dict.fromkeys(lines))
