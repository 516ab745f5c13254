// `uniquanf-batch spec`: the settings that flags and a file make, or the reference page of all.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/spec/spec_fields.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"

namespace uniquanf::batch {

int PrintSpec(const std::vector<std::string>& arguments) {
  QuantizationSpec spec;
  bool markdown = false;
  FlagSet flag_set("uniquanf-batch spec [flags]",
                   "Prints the settings in force with these flags, as the JSON that --spec reads.");
  AddSpecFlags(&flag_set, &spec);
  flag_set.Section("Output");
  flag_set.Bool("markdown", &markdown, "print the reference page of every setting instead");
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  if (markdown) {
    std::fputs(SpecMarkdown().c_str(), stdout);
  } else {
    std::printf("%s\n", nlohmann::ordered_json::parse(spec.ToJson()).dump(1).c_str());
  }
  return kOk;
}

}  // namespace uniquanf::batch
