// Configurations of published models against the table in docs/MODELS.md. The files are not part
// of this project: they are looked for in ../shared/configs beside it (or where
// UNIQUANF_PUBLISHED_CONFIGS says), and the test is skipped where they are missing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "worker/model/model_config.h"

namespace uniquanf {
namespace {

constexpr char kHeading[] = "## Published configurations";

std::string ConfigsFolder() {
  const char* folder = std::getenv("UNIQUANF_PUBLISHED_CONFIGS");
  return folder != nullptr ? folder : absl::StrCat(UNIQUANF_SOURCE_DIR, "/../shared/configs");
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Folder and outcome of each row below the heading.
std::map<std::string, std::string> Table() {
  std::map<std::string, std::string> table;
  const std::string text = ReadFile(absl::StrCat(UNIQUANF_SOURCE_DIR, "/docs/MODELS.md"));
  bool below = false;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, "## ")) below = line == kHeading;
    if (!below || !absl::StartsWith(line, "| `")) continue;
    const std::vector<std::string> cells = absl::StrSplit(line, '|');
    if (cells.size() != 4) {
      ADD_FAILURE() << "a row of docs/MODELS.md has not two cells: " << line;
      continue;
    }
    std::string folder(absl::StripAsciiWhitespace(cells[1]));
    folder.erase(std::remove(folder.begin(), folder.end(), '`'), folder.end());
    table[folder] = std::string(absl::StripAsciiWhitespace(cells[2]));
  }
  return table;
}

std::string Traits(const ModelConfig& config) {
  std::set<std::string> heads, ropes;
  std::set<int64_t> windows;
  int with_window = 0, with_experts = 0, without_rope = 0, with_sinks = 0, with_slopes = 0;
  std::string experts;
  for (const BlockSpec& block : config.blocks) {
    bool rotated = false, latent = false;
    for (const Node& node : block.nodes) {
      rotated = rotated || std::holds_alternative<RopeNode>(node);
      latent = latent || std::holds_alternative<JoinNode>(node);
      if (const auto* mixture = std::get_if<ExpertsNode>(&node)) {
        ++with_experts;
        experts = absl::StrCat(mixture->router.num_experts, " experts of ", mixture->size, ", ",
                               mixture->router.top_k, " chosen");
      }
    }
    for (const Node& node : block.nodes) {
      const auto* attention = std::get_if<AttentionNode>(&node);
      if (attention == nullptr) continue;
      const ops::AttentionShape& shape = attention->shape;
      heads.insert(
          latent ? absl::StrCat(shape.num_heads, " latent heads of ", shape.head_dim, "/",
                                shape.values())
                 : absl::StrCat(
                       shape.num_heads, "/", shape.num_kv_heads, " heads of ", shape.head_dim,
                       shape.values() == shape.head_dim ? "" : absl::StrCat("/", shape.values())));
      if (shape.window > 0) windows.insert(shape.window);
      with_window += shape.window > 0;
      with_sinks += attention->sinks >= 0;
      with_slopes += attention->slopes >= 0;
    }
    without_rope += !rotated;
  }
  for (const RopeConfig& rope : config.ropes) ropes.insert(rope.type);
  std::string text = absl::StrCat(config.model_type, ": ", config.num_layers, " layers, ",
                                  absl::StrJoin(heads, " or "));
  if (with_experts > 0) absl::StrAppend(&text, "; ", experts, " in ", with_experts, " layers");
  if (with_window > 0) {
    absl::StrAppend(&text, "; window ", absl::StrJoin(windows, ", "), " in ", with_window);
  }
  if (with_sinks > 0) absl::StrAppend(&text, "; sinks in ", with_sinks);
  if (with_slopes > 0) absl::StrAppend(&text, "; ALiBi");
  if (!config.ropes.empty()) absl::StrAppend(&text, "; rope ", absl::StrJoin(ropes, ", "));
  if (without_rope > 0) absl::StrAppend(&text, "; no rope in ", without_rope);
  if (config.ends.tied) absl::StrAppend(&text, "; tied");
  if (!config.source.method.empty()) absl::StrAppend(&text, "; from ", config.source.method);
  return text;
}

std::string Outcome(const std::string& text) {
  const auto config = ParseModelConfig(text);
  if (config.ok()) return absl::StrCat("accepted, ", Traits(*config));
  std::string message(config.status().message());
  if (absl::StartsWith(message, "config.json: ")) message = message.substr(13);
  return absl::StrCat("refused, ", message.substr(0, message.find("; supported are")));
}

TEST(PublishedConfigsTest, AreAcceptedOrRefusedAsTheTableSays) {
  const std::string folder = ConfigsFolder();
  if (!std::filesystem::is_directory(folder)) {
    GTEST_SKIP() << "no configurations in " << folder;
  }
  std::map<std::string, std::string> outcomes;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string path = entry.path().string() + "/config.json";
    if (!std::filesystem::exists(path)) continue;
    outcomes[entry.path().filename().string()] = Outcome(ReadFile(path));
  }
  EXPECT_EQ(outcomes.size(), 71u);
  const std::map<std::string, std::string> table = Table();
  for (const auto& [name, outcome] : outcomes) {
    const auto row = table.find(name);
    if (row == table.end()) {
      ADD_FAILURE() << "docs/MODELS.md has no row\n| `" << name << "` | " << outcome << " |";
    } else {
      EXPECT_EQ(outcome, row->second) << name;
    }
  }
  for (const auto& [name, outcome] : table) {
    EXPECT_EQ(outcomes.count(name), 1u) << "docs/MODELS.md has a row for no file: " << name;
  }
}

}  // namespace
}  // namespace uniquanf
