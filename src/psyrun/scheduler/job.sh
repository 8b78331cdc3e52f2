#!/bin/bash
# job.sh PROLOGUE INDEX FIRST COMMAND...
# The script of a job: it sources the script PROLOGUE and becomes COMMAND. INDEX is the name of the variable
# that holds the element of an array, counted from FIRST; then COMMAND gets --element N, counted from 0.
# PROLOGUE and INDEX may be empty. No text of a user is part of this script.
prologue=$1 index=$2 first=$3
shift 3
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
