#include <chrono>
#include <future>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status.h"
#include "worker/task/layer_task.h"
#include "worker/task/task_context.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// One layer in a thread of its own, at first on nobody's behalf.
class LayerRunner::AheadLayer {
 public:
  AheadLayer(const QuantizationSpec& spec, std::string plan_sha256, LayerRound layer,
             const TaskEnvironment& env)
      : plan_sha256_(std::move(plan_sha256)),
        work_uri_(env.work_uri),
        layer_(layer),
        wanted_(std::make_shared<Wanted>(env.clock, env.stop)) {
    TaskEnvironment own = env;
    own.progress = [this](const TaskStepProgress& progress) { Report(progress); };
    own.stop = [wanted = wanted_] { return wanted->StopRequested(); };
    // Without the results before it: it has its inputs, or it cannot run ahead.
    running_ = std::async(std::launch::async, [this, spec, own = std::move(own)] {
      return OptimizeLayer(spec, plan_sha256_, layer_, /*earlier=*/nullptr, own);
    });
  }
  ~AheadLayer() {
    if (!running_.valid()) return;  // somebody has taken over what it has
    wanted_->GiveUp();
    running_.wait();
  }

  bool Is(const std::string& plan_sha256, LayerRound layer, const std::string& work_uri) const {
    return plan_sha256_ == plan_sha256 && layer_ == layer && work_uri_ == work_uri;
  }
  const std::string& plan_sha256() const { return plan_sha256_; }
  LayerRound layer() const { return layer_; }

  // Nobody may come for it any more after this.
  void GiveUpAt(absl::Duration deadline) { wanted_->GiveUpAt(deadline); }

  // Goes on on behalf of a task with this environment until the device is free. Null when it was
  // given up or could not run ahead: as if it had never run.
  absl::StatusOr<std::unique_ptr<UnstoredLayer>> TakeOver(const TaskEnvironment& env) {
    const bool ended_before =
        running_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    const bool given_up = !wanted_->TakeOver(env.stop);
    {
      absl::MutexLock lock(&mutex_);
      env_ = &env;
      if (!given_up && env.progress && reported_.has_value()) {
        // What it has seen so far, for the curve of its losses.
        for (size_t i = 0; i < losses_.size(); ++i) {
          env.progress({"reconstructing", losses_.steps()[i], num_steps_,
                        static_cast<double>(losses_.losses()[i])});
        }
        env.progress(*reported_);
      }
    }
    absl::StatusOr<std::unique_ptr<UnstoredLayer>> ended = running_.get();
    if (!ended.ok() &&
        (ended_before || given_up || ErrorReason(ended.status()) == kInputsNotAtHand)) {
      return nullptr;
    }
    return ended;
  }

 private:
  // Whether anybody may still come for the layer; its stores ask, also when it is gone.
  class Wanted {
   public:
    // `before`: what stops the task that it runs ahead of.
    Wanted(const Clock* clock, StopToken before) : clock_(clock), before_(std::move(before)) {}

    bool StopRequested() {
      absl::MutexLock lock(&mutex_);
      if (taken_over_.has_value() && !given_up_) return taken_over_->StopRequested();
      // For good: who comes later must not find something half done.
      given_up_ = given_up_ || before_.StopRequested() ||
                  (deadline_.has_value() && clock_->Monotonic() > *deadline_);
      return given_up_;
    }
    void GiveUp() {
      absl::MutexLock lock(&mutex_);
      given_up_ = true;
    }
    void GiveUpAt(absl::Duration deadline) {
      absl::MutexLock lock(&mutex_);
      deadline_ = deadline;
    }
    // False: it was given up. From here on the task's token decides.
    bool TakeOver(StopToken stop) {
      absl::MutexLock lock(&mutex_);
      taken_over_ = std::move(stop);
      return !given_up_;
    }

   private:
    const Clock* const clock_;
    const StopToken before_;
    absl::Mutex mutex_;
    bool given_up_ ABSL_GUARDED_BY(mutex_) = false;
    std::optional<absl::Duration> deadline_ ABSL_GUARDED_BY(mutex_);
    std::optional<StopToken> taken_over_ ABSL_GUARDED_BY(mutex_);
  };

  void Report(const TaskStepProgress& progress) {
    absl::MutexLock lock(&mutex_);
    reported_ = progress;
    if (env_ == nullptr && progress.loss > 0) {
      losses_.Add(progress.step, static_cast<float>(progress.loss));
      num_steps_ = progress.num_steps;
    }
    if (env_ != nullptr && env_->progress) env_->progress(progress);
  }

  const std::string plan_sha256_, work_uri_;
  const LayerRound layer_;
  const std::shared_ptr<Wanted> wanted_;

  absl::Mutex mutex_;
  const TaskEnvironment* env_ ABSL_GUARDED_BY(mutex_) = nullptr;  // of the task that has taken over
  std::optional<TaskStepProgress> reported_ ABSL_GUARDED_BY(mutex_);
  LossHistory losses_ ABSL_GUARDED_BY(mutex_);  // before that
  int64_t num_steps_ ABSL_GUARDED_BY(mutex_) = 0;

  // Last: the thread uses the rest.
  std::future<absl::StatusOr<std::unique_ptr<UnstoredLayer>>> running_;
};

LayerRunner::LayerRunner() = default;
LayerRunner::~LayerRunner() = default;

void LayerRunner::Stop() { ahead_.reset(); }

std::optional<LayerRound> LayerRunner::Ahead(const std::string& plan_sha256) const {
  if (ahead_ == nullptr || ahead_->plan_sha256() != plan_sha256) return std::nullopt;
  return ahead_->layer();
}

absl::StatusOr<LayerOutcome> LayerRunner::Run(const QuantizationSpec& spec,
                                              const std::string& plan_sha256, LayerRound layer,
                                              const std::vector<std::string>& earlier,
                                              const TaskEnvironment& env) {
  std::unique_ptr<UnstoredLayer> unstored;
  if (ahead_ != nullptr && ahead_->Is(plan_sha256, layer, env.work_uri)) {
    absl::StatusOr<std::unique_ptr<UnstoredLayer>> taken = ahead_->TakeOver(env);
    ahead_.reset();
    if (!taken.ok()) return taken.status();
    unstored = *std::move(taken);
  }
  Stop();
  if (unstored == nullptr) {
    UQ_ASSIGN_OR_RETURN(unstored, OptimizeLayer(spec, plan_sha256, layer, &earlier, env));
  }
  const std::optional<LayerRound> next = unstored->NextAtHand();
  if (next.has_value()) ahead_ = std::make_unique<AheadLayer>(spec, plan_sha256, *next, env);
  absl::StatusOr<LayerOutcome> outcome = unstored->Store();
  if (!outcome.ok()) {
    Stop();
  } else if (ahead_ != nullptr) {
    ahead_->GiveUpAt(env.clock->Monotonic() + kPatience);
  }
  return outcome;
}

}  // namespace uniquanf
