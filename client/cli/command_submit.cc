#include <unistd.h>

#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/command_line.h"
#include "client/cli/job_file.h"
#include "client/cli/output.h"
#include "client/cli/watch_view.h"
#include "common/base/status.h"
#include "common/spec/spec_flags.h"

namespace uniquanf::cli {
namespace {

absl::Status ParseLabel(absl::string_view text, std::map<std::string, std::string>* labels) {
  const size_t equals = text.find('=');
  if (equals == 0 || equals == absl::string_view::npos) {
    return InvalidInput("INVALID_FLAG", "allowed: KEY=VALUE");
  }
  (*labels)[std::string(text.substr(0, equals))] = std::string(text.substr(equals + 1));
  return absl::OkStatus();
}

void AddJobFlags(FlagSet* flags, const PresetFlag& preset, SubmitOptions* options) {
  flags->Section("The job");
  flags->Custom(
      "file", "FILE", "",
      "the job as YAML or JSON, - for standard input: job_id, tenant, priority, labels, device, "
      "deadline, time_to_live and spec (the fields of docs/SPEC.md), as `uniquanf get -o yaml` "
      "prints them; other flags override it",
      [options, preset](absl::string_view where) -> absl::Status {
        UQ_ASSIGN_OR_RETURN(const nlohmann::json document, ReadDocument(where));
        return ReadJobFile(document, *preset, options);
      },
      FlagSet::kEarly);
  flags->Letter('f');
  flags->String("job-id", "ID", &options->job_id,
                "name of the job, 1 to 63 characters of [a-z0-9-]; otherwise the server chooses");
  flags->String("request-id", "ID", &options->request_id,
                "repeating a submission with the same id and settings returns the first one's job");
  flags->Int("priority", &options->priority, -100, 100, "higher runs earlier");
  flags->String("tenant", "NAME", &options->tenant, "whose job it is");
  flags->Custom("label", "KEY=VALUE", "", "a label for filters; may repeat",
                [options](absl::string_view text) { return ParseLabel(text, &options->labels); });
  flags->Custom("require", "KEY=VALUE", "",
                "run only on workers with this label (uniquanf-worker --label); may repeat",
                [options](absl::string_view text) -> absl::Status {
                  std::map<std::string, std::string> required;
                  UQ_RETURN_IF_ERROR(ParseLabel(text, &required));
                  for (const auto& [key, value] : required) {
                    options->labels[absl::StrCat("require/", key)] = value;
                  }
                  return absl::OkStatus();
                });
  flags->Custom(
      "deadline", "WHEN", "",
      "fail the job if it is not finished then: 12h or 2026-01-31T12:00:00Z",
      [options](absl::string_view text) { return ParseDeadline(text, &options->deadline); });
  flags->Custom(
      "ttl", "DURATION", "", "delete the finished job (not its artifact) after this long",
      [options](absl::string_view text) { return ParseTimeToLive(text, &options->time_to_live); });
  flags->Choice("device", {"cpu", "cuda"}, &options->device,
                "kind of worker; unset: whichever starts it");
  flags->Bool("validate-only", &options->validate_only,
              "check the job and show it as it would be, without creating it");
  flags->Bool("unchecked", &options->unchecked,
              "do not look whether model, token files and output are there and fit: the workers "
              "alone can see them");
}

void PrintNotChecked(const Job& job) {
  for (const std::string& what : job.not_checked) {
    std::fprintf(stderr, "not checked: %s\n", Printable(what).c_str());
  }
}

}  // namespace

int RunSubmit(const Arguments& arguments) {
  CommandLine command_line("uniquanf submit --model DIR --calibration FILE [flags]",
                           "Submits a quantization job and prints its name. Local paths must mean "
                           "the same on the workers'\nmachines; use s3:// where they do not.");
  SubmitOptions options;
  bool watch = false;
  const auto preset = std::make_shared<std::optional<Preset>>();
  AddSpecFlags(&command_line.flags(), &options.spec, ReadSpecDocument, preset);
  AddJobFlags(&command_line.flags(), preset, &options);
  command_line.flags().Bool("watch", &watch, "watch the job until it is done");
  command_line.flags().Example(
      "uniquanf submit --model examples/tiny --calibration examples/tokens/tiny_calib.safetensors "
      "--bits 3 --watch",
      "Quantizes the example to 3 bits, and shows how it goes.");
  command_line.flags().Example("uniquanf submit -f job.yaml --label sweep=7",
                               "A job from a file, with a label more.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  if (options.spec.model_uri.empty()) {
    return command_line.FailUsage(InvalidInput(
        "INVALID_FLAG", "no model is given: --model DIR (or model_uri in --spec or --file)"));
  }
  MakeUrisAbsolute(&options.spec);
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto job = (*client)->SubmitJob(options);
  if (!job.ok()) return command_line.Fail(job.status());
  const std::string name = ShortJobName(job->name);
  if (options.validate_only) {
    if (!command_line.PrintDocument(ToJson(*job))) {
      std::puts(job->not_checked.empty()
                    ? "The job is valid; nothing was created."
                    : "Nothing is wrong with what could be checked; nothing was created.");
      PrintJob(*job);
      PrintNotChecked(*job);
    }
    return kOk;
  }
  if (!command_line.for_programs()) PrintNotChecked(*job);
  if (watch) {
    if (!command_line.for_programs()) std::fprintf(stderr, "Submitted %s\n", name.c_str());
    return WatchToEnd(&command_line, job->name);
  }
  if (!command_line.PrintDocument(ToJson(*job))) {
    // Scripts read the name from standard output; people read the rest.
    std::puts(Printable(job->name).c_str());
    std::fprintf(stderr, "Watch it with: uniquanf watch %s\n", name.c_str());
  }
  return kOk;
}

int RunWatch(const Arguments& arguments) {
  CommandLine command_line("uniquanf watch JOB [flags]",
                           "Shows a job's progress until it is done, then its report. Ctrl-C stops "
                           "watching; the job goes on.");
  std::string job;
  command_line.flags().Positional("JOB", true, &job, "the job's name, or its beginning");
  command_line.flags().Example("uniquanf watch tiny-3bit", "On the screen.");
  command_line.flags().Example("uniquanf watch tiny-3bit -o json | jq .job.progress.fraction",
                               "A line for each change.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  return WatchToEnd(&command_line, job);
}

}  // namespace uniquanf::cli
