#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "client/cli/command_line.h"
#include "client/cli/interrupt.h"
#include "client/cli/job_selection.h"
#include "client/cli/output.h"
#include "common/base/status.h"
#include "common/base/terminal_progress.h"

namespace uniquanf::cli {
namespace {

std::vector<Column> Columns(bool wide) {
  std::vector<Column> columns = {{"JOB"},
                                 {"STATE"},
                                 {"PROGRESS", Column::kNumber},
                                 {"LEFT", Column::kNumber},
                                 {"BITS", Column::kNumber},
                                 {"PERPLEXITY", Column::kNumber},
                                 {"AGE", Column::kNumber}};
  if (wide) {
    columns.insert(columns.end(), {{"TOOK", Column::kNumber},
                                   {"TENANT"},
                                   {"PRIORITY", Column::kNumber},
                                   {"DEVICE"},
                                   {"METHOD"},
                                   {"CREATED"},
                                   {"LABELS"}});
  }
  columns.push_back({"MODEL", wide ? Column::kText : Column::kLong});
  columns.push_back({"REASON", wide ? Column::kText : Column::kLong});
  return columns;
}

// The last part of a URI, which tells models apart.
std::string LastPart(absl::string_view uri) {
  while (absl::ConsumeSuffix(&uri, "/")) {
  }
  return std::string(uri.substr(uri.rfind('/') + 1));
}

std::vector<std::string> Row(const Job& job, bool wide) {
  const absl::Time now = absl::Now();
  const bool final = IsFinal(job.state);
  std::vector<std::string> row = {
      ShortJobName(job.name),
      std::string(JobStateName(job.state)),
      absl::StrFormat("%.0f%%", 100 * job.progress.fraction),
      job.progress.remaining.has_value() && !final ? ShortDuration(*job.progress.remaining) : "",
      absl::StrCat(job.spec.bits),
      ShortPerplexity(job),
      job.create_time == absl::InfinitePast() ? "" : ShortDuration(now - job.create_time)};
  if (wide) {
    row.push_back(job.start_time ? ShortDuration(job.end_time.value_or(now) - *job.start_time)
                                 : "");
    row.push_back(job.tenant);
    row.push_back(absl::StrCat(job.priority));
    row.push_back(job.device);
    row.emplace_back(QuantizationMethodName(job.spec.method));
    row.push_back(FormatLocalTime(job.create_time));
    row.push_back(absl::StrJoin(job.labels, ",", absl::PairFormatter("=")));
  }
  row.push_back(wide ? job.spec.model_uri : LastPart(job.spec.model_uri));
  row.push_back(WhyNot(job));
  return row;
}

absl::StatusOr<JobPage> Fetch(Client* client, const ListJobsOptions& options, bool all) {
  if (!all) return client->ListJobs(options);
  JobPage page;
  JobIterator iterator = client->IterateJobs(options);
  while (true) {
    UQ_ASSIGN_OR_RETURN(std::optional<Job> job, iterator.Next());
    if (!job.has_value()) return page;
    page.jobs.push_back(*std::move(job));
  }
}

nlohmann::ordered_json PageDocument(const JobPage& page) {
  nlohmann::ordered_json document;
  document["jobs"] = nlohmann::ordered_json::array();
  for (const Job& job : page.jobs) document["jobs"].push_back(ToJson(job));
  document["next_page_token"] = page.next_page_token;
  return document;
}

std::vector<std::string> PageLines(const JobPage& page, bool wide, int width) {
  std::vector<std::vector<std::string>> rows;
  for (const Job& job : page.jobs) rows.push_back(Row(job, wide));
  return TableLines(Columns(wide), std::move(rows), width);
}

// On a terminal the table over itself; elsewhere a line for each job that has changed, and for
// programs a document.
class ListView {
 public:
  explicit ListView(const CommandLine& command_line) : command_line_(command_line) {}

  void Show(const JobPage& page) {
    const int width = TerminalWidth();
    if (width > 0 && !command_line_.for_programs()) {
      std::string screen = "\x1b[H\x1b[J";  // home, and clear what is below
      for (const std::string& line : PageLines(page, command_line_.wide(), width)) {
        absl::StrAppend(&screen, line, "\n");
      }
      std::fputs(screen.c_str(), stdout);
    } else {
      ShowChanges(page);
    }
    std::fflush(stdout);
  }

 private:
  void ShowChanges(const JobPage& page) {
    std::map<std::string, int64_t> versions;
    JobPage changed;
    for (const Job& job : page.jobs) {
      versions[job.uid] = job.version;
      const auto before = versions_.find(job.uid);
      if (before == versions_.end() || before->second != job.version) changed.jobs.push_back(job);
    }
    versions_ = std::move(versions);
    if (changed.jobs.empty()) return;
    if (command_line_.for_programs()) {
      for (const Job& job : changed.jobs) command_line_.PrintStreamDocument(ToJson(job));
      return;
    }
    std::vector<std::string> lines = PageLines(changed, command_line_.wide(), 0);
    if (!first_) lines.erase(lines.begin());
    first_ = false;
    for (const std::string& line : lines) std::puts(line.c_str());
  }

  const CommandLine& command_line_;
  std::map<std::string, int64_t> versions_;
  bool first_ = true;
};

int Watch(CommandLine* command_line, Client* client, const ListJobsOptions& options, bool all,
          absl::Duration interval) {
  ListView view(*command_line);
  InterruptHandler interrupt([] {});
  while (true) {
    const auto page = Fetch(client, options, all);
    if (interrupt.interrupted()) return kInterrupted;
    // A server that went away may come back; one that was never there is an error.
    if (!page.ok()) return command_line->Fail(page.status());
    view.Show(*page);
    const absl::Time next = absl::Now() + interval;
    while (absl::Now() < next) {
      if (interrupt.interrupted()) return kInterrupted;
      absl::SleepFor(std::min(absl::Milliseconds(50), next - absl::Now()));
    }
  }
}

}  // namespace

int RunList(const Arguments& arguments) {
  CommandLine command_line("uniquanf list [flags]", "Lists jobs, the newest first.");
  ListJobsOptions options;
  JobSelection selection;
  bool all = false, watch = false;
  absl::Duration interval = absl::Seconds(2);
  AddSelectors(&command_line.flags(), &selection);
  command_line.flags().Section("The list");
  command_line.flags().String("order-by", "ORDER", &options.order_by,
                              "\"create_time desc\", \"create_time\", \"priority desc\" or "
                              "\"name\"");
  command_line.flags().Int("page-size", &options.page_size, 0, 1000,
                           "jobs a page; 0: the server's choice");
  command_line.flags().String("page-token", "TOKEN", &options.page_token,
                              "continue after the page that showed this token");
  command_line.flags().Bool("all", &all, "all pages");
  command_line.flags().Bool("watch", &watch, "show the list again and again, until Ctrl-C");
  command_line.flags().Letter('w');
  command_line.flags().Duration("interval", &interval, absl::Milliseconds(100),
                                "with --watch: how often");
  command_line.flags().Example("uniquanf list -l team=search --state running,queued",
                               "What a team has open.");
  command_line.flags().Example("uniquanf list --state failed -o name | xargs uniquanf retry",
                               "Names for another command.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto filter = FilterOf(selection);
  if (!filter.ok()) return command_line.FailUsage(filter.status());
  options.filter = *filter;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  if (watch) return Watch(&command_line, *client, options, all, interval);
  const auto page = Fetch(*client, options, all);
  if (!page.ok()) return command_line.Fail(page.status());
  if (command_line.PrintDocument(PageDocument(*page))) return kOk;
  for (const std::string& line : PageLines(*page, command_line.wide(), TerminalWidth())) {
    std::puts(line.c_str());
  }
  if (!page->next_page_token.empty()) {
    std::fprintf(stderr, "More jobs follow: --all, or --page-token=%s\n",
                 Printable(page->next_page_token).c_str());
  }
  return kOk;
}

}  // namespace uniquanf::cli
