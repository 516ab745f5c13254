// ListJobs: filter (AIP-160, the part that job_service.proto names), order (AIP-132) and pages
// (AIP-158) over a snapshot of all jobs.
//
// Thread safety: values and free functions. Errors: kInvalidArgument with reason INVALID_FILTER,
// INVALID_ORDER, INVALID_PAGE_TOKEN or INVALID_REQUEST.
#ifndef UNIQUANF_SERVER_SERVICE_JOB_LISTING_H_
#define UNIQUANF_SERVER_SERVICE_JOB_LISTING_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/core/types.h"

namespace uniquanf::server {

class JobFilter {
 public:
  static absl::StatusOr<JobFilter> Parse(absl::string_view text);
  bool Matches(const Job& job) const;

 private:
  enum class Field { kState, kTenant, kDevice, kLabel, kCreateTime, kUpdateTime, kPriority };
  enum class Operator { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual };
  struct Term {
    Field field;
    std::string label;
    Operator op;
    std::string text;
    absl::Time time;
    int64_t number = 0;
  };
  static bool Holds(const Term& term, const Job& job);
  std::vector<std::vector<Term>> clauses_;  // each holds when one of its terms does
};

struct Page {
  std::vector<std::shared_ptr<const Job>> jobs;
  std::string next_page_token;
};
// `page_size` 0: 50. `jobs` in any order: all that the caller may know of, which `whose` tells from
// those of others; pages of one are none of another.
absl::StatusOr<Page> ListPage(std::vector<std::shared_ptr<const Job>> jobs,
                              absl::string_view filter, absl::string_view order_by,
                              int32_t page_size, absl::string_view page_token,
                              absl::string_view whose = "");

// Pages of anything that has an order of its own: tokens carry the last key. `scope` is what must
// not change between pages.
inline constexpr int32_t kMaxPageSize = 1000;
absl::StatusOr<int32_t> CheckPageSize(int32_t page_size);
std::string MakePageToken(absl::string_view scope, absl::string_view last_key);
absl::StatusOr<std::string> ParsePageToken(absl::string_view scope, absl::string_view token);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_JOB_LISTING_H_
