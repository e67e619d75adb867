#!/usr/bin/env bash
# Stops what scripts/up.sh started, by pid: clients are asked to leave first. Keys, logs, Kafka's records and the database stay in .cluster;
# remove that folder to begin anew.
source "$(dirname "$0")/cluster.sh"

# stop NAME...: all at once, and waits.
stop() {
  local name pid pids=() end=$((SECONDS + 75))
  for name in "$@"; do
    running "$name" || { rm -f "$home/$name/pid"; continue; }
    pid="$(cat "$home/$name/pid")"
    kill -CONT "$pid" 2>/dev/null || true # it may have been stopped by whoever played with it
    kill -TERM "$pid" 2>/dev/null || true
    pids+=("$name:$pid")
  done
  for name in ${pids[@]+"${pids[@]}"}; do
    pid="${name#*:}"
    until gone "$pid"; do
      if [ $SECONDS -ge $end ]; then
        say "${name%:*} does not end; SIGKILL"
        kill -KILL "$pid" 2>/dev/null || true
        break
      fi
      sleep 0.1
    done
    rm -f "$home/${name%:*}/pid"
    say "  ${name%:*} stopped"
  done
}

[ -d "$home" ] || { say "nothing runs: there is no .cluster"; exit 0; }
stop comet1 comet2
stop job1 job2 logic1 logic2
stop router1 router2
if [ -d "$home/servers" ]; then
  scripts/servers.sh stop "$home/servers"
  say "  Kafka, Redis and MariaDB stopped"
fi
