#include "common/job/run_tracker.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

using Json = nlohmann::ordered_json;

Json WorkJson(const JobWork& work) {
  return {{"num_steps", work.num_steps},
          {"tokens_per_step", work.tokens_per_step},
          {"calibration_tokens", work.calibration_tokens},
          {"evaluation_tokens", work.evaluation_tokens},
          {"layer_weights", work.layer_weights},
          {"head_weights", work.head_weights},
          {"distill_steps", work.distill_steps},
          {"distill_tokens_per_step", work.distill_tokens_per_step},
          {"text_tokens", work.text_tokens}};
}

JobWork WorkFromJson(const Json& json) {
  JobWork work;
  work.num_steps = json.at("num_steps");
  work.tokens_per_step = json.at("tokens_per_step");
  work.calibration_tokens = json.at("calibration_tokens");
  work.evaluation_tokens = json.at("evaluation_tokens");
  work.layer_weights = json.at("layer_weights");
  work.head_weights = json.at("head_weights");
  work.distill_steps = json.at("distill_steps");
  work.distill_tokens_per_step = json.at("distill_tokens_per_step");
  work.text_tokens = json.at("text_tokens");
  return work;
}

}  // namespace

RunTracker::RunTracker(absl::Duration begin, Recorder recorder)
    : begin_(begin), recorder_(std::move(recorder)), tasks_(1) {
  tasks_[0].timing.key = {TaskKind::kPrepare};
}

void RunTracker::Record(const std::string& line) {
  if (recorder_ != nullptr) recorder_(line);
}

void RunTracker::SetGraph(const GraphShape& shape, const JobWork& work, int num_slots,
                          absl::Duration now) {
  shape_ = shape;
  work_ = work;
  num_slots_ = num_slots;
  const std::vector<TaskNode> graph = BuildTaskGraph(shape);
  tasks_.resize(graph.size());
  for (size_t i = 0; i < graph.size(); ++i) tasks_[i].timing.key = graph[i];
  if (recorder_ == nullptr) return;
  Json json = {{"at", absl::ToDoubleSeconds(now - begin_)}, {"event", "graph"}};
  json["num_layers"] = shape.num_layers;
  json["num_rounds"] = shape.num_rounds;
  json["layers_independent"] = shape.layers_independent;
  json["distill_window"] = shape.distill_window;
  json["num_slots"] = num_slots;
  json["work"] = WorkJson(work);
  Record(json.dump());
}

void RunTracker::Start(int node, absl::Duration now) {
  Tracked& task = tasks_[node];
  task.timing.running = true;
  task.clock = PhaseClock();
  task.timing.progress = {};
  task.started_at = task.told_at = now;
  Record(absl::StrCat("{\"at\":", absl::ToDoubleSeconds(now - begin_),
                      ",\"event\":\"start\",\"node\":", node, "}"));
}

void RunTracker::Update(int node, absl::string_view phase, int64_t step, int64_t num_steps,
                        double loss, absl::Duration now) {
  Tracked& task = tasks_[node];
  task.timing.progress = task.clock.Update(phase, step, num_steps, loss, now);
  task.told_at = now;
  Record(absl::StrCat("{\"at\":", absl::ToDoubleSeconds(now - begin_),
                      ",\"event\":\"step\",\"node\":", node, ",\"phase\":\"", phase,
                      "\",\"step\":", step, ",\"num_steps\":", num_steps, "}"));
}

void RunTracker::Finish(int node, absl::Duration now) {
  Tracked& task = tasks_[node];
  task.timing.running = false;
  task.timing.done = true;
  task.timing.spent = now - task.started_at;
  task.timing.phases = task.clock.End(now);
  ++num_done_;
  Record(absl::StrCat("{\"at\":", absl::ToDoubleSeconds(now - begin_),
                      ",\"event\":\"finish\",\"node\":", node, "}"));
}

void RunTracker::Skip(int node, absl::Duration now) {
  tasks_[node].timing.done = true;
  ++num_done_;
  Record(absl::StrCat("{\"at\":", absl::ToDoubleSeconds(now - begin_),
                      ",\"event\":\"skip\",\"node\":", node, "}"));
}

TimeEstimate RunTracker::Estimate(absl::Duration now) {
  std::vector<TaskTiming> timings;
  timings.reserve(tasks_.size());
  for (const Tracked& task : tasks_) {
    TaskTiming& timing = timings.emplace_back(task.timing);
    if (!timing.running) continue;
    timing.spent = now - task.started_at;
    timing.since_told = now - task.told_at;
  }
  TimeEstimate estimate = EstimateTime(shape_, work_, timings, num_slots_);
  estimate.fraction = fraction_ = std::max(fraction_, estimate.fraction);
  return estimate;
}

absl::Status ReplayRun(absl::string_view lines,
                       const std::function<void(RunTracker*, absl::Duration)>& after) {
  auto tracker = std::make_unique<RunTracker>(absl::ZeroDuration());
  int num_nodes = 1, number = 0;
  for (const absl::string_view line : absl::StrSplit(lines, '\n', absl::SkipWhitespace())) {
    ++number;
    const auto bad = [&](absl::string_view what) {
      return InvalidInput("INVALID_RECORDING",
                          absl::StrCat("line ", number, " of the recording: ", what));
    };
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return bad("no JSON object");
    absl::Duration at;
    try {
      at = absl::Seconds(json.at("at").get<double>());
      const std::string event = json.at("event");
      if (event == "graph") {
        const GraphShape shape = {json.at("num_layers"), json.at("num_rounds"),
                                  json.at("layers_independent"), json.at("distill_window")};
        if (shape.num_layers < 1 || shape.num_rounds < 1 || shape.distill_window < 0 ||
            shape.distill_window > shape.num_layers || NumNodes(shape) > 1000000) {
          return bad("no such graph");
        }
        num_nodes = static_cast<int>(NumNodes(shape));
        tracker->SetGraph(shape, WorkFromJson(json.at("work")), json.at("num_slots"), at);
      } else {
        const int node = json.at("node");
        if (node < 0 || node >= num_nodes) return bad("no such node");
        if (event == "start") {
          tracker->Start(node, at);
        } else if (event == "step") {
          tracker->Update(node, json.at("phase").get<std::string>(), json.at("step"),
                          json.at("num_steps"), 0, at);
        } else if (event == "finish") {
          tracker->Finish(node, at);
        } else if (event == "skip") {
          tracker->Skip(node, at);
        } else {
          return bad("no such event");
        }
      }
    } catch (const Json::exception& error) {
      return bad(error.what());
    }
    after(tracker.get(), at);
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
