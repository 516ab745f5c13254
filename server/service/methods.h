// Every method of the services, and what it does with what: the one table that the door (call.h)
// asks. Which role may do that is in server/access/principal.h.
//
// A handler names its row by MethodRow, which does not compile for a method that has none; a test
// walks the protos' descriptors and compares.
// Thread safety: constants and free functions.
#ifndef UNIQUANF_SERVER_SERVICE_METHODS_H_
#define UNIQUANF_SERVER_SERVICE_METHODS_H_

#include <string_view>

#include "server/access/principal.h"

namespace uniquanf::server {

struct Method {
  std::string_view service;
  std::string_view name;
  Verb verb;
  Resource resource;
};

inline constexpr Method kMethods[] = {
    {"JobService", "CreateJob", Verb::kCreate, Resource::kJob},
    {"JobService", "GetJob", Verb::kRead, Resource::kJob},
    {"JobService", "ListJobs", Verb::kRead, Resource::kJob},
    {"JobService", "WatchJob", Verb::kRead, Resource::kJob},
    {"JobService", "CancelJob", Verb::kCancel, Resource::kJob},
    {"JobService", "RetryJob", Verb::kRetry, Resource::kJob},
    {"JobService", "PauseJob", Verb::kPause, Resource::kJob},
    {"JobService", "ResumeJob", Verb::kResume, Resource::kJob},
    {"JobService", "DeleteJob", Verb::kDelete, Resource::kJob},
    {"JobService", "GetTask", Verb::kRead, Resource::kJob},
    {"JobService", "ListTasks", Verb::kRead, Resource::kJob},
    {"JobService", "GetJobMetrics", Verb::kRead, Resource::kJob},
    {"JobService", "EstimateJob", Verb::kCreate, Resource::kJob},
    {"JobService", "WatchJobs", Verb::kRead, Resource::kJob},
    {"WorkerService", "Synchronize", Verb::kWork, Resource::kWorker},
    {"AdminService", "ListWorkers", Verb::kRead, Resource::kWorker},
    {"AdminService", "DrainWorker", Verb::kDrain, Resource::kWorker},
    {"AdminService", "UndrainWorker", Verb::kDrain, Resource::kWorker},
    {"AdminService", "GetServerInfo", Verb::kRead, Resource::kServer},
    {"AdminService", "ConfirmWallClock", Verb::kSet, Resource::kServer},
};

// The row of the method of this name; names are unique over the services.
consteval const Method& MethodRow(std::string_view name) {
  for (const Method& method : kMethods) {
    if (method.name == name) return method;
  }
  throw "a method needs a row in kMethods";  // reached by no program: it does not compile
}

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_METHODS_H_
