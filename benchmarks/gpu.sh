#!/usr/bin/env bash
# What a GPU has to show, in under six minutes: each part has its limit, and one that fails keeps no other from running.
# What each printed lies in build/gpu/. Where there is no GPU the same runs on the CPU, small: it shows only that it works.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
mkdir -p build/gpu
small=(--quick) batches=(--numbers 4 --rounds 1)
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    small=() batches=()
fi

failed=0
part() { # NAME SECONDS COMMAND...
    local start=$SECONDS code
    timeout "$2" "${@:3}" >"build/gpu/$1.log" 2>&1
    code=$?
    [[ $code == 0 ]] || failed=1
    printf '\n##### %s: exit code %d after %d s (limit %d)\n' "$1" "$code" "$((SECONDS - start))" "$2"
    tail -n 25 "build/gpu/$1.log"
}

part batches 80 python benchmarks/batches.py "${batches[@]}" --json build/gpu/batches.json
part signal 80 python benchmarks/run.py --only whitening,inverse --rounds 3 "${small[@]}" \
    --json build/gpu/signal.json --picture build/gpu/growth.png
part training 90 python benchmarks/training.py --rounds 3 --batch 32 "${small[@]}" --json build/gpu/training.json
# Without a GPU these are skipped, one and all.
part tests 100 python -m pytest -q -m gpu
exit "$failed"
