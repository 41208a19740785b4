# bash completion for deltazoo: its words come from the program itself, so that they are always those of the version that is installed.
_deltazoo() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} command=${COMP_WORDS[1]}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" --help=words 2>/dev/null) --help --version" -- "$word")
        return
    fi
    local keys key
    if [[ $before == = || $word == = ]]; then # the shell takes KEY=VALUE apart
        key=$before
        [[ $word == = ]] && word= || key=${COMP_WORDS[COMP_CWORD - 2]}
        keys=$("$program" recipes --keys 2>/dev/null | sed -n "s/^$key=//p")
        mapfile -t COMPREPLY < <(compgen -W "$keys" -- "$word")
        return
    fi
    case $before in
        --set)
            keys=$("$program" recipes --keys 2>/dev/null)
            [[ $word == *=* ]] || keys=$(sed 's/=.*/=/' <<<"$keys" | sort -u)
            mapfile -t COMPREPLY < <(compgen -W "$keys" -- "$word")
            compopt -o nospace 2>/dev/null
            return ;;
        --quality | --method)
            keys=$("$program" recipes --keys 2>/dev/null | sed -n "s/^${before#--}=//p")
            mapfile -t COMPREPLY < <(compgen -W "$keys" -- "$word")
            return ;;
        --task | -t)
            local archive
            for archive in "${COMP_WORDS[@]:2}"; do
                [ -f "$archive" ] || continue
                mapfile -t COMPREPLY < <(compgen -W "$("$program" info "$archive" --names 2>/dev/null)" -- "$word")
                return
            done ;;
        --recipe) mapfile -t COMPREPLY < <(compgen -W "$("$program" recipes 2>/dev/null)" -f -- "$word"); return ;;
        --dtype) mapfile -t COMPREPLY < <(compgen -W "f32 f16 bf16" -- "$word"); return ;;
        --better) mapfile -t COMPREPLY < <(compgen -W "higher lower" -- "$word"); return ;;
        --io) mapfile -t COMPREPLY < <(compgen -W "posix collective" -- "$word"); return ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" "$command" --help=words 2>/dev/null | tr -d =) --help" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}
complete -o filenames -F _deltazoo deltazoo
