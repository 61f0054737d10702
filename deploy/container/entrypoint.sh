#!/bin/sh
# Entry point of the container: makes a configuration where there is none, then runs the program with the words of the
# container's command.
#
#   IPFS_CLUSTER_PATH       the folder of the peer (default /data/ipfs-cluster); keep it on a volume
#   IPFS_CLUSTER_CONSENSUS  crdt (default) or raft, for a new configuration
#   DOCKER_DEBUG            anything: every step is shown
#   CLUSTER_*               come before the configuration, and are written into a new one
#
# Root only gives the folder, which may be a volume that root made, to the user `ipfs`, and goes on as that user.
set -eu

if [ -n "${DOCKER_DEBUG:-}" ]; then
    set -x
fi

IPFS_CLUSTER_PATH=${IPFS_CLUSTER_PATH:-/data/ipfs-cluster}
export IPFS_CLUSTER_PATH

if [ "$(id -u)" -eq 0 ] && id -u ipfs >/dev/null 2>&1; then
    mkdir -p "$IPFS_CLUSTER_PATH"
    if [ "$(stat -c %U "$IPFS_CLUSTER_PATH")" != ipfs ]; then
        chown -R ipfs: "$IPFS_CLUSTER_PATH"
    fi
    exec setpriv --reuid=ipfs --regid=ipfs --init-groups "$0" "$@"
fi

if [ -e "$IPFS_CLUSTER_PATH/service.json" ]; then
    echo "Using the configuration in $IPFS_CLUSTER_PATH." >&2
else
    ipfs-cluster-service init --consensus "${IPFS_CLUSTER_CONSENSUS:-crdt}"
fi

exec ipfs-cluster-service "$@"
