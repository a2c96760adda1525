#!/usr/bin/env bash
# Run the server in the foreground until Ctrl-C: loopback, simulated nodes and pods, data under build/run.
#
#   DEMO=off     the bare server, without the hints
#   LISTEN, METRICS_LISTEN   addresses other than the usual ones
#   further arguments go to grove-server
#
# Ctrl-C is how this program is meant to end, so it ends with status 0; any other end keeps the server's status. On a
# terminal the server gets a process group of its own: Ctrl-C then reaches the server alone, and not make as well,
# which would report an interrupted target.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

listen=${LISTEN:-127.0.0.1:50051}
metrics_listen=${METRICS_LISTEN:-127.0.0.1:9464}
mkdir -p build/run

server=(
  .venv/bin/grove-server --runtime fake --data-dir build/run
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
if [ -t 0 ] && [ -t 1 ]; then
  set -m
  "${server[@]}" || status=$?
  set +m
else
  # Without a terminal a signal comes to this shell: hand it on, then wait until the server has really ended.
  "${server[@]}" &
  pid=$!
  stopping=
  trap 'stopping=yes; kill -TERM "$pid" 2>/dev/null || true' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    status=0
    wait "$pid" || status=$?
  done
  # The end that was asked for is a clean one, however the server reports the signal.
  if [ -n "$stopping" ] && { [ "$status" = 130 ] || [ "$status" = 143 ]; }; then status=0; fi
fi
if [ "$status" = 130 ]; then status=0; fi
exit "$status"
