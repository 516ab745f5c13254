#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cli/command_line.h"
#include "client/cli/job_selection.h"
#include "client/cli/output.h"
#include "common/base/status.h"

namespace uniquanf::cli {
namespace {

using JobMethod = absl::StatusOr<Job> (Client::*)(absl::string_view);

// A command that does one thing to jobs and says the new state of each.
int RunOnJobs(const char* name, const char* summary, const char* example, JobMethod method,
              const Arguments& arguments) {
  CommandLine command_line(absl::StrCat("uniquanf ", name, " JOB... [flags]"), summary);
  JobSelection selection;
  AddJobs(&command_line.flags(), &selection);
  command_line.flags().Example(absl::StrCat("uniquanf ", name, " tiny-3bit"), "One job.");
  command_line.flags().Example(absl::StrCat("uniquanf ", name, " ", example), "Several.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  return ForEachJob(
      &command_line, selection,
      [&](Client* client, const std::string& job) -> absl::StatusOr<nlohmann::ordered_json> {
        UQ_ASSIGN_OR_RETURN(const Job changed, (client->*method)(job));
        if (!command_line.for_programs()) {
          std::printf("%s is %s\n", ShortJobName(changed.name).c_str(),
                      std::string(JobStateName(changed.state)).c_str());
        }
        return ToJson(changed);
      });
}

}  // namespace

int RunCancel(const Arguments& arguments) {
  return RunOnJobs("cancel", "Cancels jobs. Finished layers are kept: retry continues from them.",
                   "-l team=search --state queued,running", &Client::CancelJob, arguments);
}
int RunPause(const Arguments& arguments) {
  return RunOnJobs("pause", "Starts no more tasks of jobs; those that run finish.",
                   "--state running", &Client::PauseJob, arguments);
}
int RunResume(const Arguments& arguments) {
  return RunOnJobs("resume", "Lets paused jobs go on.", "--state paused", &Client::ResumeJob,
                   arguments);
}
int RunRetry(const Arguments& arguments) {
  return RunOnJobs("retry", "Continues failed or cancelled jobs from their finished layers.",
                   "-l sweep=7 --state failed", &Client::RetryJob, arguments);
}

int RunGet(const Arguments& arguments) {
  CommandLine command_line("uniquanf get JOB... [flags]",
                           "Shows jobs, each with its report when it is done.");
  JobSelection selection;
  AddJobs(&command_line.flags(), &selection);
  command_line.flags().Example("uniquanf get tiny-3bit", "For people.");
  command_line.flags().Example("uniquanf get tiny-3bit -o yaml | uniquanf submit -f -",
                               "The same job once more.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  bool first = true;
  return ForEachJob(
      &command_line, selection,
      [&](Client* client, const std::string& name) -> absl::StatusOr<nlohmann::ordered_json> {
        UQ_ASSIGN_OR_RETURN(const Job job, client->GetJob(name));
        if (!command_line.for_programs()) {
          if (!std::exchange(first, false)) std::puts("");
          PrintJob(job);
        }
        return ToJson(job);
      });
}

int RunDelete(const Arguments& arguments) {
  CommandLine command_line("uniquanf delete JOB... [flags]",
                           "Deletes finished jobs and their working objects. Published artifacts "
                           "stay.");
  JobSelection selection;
  bool allow_missing = false;
  AddJobs(&command_line.flags(), &selection);
  command_line.flags().Bool("allow-missing", &allow_missing, "succeed when there is no such job");
  command_line.flags().Example("uniquanf delete tiny-3bit", "One job.");
  command_line.flags().Example("uniquanf delete -l sweep=7 --state failed,cancelled", "Several.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  return ForEachJob(
      &command_line, selection,
      [&](Client* client, const std::string& job) -> absl::StatusOr<nlohmann::ordered_json> {
        UQ_RETURN_IF_ERROR(client->DeleteJob(job, allow_missing));
        if (!command_line.for_programs()) std::printf("%s is deleted\n", ShortJobName(job).c_str());
        return nlohmann::ordered_json{
            {"deleted", absl::StrCat("jobs/", absl::StripPrefix(job, "jobs/"))}};
      });
}

}  // namespace uniquanf::cli
