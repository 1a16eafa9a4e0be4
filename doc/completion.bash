# SPDX-License-Identifier: MIT
# Bash completion of faultline. Options come from each command's own --help, and so are never old.
# shellcheck shell=bash disable=SC2016,SC2207 # awk programs; one word a candidate

# Words of the program's help that match $1, an awk program.
_faultline_help()
{
    local program=$1
    shift
    "${COMP_WORDS[0]}" "$@" --help 2>/dev/null | awk "$program"
}

_faultline_commands()
{
    _faultline_help '/^  [a-z]+ / { print $1 }'
}

_faultline_options()
{
    _faultline_help '{
        for (i = 1; i <= NF; i++)
            if (match($i, /^-(-[a-z-]+|[a-z],?)/)) {
                sub(/[=,].*/, "", $i)
                print $i
            } else
                break
    }' "$1"
}

# The values of option $2 of command $1 where its help lists them: --guest=kvm|threads.
_faultline_values()
{
    _faultline_help '
        match($0, /'"$2"'=[^ ]+/) {
            text = substr($0, RSTART, RLENGTH)
            sub(/^[^=]*=/, "", text)
            gsub(/\|/, "\n", text)
            print text
        }' "$1" | grep -v '[A-Z]'
}

_faultline()
{
    local command=${COMP_WORDS[1]:-} word=${COMP_WORDS[COMP_CWORD]} option=
    COMPREPLY=()
    compopt +o nospace 2>/dev/null

    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "$(_faultline_commands) --help --version" -- "$word"))
        return
    fi
    # "--guest=kv" and "--guest kv" are both in use; readline takes the first apart at its sign.
    if [ "$word" = = ]; then
        option=${COMP_WORDS[COMP_CWORD - 1]} word=
    elif [ "${COMP_WORDS[COMP_CWORD - 1]}" = = ]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    elif [[ ${COMP_WORDS[COMP_CWORD - 1]} == --* ]]; then
        option=${COMP_WORDS[COMP_CWORD - 1]}
    fi
    if [[ $option == --* ]]; then
        COMPREPLY=($(compgen -W "$(_faultline_values "$command" "$option")" -- "$word"))
        [ ${#COMPREPLY[@]} -gt 0 ] && return
    fi
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$(_faultline_options "$command")" -- "$word"))
    else
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}

complete -F _faultline faultline
