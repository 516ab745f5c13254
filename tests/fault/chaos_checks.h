// What must hold after a chaos run, of what can be read then. Each returns what is violated.
// Thread safety: free functions.
#ifndef UNIQUANF_TESTS_FAULT_CHAOS_CHECKS_H_
#define UNIQUANF_TESTS_FAULT_CHAOS_CHECKS_H_

#include <map>
#include <string>
#include <vector>

#include "client/include/uniquanf/client.h"

namespace uniquanf {

// Of a job that succeeded: every task did, and every attempt but its last ended by a recorded
// failure or was one of `max_releases` that drained workers gave back.
std::vector<std::string> CheckTasks(const JobUpdate& update, int max_releases);

// An artifact's files, by path, are those of the undisturbed run.
std::vector<std::string> CheckBytes(const std::map<std::string, std::string>& bytes,
                                    const std::map<std::string, std::string>& reference);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FAULT_CHAOS_CHECKS_H_
