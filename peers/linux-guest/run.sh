#!/bin/bash
# Boots the guest under QEMU TCG and runs a shell command in it.
#
#   run.sh [options] [--] [COMMAND...]
#     -H PROGRAM   host process to start in place of hvnet (default $LGV_HOST); a
#                  shell word list.  "-" means: already running, with the socket
#                  at -S
#     -O ARGS      more arguments for 'hvnet host', such as '--profile ws2016'
#     -S PATH      ivshmem socket (default: in the run folder)
#     -R PATH      guest RAM file (default: in the run folder)
#     -k KERNEL    6.1 (default), 6.12 or newest, as built by build.sh
#     -c N         virtual CPUs (default 2, at least 2: see README)
#     -n NODES     NUMA nodes that they are divided over (default 1; a divisor of -c)
#     -m MIB       guest RAM (default 640), all of it on the first node
#     -d MODE      netvsc (default) | uio | vmbus | shim | none
#     -t SECONDS   time limit of the whole run (default 120)
#     -f SRC[:DST] also put a file or folder into the guest (default DST: /SRC's name)
#     -l FILE      log of the host process (default: in the run folder)
#     -a ARGS      extra kernel arguments; lgv.MODULE=a=1,b=2 gives a module
#                  parameters (lgv.hv_vmbus=max_version=0x40000)
#     -o FILE      keep the guest's whole console there
#     -q           quiet: print only what comes after LGV-READY
#     -i           standard input is the guest's console
#
# Without -H the host is this project's own, built with Go: the guest's NIC is on
# its switch, with a gateway at 198.18.0.1.  Any host process gets LGV_SOCK, LGV_RAM,
# LGV_RAM_BYTES and LGV_VPS in its environment; the last is -c, or what the caller has
# set, such as 1 for a guest with -a "nr_cpus=1 noreplace-smp".  Exit status: the
# command's, 124 at the time limit, 125 if the
# guest ended without reporting one.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kernel=${KERNEL:-6.1}
host=${LGV_HOST:-} hostargs= sock= ramfile= cpus=2 nodes=1 mib=640 mode=netvsc limit=120 log= extra= out= quiet=0 input=/dev/null files=()
while getopts H:O:S:R:k:c:n:m:d:t:f:l:a:o:qi o; do
	case $o in
	H) host=$OPTARG ;; O) hostargs=$OPTARG ;; S) sock=$OPTARG ;; R) ramfile=$OPTARG ;;
	k) kernel=$OPTARG ;; c) cpus=$OPTARG ;; n) nodes=$OPTARG ;; m) mib=$OPTARG ;; d) mode=$OPTARG ;;
	t) limit=$OPTARG ;; f) files+=("$OPTARG") ;; l) log=$OPTARG ;;
	a) extra=$OPTARG ;; o) out=$OPTARG ;; q) quiet=1 ;; i) input=/dev/stdin ;; *) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
BUILD=${BUILD:-${TMPDIR:-/tmp}/linux-guest-build}
[ "$kernel" = 6.1 ] || BUILD=$BUILD/$kernel
if ((cpus < 2)); then
	# with one vCPU TCG does not make the guest's locked instructions atomic
	# towards another process
	echo "at least 2 vCPUs (for one, add: -a 'maxcpus=1 noreplace-smp')" >&2
	exit 2
fi
[ -e "$BUILD/initrd.gz" ] || { echo "run KERNEL=$kernel build.sh first" >&2; exit 2; }

shmdir=/dev/shm
[ -w $shmdir ] || shmdir=${TMPDIR:-/tmp}
run=$(mktemp -d "$shmdir/linux-guest.XXXXXX")
hostpid= qemupid=
cleanup() {
	[ -n "$qemupid" ] && kill "$qemupid" 2>/dev/null
	[ -n "$hostpid" ] && kill "$hostpid" 2>/dev/null && wait "$hostpid" 2>/dev/null
	rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

export LGV_SOCK=${sock:-$run/ivshmem.sock} LGV_RAM=${ramfile:-$run/ram}
export LGV_RAM_BYTES=$((mib << 20)) LGV_VPS=${LGV_VPS:-$cpus}
truncate -s "$LGV_RAM_BYTES" "$LGV_RAM"
if [ -z "$host" ]; then
	(cd "$here/../.." && CGO_ENABLED=0 go build -o "$run/hvnet" ./cmd/hvnet) || exit 2
	host="$run/hvnet host --listen $run/hvnet.sock --ivshmem $LGV_SOCK $hostargs"
fi

# the command and extra files travel in a second cpio archive behind the first
ov=$run/overlay
mkdir "$ov"
if (($#)); then
	{ echo '. /etc/lgv.sh'; printf '%s\n' "$*"; } >"$ov/cmd"
fi
for f in ${files[@]+"${files[@]}"}; do
	src=${f%%:*} dst=/$(basename "${f%%:*}")
	[[ $f == *:* ]] && dst=${f#*:}
	mkdir -p "$ov$(dirname "$dst")"
	cp -rL "$src" "$ov$dst"
done
cp "$BUILD/initrd.gz" "$run/initrd"
(cd "$ov" && find . -print0 | cpio --null -o -H newc -R 0:0 --quiet | gzip -1) >>"$run/initrd"

if [ "$host" != - ]; then
	$host >"${log:-$run/host.log}" 2>&1 &
	hostpid=$!
fi
for ((i = 0; i < 100; i++)); do [ -S "$LGV_SOCK" ] && break; sleep 0.1; done
[ -S "$LGV_SOCK" ] || { echo "the host process made no socket" >&2; cat "${log:-$run/host.log}" >&2; exit 2; }

ram=,memory-backend=ram numa=()
if ((nodes > 1)); then
	ram= numa=(-numa "node,nodeid=0,memdev=ram,cpus=0-$((cpus / nodes - 1))")
	for ((i = 1; i < nodes; i++)); do
		numa+=(-numa "node,nodeid=$i,cpus=$((cpus * i / nodes))-$((cpus * (i + 1) / nodes - 1))")
	done
fi
cpu=max,-la57,-x2apic
# newer kernels trip over cmpxchg16b as QEMU 7.2 emulates it (wrong flags after)
[ "$kernel" = 6.1 ] || cpu+=,-cx16
start() {
	: >"$run/console"
	qemu-system-x86_64 -accel "${LGV_ACCEL:-tcg,thread=multi}" -machine q35$ram,hpet=off,vmport=off,smbus=off \
		-cpu "$cpu" -smp "$cpus,sockets=$nodes" -m "$mib" \
		-object memory-backend-file,id=ram,size="$LGV_RAM_BYTES",mem-path="$LGV_RAM",share=on ${numa[@]+"${numa[@]}"} \
		-nodefaults -no-user-config -display none -no-reboot -serial stdio -monitor none \
		-acpitable file="$BUILD/vmbus.aml" \
		-chardev socket,id=ivs,path="$LGV_SOCK" -device ivshmem-doorbell,chardev=ivs,vectors="$cpus" \
		-kernel "$BUILD/vmlinuz" -initrd "$run/initrd" \
		-append "console=ttyS0 lgv.mode=$mode net.ifnames=0 panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on quiet loglevel=4 $(cat "$BUILD/args" 2>/dev/null) $extra" \
		<"$input" >>"$run/console" 2>&1 &
	qemupid=$!
	if ((quiet)); then
		tail -n +1 -f -s 0.1 --pid=$qemupid "$run/console" 2>/dev/null | sed -un 's/\r//g;/^LGV-READY/,/^LGV-EXIT/{/^LGV-/!p}' &
	else
		tail -n +1 -f -s 0.1 --pid=$qemupid "$run/console" 2>/dev/null | sed -u 's/\r//g' &
	fi
	tailpid=$!
	boot=$((SECONDS + 45))
}

start
end=$((SECONDS + limit)) tries=1
while kill -0 "$qemupid" 2>/dev/null && ((SECONDS < end)); do
	sleep 0.2
	# Once in some hundred times all processors of TCG spin in the middle of the kernel's
	# start, before anything of ours is there. It is started again then.
	if ((boot && SECONDS > boot && tries < 3)); then
		boot=0
		if ! grep -q '^LGV-BOOT' "$run/console"; then
			echo "run.sh: no init after 45 s, once more" >&2
			kill -9 "$qemupid" && wait "$qemupid" 2>/dev/null
			wait "$tailpid" 2>/dev/null
			tries=$((tries + 1))
			start
		fi
	fi
done
rc=
if kill -0 "$qemupid" 2>/dev/null; then
	rc=124
	echo "run.sh: time limit of $limit s reached" >&2
	kill "$qemupid"
fi
wait "$qemupid" 2>/dev/null
qemupid=
wait "$tailpid" 2>/dev/null
[ -z "$out" ] || tr -d '\r' <"$run/console" >"$out"
if ((quiet)) && [ "$rc" = 124 ]; then
	tail -5 "$run/console" | tr -d '\r' >&2
fi
if [ -z "$rc" ]; then
	rc=$(tr -d '\r' <"$run/console" | sed -n 's/^LGV-EXIT \([0-9]*\)$/\1/p' | tail -1)
fi
exit "${rc:-125}"
