// The list of all families. family_list.inc names the files of this folder; CMake writes it.
#include "worker/model/families/family.h"

namespace uniquanf {

#define UQ_FAMILY_FILE(name)       \
  namespace families {             \
  absl::Span<const Family> name(); \
  }
#include "family_list.inc"
#undef UQ_FAMILY_FILE

const std::vector<const Family*>& Families() {
  static const auto* const all = [] {
    auto* list = new std::vector<const Family*>;
#define UQ_FAMILY_FILE(name) \
  for (const Family& family : families::name()) list->push_back(&family);
#include "family_list.inc"
#undef UQ_FAMILY_FILE
    return list;
  }();
  return *all;
}

}  // namespace uniquanf
