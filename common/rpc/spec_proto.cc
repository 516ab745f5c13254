#include "common/rpc/spec_proto.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

absl::StatusOr<QuantizationMethod> MethodFromProto(v1::QuantizationSpec::Method method) {
  switch (method) {
    case v1::QuantizationSpec::METHOD_UNSPECIFIED:
    case v1::QuantizationSpec::UNIQUANF:
      return QuantizationMethod::kUniquanf;
    case v1::QuantizationSpec::FLEXROUND:
      return QuantizationMethod::kFlexround;
    case v1::QuantizationSpec::ALTERNATING:
      return QuantizationMethod::kAlternating;
    case v1::QuantizationSpec::RTN:
      return QuantizationMethod::kRtn;
    default:
      return InvalidInput("INVALID_SPEC",
                          absl::StrCat("spec.method is ", static_cast<int>(method),
                                       ", which this version does not know; allowed: UNIQUANF (1), "
                                       "FLEXROUND (2), ALTERNATING (3), RTN (4)"));
  }
}

v1::QuantizationSpec::Method MethodToProto(QuantizationMethod method) {
  switch (method) {
    case QuantizationMethod::kUniquanf:
      return v1::QuantizationSpec::UNIQUANF;
    case QuantizationMethod::kFlexround:
      return v1::QuantizationSpec::FLEXROUND;
    case QuantizationMethod::kAlternating:
      return v1::QuantizationSpec::ALTERNATING;
    case QuantizationMethod::kRtn:
      return v1::QuantizationSpec::RTN;
  }
  return v1::QuantizationSpec::METHOD_UNSPECIFIED;
}

absl::StatusOr<LayerSchedule> ScheduleFromProto(v1::QuantizationSpec::Schedule schedule) {
  switch (schedule) {
    case v1::QuantizationSpec::SCHEDULE_UNSPECIFIED:
    case v1::QuantizationSpec::SEQUENTIAL:
      return LayerSchedule::kSequential;
    case v1::QuantizationSpec::PIPELINED:
      return LayerSchedule::kPipelined;
    default:
      return InvalidInput("INVALID_SPEC",
                          absl::StrCat("spec.schedule is ", static_cast<int>(schedule),
                                       ", which this version does not know; allowed: SEQUENTIAL "
                                       "(1), PIPELINED (2)"));
  }
}

v1::QuantizationSpec::Schedule ScheduleToProto(LayerSchedule schedule) {
  switch (schedule) {
    case LayerSchedule::kSequential:
      return v1::QuantizationSpec::SEQUENTIAL;
    case LayerSchedule::kPipelined:
      return v1::QuantizationSpec::PIPELINED;
  }
  return v1::QuantizationSpec::SCHEDULE_UNSPECIFIED;
}

absl::StatusOr<ModuleOverride> OverrideFromProto(const v1::ModuleOverride& proto, int index) {
  ModuleOverride out;
  out.pattern = proto.pattern();
  out.full_precision = proto.full_precision();
  if (proto.has_bits()) {
    if (proto.bits() == 0) {
      return InvalidInput("INVALID_SPEC",
                          absl::StrCat("spec.overrides[", index,
                                       "].bits is 0; allowed: 2 to 8, or unset for the job's"));
    }
    out.bits = proto.bits();
  }
  if (proto.has_group_size()) {
    if (proto.group_size() < 0) {
      return InvalidInput(
          "INVALID_SPEC",
          absl::StrCat("spec.overrides[", index, "].group_size is ", proto.group_size(),
                       "; allowed: 0 (per row) or more, or unset for the job's"));
    }
    out.group_size = proto.group_size();
  }
  return out;
}

}  // namespace

absl::StatusOr<QuantizationSpec> SpecFromProto(const v1::QuantizationSpec& proto) {
  QuantizationSpec spec;
  spec.model_uri = proto.model_uri();
  spec.calibration_uri = proto.calibration_uri();
  spec.output_uri = proto.output_uri();
  spec.evaluation_uri = proto.evaluation_uri();
  UQ_ASSIGN_OR_RETURN(spec.method, MethodFromProto(proto.method()));
  UQ_ASSIGN_OR_RETURN(spec.schedule, ScheduleFromProto(proto.schedule()));
  for (int i = 0; i < proto.overrides_size(); ++i) {
    UQ_ASSIGN_OR_RETURN(ModuleOverride module_override, OverrideFromProto(proto.overrides(i), i));
    spec.overrides.push_back(std::move(module_override));
  }
#define UQ_TAKE(field) \
  if (proto.has_##field()) spec.field = proto.field()
  UQ_TAKE(evaluation_entry);
  UQ_TAKE(evaluation_window);
  UQ_TAKE(evaluation_max_windows);
  UQ_TAKE(bits);
  UQ_TAKE(group_size);
  UQ_TAKE(num_samples);
  UQ_TAKE(sequence_length);
  UQ_TAKE(epochs);
  UQ_TAKE(batch_size);
  UQ_TAKE(input_prob);
  UQ_TAKE(uniform_learning_rate);
  UQ_TAKE(binary_learning_rate);
  UQ_TAKE(grid_steps);
  UQ_TAKE(alternating_rounds);
  UQ_TAKE(remap_period);
  UQ_TAKE(seed);
  UQ_TAKE(pipeline_rounds);
#undef UQ_TAKE
  return spec;
}

v1::QuantizationSpec SpecToProto(const QuantizationSpec& spec) {
  v1::QuantizationSpec proto;
  proto.set_model_uri(spec.model_uri);
  proto.set_calibration_uri(spec.calibration_uri);
  proto.set_output_uri(spec.output_uri);
  proto.set_evaluation_uri(spec.evaluation_uri);
  proto.set_evaluation_entry(spec.evaluation_entry);
  proto.set_evaluation_window(spec.evaluation_window);
  proto.set_evaluation_max_windows(spec.evaluation_max_windows);
  proto.set_method(MethodToProto(spec.method));
  proto.set_bits(spec.bits);
  proto.set_group_size(spec.group_size);
  for (const ModuleOverride& module_override : spec.overrides) {
    v1::ModuleOverride* out = proto.add_overrides();
    out->set_pattern(module_override.pattern);
    if (module_override.bits != 0) out->set_bits(module_override.bits);
    if (module_override.group_size != -1) out->set_group_size(module_override.group_size);
    out->set_full_precision(module_override.full_precision);
  }
  proto.set_num_samples(spec.num_samples);
  proto.set_sequence_length(spec.sequence_length);
  proto.set_epochs(spec.epochs);
  proto.set_batch_size(spec.batch_size);
  proto.set_input_prob(spec.input_prob);
  proto.set_uniform_learning_rate(spec.uniform_learning_rate);
  proto.set_binary_learning_rate(spec.binary_learning_rate);
  proto.set_grid_steps(spec.grid_steps);
  proto.set_alternating_rounds(spec.alternating_rounds);
  proto.set_remap_period(spec.remap_period);
  proto.set_seed(spec.seed);
  proto.set_schedule(ScheduleToProto(spec.schedule));
  proto.set_pipeline_rounds(spec.pipeline_rounds);
  return proto;
}

}  // namespace uniquanf
