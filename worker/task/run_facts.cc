#include "worker/task/run_facts.h"

#include <nlohmann/json.hpp>

#include "worker/task/task_context.h"

namespace uniquanf {

void WriteRunFacts(const TaskEnvironment& env, const std::string& task, absl::Duration elapsed) {
  nlohmann::ordered_json json;
  json["seconds"] = absl::ToDoubleSeconds(elapsed);
  json["finished"] = absl::FormatTime(env.clock->Now(), absl::UTCTimeZone());
  env.work->Write(RunFactsKey(task), json.dump()).IgnoreError();
}

double ReadRunSeconds(const TaskEnvironment& env, const std::string& task) {
  const auto bytes = env.work->Read(RunFactsKey(task), 4096);
  if (!bytes.ok()) return 0;
  const auto json = nlohmann::json::parse(*bytes, nullptr, false);
  if (!json.is_object() || !json.contains("seconds") || !json["seconds"].is_number()) return 0;
  return json["seconds"].get<double>();
}

}  // namespace uniquanf
