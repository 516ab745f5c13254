#include "worker/agent/engine_executor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifact/signature.h"
#include "common/base/status.h"
#include "common/object_store/caching_store.h"
#include "common/object_store/data_access.h"
#include "common/rpc/job_proto.h"
#include "common/rpc/spec_proto.h"
#include "worker/task/lost_inputs.h"

namespace uniquanf {
namespace {

v1::TaskOutcome PrepareToProto(const PrepareOutcome& outcome, DeviceKind device) {
  v1::TaskOutcome proto;
  proto.set_result_sha256(outcome.plan_sha256);
  proto.set_num_layers(outcome.num_layers);
  proto.set_layers_independent(outcome.layers_independent);
  proto.set_num_rounds(outcome.num_rounds);
  proto.set_distill_window(outcome.distill_window);
  proto.set_device(device == DeviceKind::kCuda ? "cuda" : "cpu");
  proto.set_layer_memory_bytes(static_cast<int64_t>(outcome.layer_memory_bytes));
  WorkToProto(outcome.work, proto.mutable_work());
  return proto;
}

v1::TaskOutcome FinalizeToProto(const FinalizeOutcome& outcome) {
  v1::TaskOutcome proto;
  proto.set_result_sha256(outcome.artifact.manifest_sha256);
  ArtifactToProto(outcome.artifact, proto.mutable_artifact());
  ReportToProto(outcome.report, proto.mutable_report());
  return proto;
}

std::shared_ptr<const DataAccess> DataOf(const v1::TaskAssignment& assignment,
                                         const std::string& credentials_dir) {
  std::vector<DataGrant> grants;
  for (const v1::DataGrant& proto : assignment.data()) {
    DataGrant& grant = grants.emplace_back();
    grant.uri_prefix = proto.uri_prefix();
    grant.credentials = proto.credentials();
    for (const int purpose : proto.purposes()) {
      switch (purpose) {
        case v1::DataGrant::MODEL:
          grant.purposes.push_back(DataPurpose::kModel);
          break;
        case v1::DataGrant::CALIBRATION:
          grant.purposes.push_back(DataPurpose::kCalibration);
          break;
        case v1::DataGrant::EVALUATION:
          grant.purposes.push_back(DataPurpose::kEvaluation);
          break;
        case v1::DataGrant::OUTPUT:
          grant.purposes.push_back(DataPurpose::kOutput);
          break;
        default:  // of a later protocol: grants nothing here
          break;
      }
    }
  }
  return std::make_shared<const DataAccess>(
      std::move(grants),
      std::vector<std::string>(assignment.withheld_uri_prefixes().begin(),
                               assignment.withheld_uri_prefixes().end()),
      credentials_dir);
}

}  // namespace

std::string JobOfTask(absl::string_view task) {
  return std::string(task.substr(0, task.find("/tasks/")));
}

EngineExecutor::EngineExecutor(std::unique_ptr<Backend> backend, const Clock* clock,
                               EngineExecutorOptions options)
    : backend_(std::move(backend)),
      clock_(clock),
      cache_(NewActivationCache()),
      options_(std::move(options)) {}

EngineExecutor::~EngineExecutor() = default;

absl::StatusOr<v1::TaskOutcome> EngineExecutor::Execute(const v1::TaskAssignment& assignment,
                                                        const TaskCallbacks& callbacks) {
  TaskEnvironment environment;
  environment.backend = backend_.get();
  environment.act = backend_->kind() == DeviceKind::kCuda ? DType::kBfloat16 : DType::kFloat32;
  environment.clock = clock_;
  environment.cache = cache_.get();
  environment.progress = callbacks.progress;
  environment.model_cache = options_.object_cache;
  environment.store_observer = options_.store_observer;
  environment.artifact_mode = options_.artifact_mode;
  environment.work_uri = assignment.work_uri();
  environment.job = JobOfTask(assignment.task());
  if (assignment.data_is_confined())
    environment.data = DataOf(assignment, options_.credentials_dir);
  if (options_.signing_key.has_value() && !assignment.worker().empty()) {
    environment.signer = ResultSigner{*options_.signing_key, assignment.worker()};
  }
  environment.stop = [running = running_] {
    absl::MutexLock lock(&running->mutex);
    return running->stop.StopRequested();
  };
  SetStop(callbacks.stop);
  absl::StatusOr<v1::TaskOutcome> outcome = OpenAndDispatch(assignment, &environment);
  // Another try starts from a clean slate: half-filled caches are not worth their risk.
  if (!outcome.ok()) {
    layers_.Stop();
    cache_->Clear();
  }
  if (outcome.ok() && environment.signer.has_value()) {
    outcome->set_signature(environment.signer->key.Sign(
        ResultMessage(assignment.worker(), assignment.lease_id(), outcome->result_sha256())));
  }
  SetStop(StopToken());
  NoteCached(assignment);
  return outcome;
}

void EngineExecutor::SetStop(StopToken stop) {
  absl::MutexLock lock(&running_->mutex);
  running_->stop = std::move(stop);
}

absl::StatusOr<v1::TaskOutcome> EngineExecutor::OpenAndDispatch(
    const v1::TaskAssignment& assignment, TaskEnvironment* environment) {
  StoreOptions options;
  options.stop = environment->stop;
  options.observer = options_.store_observer;
  UQ_ASSIGN_OR_RETURN(environment->work, OpenObjectStoreThrough(assignment.work_uri(),
                                                                options_.object_cache, options));
  const absl::StatusOr<v1::TaskOutcome> outcome = Dispatch(assignment, *environment);
  const std::string suspect = WorkObjectOf(outcome.status());
  if (suspect.empty() || assignment.plan_sha256().empty()) return outcome;
  // The server can have lost inputs made again when it knows which.
  const absl::StatusOr<std::vector<std::string>> lost =
      FindLostInputs(environment->work.get(), assignment.plan_sha256(),
                     {assignment.layer_sha256().begin(), assignment.layer_sha256().end()}, suspect);
  if (!lost.ok() || lost->empty()) return outcome;
  return WithLostInputs(outcome.status(), *lost);
}

absl::StatusOr<v1::TaskOutcome> EngineExecutor::Dispatch(const v1::TaskAssignment& assignment,
                                                         const TaskEnvironment& environment) {
  UQ_ASSIGN_OR_RETURN(const QuantizationSpec spec, SpecFromProto(assignment.spec()));
  const std::vector<std::string> layers(assignment.layer_sha256().begin(),
                                        assignment.layer_sha256().end());
  if (assignment.kind() != v1::Task::LAYER) layers_.Stop();
  switch (assignment.kind()) {
    case v1::Task::PREPARE: {
      UQ_ASSIGN_OR_RETURN(const PrepareOutcome outcome, RunPrepare(spec, environment));
      return PrepareToProto(outcome, backend_->kind());
    }
    case v1::Task::LAYER: {
      UQ_ASSIGN_OR_RETURN(
          const LayerOutcome outcome,
          layers_.Run(spec, assignment.plan_sha256(), {assignment.layer(), assignment.round()},
                      layers, environment));
      v1::TaskOutcome proto;
      proto.set_result_sha256(outcome.result_sha256);
      proto.set_initial_loss(outcome.initial_loss);
      proto.set_final_loss(outcome.final_loss);
      ModulesToProto(outcome.modules, proto.mutable_modules());
      HistoryToProto(outcome.history, 0, proto.mutable_history());
      return proto;
    }
    case v1::Task::DISTILL: {
      UQ_ASSIGN_OR_RETURN(
          const WindowTaskOutcome outcome,
          RunWindow(spec, assignment.plan_sha256(), assignment.layer(), layers, environment));
      v1::TaskOutcome proto;
      proto.set_result_sha256(outcome.result_sha256);
      proto.set_initial_loss(outcome.initial_divergence);
      proto.set_final_loss(outcome.final_divergence);
      HistoryToProto(outcome.history, 0, proto.mutable_history());
      return proto;
    }
    case v1::Task::FINALIZE: {
      UQ_ASSIGN_OR_RETURN(const FinalizeOutcome outcome,
                          RunFinalize(spec, assignment.plan_sha256(), layers, environment));
      return FinalizeToProto(outcome);
    }
    default:
      return MakeError(absl::StatusCode::kInternal, "INVALID_ASSIGNMENT",
                       absl::StrCat("task ", assignment.task(), " is of the unknown kind ",
                                    assignment.kind(), ": is the server newer than this worker?"));
  }
}

void EngineExecutor::NoteCached(const v1::TaskAssignment& assignment) {
  std::optional<LayerRound> layer;
  if (const std::string& plan = assignment.plan_sha256(); !plan.empty()) {
    layer = layers_.Ahead(plan);
    if (!layer.has_value()) layer = cache_->CachedLayer(plan);
  }
  absl::MutexLock lock(&mutex_);
  cached_.clear();
  if (!layer.has_value()) return;
  v1::CachedActivations& cached = cached_.emplace_back();
  cached.set_job(JobOfTask(assignment.task()));
  cached.set_layer(layer->layer);
  cached.set_round(layer->round);
}

std::vector<v1::CachedActivations> EngineExecutor::Cached() const {
  absl::MutexLock lock(&mutex_);
  return cached_;
}

}  // namespace uniquanf
