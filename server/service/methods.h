// Every method of the services, and who may call it: the one table that the door (call.h) asks.
//
// A handler names its row by MethodRow, which does not compile for a method that has none; a test
// walks the protos' descriptors and compares.
// Thread safety: constants and free functions.
#ifndef UNIQUANF_SERVER_SERVICE_METHODS_H_
#define UNIQUANF_SERVER_SERVICE_METHODS_H_

#include <string_view>

namespace uniquanf::server {

// What a caller may be; a caller may be several.
enum class Role : unsigned {
  kUser = 1,      // has jobs
  kOperator = 2,  // looks after server and workers
  kWorker = 4,    // runs tasks
};

struct Method {
  std::string_view service;
  std::string_view name;
  Role role;  // that a caller must have
};

inline constexpr Method kMethods[] = {
    {"JobService", "CreateJob", Role::kUser},
    {"JobService", "GetJob", Role::kUser},
    {"JobService", "ListJobs", Role::kUser},
    {"JobService", "WatchJob", Role::kUser},
    {"JobService", "CancelJob", Role::kUser},
    {"JobService", "RetryJob", Role::kUser},
    {"JobService", "PauseJob", Role::kUser},
    {"JobService", "ResumeJob", Role::kUser},
    {"JobService", "DeleteJob", Role::kUser},
    {"JobService", "GetTask", Role::kUser},
    {"JobService", "ListTasks", Role::kUser},
    {"WorkerService", "Synchronize", Role::kWorker},
    {"AdminService", "ListWorkers", Role::kOperator},
    {"AdminService", "DrainWorker", Role::kOperator},
    {"AdminService", "UndrainWorker", Role::kOperator},
    {"AdminService", "GetServerInfo", Role::kOperator},
    {"AdminService", "ConfirmWallClock", Role::kOperator},
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
