#!/usr/bin/env bash
# One job on two hosts: network namespaces with names of their own, a cable between them, mpirun over TCP. The archive has the bytes of one host; when the
# cable is cut in the middle the job ends by its watchdog, leaves no process behind, and the same command goes on.
set -uo pipefail
. "$(dirname "$0")/../env.sh"
if [ "$(id -u)" -ne 0 ] || ! command -v ip >/dev/null || ! unshare --net --uts true 2>/dev/null; then
    echo "skipped: network namespaces need root and iproute2"
    echo "0 passed, 0 failed"
    exit 0
fi
dir=$(mktemp -d)
a=dza$$ b=dzb$$ net=10.213.$((RANDOM % 250))
export DZ_TWO_HOSTS=$dir DZ_JOURNAL_AFTER=0
. tests/tally.sh
ours() { # pids of what this script has started on the hosts, by a word of their environment
    grep -lzsx "DZ_TWO_HOSTS=$dir" /proc/[0-9]*/environ | cut -d/ -f3 | while read -r pid; do
        case $(ps -o comm= -p "$pid") in deltazoo | orted | mpirun | orterun) echo "$pid" ;; esac
    done
}
clean_up() {
    for pid in $(ours); do kill -9 "$pid" 2>/dev/null; done
    ip netns del $a 2>/dev/null
    ip netns del $b 2>/dev/null
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'trap "" INT TERM; exit 1' INT TERM

ip netns add $a && ip netns add $b && ip link add $a type veth peer name $b && ip link set $a netns $a && ip link set $b netns $b || exit 1
ip -n $a addr add $net.1/24 dev $a
ip -n $b addr add $net.2/24 dev $b
for host in $a $b; do
    ip -n $host link set $host up
    ip -n $host link set lo up
    ip netns exec $host sysctl -qw net.ipv4.tcp_retries2=5 # mpirun itself gives up a dead connection after 13 s, not 15 minutes
done
cat >"$dir/on" <<'AGENT'
#!/bin/sh
# on HOST COMMAND...: what ssh would do
host=$1
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; exec $*"
AGENT
cc -D_GNU_SOURCE -O -shared -fPIC -o "$dir/slow.so" tests/slurm/slow_reads.c -ldl
printf '#!/bin/sh\nLD_PRELOAD=%s SLOW_READS=%s SLOW_MS=500 exec %s "$@"\n' "$dir/slow.so" "$dir/slow" "$DELTAZOO" >"$dir/deltazoo"
chmod +x "$dir/on" "$dir/deltazoo"
"$DELTAZOO" synth -q --shape tiny --tasks 3 -o "$dir/zoo" >/dev/null
"$DELTAZOO" compress -q "$dir/zoo/zoo.yaml" -o "$dir/right.h5" >/dev/null

job() { # ranks on each, arguments
    local n=$1
    shift
    "$dir/on" $a mpirun -q --host $a:$n,$b:$n --mca plm rsh --mca plm_rsh_agent "$dir/on" --mca btl tcp,self --mca btl_tcp_if_include $net.0/24 \
        --mca oob_tcp_if_include $net.0/24 "$dir/deltazoo" compress "$dir/zoo/zoo.yaml" -o "$dir/two.h5" "$@" >>"$dir/log" 2>&1
}

job 2 -q --report "$dir/two.json"
cmp -s "$dir/two.h5" "$dir/right.h5" && grep -q "\"$a\": 2" "$dir/two.json" && grep -q "\"$b\": 2" "$dir/two.json"
result "two hosts make the bytes of one" $?

rm -f "$dir/two.h5" "$dir/log"
touch "$dir/slow"
job 2 --watchdog 6 &
pid=$!
for _ in $(seq 600); do
    [ "$(cat "$dir"/two.h5.journal/* 2>/dev/null | wc -c)" -gt 20000 ] && break
    sleep 0.1
done
ip -n $b link set $b down
begun=$SECONDS
wait $pid
code=$?
echo "exit $code after $((SECONDS - begun)) s" >>"$dir/log"
[ $code -eq 75 ] && grep -qE "^deltazoo: error: (no progress .* in phase '.*': rank [0-9]+ is behind|nothing heard of rank [0-9]+ for .* in phase '.*')$" "$dir/log"
result "a cable that is cut ends the job by the watchdog" $?
for _ in $(seq 300); do
    [ -z "$(ours)" ] && break
    sleep 0.1
done
ours | while read -r pid; do ps -o pid=,args= -p "$pid"; done >>"$dir/log"
[ -z "$(ours)" ] && [ ! -e "$dir/two.h5" ] && [ -d "$dir/two.h5.journal" ]
result "no process is left, nor an archive that is none" $?

ip -n $b link set $b up
rm "$dir/slow"
job 1
[ $? -eq 0 ] && cmp -s "$dir/two.h5" "$dir/right.h5" && grep -q 'went on where an earlier run' "$dir/log" && [ ! -e "$dir/two.h5.journal" ]
result "with the cable in place the same command goes on" $?
tally
