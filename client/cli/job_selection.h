// Which jobs a command works on: names, unique beginnings of names, labels, states.
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_FLAG, AMBIGUOUS_NAME), and those
// of the server.
#ifndef UNIQUANF_CLIENT_CLI_JOB_SELECTION_H_
#define UNIQUANF_CLIENT_CLI_JOB_SELECTION_H_

#include <functional>
#include <string>
#include <vector>

#include "client/cli/command_line.h"

namespace uniquanf::cli {

struct JobSelection {
  std::vector<std::string> names;
  std::vector<std::string> selectors;  // "team=a,stage!=x"
  std::vector<std::string> states;     // "running,queued", in any case
  std::string filter;                  // in the server's words
};

// Declares -l and --state (and --filter); with `names` also JOB....
void AddSelectors(FlagSet* flags, JobSelection* selection);
void AddJobs(FlagSet* flags, JobSelection* selection);

// The server's filter for selectors, states and filter together; "" for all jobs.
absl::StatusOr<std::string> FilterOf(const JobSelection& selection);

// Calls `work` for every job of the selection; a name that the server does not know and that begins
// the name of just one job stands for that one. Goes on after errors, which are printed. `job`
// as the server names it. Returns the exit code of the first that failed, or kOk.
//
// Documents for programs: that of the job when one was named; else {"jobs": [...], "errors":
// [...]}, each error with its "job". `work` gives the document.
int ForEachJob(CommandLine* command_line, const JobSelection& selection,
               const std::function<absl::StatusOr<nlohmann::ordered_json>(
                   Client* client, const std::string& job)>& work);

// The one job that `name` stands for: `name` itself where the server knows it.
absl::StatusOr<Job> FindJob(Client* client, const std::string& name);

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_JOB_SELECTION_H_
