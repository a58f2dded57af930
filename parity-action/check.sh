#!/usr/bin/env bash
# Hold the checkpoints in XCIT_WEIGHTS against what they should be; action.yml and gitlab.yml run this. Exit codes are xcit-hub's:
# 0 equal, 1 something differs, 2 something is missing or cannot be read. The reports are written in either case,
# but for a refused option: there is no JUnit or JSON then, nor one of an earlier run. The text says what was refused.
set -euo pipefail
: "${XCIT_WEIGHTS:=}" "${XCIT_AGAINST:=}" "${XCIT_DIALECT:=}" "${XCIT_IMAGE_SIZE:=}" "${XCIT_REPORTS:=parity}" "${XCIT_INSTALL:=}"
[ -z "$XCIT_INSTALL" ] || python -m pip install --quiet "$XCIT_INSTALL"
options=()
[ -z "$XCIT_AGAINST" ] || options+=(--against "$XCIT_AGAINST")
[ -z "$XCIT_DIALECT" ] || options+=(--dialect "$XCIT_DIALECT")
[ -z "$XCIT_IMAGE_SIZE" ] || options+=(--image-size "$XCIT_IMAGE_SIZE")
mkdir -p "$XCIT_REPORTS"
worst=0 number=0
while IFS= read -r file; do
    [ -n "$file" ] || continue
    number=$((number + 1))
    code=0
    rm -f "$XCIT_REPORTS/$number".{xml,json,txt,err}
    xcit-hub parity "${options[@]}" --junit "$XCIT_REPORTS/$number.xml" --json "$XCIT_REPORTS/$number.json" -- "$file" \
        >"$XCIT_REPORTS/$number.txt" 2>"$XCIT_REPORTS/$number.err" || code=$?
    cat "$XCIT_REPORTS/$number.txt"
    cat "$XCIT_REPORTS/$number.err" >&2
    if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
        { echo '```'; cat "$XCIT_REPORTS/$number.txt" "$XCIT_REPORTS/$number.err"; echo '```'; } >>"$GITHUB_STEP_SUMMARY"
    fi
    [ "$code" -le "$worst" ] || worst=$code
done <<<"$XCIT_WEIGHTS"
if [ "$number" -eq 0 ]; then
    echo "XCIT_WEIGHTS is to name the checkpoint to check; several, one on each line" >&2
    exit 2
fi
exit "$worst"
