#!/usr/bin/env bash
# Runs the documented examples of two client libraries that others wrote for the REST API of ipfs-cluster against a peer
# of this one, behind a password. Their packages are fetched into the cache, never into this folder.
#   tests/clients/run.sh SERVICE CACHE
set -euo pipefail
service=$(realpath "$1") cache=$2/clients here=$(cd "$(dirname "$0")" && pwd)
# Its package depends on nothing else.
nftstorage=@nftstorage/ipfs-cluster@5.0.1
user=reader password=open-sesame
for tool in node npm python3 curl; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: the client libraries cannot be run"; exit 1; }
done

# Packages of another version are fetched again.
fetched() { [ "$(cat "$cache/$1.key" 2>/dev/null || true)" = "$2" ]; }
mkdir -p "$cache/npm"
fetched npm "$nftstorage" || {
  npm install --silent --no-fund --no-audit --no-save --prefix "$cache/npm" "$nftstorage"
  echo "$nftstorage" >"$cache/npm.key"
}
wanted=$(<"$here/requirements.txt")
fetched pip "$wanted" || {
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt"
  echo "$wanted" >"$cache/pip.key"
}

work=$(mktemp -d) peer=
stop() {
  local result=$?
  [ -z "$peer" ] || { kill "$peer" 2>/dev/null && wait "$peer" || true; }
  [ "$result" = 0 ] || tail -n 20 "$work"/*.log
  rm -rf "$work"
}
trap stop EXIT
# A port that is free now; ports of loopback are not given to others right away.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export IPFS_CLUSTER_PATH=$work/peer CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS=/ip4/127.0.0.1/tcp/$port
export CLUSTER_RESTAPI_BASICAUTHCREDENTIALS=$user:$password CLUSTER_LISTENMULTIADDRESS=/ip4/127.0.0.1/tcp/0
export CLUSTER_EMBEDDED_LISTENMULTIADDRESS=/ip4/127.0.0.1/tcp/0 CLUSTER_IPFSPROXY_LISTENMULTIADDRESS=/ip4/127.0.0.1/tcp/0 CLUSTER_PINSVCAPI_HTTPLISTENMULTIADDRESS=/ip4/127.0.0.1/tcp/0
"$service" init --ipfs embedded >"$work/init.log" 2>&1
"$service" daemon >"$work/daemon.log" 2>&1 &
peer=$!
for _ in $(seq 600); do
  curl --silent --fail --output "$work/id" --user "$user:$password" "http://127.0.0.1:$port/id" && break
  kill -0 "$peer"
  sleep 0.1
done

# An import looks for packages beside the file it stands in.
cp "$here/nftstorage.mjs" "$cache/npm/examples.mjs"
echo "$nftstorage (npm)"
node "$cache/npm/examples.mjs" "http://127.0.0.1:$port" "$user" "$password"
echo "$(grep '^asyncipfscluster==' "$here/requirements.txt") (PyPI)"
"$cache/venv/bin/python" "$here/asyncipfscluster_examples.py" "http://127.0.0.1:$port" "$user" "$password"
