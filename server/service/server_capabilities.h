// What GetServerInfo says can be asked for: settings with their ranges, limits, and what the
// workers that call now are.
// Thread safety: free functions.
#ifndef UNIQUANF_SERVER_SERVICE_SERVER_CAPABILITIES_H_
#define UNIQUANF_SERVER_SERVICE_SERVER_CAPABILITIES_H_

#include "absl/time/time.h"
#include "server/core/state.h"
#include "uniquanf/v1/admin_service.pb.h"

namespace uniquanf::server {

// A row for every field of common/spec/spec_fields.h that is a plain value.
void SettingsToProto(v1::ServerCapabilities* proto);
// Kinds of devices and architectures, of workers that are present at the monotonic time `now`.
void FleetToProto(const State& state, absl::Duration now, v1::ServerCapabilities* proto);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SERVER_CAPABILITIES_H_
