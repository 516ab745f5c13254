// What is behind Client's pointer.
#ifndef UNIQUANF_CLIENT_SRC_CLIENT_IMPL_H_
#define UNIQUANF_CLIENT_SRC_CLIENT_IMPL_H_

#include <memory>

#include "client/include/uniquanf/client.h"
#include "client/src/caller.h"
#include "common/base/ids.h"

namespace uniquanf {

struct Client::Impl {
  std::shared_ptr<Caller> caller;
  std::unique_ptr<IdGenerator> ids;
};

}  // namespace uniquanf

#endif  // UNIQUANF_CLIENT_SRC_CLIENT_IMPL_H_
