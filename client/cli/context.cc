#include "client/cli/context.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cli/yaml.h"
#include "common/base/environment.h"
#include "common/base/read_file.h"
#include "common/base/status.h"

namespace uniquanf::cli {
namespace {

absl::Status Invalid(const std::string& path, absl::string_view what) {
  return InvalidInput("INVALID_CONFIG", absl::StrCat("configuration ", path, ": ", what));
}

std::string ConfigPath() {
  const std::string named = EnvironmentVariable("UNIQUANF_CONFIG");
  if (!named.empty()) return named;
  std::string folder = EnvironmentVariable("XDG_CONFIG_HOME");
  if (folder.empty()) {
    const std::string home = EnvironmentVariable("HOME");
    if (home.empty()) return "";
    folder = absl::StrCat(home, "/.config");
  }
  return absl::StrCat(folder, "/uniquanf/config.yaml");
}

// The context that is asked for before the file's own word counts.
std::string AskedFor(const std::vector<std::string>& arguments) {
  std::string name = EnvironmentVariable("UNIQUANF_CONTEXT");
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view argument = arguments[i];
    if (argument == "--") break;
    if (argument == "--context" && i + 1 < arguments.size()) name = arguments[i + 1];
    if (absl::ConsumePrefix(&argument, "--context=")) name = std::string(argument);
  }
  return name;
}

// Flags may be given as the help names them or with '_'.
std::string FlagName(std::string key) {
  for (char& c : key) {
    if (c == '_') c = '-';
  }
  return key;
}

}  // namespace

absl::Status ApplyContext(const std::vector<std::string>& arguments, FlagSet* flags) {
  std::string name = AskedFor(arguments);
  const std::string path = ConfigPath();
  std::error_code error;
  if (path.empty() || !std::filesystem::exists(path, error)) {
    if (name.empty()) return absl::OkStatus();
    return Invalid(
        path, absl::StrCat("there is no such file, but the context \"", name, "\" is asked for"));
  }
  const absl::StatusOr<std::string> text = ReadSmallFile(path);
  if (!text.ok()) return Invalid(path, text.status().message());
  const absl::StatusOr<nlohmann::json> parsed = ParseYaml(*text);
  if (!parsed.ok()) return Invalid(path, parsed.status().message());
  if (!parsed->is_object())
    return Invalid(path, "it is no mapping; give contexts: and names in it");
  if (name.empty())
    name = parsed->value("current-context", nlohmann::json("")).is_string()
               ? (*parsed).value("current-context", "")
               : "";
  if (name.empty()) return absl::OkStatus();
  const auto contexts = parsed->find("contexts");
  if (contexts == parsed->end() || !contexts->is_object() || !contexts->contains(name) ||
      !(*contexts)[name].is_object()) {
    return Invalid(path, absl::StrCat("there is no context \"", name, "\" under contexts"));
  }
  for (const auto& [key, value] : (*contexts)[name].items()) {
    const std::string written = value.is_string() ? value.get<std::string>() : value.dump();
    const absl::Status set = flags->Preset(FlagName(key), written);
    if (!set.ok()) {
      return Invalid(path, absl::StrCat("context \"", name, "\": ", set.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace uniquanf::cli
