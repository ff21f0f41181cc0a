#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tools/soak.sh BUILD SECONDS - every golden prompt once; then simulated clusters under faults, a new
# seed range each round.
set -eu
cd "$(dirname "$0")/.."
end=$(($(date +%s) + $2))
seed=$(date +%s)
rounds=0
code=0
YOLK_GOLDEN=all "$1/tests/engine_golden_test" >"$1/soak.log" 2>&1 || code=$?
if [ "$code" -ne 0 ] && [ "$code" -ne 77 ]; then # 77: there is no model
    tail -30 "$1/soak.log"
    echo 'failed: YOLK_GOLDEN=all engine_golden_test'
    exit 1
fi
while [ "$(date +%s)" -lt "$end" ]; do
    for test in "$1"/tests/*_sim_test; do
        SEED=$seed YOLK_SIM_SEEDS=200 "$test" >"$1/soak.log" 2>&1 || {
            tail -30 "$1/soak.log"
            echo "failed: SEED=$seed YOLK_SIM_SEEDS=200 $test"
            exit 1
        }
    done
    seed=$((seed + 1000))
    rounds=$((rounds + 1))
    echo "round $rounds passed"
done
