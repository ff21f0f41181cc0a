#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tools/soak.sh BUILD SECONDS - simulated clusters under faults, a new seed range each round.
set -eu
cd "$(dirname "$0")/.."
end=$(($(date +%s) + $2))
seed=$(date +%s)
rounds=0
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
