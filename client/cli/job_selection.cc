#include "client/cli/job_selection.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/output.h"
#include "common/base/status.h"
#include "common/job/states.h"

namespace uniquanf::cli {
namespace {

constexpr size_t kMaxNamed = 5;  // in a message about a beginning of several names

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
}

std::vector<std::string> StateNames() {
  std::vector<std::string> names;
  for (int i = 1; i <= kNumJobStates; ++i) {
    names.emplace_back(JobStateName(static_cast<JobState>(i)));
  }
  return names;
}

// The server's filters join terms by AND: a state out of several is none of the others.
absl::Status AddStates(const std::vector<std::string>& given, std::vector<std::string>* terms) {
  if (given.empty()) return absl::OkStatus();
  const std::vector<std::string> all = StateNames();
  std::vector<std::string> wanted;
  for (const std::string& list : given) {
    for (const absl::string_view part : absl::StrSplit(list, ',', absl::SkipWhitespace())) {
      const std::string state = absl::AsciiStrToUpper(absl::StripAsciiWhitespace(part));
      if (std::find(all.begin(), all.end(), state) == all.end()) {
        const std::string nearest = NearestName(state, all);
        return InvalidInput(
            "INVALID_FLAG",
            absl::StrCat("flag --state is \"", part,
                         "\": allowed: ", absl::AsciiStrToLower(absl::StrJoin(all, ", ")),
                         nearest.empty() ? "" : ". Did you mean ", absl::AsciiStrToLower(nearest),
                         nearest.empty() ? "" : "?"));
      }
      wanted.push_back(state);
    }
  }
  if (wanted.size() == 1) {
    terms->push_back(absl::StrCat("state=", wanted.front()));
    return absl::OkStatus();
  }
  for (const std::string& state : all) {
    if (std::find(wanted.begin(), wanted.end(), state) != wanted.end()) continue;
    terms->push_back(absl::StrCat("state!=", state));
  }
  return absl::OkStatus();
}

absl::Status AddLabels(const std::vector<std::string>& selectors, std::vector<std::string>* terms) {
  for (const std::string& list : selectors) {
    for (const absl::string_view part : absl::StrSplit(list, ',', absl::SkipWhitespace())) {
      const size_t equals = part.find('=');
      const bool differs = equals != part.npos && equals > 0 && part[equals - 1] == '!';
      const absl::string_view key = part.substr(0, differs ? equals - 1 : equals);
      if (equals == part.npos || key.empty()) {
        return InvalidInput("INVALID_FLAG",
                            absl::StrCat("flag --selector is \"", part,
                                         "\": allowed: KEY=VALUE or KEY!=VALUE, several with "
                                         "commas"));
      }
      terms->push_back(absl::StrCat("labels.", key, differs ? "!=" : "=",
                                    Quoted(absl::StripPrefix(part.substr(equals + 1), "="))));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Job>> SelectedJobs(Client* client, const std::string& filter) {
  ListJobsOptions options;
  options.filter = filter;
  options.page_size = 1000;
  JobIterator iterator = client->IterateJobs(options);
  std::vector<Job> jobs;
  while (true) {
    UQ_ASSIGN_OR_RETURN(std::optional<Job> job, iterator.Next());
    if (!job.has_value()) return jobs;
    jobs.push_back(*std::move(job));
  }
}

// The name of the only job that begins with `name`; `unknown` where there is none.
absl::StatusOr<std::string> NameThatBegins(Client* client, const std::string& name,
                                           const absl::Status& unknown) {
  const absl::string_view beginning = absl::StripPrefix(name, "jobs/");
  std::vector<std::string> found;
  const absl::StatusOr<std::vector<Job>> jobs = SelectedJobs(client, "");
  if (!jobs.ok()) return unknown;
  for (const Job& job : *jobs) {
    const absl::string_view id = absl::StripPrefix(job.name, "jobs/");
    if (absl::StartsWith(id, beginning)) found.emplace_back(id);
  }
  if (found.empty() || beginning.empty()) return unknown;
  if (found.size() == 1) return found.front();
  const size_t num = found.size();
  found.resize(std::min(num, kMaxNamed));
  return InvalidInput("AMBIGUOUS_NAME", absl::StrCat("\"", beginning, "\" begins the names of ",
                                                     num, " jobs: ", absl::StrJoin(found, ", "),
                                                     num > kMaxNamed ? ", ..." : ""));
}

bool IsUnknownJob(const absl::Status& status) { return ErrorReason(status) == "JOB_NOT_FOUND"; }

}  // namespace

void AddSelectors(FlagSet* flags, JobSelection* selection) {
  flags->Section("Which jobs");
  flags->Repeated("selector", "KEY=VALUE", &selection->selectors,
                  "jobs with this label; KEY!=VALUE: without it; several with commas");
  flags->Letter('l');
  flags->Repeated("state", absl::AsciiStrToLower(absl::StrJoin(StateNames(), "|")),
                  &selection->states, "jobs in this state; several with commas");
  flags->String(
      "filter", "TERMS", &selection->filter,
      "the server's own filter, terms joined by AND: state=RUNNING, tenant=\"x\", "
      "device=cpu, priority>0, labels.key=\"v\", create_time>\"2026-01-31T00:00:00Z\"; != "
      "also");
}

void AddJobs(FlagSet* flags, JobSelection* selection) {
  flags->Positionals("JOB", false, &selection->names,
                     "names of jobs, or beginnings that only one name has");
  AddSelectors(flags, selection);
}

absl::StatusOr<std::string> FilterOf(const JobSelection& selection) {
  std::vector<std::string> terms;
  if (!selection.filter.empty()) terms.push_back(selection.filter);
  UQ_RETURN_IF_ERROR(AddStates(selection.states, &terms));
  UQ_RETURN_IF_ERROR(AddLabels(selection.selectors, &terms));
  return absl::StrJoin(terms, " AND ");
}

absl::StatusOr<Job> FindJob(Client* client, const std::string& name) {
  absl::StatusOr<Job> job = client->GetJob(name);
  if (job.ok() || !IsUnknownJob(job.status())) return job;
  UQ_ASSIGN_OR_RETURN(const std::string whole, NameThatBegins(client, name, job.status()));
  return client->GetJob(whole);
}

int ForEachJob(CommandLine* command_line, const JobSelection& selection,
               const std::function<absl::StatusOr<nlohmann::ordered_json>(
                   Client* client, const std::string& job)>& work) {
  const absl::StatusOr<std::string> filter = FilterOf(selection);
  if (!filter.ok()) return command_line->FailUsage(filter.status());
  const bool selects = !filter->empty();
  if (selects != selection.names.empty()) {
    return command_line->FailUsage(InvalidInput(
        "INVALID_FLAG", selects ? "give names of jobs or selectors, not both"
                                : "which jobs? Give names, -l KEY=VALUE or --state STATE"));
  }
  const auto client = command_line->Connect();
  if (!client.ok()) return command_line->Fail(client.status());
  std::vector<std::string> names = selection.names;
  if (selects) {
    const auto jobs = SelectedJobs(*client, *filter);
    if (!jobs.ok()) return command_line->Fail(jobs.status());
    for (const Job& job : *jobs) names.push_back(job.name);
  }
  const bool one = selection.names.size() == 1;
  nlohmann::ordered_json document = {{"jobs", nlohmann::ordered_json::array()},
                                     {"errors", nlohmann::ordered_json::array()}};
  int exit_code = kOk;
  for (const std::string& name : names) {
    absl::StatusOr<nlohmann::ordered_json> done = work(*client, name);
    if (IsUnknownJob(done.status())) {
      const auto whole = NameThatBegins(*client, name, done.status());
      done = whole.ok() ? work(*client, *whole) : whole.status();
    }
    if (done.ok()) {
      if (one) {
        command_line->PrintDocument(*done);
      } else {
        document["jobs"].push_back(*std::move(done));
      }
      continue;
    }
    if (one) return command_line->Fail(done.status());
    command_line->PrintErrorText(done.status());
    nlohmann::ordered_json error = ErrorDocument(done.status())["error"];
    error["job"] = name;
    document["errors"].push_back(std::move(error));
    if (exit_code == kOk) exit_code = ExitCodeFor(done.status());
  }
  if (!one && !command_line->PrintDocument(document) && names.empty()) {
    std::fprintf(stderr, "No job matches.\n");
  }
  return exit_code;
}

}  // namespace uniquanf::cli
