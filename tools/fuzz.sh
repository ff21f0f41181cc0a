#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tools/fuzz.sh SECONDS - every fuzz target under libFuzzer with ASan, from its committed corpus.
# New inputs go to build-fuzz/found/; a crash stops the run and names its input.
set -eu
cd "$(dirname "$0")/.."
CC=clang cmake -S . -B build-fuzz -G Ninja -DYOLK_FUZZ=ON -DYOLK_SANITIZE=address,undefined >/dev/null
ninja -C build-fuzz -t targets all | sed -n 's/^\(fuzz\/[a-z0-9_]*_fuzz\): .*/\1/p' | sort -u >build-fuzz/targets
xargs ninja -C build-fuzz <build-fuzz/targets
while read -r target; do
    name=$(basename "$target" _fuzz)
    mkdir -p "build-fuzz/found/$name"
    echo "== $name"
    "build-fuzz/$target" -max_total_time="$1" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="build-fuzz/found/$name-" "build-fuzz/found/$name" "tests/corpus/$name"
done <build-fuzz/targets
