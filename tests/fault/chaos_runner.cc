// Chaos runs by seed:
//   chaos_runner [--seed=N] [--runs=M] [--s3] [--postgres] [--failure-dir=DIR] [--trace]
// Prints a line for each; exits with 1 when an invariant broke, with all that is needed to look.
// --s3 and --postgres start the servers of scripts/{s3,postgres}-server.sh; a part of the seeds
// works on them and kills them. Exits with 77, for "skip", where they are not to be had.
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/flag_set.h"
#include "tests/fault/chaos_run.h"
#include "tests/integration/s3_test_server.h"

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  int seed = 1, num_runs = 1;
  bool s3 = false, postgres = false, trace = false;
  uniquanf::ChaosOptions options;
  options.binary_dir = UNIQUANF_BINARY_DIR "/bin";
  uniquanf::FlagSet flags("chaos_runner [flags]", "Small jobs in a hostile world, by seed.");
  flags.Int("seed", &seed, 0, 1000000000, "of the first run; each next one has the next");
  flags.Int("runs", &num_runs, 1, 1000000, "how many");
  flags.Bool("s3", &s3, "start an S3 server and run a part of the seeds on it, failing and killed");
  flags.Bool(
      "postgres", &postgres,
      "start a PostgreSQL server; a part of the seeds keeps its state there, with two servers");
  flags.Bool("identity", &options.identity,
             "a closed service: TLS, certificates and a policy for server, workers and client");
  flags.Bool("trace", &trace, "print what is done to every run");
  flags.String("failure-dir", "DIR", &options.failure_dir, "keep the logs of failed runs there");
  flags.Bool("keep-all-logs", &options.keep_all_logs, "there, also of runs that went well");
  flags.String("binary-dir", "DIR", &options.binary_dir, "where the programs are");
  const absl::Status parsed = flags.Parse({argv + 1, argv + argc});
  if (!parsed.ok() || flags.help_requested()) {
    std::fprintf(stderr, "%s\n%s", std::string(parsed.message()).c_str(), flags.Help().c_str());
    return parsed.ok() ? 0 : 2;
  }
  uniquanf::PostgresServer database;
  if (postgres) {
    if (const int status = database.Start(); status != 0) return status;
    options.postgres = &database;
  }
  uniquanf::ChaosWorld world(options.binary_dir);
  std::unique_ptr<uniquanf::S3TestServer> server;
  std::unique_ptr<uniquanf::ChaosWorld> s3_world;
  if (s3) {
    server = std::make_unique<uniquanf::S3TestServer>();
    if (const int status = server->StartDurable(); status != 0) return status;
    options.s3 = {[&server] { return server->Crash(); }, [&server] { return server->Restart(); }};
    options.s3_address = server->UseInThisProcess();
    s3_world = std::make_unique<uniquanf::ChaosWorld>(options.binary_dir);
    s3_world->MoveInputsTo(absl::StrCat("s3://uniquanf/chaos-inputs-", seed));
    options.s3_world = s3_world.get();
  }
  int num_failed = 0;
  for (int i = 0; i < num_runs; ++i) {
    const uniquanf::ChaosResult result = uniquanf::RunChaos(seed + i, world, options);
    std::printf("seed %d: %s%s\n", seed + i, result.violations.empty() ? "" : "FAILED ",
                result.summary.c_str());
    if (!result.violations.empty()) ++num_failed;
    if (trace || !result.violations.empty()) {
      for (const std::string& line : result.trace) std::printf("    %s\n", line.c_str());
    }
    std::fflush(stdout);
  }
  std::printf("%d of %d runs failed (seeds %d to %d)\n", num_failed, num_runs, seed,
              seed + num_runs - 1);
  return num_failed == 0 ? 0 : 1;
}
