#!/bin/bash
# Boots the guest N times (default 50) on our host, each time with ping, a reload of
# hv_netvsc, and ping again.  Prints what failed, and how many of how many.
#   boots.sh [N [options of run.sh]]
here=$(cd "$(dirname "$0")" && pwd)
n=${1:-50} bad=0
shift
ran=0
trap 'echo "$ran boots, $bad failures"' EXIT
trap 'exit 1' INT TERM
up='ip addr replace 198.18.0.9/24 dev eth0 && ip link set eth0 up && ping -q -c 2 -i 0.2 -w 20 198.18.0.1'
for ((i = 1; i <= n; i++)); do
	out=$("$here/run.sh" "$@" -- "$up && lgv_unload hv_netvsc && lgv_netvsc && $up" 2>&1)
	status=$?
	ran=$i
	((status == 0)) && continue
	bad=$((bad + 1))
	printf 'boot %d: status %d\n%s\n' "$i" "$status" "$(tail -20 <<<"$out")"
done
((bad == 0))
