#!/usr/bin/env bash
# Calls between windows of a real Chromium, with cameras and microphones that it makes up: direct, through both kinds of relays, without UDP, over
# a cluster whose nodes are killed. Each prints the frames that were decoded and the pair of candidates in use.
#
#   scripts/calls.sh [FILE...]      files of web/test/calls; default: all
#
# All of it runs in a network namespace of its own that has loopback only: UDP is blocked there without anybody else noticing, and ports are free.
# That needs root, or a kernel that lets users make namespaces.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${HALLEY_OWN_NET:-}" ]; then
  scripts/install.sh redis kafka mariadb coturn browser
  if [ ! -e web/node_modules/.package-lock.json ] || [ web/package-lock.json -nt web/node_modules/.package-lock.json ]; then
    (cd web && npm ci --silent --no-audit --no-fund)
  fi
  user=()
  [ "$(id -u)" = 0 ] || user=(--map-root-user)
  unshare "${user[@]}" --net true 2>/dev/null || { echo "calls: no network namespace can be made here; run it as root" >&2; exit 1; }
  HALLEY_OWN_NET=1 exec unshare "${user[@]}" --net scripts/calls.sh "$@"
fi

ip link set lo up
# What asks for no port, as browsers do, gets one below those of relays and above those of servers.
echo "33000 39999" >/proc/sys/net/ipv4/ip_local_port_range
# Rules can be put before the one for this machine's own addresses only if it isn't the first.
ip rule add pref 100 lookup local
ip rule del pref 0

export HALLEY_BIN="${HALLEY_BIN:-$PWD/bin/halley}"
CHROMIUM="${CHROMIUM:-$(command -v chromium)}"
export CHROMIUM
cd web
npm run --silent test:calls -- "$@"
