#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "client/cli/command_line.h"
#include "client/cli/output.h"
#include "common/base/terminal_progress.h"

namespace uniquanf::cli {
namespace {

using JobMethod = absl::StatusOr<Job> (Client::*)(absl::string_view);

// A command that does one thing to one job and says `outcome` about its new state.
int RunOnJob(const char* name, const char* summary, JobMethod method, const Arguments& arguments) {
  CommandLine command_line(absl::StrCat("uniquanf ", name, " JOB [flags]"), summary);
  std::string job_name;
  command_line.flags().Positional("JOB", true, &job_name, "the job's name");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto job = ((*client)->*method)(job_name);
  if (!job.ok()) return command_line.Fail(job.status());
  if (command_line.json()) {
    PrintJson(ToJson(*job));
  } else {
    std::printf("%s is %s\n", ShortJobName(job->name).c_str(),
                std::string(JobStateName(job->state)).c_str());
  }
  return kOk;
}

}  // namespace

int RunCancel(const Arguments& arguments) {
  return RunOnJob("cancel", "Cancels a job. Finished layers are kept: retry continues from them.",
                  &Client::CancelJob, arguments);
}
int RunPause(const Arguments& arguments) {
  return RunOnJob("pause", "Starts no more tasks of a job; those that run finish.",
                  &Client::PauseJob, arguments);
}
int RunResume(const Arguments& arguments) {
  return RunOnJob("resume", "Lets a paused job go on.", &Client::ResumeJob, arguments);
}
int RunRetry(const Arguments& arguments) {
  return RunOnJob("retry", "Continues a failed or cancelled job from its finished layers.",
                  &Client::RetryJob, arguments);
}

int RunGet(const Arguments& arguments) {
  CommandLine command_line("uniquanf get JOB [flags]", "Shows a job, and its report when done.");
  std::string job_name;
  command_line.flags().Positional("JOB", true, &job_name, "the job's name");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto job = (*client)->GetJob(job_name);
  if (!job.ok()) return command_line.Fail(job.status());
  if (command_line.json()) {
    PrintJson(ToJson(*job));
  } else {
    PrintJob(*job);
  }
  return kOk;
}

int RunDelete(const Arguments& arguments) {
  CommandLine command_line("uniquanf delete JOB [flags]",
                           "Deletes a finished job and its working objects. Its published artifact "
                           "stays.");
  std::string job_name;
  bool allow_missing = false;
  command_line.flags().Positional("JOB", true, &job_name, "the job's name");
  command_line.flags().Bool("allow-missing", &allow_missing, "succeed when there is no such job");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const absl::Status status = (*client)->DeleteJob(job_name, allow_missing);
  if (!status.ok()) return command_line.Fail(status);
  if (command_line.json()) {
    PrintJson({{"deleted", absl::StrCat("jobs/", absl::StripPrefix(job_name, "jobs/"))}});
  } else {
    std::printf("%s is deleted\n", ShortJobName(job_name).c_str());
  }
  return kOk;
}

int RunList(const Arguments& arguments) {
  CommandLine command_line("uniquanf list [flags]",
                           "Lists jobs, the newest first. Filters are terms joined by AND: "
                           "state=RUNNING, tenant=\"x\",\n"
                           "labels.key=\"v\", create_time>\"2026-01-31T00:00:00Z\"; != also.");
  ListJobsOptions options;
  bool all = false;
  command_line.flags().String("filter", "TERMS", &options.filter, "only jobs that match");
  command_line.flags().String("order-by", "ORDER", &options.order_by,
                              "\"create_time desc\", \"create_time\", \"priority desc\" or "
                              "\"name\"");
  command_line.flags().Int("page-size", &options.page_size, 0, 1000,
                           "jobs a page; 0: the server's choice");
  command_line.flags().String("page-token", "TOKEN", &options.page_token,
                              "continue after the page that showed this token");
  command_line.flags().Bool("all", &all, "all pages");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  JobPage page;
  if (all) {
    JobIterator iterator = (*client)->IterateJobs(options);
    while (true) {
      auto job = iterator.Next();
      if (!job.ok()) return command_line.Fail(job.status());
      if (!job->has_value()) break;
      page.jobs.push_back(**std::move(job));
    }
  } else {
    auto listed = (*client)->ListJobs(options);
    if (!listed.ok()) return command_line.Fail(listed.status());
    page = *std::move(listed);
  }
  if (command_line.json()) {
    nlohmann::ordered_json json;
    json["jobs"] = nlohmann::ordered_json::array();
    for (const Job& job : page.jobs) json["jobs"].push_back(ToJson(job));
    json["next_page_token"] = page.next_page_token;
    PrintJson(json);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"JOB", "STATE", "PROGRESS", "BITS", "METHOD", "MODEL", "CREATED"}};
  for (const Job& job : page.jobs) {
    rows.push_back({ShortJobName(job.name), std::string(JobStateName(job.state)),
                    absl::StrFormat("%.0f%%", 100 * job.progress.fraction),
                    absl::StrCat(job.spec.bits),
                    std::string(QuantizationMethodName(job.spec.method)), job.spec.model_uri,
                    FormatLocalTime(job.create_time)});
  }
  PrintTable(rows, {false, false, true, true, false, false, false});
  if (!page.next_page_token.empty()) {
    std::fprintf(stderr, "More jobs follow: --all, or --page-token=%s\n",
                 Printable(page.next_page_token).c_str());
  }
  return kOk;
}

int RunTasks(const Arguments& arguments) {
  CommandLine command_line("uniquanf tasks JOB [flags]",
                           "Lists a job's tasks: state, attempt, worker, progress, failures.");
  std::string job_name;
  command_line.flags().Positional("JOB", true, &job_name, "the job's name");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto tasks = (*client)->ListTasks(job_name);
  if (!tasks.ok()) return command_line.Fail(tasks.status());
  if (command_line.json()) {
    nlohmann::ordered_json json;
    json["tasks"] = nlohmann::ordered_json::array();
    for (const Task& task : *tasks) json["tasks"].push_back(ToJson(task));
    PrintJson(json);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"TASK", "STATE", "ATTEMPT", "PHASE", "STEP", "LOSS", "TIME", "WORKER", "LAST FAILURE"}};
  for (const Task& task : *tasks) {
    const bool ended = task.start_time && task.end_time && *task.end_time >= *task.start_time;
    rows.push_back(
        {task.name.substr(task.name.rfind('/') + 1), std::string(TaskStateName(task.state)),
         absl::StrCat(task.attempt), task.progress.phase,
         task.progress.num_steps > 0
             ? absl::StrCat(task.progress.step, "/", task.progress.num_steps)
             : "",
         task.progress.loss > 0 ? absl::StrFormat("%.3e", task.progress.loss) : "",
         ended ? ShortDuration(*task.end_time - *task.start_time) : "",
         std::string(absl::StripPrefix(task.worker, "workers/")),
         task.failures.empty()
             ? ""
             : absl::StrCat(task.failures.back().reason, ": ", task.failures.back().message)});
  }
  PrintTable(rows, {false, false, true, false, true, true, true, false, false});
  return kOk;
}

}  // namespace uniquanf::cli
