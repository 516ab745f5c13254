// What families with Mamba 2's state space read alike.
//
// Errors: those of config_fields.h.
#ifndef UNIQUANF_WORKER_MODEL_STATE_SPACE_FIELDS_H_
#define UNIQUANF_WORKER_MODEL_STATE_SPACE_FIELDS_H_

#include "absl/status/status.h"
#include "worker/model/family_fields.h"

namespace uniquanf {

// Names of the fields. Without `width` the inner size is heads · head size.
struct StateSpaceNames {
  absl::string_view heads = "num_heads", head_dim = "head_dim", groups = "n_groups";
  absl::string_view state = "state_size", taps = "conv_kernel";
  absl::string_view conv_bias = "use_conv_bias", bias = "use_bias", width;
};
// mamba_n_heads and its like: Falcon-H1, Granite 4, Bamba.
StateSpaceNames MambaNames();

// Everything of RecurrentTraits but the module and how its norm and gate go.
absl::Status ReadStateSpace(const Fields& fields, const StateSpaceNames& names,
                            CommonFields* common);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_STATE_SPACE_FIELDS_H_
