#!/bin/sh
# Tests the desktop host's command line: host.sh PATH-OF-VMESSKIT. What takes a tun device runs in a namespace of its
# own, and is left out where none can be made.
set -u
host=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
passed=0
failed=0

# check WHAT EXPECTED ACTUAL
check() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "host.sh: $1: $3, expected $2" >&2
        sed 's/^/    /' "$work/out" "$work/err" >&2
    fi
}

# status WHAT EXPECTED ARGUMENTS...
status() {
    what=$1
    expected=$2
    shift 2
    "$host" "$@" >"$work/out" 2>"$work/err" </dev/null
    check "$what" "$expected" $?
}

# says WHAT FILE TEXT
says() {
    grep -qF -- "$3" "$work/$2"
    check "$1" 0 $?
}

# ends WHAT SIGNAL ARGUMENTS...: starts it, waits until it runs, ends it by the signal.
ends() {
    what=$1
    signal=$2
    shift 2
    : >"$work/err"
    "$host" "$@" >"$work/out" 2>"$work/err" </dev/null &
    pid=$!
    tries=0
    until grep -q 'vmesskit: connect' "$work/err" || [ $tries = 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    kill -s "$signal" $pid
    wait $pid
    check "$what" 0 $?
    says "$what, said so" err "vmesskit: stopped"
}

cat >"$work/good.json" <<'END'
{ // Comments are allowed.
  "outbounds": [{ "protocol": "blackhole" }]
}
END
cat >"$work/broken.json" <<'END'
{ "inbounds": [{ "protocol": "socks", "port": 0.5 }], "outbounds": [{ "protocol": "nothing" }], "nonsense": 1 }
END
cat >"$work/taken.json" <<'END'
{ "inbounds": [{ "protocol": "socks", "listen": "192.0.2.1", "port": 1080 }], "outbounds": [{ "protocol": "freedom" }] }
END

status "no arguments" 2
status "an unknown option" 2 -nonsense
says "an unknown option, usage" err "usage:"
status "no number" 2 -config "$work/good.json" -memory many
status "-vnet without -tun" 2 -config "$work/good.json" -vnet
status "an option without its value" 2 -config
status "-help" 0 -help
status "-version" 0 -version
says "-version, the name" out "VMessKit "
status "-test" 0 -test -config "$work/good.json"
says "-test, the verdict" out "Configuration OK."
status "-test, with = and two dashes" 0 --test "--config=$work/good.json"
status "-test of a broken config" 23 -test -config "$work/broken.json"
says "its first error" out "error: inbounds[0].port: "
says "its second error" out "error: outbounds[0].protocol: "
says "its warning" out "warning: nonsense: "
status "a run of a broken config" 23 -config "$work/broken.json"
says "its error" err "error: outbounds[0].protocol: "
status "a config that is not there" 23 -config "$work/nowhere.json"
status "a folder" 23 -config "$work"
status "an empty config" 23 -config -
status "too little memory" 1 -config "$work/good.json" -memory 1
says "too little memory, the hint" err "hint:"
{
    cat "$work/good.json"
    head -c 70000000 /dev/zero | tr '\0' ' '
} >"$work/huge.json"
status "a config that is too large" 23 -config "$work/huge.json"
says "a config that is too large, how large it may be" err "64 MiB"
rm "$work/huge.json"
for name in a/b .. "a b" tun%d a-name-of-many-letters; do
    status "the device name $name" 1 -config "$work/good.json" -tun "$name"
    says "the device name $name, what is wrong" err "tun $name: a device's name has"
done
status "an address that is not ours" 23 -config "$work/taken.json"
says "an address that is not ours, the reason" err "reason:"
"$host" -test -config - <"$work/good.json" >"$work/out" 2>"$work/err"
check "a config on standard input" 0 $?

ends "SIGINT" INT -config "$work/good.json"
ends "SIGTERM" TERM -config "$work/good.json" -stats 1 -memory 16
# Without a reader of its output it goes on.
(
    "$host" -config "$work/good.json" -stats 1 2>&1 &
    echo $! >"$work/pid"
) | head -n 1 >"$work/out"
sleep 2
kill -s TERM "$(cat "$work/pid")" 2>"$work/err"
check "output that nobody reads" 0 $?

if unshare -Urn true 2>/dev/null && unshare -Urn sh -c 'test -c /dev/net/tun && ip tuntap add dev probe mode tun' 2>/dev/null; then
    for vnet in "" -vnet; do
        # shellcheck disable=SC2086,SC2016 # no option is no argument; the inner shell expands
        unshare -Urn sh -c '
            ip tuntap add dev t0 mode tun ${3:+vnet_hdr} && ip link set t0 mtu 4000 up && ip addr add 10.9.0.1/24 dev t0
            "$1" -config "$2" -tun t0 $3 &
            pid=$!
            ping -c 1 -w 20 10.9.0.2 >/dev/null
            answered=$?
            kill -s TERM $pid
            wait $pid && exit $answered' sh "$host" "$work/good.json" "$vnet" >"$work/out" 2>"$work/err"
        check "a tun device $vnet" 0 $?
    done
    # shellcheck disable=SC2016 # the inner shell expands
    unshare -Urn sh -c 'ip tuntap add dev t0 mode tap; exec "$1" -config "$2" -tun t0' sh "$host" "$work/good.json" \
        >"$work/out" 2>"$work/err"
    check "a tap device" 1 $?
else
    echo "host.sh: no tun device can be made here, so none was tested" >&2
fi

echo "host: $passed passed, $failed failed"
[ $failed = 0 ]
