#!/usr/bin/env bash
# A weight that is not a number: one rank of a node unpacks its matrix, and all ranks end with that rank's message, once, and
# the code for a bad file; none waits for the others.
. "$(dirname "$0")/common.sh"

# The tiny model ends with the matrices ffn_up and ffn_down of its last layer and a norm, all in float32.
model=$tiny/llama-tied-f32.gguf
matrix=$((64 * 128 * 4)) norm=$((64 * 4))

# poisoned NAME BYTES: the model with its last number before so many bytes from its end not a number.
poisoned() {
    { head -c "-$(($2 + 4))" "$model"; printf '\0\0\300\177'; tail -c "$2" "$model"; } >"$work/$1.gguf"
}
poisoned ffn_up $((norm + matrix))
poisoned ffn_down "$norm"

for name in ffn_up ffn_down; do
    for ring in 1 2; do
        exit_code timeout 60 "$source/tests/mpi/run.sh" 2 "$longhaul" score "$texts/prose.txt" -m "$work/$name.gguf" \
            -o "$work/out" --ring "$ring" >"$work/said" 2>&1
        [ "$code" -eq 3 ] || fail "$name, --ring $ring: exit code $code: $(cat "$work/said")"
        [ "$(grep -c "tensor blk.1.$name.weight: .* not finite" "$work/said")" -eq 1 ] ||
            fail "$name, --ring $ring: $(cat "$work/said")"
    done
done
echo "all ranks end with the one that found it"
