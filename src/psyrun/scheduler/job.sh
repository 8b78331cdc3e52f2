#!/bin/bash
# job.sh TOKEN WORD INDEX FIRST
# The script of a job. TOKEN is for those who list jobs. WORD is base64 of strings that each end in a NUL: log,
# folder, prologue, command... The script goes to the folder, sources the prologue, and becomes the command, which
# prints to the log. INDEX is the name of the variable that holds the element of an array, counted from FIRST;
# then the command gets --element N, counted from 0. Prologue and INDEX may be empty. No text of a user is part
# of this script.
trap : USR1 # not lost to a signal that comes early, and not ignored by the command
index=$3 first=$4 words=()
while IFS= read -r -d '' word; do
    words+=("$word")
done < <(printf %s "$2" | base64 -d)
wait "$!" 2>/dev/null # or the command would have a child that it does not know
exec >>"${words[0]:?can not be read: is there no base64 on $(uname -n)}" 2>&1 </dev/null || exit 1
cd "${words[1]}" || exit 1
prologue=${words[2]}
set -- "${words[@]:3}"
if [ -n "$index" ]; then
    set -- "$@" --element $((${!index} - first))
fi
source_prologue() {
    source "$1"
}
if [ -n "$prologue" ]; then
    if [ ! -r "$prologue" ]; then
        echo "psyrun: error: the prologue $prologue can't be read on $(uname -n)" >&2
        exit 1
    fi
    source_prologue "$prologue"
fi
exec "$@"
