#!/bin/sh
# The first process of the virtual machine: makes it a machine, runs the tests, switches it off.
# Lines that begin with "vm: " are for `cargo xtask vm`.
export PATH=/bin:/usr/bin:/usr/sbin:/sbin HOME=/root RUST_TEST_THREADS=1
mkdir -p /proc /sys /dev /tmp /root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
cd /root

# run NAME COMMAND...
run() {
    name=$1
    shift
    echo "vm: begin $name"
    "$@" </dev/null 2>&1
    echo "vm: end $name $?"
}

# Runs the collector until it is ready, and says how many instructions the verifier looked at; the
# kernel tells from 5.16 on.
verify() {
    "$1" --config "$2" >/dev/null 2>/tmp/verify.log &
    tries=0
    until grep -q ready /tmp/verify.log || [ $tries -eq 200 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    grep -h verified_insns /proc/$!/fdinfo/*
    kill $!
    wait $! && grep -q ready /tmp/verify.log && return 0
    cat /tmp/verify.log
    return 1
}

echo "vm: kernel $(uname -r)"
. /tests.sh
poweroff -f
