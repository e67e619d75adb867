#!/bin/sh
# Runs coturn with turnserver.conf and what differs from place to place. The secret comes from a file and is on no command line.
#
#   TURN_SECRET_FILE   file with the secret that logic has as logic.turn_secret; at least 16 bytes. Must be set
#   TURN_EXTERNAL_IP   address that others reach this machine at, where it isn't its own
#   TURN_RELAY_IP      this machine's own address; must be set where TURN_EXTERNAL_IP is
#   TURN_CERT TURN_KEY PEM files: turns: is served with them
#   TURN_REALM         default halley
#   TURN_RUN_DIR       folder of its owner's for the settings with the secret, the pid and coturn's database; default: a new one for each start
# Arguments are passed on to turnserver.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

die() { echo "coturn: $*" >&2; exit 1; }

[ -n "${TURN_SECRET_FILE:-}" ] || die "TURN_SECRET_FILE is not set: make a secret with: openssl rand -hex 32"
secret=$(tr -d '\r\n' <"$TURN_SECRET_FILE") || die "can't read $TURN_SECRET_FILE"
[ "${#secret}" -ge 16 ] || die "the secret in $TURN_SECRET_FILE has fewer than 16 bytes"
if [ -n "${TURN_EXTERNAL_IP:-}" ] && [ -z "${TURN_RELAY_IP:-}" ]; then
  die "TURN_EXTERNAL_IP needs TURN_RELAY_IP, this machine's own address"
fi
if [ -n "${TURN_CERT:-}" ] && ! [ -r "$TURN_CERT" ]; then die "can't read TURN_CERT $TURN_CERT"; fi
if [ -n "${TURN_KEY:-}" ] && ! [ -r "$TURN_KEY" ]; then die "can't read TURN_KEY $TURN_KEY"; fi

umask 077
if [ -n "${TURN_RUN_DIR:-}" ]; then
  dir=$TURN_RUN_DIR
  mkdir -p "$dir"
else
  dir=$(mktemp -d)
fi
{
  cat "$here/turnserver.conf"
  echo "static-auth-secret=$secret"
  [ -z "${TURN_REALM:-}" ] || echo "realm=$TURN_REALM"
  if [ -n "${TURN_RELAY_IP:-}" ]; then
    echo "relay-ip=$TURN_RELAY_IP"
    # coturn turns the external address into this one before it looks whether the peer is allowed.
    echo "allowed-peer-ip=$TURN_RELAY_IP"
  fi
  [ -z "${TURN_EXTERNAL_IP:-}" ] || echo "external-ip=$TURN_EXTERNAL_IP/$TURN_RELAY_IP"
  [ -z "${TURN_CERT:-}" ] || printf 'cert=%s\npkey=%s\n' "$TURN_CERT" "${TURN_KEY:?TURN_CERT needs TURN_KEY}"
} >"$dir/turnserver.conf"
exec turnserver -c "$dir/turnserver.conf" --pidfile "$dir/pid" --userdb "$dir/db" "$@"
