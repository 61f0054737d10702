#!/bin/sh
# Builds the pinned Kubo into ${XDG_CACHE_HOME:-$HOME/.cache}/ipfs-cluster/kubo/ipfs, where the tests look for it, and
# prints that path. Does nothing when the one that is there was built from the same go.mod and go.sum.
set -eu
cd "$(dirname "$0")"

folder="${XDG_CACHE_HOME:-$HOME/.cache}/ipfs-cluster/kubo"
binary="$folder/ipfs"
key="$(cat go.mod go.sum | sha256sum | cut -d ' ' -f 1)"

if [ -x "$binary" ] && [ "$(cat "$folder/ipfs.key" 2>/dev/null || true)" = "$key" ]; then
    echo "$binary"
    exit 0
fi
if ! command -v go >/dev/null 2>&1; then
    echo "Go is missing: the tests against a real Kubo need $(sed -n 's/^go //p' go.mod) or newer to build it (or an ipfs on PATH)" >&2
    exit 1
fi

mkdir -p "$folder"
fresh="$folder/ipfs.new.$$"
trap 'rm -f "$fresh" "$fresh.key"' EXIT
echo "building the pinned Kubo (some minutes, once)" >&2
# CGO off: no C compiler needed, and FUSE and the C resolver are of no use to the tests.
CGO_ENABLED=0 nice go build -trimpath -ldflags "-s -w" -o "$fresh" github.com/ipfs/kubo/cmd/ipfs
echo "$key" > "$fresh.key"
mv "$fresh" "$binary"
mv "$fresh.key" "$folder/ipfs.key"
echo "$binary"
