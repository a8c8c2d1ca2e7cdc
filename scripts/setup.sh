#!/bin/bash
# Installs what pyswarm needs on this machine (Debian 12/13, Ubuntu 24.04) and makes .venv with the command in it.
# Does nothing when it has been done for this pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(python3-venv etcd-server etcd-client crun runc conmon catatonit skopeo buildah golang-github-containers-common nftables
  conntrack iproute2 procps util-linux docker-registry busybox-static prometheus
  mmdebstrap openssh-client curl faketime)

stamp=.setup.stamp
want=$(sha256sum pyproject.toml scripts/setup.sh | sha256sum)
if [ -f $stamp ] && [ "$(cat $stamp)" = "$want" ] && [ -x .venv/bin/pyswarm ]; then exit 0; fi

fail() { echo "setup: $*" >&2; exit 1; }
[ "$(uname -s)" = Linux ] || fail "pyswarm runs on Linux; this is $(uname -s)"
[ "$(id -u)" = 0 ] || fail "needs root, to install packages and make namespaces: run it with sudo"
command -v apt-get >/dev/null || fail "this is no Debian or Ubuntu (no apt-get): install ${packages[*]} by hand, then .venv by 'python3 -m venv .venv && .venv/bin/pip install -e .[dev]'"

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  # The packaged etcd, registry and Prometheus would start daemons of their own; ours are started where they are needed.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' > $policy; chmod +x $policy; trap 'rm -f $policy' EXIT; fi
  apt-get update -qq >&2
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

python=python3
[ -x /usr/bin/python3 ] && python=/usr/bin/python3
$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "needs Python 3.11 or newer; this is $($python -V)"
echo "setup: making .venv" >&2
[ -x .venv/bin/python ] || $python -m venv .venv
.venv/bin/pip install -q --disable-pip-version-check -e '.[dev]' >&2
echo "$want" > $stamp
echo "setup: done; the command is $PWD/.venv/bin/pyswarm" >&2
