#!/bin/sh
# A job for continuous integration: it succeeds if the guest reaches the stage without
# breaking a rule, and prints what was said in either case. It wants hvnet in PATH.
#
#	job.sh STAGE COMMAND...
#
# COMMAND boots the guest, which finds its host at $HVNET_SOCKET; it need not end by
# itself. $HVNET_HOST_FLAGS are more flags of `hvnet host`.
set -eu
stage=${1:?want STAGE COMMAND...}
shift
: "${1:?want STAGE COMMAND...}"
host= guest=
dir=$(mktemp -d)
trap 'kill $host $guest 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
HVNET_SOCKET=$dir/s
export HVNET_SOCKET

hvnet host --listen "$HVNET_SOCKET" --trace --until "$stage" --timeout 120s ${HVNET_HOST_FLAGS:-} >"$dir/trace" 2>&1 &
host=$!
while kill -0 $host 2>/dev/null && ! grep -q '^listening' "$dir/trace"; do sleep 0.1; done
"$@" &
guest=$!
status=0
wait $host || status=$?
host=
kill $guest 2>/dev/null || true
wait $guest || true
guest=
cat "$dir/trace"
exit $status
