#!/usr/bin/env bash
# Run a command with a Slurm of its own: one node, this machine, reachable over the loopback only, gone with the command.
#
#     tests/slurm/setup.sh COMMAND…
#     tests/slurm/setup.sh --install      get Slurm and munge with apt-get, and do nothing else
#
# Needs munged, slurmctld, slurmd and the client commands. Works for any user, root too, without systemd, cgroups and
# accounting, and beside whatever Slurm or munge runs on this machine already. Everything it writes lies in a temporary
# folder, which is kept where the command fails. The command sees SLURM_CONF, and STEMSTORE_TEST_SLURM, which tells the
# tests to run. Without Slurm the command runs all the same, so that its tests can say why they are skipped.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin" # where the daemons are, which not every user's path has

if [[ ${1-} == --install ]]; then
    as_root=$([[ $EUID -eq 0 ]] || echo sudo)
    $as_root apt-get update --quiet
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends \
        munge slurmctld slurmd slurm-client
    exit
fi
if [[ $# -eq 0 ]]; then
    echo "usage: $0 COMMAND…, or $0 --install" >&2
    exit 2
fi
for program in munged slurmctld slurmd sbatch scancel scontrol sinfo; do
    if ! command -v "$program" >/dev/null; then
        echo "$0: no $program here; on Debian and Ubuntu '$0 --install' gets it" >&2
        exec "$@"
    fi
done

here=$(mktemp -d "${TMPDIR:-/tmp}/stemstore-slurm.XXXXXX")
daemons=()

stop() {
    status=$?
    trap - EXIT
    if [[ ${SLURM_CONF-} == "$here/slurm.conf" ]]; then # never the jobs of another Slurm
        scancel --quiet --user="$(id -un)" 2>/dev/null || true
        for _ in {1..100}; do # jobs end before those who watch over them
            [[ -z $(squeue --noheader 2>/dev/null) ]] && break
            sleep 0.1
        done
    fi
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        kill "${daemons[i]}" 2>/dev/null || true
        wait "${daemons[i]}" 2>/dev/null || true
    done
    if [[ $status -ne 0 ]]; then
        echo "$0: ended with $status; what Slurm has written lies in $here" >&2
    else
        rm -rf "$here"
    fi
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_ports() { # two ports that nobody listens on
    python3 -c 'import socket
found = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in found))'
}

start() { # NAME COMMAND…: in the background, with its messages in a file
    local name=$1
    shift
    "$@" >"$here/$name.out" 2>&1 &
    daemons+=($!)
}

wait_for() { # WHAT SECONDS COMMAND…: until it succeeds
    local what=$1 tries=$((10 * $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((tries-- <= 0)); then
            echo "$0: $what does not come up" >&2
            tail -n 20 "$here"/*.out >&2
            exit 1
        fi
        sleep 0.1
    done
}

node=$(hostname -s)
read -r control_port node_port < <(free_ports)
hardware=$(slurmd -C | sed -n '1s/^NodeName=[^ ]* //p')
mkdir -p -m 0755 "$here"/{control,spool}
chmod 0755 "$here" # munge's clients have to get at its socket
cat >"$here/slurm.conf" <<CONF
ClusterName=stemstore
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$control_port
SlurmdPort=$node_port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
# The life of a credential is also how long a job that is requeued waits
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$here/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$here/control
SlurmdSpoolDir=$here/spool
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/slurmd.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdLogFile=$here/slurmd.log
# Nothing that needs systemd, cgroups or a database
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$node NodeAddr=127.0.0.1 $hardware State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
# What cannot be disabled in old versions is at least not looked for: version 1 does nothing until it is asked
[[ $(slurmd -V | grep -o '[0-9][0-9.]*') < 23.02 ]] && groups=cgroup/v1 || groups=disabled
echo "CgroupPlugin=$groups" >"$here/cgroup.conf"
export SLURM_CONF="$here/slurm.conf" STEMSTORE_TEST_SLURM=1
unset "${!SLURM_JOB@}" "${!SLURM_ARRAY@}" # should this be a job itself

(umask 077 && head -c 1024 /dev/urandom >"$here/munge.key")
start munged munged --foreground --force --num-threads=1 --socket="$here/munge.socket" --key-file="$here/munge.key" \
    --pid-file="$here/munge.pid" --log-file="$here/munge.log" --seed-file="$here/munge.seed"
wait_for munged 20 test -S "$here/munge.socket"
start slurmctld slurmctld -D -f "$SLURM_CONF"
wait_for slurmctld 60 scontrol ping
start slurmd slurmd -D -f "$SLURM_CONF"
wait_for slurmd 60 bash -c '[[ $(sinfo --noheader --format=%t) == idle ]]'

"$@"
