// Contexts: values of global flags under a name, in a configuration file.
//
//   current-context: lab
//   contexts:
//     lab: {server: "lab:50051"}
//     production: {server: "a:50051,b:50051", tls-ca: /etc/uniquanf/ca.pem, format: wide}
//
// The file is UNIQUANF_CONFIG, else $XDG_CONFIG_HOME/uniquanf/config.yaml, else
// ~/.config/uniquanf/config.yaml. What the command line or the environment says comes first.
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_CONFIG) names the file and the
// key.
#ifndef UNIQUANF_CLIENT_CLI_CONTEXT_H_
#define UNIQUANF_CLIENT_CLI_CONTEXT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/flag_set.h"

namespace uniquanf::cli {

// Presets `flags` from the context that `arguments` (--context), UNIQUANF_CONTEXT or the file's
// current-context name. OK without a file unless a context is asked for.
absl::Status ApplyContext(const std::vector<std::string>& arguments, FlagSet* flags);

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_CONTEXT_H_
