#include "server/service/converters.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/base/violations.h"
#include "common/object_store/store_schemes.h"
#include "common/rpc/deterministic_bytes.h"
#include "common/rpc/job_proto.h"
#include "common/rpc/spec_proto.h"
#include "common/rpc/time_proto.h"
#include "server/core/progress.h"
#include "server/service/resource_names.h"

namespace uniquanf::server {
namespace {

// What a worker says that it can quantize.

constexpr char kReason[] = "INVALID_REQUEST";
constexpr size_t kMaxLabels = 32;
constexpr int kMaxPriority = 100;

absl::Status Invalid(absl::string_view message) { return InvalidInput(kReason, message); }

bool IsLabelKey(absl::string_view key) {
  if (key.empty() || key.size() > 63) return false;
  return std::all_of(key.begin(), key.end(), [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-' || c == '_' || c == '.' ||
           c == '/';
  });
}

// The service's programs run anywhere, so a plain path means nothing to them.
void CheckUri(absl::string_view field, absl::string_view uri, Violations* violations) {
  if (uri.empty() || IsCompleteStoreUri(uri)) return;
  violations->Add("INVALID_SPEC", absl::StrCat("job.spec.", field),
                  absl::StrCat("spec.", field, " ", Quoted(uri), " is not ", StoreUriForms()));
}

// The spec of a request, complete, and its canonical bytes in `job`.
void ReadSpec(const v1::QuantizationSpec& proto, const std::string& default_output,
              CreateJobEvent* event, Violations* violations) {
  constexpr char kPrefix[] = "job.spec.";
  absl::StatusOr<QuantizationSpec> spec = SpecFromProto(proto);
  if (!spec.ok()) return violations->Merge(spec.status(), kPrefix);
  if (spec->output_uri.empty()) spec->output_uri = default_output;
  violations->Merge(spec->Validate(), kPrefix);
  CheckUri("model_uri", spec->model_uri, violations);
  CheckUri("calibration_uri", spec->calibration_uri, violations);
  for (const CalibrationShare& share : spec->calibration_mix) {
    CheckUri("calibration_mix.uri", share.uri, violations);
  }
  CheckUri("output_uri", spec->output_uri, violations);
  CheckUri("evaluation_uri", spec->evaluation_uri, violations);
  CheckUri("distillation_uri", spec->distillation_uri, violations);
  event->job.spec = DeterministicBytes(SpecToProto(*spec));
  event->min_num_tasks =
      2 + int64_t{spec->schedule == LayerSchedule::kPipelined ? spec->pipeline_rounds : 1};
}

// Bytes that this server has made, or has read and checked (CheckStoredJob).
void ParseChecked(const std::string& bytes, google::protobuf::Message* proto) {
  UQ_CHECK(proto->ParseFromString(bytes));
}

}  // namespace

absl::Status CheckLabels(const google::protobuf::Map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) {
    return Invalid(
        absl::StrCat("labels: ", labels.size(), " labels; at most ", kMaxLabels, " are allowed"));
  }
  for (const auto& [key, value] : labels) {
    if (!IsLabelKey(key)) {
      return Invalid(
          absl::StrCat("labels: key ", Quoted(key), " is not 1..63 characters of [a-z0-9_./-]"));
    }
    if (value.size() > 255) {
      return Invalid(absl::StrCat("labels: the value of \"", key, "\" is longer than 255 bytes"));
    }
  }
  return absl::OkStatus();
}

std::string ObjectLayout::ArtifactUri(const std::string& tenant, const std::string& job,
                                      const std::string& job_uid) const {
  constexpr size_t kUidCharacters = 8;
  const std::string random = job_uid.substr(job_uid.find('-') + 1).substr(0, kUidCharacters);
  return absl::StrCat(root, "/tenants/", tenant, "/artifacts/", job, "-", random);
}

std::string NameOf(const Job& job, NameForm form) {
  return JobName(job.id, form == NameForm::kWithTenant ? job.tenant : "");
}

absl::Status CheckStoredJob(const Job& job) {
  v1::QuantizationSpec spec;
  v1::JobReport report;
  const char* damaged = !spec.ParseFromString(job.spec)       ? "spec"
                        : !report.ParseFromString(job.report) ? "report"
                                                              : nullptr;
  if (damaged == nullptr) return absl::OkStatus();
  return MakeError(absl::StatusCode::kDataLoss, "STATE_CORRUPT",
                   absl::StrCat("the ", damaged, " of the stored job \"", job.id,
                                "\" cannot be read; restore the state from a backup"));
}

void TaskToProto(const std::string& job, const Task& task, v1::Task* proto) {
  TaskFieldsToProto(task, proto);
  proto->set_name(TaskNameOf(job, task.id));
  if (task.state == TaskState::kLeased) {
    TaskProgressToProto(task.progress, proto->mutable_progress());
  }
  if (!task.worker.empty()) proto->set_worker(WorkerName(task.worker));
  for (v1::TaskFailure& failure : *proto->mutable_failures()) {
    if (!failure.worker().empty()) failure.set_worker(WorkerName(failure.worker()));
  }
}

namespace {

// Why the job waits, and where its status says nothing yet, in words.
void ShowWaiting(const JobView& view, v1::Job* proto) {
  const Job& job = *view.job;
  if (IsFinal(job.state) || job.state == JobState::kCancelling) return;
  absl::Time next_attempt = absl::InfinitePast();
  for (const auto& task : view.tasks) {
    if (task->state == TaskState::kLeased) {
      if (!job.silent_worker.empty() && proto->status_message().empty()) {
        proto->set_status_message(absl::StrCat(
            "worker ", job.silent_worker,
            " has not called for some seconds; when its lease runs out, its task is tried again"));
      }
      return;
    }
    if (task->next_attempt_time) next_attempt = std::max(next_attempt, *task->next_attempt_time);
  }
  v1::Waiting* waiting = proto->mutable_waiting();
  if (job.state == JobState::kPaused) {
    waiting->set_reason("PAUSED");
  } else if (!job.waits_for.empty()) {
    waiting->set_reason(job.waits_for);
  } else if (job.num_before >= 0) {
    waiting->set_reason("SLOT");
    waiting->set_num_before(job.num_before);
    if (!proto->status_message().empty()) return;
    proto->set_status_message(
        job.num_before == 0 ? "waits for a slot; it is the next"
        : job.num_before >= kMaxCountedBefore
            ? absl::StrCat("waits for a slot, ", kMaxCountedBefore, " or more before it")
            : absl::StrCat("waits for a slot, ", job.num_before, " before it"));
  } else {
    waiting->set_reason(next_attempt > absl::InfinitePast() ? "RETRY" : "SERVER");
  }
}

}  // namespace

void JobToProto(const JobView& view, NameForm form, v1::Job* proto) {
  const Job& job = *view.job;
  JobFieldsToProto(job, proto);
  proto->set_name(NameOf(job, form));
  ParseChecked(job.spec, proto->mutable_spec());
  if (job.error && !job.error->task.empty()) {
    proto->mutable_error()->set_task(TaskNameOf(proto->name(), job.error->task));
  }
  ProgressToProto(ComputeProgress(job, view.tasks), proto->mutable_progress());
  ShowWaiting(view, proto);
  if (job.state == JobState::kSucceeded && job.artifact) {
    ParseChecked(job.report, proto->mutable_report());
  } else {
    proto->clear_artifact();
  }
}

absl::StatusOr<CreateJobEvent> CreateJobFromProto(const v1::CreateJobRequest& request,
                                                  const std::string& fallback_id,
                                                  const std::string& uid,
                                                  const ObjectLayout& layout,
                                                  const std::string* tenant) {
  CreateJobEvent event;
  event.id_is_global = tenant == nullptr;
  Job& job = event.job;
  event.validate_only = request.validate_only();
  if (!request.has_job() || !request.job().has_spec()) {
    return InvalidField("INVALID_SPEC", "job.spec", "job.spec is missing; it is required");
  }
  const v1::Job& wish = request.job();
  Violations violations;
  const auto wrong = [&violations](absl::string_view field, absl::string_view description) {
    violations.Add(kReason, field, description);
  };
  if (request.job_id().empty()) {
    job.id = fallback_id;
  } else {
    violations.Merge(CheckJobId("job_id", request.job_id()), "");
    job.id = request.job_id();
  }
  job.uid = uid;
  if (request.request_id().size() > 128) {
    wrong("request_id", "request_id is longer than 128 characters");
  }
  job.request_id = request.request_id();
  v1::CreateJobRequest content = request;
  content.clear_request_id();
  content.clear_validate_only();
  job.request_digest = Sha256Hex(DeterministicBytes(content));

  ReadSpec(
      wish.spec(),
      tenant == nullptr ? layout.ArtifactUri(job.id) : layout.ArtifactUri(*tenant, job.id, uid),
      &event, &violations);

  WishFromProto(wish, &job);
  if (tenant != nullptr) job.tenant = *tenant;
  if (job.tenant.empty()) job.tenant = "default";
  if (!ParseWorkerName("job.tenant", WorkerName(job.tenant)).ok() || job.tenant.size() > 63) {
    wrong("job.tenant", absl::StrCat("job.tenant ", Quoted(job.tenant),
                                     " is not 1..63 characters of [A-Za-z0-9._:-]"));
  }
  if (wish.priority() < -kMaxPriority || wish.priority() > kMaxPriority) {
    wrong("job.priority", absl::StrCat("job.priority ", wish.priority(), " is outside -100..100"));
  }
  violations.Merge(CheckLabels(wish.labels()), "job.labels");
  if (job.time_to_live && *job.time_to_live < absl::ZeroDuration()) {
    wrong("job.time_to_live", "job.time_to_live is negative");
  }
  if (wish.device() != "" && wish.device() != "cpu" && wish.device() != "cuda") {
    wrong("job.device",
          absl::StrCat("job.device ", Quoted(wish.device()), " is not cpu, cuda or empty (any)"));
  }
  if (!violations.empty()) return violations.status();
  return event;
}

}  // namespace uniquanf::server
