// Every place that a job's settings name, and what for.
//
// Thread safety: free function.
#ifndef UNIQUANF_SERVER_SERVICE_SPEC_LOCATIONS_H_
#define UNIQUANF_SERVER_SERVICE_SPEC_LOCATIONS_H_

#include <string>
#include <vector>

#include "common/object_store/data_access.h"
#include "uniquanf/v1/job.pb.h"

namespace uniquanf::server {

struct SpecLocation {
  std::string member;  // "model_uri", "calibration_mix.uri"
  DataPurpose purpose = DataPurpose::kModel;
  std::string uri;
};
// Those that are set. A test fails for a field of the proto that ends in "uri" and is not among
// them.
std::vector<SpecLocation> LocationsOf(const v1::QuantizationSpec& spec);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SPEC_LOCATIONS_H_
