#include "client/cli/job_file.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/yaml.h"
#include "common/base/json_util.h"
#include "common/base/read_file.h"
#include "common/base/status.h"

namespace uniquanf::cli {
namespace {

constexpr char kReason[] = "INVALID_JOB_FILE";

// Members of a job as the server shows it that say what became of it.
constexpr const char* kOutputOnly[] = {"name",           "uid",      "state",       "version",
                                       "status_message", "error",    "progress",    "create_time",
                                       "start_time",     "end_time", "update_time", "artifact",
                                       "report",         "tasks",    "events"};

}  // namespace

absl::StatusOr<nlohmann::json> ReadDocument(absl::string_view where) {
  const std::string path = where == "-" ? "/dev/stdin" : std::string(where);
  const absl::StatusOr<std::string> text = ReadSmallFile(path);
  if (!text.ok()) {
    return InvalidInput("INVALID_FLAG",
                        absl::StrCat("cannot read ", where == "-" ? "standard input" : where, ": ",
                                     text.status().message()));
  }
  auto document = ParseYaml(*text);
  if (!document.ok()) {
    return Annotate(document.status(), where == "-" ? "standard input" : where);
  }
  return document;
}

absl::StatusOr<std::string> ReadSpecDocument(absl::string_view where) {
  UQ_ASSIGN_OR_RETURN(const nlohmann::json document, ReadDocument(where));
  return document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::Status ParseDeadline(absl::string_view text, std::optional<absl::Time>* deadline) {
  absl::Duration from_now;
  std::string error;
  if (absl::ParseDuration(text, &from_now) && from_now > absl::ZeroDuration()) {
    *deadline = absl::Now() + from_now;
    return absl::OkStatus();
  }
  absl::Time time;
  if (absl::ParseTime(absl::RFC3339_full, text, &time, &error)) {
    *deadline = time;
    return absl::OkStatus();
  }
  return InvalidInput("INVALID_FLAG",
                      "allowed: a duration from now (90m, 12h) or a time in RFC 3339 "
                      "(2026-01-31T12:00:00Z)");
}

absl::Status ParseTimeToLive(absl::string_view text, std::optional<absl::Duration>* time_to_live) {
  absl::Duration ttl;
  if (!absl::ParseDuration(text, &ttl) || ttl < absl::ZeroDuration() ||
      ttl == absl::InfiniteDuration()) {
    return InvalidInput("INVALID_FLAG", "allowed: a duration such as 24h");
  }
  *time_to_live = ttl;
  return absl::OkStatus();
}

absl::Status ReadJobFile(const nlohmann::json& document, std::optional<Preset> preset,
                         SubmitOptions* options) {
  if (!document.is_object()) return InvalidInput(kReason, "the job is no mapping of fields");
  nlohmann::json job =
      document.contains("model_uri") ? nlohmann::json{{"spec", document}} : document;
  const bool shown_by_server = job.contains("uid");
  for (const char* member : kOutputOnly) job.erase(member);
  for (auto it = job.begin(); it != job.end();) {
    it = it->is_null() ? job.erase(it) : std::next(it);
  }
  JsonObjectReader reader(job, "", kReason);
  const auto optional = JsonObjectReader::kOptional;
  std::string deadline, time_to_live;
  double ttl_seconds = -1;
  reader.Read("job_id", optional, &options->job_id);
  reader.Read("request_id", optional, &options->request_id);
  reader.Read("tenant", optional, &options->tenant);
  reader.Read("priority", optional, &options->priority);
  reader.Read("device", optional, &options->device);
  reader.Read("deadline", optional, &deadline);
  reader.Read("time_to_live", optional, &time_to_live);
  reader.Read("time_to_live_seconds", optional, &ttl_seconds);
  if (const nlohmann::json* labels = reader.ReadObject("labels", optional)) {
    for (const auto& [key, value] : labels->items()) {
      if (!value.is_string()) {
        reader.Fail(
            absl::StrCat("labels.", key, " is ", value.dump(), "; give a string in quotes"));
        break;
      }
      options->labels[key] = value.get<std::string>();
    }
  }
  const nlohmann::json* spec = reader.ReadObject("spec", JsonObjectReader::kRequired);
  UQ_RETURN_IF_ERROR(reader.Finish());
  if (!deadline.empty()) {
    UQ_RETURN_IF_ERROR(Annotate(ParseDeadline(deadline, &options->deadline), "deadline"));
  }
  if (!time_to_live.empty()) {
    UQ_RETURN_IF_ERROR(
        Annotate(ParseTimeToLive(time_to_live, &options->time_to_live), "time_to_live"));
  }
  if (ttl_seconds >= 0) options->time_to_live = absl::Seconds(ttl_seconds);
  UQ_ASSIGN_OR_RETURN(options->spec, ReadSpec(spec->dump(), preset));
  if (shown_by_server) options->spec.output_uri.clear();
  return absl::OkStatus();
}

}  // namespace uniquanf::cli
