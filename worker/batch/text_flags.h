// Flags of commands that read text files themselves. Thread safety: none needed.
#ifndef UNIQUANF_WORKER_BATCH_TEXT_FLAGS_H_
#define UNIQUANF_WORKER_BATCH_TEXT_FLAGS_H_

#include "common/base/flag_set.h"
#include "worker/text/text_tokens.h"

namespace uniquanf::batch {

// Declares --text-field, --text-packing and the other settings; writes `settings`.
void AddTextFlags(FlagSet* flags, TextSettings* settings);

}  // namespace uniquanf::batch

#endif  // UNIQUANF_WORKER_BATCH_TEXT_FLAGS_H_
