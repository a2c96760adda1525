#!/usr/bin/env bash
# Run the server in the foreground until Ctrl-C: loopback, simulated nodes and pods, data under build/run.
#
#   DEMO=off     the bare server, without the hints
#   LISTEN, METRICS_LISTEN   addresses other than the usual ones
#   further arguments go to grove-server
#
# Ctrl-C is how this program is meant to end, so it ends with status 0; any other end keeps the server's status. The
# server gets a process group of its own. On a terminal, Ctrl-C then reaches the server alone, and not make as well,
# which would report an interrupted target. Without one, a signal to the whole group, which make repeats to its
# children, would reach the server twice; and a second signal means "stop at once".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

listen=${LISTEN:-127.0.0.1:50051}
metrics_listen=${METRICS_LISTEN:-127.0.0.1:9464}
mkdir -p build/run

server=(
  .venv/bin/grove-server --runtime fake --pods-on-exit stop --data-dir build/run
  --listen "$listen" --metrics-listen "$metrics_listen" "$@"
)

if [ "${DEMO:-on}" != off ]; then
  cat <<HINTS
Grove Server on $listen, with simulated GPU nodes; its data stays in build/run. Ctrl-C stops it.
In another terminal, in this folder:

  export PATH="\$PWD/.venv/bin:\$PATH" GROVE_SERVER=$listen
  grovectl apply -f examples/disaggregated.yaml
  grovectl get pcs,pclq,pcsg,pg,po -o wide
  grovectl tree pcs disaggregated
  curl http://$metrics_listen/metrics

HINTS
fi

status=0
stopping_since_s=
set -m
if [ -t 0 ] && [ -t 1 ]; then
  "${server[@]}" || status=$?
else
  "${server[@]}" &
  pid=$!
  # What comes within a second of the first signal is the same request to stop.
  hand_on() {
    if [ -z "$stopping_since_s" ] || [ $((SECONDS - stopping_since_s)) -gt 1 ]; then
      kill -TERM "$pid" 2>/dev/null || true
    fi
    stopping_since_s=${stopping_since_s:-$SECONDS}
  }
  trap hand_on INT TERM
  # A signal interrupts `wait`; the server has ended only when it is gone.
  while true; do
    status=0
    wait "$pid" || status=$?
    kill -0 "$pid" 2>/dev/null || break
  done
fi
case $status in
  130 | 143) if [ -t 0 ] || [ -n "$stopping_since_s" ]; then status=0; fi ;;
esac
exit "$status"
