#include "server/service/spec_locations.h"

namespace uniquanf::server {

std::vector<SpecLocation> LocationsOf(const v1::QuantizationSpec& spec) {
  std::vector<SpecLocation> locations;
  const auto add = [&locations](const char* member, DataPurpose purpose, const std::string& uri) {
    if (!uri.empty()) locations.push_back({member, purpose, uri});
  };
  add("model_uri", DataPurpose::kModel, spec.model_uri());
  add("calibration_uri", DataPurpose::kCalibration, spec.calibration_uri());
  for (const v1::CalibrationShare& share : spec.calibration_mix()) {
    add("calibration_mix.uri", DataPurpose::kCalibration, share.uri());
  }
  add("distillation_uri", DataPurpose::kCalibration, spec.distillation_uri());
  add("evaluation_uri", DataPurpose::kEvaluation, spec.evaluation_uri());
  add("output_uri", DataPurpose::kOutput, spec.output_uri());
  return locations;
}

}  // namespace uniquanf::server
