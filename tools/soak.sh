#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tools/soak.sh BUILD SECONDS [LAYER] - every golden prompt once; a real cluster under faults for half
# of the time, a real pool of values for a quarter; then simulated ones, a new seed range each round.
# With a LAYER (a directory of src/) only its simulations, for all of the time (store: and the real
# pool). Says how many seeds were run, and, where a test counts them, how many faults they met.
set -eu
cd "$(dirname "$0")/.."
build=$1
end=$(($(date +%s) + $2))
layer=${3:-}
seed=$(date +%s)
seeds=200 # of a test in a round
rounds=0
counts=$build/soak.counts
: >"$counts"
golden() {
    code=0
    YOLK_GOLDEN=all "$build/tests/engine_golden_test" "$@" >"$build/soak.log" 2>&1 || code=$?
    case $code in
    0) grep near-ties "$build/soak.log" ;;
    77) tail -1 "$build/soak.log" ;; # there is no model
    *)
        tail -30 "$build/soak.log"
        echo "failed: YOLK_GOLDEN=all engine_golden_test $*"
        exit 1
        ;;
    esac
}
whole() {
    golden
    gemma3=${XDG_CACHE_HOME:-$HOME/.cache}/yolk/models/gemma-3-270m-q4_k_m.gguf
    if [ -e "$gemma3" ]; then
        golden gemma3 "$gemma3"
    else
        echo "SKIPPED: no gemma3 at $gemma3 (\`yolk model fetch gemma3\` gets it)"
    fi
    YOLK=$PWD/$build/bin/yolk python3 tests/soak.py --seconds $(($1 / 2)) --seed "$seed"
    values "$1"
}
# A real pool of values, for a quarter of the time.
values() {
    YOLK=$PWD/$build/bin/yolk python3 tests/soak_store.py --seconds $(($1 / 4)) --seed "$seed"
}
# TEST FIRST COUNT
simulate() {
    SEED=$2 YOLK_SIM_SEEDS=$3 "$1" >"$build/soak.log" 2>&1
}
# The range has failed: which seed of it, and what it said.
replay() {
    one=$2
    while [ "$one" -lt $(($2 + $3)) ]; do
        simulate "$1" "$one" 1 || break
        one=$((one + 1))
    done
    if [ "$one" -lt $(($2 + $3)) ]; then
        tail -30 "$build/soak.log"
        echo "failed: SEED=$one $1"
    else # only after the seeds before it
        simulate "$1" "$2" "$3" || tail -30 "$build/soak.log"
        echo "failed: SEED=$2 YOLK_SIM_SEEDS=$3 $1"
    fi
    exit 1
}
summary() {
    awk -F'[= ]' -v rounds="$rounds" '{ seeds += $3; faults += $5 }
        END { printf "%d rounds, %d seeds, %d faults\n", rounds, seeds, faults }' "$counts"
}
tests=
for source in src/*/*_sim_test.c; do
    of=$(basename "$(dirname "$source")")
    [ "$of" = "${layer:-$of}" ] && tests="$tests $build/tests/$(basename "$source" .c)"
done
if [ -z "$tests" ]; then
    echo "no simulations in src/$layer; SOAK is one of:"
    for source in src/*/*_sim_test.c; do basename "$(dirname "$source")"; done | sort -u
    exit 2
fi
[ -n "$layer" ] || whole "$2"
[ "$layer" != store ] || values "$2"
while [ "$(date +%s)" -lt "$end" ]; do
    for test in $tests; do
        [ -z "$layer" ] || [ "$(date +%s)" -lt "$end" ] || break
        simulate "$test" "$seed" "$seeds" || replay "$test" "$seed" "$seeds"
        grep '^soaked: ' "$build/soak.log" >>"$counts" || true
    done
    seed=$((seed + 1000))
    rounds=$((rounds + 1))
    summary
done
