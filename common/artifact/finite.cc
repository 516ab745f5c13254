#include "common/artifact/finite.h"

#include <cstring>

#include "absl/strings/match.h"

namespace uniquanf {
namespace {

// All bits of the exponent set.
template <typename Word>
std::optional<int64_t> FindExponent(absl::string_view bytes, Word exponent) {
  const auto count = static_cast<int64_t>(bytes.size() / sizeof(Word));
  for (int64_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, bytes.data() + i * sizeof(Word), sizeof(Word));
    if ((word & exponent) == exponent) return i;
  }
  return std::nullopt;
}

}  // namespace

bool MustBeFinite(absl::string_view tensor_name) {
  if (absl::StrContains(tensor_name, "rotary_emb.")) return false;
  for (const char* ending : {".attn.bias", ".masked_bias", ".attention.bias"}) {
    if (absl::EndsWith(tensor_name, ending)) return false;
  }
  return true;
}

std::optional<int64_t> FindNotFinite(SafetensorsDType dtype, absl::string_view bytes) {
  switch (dtype) {
    case SafetensorsDType::kBF16:
      return FindExponent<uint16_t>(bytes, 0x7F80);
    case SafetensorsDType::kF16:
      return FindExponent<uint16_t>(bytes, 0x7C00);
    case SafetensorsDType::kF32:
      return FindExponent<uint32_t>(bytes, 0x7F800000);
    case SafetensorsDType::kF64:
      return FindExponent<uint64_t>(bytes, 0x7FF0000000000000);
    default:
      return std::nullopt;
  }
}

}  // namespace uniquanf
