// What an HTTP address has had. Thread safety: plain values.
#ifndef UNIQUANF_SERVER_HTTP_HTTP_COUNTS_H_
#define UNIQUANF_SERVER_HTTP_HTTP_COUNTS_H_

#include <cstdint>

namespace uniquanf::server {

struct HttpCounts {
  int64_t num_open = 0;
  int64_t num_accepted = 0;
  int64_t num_refused = 0;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_HTTP_COUNTS_H_
