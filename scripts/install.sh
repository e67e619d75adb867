#!/usr/bin/env bash
# Installs what the tests need on a Debian machine and is not there yet. Repeatable; a second run takes a second.
#
#   scripts/install.sh [redis] [kafka] [mariadb] [coturn] [browser] [python]      default: all six
#
# redis, mariadb, coturn, browser and python come from apt (root or sudo needed once), Kafka as jars from Maven Central into .cache/kafka.
# The system's own services are neither used nor touched: scripts/servers.sh starts its own on free ports.
set -euo pipefail
cd "$(dirname "$0")/.."
cache="$PWD/.cache"
# Change this to have everybody's jars fetched again, together with scripts/kafka/pom.xml.
kafka_version=4.4.0

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "run as root, or install yourself: $*"
  fi
}

updated=
# apt PACKAGE...: with the lists brought up to date once a run.
apt_install() {
  command -v apt-get >/dev/null || die "no apt-get here; install yourself: $*"
  if [ -z "$updated" ]; then
    say "apt-get update"
    as_root apt-get update -qq >&2 || die "apt-get update failed; check the network"
    updated=1
  fi
  say "apt-get install $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 ||
    die "apt-get install $* failed"
}

# need COMMAND PACKAGE: installs the package when the command is missing.
need() { command -v "$1" >/dev/null || apt_install "$2"; }

java_ok() { command -v java >/dev/null && [ "$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)" -ge 17 ]; }

install_redis() {
  need redis-server redis-server
  need redis-cli redis-tools
}

install_kafka() {
  java_ok || apt_install openjdk-17-jre-headless
  local dir="$cache/kafka/$kafka_version"
  [ -e "$dir/.complete" ] && return
  need mvn maven
  say "Kafka $kafka_version from Maven Central"
  rm -rf "$dir.part"
  mkdir -p "$dir.part"
  # A repository of our own would be cleaner, but the user's cache saves 100 MB of downloads.
  mvn -B -q -f scripts/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$dir.part" >&2 ||
    die "Maven could not fetch Kafka; check the network, then run again"
  ls "$dir.part"/kafka_2.13-"$kafka_version".jar >/dev/null || die "scripts/kafka/pom.xml and install.sh name different versions"
  touch "$dir.part/.complete"
  rm -rf "$dir"
  mv "$dir.part" "$dir"
}

install_mariadb() {
  # Not in everybody's PATH.
  [ -x /usr/sbin/mariadbd ] || need mariadbd mariadb-server
}

install_coturn() {
  command -v turnserver >/dev/null && return
  apt_install coturn
  # Debian starts it at the port that halley all listens at.
  if [ -d /run/systemd/system ]; then as_root systemctl disable --now coturn >&2 || true; fi
}

install_browser() {
  need chromium chromium
  need node nodejs
  need npm npm
}

install_python() { need python3 python3; }

[ $# -gt 0 ] || set -- redis kafka mariadb coturn browser python
mkdir -p "$cache"
# Two runs at once would fetch everything twice.
exec 9>"$cache/install.lock"
flock 9
for what in "$@"; do
  case "$what" in
    redis | kafka | mariadb | coturn | browser | python) "install_$what" ;;
    *) die "unknown part $what; there are redis, kafka, mariadb, coturn, browser, python" ;;
  esac
done
