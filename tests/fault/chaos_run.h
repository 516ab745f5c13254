// One seeded run of a small job in a hostile world: server and workers are killed at random times
// and at named crash points, stopped beyond their leases, drained; connections break; the object
// store fails requests, and so do, killed, the object store and the database. Then the invariants
// are checked.
//
// The seed draws the whole plan; what the machine's timing makes of it differs a little from run to
// run. Thread safety: runs are independent of each other.
#ifndef UNIQUANF_TESTS_FAULT_CHAOS_RUN_H_
#define UNIQUANF_TESTS_FAULT_CHAOS_RUN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/fault/chaos_world.h"
#include "tests/fault/outage.h"
#include "tests/support/postgres_server.h"

namespace uniquanf {

struct ChaosOptions {
  std::string binary_dir;
  // "127.0.0.1:PORT" of an S3 server whose credentials are in this process's environment, and the
  // world with its inputs there: a part of the seeds works on it, through a failing proxy. Or none.
  std::string s3_address;
  const ChaosWorld* s3_world = nullptr;
  // That server's; without them it is not killed.
  Crashable s3;
  // A part of the seeds keeps its state there, with two servers, and kills it. Or none.
  PostgresServer* postgres = nullptr;
  // Where the logs of a run with a violation are copied to; "": nowhere.
  std::string failure_dir;
  // The service is closed: TLS, and everybody has a certificate that the policy knows.
  bool identity = false;
  bool keep_all_logs = false;  // there, of every run
};

struct ChaosResult {
  std::vector<std::string> violations;  // empty: all held
  std::string summary;                  // one line
  std::vector<std::string> trace;       // what was done to it, with times
};

ChaosResult RunChaos(uint64_t seed, const ChaosWorld& world, const ChaosOptions& options);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FAULT_CHAOS_RUN_H_
