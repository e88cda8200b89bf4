# Completion of imagepipe for bash, made from its commands by `make docs`; do not edit.
# To install it: imagepipe completion --help

_imagepipe_command() {
    values=''
    case $1 in
        '')
            commands='init build validate publish plan why ci-matrix graph convert provisioners fmt schema policy resume clean runs show logs report ui ssh images demo worker bundle completion local'
            options='--version --help'
            arguments=nothing
            ;;
        init)
            commands=''
            options='--name --distribution --region --ci --yes --help'
            arguments=folders
            values+=--name:nothing$'\n'
            values+='--distribution:debian ubuntu amazon-linux'$'\n'
            values+=--region:nothing$'\n'
            values+='--ci:github gitlab none'$'\n'
            ;;
        build)
            commands=''
            options='--local --profile --endpoint-url --region --assume-role --var --var-file --format -q --quiet -v --verbose --log-file --junit --report --otlp --timeout --keep-on-failure --only --with-dependents --force --state --engine --build-id --plan --fail-fast --help'
            arguments=specs
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+='--format:text json'$'\n'
            values+=--log-file:files$'\n'
            values+=--junit:files$'\n'
            values+=--report:folders$'\n'
            values+=--timeout:nothing$'\n'
            values+=--only:nothing$'\n'
            values+=--state:nothing$'\n'
            values+=--engine:nothing$'\n'
            values+=--build-id:nothing$'\n'
            values+=--plan:files$'\n'
            ;;
        validate)
            commands=''
            options='--local --profile --endpoint-url --region --assume-role --var --var-file --format --online --help'
            arguments=specs
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+='--format:text json github sarif'$'\n'
            ;;
        publish)
            commands=''
            options='--local --profile --endpoint-url --region --assume-role --var --var-file --state --only --yes --dry-run --format --help'
            arguments=specs
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+=--state:nothing$'\n'
            values+=--only:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        plan)
            commands=''
            options='--local --profile --endpoint-url --region --assume-role --var --var-file --only --with-dependents --force --state --prices --out --detailed-exitcode --format --help'
            arguments=specs
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+=--only:nothing$'\n'
            values+=--state:nothing$'\n'
            values+=--prices:files$'\n'
            values+=--out:files$'\n'
            values+='--format:text json'$'\n'
            ;;
        why)
            commands=''
            options='--offline --local --profile --endpoint-url --region --assume-role --var --var-file --state --format --help'
            arguments=specs
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+=--state:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        ci-matrix)
            commands=''
            options='--all --levels --include --local --profile --endpoint-url --region --assume-role --state --var --var-file --format --help'
            arguments=specs
            values+=--levels:nothing$'\n'
            values+=--include:files$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--state:nothing$'\n'
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+='--format:text json github gitlab'$'\n'
            ;;
        graph)
            commands=''
            options='--var --var-file --region --stages --format --help'
            arguments=specs
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+=--region:nothing$'\n'
            values+='--format:text mermaid dot svg'$'\n'
            ;;
        convert)
            commands=''
            options='--output --var-file --force --dry-run --format --help'
            arguments=files
            values+=--output:nothing$'\n'
            values+=--var-file:files$'\n'
            values+='--format:text json'$'\n'
            ;;
        provisioners)
            commands=''
            options='--format --help'
            arguments=nothing
            values+='--format:text json'$'\n'
            ;;
        fmt)
            commands=''
            options='--check --diff --help'
            arguments=nothing
            ;;
        schema)
            commands=''
            options='--output --help'
            arguments='spec provisioner project'
            values+=--output:files$'\n'
            ;;
        policy)
            commands=''
            options='--var --var-file --region --for --role --part --explain --state --format --help'
            arguments=specs
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+=--region:nothing$'\n'
            values+='--for:build publish clean prune'$'\n'
            values+=--role:nothing$'\n'
            values+=--part:nothing$'\n'
            values+=--state:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        resume)
            commands=''
            options='--var --var-file --dry-run --format -q --quiet -v --verbose --log-file --junit --report --otlp --timeout --keep-on-failure --state --local --profile --endpoint-url --help'
            arguments=runs
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+='--format:text json'$'\n'
            values+=--log-file:files$'\n'
            values+=--junit:files$'\n'
            values+=--report:folders$'\n'
            values+=--timeout:nothing$'\n'
            values+=--state:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            ;;
        clean)
            commands=''
            options='--all --older-than --region --bucket --local --profile --endpoint-url --state --dry-run --format --help'
            arguments=runs
            values+=--older-than:nothing$'\n'
            values+=--region:nothing$'\n'
            values+=--bucket:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--state:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        runs)
            commands=''
            options='-n --status --spec --state --local --profile --endpoint-url --format --help'
            arguments=nothing
            values+=-n:nothing$'\n'
            values+='--status:running succeeded failed cancelled launched dead unreadable'$'\n'
            values+=--spec:nothing$'\n'
            values+=--state:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        show)
            commands=''
            options='--state --local --profile --endpoint-url --format --otlp --help'
            arguments=runs
            values+=--state:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        logs)
            commands=''
            options='-f --follow -n --raw --state --local --profile --endpoint-url --help'
            arguments=runs
            values+=-n:nothing$'\n'
            values+=--state:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            ;;
        report)
            commands=''
            options='-o --output --format --state --local --profile --endpoint-url --help'
            arguments=runs
            values+=-o:folders$'\n'
            values+=--output:folders$'\n'
            values+=--format:nothing$'\n'
            values+=--state:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            ;;
        ui)
            commands=''
            options='--port --open --state --local --profile --endpoint-url --help'
            arguments=nothing
            values+=--port:nothing$'\n'
            values+=--state:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            ;;
        ssh)
            commands=''
            options='--instance --state --local --profile --endpoint-url --help'
            arguments=runs
            values+=--instance:nothing$'\n'
            values+=--state:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            ;;
        images)
            commands='deregister launch list prune restore show'
            options=--help
            arguments=nothing
            ;;
        'images deregister')
            commands=''
            options='--delete-data --region --every-region --dry-run --yes --force --local --profile --endpoint-url --format --help'
            arguments=nothing
            values+=--region:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        'images launch')
            commands=''
            options='--instance-type --user --subnet --port --wait --region --assume-role --local --profile --endpoint-url --state --format --help'
            arguments=nothing
            values+=--instance-type:nothing$'\n'
            values+=--user:nothing$'\n'
            values+=--subnet:nothing$'\n'
            values+=--port:nothing$'\n'
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--state:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        'images list')
            commands=''
            options='--spec --region --unused --assume-role --local --profile --endpoint-url --state --format --help'
            arguments=nothing
            values+=--spec:nothing$'\n'
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--state:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        'images prune')
            commands=''
            options='--var --var-file --in-region --prices --yes --assume-role --local --profile --endpoint-url --state --format --help'
            arguments=specs
            values+=--var:nothing$'\n'
            values+=--var-file:files$'\n'
            values+=--in-region:nothing$'\n'
            values+=--prices:files$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--state:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        'images restore')
            commands=''
            options='--region --assume-role --local --profile --endpoint-url --format --help'
            arguments=nothing
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        'images show')
            commands=''
            options='--region --assume-role --local --profile --endpoint-url --state --format --help'
            arguments=nothing
            values+=--region:nothing$'\n'
            values+=--assume-role:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--endpoint-url:nothing$'\n'
            values+=--state:nothing$'\n'
            values+='--format:text json'$'\n'
            ;;
        demo)
            commands=''
            options=--help
            arguments=specs
            ;;
        worker)
            commands=''
            options='--temporal --namespace --queue --bakes --bakes-per-minute --grace --health --metrics --help'
            arguments=nothing
            values+=--temporal:nothing$'\n'
            values+=--namespace:nothing$'\n'
            values+=--queue:nothing$'\n'
            values+=--bakes:nothing$'\n'
            values+=--bakes-per-minute:nothing$'\n'
            values+=--grace:nothing$'\n'
            values+=--health:nothing$'\n'
            values+=--metrics:nothing$'\n'
            ;;
        bundle)
            commands='inspect pack unpack verify'
            options=--help
            arguments=nothing
            ;;
        'bundle inspect')
            commands=''
            options='--format --help'
            arguments=files
            values+='--format:text json'$'\n'
            ;;
        'bundle pack')
            commands=''
            options='--certificate --private-key --account --ec2-certificate --region --arch --name --output --any-size --force --help'
            arguments=files
            values+=--certificate:files$'\n'
            values+=--private-key:files$'\n'
            values+=--account:nothing$'\n'
            values+=--ec2-certificate:files$'\n'
            values+=--region:nothing$'\n'
            values+='--arch:x86_64 i386'$'\n'
            values+=--name:nothing$'\n'
            values+=--output:folders$'\n'
            ;;
        'bundle unpack')
            commands=''
            options='--private-key --output --force --help'
            arguments=files
            values+=--private-key:files$'\n'
            values+=--output:folders$'\n'
            ;;
        'bundle verify')
            commands=''
            options='--private-key --certificate --help'
            arguments=files
            values+=--private-key:files$'\n'
            values+=--certificate:files$'\n'
            ;;
        completion)
            commands=''
            options=--help
            arguments='bash zsh fish'
            ;;
        local)
            commands='account accounts base console doctor faults images reset run serve ssh status stop'
            options='--store --help'
            arguments=nothing
            values+=--store:folders$'\n'
            ;;
        'local account')
            commands='add env key'
            options=--help
            arguments=nothing
            ;;
        'local account add')
            commands=''
            options='--id --member --help'
            arguments=nothing
            values+=--id:nothing$'\n'
            values+=--member:nothing$'\n'
            ;;
        'local account env')
            commands=''
            options=--help
            arguments=nothing
            ;;
        'local account key')
            commands=''
            options='--policy --id --help'
            arguments=nothing
            values+=--policy:files$'\n'
            values+=--id:nothing$'\n'
            ;;
        'local accounts')
            commands=''
            options='--format --help'
            arguments=nothing
            values+='--format:text json'$'\n'
            ;;
        'local base')
            commands=''
            options=--help
            arguments=nothing
            ;;
        'local console')
            commands=''
            options=--help
            arguments=nothing
            ;;
        'local doctor')
            commands=''
            options='--format --help'
            arguments=nothing
            values+='--format:text json'$'\n'
            ;;
        'local faults')
            commands=''
            options='--clear --format --help'
            arguments=files
            values+='--format:text json'$'\n'
            ;;
        'local images')
            commands=import
            options='--format --help'
            arguments=nothing
            values+='--format:text json'$'\n'
            ;;
        'local images import')
            commands=''
            options='--name --region --help'
            arguments=files
            values+=--name:nothing$'\n'
            values+=--region:nothing$'\n'
            ;;
        'local reset')
            commands=''
            options='--yes --help'
            arguments=nothing
            ;;
        'local run')
            commands=''
            options=--help
            arguments=nothing
            ;;
        'local serve')
            commands=''
            options='--port --address --env --profile --faults --help'
            arguments=nothing
            values+=--port:nothing$'\n'
            values+=--address:nothing$'\n'
            values+=--profile:nothing$'\n'
            values+=--faults:files$'\n'
            ;;
        'local ssh')
            commands=''
            options='-i --user --help'
            arguments=nothing
            values+=-i:files$'\n'
            values+=--user:nothing$'\n'
            ;;
        'local status')
            commands=''
            options='--format --help'
            arguments=nothing
            values+='--format:text json'$'\n'
            ;;
        'local stop')
            commands=''
            options='--force --help'
            arguments=nothing
            ;;
    esac
}

_imagepipe_specs() {
    compopt -o filenames 2>/dev/null
    local word
    while IFS= read -r word; do
        if [[ -d $word || $word == *.yaml || $word == *.yml ]]; then COMPREPLY+=("$word"); fi
    done < <(compgen -f -- "$1")
}

_imagepipe_files() {
    compopt -o filenames 2>/dev/null
    local word
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen "$2" -- "$1")
}

_imagepipe_words() {
    local word
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$2" -- "$1")
}

_imagepipe_runs() {
    compopt -o nosort 2>/dev/null
    local folder=${XDG_STATE_HOME:-$HOME/.local/state}/imagepipe/runs
    _imagepipe_words "$1" "latest $(command ls -t -- "$folder" 2>/dev/null)"
}

_imagepipe_value() {
    case $2 in
        specs) _imagepipe_specs "$1" ;;
        runs) _imagepipe_runs "$1" ;;
        files) _imagepipe_files "$1" -f ;;
        folders) _imagepipe_files "$1" -d ;;
        nothing) ;;
        *) _imagepipe_words "$1" "$2" ;;
    esac
}

_imagepipe() {
    local current=${COMP_WORDS[COMP_CWORD]} command='' word wanted='' index only_arguments=''
    local commands options arguments values
    COMPREPLY=()
    _imagepipe_command ''
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $word == '=' ]]; then continue; fi
        if [[ -n $wanted ]]; then wanted=''; continue; fi
        if [[ -n $only_arguments ]]; then continue; fi
        case $word in
            --) only_arguments=1 ;;
            -*) wanted=$(_imagepipe_option "$word") ;;
            *)
                if [[ " $commands " == *" $word "* ]]; then
                    command=${command:+$command }$word
                    _imagepipe_command "$command"
                fi
                ;;
        esac
    done
    if [[ $current == '=' ]]; then current=''; fi
    if [[ -n $wanted ]]; then
        _imagepipe_value "$current" "$wanted"
    elif [[ $current == -* && -z $only_arguments ]]; then
        _imagepipe_words "$current" "$options"
    elif [[ -n $commands ]]; then
        _imagepipe_words "$current" "$commands"
    else
        _imagepipe_value "$current" "$arguments"
    fi
}

# Prints the kind of value that an option of the command takes, or nothing for a flag.
_imagepipe_option() {
    local pair
    while IFS= read -r pair; do
        if [[ ${pair%%:*} == "$1" ]]; then printf '%s' "${pair#*:}"; return; fi
    done <<<"$values"
}

complete -F _imagepipe imagepipe
