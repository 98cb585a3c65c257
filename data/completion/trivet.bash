# bash completion for trivet(1)

_trivet_machines() {
    trivet ps --json 2>/dev/null | sed -n 's/^ *"name": "\(.*\)",*$/\1/p'
}

_trivet_disks() {
    trivet promises --json 2>/dev/null | sed -n 's/^ *"name": "\(.*\)",*$/\1/p'
}

_trivet_networks() {
    trivet net list --json 2>/dev/null | sed -n 's/^      "name": "\(.*\)",*$/\1/p'
}

_trivet() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local commands="image run up down config ps console logs start stop kill pause resume save restore top metrics disk promises net machine help"
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$word")
        return
    fi
    case $before in
    --kernel | --initrd | --disk | --net | --restore | --store) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    --engine) mapfile -t COMPREPLY < <(compgen -W "auto rv64" -- "$word") && return ;;
    --on-reboot) mapfile -t COMPREPLY < <(compgen -W "reset exit" -- "$word") && return ;;
    --image) mapfile -t COMPREPLY < <(compgen -W "busybox debian" -- "$word") && return ;;
    esac
    local words=
    case $command in
    image) words="build show busybox debian --suite --mirror --rebuild --quiet --json" ;;
    run) words="--kernel --image --initrd --append --memory --cpus --disk --net --name --engine --on-reboot --restore --perf-map --jitdump --audit --audit-instructions" ;;
    up) mapfile -t COMPREPLY < <(compgen -f -W "--json" -- "$word") && return ;;
    down) mapfile -t COMPREPLY < <(compgen -f -W "--timeout --json" -- "$word") && return ;;
    config) [ "$COMP_CWORD" = 2 ] && words=check || { mapfile -t COMPREPLY < <(compgen -f -- "$word") && return; } ;;
    ps | promises) words="--json" ;;
    disk) [ "$COMP_CWORD" = 2 ] && words=promise || { [ "$COMP_CWORD" = 3 ] && words="$(_trivet_disks)" || words="--json"; } ;;
    net)
        case $COMP_CWORD in
        2) words="create delete list show stats routes neighbours capture trace graph attach detach route" ;;
        3) words="$(_trivet_networks)" ;;
        *) words="--type --prefix --gateway --tenant --option --port --output --count --seconds --snap --from --to --source --frame --mac --ttl --size --json" ;;
        esac
        ;;
    machine) [ "$COMP_CWORD" = 2 ] && words=stats || words="$(_trivet_machines) --json" ;;
    top) words="--once --interval --count --store --json" ;;
    metrics) words="--listen --store" ;;
    start | kill) words="$(_trivet_machines) --all --json" ;;
    stop) words="$(_trivet_machines) --all --timeout --json" ;;
    logs) words="$(_trivet_machines) --follow --json" ;;
    console | pause | resume) words="$(_trivet_machines) --json" ;;
    save | restore)
        if [ "$COMP_CWORD" = 2 ]; then
            words="$(_trivet_machines)"
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$word") && return
        fi
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -o filenames -F _trivet trivet
