// QuantizationSpec <-> its protocol buffer. Thread safety: free functions, no state.
#ifndef UNIQUANF_COMMON_RPC_SPEC_PROTO_H_
#define UNIQUANF_COMMON_RPC_SPEC_PROTO_H_

#include "absl/status/statusor.h"
#include "common/spec/quantization_spec.h"
#include "uniquanf/v1/job.pb.h"

namespace uniquanf {

// Unset fields take the defaults of QuantizationSpec. Only values that a QuantizationSpec cannot
// hold are refused here (kInvalidArgument, INVALID_SPEC: an unknown method, an override that sets a
// number meaning "the job's"); call Validate() on the result.
absl::StatusOr<QuantizationSpec> SpecFromProto(const v1::QuantizationSpec& proto);

// Complete: every field is set. SpecFromProto gives back an equal spec.
v1::QuantizationSpec SpecToProto(const QuantizationSpec& spec);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_SPEC_PROTO_H_
