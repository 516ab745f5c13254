// `uniquanf-batch quantize`: prepare, every layer in order, finalize; the same functions that the
// service's workers call.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/file_modes.h"
#include "common/base/format_bytes.h"
#include "common/base/printable.h"
#include "common/base/status.h"
#include "common/job/task_graph.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"
#include "worker/batch/print_outcome.h"
#include "worker/batch/run_progress.h"
#include "worker/batch/work_area.h"
#include "worker/task/output.h"
#include "worker/task/task_runner.h"

namespace uniquanf::batch {
namespace {

struct QuantizeFlags {
  QuantizationSpec spec;
  DeviceFlags device;
  CacheFlags cache;
  std::string work;
  std::optional<uint32_t> artifact_mode;
  std::string activations = "auto";
  bool json = false;
  bool fresh = false;
  std::string record;
};

// Runs the job and shows its progress. Layers run one after the other on the first device, or,
// where they are independent or pipelined, on as many devices as can work at once.
class QuantizeRun {
 public:
  explicit QuantizeRun(const QuantizeFlags& flags) : flags_(flags), progress_(flags.record) {}

  absl::StatusOr<FinalizeOutcome> Run() {
    DType act;
    UQ_ASSIGN_OR_RETURN(backends_, flags_.device.MakeBackends(&act));
    const std::shared_ptr<ObjectCache> cache = OpenCache(flags_.cache);
    UQ_ASSIGN_OR_RETURN(work_, WorkArea::Open(flags_.work, flags_.spec.output_uri, cache));
    for (const std::unique_ptr<Backend>& backend : backends_) {
      caches_.push_back(NewActivationCache());
      TaskEnvironment env;
      env.backend = backend.get();
      env.act = act;
      env.clock = &SystemClock();
      env.cache = caches_.back().get();
      env.work = work_->store();
      env.work_uri = work_->uri();
      env.model_cache = cache;
      env.artifact_mode = flags_.artifact_mode;
      env.activations = flags_.activations == "device" ? ActivationPlacement::kDevice
                        : flags_.activations == "host" ? ActivationPlacement::kHost
                                                       : ActivationPlacement::kAuto;
      env.stop = [this] { return Interrupted() || failed_; };
      slots_.push_back(std::move(env));
      runners_.push_back(std::make_unique<LayerRunner>());
    }
    absl::StatusOr<FinalizeOutcome> outcome = RunTasks();
    progress_.End();
    if (outcome.ok() || (!work_->HasProgress() && !absl::IsCancelled(outcome.status()))) {
      const absl::Status removed = work_->Remove();
      if (outcome.ok() && !removed.ok()) {
        std::fprintf(stderr, "warning: %s\n", PrintableText(removed.message()).c_str());
      }
    } else {
      std::fprintf(stderr,
                   "Finished layers are kept in %s; run the same command again to continue.\n",
                   work_->uri().c_str());
    }
    return outcome;
  }

 private:
  absl::StatusOr<FinalizeOutcome> RunTasks() {
    Watch(0, "prepare", &slots_[0]);
    UQ_ASSIGN_OR_RETURN(prepared_, RunPrepare(flags_.spec, slots_[0]));
    progress_.Finish(0, "");
    const MemoryInfo memory = backends_[0]->memory();
    if (prepared_.layer_memory_bytes > memory.total_bytes) {
      return MakeError(
          absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
          absl::StrCat("a layer needs about ", FormatBytes(prepared_.layer_memory_bytes),
                       ", but the device has ", FormatBytes(memory.total_bytes),
                       "; use fewer or shorter calibration sequences "
                       "(--num-samples, --sequence-length)"));
    }
    shape_ = {prepared_.num_layers, prepared_.num_rounds, prepared_.layers_independent,
              prepared_.distill_window};
    graph_ = BuildTaskGraph(shape_);
    progress_.SetGraph(shape_, prepared_.work, static_cast<int>(slots_.size()));
    std::vector<std::string> results;
    UQ_RETURN_IF_ERROR(RunLayers());
    UQ_RETURN_IF_ERROR(RunWindows(&results));
    Watch(graph_.size() - 1, "finalize", &slots_[0]);
    absl::StatusOr<FinalizeOutcome> outcome =
        RunFinalize(flags_.spec, prepared_.plan_sha256, results, slots_[0]);
    if (!outcome.ok()) AbandonOutput(flags_.spec.output_uri, prepared_.plan_sha256).IgnoreError();
    return outcome;
  }

  // Windows follow one another, on the first device. Hands over what finalize is given.
  absl::Status RunWindows(std::vector<std::string>* results) {
    absl::MutexLock lock(&schedule_mutex_);
    for (size_t node = 0; node < graph_.size(); ++node) {
      const TaskKey& task = graph_[node];
      if (task.kind != TaskKind::kDistill) continue;
      UQ_ASSIGN_OR_RETURN(results_[node], RunOneWindow(node, InputsFor(task)));
    }
    *results = InputsFor(graph_.back());
    return absl::OkStatus();
  }

  // The result's digest.
  absl::StatusOr<std::string> RunOneWindow(size_t node, const std::vector<std::string>& inputs) {
    const TaskKey& task = graph_[node];
    const int last = std::min(task.layer + prepared_.distill_window, prepared_.num_layers) - 1;
    const std::string name = absl::StrCat("layers ", task.layer, " to ", last, " distilled");
    const int index = static_cast<int>(node);
    std::string result = flags_.fresh ? "" : work_->Finished(prepared_.plan_sha256, task);
    if (!result.empty()) {
      progress_.Skip(index, absl::StrCat(name, ": done by an earlier run"));
      return result;
    }
    Watch(node, name, &slots_[0]);
    UQ_ASSIGN_OR_RETURN(
        const WindowTaskOutcome outcome,
        RunWindow(flags_.spec, prepared_.plan_sha256, task.layer, inputs, slots_[0]));
    result = outcome.result_sha256;
    UQ_RETURN_IF_ERROR(work_->RecordFinished(prepared_.plan_sha256, task, result));
    progress_.Finish(index, absl::StrFormat("%s: divergence %.4f -> %.4f nats a token", name,
                                            outcome.initial_divergence, outcome.final_divergence));
    return result;
  }

  absl::Status RunLayers() {
    const size_t most = prepared_.layers_independent ? prepared_.num_layers : prepared_.num_rounds;
    std::vector<absl::Status> statuses(std::min(slots_.size(), most));
    {
      absl::MutexLock lock(&schedule_mutex_);
      results_.assign(graph_.size(), "");
      results_[0] = prepared_.plan_sha256;
      started_.assign(graph_.size(), false);
      next_.assign(statuses.size(), std::nullopt);
      // Independent layers in runs of neighbours, so that a device mostly has the next one's
      // inputs.
      for (size_t slot = 0; slot < next_.size() && prepared_.layers_independent; ++slot) {
        next_[slot] = LayerRound{static_cast<int>(slot * prepared_.num_layers / next_.size()), 0};
      }
    }
    std::vector<std::thread> threads;
    for (size_t slot = 0; slot < statuses.size(); ++slot) {
      threads.emplace_back([&, slot] {
        statuses[slot] = RunLayersOn(slot);
        runners_[slot]->Stop();
        if (statuses[slot].ok()) return;
        absl::MutexLock lock(&schedule_mutex_);
        failed_ = true;  // the others stop too
        finished_one_.SignalAll();
      });
    }
    for (std::thread& thread : threads) thread.join();
    // The error that came first is not a cancellation.
    for (const absl::Status& status : statuses) {
      if (!status.ok() && !absl::IsCancelled(status)) return status;
    }
    for (const absl::Status& status : statuses) UQ_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  // Takes one layer's task after the other until all are taken.
  absl::Status RunLayersOn(size_t slot) {
    absl::MutexLock lock(&schedule_mutex_);
    while (!failed_ && num_started_ < prepared_.num_layers * prepared_.num_rounds) {
      const std::optional<size_t> taken = Choose(slot);
      if (!taken.has_value()) {
        finished_one_.Wait(&schedule_mutex_);
        continue;
      }
      started_[*taken] = true;
      ++num_started_;
      const LayerRound layer = LayerOf(graph_[*taken]);
      const size_t node = *taken;
      const std::vector<std::string> inputs = InputsFor(graph_[*taken]);
      schedule_mutex_.Unlock();
      absl::StatusOr<std::string> result = RunOneLayer(node, layer, inputs, slot);
      schedule_mutex_.Lock();
      if (!result.ok()) return result.status();
      results_[*taken] = *std::move(result);
      next_[slot] = LayerRound{layer.layer + 1, layer.round};
      finished_one_.SignalAll();
    }
    return absl::OkStatus();
  }

  static LayerRound LayerOf(const TaskKey& task) { return {task.layer, task.round}; }

  // The next layer of the round that the slot is in, whose inputs it has at hand; else the first
  // one that can run and that no other slot has the inputs of.
  std::optional<size_t> Choose(size_t slot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(schedule_mutex_) {
    std::optional<size_t> first;
    for (size_t i = 0; i < graph_.size(); ++i) {
      if (!CanRun(i)) continue;
      const LayerRound layer = LayerOf(graph_[i]);
      if (layer == next_[slot]) return i;
      if (!first && std::find(next_.begin(), next_.end(), layer) == next_.end()) first = i;
    }
    return first;
  }

  bool CanRun(size_t node) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(schedule_mutex_) {
    const TaskNode& task = graph_[node];
    if (task.kind != TaskKind::kLayer || started_[node]) return false;
    for (const int32_t i : task.depends_on) {
      if (results_[i].empty()) return false;
    }
    return true;
  }

  std::vector<std::string> InputsFor(const TaskKey& task) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(schedule_mutex_) {
    std::vector<std::string> inputs;
    for (const int32_t i : InputsOf(shape_, task)) inputs.push_back(results_[i]);
    return inputs;
  }

  // The result's digest.
  absl::StatusOr<std::string> RunOneLayer(size_t node, LayerRound task,
                                          const std::vector<std::string>& inputs, size_t slot) {
    const TaskKey key = {TaskKind::kLayer, task.layer, task.round};
    const int index = static_cast<int>(node);
    const std::string name = prepared_.num_rounds == 1
                                 ? absl::StrCat("layer ", task.layer)
                                 : absl::StrCat("layer ", task.layer, " round ", task.round + 1,
                                                "/", prepared_.num_rounds);
    std::string result = flags_.fresh ? "" : work_->Finished(prepared_.plan_sha256, key);
    if (!result.empty()) {
      UQ_RETURN_IF_ERROR(
          CheckFinishedLayer(flags_.spec, prepared_.plan_sha256, task, result, slots_[slot]));
      progress_.Skip(index, absl::StrCat(name, ": done by an earlier run"));
      return result;
    }
    Watch(node, name, &slots_[slot]);
    UQ_ASSIGN_OR_RETURN(
        const LayerOutcome outcome,
        runners_[slot]->Run(flags_.spec, prepared_.plan_sha256, task, inputs, slots_[slot]));
    result = outcome.result_sha256;
    UQ_RETURN_IF_ERROR(work_->RecordFinished(prepared_.plan_sha256, key, result));
    std::string text;
    if (outcome.initial_loss > 0) {
      text = absl::StrCat(
          absl::StrFormat("%s: block error %.3e -> %.3e", name, outcome.initial_loss,
                          outcome.final_loss),
          outcome.kept_start ? ", stored as it began" : "",
          outcome.num_folded > 0 ? absl::StrCat(", ", outcome.num_folded, " channels folded") : "");
    }
    progress_.Finish(index, text);
    return result;
  }

  // The node of the graph begins now on the slot: its progress is shown.
  void Watch(size_t node, const std::string& task, TaskEnvironment* env) {
    progress_.Start(static_cast<int>(node), task);
    env->progress = [this, node](const TaskStepProgress& progress) {
      progress_.Update(static_cast<int>(node), progress);
    };
  }

  const QuantizeFlags& flags_;
  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<std::unique_ptr<ActivationCache>> caches_;
  std::unique_ptr<WorkArea> work_;
  std::vector<TaskEnvironment> slots_;  // one a device, as are these:
  std::vector<std::unique_ptr<LayerRunner>> runners_;
  PrepareOutcome prepared_;
  GraphShape shape_;
  std::vector<TaskNode> graph_;
  std::atomic<bool> failed_{false};

  absl::Mutex schedule_mutex_;
  absl::CondVar finished_one_;
  // By node of the graph; "" until finished.
  std::vector<std::string> results_ ABSL_GUARDED_BY(schedule_mutex_);
  std::vector<bool> started_ ABSL_GUARDED_BY(schedule_mutex_);  // likewise
  int num_started_ ABSL_GUARDED_BY(schedule_mutex_) = 0;
  // By slot: the layer whose inputs it has at hand.
  std::vector<std::optional<LayerRound>> next_ ABSL_GUARDED_BY(schedule_mutex_);

  RunProgress progress_;
};

}  // namespace

int Quantize(const std::vector<std::string>& arguments) {
  QuantizeFlags flags;
  FlagSet flag_set("uniquanf-batch quantize --model DIR --calibration FILE --output DIR [flags]",
                   "Quantizes a Hugging Face checkpoint into a unified artifact. A run that was "
                   "interrupted continues when the same command is given again.");
  AddSpecFlags(&flag_set, &flags.spec);
  flags.device.AddTo(&flag_set);
  flag_set.Choice("activations", {"auto", "device", "host"}, &flags.activations,
                  "where calibration activations lie; auto: on the device when they fit");
  flags.cache.AddTo(&flag_set);
  flag_set.Section("Run");
  flag_set.String("work", "DIR", &flags.work,
                  "where work in progress lies; default: OUTPUT.partial");
  flag_set.Custom("artifact-mode", "MODE", "",
                  "mode of the artifact's directories, its files are the same without execution; "
                  "default: 0750 less the umask",
                  [&flags](absl::string_view text) {
                    return ParseDirectoryMode(text, &flags.artifact_mode.emplace());
                  });
  flag_set.Bool("fresh", &flags.fresh, "do not continue from an earlier run's finished layers");
  flag_set.String("record-progress", "FILE", &flags.record,
                  "write what progress is estimated from to FILE, a JSON line an event");
  flag_set.Bool("json", &flags.json, "print the report as JSON on standard output");
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  for (const auto& [name, value] :
       {std::pair{"model", &flags.spec.model_uri}, std::pair{"output", &flags.spec.output_uri}}) {
    if (!value->empty()) continue;
    std::fprintf(stderr, "error: --%s is required\nTry --help.\n", name);
    return kUsage;
  }
  if (const absl::Status cache = flags.cache.Check(); !cache.ok()) {
    std::fprintf(stderr, "error: %s\nTry --help.\n", std::string(cache.message()).c_str());
    return kUsage;
  }
  MakeUrisAbsolute(&flags.spec);
  QuantizeRun run(flags);
  const absl::StatusOr<FinalizeOutcome> outcome = run.Run();
  if (!outcome.ok()) return Fail(outcome.status(), flags.json);
  if (flags.json) {
    PrintJson(*outcome);
  } else {
    PrintReport(*outcome);
  }
  return kOk;
}

}  // namespace uniquanf::batch
