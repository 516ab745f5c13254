#include "client/include/uniquanf/types.h"

#include "common/base/enum_rows.h"

namespace uniquanf {

absl::string_view WorkerStateName(WorkerState state) {
  static constexpr EnumRow<WorkerState> kRows[] = {{WorkerState::kReady, "READY"},
                                                   {WorkerState::kDraining, "DRAINING"},
                                                   {WorkerState::kLost, "LOST"},
                                                   {WorkerState::kQuarantined, "QUARANTINED"}};
  return EnumName(kRows, state, "UNKNOWN");
}

}  // namespace uniquanf
