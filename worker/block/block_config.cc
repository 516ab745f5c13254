#include <utility>

#include "worker/block/block.h"

namespace uniquanf {

const char* LinearName(Linear linear) {
  switch (linear) {
    case Linear::kQ:
      return "self_attn.q_proj";
    case Linear::kK:
      return "self_attn.k_proj";
    case Linear::kV:
      return "self_attn.v_proj";
    case Linear::kO:
      return "self_attn.o_proj";
    case Linear::kGate:
      return "mlp.gate_proj";
    case Linear::kUp:
      return "mlp.up_proj";
    case Linear::kDown:
      return "mlp.down_proj";
  }
  return "?";
}

std::pair<int64_t, int64_t> BlockConfig::LinearShape(Linear linear) const {
  const int64_t query_width = static_cast<int64_t>(num_heads) * head_dim;
  const int64_t key_width = static_cast<int64_t>(num_kv_heads) * head_dim;
  switch (linear) {
    case Linear::kQ:
      return {query_width, hidden_size};
    case Linear::kK:
    case Linear::kV:
      return {key_width, hidden_size};
    case Linear::kO:
      return {hidden_size, query_width};
    case Linear::kGate:
    case Linear::kUp:
      return {intermediate_size, hidden_size};
    case Linear::kDown:
      return {hidden_size, intermediate_size};
  }
  return {0, 0};
}

bool BlockConfig::HasBias(Linear linear) const {
  switch (linear) {
    case Linear::kQ:
    case Linear::kK:
    case Linear::kV:
      return qkv_bias;
    case Linear::kO:
      return o_bias;
    case Linear::kGate:
    case Linear::kUp:
    case Linear::kDown:
      return mlp_bias;
  }
  return false;
}

}  // namespace uniquanf
