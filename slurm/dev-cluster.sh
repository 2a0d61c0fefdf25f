#!/usr/bin/env bash
# dev-cluster.sh start|stop|status: a real Slurm of one node on this machine, to try jobs/ and to test them.
#
# Everything it writes (configuration, key, sockets, state, logs) lies in one folder, LONGHAUL_CLUSTER
# (/tmp/longhaul-cluster by default), so that it neither uses nor disturbs a Slurm of the site. It needs root,
# because slurmd starts jobs as their users; it needs no systemd, so it works in a container.
# Packages: slurmctld slurmd slurm-client munge (jobs/packages.sh test).
# CLUSTER_GPUS=N: Slurm hands out N GPUs, which need not exist: for trying what jobs ask of it.
# After `start`, point Slurm's commands at it:  export SLURM_CONF=/tmp/longhaul-cluster/slurm.conf
set -euo pipefail

cluster=${LONGHAUL_CLUSTER:-/tmp/longhaul-cluster}
node=$(hostname -s)
socket=$cluster/run/munge.socket
export SLURM_CONF=$cluster/slurm.conf
PATH=$PATH:/usr/sbin:/sbin

fail() {
    echo "dev-cluster: $*" >&2
    exit 1
}

# The first of 20 port pairs on which nobody listens.
free_port() {
    local port
    for ((port = 16817; port < 16857; port += 2)); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null &&
            ! (exec 3<>"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    fail "no free port between 16817 and 16856"
}

# Two processors at least, so that two ranks can run on the smallest machine; config_overrides lets Slurm
# believe this and not the hardware (in a container the two differ anyway).
write_configuration() {
    local port cpus memory gpu
    port=$(free_port)
    cpus=$(nproc)
    [ "$cpus" -ge 2 ] || cpus=2
    memory=$(awk '/^MemTotal:/ {print int($2 / 1024)}' /proc/meminfo)
    cat >"$SLURM_CONF" <<EOF
ClusterName=longhaul-dev
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobRequeue=1
KillWait=30
ReturnToService=2
MailProg=/bin/true
SlurmdParameters=config_overrides
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool
SlurmctldPidFile=$cluster/run/slurmctld.pid
SlurmdPidFile=$cluster/run/slurmd.pid
SlurmctldLogFile=$cluster/log/slurmctld.log
SlurmdLogFile=$cluster/log/slurmd.log
GresTypes=gpu
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory Gres=gpu:${CLUSTER_GPUS:-0} State=UNKNOWN
PartitionName=dev Nodes=$node Default=YES MaxTime=INFINITE State=UP
EOF
    : >"$cluster/gres.conf"
    for ((gpu = 0; gpu < ${CLUSTER_GPUS:-0}; gpu++)); do
        touch "$cluster/run/gpu$gpu" # in place of a device's file
        echo "NodeName=$node Name=gpu File=$cluster/run/gpu$gpu" >>"$cluster/gres.conf"
    done
}

start_munge() {
    head -c 1024 /dev/urandom >"$cluster/etc/munge.key"
    chmod 600 "$cluster/etc/munge.key"
    munged --force --socket="$socket" --key-file="$cluster/etc/munge.key" --pid-file="$cluster/run/munged.pid" \
        --log-file="$cluster/log/munged.log" --seed-file="$cluster/etc/munged.seed" 2>>"$cluster/log/start.log" ||
        fail "munged did not start: $(tail -n 1 "$cluster/log/munged.log")"
}

node_state() {
    [ -e "$SLURM_CONF" ] || return 0
    timeout 10 sinfo --noheader --format=%T 2>/dev/null || true
}

# The process of one of our daemons, if it lives: the number in its pid file, when that is such a program. A dead
# one that nobody has waited for (containers without an init) still has a name, but no program.
daemon_pid() {
    local pid
    pid=$(cat "$cluster/run/$1.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] && [ -e "/proc/$pid/exe" ] && echo "$pid"
}

start() {
    local program waited
    [ "$(id -u)" -eq 0 ] || fail "starting a Slurm of one's own needs root (slurmd runs jobs as their users)"
    for program in munged slurmctld slurmd sinfo; do
        command -v "$program" >/dev/null || fail "no $program here; install the packages: jobs/packages.sh test"
    done
    if [ "$(node_state)" = idle ]; then
        echo "dev-cluster: already running; export SLURM_CONF=$SLURM_CONF"
        return
    fi
    stop
    mkdir -p "$cluster"/{etc,run,state,spool,log}
    chmod 755 "$cluster" "$cluster"/*
    chmod 700 "$cluster/etc"
    write_configuration
    start_munge
    slurmctld -c >>"$cluster/log/start.log" 2>&1 || fail "slurmctld did not start: $(tail -n 1 "$cluster/log/start.log")"
    slurmd >>"$cluster/log/start.log" 2>&1 || fail "slurmd did not start: $(tail -n 1 "$cluster/log/start.log")"
    for ((waited = 0; waited < 60; waited++)); do
        if [ "$(node_state)" = idle ]; then
            echo "dev-cluster: one node, idle; export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 1
    done
    tail -n 5 "$cluster"/log/slurm*.log >&2
    fail "the node is not idle after a minute (state: $(node_state)); see $cluster/log"
}

# End one daemon and wait until it is gone.
stop_daemon() {
    local pid waited
    pid=$(daemon_pid "$1") || return 0
    kill "$pid" 2>/dev/null || return 0
    for ((waited = 0; waited < 100; waited++)); do
        daemon_pid "$1" >/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

# Jobs first, while there is a controller to end them; a wait, so that their processes are gone as well.
stop() {
    local waited
    [ -e "$SLURM_CONF" ] || return 0
    if daemon_pid slurmctld >/dev/null && daemon_pid munged >/dev/null; then
        timeout 10 scancel --full --user=root 2>/dev/null || true
        for ((waited = 0; waited < 40; waited++)); do
            [ -n "$(timeout 10 squeue --noheader 2>/dev/null)" ] || break
            sleep 1
        done
    fi
    stop_daemon slurmd
    stop_daemon slurmctld
    stop_daemon munged
    rm -rf "$cluster"
}

status() {
    local name pid
    [ -e "$SLURM_CONF" ] || { echo "dev-cluster: not running"; return 1; }
    for name in munged slurmctld slurmd; do
        pid=$(daemon_pid "$name") && echo "$name: process $pid" || echo "$name: not running"
    done
    [ -n "$(node_state)" ] || return 1
    sinfo
    squeue
}

case ${1:-} in
    start) start ;;
    stop) stop && echo "dev-cluster: stopped" ;;
    status) status ;;
    *)
        echo "usage: dev-cluster.sh start|stop|status" >&2
        exit 2
        ;;
esac
