#include "common/rpc/job_proto.h"

#include <algorithm>

#include "common/rpc/time_proto.h"

namespace uniquanf {
namespace {

// The numbers of common/job/states.h are the messages'.
#define UQ_SAME_NUMBER(ours, theirs) \
  static_assert(static_cast<int>(ours) == static_cast<int>(theirs), #ours)
UQ_SAME_NUMBER(JobState::kUnknown, v1::Job::STATE_UNSPECIFIED);
UQ_SAME_NUMBER(JobState::kQueued, v1::Job::QUEUED);
UQ_SAME_NUMBER(JobState::kRunning, v1::Job::RUNNING);
UQ_SAME_NUMBER(JobState::kPaused, v1::Job::PAUSED);
UQ_SAME_NUMBER(JobState::kCancelling, v1::Job::CANCELLING);
UQ_SAME_NUMBER(JobState::kSucceeded, v1::Job::SUCCEEDED);
UQ_SAME_NUMBER(JobState::kFailed, v1::Job::FAILED);
UQ_SAME_NUMBER(JobState::kCancelled, v1::Job::CANCELLED);
UQ_SAME_NUMBER(kNumJobStates, v1::Job::State_MAX);
UQ_SAME_NUMBER(TaskKind::kUnknown, v1::Task::KIND_UNSPECIFIED);
UQ_SAME_NUMBER(TaskKind::kPrepare, v1::Task::PREPARE);
UQ_SAME_NUMBER(TaskKind::kLayer, v1::Task::LAYER);
UQ_SAME_NUMBER(TaskKind::kFinalize, v1::Task::FINALIZE);
UQ_SAME_NUMBER(TaskKind::kDistill, v1::Task::DISTILL);
UQ_SAME_NUMBER(kNumTaskKinds, v1::Task::Kind_MAX);
UQ_SAME_NUMBER(TaskState::kUnknown, v1::Task::STATE_UNSPECIFIED);
UQ_SAME_NUMBER(TaskState::kBlocked, v1::Task::BLOCKED);
UQ_SAME_NUMBER(TaskState::kReady, v1::Task::READY);
UQ_SAME_NUMBER(TaskState::kLeased, v1::Task::LEASED);
UQ_SAME_NUMBER(TaskState::kSucceeded, v1::Task::SUCCEEDED);
UQ_SAME_NUMBER(TaskState::kFailed, v1::Task::FAILED);
UQ_SAME_NUMBER(TaskState::kCancelled, v1::Task::CANCELLED);
UQ_SAME_NUMBER(kNumTaskStates, v1::Task::State_MAX);
UQ_SAME_NUMBER(FailureClass::kUnknown, v1::FAILURE_CLASS_UNSPECIFIED);
UQ_SAME_NUMBER(FailureClass::kWorkerLost, v1::WORKER_LOST);
UQ_SAME_NUMBER(FailureClass::kTransient, v1::TRANSIENT);
UQ_SAME_NUMBER(FailureClass::kOutOfMemory, v1::OUT_OF_MEMORY);
UQ_SAME_NUMBER(FailureClass::kInvalidInput, v1::INVALID_INPUT);
UQ_SAME_NUMBER(FailureClass::kInternal, v1::INTERNAL);
UQ_SAME_NUMBER(FailureClass::kEnvironment, v1::ENVIRONMENT);
UQ_SAME_NUMBER(FailureClass::kInputLost, v1::INPUT_LOST);
UQ_SAME_NUMBER(kNumFailureClasses, v1::FailureClass_MAX);
#undef UQ_SAME_NUMBER

// A message's enum, which may hold any number, as ours.
template <typename Ours, typename Theirs>
Ours KnownOr(Theirs value, int num_known) {
  const int number = static_cast<int>(value);
  return number >= 0 && number <= num_known ? static_cast<Ours>(number) : Ours::kUnknown;
}

}  // namespace

void WishToProto(const JobWish& wish, v1::Job* proto) {
  proto->set_tenant(wish.tenant);
  proto->set_priority(wish.priority);
  proto->mutable_labels()->insert(wish.labels.begin(), wish.labels.end());
  if (wish.deadline) *proto->mutable_deadline() = TimeToProto(*wish.deadline);
  if (wish.time_to_live) *proto->mutable_time_to_live() = DurationToProto(*wish.time_to_live);
  proto->set_device(wish.device);
}

void WishFromProto(const v1::Job& proto, JobWish* wish) {
  wish->tenant = proto.tenant();
  wish->priority = proto.priority();
  wish->labels.insert(proto.labels().begin(), proto.labels().end());
  if (proto.has_deadline()) wish->deadline = TimeFromProto(proto.deadline());
  if (proto.has_time_to_live()) wish->time_to_live = DurationFromProto(proto.time_to_live());
  wish->device = proto.device();
}

void JobFieldsToProto(const JobFields& job, v1::Job* proto) {
  WishToProto(job, proto);
  proto->set_uid(job.uid);
  proto->set_version(job.version);
  proto->set_state(static_cast<v1::Job::State>(job.state));
  proto->set_status_message(job.status_message);
  if (job.error) {
    proto->mutable_error()->set_reason(job.error->reason);
    proto->mutable_error()->set_message(job.error->message);
    proto->mutable_error()->set_task(job.error->task);
  }
  *proto->mutable_create_time() = TimeToProto(job.create_time);
  *proto->mutable_update_time() = TimeToProto(job.update_time);
  if (job.start_time) *proto->mutable_start_time() = TimeToProto(*job.start_time);
  if (job.end_time) *proto->mutable_end_time() = TimeToProto(*job.end_time);
  if (job.artifact) ArtifactToProto(*job.artifact, proto->mutable_artifact());
  if (job.waiting) {
    proto->mutable_waiting()->set_reason(job.waiting->reason);
    proto->mutable_waiting()->set_num_before(job.waiting->num_before);
  }
}

void JobFieldsFromProto(const v1::Job& proto, JobFields* job) {
  WishFromProto(proto, job);
  job->uid = proto.uid();
  job->version = proto.version();
  job->state = KnownOr<JobState>(proto.state(), kNumJobStates);
  job->status_message = proto.status_message();
  if (proto.has_error()) {
    job->error = JobError{proto.error().reason(), proto.error().message(), proto.error().task()};
  }
  if (proto.has_create_time()) job->create_time = TimeFromProto(proto.create_time());
  if (proto.has_update_time()) job->update_time = TimeFromProto(proto.update_time());
  if (proto.has_start_time()) job->start_time = TimeFromProto(proto.start_time());
  if (proto.has_end_time()) job->end_time = TimeFromProto(proto.end_time());
  if (proto.has_artifact()) job->artifact = ArtifactFromProto(proto.artifact());
  if (proto.has_waiting()) {
    job->waiting = Waiting{proto.waiting().reason(), proto.waiting().num_before()};
  }
}

void ProgressToProto(const JobProgress& progress, v1::JobProgress* proto) {
  proto->set_num_tasks(progress.num_tasks);
  proto->set_num_tasks_succeeded(progress.num_tasks_succeeded);
  proto->set_num_layers(progress.num_layers);
  proto->set_num_layers_succeeded(progress.num_layers_succeeded);
  proto->set_fraction(progress.fraction);
  if (progress.remaining) *proto->mutable_remaining() = DurationToProto(*progress.remaining);
}

JobProgress ProgressFromProto(const v1::JobProgress& proto) {
  JobProgress progress;
  progress.num_tasks = proto.num_tasks();
  progress.num_tasks_succeeded = proto.num_tasks_succeeded();
  progress.num_layers = proto.num_layers();
  progress.num_layers_succeeded = proto.num_layers_succeeded();
  progress.fraction = proto.fraction();
  if (proto.has_remaining()) progress.remaining = DurationFromProto(proto.remaining());
  return progress;
}

void TaskFieldsToProto(const TaskFields& task, v1::Task* proto) {
  proto->set_kind(TaskKindToProto(task.kind));
  proto->set_layer(task.layer);
  proto->set_round(task.round);
  proto->set_state(static_cast<v1::Task::State>(task.state));
  proto->set_attempt(task.attempt);
  proto->set_worker(task.worker);
  for (const TaskFailure& failure : task.failures) {
    v1::TaskFailure* f = proto->add_failures();
    f->set_failure_class(static_cast<v1::FailureClass>(failure.failure_class));
    f->set_reason(failure.reason);
    f->set_message(failure.message);
    f->set_attempt(failure.attempt);
    f->set_worker(failure.worker);
    *f->mutable_time() = TimeToProto(failure.time);
  }
  if (task.start_time) *proto->mutable_start_time() = TimeToProto(*task.start_time);
  if (task.end_time) *proto->mutable_end_time() = TimeToProto(*task.end_time);
  if (task.next_attempt_time) {
    *proto->mutable_next_attempt_time() = TimeToProto(*task.next_attempt_time);
  }
  proto->set_result_sha256(task.result_sha256);
  proto->set_initial_loss(task.initial_loss);
  proto->set_final_loss(task.final_loss);
}

void TaskFieldsFromProto(const v1::Task& proto, TaskFields* task) {
  task->kind = TaskKindFromProto(proto.kind());
  task->layer = proto.layer();
  task->round = proto.round();
  task->state = KnownOr<TaskState>(proto.state(), kNumTaskStates);
  task->attempt = proto.attempt();
  task->worker = proto.worker();
  for (const v1::TaskFailure& failure : proto.failures()) {
    task->failures.push_back(
        {FailureClassFromProto(failure.failure_class()), failure.reason(), failure.message(),
         failure.attempt(), failure.worker(),
         failure.has_time() ? TimeFromProto(failure.time()) : absl::InfinitePast()});
  }
  if (proto.has_start_time()) task->start_time = TimeFromProto(proto.start_time());
  if (proto.has_end_time()) task->end_time = TimeFromProto(proto.end_time());
  if (proto.has_next_attempt_time()) {
    task->next_attempt_time = TimeFromProto(proto.next_attempt_time());
  }
  task->result_sha256 = proto.result_sha256();
  task->initial_loss = proto.initial_loss();
  task->final_loss = proto.final_loss();
}

void TaskProgressToProto(const TaskProgress& progress, v1::TaskProgress* proto) {
  proto->set_phase(progress.phase);
  proto->set_step(progress.step);
  proto->set_num_steps(progress.num_steps);
  proto->set_loss(progress.loss);
  if (progress.remaining) *proto->mutable_remaining() = DurationToProto(*progress.remaining);
  if (progress.elapsed != absl::ZeroDuration()) {
    *proto->mutable_elapsed() = DurationToProto(progress.elapsed);
  }
  PhasesToProto(progress.finished, proto->mutable_finished());
  proto->set_fraction(progress.fraction);
}

TaskProgress TaskProgressFromProto(const v1::TaskProgress& proto) {
  TaskProgress progress;
  progress.phase = proto.phase();
  progress.step = proto.step();
  progress.num_steps = proto.num_steps();
  progress.loss = proto.loss();
  if (proto.has_remaining()) progress.remaining = DurationFromProto(proto.remaining());
  if (proto.has_elapsed()) progress.elapsed = DurationFromProto(proto.elapsed());
  progress.finished = PhasesFromProto(proto.finished());
  progress.fraction = proto.fraction();
  return progress;
}

void PhasesToProto(const std::vector<PhaseTime>& phases, PhaseTimesProto* proto) {
  for (const PhaseTime& time : phases) {
    v1::PhaseTime* p = proto->Add();
    p->set_phase(time.phase);
    *p->mutable_duration() = DurationToProto(time.duration);
  }
}

std::vector<PhaseTime> PhasesFromProto(const PhaseTimesProto& proto) {
  std::vector<PhaseTime> phases;
  for (int i = 0; i < std::min(proto.size(), kMaxPhases); ++i) {
    phases.push_back({proto[i].phase().substr(0, 64), DurationFromProto(proto[i].duration())});
  }
  return phases;
}

void HistoryToProto(const LossHistory& history, int64_t after, v1::LossHistory* proto) {
  for (size_t i = 0; i < history.size(); ++i) {
    if (history.steps()[i] <= after) continue;
    proto->add_steps(history.steps()[i]);
    proto->add_losses(history.losses()[i]);
  }
}

void AppendHistory(const v1::LossHistory& proto, LossHistory* history) {
  const int num_points = std::min(proto.steps_size(), proto.losses_size());
  for (int i = 0; i < num_points; ++i) history->Append(proto.steps(i), proto.losses(i));
}

void WorkToProto(const JobWork& work, v1::JobWork* proto) {
  proto->set_num_steps(work.num_steps);
  proto->set_tokens_per_step(work.tokens_per_step);
  proto->set_calibration_tokens(work.calibration_tokens);
  proto->set_evaluation_tokens(work.evaluation_tokens);
  proto->set_layer_weights(work.layer_weights);
  proto->set_head_weights(work.head_weights);
  proto->set_distill_steps(work.distill_steps);
  proto->set_distill_tokens_per_step(work.distill_tokens_per_step);
  proto->set_text_tokens(work.text_tokens);
}

JobWork WorkFromProto(const v1::JobWork& proto) {
  const auto amount = [](int64_t value) { return std::max<int64_t>(0, value); };
  JobWork work;
  work.num_steps = amount(proto.num_steps());
  work.tokens_per_step = amount(proto.tokens_per_step());
  work.calibration_tokens = amount(proto.calibration_tokens());
  work.evaluation_tokens = amount(proto.evaluation_tokens());
  work.layer_weights = amount(proto.layer_weights());
  work.head_weights = amount(proto.head_weights());
  work.distill_steps = amount(proto.distill_steps());
  work.distill_tokens_per_step = amount(proto.distill_tokens_per_step());
  work.text_tokens = amount(proto.text_tokens());
  return work;
}

void ModulesToProto(const std::vector<ModuleMetrics>& modules, ModulesProto* proto) {
  for (const ModuleMetrics& module : modules) {
    v1::ModuleMetrics* m = proto->Add();
    m->set_module(module.module);
    m->set_bits(module.bits);
    m->set_group_size(module.group_size);
    m->set_weight_error(module.weight_error);
    m->set_num_saturated(module.num_saturated);
  }
}

std::vector<ModuleMetrics> ModulesFromProto(const ModulesProto& proto) {
  std::vector<ModuleMetrics> modules;
  for (const v1::ModuleMetrics& m : proto) {
    modules.push_back(
        {m.module().substr(0, 256), m.bits(), m.group_size(), m.weight_error(), m.num_saturated()});
  }
  if (modules.size() > kMaxModuleMetrics) {
    std::stable_sort(modules.begin(), modules.end(),
                     [](const ModuleMetrics& a, const ModuleMetrics& b) {
                       return a.weight_error > b.weight_error;
                     });
    modules.resize(kMaxModuleMetrics);
  }
  return modules;
}

void ArtifactToProto(const ArtifactInfo& artifact, v1::Artifact* proto) {
  proto->set_uri(artifact.uri);
  proto->set_manifest_sha256(artifact.manifest_sha256);
  proto->set_size_bytes(artifact.size_bytes);
}

ArtifactInfo ArtifactFromProto(const v1::Artifact& proto) {
  return {proto.uri(), proto.manifest_sha256(), proto.size_bytes()};
}

void QualityToProto(const QualityReport& quality, v1::QualityReport* proto) {
  proto->set_divergence(quality.divergence);
  proto->set_same_top_token(quality.same_top_token);
  proto->set_num_compared_tokens(quality.num_compared_tokens);
  if (quality.baseline_perplexity) proto->set_baseline_perplexity(*quality.baseline_perplexity);
  proto->set_verdict(quality.verdict);
  for (const TextSample& text : quality.texts) {
    v1::TextSample* sample = proto->add_texts();
    sample->set_prompt(text.prompt);
    sample->set_before(text.before);
    sample->set_after(text.after);
  }
}

QualityReport QualityFromProto(const v1::QualityReport& proto) {
  QualityReport quality;
  quality.divergence = proto.divergence();
  quality.same_top_token = proto.same_top_token();
  quality.num_compared_tokens = proto.num_compared_tokens();
  if (proto.has_baseline_perplexity()) quality.baseline_perplexity = proto.baseline_perplexity();
  quality.verdict = proto.verdict();
  for (const v1::TextSample& text : proto.texts()) {
    quality.texts.push_back({text.prompt(), text.before(), text.after()});
  }
  return quality;
}

void ReportToProto(const JobReport& report, v1::JobReport* proto) {
  if (report.perplexity_before) proto->set_perplexity_before(*report.perplexity_before);
  if (report.perplexity_after) proto->set_perplexity_after(*report.perplexity_after);
  proto->set_num_evaluation_tokens(report.num_evaluation_tokens);
  if (report.quality) QualityToProto(*report.quality, proto->mutable_quality());
  for (const LayerReport& layer : report.layers) {
    v1::LayerReport* l = proto->add_layers();
    l->set_layer(layer.layer);
    l->set_initial_loss(layer.initial_loss);
    l->set_final_loss(layer.final_loss);
    l->set_bits(layer.bits);
    *l->mutable_duration() = DurationToProto(layer.duration);
  }
  for (const WindowReport& window : report.windows) {
    v1::WindowReport* w = proto->add_windows();
    w->set_first_layer(window.first_layer);
    w->set_num_layers(window.num_layers);
    w->set_initial_divergence(window.initial_divergence);
    w->set_final_divergence(window.final_divergence);
    *w->mutable_duration() = DurationToProto(window.duration);
  }
  proto->set_model_size_bytes(report.model_size_bytes);
  proto->set_artifact_size_bytes(report.artifact_size_bytes);
  proto->set_average_bits(report.average_bits);
  *proto->mutable_duration() = DurationToProto(report.duration);
  proto->mutable_warnings()->Assign(report.warnings.begin(), report.warnings.end());
}

JobReport ReportFromProto(const v1::JobReport& proto) {
  JobReport report;
  if (proto.has_perplexity_before()) report.perplexity_before = proto.perplexity_before();
  if (proto.has_perplexity_after()) report.perplexity_after = proto.perplexity_after();
  report.num_evaluation_tokens = proto.num_evaluation_tokens();
  if (proto.has_quality()) report.quality = QualityFromProto(proto.quality());
  for (const v1::LayerReport& layer : proto.layers()) {
    report.layers.push_back({layer.layer(),
                             layer.initial_loss(),
                             layer.final_loss(),
                             layer.bits(),
                             DurationFromProto(layer.duration()),
                             {}});
  }
  for (const v1::WindowReport& window : proto.windows()) {
    report.windows.push_back({window.first_layer(),
                              window.num_layers(),
                              window.initial_divergence(),
                              window.final_divergence(),
                              DurationFromProto(window.duration()),
                              {}});
  }
  report.model_size_bytes = proto.model_size_bytes();
  report.artifact_size_bytes = proto.artifact_size_bytes();
  report.average_bits = proto.average_bits();
  report.duration = DurationFromProto(proto.duration());
  report.warnings.assign(proto.warnings().begin(), proto.warnings().end());
  return report;
}

TaskKind TaskKindFromProto(v1::Task::Kind kind) { return KnownOr<TaskKind>(kind, kNumTaskKinds); }

v1::Task::Kind TaskKindToProto(TaskKind kind) { return static_cast<v1::Task::Kind>(kind); }

FailureClass FailureClassFromProto(v1::FailureClass failure_class) {
  return KnownOr<FailureClass>(failure_class, kNumFailureClasses);
}

}  // namespace uniquanf
