#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tools/soak.sh BUILD SECONDS - every golden prompt once; a real cluster under faults for half of the
# time; then simulated ones, a new seed range each round.
set -eu
cd "$(dirname "$0")/.."
build=$1
end=$(($(date +%s) + $2))
seed=$(date +%s)
rounds=0
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
golden
gemma3=${XDG_CACHE_HOME:-$HOME/.cache}/yolk/models/gemma-3-270m-q4_k_m.gguf
if [ -e "$gemma3" ]; then
    golden gemma3 "$gemma3"
else
    echo "SKIPPED: no gemma3 at $gemma3 (\`yolk model fetch gemma3\` gets it)"
fi
YOLK=$PWD/$build/bin/yolk python3 tests/soak.py --seconds $(($2 / 2)) --seed "$seed"
while [ "$(date +%s)" -lt "$end" ]; do
    for test in "$build"/tests/*_sim_test; do
        SEED=$seed YOLK_SIM_SEEDS=200 "$test" >"$build/soak.log" 2>&1 || {
            tail -30 "$build/soak.log"
            echo "failed: SEED=$seed YOLK_SIM_SEEDS=200 $test"
            exit 1
        }
    done
    seed=$((seed + 1000))
    rounds=$((rounds + 1))
    echo "round $rounds passed"
done
