#include <cstdio>
#include <string>

#include "client/cli/command_line.h"
#include "common/base/status.h"

namespace uniquanf::cli {
namespace {

// Each script asks the program itself: `PROGRAM __complete WORD...` prints what may stand for the
// last word (common/base/flag_set.h), so that a script knows no flag and never becomes stale.

constexpr char kBash[] =
    R"sh(# bash completion of uniquanf, uniquanf-batch, uniquanf-server and uniquanf-worker
_uniquanf_complete() {
    local line=${COMP_LINE:0:COMP_POINT} current candidate prefix
    local -a words
    read -r -a words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    # readline breaks words at '=' and ':' as well, and replaces what follows the last one.
    prefix=${current%"${current##*[=:]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        case $candidate in
            :file) compopt -o filenames 2>/dev/null
                   mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "${current#"$prefix"}") ;;
            :directory) compopt -o filenames 2>/dev/null
                   mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "${current#"$prefix"}") ;;
            "$current"*) COMPREPLY+=("${candidate#"$prefix"}") ;;
        esac
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _uniquanf_complete uniquanf uniquanf-batch uniquanf-server uniquanf-worker
)sh";

constexpr char kZsh[] = R"sh(#compdef uniquanf uniquanf-batch uniquanf-server uniquanf-worker
# zsh completion of uniquanf, uniquanf-batch, uniquanf-server and uniquanf-worker
_uniquanf() {
    local line candidate
    local -a candidates
    while IFS= read -r line; do
        candidate=${line%%$'\t'*}
        case $candidate in
            :file) _files ;;
            :directory) _files -/ ;;
            "$line") candidates+=("${candidate//:/\\:}") ;;
            *) candidates+=("${candidate//:/\\:}:${line#*$'\t'}") ;;
        esac
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( ${#candidates} )) && _describe -t values value candidates
}
if [ "$funcstack[1]" = "_uniquanf" ]; then _uniquanf "$@"; else compdef _uniquanf uniquanf uniquanf-batch uniquanf-server uniquanf-worker; fi
)sh";

constexpr char kFish[] =
    R"sh(# fish completion of uniquanf, uniquanf-batch, uniquanf-server and uniquanf-worker
function __uniquanf_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
        switch $line
            case ':file'
                __fish_complete_path "$current"
            case ':directory'
                __fish_complete_directories "$current"
            case '*'
                echo $line
        end
    end
end
for program in uniquanf uniquanf-batch uniquanf-server uniquanf-worker
    complete -c $program -f -a '(__uniquanf_complete)'
end
)sh";

}  // namespace

int RunCompletion(const Arguments& arguments) {
  CommandLine command_line("uniquanf completion SHELL [flags]",
                           "Prints a script that completes the command lines of all four programs: "
                           "commands, flags, values, names of jobs and workers.");
  std::string shell;
  command_line.flags().Positional("bash|zsh|fish", true, &shell, "the shell");
  command_line.flags().Example("source <(uniquanf completion bash)", "For this bash.");
  command_line.flags().Example(
      "uniquanf completion fish > ~/.config/fish/completions/uniquanf.fish", "For every fish.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  if (shell == "bash") {
    std::fputs(kBash, stdout);
  } else if (shell == "zsh") {
    std::fputs(kZsh, stdout);
  } else if (shell == "fish") {
    std::fputs(kFish, stdout);
  } else {
    return command_line.FailUsage(
        InvalidInput("INVALID_FLAG", "the shell is none of those known: bash, zsh, fish"));
  }
  return kOk;
}

}  // namespace uniquanf::cli
