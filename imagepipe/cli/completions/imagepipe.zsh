#compdef imagepipe
# Completion of imagepipe for zsh, made from its commands by `make docs`; do not edit.
# To install it: imagepipe completion --help

_imagepipe() {
    local state line curcontext=$curcontext
    local -a commands
    commands=(
        'init:Write a project that bakes at once.'
        'build:Bake the images of specs.'
        'validate:List every problem of specs at once; contacts no cloud.'
        'publish:Make images that exist match their specs in every region.'
        'plan:Print what a build would do, why, for how long and at what cost.'
        'why:Say why images are up to date, or which of their inputs have changed.'
        'ci-matrix:Print the CI jobs that bake specs, without the unchanged ones.'
        'graph:Draw specs and their bases, or the stages of one spec.'
        'convert:Turn a Packer template into specs; lists what has no counterpart.'
        'provisioners:List the provisioners that a spec can use.'
        'fmt:Lay out specs and provisioners; comments stay.'
        'schema:Print the JSON Schema of specs, for editors.'
        'policy:Print the IAM policy that specs need; contacts no cloud.'
        'resume:Resume a run whose process died.'
        'clean:Delete the resources of dead or failed runs.'
        'runs:List runs and the resources they still hold.'
        'show:Print the output of a run again.'
        'logs:Print the log of a run or of its stages, also while it is running.'
        'report:Write reports of a run: HTML, JSON, Markdown, JUnit and others.'
        'ui:Show all runs and images in a browser, live.'
        'ssh:Log in to a machine that was kept after a failure.'
        'images:List, show, launch, retire and deregister images.'
        'demo:Bake a sample on the local cloud, boot its image and fetch its page.'
        'worker:Bake for builds on Temporal, when one machine is not enough.'
        'bundle:Pack, unpack, verify and inspect instance-store bundles.'
        'completion:Print the script that completes words in a shell.'
        'local:Manage the local cloud: serve, run, ssh, stop, status, reset, doctor.'
    )
    _arguments -C \
        '--version[Show the version and exit]' \
        '--help[Show this message and exit]' \
        '1: :->command' \
        '*:: :->rest'
    case $state in
        command) _describe -t commands command commands ;;
        rest)
            case $line[1] in
                init) _imagepipe_init ;;
                build) _imagepipe_build ;;
                validate) _imagepipe_validate ;;
                publish) _imagepipe_publish ;;
                plan) _imagepipe_plan ;;
                why) _imagepipe_why ;;
                ci-matrix) _imagepipe_ci_matrix ;;
                graph) _imagepipe_graph ;;
                convert) _imagepipe_convert ;;
                provisioners) _imagepipe_provisioners ;;
                fmt) _imagepipe_fmt ;;
                schema) _imagepipe_schema ;;
                policy) _imagepipe_policy ;;
                resume) _imagepipe_resume ;;
                clean) _imagepipe_clean ;;
                runs) _imagepipe_runs ;;
                show) _imagepipe_show ;;
                logs) _imagepipe_logs ;;
                report) _imagepipe_report ;;
                ui) _imagepipe_ui ;;
                ssh) _imagepipe_ssh ;;
                images) _imagepipe_images ;;
                demo) _imagepipe_demo ;;
                worker) _imagepipe_worker ;;
                bundle) _imagepipe_bundle ;;
                completion) _imagepipe_completion ;;
                local) _imagepipe_local ;;
            esac
            ;;
    esac
}

_imagepipe_init() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--name[Name of the first spec and its images]:value: ' \
        '--distribution[System of the image]:value:(debian ubuntu amazon-linux)' \
        '--region[Region to bake in]:value: ' \
        '--ci[Workflow to write]:value:(github gitlab none)' \
        '--yes[Ask nothing]' \
        '--help[Show this message and exit]' \
        '*:argument:_files -/'
}

_imagepipe_build() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--region[Build in this region instead of launch.region]:value: ' \
        '--assume-role[Assume this role]:value: ' \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '(-q --quiet)'{-q,--quiet}'[Print no log\: only the result, and errors]' \
        '(-v --verbose)'{-v,--verbose}'[Also log created resources, and the time of boots, commands, transfers and waits]' \
        '--log-file[Also write the log, as --verbose prints it, into this file]:value:_files' \
        '--junit[Write JUnit XML with a case for each build and each test, whether or not they succeed]:value:_files' \
        '--report[Write reports of the run into this folder when it ends, even if it fails\: HTML, JSON, Markdown, JUnit and others]:value:_files -/' \
        '--otlp[Send a trace to an OpenTelemetry collector during the build, span by span\: to OTEL_EXPORTER_OTLP_ENDPOINT, or to port 4318 of this computer]' \
        '--timeout[Stop the build after this time and clean up, as after Ctrl-C]:value: ' \
        '--keep-on-failure[After a failure, keep everything and print how to log in]' \
        '*--only[Of the specs given, only this one]:value: ' \
        '--with-dependents[Also build every spec that is built on one of these]' \
        '--force[Bake the specs given even if they say `reuse` and nothing has changed]' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--engine[Bake on the workers of this Temporal server (`imagepipe worker`), with shared state (--state)]:value: ' \
        '--build-id[With --engine\: name the build]:value: ' \
        '--plan[Do exactly what this plan says (`imagepipe plan --out`), or refuse if an image or a fingerprint has changed]:value:_files' \
        '--fail-fast[With several specs\: the first failure stops the whole run and deletes every image that is not finished]' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_validate() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--region[Build in this region instead of launch.region]:value: ' \
        '--assume-role[Assume this role]:value: ' \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '--format[Print problems in this format]:value:(text json github sarif)' \
        '--online[Also check image, subnets, types, keys, names and IAM actions in the cloud, with DryRun]' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_publish() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--region[Build in this region instead of launch.region]:value: ' \
        '--assume-role[Assume this role]:value: ' \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '*--only[Of the specs given, only this one]:value: ' \
        '--yes[Make the changes without asking]' \
        '--dry-run[Print the differences, and change nothing]' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_plan() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--region[Build in this region instead of launch.region]:value: ' \
        '--assume-role[Assume this role]:value: ' \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '*--only[Of the specs given, only this one]:value: ' \
        '--with-dependents[Also build every spec that is built on one of these]' \
        '--force[Bake the specs given even if they say `reuse` and nothing has changed]' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--prices[Use this table of prices, in JSON, instead of the one that comes with imagepipe]:value:_files' \
        '--out[Write the plan for `imagepipe build --plan FILE`, which does exactly this, or refuses]:value:_files' \
        '--detailed-exitcode[Exit with 2 if the build would change anything, and with 0 if not]' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_why() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--offline[Compare with the last run on this computer, and do not look up the source image]' \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--region[Build in this region instead of launch.region]:value: ' \
        '--assume-role[Assume this role]:value: ' \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--format[Print the result in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_ci_matrix() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--all[With the unchanged specs too]' \
        '--levels[With --format github\: print N levels, as many as the workflow has jobs for]:value: ' \
        '--include[With --format gitlab\: the file of the repository that defines the job .imagepipe]:value:_files' \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--region[Build in this region instead of launch.region]:value: ' \
        '--assume-role[Assume this role]:value: ' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '--format[Print the jobs in this format]:value:(text json github gitlab)' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_graph() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '--region[Build in this region instead of launch.region]:value: ' \
        '--stages[Draw the stages of all specs, even of several]' \
        '--format[Print the drawing in this format]:value:(text mermaid dot svg)' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_convert() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--output[Write the specs into this folder]:value: ' \
        '*--var-file[Use the values of a variable file of Packer, *.pkrvars.hcl or JSON, as defaults]:value:_files' \
        '--force[Overwrite specs that exist]' \
        '--dry-run[Print the specs and write nothing]' \
        '--format[Print the result in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument:_files'
}

_imagepipe_provisioners() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--format[Print the result in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_fmt() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--check[Change nothing]' \
        '--diff[Change nothing]' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_schema() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--output[Write the schema into this file]:value:_files' \
        '--help[Show this message and exit]' \
        '*:argument:(spec provisioner project)'
}

_imagepipe_policy() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '--region[Build in this region instead of launch.region]:value: ' \
        '--for[`build`\: a build with its cleanup, `clean RUN` and `resume`]:value:(build publish clean prune)' \
        '--role[The role in launch.iam_instance_profile, if its name differs from the profile'\''s]:value: ' \
        '--part[Print the Nth policy, if one policy is too small for all statements]:value: ' \
        '--explain[Print each action, the statements that allow it, and the stages that call it]' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--format[Print the table of --explain in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_resume() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '--dry-run[Print where the run would resume, and change nothing]' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '(-q --quiet)'{-q,--quiet}'[Print no log\: only the result, and errors]' \
        '(-v --verbose)'{-v,--verbose}'[Also log created resources, and the time of boots, commands, transfers and waits]' \
        '--log-file[Also write the log, as --verbose prints it, into this file]:value:_files' \
        '--junit[Write JUnit XML with a case for each build and each test, whether or not they succeed]:value:_files' \
        '--report[Write reports of the run into this folder when it ends, even if it fails\: HTML, JSON, Markdown, JUnit and others]:value:_files -/' \
        '--otlp[Send a trace to an OpenTelemetry collector during the build, span by span\: to OTEL_EXPORTER_OTLP_ENDPOINT, or to port 4318 of this computer]' \
        '--timeout[Stop the build after this time and clean up, as after Ctrl-C]:value: ' \
        '--keep-on-failure[After a failure, keep everything and print how to log in]' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--local[The bucket of --state is in the local cloud]' \
        '--profile[Use this AWS profile for --state, and for the run'\''s cloud]:value: ' \
        '--endpoint-url[The bucket of --state is at this endpoint, not on AWS]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_runs'
}

_imagepipe_clean() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--all[Clean up all dead and failed runs of this machine, or of --state]' \
        '--older-than[Find resources by their tags, without a journal, also those of runs on other machines\: delete the ones whose run began longer ago than this (at least 1h) and is no longer in progress]:value: ' \
        '*--region[With --older-than\: search only this region]:value: ' \
        '*--bucket[With --older-than\: also delete the bundles in this bucket that no image uses]:value: ' \
        '--local[Use the local cloud]' \
        '--profile[With --older-than, and for --state\: use this AWS profile]:value: ' \
        '--endpoint-url[With --older-than, and for --state\: use this endpoint instead of AWS]:value: ' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--dry-run[Print what would be deleted, and change nothing]' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_runs'
}

_imagepipe_runs() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '-n[List only the newest N that match]:value: ' \
        '*--status[Only with this status]:value:(running succeeded failed cancelled launched dead unreadable)' \
        '*--spec[Only of this spec]:value: ' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--local[The bucket of --state is in the local cloud]' \
        '--profile[Use this AWS profile for --state, and for the run'\''s cloud]:value: ' \
        '--endpoint-url[The bucket of --state is at this endpoint, not on AWS]:value: ' \
        '--format[Print the result in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_show() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--local[The bucket of --state is in the local cloud]' \
        '--profile[Use this AWS profile for --state, and for the run'\''s cloud]:value: ' \
        '--endpoint-url[The bucket of --state is at this endpoint, not on AWS]:value: ' \
        '--format[json\: print the run'\''s state, errors, last lines and resources, without its log]:value:(text json)' \
        '--otlp[Print the run as OpenTelemetry traces instead, in OTLP'\''s JSON encoding]' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_runs'
}

_imagepipe_logs() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '(-f --follow)'{-f,--follow}'[Print new lines until the run has ended]' \
        '-n[Begin with the last N lines]:value: ' \
        '--raw[Print only the output of steps and tests, without time and stage]' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--local[The bucket of --state is in the local cloud]' \
        '--profile[Use this AWS profile for --state, and for the run'\''s cloud]:value: ' \
        '--endpoint-url[The bucket of --state is at this endpoint, not on AWS]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_runs'
}

_imagepipe_report() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '(-o --output)'{-o,--output}'[Write the files into this folder]:value:_files -/' \
        '--format[Write only these, separated by commas\: html, json, markdown, trace, junit, otlp, prometheus, github-output, dotenv]:value: ' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--local[The bucket of --state is in the local cloud]' \
        '--profile[Use this AWS profile for --state, and for the run'\''s cloud]:value: ' \
        '--endpoint-url[The bucket of --state is at this endpoint, not on AWS]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_runs'
}

_imagepipe_ui() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--port[Port on 127.0.0.1]:value: ' \
        '--open[Open the page in the browser]' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--local[The bucket of --state is in the local cloud]' \
        '--profile[Use this AWS profile for --state, and for the run'\''s cloud]:value: ' \
        '--endpoint-url[The bucket of --state is at this endpoint, not on AWS]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_ssh() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--instance[Log in to this instance, if the run has several]:value: ' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--local[The bucket of --state is in the local cloud]' \
        '--profile[Use this AWS profile for --state, and for the run'\''s cloud]:value: ' \
        '--endpoint-url[The bucket of --state is at this endpoint, not on AWS]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_runs'
}

_imagepipe_images() {
    local state line curcontext=$curcontext
    local -a commands
    commands=(
        'deregister:Deregister images, with their snapshots or bundles.'
        'launch:Launch an instance of an image, and say how to log in.'
        'list:List the images that specs made, newest first.'
        'prune:Retire the images that retention rules make superfluous.'
        'restore:Make a retired image available again.'
        'show:Show an image, its copies, lineage and users.'
    )
    _arguments -C \
        '--help[Show this message and exit]' \
        '1: :->command' \
        '*:: :->rest'
    case $state in
        command) _describe -t commands command commands ;;
        rest)
            case $line[1] in
                deregister) _imagepipe_images_deregister ;;
                launch) _imagepipe_images_launch ;;
                list) _imagepipe_images_list ;;
                prune) _imagepipe_images_prune ;;
                restore) _imagepipe_images_restore ;;
                show) _imagepipe_images_show ;;
            esac
            ;;
    esac
}

_imagepipe_images_deregister() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--delete-data[Also delete the image'\''s snapshots or bundle]' \
        '--region[Region of the image]:value: ' \
        '--every-region[Also deregister the images with the same name in all other regions]' \
        '--dry-run[Print what would be done, and change nothing]' \
        '--yes[Do not ask before images of a pattern are deregistered]' \
        '--force[Deregister images that are in use, or whose uses are unknown]' \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_images_launch() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--instance-type[Instance type]:value: ' \
        '--user[User to log in as]:value: ' \
        '--subnet[Subnet of the instance]:value: ' \
        '--port[Port of SSH]:value: ' \
        '--wait[Wait until a login works and the first boot is over]' \
        '--region[Region of the image]:value: ' \
        '--assume-role[Assume this role]:value: ' \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_images_list() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '*--spec[List only images of this spec]:value: ' \
        '*--region[List only images in this region]:value: ' \
        '--unused[List only images that nothing in this account uses]' \
        '--assume-role[Assume this role]:value: ' \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_images_prune() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '*--var[Set a variable]:value: ' \
        '*--var-file[Read variables from a YAML file]:value:_files' \
        '*--in-region[Look for images in this region only]:value: ' \
        '--prices[Use this price table instead of the one that comes with imagepipe]:value:_files' \
        '--yes[Do it]' \
        '--assume-role[Assume this role]:value: ' \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_images_restore() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--region[Region of the image]:value: ' \
        '--assume-role[Assume this role]:value: ' \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_images_show() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '*--region[Look for the image, its copies and layers in this region only]:value: ' \
        '--assume-role[Assume this role]:value: ' \
        '--local[Use the local cloud on this computer instead of AWS]' \
        '--profile[Use this AWS profile]:value: ' \
        '--endpoint-url[Use this EC2 endpoint instead of AWS]:value: ' \
        '--state[Keep runs in this bucket, for all machines, instead of on this computer (`local`)]:value: ' \
        '--format[json\: print one JSON object on standard output]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_demo() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--help[Show this message and exit]' \
        '*:argument:_imagepipe_find_specs'
}

_imagepipe_worker() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--temporal[Take work from this server]:value: ' \
        '--namespace[Namespace of the builds]:value: ' \
        '--queue[Take bakes from this queue\: `engine\: {queue\: NAME}` in a spec]:value: ' \
        '--bakes[Bakes that run at once in this worker]:value: ' \
        '--bakes-per-minute[Bakes that all workers of the queue begin in a minute, together]:value: ' \
        '--grace[After SIGTERM, wait this long for bakes to end]:value: ' \
        '--health[Answer GET /healthz\: 200, or 503 without the server]:value: ' \
        '--metrics[Serve metrics for Prometheus at /metrics]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_bundle() {
    local state line curcontext=$curcontext
    local -a commands
    commands=(
        'inspect:Print the contents of MANIFEST; needs neither key nor parts.'
        'pack:Pack a raw disk image into a bundle.'
        'unpack:Unpack a bundle into a raw disk image.'
        'verify:Check a bundle, part by part.'
    )
    _arguments -C \
        '--help[Show this message and exit]' \
        '1: :->command' \
        '*:: :->rest'
    case $state in
        command) _describe -t commands command commands ;;
        rest)
            case $line[1] in
                inspect) _imagepipe_bundle_inspect ;;
                pack) _imagepipe_bundle_pack ;;
                unpack) _imagepipe_bundle_unpack ;;
                verify) _imagepipe_bundle_verify ;;
            esac
            ;;
    esac
}

_imagepipe_bundle_inspect() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--format[Print the contents in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument:_files'
}

_imagepipe_bundle_pack() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--certificate[Your X.509 certificate, with an RSA key]:value:_files' \
        '--private-key[The certificate'\''s private key, which signs the bundle]:value:_files' \
        '--account[The account that will register the image (twelve digits)]:value: ' \
        '--ec2-certificate[EC2'\''s certificate for the region]:value:_files' \
        '--region[Find EC2'\''s certificate for this region on this machine]:value: ' \
        '--arch[Architecture of the image]:value:(x86_64 i386)' \
        '--name[Name of the bundle'\''s files]:value: ' \
        '--output[Write into this folder]:value:_files -/' \
        '--any-size[Allow more than 10 GiB, which EC2 does not accept]' \
        '--force[Replace an existing bundle with this name]' \
        '--help[Show this message and exit]' \
        '*:argument:_files'
}

_imagepipe_bundle_unpack() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--private-key[Private key of the certificate that the bundle was packed with]:value:_files' \
        '--output[Write into this folder]:value:_files -/' \
        '--force[Replace an existing file with the image'\''s name]' \
        '--help[Show this message and exit]' \
        '*:argument:_files'
}

_imagepipe_bundle_verify() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--private-key[Also decrypt the image and check its digest and size]:value:_files' \
        '--certificate[Also check that this certificate'\''s key signed the bundle]:value:_files' \
        '--help[Show this message and exit]' \
        '*:argument:_files'
}

_imagepipe_completion() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--help[Show this message and exit]' \
        '*:argument:(bash zsh fish)'
}

_imagepipe_local() {
    local state line curcontext=$curcontext
    local -a commands
    commands=(
        'account:Create accounts, and act as one of them.'
        'accounts:List accounts and organizations.'
        'base:Build the base image, if the store lacks it.'
        'console:Print the console of an instance.'
        'doctor:Check that the cloud can run on this computer.'
        'faults:List, set or clear injected faults.'
        'images:List the images of all regions.'
        'reset:Stop the cloud and delete everything in it.'
        'run:Run a command that uses the local cloud.'
        'serve:Run the cloud for other tools.'
        'ssh:Log in to an instance, or run a command there.'
        'status:Print the cloud'\''s state, instances and images.'
        'stop:Stop the cloud.'
    )
    _arguments -C \
        '--store[Folder of the local cloud'\''s data]:value:_files -/' \
        '--help[Show this message and exit]' \
        '1: :->command' \
        '*:: :->rest'
    case $state in
        command) _describe -t commands command commands ;;
        rest)
            case $line[1] in
                account) _imagepipe_local_account ;;
                accounts) _imagepipe_local_accounts ;;
                base) _imagepipe_local_base ;;
                console) _imagepipe_local_console ;;
                doctor) _imagepipe_local_doctor ;;
                faults) _imagepipe_local_faults ;;
                images) _imagepipe_local_images ;;
                reset) _imagepipe_local_reset ;;
                run) _imagepipe_local_run ;;
                serve) _imagepipe_local_serve ;;
                ssh) _imagepipe_local_ssh ;;
                status) _imagepipe_local_status ;;
                stop) _imagepipe_local_stop ;;
            esac
            ;;
    esac
}

_imagepipe_local_account() {
    local state line curcontext=$curcontext
    local -a commands
    commands=(
        'add:Create an account and print its id.'
        'env:Print export lines for a shell that acts as this account.'
        'key:Create an access key limited by a policy.'
    )
    _arguments -C \
        '--help[Show this message and exit]' \
        '1: :->command' \
        '*:: :->rest'
    case $state in
        command) _describe -t commands command commands ;;
        rest)
            case $line[1] in
                add) _imagepipe_local_account_add ;;
                env) _imagepipe_local_account_env ;;
                key) _imagepipe_local_account_key ;;
            esac
            ;;
    esac
}

_imagepipe_local_account_add() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--id[Account id (twelve digits)]:value: ' \
        '*--member[ARN of an organization or organizational unit of the account]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_account_env() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_account_key() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--policy[IAM policy, as printed by `imagepipe policy`]:value:_files' \
        '--id[Create the key for this account]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_accounts() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--format[Print the result in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_base() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_console() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_doctor() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--format[Print the result in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_faults() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--clear[Clear all faults]' \
        '--format[Print the faults of the cloud in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument:_files'
}

_imagepipe_local_images() {
    local state line curcontext=$curcontext
    local -a commands
    commands=(
        'import:Import a cloud image into the local cloud: Debian'\''s, Ubuntu'\''s or Amazon'\''s (qcow2, KVM), or a raw...'
    )
    _arguments -C \
        '--format[Print the list in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '1: :->command' \
        '*:: :->rest'
    case $state in
        command) _describe -t commands command commands ;;
        rest)
            case $line[1] in
                import) _imagepipe_local_images_import ;;
            esac
            ;;
    esac
}

_imagepipe_local_images_import() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--name[Name of the image]:value: ' \
        '--region[Region of the image]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument:_files'
}

_imagepipe_local_reset() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--yes[Do not ask]' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_run() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_serve() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--port[Listen on this port of 127.0.0.1]:value: ' \
        '--address[Also listen on this address, for other machines]:value: ' \
        '--env[Print only export lines for a shell]' \
        '--profile[Also write an AWS profile of this name with the endpoint and the keys]:value: ' \
        '--faults[Inject the faults in this file (docs/how-to/faults.md)]:value:_files' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_ssh() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '-i[Private key]:value:_files' \
        '--user[User to log in as]:value: ' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_status() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--format[Print the result in this format]:value:(text json)' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_local_stop() {
    local state line curcontext=$curcontext
    local -a commands
    _arguments -s \
        '--force[Stop it even if it is in use]' \
        '--help[Show this message and exit]' \
        '*:argument: '
}

_imagepipe_find_specs() {
    _files -g '*.(yaml|yml)'
}

_imagepipe_find_runs() {
    local -a runs
    runs=(latest ${XDG_STATE_HOME:-$HOME/.local/state}/imagepipe/runs/*(N/om:t))
    compadd -V runs -a runs
}

if [ "$funcstack[1]" = _imagepipe ]; then
    _imagepipe "$@"
else
    compdef _imagepipe imagepipe
fi
