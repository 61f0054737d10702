#!/usr/bin/env bash
# Builds the fuzzers NAME… and runs them one after the other, each for SECONDS. It stops at the first finding.
#   tests/fuzz/run.sh SECONDS TARGET CACHE NAME…
# TARGET is where they are built, CACHE where inputs that reach something new are kept for the next run, and findings.
set -euo pipefail
seconds=$1 target=$2 cache=$3 here=$(cd "$(dirname "$0")" && pwd)
shift 3
# The most that a fuzzer may have in memory, in MiB, and the longest input.
memory=256 longest=65536

features=()
for name; do
  [ -d "$here/corpus/$name" ] || { echo "there is no fuzzer $name; there are: $(ls "$here/corpus" | xargs)"; exit 1; }
  case $name in bitswap | config | dag-json | identity | multiaddr | state-import) features=(--features peer) ;; esac
done
# The versions of the workspace.
[ "$here/Cargo.lock" -nt "$here/../../Cargo.lock" ] || cp "$here/../../Cargo.lock" "$here/Cargo.lock"
# Without a sanitizer, since none of our code is unsafe; so the compiler need not be a nightly one.
cargo fuzz build --fuzz-dir "$here" --target-dir "$target" --sanitizer none "${features[@]}"

programs=$target/$(rustc -vV | sed -n 's/^host: //p')/release
for name; do
  mkdir -p "$cache/corpus/$name" "$cache/findings"
  echo "$name, for $seconds s"
  # The fuzzer looks at its peak once a second and takes whatever runs then for the cause. What is too much at once is
  # refused by the system, and the input is the right one.
  (
    ulimit -d $((memory * 1024))
    exec "$programs/$name" -max_total_time="$seconds" -rss_limit_mb=$memory -max_len=$longest -timeout=10 \
      -print_final_stats=1 -artifact_prefix="$cache/findings/$name-" "$cache/corpus/$name" "$here/corpus/$name"
  ) || { echo "a finding of $name is in $cache/findings; tests/fuzz/README.md says what to do with it"; exit 1; }
done
