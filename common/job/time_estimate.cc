#include "common/job/time_estimate.h"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <queue>
#include <string>
#include <tuple>
#include <utility>

namespace uniquanf {
namespace {

// Of a token through a layer that is trained, in forward passes: forward, backward twice as much,
// and the quantizer. Only for phases of which nothing like it has been measured.
constexpr double kTrainPasses = 6;
constexpr double kDistillPasses = 4;
constexpr double kHeadPasses = 2;
// A token that is written alone reads all weights for itself.
constexpr double kWrittenToken = 8;
// Of a layer's training: what is around it, as measured on small models, where it weighs most.
constexpr double kAround = 0.03;
// While the model has not been read, nobody knows what follows.
constexpr double kPreparePart = 0.02;
constexpr double kAlmostDone = 0.995;
// How many of the tasks that are done tell what the next one takes: the machine may be busier now.
constexpr size_t kMaxLike = 4;
// From this part of a phase on, its own pace is all that counts.
constexpr double kTrustPace = 0.2;

// Phases whose amounts are done at a similar rate.
enum Rate { kForward, kTrain, kDistill, kInitialize, kWrite, kOther, kNumRates };

struct Phase {
  const char* name;
  Rate rate;
  double units;
};
using Phases = std::vector<Phase>;

double LayerSteps(const GraphShape& shape, const JobWork& work, int round) {
  const auto steps = static_cast<double>(work.num_steps);
  if (shape.num_rounds <= 1) return steps;
  // The last round is twice as long.
  return steps * (round + 1 == shape.num_rounds ? 2 : 1) / (shape.num_rounds + 1);
}

// In order; their sum is the task.
Phases PhasesOf(const GraphShape& shape, const JobWork& work, const TaskKey& task) {
  const double weights = std::max<double>(1, static_cast<double>(work.layer_weights));
  const double head = static_cast<double>(work.head_weights) * kHeadPasses;
  const double calibration = static_cast<double>(work.calibration_tokens) * weights;
  const double num_layers = std::max(1, shape.num_layers);
  const double train = LayerSteps(shape, work, 0) * static_cast<double>(work.tokens_per_step) *
                       weights * kTrainPasses;
  const double around = std::max({train, calibration, weights}) * kAround;
  switch (task.kind) {
    case TaskKind::kLayer:
      return {
          {"loading", kOther, around},
          {"activations", kForward, 2 * calibration},
          {"initializing", kInitialize, task.round > 0 ? 0 : std::max(2 * calibration, 5 * around)},
          {"reconstructing", kTrain,
           LayerSteps(shape, work, task.round) * static_cast<double>(work.tokens_per_step) *
               weights * kTrainPasses},
          {"storing", kOther, around}};
    case TaskKind::kDistill: {
      const double layers = num_layers - task.layer;
      return {{"loading", kOther, around * layers},
              {"activations", kForward, task.layer == 0 ? calibration * num_layers : calibration},
              {"distilling", kDistill,
               static_cast<double>(work.distill_steps) *
                   static_cast<double>(work.distill_tokens_per_step) *
                   (layers * weights + head / kHeadPasses) * kDistillPasses},
              {"storing", kOther, around * std::max(1, shape.distill_window)}};
    }
    case TaskKind::kFinalize: {
      const double model = num_layers * weights + head;
      return {
          {"storing", kOther, around * num_layers / 5},
          {"evaluating", kForward, static_cast<double>(work.evaluation_tokens) * model},
          {"writing text", kWrite, static_cast<double>(work.text_tokens) * model * kWrittenToken}};
    }
    case TaskKind::kPrepare:
    case TaskKind::kUnknown:
      break;
  }
  return {};
}

double Seconds(absl::Duration duration) { return std::max(0.0, absl::ToDoubleSeconds(duration)); }

// Tasks whose phases do the same.
std::pair<TaskKind, bool> Like(const TaskKey& task) { return {task.kind, task.round > 0}; }

class Estimator {
 public:
  Estimator(const GraphShape& shape, const JobWork& work, const std::vector<TaskTiming>& tasks)
      : shape_(shape), work_(work) {
    for (const TaskTiming& task : tasks) Measure(task);
  }

  bool known() const { return known_; }

  // Seconds that a task takes which has not begun.
  double Whole(const TaskKey& task) {
    // What its phases depend on.
    const auto [known, added] = whole_.try_emplace(
        {task.kind, task.round, task.kind == TaskKind::kDistill ? task.layer : 0});
    double& seconds = known->second;
    if (!added) return seconds;
    for (const Phase& phase : PhasesOf(shape_, work_, task)) seconds += Expected(task, phase);
    return seconds;
  }

  // Seconds that are left of one that runs.
  double Left(const TaskTiming& task) const {
    const Phases phases = PhasesOf(shape_, work_, task.key);
    const TaskProgress& told = task.progress;
    int at = Position(phases, told);
    double left = 0;
    for (int i = 0; i < static_cast<int>(phases.size()); ++i) {
      const double expected = Expected(task.key, phases[i]);
      if (phases[i].name == told.phase) {
        left += LeftOfPresent(told, Seconds(task.since_told), expected);
      } else if (i > at) {
        left += expected;
      }
    }
    if (at >= static_cast<int>(phases.size())) left += LeftOfPresent(told, 0, 0);
    return left;
  }

 private:
  // A layer's activations come twice: for its targets, and when it is stored for the next layer.
  static int Position(const Phases& phases, const TaskProgress& told) {
    int at = -1;
    const auto reach = [&](const std::string& name) {
      for (int i = 0; i < static_cast<int>(phases.size()); ++i) {
        if (phases[i].name == name) at = std::max(at, i);
      }
    };
    for (const PhaseTime& time : told.finished) reach(time.phase);
    reach(told.phase);
    return at;
  }

  static double LeftOfPresent(const TaskProgress& told, double since, double expected) {
    const double elapsed = Seconds(told.elapsed);
    const double now = elapsed + since;
    double total = expected;
    if (told.step > 0 && told.num_steps > 0 && told.remaining.has_value()) {
      const double part =
          std::min(1.0, static_cast<double>(told.step) / static_cast<double>(told.num_steps));
      const double pace = elapsed + Seconds(*told.remaining);
      const double trust = expected > 0 ? std::min(1.0, part / kTrustPace) : 1;
      total = trust * pace + (1 - trust) * expected;
    }
    // Later than it was to be: nobody knows by how much.
    return std::max(total - now, told.step > 0 ? 0.0 : 0.1 * now);
  }

  void Note(const Phase& phase, double seconds, double part) {
    if (seconds <= 0 || phase.units <= 0) return;
    known_ = known_ || phase.rate != kOther;  // loading tells nothing of the rest
    rate_seconds_[phase.rate] += seconds;
    rate_units_[phase.rate] += phase.units * part;
  }

  void Measure(const TaskTiming& task) {
    if (!task.done && !task.running) return;
    const Phases phases = PhasesOf(shape_, work_, task.key);
    if (phases.empty()) return;
    const std::vector<PhaseTime>& times = task.done ? task.phases : task.progress.finished;
    if (task.done && times.empty()) {
      // From a worker that does not tell: as its phases ought to have been.
      double units = 0;
      for (const Phase& phase : phases) units += phase.units;
      for (const Phase& phase : phases) {
        if (units > 0) Note(phase, Seconds(task.spent) * phase.units / units, 1);
      }
    }
    for (const PhaseTime& time : times) {
      for (const Phase& phase : phases) {
        if (phase.name == time.phase) Note(phase, Seconds(time.duration), 1);
      }
    }
    if (task.done) {
      done_.push_back(&task);
    } else if (task.progress.num_steps > 0 && task.progress.step > 0) {
      for (const Phase& phase : phases) {
        if (phase.name != task.progress.phase) continue;
        Note(phase, Seconds(task.progress.elapsed),
             std::min(1.0, static_cast<double>(task.progress.step) /
                               static_cast<double>(task.progress.num_steps)));
      }
    }
  }

  // Seconds of a phase of a task that has not come to it.
  double Expected(const TaskKey& task, const Phase& phase) const {
    double seconds = 0;
    size_t num = 0;
    for (auto it = done_.rbegin(); it != done_.rend() && num < kMaxLike; ++it) {
      const TaskTiming& other = **it;
      if (Like(other.key) != Like(task) || other.phases.empty()) continue;
      double units = 0;
      for (const Phase& its : PhasesOf(shape_, work_, other.key)) {
        if (its.name == std::string(phase.name)) units = its.units;
      }
      const double scale = units > 0 && phase.units > 0 ? phase.units / units : 1;
      for (const PhaseTime& time : other.phases) {
        if (time.phase == phase.name) seconds += Seconds(time.duration) * scale;
      }
      ++num;
    }
    if (num > 0) return seconds / static_cast<double>(num);
    return phase.units * RateOf(phase.rate);
  }

  // Seconds a unit.
  double RateOf(Rate rate) const {
    if (rate_units_[rate] > 0) return rate_seconds_[rate] / rate_units_[rate];
    for (const Rate other : {kTrain, kForward, kDistill, kInitialize, kOther}) {
      if (rate_units_[other] > 0) return rate_seconds_[other] / rate_units_[other];
    }
    return 0;
  }

  const GraphShape& shape_;
  const JobWork& work_;
  std::array<double, kNumRates> rate_seconds_{}, rate_units_{};
  std::vector<const TaskTiming*> done_;
  bool known_ = false;
  std::map<std::tuple<TaskKind, int32_t, int32_t>, double> whole_;
};

// The time until the last task ends when each of `num_slots` takes the task that could begin first.
double Schedule(const std::vector<TaskNode>& graph, const std::vector<TaskTiming>& tasks,
                const std::vector<double>& left, int num_slots) {
  std::priority_queue<double, std::vector<double>, std::greater<>> slots;
  std::vector<std::vector<int32_t>> dependents(graph.size());
  std::vector<int32_t> num_open(graph.size());
  std::vector<double> ready(graph.size());
  using Start = std::pair<double, size_t>;
  std::priority_queue<Start, std::vector<Start>, std::greater<>> startable;
  double end = 0;
  std::vector<std::pair<double, size_t>> ended;
  for (size_t i = 0; i < graph.size(); ++i) {
    for (const int32_t d : graph[i].depends_on) {
      dependents[d].push_back(static_cast<int32_t>(i));
      ++num_open[i];
    }
    if (num_open[i] == 0) startable.push({0, i});
  }
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (tasks[i].running) slots.push(left[i]);
  }
  while (static_cast<int>(slots.size()) < num_slots) slots.push(0);
  while (!startable.empty()) {
    const auto [at, i] = startable.top();
    startable.pop();
    double finish = at;
    if (i < tasks.size() && tasks[i].running) {
      finish = left[i];
    } else if (i >= tasks.size() || !tasks[i].done) {
      finish = std::max(at, slots.top()) + left[i];
      slots.pop();
      slots.push(finish);
    }
    end = std::max(end, finish);
    for (const int32_t d : dependents[i]) {
      ready[d] = std::max(ready[d], finish);
      if (--num_open[d] == 0) startable.push({ready[d], static_cast<size_t>(d)});
    }
  }
  return end;
}

}  // namespace

TimeEstimate EstimateTime(const GraphShape& shape, const JobWork& work,
                          const std::vector<TaskTiming>& tasks, int num_slots) {
  TimeEstimate estimate;
  estimate.tasks.resize(tasks.size());
  if (shape.num_layers < 1) {
    if (!tasks.empty() && tasks[0].running && tasks[0].progress.num_steps > 0) {
      const TaskProgress& told = tasks[0].progress;
      estimate.tasks[0] = {
          std::clamp(static_cast<double>(told.step) / static_cast<double>(told.num_steps), 0.0,
                     kAlmostDone),
          told.remaining};
      estimate.fraction = kPreparePart * estimate.tasks[0].fraction;
    }
    return estimate;
  }
  Estimator estimator(shape, work, tasks);
  const std::vector<TaskNode> graph = BuildTaskGraph(shape);
  std::vector<double> left(graph.size());
  double spent = 0, sum = 0;
  for (size_t i = 0; i < graph.size(); ++i) {
    if (i >= tasks.size()) {
      left[i] = estimator.Whole(graph[i]);
    } else if (tasks[i].done) {
      // What an earlier run has done counts as what it would take now.
      const bool earlier = tasks[i].spent == absl::ZeroDuration();
      spent += earlier ? estimator.Whole(tasks[i].key) : Seconds(tasks[i].spent);
    } else if (tasks[i].running) {
      const double mine = Seconds(tasks[i].spent);
      left[i] = estimator.Left(tasks[i]);
      spent += mine;
      if (estimator.known()) {
        estimate.tasks[i].remaining = absl::Seconds(left[i]);
        if (mine + left[i] > 0) {
          estimate.tasks[i].fraction = std::min(mine / (mine + left[i]), kAlmostDone);
        }
      }
    } else {
      left[i] = estimator.Whole(tasks[i].key);
    }
    sum += left[i];
  }
  if (!estimator.known()) {
    estimate.fraction = kPreparePart;
    return estimate;
  }
  estimate.fraction = spent + sum > 0 ? std::min(spent / (spent + sum), kAlmostDone) : 0;
  const bool one_after_another = shape.num_rounds <= 1 && !shape.layers_independent;
  estimate.remaining =
      absl::Seconds(one_after_another ? sum : Schedule(graph, tasks, left, std::max(1, num_slots)));
  return estimate;
}

double LayerUnits(const GraphShape& shape, const JobWork& work, int round) {
  double units = 0;
  for (const Phase& phase : PhasesOf(shape, work, {TaskKind::kLayer, 0, round})) {
    units += phase.units;
  }
  return units;
}

double WorkUnits(const GraphShape& shape, const JobWork& work) {
  double units = 0;
  for (const TaskNode& node : BuildTaskGraph(shape)) {
    for (const Phase& phase : PhasesOf(shape, work, node)) units += phase.units;
  }
  return units;
}

}  // namespace uniquanf
